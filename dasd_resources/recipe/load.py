"""Loading a recipe: from a YAML file given by path, or by the name of one shipped in `recipes/`.

Relative paths start at the folder of the recipe's file. A shipped recipe's start at the home, where a user can put
files, but for those that the package itself holds (the demo's and the school's).
"""

import os
from collections.abc import Hashable
from pathlib import Path

import yaml
from pydantic import ValidationError

from dasd_resources.home import home_of
from dasd_resources.recipe.faults import Section, error_lines
from dasd_resources.recipe.model_settings import Model
from dasd_resources.recipe.parts import RecipeError
from dasd_resources.recipe.recipe import Recipe
from dasd_resources.recipe.service_settings import is_store
from dasd_resources.spelling import meant

PACKAGE = Path(__file__).resolve().parents[1]
RECIPES = PACKAGE / "recipes"


def load_recipe(name_or_path: str, home: Path | None = None) -> Recipe:
    """The recipe of that shipped name or file, its relative paths made absolute.

    home: where those of a shipped recipe start; `.dasd` by default. A model without a leading dot is a path if there
    is such a folder, else the name of a hub model.

    Raises RecipeError with one line per error: the key, what is wrong with it, the value found.
    """
    path = _find(name_or_path)
    return _resolve_paths(_read(path, Recipe), path.parent, home or home_of({}))


def load_model(path: Path) -> Model:
    """The model of a YAML file with the keys of a recipe's `teacher`; raises RecipeError as `load_recipe` does."""
    model = _read(path, Model)
    folder = (path.parent / os.path.expanduser(model.model)).resolve()
    return model.model_copy(update={"model": str(folder)}) if folder.is_dir() else model


def _read(path: Path, part: type[Section]) -> Section:
    try:
        return part.model_validate(yaml.load(path.read_text(encoding="utf-8"), UniqueKeys))
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path.name}: {line}" for line in error_lines(error, part))) from None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML lets a `!!int x` be one
        raise RecipeError(f"{path}: not a YAML file: {error}") from None


class UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which no key occurs twice, of which YAML would silently take the last, and a date is a text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set[Hashable]()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                continue  # SafeLoader refuses it
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name} occurs twice; remove one", problem_mark=key.start_mark)
            seen.add(name)
        return dict(super().construct_mapping(node, deep))


UniqueKeys.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _find(name_or_path: str) -> Path:
    shipped = RECIPES / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(os.path.expanduser(name_or_path)).resolve()
    if path.is_file():
        return path
    names = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    raise RecipeError(
        f"no recipe {name_or_path!r}: give the path of a YAML file or one of the shipped names ({', '.join(names)})"
        f"{meant(name_or_path, names)}"
    )


def _resolve_paths(recipe: Recipe, folder: Path, home: Path) -> Recipe:
    def resolve(path: str) -> str:
        here = (folder / os.path.expanduser(path)).resolve()
        if folder.resolve() == RECIPES and here.is_relative_to(PACKAGE) and not here.exists():
            return str((home / path).resolve())
        return str(here)

    def model(name: str) -> str:
        return resolve(name) if name.startswith(".") or Path(resolve(name)).is_dir() else name

    landing = recipe.automation.landing
    if landing is not None and not is_store(landing):
        landing = resolve(landing)
    compared = recipe.decontamination
    if compared is not None:
        compared = compared.model_copy(update={"files": tuple(map(resolve, compared.files))})
    benchmarks = tuple(b.model_copy(update={"path": b.path and resolve(b.path)}) for b in recipe.evaluation.benchmarks)
    return recipe.model_copy(
        update={
            "teacher": recipe.teacher.model_copy(update={"model": model(recipe.teacher.model)}),
            "student": recipe.student.model_copy(update={"model": model(recipe.student.model)}),
            "evaluation": recipe.evaluation.model_copy(update={"benchmarks": benchmarks}),
            "decontamination": compared,
            "automation": recipe.automation.model_copy(update={"landing": landing}),
        }
    )
