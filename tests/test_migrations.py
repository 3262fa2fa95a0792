from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from bot import migrations
from bot.store import Store, StoreError
from bot.store.rows import Base
from tests.test_store import at_once

REVISIONS = migrations._newest_first()[::-1]


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    yield store
    store.close()


def tables(store: Store) -> set[str]:
    engine = create_engine(store._url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def mark_as(store: Store, revision: str) -> None:
    """Say that the database is at a revision, whatever it holds."""
    with store._write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_the_tables_are_those_of_the_models(store: Store) -> None:
    store.migrate()
    assert tables(store) == {*Base.metadata.tables, "alembic_version"}
    with store._read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_every_revision_goes_up_and_down(store: Store) -> None:
    for number, revision in enumerate(REVISIONS):
        before = tables(store)
        for to in (revision, REVISIONS[number - 1] if number else "base", revision):
            store.migrate(to)
            assert store.revision() == (None if to == "base" else to)
            if to != revision:
                assert tables(store) - {"alembic_version"} == before - {"alembic_version"}
    store.check()
    store.migrate("base")
    assert tables(store) == {"alembic_version"}
    store.migrate()
    store.check()


def test_migrating_again_changes_nothing(store: Store) -> None:
    store.migrate()
    store.remember_project(1, "a", None)
    store.migrate()
    store.migrate(migrations.head())
    assert len(store.projects()) == 1


def test_it_works_from_any_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store.migrate()
    store.check()


def test_several_at_once_migrate_one_after_the_other(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(4)]
    at_once(*(store.migrate for store in stores))
    for store in stores:
        store.check()
        store.close()


def test_who_comes_to_a_new_sqlite_file_at_once_waits(tmp_path: Path) -> None:
    # Without waiting, SQLite refuses about one of forty at once, whatever its busy timeout says.
    for number in range(100):
        stores = [Store(f"sqlite:///{tmp_path}/{number}.sqlite") for _ in range(4)]
        at_once(*(store.revision for store in stores))
        for store in stores:
            store.close()


def test_check_says_what_to_do(store: Store) -> None:
    with pytest.raises(StoreError, match="has no tables yet: run `apprentice migrate`"):
        store.check()
    store.migrate()
    store.check()
    mark_as(store, "9999")
    with pytest.raises(StoreError, match=r"does not know \(9999\): the program is older than the database"):
        store.check()
    with pytest.raises(
        StoreError, match="this program has no revision 9999; it has 0005, 0004, 0003, 0002, 0001, base"
    ):
        store.migrate()
    mark_as(store, "0001")
    with pytest.raises(StoreError, match=r"an older version \(0001\): run `apprentice migrate`"):
        store.check()


def test_an_unknown_revision_is_refused_and_changes_nothing(store: Store) -> None:
    store.migrate()
    with pytest.raises(StoreError, match="no revision 4711"):
        store.migrate("4711")
    store.check()


def test_a_migration_that_fails_leaves_nothing_behind(store: Store) -> None:
    def half_way() -> None:
        with store._migration() as connection:
            migrations.move(connection, "head")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        half_way()
    assert tables(store) == set()
    store.migrate()


def test_foreign_keys_hold_after_a_migration(store: Store) -> None:
    store.migrate()
    orphan = "INSERT INTO notes VALUES (1, 1, 1, 'd', 'f', 'line', 'no review', '2026-11-25')"
    with pytest.raises(StoreError), store._write() as session:
        session.execute(text(orphan))
