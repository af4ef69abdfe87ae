"""The chats of the models that made or judged rows, from the folders and recipes they are registered with."""

from dasd_assets.audit.prompt import Record
from dasd_assets.rules.asset_names import ROLES
from dasd_resources.chat import Chat
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Model, Recipe
from dasd_resources.storage.lake import Lake, Reading


class NoChat(LookupError):
    """A model's tokenizer cannot be used; the message says why."""


class Chats:
    """Chats by checkpoint id; each folder is looked at once."""

    def __init__(self, lake: Lake, reading: Reading) -> None:
        self._lake, self._engines = lake, Engines(home=str(lake.home))
        rows = reading.read("SELECT * FROM checkpoints ORDER BY materialized_at").to_dicts()
        self._rows: dict[str, Record] = {row["checkpoint_id"]: row for row in rows}
        self._found: dict[str, Chat | NoChat] = {}
        self.recipes = [recipe for row in rows if (recipe := recorded_recipe(row)) is not None]
        self.students = sorted({row["checkpoint_id"] for row in rows if row["name"] == "student"})

    def find(self, checkpoint_id: str) -> Chat:
        """The chat of a checkpoint. Raises NoChat."""
        if checkpoint_id not in self._found:
            try:
                self._found[checkpoint_id] = self._load(checkpoint_id)
            except (NoChat, OSError, ValueError) as error:
                self._found[checkpoint_id] = NoChat(str(error))
        found = self._found[checkpoint_id]
        if isinstance(found, NoChat):
            raise found
        return found

    def _load(self, checkpoint_id: str) -> Chat:
        row = self._rows.get(checkpoint_id)
        recipe = None if row is None else recorded_recipe(row)
        if row is None or recipe is None:
            raise NoChat(f"model {checkpoint_id} is registered without a recipe that this release can read")
        folder = self._lake.folder(row["path"])
        if not folder.is_dir():
            raise NoChat(f"the folder of model {checkpoint_id}, {folder}, is not here")
        spec: Model = recipe.teacher if row["name"] == "teacher" else recipe.student
        found = self._engines.find(spec.model_copy(update={"model": str(folder)}), f"checkpoint {checkpoint_id}")
        if row["name"] in ROLES and found.fingerprint != checkpoint_id:
            raise NoChat(f"{folder} holds model {found.fingerprint} now, not {checkpoint_id}")
        return found.chat


def recorded_recipe(row: Record) -> Recipe | None:
    """The recipe a model was registered or trained with; None of earlier releases, or where it is no recipe now."""
    try:
        return Recipe.model_validate_json(row["recipe_document"] or "")
    except ValueError:
        return None
