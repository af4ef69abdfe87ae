"""Many batches made in rounds, so that a model is loaded once for all of them, and not again for each.

A batch asks for its models in turn: the teacher samples, the parity check scores a sample again in another way, the
student scores, another computation checks that. Where loading takes minutes, all batches are first made up to their
responses, then these are checked, then scored, then the scores are checked, then the rest is made; `kept_loaded` keeps
what one batch has loaded for the next. What needs no model has rounds of its own, between those: of a large batch it
takes longer than an idle engine is kept. A round leaves out only checks, and nothing is made from an asset before they
pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import dagster as dg

from dasd_assets.records.dagster_internals import BaseAssetGraph
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.gpu_engines import makes_rounds
from dasd_assets.service.steps import LEVELS, Step
from dasd_resources.recipe import Recipe


@dataclass(frozen=True)
class Round:
    """Assets that are made of every batch before others. gated: those of them with a check of its own round."""

    assets: frozenset[str]
    gated: frozenset[str]


def rounds(recipe: Recipe, graph: BaseAssetGraph) -> list[Round]:
    """The rounds of a recipe whose models take long to load; none for others, and where no model is kept loaded."""
    if not makes_rounds(recipe):
        return []
    found = list[Round]()
    for names in ([generation_asset(dataset) for dataset in recipe.datasets], ["student_logprobs"]):
        made, gated = _up_to(names, graph), frozenset(names)
        found += [Round(made - gated, frozenset()), Round(made, gated)]
    return found


def in_order(steps: Sequence[Step], of_recipe: Sequence[Round]) -> list[Step]:
    """The steps by level, and those of batches by the part that `next_part` would make of them."""

    def place(step: Step) -> tuple[int, int]:
        return LEVELS.index(step.level), _part(step, of_recipe)[0] if step.level == "batch" else 0

    return sorted(steps, key=place)


def next_part(steps: Sequence[Step], of_recipe: Sequence[Round]) -> tuple[Step, frozenset[str]]:
    """What is to be made next of the steps that are due, and the assets of it that are not to be checked yet.

    Of several batches, the part that comes first in the rounds; else the first step, whole.
    """
    batches = [step for step in steps if step.level == steps[0].level == "batch"]
    if len(batches) < 2 or not of_recipe:
        return steps[0], frozenset()
    parts = [_part(step, of_recipe) for step in batches]
    _, part, unchecked = min(parts, key=lambda found: found[0])  # of equal ones, the first
    return part, unchecked


def _part(step: Step, of_recipe: Sequence[Round]) -> tuple[int, Step, frozenset[str]]:
    """The number of the round that a batch is in, and what it makes there. Its identity is the whole step's."""
    for number, one in enumerate([] if step.retry else of_recipe):
        inside = {asset: reason for asset, reason in step.reasons.items() if asset in one.assets}
        part = replace(step, reasons=inside)
        if not step.only_checks.issuperset(inside):
            return 2 * number, part, one.gated
        if inside:
            return 2 * number + 1, part, frozenset()
    return 2 * len(of_recipe), step, frozenset()


def _up_to(names: Sequence[str], graph: BaseAssetGraph) -> frozenset[str]:
    """These assets, and what of a batch they are made from."""
    keys = dg.AssetSelection.assets(*names).upstream().resolve(graph)
    return frozenset(key.to_user_string() for key in keys if graph.get(key).is_partitioned)
