"""Where the lake's data files are: a folder of the home, or an object store (S3).

DuckLake writes and deletes them; here they are measured, read and copied, and deleted where it would take others' for
its own. Paths are the catalog's, relative to the place. Credentials are found as every AWS client finds them
(AWS_ACCESS_KEY_ID and the like, ~/.aws, the machine's role); AWS_ENDPOINT_URL names another store than Amazon's. They
are kept in memory alone.
"""

import hashlib
import os
import shutil
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import urlsplit

import duckdb

from dasd_resources.errors import UserError
from dasd_resources.storage.one_home import Claimant, Owner, PlaceTaken

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
OWNER = "home.json"  # beside the data files: whose they are. Maintenance deletes Parquet files alone
# Of a commit's files in a folder, read while its lock is held: 0.05 to 0.15 s, as long as taking it anew would.
AT_ONCE_BYTES = 64 << 20
FEW = 16  # objects are looked at one by one; more are listed, a thousand for each request
# DuckDB copies these variables into settings, which any query may read: they are emptied, a secret cannot be read.
SPILLED_SETTINGS = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token")


class DataPlaceError(UserError, OSError):
    """The object store cannot be used; the message says why."""


class DataPlace(Hashable, Protocol):
    """Data files by their path in the catalog."""

    @property
    def root(self) -> str:
        """What all locations begin with, "/" included."""
        ...

    @property
    def extensions(self) -> tuple[str, ...]:
        """DuckDB's extensions that read it."""
        ...

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let the connection, whose extensions are loaded, read and write here."""
        ...

    def claimed(self, claimant: Claimant) -> Owner | None:
        """Whose it is, the claimant's if it was nobody's; None if it lies in the home. Raises OSError."""
        ...

    def location(self, path: str) -> str:
        """A file's path as DuckDB opens it."""
        ...

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """Sizes in bytes of those of the files that are there."""
        ...

    def own_file(self, path: str) -> Path | None:
        """The file itself, where it can be hard-linked."""
        ...

    def read_at_once(self, num_bytes: int) -> bool:
        """Whether so many bytes that were just written are read in a moment, for which other writers may wait."""
        ...

    def open(self, path: str) -> BinaryIO:
        """A file's bytes. Raises OSError."""
        ...

    def put(self, source: Path, path: str) -> None:
        """Copy a file here."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Delete these files."""
        ...


def content_of(place: DataPlace, path: str) -> str:
    """SHA-256 (hex) of a data file. Raises OSError."""
    with place.open(path) as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class LocalFolder:
    """Data files in a folder."""

    folder: Path

    @property
    def root(self) -> str:
        return f"{self.folder}/"

    @property
    def extensions(self) -> tuple[str, ...]:
        return ()

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        # Of every file that was opened, 0.1 MB and more would stay in memory, which the system has in its own cache.
        connection.execute("SET enable_external_file_cache = false")

    def claimed(self, claimant: Claimant) -> Owner | None:
        return None

    def location(self, path: str) -> str:
        return f"{self.folder}/{path}"

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        return {path: size for path in paths if (size := _size(f"{self.folder}/{path}")) is not None}

    def own_file(self, path: str) -> Path | None:
        return self.folder / path

    def read_at_once(self, num_bytes: int) -> bool:
        return num_bytes <= AT_ONCE_BYTES

    def open(self, path: str) -> BinaryIO:
        return (self.folder / path).open("rb")

    def put(self, source: Path, path: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self.folder / path)

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            (self.folder / path).unlink()


def _size(path: str) -> int | None:
    """Size of a file; None where there is none."""
    try:
        return os.stat(path).st_size  # of thousands of files: a Path for each takes three times as long
    except OSError:
        return None


@dataclass(frozen=True)
class ObjectStore:
    """Data files under a prefix of a bucket. url: `s3://bucket/prefix`."""

    url: str

    @property
    def root(self) -> str:
        return f"{self.url.rstrip('/')}/"

    @property
    def extensions(self) -> tuple[str, ...]:
        return ("httpfs", "aws")

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        for setting in SPILLED_SETTINGS:
            connection.execute(f"SET {setting} = ''")
        options = ["TYPE s3", "PROVIDER credential_chain", "REFRESH auto", f"SCOPE '{self.root}'"]
        if endpoint := _endpoint():
            parts = urlsplit(endpoint)
            secure = str(parts.scheme == "https").lower()
            options += [f"ENDPOINT '{parts.netloc}'", "URL_STYLE 'path'", f"USE_SSL {secure}"]
        try:
            connection.execute(f"CREATE OR REPLACE SECRET dasd_data ({', '.join(options)})")
        except duckdb.Error as error:
            why = str(error).splitlines()[0]
            raise DataPlaceError(
                f"no credentials for {self.url} ({why}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what else "
                "AWS clients accept"
            ) from None

    def claimed(self, claimant: Claimant) -> Owner | None:
        try:
            return self._owner()
        except FileNotFoundError:
            self._require_apart(claimant())
            with _client(_endpoint()).open_output_stream(self._key(OWNER)) as file:
                file.write(claimant().written.encode())
            return self._owner()  # of two at once, the later one

    def location(self, path: str) -> str:
        return self.root + path

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        from pyarrow.fs import FileSelector, FileType

        files, folder = _client(_endpoint()), self._key("").rstrip("/")
        if len(paths) <= FEW:
            found = files.get_file_info([self._key(path) for path in paths])
        else:
            found = files.get_file_info(FileSelector(folder, allow_not_found=True, recursive=True))
        sizes = {info.path.removeprefix(f"{folder}/"): info.size for info in found if info.type == FileType.File}
        return {path: sizes[path] for path in paths if path in sizes}

    def own_file(self, path: str) -> Path | None:
        return None

    def read_at_once(self, num_bytes: int) -> bool:
        return False

    def open(self, path: str) -> BinaryIO:
        opened: BinaryIO = _client(_endpoint()).open_input_stream(self._key(path))
        return opened

    def put(self, source: Path, path: str) -> None:
        with source.open("rb") as old, _client(_endpoint()).open_output_stream(self._key(path)) as new:
            shutil.copyfileobj(old, new, 1 << 20)

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:  # Arrow leaves an empty object in the place of a folder, as there may be nothing else in it
            _client(_endpoint()).delete_file(self._key(path))

    def _require_apart(self, home: Owner) -> None:
        """Raise PlaceTaken inside another home's prefix. To find one inside this would take a look at every object."""
        for folder in list(PurePosixPath(self._key("")).parents)[:-1]:
            outer = ObjectStore(f"s3://{folder}")
            with suppress(OSError, ValueError, TypeError):  # none is there, or none of ours
                owner = outer._owner()
                raise PlaceTaken(
                    f"{self.root} lies in {outer.root}, the prefix of the home that was {owner.folder} on "
                    f"{owner.host}: set DASD_DATA to one that lies in no other home's, and delete warehouse.json in "
                    f"{home.folder}, where this one is noted"
                )

    def _owner(self) -> Owner:
        with self.open(OWNER) as file:
            return Owner.read(file.read())

    def _key(self, path: str) -> str:
        """Bucket and key, as Arrow names an object."""
        return self.root.removeprefix("s3://") + path


def _endpoint() -> str | None:
    """Where the object store is, if not at Amazon's."""
    return next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)


@lru_cache(maxsize=2)
def _client(endpoint: str | None) -> "S3FileSystem":
    from pyarrow.fs import S3FileSystem  # a third of a second, and homes without an object store need none of it

    return S3FileSystem(endpoint_override=endpoint)
