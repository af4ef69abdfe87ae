"""Connections to the catalog: which of them are used again."""

from pathlib import Path

import pytest

from dasd_resources.storage.connections import attach
from dasd_resources.storage.warehouse import Warehouse

COUNT = "SELECT count(*) FROM withdrawn_prompts"
INSERT = "INSERT INTO withdrawn_prompts(prompt_id, question_hash, reason, withdrawn_at) VALUES ('a', 'b', 'c', now())"


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


def test_idle_connections_do_not_pile_up(tmp_path: Path) -> None:
    homes = [Warehouse(home=str(tmp_path / str(number))) for number in range(5)]
    seen = set()
    for warehouse in homes:
        warehouse.migrate()
        for read_only in (True, False):
            with attach(warehouse.catalog, read_only=read_only) as connection:
                seen.add(id(connection))
    assert len(seen) <= 3
