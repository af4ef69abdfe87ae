"""Many batches made in rounds, so that a model is loaded once for all of them, and not again for each.

A batch asks for its models in turn: the teacher samples, the parity check scores a sample again in another way, the
student scores, another computation checks that. Where loading takes minutes, all batches are first made up to their
responses, then these are checked, then scored, then the scores are checked, then the rest is made; `kept_loaded` keeps
what one batch has loaded for the next. What needs no model has rounds of its own, between those: of a large batch it
takes longer than an idle engine is kept. A round leaves out only checks, and nothing is made from an asset before they
pass. Rows that failed are asked again when all else is made, in the same rounds.

Of many batches (`automation.check_first_batch_above`) none of which has passed a check yet, the first to be made is
checked before the others are begun: what would fail in all of them is found after one. For this each model is loaded
twice more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import dagster as dg

from dasd_assets.records.dagster_internals import BaseAssetGraph
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.gpu_engines import makes_rounds
from dasd_assets.service.attempts import Attempt
from dasd_assets.service.steps import LEVELS, Step
from dasd_resources.recipe import Recipe


@dataclass(frozen=True)
class Round:
    """Assets that are made of every batch before others. gated: those of them with a check of its own round."""

    assets: frozenset[str]
    gated: frozenset[str]


@dataclass(frozen=True)
class Part:
    """What is made of a step at once; its identity is the whole step's. place: in the order in which parts are made.

    unchecked: assets of it that are not to be checked yet. only_checks: it is but to be checked. unproven: for the
    first time, of many batches.
    """

    step: Step
    place: tuple[bool, int] = (False, 0)
    unchecked: frozenset[str] = frozenset()
    only_checks: bool = False
    unproven: bool = False


def rounds(recipe: Recipe, graph: BaseAssetGraph) -> list[Round]:
    """The rounds of a recipe whose models take long to load; none for others, and where no model is kept loaded."""
    if not makes_rounds(recipe):
        return []
    found = list[Round]()
    for names in ([generation_asset(dataset) for dataset in recipe.datasets], ["student_logprobs"]):
        made, gated = _up_to(names, graph), frozenset(names)
        found += [Round(made - gated, frozenset()), Round(made, gated)]
    return found


def in_order(steps: Sequence[Step], of_recipe: Sequence[Round], prove_first: bool) -> list[Step]:
    """The steps by level, and those of batches by the part that `next_part` would make of them.

    prove_first: whether what is unproven is checked of one batch before the others are made; else nothing is unproven.
    """
    if not prove_first:
        steps = [replace(step, unproven=frozenset()) for step in steps]

    def place(step: Step) -> tuple[int, bool, tuple[bool, int]]:
        part = _part(step, of_recipe) if step.level == "batch" else Part(step)
        return LEVELS.index(step.level), not part.unproven, part.place

    return sorted(steps, key=place)


def next_part(due: Sequence[Attempt], of_recipe: Sequence[Round], last: Part | None = None) -> Part:
    """What is to be made next of the steps that are due. last: what was made before, whose model is loaded.

    Of several batches, a part in the place of the last one, else in the first place; else the first step, whole. Before
    all of these, the check of what is unproven; after them, batches whose last attempt died, which may kill this
    process, too.
    """
    first = due[0].step
    batches = [one for one in due if one.step.level == first.level == "batch"]
    alone = len(batches) == 1 and not first.only_checks  # to be made again for a check, it would ask failed rows
    if alone or not batches or not of_recipe:
        return Part(first)
    parts = [(one.died, _part(one.step, of_recipe)) for one in batches]
    if check := next((part for died, part in parts if part.unproven and not died), None):
        return check
    # Of equal ones, the first.
    return min(parts, key=lambda one: (one[0], last is None or one[1].place != last.place, one[1].place))[1]


def _part(step: Step, of_recipe: Sequence[Round]) -> Part:
    """What a batch makes in the first round that it is in. Failed rows are left until all else of it is made.

    What is but to be checked in a round of its own is not made again with the rest, as after a kill between the two.
    """
    later = frozenset[str]() if step.retry else step.only_retries
    reasons = {asset: reason for asset, reason in step.reasons.items() if asset not in later}
    for number, one in enumerate(of_recipe):
        inside = {asset: reason for asset, reason in reasons.items() if asset in one.assets}
        if not step.only_checks.issuperset(inside):
            made = {asset: reason for asset, reason in inside.items() if asset not in step.only_checks & one.gated}
            return Part(replace(step, reasons=made), (step.retry, 2 * number), one.gated)
        if inside:
            checked, of_check = replace(step, reasons=inside), one.gated.issuperset(inside)
            unproven = not step.unproven.isdisjoint(inside)
            return Part(checked, (step.retry, 2 * number + 1), only_checks=of_check, unproven=unproven)
    return Part(replace(step, reasons=reasons), (step.retry, 2 * len(of_recipe)))


def _up_to(names: Sequence[str], graph: BaseAssetGraph) -> frozenset[str]:
    """These assets, and what of a batch they are made from."""
    keys = dg.AssetSelection.assets(*names).upstream().resolve(graph)
    return frozenset(key.to_user_string() for key in keys if graph.get(key).is_partitioned)
