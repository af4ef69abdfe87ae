"""A database, and a prefix of an object store, belong to one home.

Two homes over one would each miss the other's checkpoints and files, and take them for damage or leftovers. So a home
that has its catalog or data files elsewhere gets an identity (`warehouse.id`), and the first command to find none there
writes it there, too. Several machines that work on one home mount its folder.
"""

import json
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dasd_resources.errors import UserError

if TYPE_CHECKING:
    from dasd_resources.storage.catalogs import Catalog

IDENTITY = "warehouse.id"


class PlaceTaken(UserError, RuntimeError):
    """A database or a prefix of an object store that is another home's; the message says whose."""


@dataclass(frozen=True)
class Owner:
    """A home by its identity, and the machine and folder that it was in when it was noted."""

    identity: str
    host: str
    folder: str

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        return cls(**json.loads(text))

    @property
    def written(self) -> str:
        return json.dumps(asdict(self))


Claimant = Callable[[], Owner]  # who a place is noted for, if it is nobody's


def require_own(catalog: "Catalog") -> None:
    """Raise PlaceTaken if the catalog or its data files are another home's; what was nobody's is now this home's."""
    home = catalog.home

    def ours() -> Owner:
        return Owner(_identity(home), socket.gethostname(), str(home.resolve()))

    _require(catalog.data.root, catalog.data.claimed(ours), home)  # first: where it is refused, no database is taken
    _require(str(catalog), catalog.claimed(ours), home)


def _require(place: str, owner: Owner | None, home: Path) -> None:
    if owner is not None and owner.identity != _identity(home):
        raise PlaceTaken(
            f"{place} is the home's that was {owner.folder} on {owner.host}: mount that folder here and set DASD_HOME "
            f"to it, or begin a home with a database and a prefix of its own. If {home} is that home, and has lost its "
            f"{IDENTITY}, write {owner.identity} into that file"
        )


def _identity(home: Path) -> str:
    """The home's, made where it has none: one, whoever else makes it meanwhile."""
    file = home / IDENTITY
    if not file.exists():
        identity = uuid.uuid4().hex
        made = home / f".{IDENTITY}.{identity}"
        made.write_text(identity)
        with suppress(FileExistsError):
            os.link(made, file)
        made.unlink()
    return file.read_text().strip()
