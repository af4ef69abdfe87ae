"""What `dasd compare` is given: a checkpoint's id or its first digits, `recipe/name`, `experiment/arm`, or a folder.

An arm that several recipes have is given with its recipe: `recipe/experiment/arm`. A folder, or the name of a hub
model, stands for what `dasd evaluate` has entered of it, or for the checkpoint that lies there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dasd_assets.rules.typed_ids import find_id
from dasd_resources.errors import UserError
from dasd_resources.storage.lake import Reading

NUM_SUGGESTIONS = 12


class NoSuchModel(UserError, LookupError):
    """Nothing to compare goes by that name; the message lists names that there are."""


@dataclass(frozen=True)
class Compared:
    """What is compared: its name, and seed -> checkpoint; one that no seed of an arm has made has the seed None."""

    name: str
    checkpoints: Mapping[int | None, str]

    @property
    def is_single(self) -> bool:
        """Whether it is one checkpoint, not an arm."""
        return set(self.checkpoints) == {None}


def find_model(reading: Reading, name: str, path: str) -> Compared:
    """Raises NoSuchModel for a name that nothing has, and AuditError for an id that nothing, or several, have.

    path: that the name would be, were it a folder's, as the tables have it (`Lake.stored_path`).
    """
    entered = reading.read(_ENTERED, {"name": name, "path": path})["checkpoint_id"].to_list()
    if "/" not in name and not entered:
        found = find_id(reading, "checkpoint", name)
        return Compared(found, {None: found})
    of, _, last = name.partition("/")
    newest = reading.read(_NEWEST, {"recipe": of, "name": last})["checkpoint_id"].to_list()
    arm = reading.read(_ARM, {"name": name}).rows()
    if newest and arm:
        raise NoSuchModel(f"{name} is a checkpoint and an arm of an experiment: give the checkpoint's id, {newest[0]}")
    if newest and set(entered) - set(newest):
        raise NoSuchModel(
            f"{name} is a checkpoint of a recipe and a model entered by that name: give the id, "
            f"{' or '.join(dict.fromkeys([*newest, *entered]))}"
        )
    if len(recipes := dict.fromkeys(recipe for recipe, _, _, _ in arm)) > 1:
        raise NoSuchModel(f"{name} is an arm under several recipes: give {' or '.join(f'{r}/{name}' for r in recipes)}")
    if not newest and not arm and not entered:
        raise NoSuchModel(f"there is no {name}: {_known(reading, of)}")
    if not newest and not arm and len(entered) > 1:
        raise NoSuchModel(f"{name} has been several models, or one asked in several ways: give {' or '.join(entered)}")
    # At stage 0 it is the untrained student, whatever the seed.
    of_arm = {seed if stage else None: checkpoint for _, seed, checkpoint, stage in arm}
    return Compared(name, of_arm or {None: (newest or entered)[0]})


def _known(reading: Reading, of: str) -> str:
    """Names that there are, those of the same recipe or experiment first."""
    names = reading.read(_NAMES, {"of": of})["name"].to_list()
    if not names:
        return "no checkpoint is registered yet; `dasd run` makes them"
    more = ", …" if len(names) > NUM_SUGGESTIONS else ""
    return f"there are {', '.join(names[:NUM_SUGGESTIONS])}{more}, and the ids of all checkpoints"


_NEWEST = """SELECT checkpoint_id FROM checkpoints WHERE recipe = $recipe AND name = $name
    ORDER BY materialized_at DESC LIMIT 1"""
_ENTERED = """SELECT DISTINCT checkpoint_id FROM checkpoints
    WHERE path = $path OR (recipe IS NULL AND name = $name) ORDER BY checkpoint_id"""
_ARM = """SELECT recipe, seed, checkpoint_id, stage FROM experiment_cells
    WHERE $name IN (experiment || '/' || arm, recipe || '/' || experiment || '/' || arm)
    QUALIFY row_number() OVER (PARTITION BY recipe, seed ORDER BY stage DESC) = 1 ORDER BY recipe, seed"""
_NAMES = """SELECT name FROM (
        SELECT coalesce(recipe || '/', '') || name AS name, max(materialized_at) AS made FROM checkpoints
        GROUP BY recipe, checkpoints.name
        UNION ALL SELECT DISTINCT experiment || '/' || arm, NULL FROM experiment_cells)
    ORDER BY starts_with(name, $of || '/') DESC, made DESC NULLS LAST, name"""
