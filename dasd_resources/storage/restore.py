"""A backup -> a home: files are copied to a staging folder, compared with the manifest, and renamed into place at once.

A restored home may lie elsewhere than the one that was saved: what lies in it is named by its place there.
Runs that were under way when the backup was made have no owner, and are declared failed by the next run. A home whose
catalog is a database, or whose data files are in an object store (`place`), gets them there, just before it is there.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dasd_resources.home import SERVICE_LOCK
from dasd_resources.storage.backup import (
    CATALOG,
    MANIFEST,
    BackupError,
    Manifest,
    complete_backups,
    copy_file,
    read_manifest,
)
from dasd_resources.storage.catalog_copy import restore_dump
from dasd_resources.storage.catalogs import Catalog, PostgresCatalog, SqliteCatalog
from dasd_resources.storage.data_places import LocalFolder
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.one_home import IDENTITY, require_own
from dasd_resources.storage.place import PLACE

NOTHING_LOST = (PLACE, IDENTITY, "dagster/dagster.yaml", SERVICE_LOCK)  # files that commands make in a new home


def restore(source: Path, home: Path, replace: bool = False) -> tuple[Manifest, Path | None]:
    """Bring a backup, or the newest one of a backup folder, to `home`.

    The home's `warehouse.json` stays, and says where catalog and data files go. Returns the manifest and, if `replace`
    moved an existing home out of the way, where that is now.
    Raises BackupError if a file is damaged or missing, if `home` is not empty and `replace` is false, or if its data
    files are in an object store, where a home that is replaced would lose them.
    """
    folder = chosen(source)
    manifest = read_manifest(folder)
    staging = home.with_name(f".{home.name}.restoring")
    if not replace:
        _check_free(home)
    if home.is_mount():
        raise BackupError(f"{home} is a mount point, which cannot be replaced as a whole: restore to a folder in it")
    catalog = Lake(home=str(home)).catalog
    _require_movable(catalog)
    require_own(catalog)
    shutil.rmtree(staging, ignore_errors=True)
    _copy(folder, manifest, staging)
    _move_tables(staging, catalog)
    os.sync()
    return manifest, _into_place(staging, home)


def chosen(source: Path) -> Path:
    """The backup at `source`, or the newest one in it."""
    if (source / MANIFEST).is_file():
        return source
    if backups := complete_backups(source):
        return backups[-1]
    raise BackupError(f"{source} holds no complete backup: give a folder that `dasd backup` wrote to")


def _check_free(home: Path) -> None:
    if home.exists() and (not home.is_dir() or _has_something_to_lose(home)):
        raise BackupError(
            f"{home} is not empty: set DASD_HOME to a new folder, or give --replace to move it out of the way"
        )


def _require_movable(catalog: Catalog) -> None:
    """Where an old home's files stay in place, maintenance of the new one would delete those that it does not name."""
    # Of a catalog in a database that has tables: CatalogInUse.
    if isinstance(catalog, SqliteCatalog) and not isinstance(catalog.data, LocalFolder) and catalog.exists():
        raise BackupError(
            f"{catalog.home} has its data files in {catalog.data.root}, which cannot be moved out of the way with it: "
            "set DASD_HOME to a new folder and DASD_DATA to an empty prefix, and restore there without --replace"
        )


def _copy(folder: Path, manifest: Manifest, staging: Path) -> None:
    for name, entry in manifest.entries.items():
        copy = staging / name
        if not copy.resolve().is_relative_to(staging.resolve()):
            raise BackupError(f"{folder}: its {MANIFEST} names {name}, which lies outside it; nothing was restored")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).is_file():
            raise BackupError(f"{folder / name} is missing; restore another backup")
        if copy_file(partial(LocalFolder(folder).open, name), copy) != entry:
            raise BackupError(f"{folder / name} is damaged: not what was backed up; restore another backup")
    with closing(sqlite3.connect(staging / CATALOG)) as catalog:
        assert catalog.execute("SELECT max(snapshot_id) FROM ducklake_snapshot").fetchone() == (manifest.snapshot_id,)
        catalog.execute("PRAGMA journal_mode = WAL")  # a reader cannot set it, and must not wait for a writer to


def _move_tables(staging: Path, catalog: Catalog) -> None:
    """Bring data files and catalog of the staging folder to where the home has them, if that is elsewhere."""
    local, data = staging / "data", catalog.data
    if not isinstance(data, LocalFolder):
        for path in sorted(local.rglob("*.parquet")):
            data.put(path, path.relative_to(local).as_posix())
        shutil.rmtree(local, ignore_errors=True)
    if isinstance(catalog, PostgresCatalog):
        restore_dump(staging / CATALOG, catalog)
        for file in staging.glob(f"{CATALOG}*"):
            file.unlink()
    for name in (PLACE, IDENTITY):
        if (catalog.home / name).is_file():
            shutil.copyfile(catalog.home / name, staging / name)


def _into_place(staging: Path, home: Path) -> Path | None:
    """Rename the finished home into place; returns where one that was there is now."""
    kept = None
    home.parent.mkdir(parents=True, exist_ok=True)
    if home.exists() and _has_something_to_lose(home):
        kept = home.with_name(f"{home.name}.before-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S')}")
        home.rename(kept)
    shutil.rmtree(home, ignore_errors=True)  # a folder is renamed onto an empty one alone
    staging.rename(home)
    return kept


def _has_something_to_lose(home: Path) -> bool:
    """Whether anything would be lost with this folder."""
    return any(path.relative_to(home).as_posix() not in NOTHING_LOST for path in home.rglob("*") if not path.is_dir())
