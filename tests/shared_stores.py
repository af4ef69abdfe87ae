"""A PostgreSQL server and an object store, started once for the tests of a process, each database made from a template.

PostgreSQL refuses to run as root: where we are root, it runs as the user that its Debian package has made.
"""

import atexit
import getpass
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from itertools import count
from pathlib import Path

import psycopg2
import pytest
from pyarrow.fs import FileSystem, LocalFileSystem, S3FileSystem, SubTreeFileSystem

from dasd_resources.storage.catalog_copy import dump, restore_dump
from dasd_resources.storage.catalogs import OWNERS, SQLITE_FILE, PostgresCatalog, SqliteCatalog
from dasd_resources.storage.data_places import LocalFolder, ObjectStore
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.place import choose_storage

HOST, BUCKET = "127.0.0.1", "lake"
EMPTY, TEMPLATE = "template1", "migrated"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_DEFAULT_REGION": "us-east-1"}
MAKE = "import sys; from dasd_resources.storage.lake import Lake; Lake(home=sys.argv[1]).migrate()"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs: Debian puts the server's in none of PATH."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else list(Path("/usr/lib/postgresql").glob("*/bin"))
    usable = [folder for folder in folders if (folder / "initdb").exists()]
    return max(usable, key=lambda folder: folder.parent.name.zfill(3), default=None)  # the newest


def user_of_server() -> str:
    return "postgres" if os.getuid() == 0 else getpass.getuser()


@dataclass
class Postgres:
    """A server of our own, without a password, for this machine alone."""

    bin: Path
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dasd-postgres-")))
    port: int = field(default_factory=free_port)
    user: str = field(default_factory=user_of_server)
    names: "count[int]" = field(default_factory=count)

    def begin(self) -> None:
        if os.getuid() == 0:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        self._as_user("initdb", "-D", self.folder / "data", "--no-sync", "--auth=trust", f"--username={self.user}")
        self.start()
        atexit.register(self.end)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses={HOST} -c fsync=off -c max_connections=200"
        log = self.folder / "log"
        self._as_user("pg_ctl", "-D", self.folder / "data", "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """As by a power cut: sessions are lost in the middle of what they do."""
        self._as_user("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")

    def end(self) -> None:
        with suppress(AssertionError):  # a test that failed has left it stopped
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}@{HOST}:{self.port}/{database}"

    def create(self, template: str = EMPTY) -> str:
        """A new database; returns its URL."""
        name = f"lake{next(self.names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> None:
        with closing(psycopg2.connect(self.url(database))) as session:
            session.autocommit = True
            session.cursor().execute(statement)

    def _as_user(self, program: str, *arguments: object) -> None:
        command = [str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(
            command, user=self.user if os.getuid() == 0 else None, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@cache
def postgres() -> Postgres:
    """The server of this process. Skips the test where there is no PostgreSQL, or nobody to run it as."""
    if (found := binaries()) is None:
        pytest.skip("a shared warehouse is NOT TESTED: install PostgreSQL (Debian: apt-get install postgresql)")
    if user_of_server() not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("a shared warehouse is NOT TESTED: PostgreSQL refuses to run as root; add a user postgres")
    server = Postgres(found)
    server.begin()
    return server


@cache
def object_store() -> Mapping[str, str]:
    """The environment variables of an object store with one bucket, in memory, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    variables = {**KEYS, "AWS_ENDPOINT_URL": f"http://{HOST}:{port}"}
    while True:
        assert process.poll() is None, "moto's server has ended: python -m moto.server says why"
        with socket.socket() as sock:
            if sock.connect_ex((HOST, port)) == 0:
                break
        time.sleep(0.1)
    key, secret, region = KEYS.values()
    client = S3FileSystem(
        access_key=key,
        secret_key=secret,
        region=region,
        endpoint_override=variables["AWS_ENDPOINT_URL"],
        allow_bucket_creation=True,
    )
    client.create_dir(BUCKET)
    return variables


@cache
def _template() -> str:
    """A database with all tables of a new home, made in another process: one that others use cannot be copied."""
    server = postgres()
    server.execute(f"CREATE DATABASE {TEMPLATE}")
    with tempfile.TemporaryDirectory() as folder:
        choose_storage(Path(folder), {"DASD_CATALOG": server.url(TEMPLATE), "DASD_DATA": f"s3://{BUCKET}/{TEMPLATE}"})
        environment = {**os.environ, **object_store(), "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", MAKE, folder], env=environment, check=True)
    server.execute(f"DROP TABLE {OWNERS}", TEMPLATE)  # a copy is another home's
    return TEMPLATE


@cache
def _template_of(source: Path) -> str:
    """A database with the tables of a home that has them in itself."""
    server, name = postgres(), f"{TEMPLATE}{source.stat().st_ino}"
    server.execute(f"CREATE DATABASE {name}")
    with tempfile.TemporaryDirectory() as folder:
        dumped = Path(folder) / SQLITE_FILE
        dump(SqliteCatalog(source, LocalFolder(source / "data")), dumped)
        restore_dump(dumped, PostgresCatalog(Path(folder), ObjectStore(f"s3://{BUCKET}/{name}"), server.url(name)))
    return name


def share(home: Path, template: str | None = None) -> dict[str, str]:
    """Give a new home a database and a prefix of the object store; returns what DASD_CATALOG and DASD_DATA are.

    template: the database to copy, instead of one with the tables of a new home.
    """
    object_store()
    url = postgres().create(template or _template())
    chosen = {"DASD_CATALOG": url, "DASD_DATA": f"s3://{BUCKET}/{url.rpartition('/')[2]}"}
    choose_storage(home, dict(chosen))
    return chosen


class Storage(Enum):
    """Where a home has its tables: in itself, or on PostgreSQL with an object store."""

    EMBEDDED = "embedded"
    SHARED = "shared"

    def begin(self, home: Path) -> Path:
        """Let an empty home have its tables there."""
        if self is Storage.SHARED:
            share(home)
        return home

    def copy(self, source: Path, home: Path) -> Path:
        """A copy of a home that has its tables in itself."""
        if self is Storage.EMBEDDED:
            shutil.copytree(source, home)
            return home
        data = ObjectStore(share(home, _template_of(source))["DASD_DATA"])
        left_out = {"data", SQLITE_FILE, f"{SQLITE_FILE}-wal", f"{SQLITE_FILE}-shm"}
        for part in source.iterdir():
            if part.is_dir() and part.name not in left_out:
                shutil.copytree(part, home / part.name)
            elif part.name not in left_out:
                shutil.copyfile(part, home / part.name)
        for file in (source / "data").rglob("*.parquet"):
            data.put(file, file.relative_to(source / "data").as_posix())
        return home


def data_of(lake: Lake) -> SubTreeFileSystem:
    """The place of a home's data files, to look at and to damage: paths are the catalog's."""
    data = lake.catalog.data
    found: FileSystem = LocalFileSystem()
    if isinstance(data, ObjectStore):
        found = S3FileSystem(endpoint_override=object_store()["AWS_ENDPOINT_URL"])
    return SubTreeFileSystem(data.root.removeprefix("s3://").rstrip("/"), found)


def content(lake: Lake, path: str) -> bytes:
    with data_of(lake).open_input_stream(path) as file:
        return bytes(file.read())


def overwrite(lake: Lake, path: str, content: bytes) -> None:
    with data_of(lake).open_output_stream(path) as file:
        file.write(content)
