"""A commit's files are read back for their hashes once, and no other writer waits while that takes long."""

from collections.abc import Callable
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import polars as pl
import pytest

from dasd_resources.storage.catalogs import Catalog
from dasd_resources.storage.connections import attach
from dasd_resources.storage.data_files import CATALOG_TABLES, HASHES, damaged, data_files
from dasd_resources.storage.data_places import AT_ONCE_BYTES, DataPlace, LocalFolder, ObjectStore
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.upkeep import delete_unreferenced, merge_small_files
from dasd_resources.storage.warehouse import Warehouse

pytestmark = pytest.mark.storage
NUM_ROWS = 50  # enough for a data file of their own


class Watched(Lake):
    """A lake whose data files all take long to read; `on_read` is called with the path of each before that."""

    def __init__(self, lake: Lake, on_read: Callable[[str], object]) -> None:
        super().__init__(lake.home)
        self._catalog = replace(lake.catalog, data=watched(lake, on_read))

    @property
    def catalog(self) -> Catalog:
        return self._catalog


def watched(lake: Lake, on_read: Callable[[str], object]) -> DataPlace:
    place = lake.catalog.data
    kind: type[LocalFolder] | type[ObjectStore] = type(place)
    more = AT_ONCE_BYTES if isinstance(place, LocalFolder) else 0  # in an object store any file takes long

    class WatchedPlace(kind):
        def read_at_once(self, num_bytes: int) -> bool:
            return super().read_at_once(more + num_bytes)

        def open(self, path: str) -> BinaryIO:
            if path.endswith(".parquet"):  # not what says whose the place is
                with lake.catalog.locked(timeout=0):  # or a Timeout: it is held
                    pass
                on_read(path)
            return super().open(path)

    return WatchedPlace(*astuple(place))


def append(lake: Lake, name: str) -> int:
    cuts = pl.DataFrame({"rollout_id": [f"{name}-{i}" for i in range(NUM_ROWS)]})
    with lake.commit("cuts") as transaction:
        return transaction.append_missing("prefix_cuts", cuts.with_columns(seed=pl.lit(1), cut_version=pl.lit("1")))


def unhashed(lake: Lake) -> list[str]:
    files = data_files(lake.catalog)
    assert list(damaged(lake.catalog, files)) == []
    return [file.path for file in files if file.sha256 is None]


def test_others_commit_while_a_commits_files_are_read_back(warehouse: Warehouse) -> None:
    read = list[str]()

    def commit_beside(path: str) -> None:
        read.append(path)
        append(warehouse, "beside")

    lake = Watched(warehouse, commit_beside)
    assert append(lake, "a") == NUM_ROWS
    assert warehouse.read("SELECT count(*) FROM prefix_cuts").item() == 2 * NUM_ROWS
    assert unhashed(warehouse) == []
    assert append(lake, "a") == 0
    assert len(read) == 1  # a commit of nothing does not read the files of the one before


def test_files_that_are_merged_before_they_are_read_back_are_left_out(warehouse: Warehouse) -> None:
    def merge(path: str) -> None:
        merge_small_files(warehouse, "upkeep")
        delete_unreferenced(warehouse, "upkeep", datetime.now(UTC) + timedelta(days=2))
        assert warehouse.catalog.data.sizes([path]) == {}

    append(warehouse, "a")
    assert append(Watched(warehouse, merge), "b") == NUM_ROWS
    assert len(data_files(warehouse.catalog)) == 1
    assert unhashed(warehouse) == []


def test_a_commit_is_made_whatever_fails_as_its_files_are_read_back(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    def away(path: str) -> None:
        raise OSError("the store is away")

    assert append(Watched(warehouse, away), "a") == NUM_ROWS
    [line] = caplog.messages
    assert line == "committed, but files of it have no hash until the next maintenance: the store is away"
    assert len(unhashed(warehouse)) == 1
    assert warehouse.hash_files() == 1


def test_a_commit_is_made_whatever_fails_as_its_hashes_are_kept(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection, in the middle of another transaction by then, is not used again."""
    append(warehouse, "a")
    hashes = f"{CATALOG_TABLES}.{HASHES}"
    with warehouse.catalog.locked(), attach(warehouse.catalog) as connection:
        connection.execute(f"DROP TABLE {hashes}; CREATE TABLE {hashes}(other INT)")
    assert append(warehouse, "b") == append(warehouse, "c") == NUM_ROWS
    assert len(caplog.messages) == 2
    with warehouse.catalog.locked(), attach(warehouse.catalog) as connection:
        connection.execute(f"DROP TABLE {hashes}; CREATE TABLE {hashes}(file_id BIGINT, sha256 VARCHAR)")
    assert warehouse.read("SELECT count(*) FROM prefix_cuts").item() == 3 * NUM_ROWS
    assert warehouse.hash_files() == 3


def test_who_ends_before_files_are_read_back_leaves_them_to_be_first_seen(warehouse: Warehouse) -> None:
    def end(path: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        append(Watched(warehouse, end), "a")
    [path] = unhashed(warehouse)
    assert append(warehouse, "a") == 0
    assert unhashed(warehouse) == [path]
    assert warehouse.hash_files() == 1
    assert unhashed(warehouse) == []
