"""A plan: seconds, device-hours, money, rows and disk of every stage and of all, each with its interval."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dasd_assets.plan.figures import Figures, Interval, Values, at_hand, intervals
from dasd_assets.plan.scope import Scope
from dasd_assets.plan.stages import Stage, stages_of
from dasd_assets.plan.work import Work, trained_here, work_of
from dasd_assets.records.wording import number_of
from dasd_assets.rules.asset_names import MIXED, checkpoint_asset, dataset_asset, generation_asset
from dasd_resources.recipe import Recipe
from dasd_resources.sft.disk import published_bytes, rows_bytes, state_bytes

HOUR = 3600.0
TOTAL = "total"
WHILE_TRAINING = "while a stage trains"  # what the largest has on the disk until it ends: no stage leaves it
SHORT_SHARE = 0.002  # of the time, and of the disk: stages below both share one line
LARGE = ("responses", "student_tokens", "student_logprobs", "sentence_probabilities", "sentence_types", "sft_examples")


@dataclass(frozen=True)
class StagePlan:
    """disk: bytes that it leaves. pace: where its time comes from, if a pilot measured it.

    Without a pace it is from peak figures at an assumed utilisation.
    """

    stage: Stage
    seconds: Interval
    rows: Interval
    tokens: Interval
    disk: Interval
    pace: str | None

    @property
    def is_measured(self) -> bool:
        return self.pace is not None


@dataclass(frozen=True)
class Plan:
    """seconds: of the run, its stages one after another. disk: part -> bytes. All devices are paid for all the time.

    lines: the stages, the short ones together; and what is on the disk while one trains.
    """

    recipe: Recipe
    scope: Scope
    figures: Figures
    stages: tuple[StagePlan, ...]
    lines: tuple[StagePlan, ...]
    seconds: Interval
    disk: Mapping[str, Interval]
    rows: Mapping[str, Interval]

    @property
    def device_hours(self) -> Interval:
        return self.hours_of(self.seconds)

    @property
    def money(self) -> Interval:
        """In dollars."""
        return self.money_of(self.seconds)

    def hours_of(self, seconds: Interval) -> Interval:
        """Of all devices."""
        return _scaled(seconds, self.scope.machine.num / HOUR)

    def money_of(self, seconds: Interval) -> Interval:
        """In dollars."""
        return _scaled(self.hours_of(seconds), self.scope.machine.price)

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
    short = _short(stages, _numbers(recipe, scope, values))
    together = Stage(number_of(len(short), "short stage"), 0.0)
    found = intervals(lambda drawn: _with_sum(_numbers(recipe, scope, drawn), short, together), figures)

    def planned(stage: Stage, pace: str | None) -> StagePlan:
        seconds, rows, tokens, disk = (
            found.get(f"{kind}.{stage.asset}", Interval(0, 0, 0)) for kind in ("seconds", "rows", "tokens", "disk")
        )
        return StagePlan(stage, seconds, rows, tokens, disk, pace)

    paces = {name.removeprefix("factor."): one.origin for name, one in figures.items() if name.startswith("factor.")}
    every = tuple(planned(stage, paces.get(stage.kind)) for stage in stages)
    beside = [*([together] if short else []), Stage(WHILE_TRAINING, 0.0)]
    lines = [one for one in every if one.stage not in short] + [planned(stage, "") for stage in beside]
    disk = {name.removeprefix("part."): value for name, value in found.items() if name.startswith("part.")}
    rows = {name.removeprefix("table."): value for name, value in found.items() if name.startswith("table.")}
    disk[TOTAL] = found[f"disk.{TOTAL}"]
    return Plan(recipe, scope, figures, every, tuple(lines), found[f"seconds.{TOTAL}"], disk, rows)


def _short(stages: Sequence[Stage], numbers: Mapping[str, float]) -> list[Stage]:
    def is_short(stage: Stage, kind: str) -> bool:
        return numbers[f"{kind}.{stage.asset}"] < SHORT_SHARE * numbers[f"{kind}.{TOTAL}"]

    return [stage for stage in stages if is_short(stage, "seconds") and is_short(stage, "disk")]


def _with_sum(numbers: Mapping[str, float], short: Sequence[Stage], together: Stage) -> dict[str, float]:
    """And what the short stages take together."""
    sums = {kind: sum(numbers[f"{kind}.{stage.asset}"] for stage in short) for kind in ("seconds", "disk")}
    return {**numbers, **{f"{kind}.{together.asset}": number for kind, number in sums.items()}}


def seconds_of(stage: Stage, values: Values) -> float:
    """fixed · starts + factor · modelled; loading models is part of what a pilot finds fixed."""
    factor = values.get(f"factor.{stage.kind}", 1.0)
    fixed = values.get(f"fixed.{stage.asset}")
    working = values["start_seconds"] * stage.restarts + factor * stage.seconds
    if fixed is None:
        return values["start_seconds"] * stage.starts + stage.loads + working
    return fixed * stage.starts + working


def totals(recipe: Recipe, scope: Scope, values: Values) -> tuple[float, float]:
    """Seconds and bytes of the whole run."""
    numbers = _numbers(recipe, scope, values)
    return numbers[f"seconds.{TOTAL}"], numbers[f"disk.{TOTAL}"]


def _numbers(recipe: Recipe, scope: Scope, values: Values) -> dict[str, float]:
    work = work_of(recipe, scope, values)
    stages = stages_of(recipe, scope, work, values)
    numbers = defaultdict[str, float](float)
    numbers |= {f"table.{table}": num for table, num in work.rows.items() if "." not in table}
    for stage in stages:
        seconds = seconds_of(stage, values)
        of_stage = {"seconds": seconds, "rows": stage.rows, "tokens": stage.tokens, "disk": 0.0}
        numbers |= {f"{kind}.{stage.asset}": number for kind, number in of_stage.items()}
        numbers[f"seconds.{TOTAL}"] += seconds
    for part, asset, size in _disk(recipe, scope, work, stages, values):
        for name in (f"part.{part}", f"disk.{asset}", f"disk.{TOTAL}"):
            numbers[name] += size
    return numbers


def _disk(
    recipe: Recipe, scope: Scope, work: Work, stages: Sequence[Stage], values: Values
) -> Iterator[tuple[str, str, float]]:
    """(part, the stage that leaves it, bytes)."""
    tokens, token = work.tokens, values["bytes.student_token"]
    for dataset in recipe.datasets:
        yield "responses", generation_asset(dataset), tokens[f"generated.{dataset}"] * values["bytes.teacher_token"]
        yield "student tokens", "student_tokens", tokens[f"student.{dataset}"] * token
        yield "student logprobs", "student_logprobs", tokens[f"scored.{dataset}"] * values["bytes.student_logprob"]
    # With their types, which are some 4 % of it.
    yield "sentences", "sentence_probabilities", work.rows["sentence_probabilities"] * values["bytes.sentence"]
    # Both policies are written; the control's examples are as long. The mixed-policy dataset has none.
    for dataset, policies in {**dict.fromkeys(recipe.datasets, 2), MIXED: 1}.items():
        size = policies * tokens[f"trained.{dataset}"] * values["bytes.example_token"]
        yield "training sets", dataset_asset(dataset), size
    yield "rollouts and answers", "student_rollouts", tokens["rollouts"] * token
    answered = sum(num for name, num in tokens.items() if name.startswith("answers."))
    yield "rollouts and answers", "evaluations", answered * token
    # As sampled, and once more, with the rollout's part, in the student's tokens.
    yield "continuations", "teacher_continuations", tokens["continued"] * values["bytes.teacher_token"]
    yield "continuations", "continuation_tokens", (tokens["prefixes"] + tokens["continued"]) * token
    for stage in stages:
        if stage.table not in (None, "checkpoints", *LARGE):
            yield "other rows", stage.asset, stage.rows * values["bytes.row"]
    yield "other rows", dataset_asset(MIXED), work.rows[f"selected_responses.{MIXED}"] * values["bytes.row"]
    weights, trained = scope.student.num_parameters, {name: recipe.training.of(name) for name in trained_here(recipe)}
    for name, own in trained.items():
        yield "checkpoints", checkpoint_asset(name), published_bytes(weights, own, recipe.epochs(name))
    yield "training state", WHILE_TRAINING, state_bytes(weights)
    example = values["bytes.example_token"]
    largest = max(rows_bytes(tokens[f"trained.{name}"], own, example) for name, own in trained.items())
    yield "rows being trained on", WHILE_TRAINING, largest


def _scaled(interval: Interval, by: float) -> Interval:
    return Interval(interval.value * by, interval.low * by, interval.high * by)
