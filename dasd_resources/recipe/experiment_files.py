"""Loading experiments: shipped ones, those in the home's folder `experiments`, or a file given by its path."""

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from dasd_resources.recipe.experiment import Experiment
from dasd_resources.recipe.faults import error_lines
from dasd_resources.recipe.load import RECIPES, UniqueKeys
from dasd_resources.recipe.parts import RecipeError
from dasd_resources.recipe.recipe import Recipe

SHIPPED = RECIPES / "experiments"
OF_HOME = "experiments"  # the home's folder


def load_experiment(name_or_path: str, home: Path) -> Experiment:
    """The experiment of that name, shipped or in the home, or of that file.

    Raises RecipeError with a line per fault: the file, the key, what is wrong with it, the value found.
    """
    path = experiment_files(home).get(name_or_path, Path(name_or_path).expanduser().resolve())
    if not path.is_file():
        known = ", ".join(experiment_files(home))
        raise RecipeError(
            f"no experiment {name_or_path!r}: give the path of a YAML file, or one of {known}; a file in "
            f"{home / OF_HOME} is known by its name"
        )
    return read_experiment(path)


def read_experiment(path: Path) -> Experiment:
    """The experiment in a file, whose name it must have; raises as `load_experiment` does."""
    try:
        experiment = Experiment.model_validate(yaml.load(path.read_text(encoding="utf-8"), UniqueKeys))
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path.name}: {line}" for line in error_lines(error, Experiment))) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a YAML file: {error}") from None
    if experiment.name != path.stem:
        raise RecipeError(f"{path.name}: name: must be {path.stem}, as the file is called (found {experiment.name!r})")
    return experiment


def experiment_files(home: Path) -> dict[str, Path]:
    """Name -> file of all that are known, in order of name; the home's where one is shipped under its name."""
    found = {path.stem: path for folder in (SHIPPED, home / OF_HOME) for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def experiments_of(recipe: Recipe, home: Path) -> Iterator[Experiment | RecipeError]:
    """The known experiments of a recipe, each checked against it; in place of a faulty one, its error."""
    for path in experiment_files(home).values():
        try:
            experiment = read_experiment(path)
            if experiment.recipe == recipe.name:
                yield checked(experiment, recipe)
        except RecipeError as error:
            yield error


def checked(experiment: Experiment, recipe: Recipe) -> Experiment:
    """The experiment, of which the recipe can make every arm; else RecipeError, naming arm, stage and key."""
    if experiment.recipe != recipe.name:
        raise RecipeError(
            f"{experiment.name}: it is of recipe {experiment.recipe}, not of {recipe.name}; name that one by --recipe "
            "or DASD_RECIPE"
        )
    try:
        experiment.check(recipe)
    except RecipeError as error:
        raise RecipeError("\n".join(f"{experiment.name}.yaml: {line}" for line in str(error).splitlines())) from None
    return experiment
