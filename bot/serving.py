"""That the student has the adapters that answer: vLLM forgets them when it is started anew.

The learning loop publishes an adapter as a folder of its own, which never changes, and the store says which one serves.
Here the two are brought to every server behind the student's address. Nothing is unloaded here.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bot.endpoint import AdapterRefused, StudentError
from bot.interview import Endpoint, NoStudentError, connect, find_endpoint
from bot.local.files import sha256
from bot.settings import Settings
from bot.store import Store, StoredAdapter
from bot.student import ServedModel, Student

_SECONDS = 60.0
"""How long a server may take to list its adapters, or to load one: others wait meanwhile."""
_CHECKED = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded, and what could not be, each as `ADAPTER at ADDRESS`, the latter with the reason."""

    adapters: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def adapters_dir(chosen: Settings) -> Path:
    """Where the learning loop puts its adapters."""
    return chosen.data_dir / "trainer" / "adapters"


def folder_at_student(chosen: Settings, name: str) -> Path:
    """The folder of an adapter as the student's machine sees it: one name, one folder, for ever."""
    return (chosen.student_adapters_dir or adapters_dir(chosen)) / name


def replicas(chosen: Settings) -> tuple[Endpoint, ...]:
    """All servers behind the student's address.

    Raises:
        NoStudentError: there is no such address.
    """
    endpoint = find_endpoint(chosen)
    urls = (chosen.student_replicas or endpoint.url).split(",")
    return tuple(replace(endpoint, url=url) for url in urls)


def wanted(chosen: Settings, store: Store) -> tuple[StoredAdapter, ...]:
    """The adapters that must be there: those that reviews ask now or will ask next, as far as the store knows them."""
    known = {adapter.name: adapter for adapter in store.adapters()}
    serving = store.serving_adapter()
    shadow = store.shadow_adapter()
    reviewing = {one.name for one in (serving, shadow) if one}
    names = {chosen.student_adapter, *reviewing, *store.adapters_in_use()}
    return tuple(adapter for name, adapter in known.items() if name in names)


def put_back(chosen: Settings, store: Store) -> Loaded:
    """Load what is wanted where it is missing. What goes wrong is given back, and never raised.

    It may run at several places at once, and often: a server that has everything is asked only for its list.

    Raises:
        StoreError: the database cannot be used.
    """
    adapters = wanted(chosen, store)
    if not adapters:
        return Loaded()
    try:
        return asyncio.run(_put_back(chosen, replicas(chosen), adapters))
    except NoStudentError as error:
        return Loaded(problems=(str(error),))


async def _put_back(chosen: Settings, servers: Sequence[Endpoint], adapters: Sequence[StoredAdapter]) -> Loaded:
    done: list[str] = []
    problems: list[str] = []
    for server in servers:
        quick = replace(server, timeout_seconds=_SECONDS)
        try:
            async with connect(quick, chosen, None) as student:
                listed = {model.id for model in await student.models()}
                for adapter in adapters:
                    if adapter.name in listed:
                        continue
                    try:
                        await load(student, adapter, folder_at_student(chosen, adapter.name))
                    except AdapterRefused as error:
                        problems.append(str(error))
                    else:
                        done.append(f"{adapter.name} at {server.url}")
        except StudentError as error:
            problems.append(str(error))
    return Loaded(tuple(done), tuple(problems))


async def load(student: Student, adapter: StoredAdapter, folder: Path) -> None:
    """Load an adapter, if its files are those that were published, as far as they can be seen from here.

    Raises:
        AdapterRefused: they are not, or the student does not take it.
        StudentError: another of its subclasses.
    """
    if problem := changed(folder, adapter.card):
        raise AdapterRefused(f"The adapter {adapter.name} was not loaded: {problem}")
    try:
        await student.load_adapter(adapter.name, folder)
    except AdapterRefused:
        if not is_served(await student.models(), adapter.name, folder):  # somebody else was faster
            raise


def is_served(models: Collection[ServedModel], name: str, folder: Path) -> bool:
    """Whether an adapter is loaded.

    Raises:
        AdapterRefused: its name is taken by another folder. vLLM would go on to answer with that one's weights.
    """
    found = next((model for model in models if model.id == name), None)
    if found is not None and found.root not in {None, str(folder)}:
        raise AdapterRefused(
            f"The student serves {name} from {found.root}, and not from {folder}. Unload that one, or set "
            "APPRENTICE_STUDENT_ADAPTERS_DIR to the folder in which the student's machine finds the adapters."
        )
    return found is not None


def changed(folder: Path, card: Mapping[str, object]) -> str | None:
    """What is not as it was published, in words; None: nothing, or the folder cannot be seen from this machine."""
    files = card.get("files")
    if not folder.is_dir() or not isinstance(files, Mapping):
        return None
    for name in _CHECKED:
        path = folder / name
        if not path.is_file():
            return f"{path} is gone."
        if sha256(path) != files.get(name):
            return f"{path} was changed after it was published."
    return None
