"""What more than one test file needs: a real vLLM with a small model, and an adapter for it.

The environment and the model come from the ordinary cache, through the product's own code; the first run makes
them. One vLLM serves the whole session.
"""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from coverage import Coverage
from hypothesis import is_hypothesis_test, settings

from bot.local import models, server
from bot.local.command import Serving
from bot.local.environment import Device, ensure, number_format
from bot.local.progress import Shown
from bot.local.state import RunningStudent
from bot.redact import redact
from bot.settings import load
from tests.vllm_adapter import make_adapter

settings.register_profile("any machine", deadline=None)  # a busy one takes as long as it takes
settings.load_profile("any machine")

pytest_plugins = ["tests.postgres"]

SMALL = "smollm2-135m-instruct"

# Started in the background by a shell (CI may), the tests and all they start would ignore Ctrl-C for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """pytest-cov starts a second, useless measurement in each of xdist's workers, which would not heed `no_cover`."""
    useless = Coverage.current()
    if hasattr(session.config, "workerinput") and useless is not None:
        useless.stop()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Have Kingfisher's rules compiled before xdist starts its workers, or on a new machine each compiles them."""
    redact("")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hypothesis draws other examples each time, so its tests count nothing towards coverage: it would depend on luck.

    Without a tracer they also take half the time.
    """
    for item in items:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
            item.add_marker("no_cover")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def small_base() -> models.Base:
    """The converted SmolLM2-135M: it cannot review, and it is enough to see what vLLM does."""
    cache = load({}).cache_dir
    with Shown() as progress:
        return models.fetch(
            models.manifest()[SMALL],
            cache_dir=cache,
            python=lambda: ensure(cache, Device.CPU, progress),
            progress=progress,
        )


@pytest.fixture(scope="session")
def vllm_serving(small_base: models.Base) -> Serving:
    """How the session's vLLM is started."""
    with Shown() as progress:
        python = ensure(load({}).cache_dir, Device.CPU, progress)
    return Serving(
        python=python,
        device=Device.CPU,
        name=small_base.name,
        folder=small_base.folder,
        port=free_port(),
        context=4096,
        dtype=number_format(Device.CPU, Path("/proc/cpuinfo").read_text()),
    )


@pytest.fixture(scope="session")
def vllm_student(
    vllm_serving: Serving, small_base: models.Base, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningStudent]:
    """A running vLLM. Its state folder is that of its log."""
    state_dir = tmp_path_factory.mktemp("student")
    with Shown() as progress:
        yield server.start(
            vllm_serving,
            small_base,
            state_dir=state_dir,
            cache_dir=load({}).cache_dir,
            adapters={},
            progress=progress,
        )
        server.stop(state_dir, progress)


@pytest.fixture(scope="session")
def tiny_adapter(small_base: models.Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that makes the small base answer differently."""
    return make_adapter(tmp_path_factory.mktemp("adapters") / "tiny", small_base.folder, seed=7)
