"""Which catalog and which place for data files a home has: its own, or those in its `warehouse.json`.

The first command that finds DASD_CATALOG (`postgresql://user@host/database`) or DASD_DATA (`s3://bucket/prefix`) writes
them there, so that a later one without them does not begin an empty warehouse. A password is not written: it is moved
to PGPASSWORD, where libpq and child processes find it.
"""

import json
from collections.abc import MutableMapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from dasd_resources.errors import UserError
from dasd_resources.packages import pip_install
from dasd_resources.storage.catalogs import Catalog, PostgresCatalog, SqliteCatalog
from dasd_resources.storage.data_places import DataPlace, LocalFolder, ObjectStore
from dasd_resources.whole_files import write_whole

PLACE = "warehouse.json"
CATALOG_VARIABLE, DATA_VARIABLE = "DASD_CATALOG", "DASD_DATA"
SECRET_OPTIONS = {"password", "sslpassword", "passfile"}
_FORM = f"{CATALOG_VARIABLE} must be postgresql://user@host:port/database"
_ESCAPES = "write / ? # @ of a user, a password or a name as %2F %3F %23 %40, or set PGPASSWORD"
# What each of them takes besides what every home does.
PACKAGES = {
    "catalog": ("psycopg2", "duckdb_extension_postgres_scanner"),
    "data": ("duckdb_extension_httpfs", "duckdb_extension_aws"),
}


class PlaceError(UserError, ValueError):
    """A catalog or place for data that cannot be used, or is not the home's; the message says what is accepted."""

    exit_code = 2


def catalog_of(home: Path) -> Catalog:
    """The home's catalog. Raises PlaceError if what its `warehouse.json` says cannot be read, or used from here."""
    places = _written(home)
    for name in places.keys() & PACKAGES.keys():
        _require_packages(name)
    url = places.get("data")
    data: DataPlace = ObjectStore(url) if url else LocalFolder(home / "data")
    return PostgresCatalog(home, data, places["catalog"]) if "catalog" in places else SqliteCatalog(home, data)


def choose_storage(home: Path, environment: MutableMapping[str, str]) -> None:
    """Note in a new home what DASD_CATALOG and DASD_DATA say; in one that has tables, they must say the same.

    A password in DASD_CATALOG is moved to PGPASSWORD, in `environment`. Raises PlaceError.
    """
    chosen = {}
    if url := take_password(environment):
        chosen["catalog"] = url
    if url := environment.get(DATA_VARIABLE):
        chosen["data"] = _object_store(url)
    written = _written(home)
    if chosen.items() <= written.items():
        return
    if written or SqliteCatalog(home, LocalFolder(home / "data")).exists():
        raise PlaceError(
            f"{home} has its tables in {_described(written)}, not in {_described(chosen)}: unset {CATALOG_VARIABLE} "
            f"and {DATA_VARIABLE}, or bring a backup to another home (`dasd backup`, then `dasd restore` there)"
        )
    home.mkdir(parents=True, exist_ok=True)
    write_whole(home / PLACE, json.dumps(chosen, indent=1).encode())


def take_password(environment: MutableMapping[str, str]) -> str | None:
    """What DASD_CATALOG says, its password moved to PGPASSWORD; None if it says nothing. Raises PlaceError."""
    if url := environment.get(CATALOG_VARIABLE):
        environment[CATALOG_VARIABLE] = url = _without_password(url, environment)
    return url or None


def _written(home: Path) -> dict[str, str]:
    try:
        return {str(name): str(url) for name, url in json.loads((home / PLACE).read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise PlaceError(f"{home / PLACE} cannot be read ({error}): it says where the tables are, restore it") from None


@cache
def _require_packages(name: str) -> None:
    if absent := [package for package in PACKAGES[name] if find_spec(package) is None]:
        raise PlaceError(f"a home with its {name} elsewhere needs {', '.join(absent)}: {pip_install('dasd[cluster]')}")


def _without_password(url: str, environment: MutableMapping[str, str]) -> str:
    """Raises PlaceError, which repeats nothing of the URL but names of options: any part of it may be of a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where what stands there is no port
    except ValueError:
        raise PlaceError(f"{_FORM}; {_ESCAPES}") from None
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or len(parts.path) < 2:
        raise PlaceError(_FORM)
    if "@" in parts.path + parts.query or parts.fragment:  # then a "/", "?" or "#" of the password ended it too early
        raise PlaceError(f"{CATALOG_VARIABLE}: an @ after the host, or a #; {_ESCAPES}")
    if secret := SECRET_OPTIONS & {name.lower() for name in parse_qs(parts.query)}:
        raise PlaceError(f"{CATALOG_VARIABLE} must not have {', '.join(sorted(secret))}: set PGPASSWORD, or ~/.pgpass")
    if parts.password is not None:
        environment["PGPASSWORD"] = unquote(parts.password)
    return _named(parts)


def _named(parts: SplitResult) -> str:
    user, _, address = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return parts._replace(scheme="postgresql", netloc=f"{name}@{address}" if name else address).geturl()


def _object_store(url: str) -> str:
    parts = urlsplit(url)
    is_place = parts.hostname and parts.path.strip("/")
    if parts.scheme != "s3" or not is_place or "@" in parts.netloc or parts.query or "'" in url:
        raise PlaceError(
            f"{DATA_VARIABLE} must be s3://bucket/prefix, the prefix this home's alone; credentials are taken from "
            "AWS_… variables"
        )
    return url.rstrip("/")


def _described(places: dict[str, str]) -> str:
    return " and ".join(places.values()) or "its own folder"
