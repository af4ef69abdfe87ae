"""A home -> a backup: catalog and data files, checkpoints, landed files, benchmarks, experiments, reports, history.

A backup folder holds one subfolder per backup, named for its moment and complete from the moment it has that name,
which is after all others there whatever the clock says; it is filled as `.partial`, in which a killed backup's files
are found again. What a later backup shares with the one before is hard-linked where the file system can, else copied.
The catalog is a SQLite file there, whatever it is in the home, and data files are copied from wherever they are: any
backup can be restored as any home.
Writers may be at work: history is copied first and the catalog after it, so nothing is called made that is not there;
files named by the catalog never change, and maintenance waits. `manifest.json` has every hash.
"""

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from dasd_resources.content_hash import file_hash
from dasd_resources.errors import UserError
from dasd_resources.home import BENCHMARK_FOLDER, CHECKPOINT_FOLDER, EXPERIMENT_FOLDER, LANDING_FOLDER
from dasd_resources.landing.folder_contents import landed_files
from dasd_resources.sft.checkpoint import published_hashes
from dasd_resources.storage.catalog_copy import dump
from dasd_resources.storage.catalogs import SQLITE_FILE, UPKEEP
from dasd_resources.storage.data_files import (
    DAMAGED_FILE,
    OTHER_CONTENT,
    Damage,
    DataFile,
    data_files,
    other_size,
)
from dasd_resources.storage.data_places import LocalFolder
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.sqlite_copy import copy_database

MANIFEST, PARTIAL, CATALOG = "manifest.json", ".partial", SQLITE_FILE
FORMAT = 1
NAME, NAME_FORM = "%Y%m%dT%H%M%S.%fZ", re.compile(r"\d{8}T\d{6}\.\d{6}Z")  # of a backup: its moment
KEPT = (BENCHMARK_FOLDER, EXPERIMENT_FOLDER, "reports")  # folders of the home, with all that is in them
DATA_FILES = """
    SELECT DISTINCT CASE WHEN f.path_is_relative AND t.path_is_relative AND s.path_is_relative
        THEN s.path || t.path || f.path END, f.path
    FROM (SELECT table_id, path, path_is_relative FROM ducklake_data_file
        UNION SELECT table_id, path, path_is_relative FROM ducklake_delete_file) f
    JOIN ducklake_table t USING (table_id) JOIN ducklake_schema s USING (schema_id)"""

TRAINED_HERE = "ends_with('/' || path, '/checkpoints/' || checkpoint_id)"  # earlier releases named the home, too


class BackupError(UserError, RuntimeError):
    """A backup that cannot be made, read or restored; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """A file of a backup."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup holds: entries by relative path; `missing`: checkpoints that the catalog names and nobody has."""

    home: str
    created_at: str
    snapshot_id: int
    entries: dict[str, Entry]
    missing: list[str] = field(default_factory=list)
    format: int = FORMAT

    @property
    def num_bytes(self) -> int:
        return sum(entry.size for entry in self.entries.values())

    def write(self, folder: Path) -> None:
        temporary = folder / f"{MANIFEST}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False))
        temporary.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup. Raises BackupError if there is none, or a later release wrote it."""
    try:
        document = json.loads((folder / MANIFEST).read_text())
        if document["format"] > FORMAT:
            raise BackupError(f"{folder} was written by a later release (format {document['format']}): upgrade")
        datetime.fromisoformat(document["created_at"])
        entries = {name: Entry(**entry) for name, entry in document.pop("entries").items()}
        return Manifest(entries=entries, **document)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BackupError(f"{folder} is no backup: its {MANIFEST} cannot be read ({error})") from None


def complete_backups(target: Path) -> list[Path]:
    """The backups of a folder, oldest first; not what else lies there and has a manifest."""
    return sorted(path for path in target.glob("*") if NAME_FORM.fullmatch(path.name) and (path / MANIFEST).is_file())


def back_up(home: Path, dagster_home: Path, target: Path, keep: int, link: bool = False) -> tuple[Path, Manifest]:
    """Make a backup in `target`, and delete all but the newest `keep` there.

    link: hard-link data and checkpoints to the home's own files where the file system can, instead of copying them.
    Raises BackupError, and OSError where the disk is full.
    """
    assert keep >= 1
    if target.resolve().is_relative_to(home.resolve()):
        raise BackupError(f"{target} lies in {home}, which it is to save: give a folder elsewhere")
    catalog = Lake(home=str(home)).catalog
    if not catalog.exists():
        raise BackupError(f"{home} has no catalog, {catalog}: set DASD_HOME to a home that `dasd run` has made")
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(target / ".lock"), catalog.locked(UPKEEP):
        for doomed in target.glob(".*"):
            if NAME_FORM.fullmatch(doomed.name[1:]):  # renamed below, and not deleted to its end
                shutil.rmtree(doomed)
        before = complete_backups(target)[-1:]
        manifest = _Writer(home, target / PARTIAL, before, link).write(dagster_home)
        finished = target / _moment_after(before).strftime(NAME)
        os.sync()
        (target / PARTIAL).rename(finished)
        for old in complete_backups(target)[:-keep]:
            shutil.rmtree(old.rename(target / f".{old.name}"))
    return finished, manifest


def _moment_after(before: list[Path]) -> datetime:
    """Now, or just after the last backup where the clock has been set back since."""
    last = [datetime.strptime(path.name, NAME).replace(tzinfo=UTC) + timedelta(microseconds=1) for path in before]
    return max([datetime.now(UTC), *last])


class _Writer:
    """Fills one backup; `entries` grows as files arrive."""

    def __init__(self, home: Path, folder: Path, before: list[Path], link: bool) -> None:
        self._home, self._folder, self._link = home, folder, link
        self._catalog = Lake(home=str(home)).catalog
        self._before = [(path, read_manifest(path).entries) for path in before]
        self._entries: dict[str, Entry] = {}

    def write(self, dagster_home: Path) -> Manifest:
        created_at = datetime.now(UTC).isoformat()  # what is made from now on may be missing
        self._folder.mkdir(exist_ok=True)
        (self._folder / MANIFEST).unlink(missing_ok=True)
        for name in _dagster_databases(dagster_home):
            with _unless_gone(dagster_home / name):
                self._database(dagster_home / name, f"dagster/{name}")
        self._copy(dagster_home / "dagster.yaml", "dagster/dagster.yaml")
        dump(self._catalog, self._folder / CATALOG)
        self._enter(CATALOG)
        with closing(sqlite3.connect(self._folder / CATALOG)) as catalog:
            snapshot = catalog.execute("SELECT max(snapshot_id) FROM ducklake_snapshot").fetchone()[0]
            self._data_files(catalog)
        missing = self._checkpoints(snapshot)
        others = (path for folder in KEPT for path in _files(self._home / folder))
        for path in [*landed_files(self._home / LANDING_FOLDER), *others]:
            with _unless_gone(path):
                self._copy(path, path.relative_to(self._home).as_posix())
        self._delete_others()
        manifest = Manifest(str(self._home), created_at, snapshot, self._entries, missing)
        manifest.write(self._folder)
        return manifest

    def _database(self, source: Path, name: str) -> None:
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy_database(source, self._folder / name)
        self._enter(name)

    def _data_files(self, catalog: sqlite3.Connection) -> None:
        """Each as it was written, or none: a backup must not pass damage on, and push out the good ones."""
        written = {file.path: file for file in data_files(self._catalog)}
        data = self._catalog.data
        present = data.sizes(list(written))
        dropped = set(Lake(home=str(self._home)).read("SELECT path FROM repaired_files")["path"])
        for path, shown in catalog.execute(DATA_FILES):
            if path is None:
                raise BackupError(f"data file {shown} lies outside the home: only files under it can be backed up")
            file = written[path]
            if path in dropped and not file.newest:  # only old snapshots have it, and `dasd repair` has said so
                continue
            if what := other_size(file, present.get(path)):
                raise _damaged(file, what)
            self._share(file.size, partial(data.open, path), data.own_file(path), f"data/{path}", file.sha256)
            if file.sha256 not in (None, self._entries[f"data/{path}"].sha256):
                raise _damaged(file, OTHER_CONTENT)

    def _checkpoints(self, snapshot: int) -> list[str]:
        """Published checkpoints of this home; returns those whose folder is gone."""
        folder = self._home / CHECKPOINT_FOLDER
        for path in folder.glob("[!.]*"):
            if path.is_dir() and not path.suffix:
                self._checkpoint(path)
        query = f"SELECT DISTINCT checkpoint_id FROM checkpoints WHERE {TRAINED_HERE}"
        named = Lake(home=str(self._home)).read(query, at=snapshot)["checkpoint_id"]
        return [checkpoint for checkpoint in sorted(named) if not (folder / checkpoint).is_dir()]

    def _checkpoint(self, folder: Path) -> None:
        """The files of a checkpoint: one that was trained anew has the same id, and others of the same sizes."""
        hashes = published_hashes(folder)
        for file in _files(folder):
            name = file.relative_to(self._home).as_posix()
            if sha256 := hashes.get(file.relative_to(folder).as_posix()):
                opened = partial(LocalFolder(file.parent).open, file.name)
                self._share(file.stat().st_size, opened, file, name, sha256)
            else:
                self._copy(file, name)

    def _share(
        self, size: int, opened: Callable[[], BinaryIO], own: Path | None, name: str, sha256: str | None = None
    ) -> None:
        """A file that never changes: as the killed backup left it, as in the last backup, from the home, or copied.

        opened: its bytes. own: the file itself, where it can be hard-linked. sha256: of what was written, where it is
        known; a copy of anything else is not used again.
        """
        copy = self._folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        for folder, entries in self._before:
            same = name in entries and entries[name].size == size and sha256 in (None, entries[name].sha256)
            if same and (folder / name).is_file() and _linked(folder / name, copy):
                self._entries[name] = entries[name]
                return
        left = copy.is_file() and copy.stat().st_size == size and sha256 in (None, file_hash(copy))
        if left or (self._link and own is not None and _linked(own, copy)):
            self._enter(name)
        else:
            self._entries[name] = copy_file(opened, copy)

    def _copy(self, source: Path, name: str) -> None:
        copy = self._folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        self._entries[name] = copy_file(partial(LocalFolder(source.parent).open, source.name), copy)

    def _enter(self, name: str) -> None:
        path = self._folder / name
        self._entries[name] = Entry(path.stat().st_size, file_hash(path))

    def _delete_others(self) -> None:
        """What a killed backup left and this one does not hold."""
        for path in _files(self._folder):
            if path.relative_to(self._folder).as_posix() not in self._entries:
                path.unlink()


def _damaged(file: DataFile, what: str) -> BackupError:
    return BackupError(f"nothing was backed up: {Damage(file, what)}; {DAMAGED_FILE}, `dasd audit verify` names all")


@contextmanager
def _unless_gone(source: Path) -> Iterator[None]:
    """Leave out what was deleted since it was listed, as the log of a run is with the run."""
    try:
        yield
    except (OSError, sqlite3.Error):
        if source.exists():
            raise


def copy_file(opened: Callable[[], BinaryIO], copy: Path) -> Entry:
    """Copy the bytes of an opened file, whole or not at all; the hash is of what was read."""
    temporary, digest = copy.with_name(f"{copy.name}.tmp"), hashlib.sha256()
    with opened() as old, temporary.open("wb") as new:
        while chunk := old.read(1 << 20):
            digest.update(chunk)
            new.write(chunk)
        size = new.tell()
    temporary.replace(copy)
    return Entry(size, digest.hexdigest())


def _linked(source: Path, copy: Path) -> bool:
    copy.unlink(missing_ok=True)
    try:
        os.link(source, copy)
    except OSError:
        return False
    return True


def _dagster_databases(dagster_home: Path) -> list[str]:
    """Every database of the history, the index of events first: a run it names is in those copied after it."""
    names = [path.relative_to(dagster_home).as_posix() for path in dagster_home.rglob("*.db")]
    return sorted(names, key=lambda name: (not name.endswith("/index.db"), name))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
