"""Connections to the catalog: which of them are used again."""

import shutil
from pathlib import Path

import pytest

from dasd_resources.storage.connections import attach
from dasd_resources.storage.warehouse import Warehouse

COUNT = "SELECT count(*) FROM withdrawn_prompts"
INSERT = "INSERT INTO withdrawn_prompts(prompt_id, question_hash, reason, withdrawn_at) VALUES ('a', 'b', 'c', now())"

ATTACHED = "SELECT database_oid FROM duckdb_databases() WHERE database_name = 'dasd'"  # another each time


@pytest.mark.storage
def test_a_commit_leaves_the_readers_connection_attached(warehouse: Warehouse) -> None:
    """Attaching takes 0.06 s, and an asset reads and commits in turn."""
    warehouse.migrate()
    with attach(warehouse.catalog, read_only=True) as reader:
        assert reader.sql(COUNT).fetchone() == (0,)
    with attach(warehouse.catalog) as writer:
        assert writer is not reader
        writer.execute(INSERT)
    with attach(warehouse.catalog, read_only=True) as again:
        assert again is reader
        assert again.sql(COUNT).fetchone() == (1,)


@pytest.mark.storage
def test_a_writer_stays_attached_where_no_session_can_end(warehouse: Warehouse) -> None:
    """DuckLake frees nothing of what it loads as it attaches: a commit after the other would take ever more memory."""
    warehouse.migrate()
    catalog = warehouse.catalog
    with attach(catalog) as writer:
        writer.execute(INSERT)
    with attach(catalog) as again:
        attached_at = again.sql(ATTACHED).fetchone()
    with attach(catalog) as again:
        assert (again.sql(ATTACHED).fetchone() == attached_at) is not catalog.session_may_end


def test_a_writer_of_a_catalog_that_was_replaced_is_attached_anew(tmp_path: Path) -> None:
    """As when a backup is restored in the place of what was there."""
    warehouse, other = (Warehouse(home=str(tmp_path / name)) for name in ("home", "other"))
    for one in (warehouse, other):
        one.migrate()
    with attach(warehouse.catalog) as writer:
        writer.execute(INSERT)
    shutil.rmtree(warehouse.home)
    shutil.move(other.home, warehouse.home)
    with attach(warehouse.catalog) as writer:
        assert writer.sql(COUNT).fetchone() == (0,)


def test_idle_connections_do_not_pile_up(tmp_path: Path) -> None:
    homes = [Warehouse(home=str(tmp_path / str(number))) for number in range(5)]
    seen = set()
    for warehouse in homes:
        warehouse.migrate()
        for read_only in (True, False):
            with attach(warehouse.catalog, read_only=read_only) as connection:
                seen.add(id(connection))
    assert len(seen) <= 3
