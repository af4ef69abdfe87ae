"""The landing folder: a local folder or any fsspec URL whose files are prompt batches, named by their content.

Those of its subfolders are, too (folder_contents.py); a large file may be several (file_parts.py). A file is complete
when its name says so (no `.tmp`, `.part` or leading dot: write under such a name and rename) and it has stopped
changing. Its content hash is cached by name, size and time, so that a thousand unchanged files cost no read. In a store
without times, a file has stopped changing when two looks found the same size, and is read at every look.
"""

import hashlib
import posixpath
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
from fsspec.core import url_to_fs

from dasd_resources.content_hash import file_hash
from dasd_resources.errors import UserError
from dasd_resources.file_hashes import FileIdentity, cached_hash, known_hashes, remember_hash
from dasd_resources.home import LANDING_FOLDER
from dasd_resources.landing.file_parts import NUMBERED, part_digests, part_stem, rows_of
from dasd_resources.landing.folder_contents import Found, contents, local_contents
from dasd_resources.landing.prompt_files import Rows, safe_stem
from dasd_resources.landing.row_files.formats import SUFFIXES

if TYPE_CHECKING:
    from dasd_resources.recipe import Recipe

SETTLED_SECONDS = 5.0  # without a change, after which a file counts as complete
PLAIN_NAME = re.compile(r"[^/\\\x00-\x1f]+")  # of what a store may list
DIGEST_LENGTH = 12  # of a batch key's content hash, in hex digits
MLSD_TIME = re.compile(r"\d{14}(?=$|\.)")  # FTP's listing: YYYYMMDDHHMMSS, perhaps with a fraction


class UnsupportedStore(UserError, ValueError):
    """A store whose package is not here, or that lists its files without sizes; the message says what to do."""


class ChangedWhileRead(RuntimeError):
    """A landed file is still being written; look again later."""


@dataclass(frozen=True)
class LandedFile:
    """A file whose name says that it is complete. modified: seconds since the epoch, 0 where the store has no times.

    rows: those of a batch that is only a part of it; None: all of them.
    """

    name: str  # with its subfolder
    size: int
    modified: float
    rows: Rows | None = None

    @property
    def stamp(self) -> tuple[int, int]:
        """Size and time, at least one of which changes when the content does."""
        return self.size, round(self.modified * 1e9)


@dataclass(frozen=True)
class LandingFolder:
    """`url`: a local path or an fsspec URL, without a password.

    `cache`: the SQLite file of content hashes, shared by all processes. `questions_per_batch`: most rows of a file that
    is one batch.
    """

    url: str
    cache: Path
    questions_per_batch: int | None = None

    @classmethod
    def of(cls, url: str | None, home: Path, questions_per_batch: int | None = None) -> "LandingFolder":
        """The recipe's landing folder; None is the home's own."""
        return cls(url or str(home / LANDING_FOLDER), home / "fingerprints.sqlite", questions_per_batch)

    def files(self) -> list[LandedFile]:
        """Complete files by name; none hidden or, in a local folder, linked from outside. Raises UnsupportedStore."""
        found = [one.name for one in self._contents() if one.is_landed]
        if self.local is not None:
            return [self._stat(name) for name in found]
        return [
            LandedFile(name, self._size(self._entries[name]), self._modified(self._entries[name])) for name in found
        ]

    def passed_over(self) -> dict[str, str]:
        """Name -> what to do, of everything in the folder that is not read and that nobody is still writing there.

        Names are as the file system or store has them: quote them wherever they are shown.
        """
        return {found.name: found.what_to_do for found in self._contents() if not found.is_landed}

    def exists(self) -> bool:
        """Whether there is such a folder."""
        return self.local.is_dir() if self.local is not None else bool(self._store.isdir(self._root))

    def keys(self, files: Sequence[LandedFile]) -> dict[str, LandedFile]:
        """Prompt batch (safe stem and content hash) -> file. Without files that are being written or unreadable."""
        return {batch: file for file, batch in self.batches(files).items()}

    def batches(self, files: Sequence[LandedFile]) -> dict[LandedFile, str]:
        """File -> prompt batch, as `keys`; two files of one content and stem are one batch."""
        found = {}
        known = known_hashes(self.cache, [self._identity(file) for file in files if file.modified])
        for file in files:
            try:
                digest = known.get(self._identity(file)) or self._read_digest(file)
            except (ChangedWhileRead, OSError):
                continue
            found[file] = f"{safe_stem(file.name)}-{digest[:DIGEST_LENGTH]}"
        return found

    def parts(self, file: LandedFile) -> dict[str, LandedFile] | None:
        """Prompt batch -> part of a file that has more than `questions_per_batch` rows; none of any other file.

        None: the file is being written or cannot be read now, so nobody knows whether it has parts.
        """
        num_rows = self.questions_per_batch
        if num_rows is None:
            return {}
        try:
            digests = self._part_digests(file, num_rows)
        except (ChangedWhileRead, OSError):
            return None
        return {
            f"{part_stem(safe_stem(file.name), number)}-{digest[:DIGEST_LENGTH]}": replace(
                file, rows=rows_of(number, len(digests), num_rows)
            )
            for number, digest in enumerate(digests)
            if len(digests) > 1
        }

    def _part_digests(self, file: LandedFile, num_rows: int) -> list[str]:
        """`part_digests`, cached. Raises ChangedWhileRead, and OSError where the file cannot be read."""

        def read() -> str:
            with self._local(file) as path:
                found = part_digests(path, num_rows)
            if self.local is not None and self._stat(file.name) != file:
                raise ChangedWhileRead(f"{file.name} changed while it was read")
            return " ".join(found)

        name, size, modified = self._identity(file)
        identity = (f"parts of {num_rows} rows of {name}", size, modified)
        return (cached_hash(self.cache, identity, read) if file.modified else read()).split()

    def _identity(self, file: LandedFile) -> FileIdentity:
        name = f"{self.url.rstrip('/')}/{file.name}".encode("utf-8", "backslashreplace").decode()
        return name, *file.stamp

    def _read_digest(self, file: LandedFile) -> str:
        """SHA-256 of the content, hex. Raises ChangedWhileRead, and OSError where it cannot be read."""
        with self._open(file) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.local is not None and self._stat(file.name) != file:
            raise ChangedWhileRead(f"{file.name} changed while it was read")
        if file.modified:
            remember_hash(self.cache, self._identity(file), digest)
        return digest

    def find(self, batch: str) -> LandedFile | None:
        """The file with a batch's content, under any name, the batch's own first; None if it is gone or edited."""
        stem = batch.rpartition("-")[0]
        files = self.files()
        named = [file for file in files if safe_stem(file.name) in (stem, NUMBERED.sub("", stem))]
        for some in (named, [file for file in files if file not in named]):
            whole = self.keys(some)
            for keys in (whole, *(self.parts(file) or {} for file in whole.values())):
                for key, file in keys.items():
                    if content_of(key) == content_of(batch):
                        return file
        return None

    @contextmanager
    def local_copy(self, file: LandedFile, batch: str) -> Iterator[Path]:
        """A batch's file on this machine, a remote one as a copy that is deleted after the block.

        Raises ChangedWhileRead if it no longer holds the batch's content.
        """
        with self._local(file) as path:
            self._check(path, file, batch)
            yield path

    def local_copies(self) -> Iterator[tuple[LandedFile, Path]]:
        """Every complete file, with its path in this machine until the next is asked for. Raises as `local_copy`."""
        for batch, file in self.keys(self.files()).items():
            with self.local_copy(file, batch) as path:
                yield file, path

    @contextmanager
    def _local(self, file: LandedFile) -> Iterator[Path]:
        if self.local is not None:
            yield self.local / file.name
            return
        with tempfile.TemporaryDirectory(prefix="dasd-landed-") as folder:
            copy = Path(folder) / f"landed{next(s for s in SUFFIXES if file.name.endswith(s))}"
            with self._open(file) as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            yield copy

    def _check(self, path: Path, file: LandedFile, batch: str) -> None:
        digest = file_hash(path) if file.rows is None else self._part_digest(path, file, file.rows)
        if not digest.startswith(content_of(batch)):
            raise ChangedWhileRead(f"the file of batch {batch} was changed a moment ago; run again")

    def _part_digest(self, path: Path, file: LandedFile, rows: Rows) -> str:
        """A part's digest as of now, empty where there is no such part any more.

        Of a local file that has not changed, it is known: to read the file once for each part takes the square of them.
        """
        assert self.questions_per_batch is not None, "only a folder with parts has a file's rows"
        if self.local is not None and self._stat(file.name).stamp == file.stamp:
            digests = self._part_digests(replace(file, rows=None), self.questions_per_batch)
        else:
            digests = part_digests(path, self.questions_per_batch, rows[1])
        number = rows[0] // self.questions_per_batch
        return digests[number] if number < len(digests) else ""

    @cached_property
    def local(self) -> Path | None:
        """The folder, where it is one of this machine."""
        if "::" in self.url or (re.match(r"[a-z][a-z0-9+.-]+://", self.url) and not self.url.startswith("file://")):
            return None
        return Path(self.url.removeprefix("file://"))

    @cached_property
    def _place(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            store, path = url_to_fs(self.url)
        except ImportError as error:  # its message names the package: "Install s3fs to access S3"
            scheme = self.url.partition("://")[0]
            raise UnsupportedStore(f"automation.landing: what reads {scheme}:// is not here: {error}") from None
        return store, path

    @property
    def _store(self) -> fsspec.AbstractFileSystem:
        return self._place[0]

    @cached_property
    def _root(self) -> str:
        return str(self._place[1]).rstrip("/") or "/"

    def _contents(self) -> Iterator[Found]:
        """Everything in the folder, by name."""
        if self.local is not None:
            return local_contents(self.local)
        self._entries.clear()
        self._store.invalidate_cache()
        return contents(self._list) if self._store.isdir(self._root) else iter(())

    @cached_property
    def _entries(self) -> dict[str, Mapping[str, object]]:
        """What the store said of each file when it was last listed."""
        return {}

    def _list(self, folder: str) -> Iterator[Found]:
        """Direct children of a folder of the store, which may list any name, even outside."""
        place = posixpath.join(self._root, folder).rstrip("/")
        for entry in self._store.ls(place, detail=True):
            parent, name = posixpath.split(str(entry["name"]).rstrip("/"))
            if str(entry["name"]).strip("/") == place.strip("/"):
                continue  # object stores list the folder itself, too
            is_plain = parent.strip("/") == place.strip("/") and PLAIN_NAME.fullmatch(name)
            if is_plain:
                self._entries[posixpath.join(folder, name)] = entry
            yield Found(name, str(entry["type"]) if is_plain else "odd")

    def _size(self, entry: Mapping[str, object]) -> int:
        if not isinstance(entry.get("size"), int | str):
            raise UnsupportedStore(
                f"automation.landing: {self.url} lists its files without sizes, so none can be known to be whole; land "
                "them in a folder, or in a store that lists sizes and times (such as s3://, gs://, sftp://)"
            )
        return int(str(entry["size"]))

    def _modified(self, entry: Mapping[str, object]) -> float:
        for key in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
            value = entry.get(key)
            if isinstance(value, datetime):
                return value.timestamp()
            if isinstance(value, int | float):
                return float(value)
        if isinstance(milliseconds := entry.get("modificationTime"), int | float):  # WebHDFS
            return milliseconds / 1000
        if match := MLSD_TIME.match(str(entry.get("modify"))):  # FTP
            return datetime.strptime(match[0], "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
        return 0.0

    def _stat(self, name: str) -> LandedFile:
        found = (Path(self.local or "") / name).stat()
        return LandedFile(name, found.st_size, found.st_mtime_ns / 1e9)

    def _open(self, file: LandedFile) -> BufferedIOBase:
        if self.local is not None:
            return (self.local / file.name).open("rb")
        stream: BufferedIOBase = self._store.open(posixpath.join(self._root, file.name), "rb")
        return stream


def settled(file: LandedFile, seen: Mapping[str, tuple[int, int]], now: float | None = None) -> bool:
    """Whether a file has stopped growing: unchanged for SETTLED_SECONDS, or since an earlier look.

    seen: name -> stamp at a look at least that long ago; a file in a store without times is settled only by it.
    """
    age = (time.time() if now is None else now) - file.modified
    return (file.modified > 0 and age >= SETTLED_SECONDS) or seen.get(file.name) == file.stamp


def seconds_until_settled(file: LandedFile, now: float | None = None) -> float:
    """How long to wait before a second look at a growing file, which then tells whether it has stopped."""
    age = (time.time() if now is None else now) - file.modified if file.modified > 0 else 0.0
    return min(max(SETTLED_SECONDS - age, 0.0), SETTLED_SECONDS)


def content_of(batch: str) -> str:
    """The part of a batch key that is the content's hash: equal for two files of the same content."""
    return batch.rpartition("-")[2]


def landing_folder(recipe: "Recipe", home: Path) -> LandingFolder:
    """Where a recipe's files land, and how many questions of one are a batch."""
    return LandingFolder.of(recipe.automation.landing, home, recipe.landing.questions_per_batch)
