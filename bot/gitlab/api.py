"""Typed calls of GitLab's REST API, from any thread."""

import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import TypeVar

import gitlab
import requests
from gitlab.exceptions import GitlabError
from pydantic import BaseModel, ValidationError

from bot import __version__
from bot.forge import ForgeError
from bot.gitlab import trouble
from bot.gitlab.access import Access
from bot.gitlab.door import Door

Body = Mapping[str, object]

_Answer = TypeVar("_Answer", bound=BaseModel)

_PAGE = 100  # the most that GitLab gives
_CHUNK = 64 * 1024
_NOT_GITLAB = (GitlabError, KeyError, TypeError)  # what python-gitlab raises where a list is none


class Api:
    """GitLab's API: paths begin below `/api/v4`. Every method may raise a `ForgeError`.

    Args:
        access: where GitLab is.

    Raises:
        UntrustedForge: the CA file cannot be used.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self._trusted = access.trusted()
        self._doors: weakref.WeakSet[Door] = weakref.WeakSet()
        self._of_thread = threading.local()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            doors = list(self._doors)
        for door in doors:
            door.close()

    @property
    def _client(self) -> gitlab.Gitlab:
        """The thread's own one: a session is not to be shared."""
        known: gitlab.Gitlab | None = getattr(self._of_thread, "client", None)
        if known is None:
            door = Door(self.access, self._trusted)
            with self._lock:
                self._doors.add(door)
            known = self._of_thread.client = gitlab.Gitlab(
                self.access.url,
                private_token=self.access.token,
                keep_base_url=True,  # GitLab may know itself by another address than we do
                user_agent=f"apprentice/{__version__}",
                session=door,
            )
        return known

    def get(self, path: str, model: type[_Answer], query: Body | None = None) -> _Answer:
        """Read one thing."""
        try:
            return self._read(path, model, self._client.http_get(path, query_data=dict(query or {})))
        except GitlabError:
            raise trouble.nonsense(self.access, path) from None

    def pages(self, path: str, model: type[_Answer], query: Body | None = None) -> Iterator[_Answer]:
        """Read a list, page by page as it is needed."""
        try:
            for item in self._client.http_list(path, query_data=dict(query or {}), iterator=True, per_page=_PAGE):
                yield self._read(path, model, item)
        except _NOT_GITLAB:
            raise trouble.nonsense(self.access, path) from None

    def newest(self, path: str, model: type[_Answer], most: int) -> list[_Answer]:
        """Read the first page of a list."""
        try:
            items = self._client.http_list(path, page=1, per_page=most)
            return [self._read(path, model, item) for item in items]
        except _NOT_GITLAB:
            raise trouble.nonsense(self.access, path) from None

    def post(self, path: str, body: Body, model: type[_Answer]) -> _Answer:
        """Make something. Where this fails, it may have been made all the same."""
        try:
            return self._read(path, model, self._client.http_post(path, post_data=dict(body)))
        except GitlabError:
            raise trouble.nonsense(self.access, path) from None

    def act(self, path: str) -> None:
        """Let something happen. Where this fails, it may have happened all the same."""
        self._client.http_post(path)

    def put(self, path: str, body: Body, model: type[_Answer]) -> _Answer:
        """Change something."""
        try:
            return self._read(path, model, self._client.http_put(path, post_data=dict(body)))
        except GitlabError:
            raise trouble.nonsense(self.access, path) from None

    def delete(self, path: str) -> None:
        """Remove something."""
        self._client.http_delete(path)

    def fetch(self, path: str, most: int, query: Body | None = None) -> tuple[bytes, bool]:
        """Read a file's bytes, and whether that is all of it: no more than `most` and a little are read."""
        failure: ForgeError | None = None
        for _ in range(self.access.tries):
            response = self._client.http_get(path, query_data=dict(query or {}), raw=True, streamed=True)
            if not isinstance(response, requests.Response):
                raise trouble.nonsense(self.access, path)
            data = bytearray()
            try:
                for chunk in response.iter_content(_CHUNK):
                    data += chunk
                    if len(data) > most:
                        break
                return bytes(data[:most]), len(data) <= most
            except requests.RequestException as error:
                failure = trouble.lost(self.access, response.request, error)
            finally:
                response.close()
        raise failure or AssertionError("it is tried once at least")

    def _read(self, path: str, model: type[_Answer], said: object) -> _Answer:
        try:
            return model.model_validate(said)
        except ValidationError:  # its text quotes the answer
            raise trouble.nonsense(self.access, path) from None
