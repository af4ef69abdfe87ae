"""The recipes that an experiment makes of its own: one for each stage of an arm, and one by which the arms are asked.

They are validated as any other: all that a recipe decides (pools, selections, ids of datasets and checkpoints) is then
decided as ever, and a stage that changes nothing has the checkpoint that the pipeline itself has trained.

An experiment of another recipe is carried over where a recipe names it in `experiments`. What it compares stays: arms,
pairs, seeds, and how arms are asked. What is about its own recipe's questions and responses is left behind, or, where
an arm is made of it, refused: nothing says what it would be here.
"""

from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from dasd_resources.dataset_names import MIXED
from dasd_resources.recipe.experiment import ArmStage, Experiment
from dasd_resources.recipe.faults import error_lines
from dasd_resources.recipe.parts import RecipeError
from dasd_resources.recipe.recipe import Recipe

# What an experiment leaves behind: what its results mean, and names of its own recipe's benchmarks and ways.
LEFT_BEHIND = ("meaning", "meaning_of", "declared_after", "ways", "benchmarks")


def on_recipe(experiment: Experiment, base: Recipe) -> Experiment:
    """The experiment as the recipe makes it: carried over if it is of another, with the epochs that the recipe decides.

    Raises RecipeError, a line per fault, where an arm asks what the recipe cannot give.
    """
    made = experiment if experiment.recipe == base.name else _carried_over(experiment, base)
    if faults := list(_faults(made, base)):
        raise RecipeError("\n".join(faults))
    arms = {arm: tuple(_with_epochs(stage, base) for stage in stages) for arm, stages in made.arms.items()}
    return made.model_copy(update={"arms": arms})


def _carried_over(experiment: Experiment, base: Recipe) -> Experiment:
    """The experiment on a recipe that is not its own."""
    faults = [
        f"arms.{arm}.{number}.{fault}"
        for arm, stages in experiment.arms.items()
        for number, stage in enumerate(stages)
        for fault in _bound(stage, experiment.recipe)
    ]
    if faults:
        raise RecipeError("\n".join(faults))
    fields = Experiment.model_fields
    left_behind = {key: fields[key].get_default(call_default_factory=True) for key in LEFT_BEHIND}
    return experiment.model_copy(update={"recipe": base.name, **left_behind})


def _bound(stage: ArmStage, recipe: str) -> Iterator[str]:
    """What a stage has that means something for the questions and responses of its own recipe alone."""
    if stage.matching is not None:
        yield f"matching: is of the responses of recipe {recipe} (found {stage.matching!r})"
    if stage.budget is not None and stage.budget.per_domain is not None:
        domains = ", ".join(stage.budget.per_domain)
        yield f"budget.{stage.budget.counted_in}: names domains of the questions of recipe {recipe} (found {domains})"


def _faults(experiment: Experiment, base: Recipe) -> Iterator[str]:
    for arm, stages in experiment.arms.items():
        for number, stage in enumerate(stages):
            try:
                stage_recipe(base, stage, experiment.seeds[0])
            except RecipeError as error:
                yield from (f"arms.{arm}.{number}.{line}" for line in str(error).splitlines())
    try:
        evaluated_recipe(base, experiment)
    except RecipeError as error:
        yield from str(error).splitlines()


def _with_epochs(stage: ArmStage, base: Recipe) -> ArmStage:
    """The stage with as many epochs as the stages that it names in `epochs_of` have, which it then names no more."""
    if stage.epochs_of is None:
        return stage
    epochs = sum(map(base.epochs, stage.epochs_of))
    return stage.model_copy(
        update={"training": stage.training.model_copy(update={"epochs": epochs}), "epochs_of": None}
    )


def stage_recipe(base: Recipe, stage: ArmStage, seed: int) -> Recipe:
    """The recipe with the seed, and with what the stage changes, for the datasets that it trains on.

    A budget of so many times another is not in it: that depends on what there is. Raises RecipeError, a line per key.
    """
    known = [*base.datasets, MIXED]
    for key, names in (("dataset", stage.dataset), ("epochs_of", stage.epochs_of or ())):
        if unknown := [name for name in names if name not in known]:
            raise RecipeError(f"{key}: recipe {base.name} has no {', '.join(unknown)}; it has {', '.join(known)}")
    limit = base.generation.num_candidates
    if stage.num_candidates is not None and stage.num_candidates > limit:
        raise RecipeError(
            f"num_candidates: {stage.num_candidates} is above generation.num_candidates {limit} of recipe {base.name}; "
            "raise that and run `dasd run`, or lower this"
        )
    return _validated(base, _changes(base, _with_epochs(stage, base), seed))


def evaluated_recipe(base: Recipe, experiment: Experiment) -> Recipe:
    """The recipe with the benchmarks and sampling by which an experiment compares its arms.

    Raises RecipeError for a benchmark that the recipe has not.
    """
    known = {benchmark.name: benchmark for benchmark in base.evaluation.benchmarks}
    names = experiment.benchmarks or tuple(known)
    if unknown := [name for name in names if name not in known]:
        raise RecipeError(f"benchmarks: recipe {base.name} has no {', '.join(unknown)}; it has {', '.join(known)}")
    changes = {
        "benchmarks": [known[name].model_dump() for name in names],
        "temperatures": experiment.temperatures,
        "samples_per_question": experiment.samples_per_question,
    }
    return _validated(base, {"evaluation": _given(changes)})


def _changes(base: Recipe, stage: ArmStage, seed: int) -> dict[str, object]:
    """Section -> what a stage changes in it."""
    selection: dict[str, object] = dict(stage.selection)
    if stage.budget is not None:
        selection |= {"budget_unit": stage.budget.counted_in}
        budgets = stage.budget.per_domain or {}
        selection |= {"budgets": {**base.selection.budgets, **{name: dict(budgets) for name in stage.dataset}}}
    training = {"training": {**_given(stage.training.model_dump()), "stages": {}}}
    if stage.name in base.training.stages:
        own = base.training.stages[stage.name].model_dump()
        training["training"] = {**_given(own), **training["training"]}
    epochs = training["training"].pop("epochs", None) if stage.is_mixed else None
    mixed = _given({"loss_on_prefix": stage.loss_on_prefix, "epochs": epochs})
    return {
        "seed": seed,
        "generation": _given({"num_candidates": stage.num_candidates}),
        "filters": _given(stage.filters.model_dump()),
        "selection": selection,
        "mixed_policy": mixed,
        **training,
    }


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _validated(base: Recipe, changes: dict[str, object]) -> Recipe:
    """The recipe with sections, or values, replaced in part, validated anew."""
    document = base.model_dump()
    for name, value in changes.items():
        document[name] = {**document[name], **value} if isinstance(value, dict) else value
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError("\n".join(error_lines(error, Recipe))) from None
