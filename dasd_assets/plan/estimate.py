"""A plan: seconds, device-hours, money, rows and disk of every stage and of all, each with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass

from dasd_assets.plan.figures import Figures, Interval, Values, at_hand, intervals
from dasd_assets.plan.scope import Scope
from dasd_assets.plan.stages import Stage, stages_of
from dasd_assets.plan.work import Work, trained_here, work_of
from dasd_resources.recipe import Recipe
from dasd_resources.sft.disk import published_bytes, rows_bytes, state_bytes

HOUR = 3600.0
TOTAL = "total"


@dataclass(frozen=True)
class StagePlan:
    """pace: where its time comes from, if a pilot measured it; None: peak figures at an assumed utilisation."""

    stage: Stage
    seconds: Interval
    rows: Interval
    pace: str | None

    @property
    def is_measured(self) -> bool:
        return self.pace is not None


@dataclass(frozen=True)
class Plan:
    """seconds: of the run, its stages one after another. disk: part -> bytes. All devices are paid for all the time."""

    recipe: Recipe
    scope: Scope
    figures: Figures
    stages: tuple[StagePlan, ...]
    seconds: Interval
    disk: Mapping[str, Interval]
    rows: Mapping[str, Interval]

    @property
    def device_hours(self) -> Interval:
        return _scaled(self.seconds, self.scope.machine.num / HOUR)

    @property
    def money(self) -> Interval:
        """In dollars."""
        return _scaled(self.device_hours, self.scope.machine.price)

    @property
    def dominant(self) -> list[StagePlan]:
        """The stages of the kind that takes longest, such as generation at all temperatures."""
        kinds: dict[str, list[StagePlan]] = {}
        for planned in self.stages:
            kinds.setdefault(planned.stage.kind, []).append(planned)
        return max(kinds.values(), key=lambda kind: sum(planned.seconds.value for planned in kind))


def estimate(recipe: Recipe, scope: Scope, figures: Figures) -> Plan:
    """The plan of a recipe, with the interval of every number."""
    values = at_hand(figures)
    stages = stages_of(recipe, scope, work_of(recipe, scope, values), values)
    found = intervals(lambda drawn: _numbers(recipe, scope, drawn), figures)
    planned = tuple(
        StagePlan(
            stage,
            found[f"seconds.{stage.asset}"],
            found[f"rows.{stage.asset}"],
            figures[f"factor.{stage.kind}"].origin if f"factor.{stage.kind}" in figures else None,
        )
        for stage in stages
    )
    disk = {name.removeprefix("disk."): value for name, value in found.items() if name.startswith("disk.")}
    rows = {name.removeprefix("table."): value for name, value in found.items() if name.startswith("table.")}
    return Plan(recipe, scope, figures, planned, found[f"seconds.{TOTAL}"], disk, rows)


def seconds_of(stage: Stage, values: Values) -> float:
    """fixed · starts + factor · modelled; loading models is part of what a pilot finds fixed."""
    factor = values.get(f"factor.{stage.kind}", 1.0)
    fixed = values.get(f"fixed.{stage.asset}")
    working = values["start_seconds"] * stage.restarts + factor * stage.seconds
    if fixed is None:
        return values["start_seconds"] * stage.starts + stage.loads + working
    return fixed * stage.starts + working


def total_seconds(recipe: Recipe, scope: Scope, values: Values) -> float:
    """Of the whole run."""
    return _numbers(recipe, scope, values)[f"seconds.{TOTAL}"]


def disk_bytes(recipe: Recipe, scope: Scope, values: Values) -> dict[str, float]:
    """Part -> bytes."""
    return _disk(recipe, scope, work_of(recipe, scope, values), values)


def _numbers(recipe: Recipe, scope: Scope, values: Values) -> dict[str, float]:
    work = work_of(recipe, scope, values)
    numbers = {f"table.{table}": num for table, num in work.rows.items() if "." not in table}
    total = 0.0
    for stage in stages_of(recipe, scope, work, values):
        seconds = seconds_of(stage, values)
        numbers[f"seconds.{stage.asset}"], numbers[f"rows.{stage.asset}"] = seconds, stage.rows
        total += seconds
    disk = _disk(recipe, scope, work, values)
    numbers |= {f"disk.{part}": size for part, size in disk.items()}
    return {**numbers, f"seconds.{TOTAL}": total, f"disk.{TOTAL}": sum(disk.values())}


def _disk(recipe: Recipe, scope: Scope, work: Work, values: Values) -> dict[str, float]:
    def tokens(prefix: str) -> float:
        return sum(num for name, num in work.tokens.items() if name.startswith(prefix))

    # Both policies are written; the control's examples are as long. The mixed-policy dataset has none.
    taught = sum(2 * work.tokens[f"trained.{dataset}"] for dataset in recipe.datasets) + work.tokens["trained.mixed"]
    stages = {name: recipe.training.of(name) for name in trained_here(recipe)}
    num_weights = scope.student.num_parameters
    small = sum(num for name, num in work.rows.items() if "." not in name and name not in LARGE)
    return {
        "responses": tokens("generated.") * values["bytes.teacher_token"],
        "student tokens": tokens("student.") * values["bytes.student_token"],
        "student logprobs": tokens("scored.") * values["bytes.student_logprob"],
        "sentences": work.rows["sentence_probabilities"] * values["bytes.sentence"],
        "training sets": taught * values["bytes.example_token"],
        "rollouts and answers": (tokens("rollouts") + tokens("answers.")) * values["bytes.student_token"],
        # As sampled, and once more, with the rollout's part, in the student's tokens.
        "continuations": work.tokens["continued"] * values["bytes.teacher_token"]
        + (work.tokens["prefixes"] + work.tokens["continued"]) * values["bytes.student_token"],
        "other rows": small * values["bytes.row"],
        "checkpoints": sum(published_bytes(num_weights, own, recipe.epochs(name)) for name, own in stages.items()),
        "training state": state_bytes(num_weights),
        "rows being trained on": max(
            rows_bytes(work.tokens[f"trained.{name}"], own, values["bytes.example_token"])
            for name, own in stages.items()
        ),
    }


LARGE = ("responses", "student_tokens", "student_logprobs", "sentence_probabilities", "sentence_types", "sft_examples")


def _scaled(interval: Interval, by: float) -> Interval:
    return Interval(interval.value * by, interval.low * by, interval.high * by)
