"""The stages of a recipe, in order: the assets of the graph, what each takes by the machine's figures, and their rows.

A stage that an engine or the trainer carries is modelled by `engine_time`; any other by rows or tokens a second on one
core, as the stages are written: their work is in one process.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dasd_assets.plan.assumptions import load_seconds
from dasd_assets.plan.engine_time import decoding, prefill, training
from dasd_assets.plan.figures import Values
from dasd_assets.plan.scope import Scope
from dasd_assets.plan.work import Work, answering, has_mixed, trained_here
from dasd_assets.rules.asset_names import (
    CONTROL_ASSET,
    MIXED,
    SOURCE_ASSET,
    checkpoint_asset,
    dataset_asset,
    generation_asset,
    selection_asset,
)
from dasd_assets.rules.gpu_engines import makes_rounds
from dasd_assets.rules.landed import LANDED_ASSET
from dasd_resources.recipe import Recipe

# Families: what the teacher writes, what mostly the student does, and what landed. A pilot has few continuations, which
# alone would say little of their rate.
GENERATION, ANSWERS, IMPORTS = "generation", "answers", "imports"
BETWEEN = "between steps"  # checks of parity among them, and what Dagster and the planner take


@dataclass(frozen=True)
class Stage:
    """seconds: modelled. starts: how often its fixed cost is paid. loads: seconds of loading models, in all.

    restarts: starts that find the model loaded by an earlier one, and cost what any step does.
    family: stages with one cost a unit, whose measurements are taken together. rows: of `table`, that it writes.
    per_batch: it is made for each batch by itself.
    """

    asset: str
    seconds: float
    starts: float = 1.0
    loads: float = 0.0
    family: str = ""
    table: str | None = None
    rows: float = 0.0
    tokens: float = 0.0
    per_batch: bool = False
    restarts: float = 0.0

    @property
    def kind(self) -> str:
        return self.family or self.asset


def stages_of(recipe: Recipe, scope: Scope, work: Work, values: Values) -> list[Stage]:
    """All that have something to do."""
    of_batches = [*_batch_stages(recipe, scope, work, values), Stage(BETWEEN, 0.0, starts=scope.num_batches)]
    every = [
        *(replace(stage, per_batch=True) for stage in of_batches),
        *_selection_stages(recipe, work, values),
        *_training_stages(recipe, scope, work, values),
        *_evaluation_stages(recipe, scope, work, values),
    ]
    return [stage for stage in every if stage.starts]


def _batch_stages(recipe: Recipe, scope: Scope, work: Work, values: Values) -> Iterator[Stage]:
    rows, tokens, batches = work.rows, work.tokens, float(scope.num_batches)
    load = {role: _load(scope, role, values) for role in ("teacher", "student")}
    yield Stage("prompts", rows["prompts"] / values["rows_per_second"], batches, table="prompts", rows=rows["prompts"])
    if recipe.imports is not None:
        num, read = rows["landed_responses"], _sum(tokens, "generated.") / values["landed_tokens_per_second"]
        yield Stage(LANDED_ASSET, read, batches, table="landed_responses", rows=num)
    if recipe.selection_from is None:
        starts, restarts = _starts(recipe, scope)
        for dataset in recipe.datasets:
            stage = (_imported if recipe.imports is not None else _generated)(recipe, scope, work, values, dataset)
            yield replace(stage, starts=starts, restarts=restarts, loads=starts * load["teacher"])
    student = _sum(tokens, "student.")
    yield Stage(
        "student_tokens",
        student / values["tokenised_per_second"],
        batches,
        table="student_tokens",
        rows=rows["student_tokens"],
        tokens=student,
    )
    judged = student / values["judged_tokens_per_second"] + rows["responses"] / values["verified_per_second"]
    yield Stage("response_verdicts", judged, batches, table="response_verdicts", rows=rows["response_verdicts"])
    if recipe.selection_from is not None:  # which scores nothing
        return
    scored, num, scorer = _sum(tokens, "scored."), rows["student_logprobs"], recipe.student.as_scored
    starts, restarts = _starts(recipe, scope)
    yield Stage(
        "student_logprobs",
        prefill(scored, scored / max(num, 1), scope.student, scorer, scope.machine, values["utilisation.prefill"]),
        starts,
        starts * load["student"],
        table="student_logprobs",
        rows=num,
        tokens=scored,
        restarts=restarts,
    )
    yield Stage(
        "sentence_probabilities",
        scored / values["sentence_tokens_per_second"],
        batches,
        table="sentence_probabilities",
        rows=rows["sentence_probabilities"],
    )
    for asset, table in (("sentence_types", "sentence_types"), ("response_scores", "response_scores")):
        seconds = rows["sentence_probabilities"] / values["typed_per_second"]
        yield Stage(asset, seconds, batches, table=table, rows=rows[table])


def _starts(recipe: Recipe, scope: Scope) -> tuple[float, float]:
    """Starts of a stage that load its model, and those of other batches, for which it is still loaded (rounds)."""
    if not makes_rounds(recipe):
        return float(scope.num_batches), 0.0
    starts = 2.0 if scope.num_batches > recipe.automation.check_first_batch_above else 1.0
    return starts, scope.num_batches - starts


def _generated(recipe: Recipe, scope: Scope, work: Work, values: Values, dataset: str) -> Stage:
    mean, written = values[f"teacher_tokens.{dataset}"], work.tokens[f"generated.{dataset}"]
    prompt, made = values["prompt_tokens"], work.rows[f"responses.{dataset}"]
    seconds = decoding(written, mean, prompt, scope.teacher, recipe.teacher, scope.machine, values)
    return Stage(generation_asset(dataset), seconds, family=GENERATION, table="responses", rows=made, tokens=written)


def _imported(recipe: Recipe, scope: Scope, work: Work, values: Values, dataset: str) -> Stage:
    """All are read; those that landed without logprobs, or with those of a proxy's writer, the teacher scores."""
    tokens, made = work.tokens[f"generated.{dataset}"], work.rows[f"responses.{dataset}"]
    mean, given = values[f"teacher_tokens.{dataset}"] + values["prompt_tokens"], values[f"given_share.{dataset}"]
    scored = (1 - given) * made * mean
    seconds = prefill(scored, mean, scope.teacher, recipe.teacher, scope.machine, values["utilisation.prefill"])
    seconds += tokens / values["landed_tokens_per_second"]
    return Stage(generation_asset(dataset), seconds, family=IMPORTS, table="responses", rows=made, tokens=tokens)


def _selection_stages(recipe: Recipe, work: Work, values: Values) -> Iterator[Stage]:
    rows = work.rows
    if recipe.selection_from is not None:
        yield Stage(SOURCE_ASSET, 0.0)
    for dataset in recipe.datasets:
        seconds = rows[f"student_logprobs.{dataset}"] / values["pooled_per_second"]
        kept = work.selected[dataset]
        yield Stage(selection_asset(dataset), seconds, 1, 0, "selection", "selected_responses", kept)
    drawn = rows["student_logprobs"] / values["pooled_per_second"]
    control = sum(rows[f"sft_examples.{dataset}"] - work.selected[dataset] for dataset in recipe.datasets)
    yield Stage(CONTROL_ASSET, drawn, table="selected_responses", rows=control)
    for dataset in recipe.datasets:
        seconds = 2 * work.tokens[f"trained.{dataset}"] / values["written_tokens_per_second"]
        made = rows[f"sft_examples.{dataset}"]
        yield Stage(dataset_asset(dataset), seconds, 1, 0, "datasets", "sft_examples", made)


def _training_stages(recipe: Recipe, scope: Scope, work: Work, values: Values) -> Iterator[Stage]:
    for dataset in recipe.datasets:
        yield _training(recipe, scope, work, values, dataset)
    if has_mixed(recipe):
        yield from _mixed_policy(recipe, scope, work, values)
        yield _training(recipe, scope, work, values, MIXED)


def _training(recipe: Recipe, scope: Scope, work: Work, values: Values, dataset: str) -> Stage:
    settings = recipe.training.of(dataset)
    tokens = work.tokens[f"trained.{dataset}"] * recipe.epochs(dataset)
    mean = work.tokens[f"trained.{dataset}"] / max(work.selected[dataset], 1)
    seconds = training(tokens, mean, scope.student, settings, scope.machine, values["utilisation.training"])
    return Stage(
        checkpoint_asset(dataset), seconds, 1, _load(scope, "student", values), "training", "checkpoints", 1, tokens
    )


def _mixed_policy(recipe: Recipe, scope: Scope, work: Work, values: Values) -> Iterator[Stage]:
    rows, tokens, machine = work.rows, work.tokens, scope.machine
    prompt, last = values["prompt_tokens"], recipe.last_dataset
    drawn, mean = rows["student_rollouts"], values[f"student_tokens.{last}"]
    length = tokens["rollouts"] / max(drawn, 1)
    seconds = decoding(tokens["rollouts"], length, prompt, scope.student, recipe.student, machine, values)
    load = _load(scope, "student", values)
    yield Stage("student_rollouts", seconds, 1, load, ANSWERS, "student_rollouts", drawn, tokens["rollouts"])
    cut = rows["prefix_cuts"]
    small = cut / values["rows_per_second"]
    yield Stage("prefix_cuts", small, table="prefix_cuts", rows=cut)
    longer, each = tokens["prefixes"] / max(cut, 1), values["continuation_length"] * mean
    seconds = decoding(tokens["continued"], each, longer, scope.teacher, recipe.teacher, machine, values)
    read = prefill(tokens["prefixes"], longer, scope.teacher, recipe.teacher, machine, values["utilisation.prefill"])
    load = _load(scope, "teacher", values)
    yield Stage(
        "teacher_continuations", seconds + read, 1, load, GENERATION, "teacher_continuations", cut, tokens["continued"]
    )
    whole = tokens["prefixes"] + tokens["continued"]
    tokenised = whole / values["tokenised_per_second"]
    yield Stage("continuation_tokens", tokenised, table="continuation_tokens", rows=cut)
    judged = whole / values["judged_tokens_per_second"] + cut / values["verified_per_second"]
    judged_rows = rows["continuation_verdicts"]
    yield Stage("continuation_verdicts", judged, table="continuation_verdicts", rows=judged_rows)
    seconds = tokens[f"trained.{MIXED}"] / values["written_tokens_per_second"]
    made = rows[f"sft_examples.{MIXED}"]
    yield Stage(dataset_asset(MIXED), seconds, table="sft_examples", rows=made)


def _evaluation_stages(recipe: Recipe, scope: Scope, work: Work, values: Values) -> Iterator[Stage]:
    rows, tokens, machine = work.rows, work.tokens, scope.machine
    prompt, score = values["prompt_tokens"], values["utilisation.prefill"]
    asked = [name for name in answering(recipe) if name not in scope.answered_before]
    seconds = loads = 0.0
    for name in asked:
        role = "teacher" if name == "teacher" else "student"
        size, spec = getattr(scope, role), getattr(recipe, role)
        mean = values[f"answer_tokens.{name}"]
        seconds += decoding(tokens[f"answers.{name}"], mean, prompt, size, spec, machine, values)
        loads += _load(scope, role, values)
    answers, written = rows["evaluations"], _sum(tokens, "answers.")
    yield Stage("evaluations", seconds, len(asked), loads, ANSWERS, "evaluations", answers, written)
    measured = written / values["judged_tokens_per_second"] + answers / values["rows_per_second"]
    yield Stage("evaluation_metrics", measured)
    if recipe.heldout is not None:
        trained, mean = len(trained_here(recipe)), tokens["held_out"] / max(rows["heldout_logprobs"], 1)
        seconds = prefill(tokens["held_out"], mean, scope.student, recipe.student, machine, score)
        loads = trained * _load(scope, "student", values)
        num = rows["heldout_logprobs"]
        yield Stage("heldout_losses", seconds, trained, loads, "", "heldout_logprobs", num, tokens["held_out"])
    if recipe.provenance is not None and rows["answer_logprobs"]:
        yield _answer_logprobs(recipe, scope, work, values)
        yield Stage("answer_sentences", rows["answer_logprobs"] / values["rows_per_second"])
    if recipe.export is not None:
        seconds = _sum(tokens, "trained.") / values["written_tokens_per_second"]
        yield Stage("published_dataset", seconds)
    for asset in ("distillation_report", "leaderboard", "answer_provenance", "answer_sentence_types"):
        if recipe.provenance is not None or not asset.startswith("answer"):
            yield Stage(asset, 0.0)


def _answer_logprobs(recipe: Recipe, scope: Scope, work: Work, values: Values) -> Stage:
    """Each answer is scored by the teacher, the undistilled student and, of a trained checkpoint, by that."""
    score, seconds, read = values["utilisation.prefill"], 0.0, 0.0
    names = [name for name, num in work.tokens.items() if name.startswith("provenance.") and num]
    for name in names:
        tokens = work.tokens[name]
        mean = values[f"answer_tokens.{name.removeprefix('provenance.')}"] + values["prompt_tokens"]
        by_student = 1 if name.endswith(".student") else 2
        seconds += prefill(tokens, mean, scope.teacher, recipe.teacher, scope.machine, score)
        seconds += by_student * prefill(tokens, mean, scope.student, recipe.student, scope.machine, score)
        read += tokens * (1 + by_student)
    loads = _load(scope, "teacher", values) + len(names) * _load(scope, "student", values)
    num = work.rows["answer_logprobs"]
    return Stage("answer_logprobs", seconds, 1 + len(names), loads, "", "answer_logprobs", num, read)


def _load(scope: Scope, role: str, values: Values) -> float:
    return load_seconds(getattr(scope, role), values["load_bytes_per_second"])


def _sum(tokens: dict[str, float], prefix: str) -> float:
    return sum(num for name, num in tokens.items() if name.startswith(prefix))
