"""Read which group or project a person means: a number, a full path, or its page's address. Pure."""

import re
from urllib.parse import urlsplit

_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*")


class TargetError(ValueError):
    """It names neither, or one of another server."""


def read_target(text: str, home: str) -> int | str:
    """The number or the full path of a group or project.

    Args:
        text: what a person gave.
        home: GitLab's address, with its path if it has one.

    Raises:
        TargetError: it is none, or the address is not on that GitLab.
    """
    path = text
    if "://" in text:
        own = urlsplit(home)
        try:
            given = urlsplit(text)
        except ValueError:
            raise TargetError(f"{text!r} is no address") from None
        if given.netloc.lower() != own.netloc.lower() or not f"{given.path}/".startswith(f"{own.path}/"):
            raise TargetError(f"{text} is not on {home}, the GitLab of APPRENTICE_GITLAB_URL: is that the right one?")
        path = given.path.removeprefix(own.path)
    path = path.partition("/-/")[0].strip("/").removeprefix("groups/").removesuffix(".git")
    if not _PATH.fullmatch(path):
        raise TargetError(f"{text!r} names no group and no project: write its full path, like team/tools/shop")
    return int(path) if path.isdecimal() else path
