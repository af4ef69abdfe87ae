"""Loading experiments: shipped ones, those in the home's folder `experiments`, or a file given by its path."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from dasd_resources.home import EXPERIMENT_FOLDER
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.recipe.experiment_recipes import on_recipe
from dasd_resources.recipe.faults import error_lines
from dasd_resources.recipe.load import RECIPES, UniqueKeys
from dasd_resources.recipe.parts import RecipeError
from dasd_resources.recipe.recipe import Recipe
from dasd_resources.spelling import meant

SHIPPED = RECIPES / "experiments"


def load_experiment(name_or_path: str, home: Path) -> Experiment:
    """The experiment of that name, shipped or in the home, or of that file.

    Raises RecipeError with a line per fault: the file, the key, what is wrong with it, the value found.
    """
    path = experiment_files(home).get(name_or_path, Path(os.path.expanduser(name_or_path)).resolve())
    if not path.is_file():
        known = ", ".join(experiment_files(home))
        raise RecipeError(
            f"no experiment {name_or_path!r}: give the path of a YAML file, or one of {known}; a file in "
            f"{home / EXPERIMENT_FOLDER} is known by its name"
        )
    return read_experiment(path)


def read_experiment(path: Path) -> Experiment:
    """The experiment in a file, whose name it must have; raises as `load_experiment` does."""
    try:
        experiment = _validated(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path.name}: {line}" for line in error_lines(error, Experiment))) from None
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path}: not a YAML file: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    if experiment.name != path.stem:
        raise RecipeError(f"{path.name}: name: must be {path.stem}, as the file is called (found {experiment.name!r})")
    return experiment


@lru_cache
def _validated(text: str) -> Experiment:
    """Kept: whoever builds definitions reads all files, which takes 0.2 s."""
    return Experiment.model_validate(yaml.load(text, UniqueKeys))


def experiment_files(home: Path) -> dict[str, Path]:
    """Name -> file of all that are known, in order of name; the home's where one is shipped under its name.

    Hidden ones are an editor's.
    """
    every = (path for folder in (SHIPPED, home / EXPERIMENT_FOLDER) for path in folder.glob("*.yaml"))
    return dict(sorted({path.stem: path for path in every if not path.name.startswith(".")}.items()))


def experiments_of(recipe: Recipe, home: Path) -> Iterator[Experiment | RecipeError]:
    """The known experiments of a recipe, each as it makes them; in place of a faulty or unknown one, its error."""
    files = experiment_files(home)
    for name in recipe.experiments:
        if name not in files:
            known = f"there are {', '.join(files)}{meant(name, files)}"
            yield RecipeError(f"recipe {recipe.name}: experiments: no experiment {name!r}; {known}")
    for path in files.values():
        try:
            experiment = read_experiment(path)
            if is_of(experiment, recipe):
                yield checked(experiment, recipe)
        except RecipeError as error:
            yield error


def names_of_others(recipe: Recipe, home: Path) -> Iterator[str]:
    """The known experiments of other recipes, which this one could name in `experiments`; no faulty ones."""
    for name, path in experiment_files(home).items():
        with suppress(RecipeError):
            if not is_of(read_experiment(path), recipe):
                yield name


def is_of(experiment: Experiment, recipe: Recipe) -> bool:
    """Whether it is declared for the recipe, or the recipe names it in `experiments`."""
    return experiment.recipe == recipe.name or experiment.name in recipe.experiments


def checked(experiment: Experiment, recipe: Recipe) -> Experiment:
    """The experiment as the recipe makes it, which can make every arm; else RecipeError, naming arm, stage and key."""
    file = f"{experiment.name}.yaml"
    if not is_of(experiment, recipe):
        raise RecipeError(
            f"{file}: recipe: is {experiment.recipe}, not {recipe.name}; name that one by --recipe or DASD_RECIPE, or "
            f"run it on {recipe.name}: add it there to `experiments`, such as `experiments: [{experiment.name}]`"
        )
    try:
        return on_recipe(experiment, recipe)
    except RecipeError as error:
        lines = [f"{file}: {line}" for line in str(error).splitlines()]
        remedy = [] if experiment.recipe == recipe.name else [_to_change(experiment, recipe)]
        raise RecipeError("\n".join([*lines, *remedy])) from None


def _to_change(experiment: Experiment, recipe: Recipe) -> str:
    """What to do about an experiment of another recipe that this one cannot make as it is."""
    return (
        f"{experiment.name}.yaml is of recipe {experiment.recipe}: to change it for {recipe.name}, copy the file "
        f"(shipped ones are in {SHIPPED}) into the home's folder {EXPERIMENT_FOLDER}, with `recipe: {recipe.name}`; or "
        "take it out of the recipe's `experiments`"
    )
