"""Catching up with what no webhook told, against the stand-in."""

from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from bot.clerk import Chores
from bot.domain import MergeRef
from bot.forge import ForgeUnreachable
from bot.gitlab import GitLabForge, door
from bot.serving import Loaded
from bot.store import Store
from tests.fakes import gitlab as stand_in


def test_a_project_that_is_gone_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FIRST_WAIT", 0.01)
    store = Store(f"sqlite:///{tmp_path / 'a.sqlite'}")
    store.migrate()
    swept: list[MergeRef] = []
    with stand_in.serve() as gitlab:
        project = gitlab.project("team/shop")
        project.push("main", {"a": "b\n"})
        project.push("fix", {"a": "c\n"})
        project.open_merge_request("fix")
        forge = GitLabForge(gitlab.url, gitlab.bot_token)
        chores = Chores(
            forge,
            store,
            hooks=lambda: None,
            put_back=Loaded,
            sweep=swept.append,
            clean=lambda keep, name: None,  # noqa: ARG005 -- nothing to clean
            keep=timedelta(days=1),
            debounce=timedelta(seconds=1),
        )
        store.remember_project(4711, "a/deleted", None)
        store.remember_project(project.id, "team/shop", None)
        with structlog.testing.capture_logs() as logs:
            chores.catch_up()
            chores.catch_up()
        assert set(swept) == {MergeRef(project.id, 1)}
        assert store.desk(MergeRef(project.id, 1)) is not None
        assert [line["task"] for line in logs] == ["catch up with a/deleted"]
    with pytest.raises(ForgeUnreachable):
        chores.catch_up()
    forge.close()
    store.close()
