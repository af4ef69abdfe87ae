"""A declared stage in words, for the page of its experiment."""

from collections.abc import Mapping, Sequence

from dasd_assets.rules.asset_names import DAS
from dasd_resources.recipe.experiment import ArmStage, Budget, Experiment

NUM_NAMED = 4  # arms, in a description
POLICY = "policy"  # of selection, beside the arm's own, by which responses are ranked
UNTRAINED = "the untrained student"


def described_as(experiment: Experiment) -> str:
    """`Ways to choose: das, anti_das, longest, shortest and 3 more against random. The report: …`."""
    others = [arm for arm in experiment.arms if arm != experiment.baseline]
    more = len(others) - NUM_NAMED
    named = ", ".join(others[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
    report = " ".join(experiment.report.split())
    return f"{experiment.title}: {named} against {experiment.baseline}. The report: {report}"


def arm_text(stages: Sequence[ArmStage]) -> str:
    """`t060, random; then t100, epochs 4`."""
    return "; then ".join(map(stage_text, stages)) or UNTRAINED


def stage_text(stage: ArmStage) -> str:
    """What a stage trains on, and what it changes of the recipe: `t100, random, selection policy top_k, epochs 4`."""
    policy = [] if stage.is_mixed or (stage.policy == DAS and stage.selection) else [stage.policy]
    candidates = [] if stage.num_candidates is None else [f"of {stage.num_candidates} candidates"]
    matching = [] if stage.matching is None else [f"of those in which {stage.matching} is found"]
    loss = {None: [], True: ["loss on the student's part"], False: ["no loss on the student's part"]}
    parts = [
        " and ".join(stage.dataset),
        *policy,
        *_changes({"selection policy" if name == POLICY else name: value for name, value in stage.selection.items()}),
        *_changes(stage.filters.model_dump()),
        *candidates,
        *matching,
        *([] if stage.budget is None else [_budget_text(stage.budget)]),
        *loss[stage.loss_on_prefix],
        *_changes(stage.training.model_dump()),
    ]
    return ", ".join(parts)


def _budget_text(budget: Budget) -> str:
    if budget.times is not None:
        return f"{budget.times:g} times the recipe's own selection in {budget.unit}"
    shown = ", ".join(f"{domain} {number:,}" for domain, number in sorted((budget.per_domain or {}).items()))
    return f"{budget.counted_in} by domain: {shown}"


def _changes(values: Mapping[str, object]) -> list[str]:
    """`epochs 4`, `required work and box`: what is given."""
    shown = {
        name: " and ".join(value) if isinstance(value, tuple) else str(value).lower() for name, value in values.items()
    }
    return [f"{name} {text}" for name, text in shown.items() if values[name] is not None]
