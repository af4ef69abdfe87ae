"""Cheaper settings of a recipe, and what each would save: the same computation with one of them changed.

Every one costs something else, which a plan cannot know: it is said with it. Accuracy is for `dasd experiment`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dasd_assets.plan.engine_time import fits
from dasd_assets.plan.estimate import HOUR, Plan, totals
from dasd_assets.plan.figures import Values, at_hand
from dasd_assets.plan.hardware import Machine
from dasd_assets.plan.lengths import fewer, shorter
from dasd_assets.plan.model_size import ModelSize
from dasd_assets.plan.scope import Scope
from dasd_assets.plan.work import work_of
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.recipe import Model, Recipe

SHARDING = "tensor_parallel_size"  # the engine option that divides a model among devices
LEAST = 0.005  # of the time: what saves less is not worth a line


@dataclass(frozen=True)
class Saving:
    """change: the setting. hours: of the run. money: dollars. disk: bytes. examples: fewer ones to train on."""

    change: str
    hours: float
    device_hours: float
    money: float
    disk: float
    examples: float


@dataclass(frozen=True)
class Changed:
    change: str
    recipe: Recipe
    scope: Scope
    values: Values


def savings(plan: Plan) -> list[Saving]:
    """Of the changes that make sense for the recipe, those that save money or time, most money first."""
    found = [_saving(plan, changed) for changed in _changes(plan.recipe, plan.scope, at_hand(plan.figures))]
    worth = [saving for saving in found if max(saving.hours * HOUR, 0.0) > LEAST * plan.seconds.value]
    return sorted(worth, key=lambda saving: (-saving.money, -saving.hours))


def _saving(plan: Plan, changed: Changed) -> Saving:
    values = at_hand(plan.figures)
    before, full = totals(plan.recipe, plan.scope, values)
    after, less = totals(changed.recipe, changed.scope, changed.values)
    old, new = plan.scope.machine, changed.scope.machine
    examples = sum(work_of(plan.recipe, plan.scope, values).selected.values())
    examples -= sum(work_of(changed.recipe, changed.scope, changed.values).selected.values())
    return Saving(
        change=changed.change,
        hours=(before - after) / HOUR,
        device_hours=(before * old.num - after * new.num) / HOUR,
        money=(before * old.num * old.price - after * new.num * new.price) / HOUR,
        disk=full - less,
        examples=examples,
    )


def _changes(recipe: Recipe, scope: Scope, values: Values) -> Iterator[Changed]:
    for change, changed in _settings(recipe):
        yield Changed(change, changed, scope, values)
    if _samples(recipe):
        if num := recipe.generation.num_candidates // 2:
            halved = _with(recipe, "generation", {"num_candidates": num})
            yield Changed(f"generation.num_candidates: {num}", halved, scope, fewer(recipe, values, num))
        limit = recipe.generation.max_tokens // 2
        cut = _with(recipe, "generation", {"max_tokens": limit})
        yield Changed(f"generation.max_tokens: {limit}", cut, scope, shorter(recipe, values, limit))
    yield from _parallel(recipe, scope, values)
    doubled = replace(scope, machine=replace(scope.machine, num=2 * scope.machine.num))
    if not scope.machine.is_cpu:
        yield Changed(f"--gpus {2 * scope.machine.num}", recipe, doubled, values)


def _samples(recipe: Recipe) -> bool:
    """Whether the responses are this recipe's own: else they are there, as many and as long as they are."""
    return recipe.imports is None and recipe.selection_from is None


def _settings(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Settings that change no figure but counts."""
    for section, key, value in (
        ("training", "epochs", recipe.training.epochs // 2),
        ("evaluation", "samples_per_question", recipe.evaluation.samples_per_question // 4),
        ("mixed_policy", "num_questions", (recipe.mixed_policy.num_questions or 0) // 2),
    ):
        if value:
            yield f"{section}.{key}: {value}", _with(recipe, section, {key: value})
    if recipe.filters.apply == "after_selection":
        yield "filters.apply: before_selection", _with(recipe, "filters", {"apply": "before_selection"})
    if recipe.training.gradient_checkpointing:
        off = {"gradient_checkpointing": False}
        yield "training.gradient_checkpointing: false, if the memory allows", _with(recipe, "training", off)
    for section in ("provenance", "heldout"):
        if getattr(recipe, section) is not None:
            yield f"{section}: null", recipe.model_copy(update={section: None})


def _with(recipe: Recipe, section: str, update: Mapping[str, object]) -> Recipe:
    return recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=dict(update))})


def _parallel(recipe: Recipe, scope: Scope, values: Values) -> Iterator[Changed]:
    """As many copies of a model as there are GPUs for, each on as many as now or on others."""
    for role in ("teacher", "student"):
        spec: Model = getattr(recipe, role)
        if ENGINES[spec.engine].served or ENGINES[spec.engine].absent or scope.machine.is_cpu:
            continue
        for each in _divisions(spec, getattr(scope, role), scope.machine):
            sharded = {} if each == spec.num_gpus_each else {SHARDING: each}
            copies = scope.machine.num // each
            options = {"engine_options": {**spec.engine_options, **sharded}, "replicas": copies}
            said = ", ".join(f"{key} {value}" for key, value in {**sharded, "replicas": copies}.items())
            yield Changed(
                f"{role}: {said}",
                recipe.model_copy(update={role: spec.model_copy(update=options)}),
                scope,
                values,
            )


def _divisions(spec: Model, size: ModelSize, machine: Machine) -> list[int]:
    """GPUs of one copy: as now, and powers of 2 on which it fits, unless another option divides it, too."""
    found = {spec.num_gpus_each}
    options = ENGINES[spec.engine].gpu_options
    if SHARDING in options and spec.num_gpus_each == int(spec.engine_options.get(SHARDING) or 1):
        found |= {2**power for power in range(8) if machine.num % 2**power == 0 and fits(size, machine, 2**power)}
    return sorted(each for each in found if each <= machine.num)
