"""A catalog as an earlier release left it."""

from pathlib import Path

from dasd_resources.storage.connections import attach, committing
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.migrations import MIGRATIONS
from dasd_resources.storage.place import catalog_of


def old_catalog(home: Path, num_steps: int) -> Lake:
    """A catalog as a release with so many steps left it."""
    home.mkdir()
    with attach(catalog_of(home)) as connection:
        connection.execute("CREATE TABLE schema_version(version INTEGER NOT NULL)")
        for number, step in enumerate(MIGRATIONS[:num_steps], 1):
            with committing(connection, f"schema {number}", lambda: None):
                connection.execute(step)
                connection.execute("INSERT INTO schema_version VALUES ($number)", {"number": number})
    return Lake(str(home))
