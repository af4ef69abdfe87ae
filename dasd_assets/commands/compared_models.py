"""What `dasd compare` is given: a checkpoint's id or its first digits, `recipe/name`, or `experiment/arm`."""

from collections.abc import Mapping
from dataclasses import dataclass

from dasd_assets.rules.typed_ids import find_id
from dasd_resources.errors import UserError
from dasd_resources.storage.lake import Reading

NUM_SUGGESTIONS = 8


class NoSuchModel(UserError, LookupError):
    """Nothing to compare goes by that name; the message lists names that there are."""


@dataclass(frozen=True)
class Compared:
    """What is compared: its name, and seed -> checkpoint; a single checkpoint has the seed None."""

    name: str
    checkpoints: Mapping[int | None, str]

    @property
    def is_single(self) -> bool:
        """Whether it is one checkpoint, not an arm."""
        return set(self.checkpoints) == {None}

    def under(self, seed: int | None) -> str:
        """The checkpoint to pair with another's of that seed."""
        return self.checkpoints[None if self.is_single else seed]


def find_model(reading: Reading, name: str) -> Compared:
    """Raises NoSuchModel for a name that nothing has, and AuditError for an id that nothing, or several, have."""
    if "/" not in name:
        found = find_id(reading, "checkpoint", name)
        return Compared(found, {None: found})
    recipe, _, of_recipe = name.partition("/")
    rows = reading.read(_NEWEST, {"recipe": recipe, "name": of_recipe})["checkpoint_id"].to_list()
    if not rows:
        raise NoSuchModel(f"there is no {name}: {_known(reading)}")
    return Compared(name, {None: rows[0]})


def _known(reading: Reading) -> str:
    names = reading.read(_NAMES)["name"].to_list()
    if not names:
        return "no checkpoint is registered yet; `dasd run` makes them"
    more = ", …" if len(names) > NUM_SUGGESTIONS else ""
    return f"there are {', '.join(names[:NUM_SUGGESTIONS])}{more}, and the ids of all checkpoints"


_NEWEST = """SELECT checkpoint_id FROM checkpoints WHERE recipe = $recipe AND name = $name
    ORDER BY materialized_at DESC LIMIT 1"""
_NAMES = """SELECT recipe || '/' || name AS name FROM checkpoints WHERE recipe IS NOT NULL
    GROUP BY recipe, name ORDER BY max(materialized_at) DESC, recipe, name"""
