"""Asset checks where a person would look: shares that say whether the data is sound, against the recipe's limits.

They warn and never stop anything (the parity gate, which does, is in `parity`). Each tells what it found and, where it
fails, what to look at. Those of a batch run together after it, in one step; the others each after its asset.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import dagster as dg
import polars as pl

from dasd_assets.evaluation import checkpoint_outcomes
from dasd_assets.evaluation.metrics import Estimate, paired_change
from dasd_assets.mixed_policy.continuations import current_continuations, current_prefixes
from dasd_assets.mixed_policy.distilled_student import distilled_checkpoint, student_rollouts_now
from dasd_assets.records.markdown import code, codes
from dasd_assets.records.partitions import PROMPT_BATCH, batch_of
from dasd_assets.records.table_metadata import tidy
from dasd_assets.rules.asset_names import checkpoint_asset, generation_asset
from dasd_assets.rules.candidates import (
    AT_ANY_TEMPERATURE,
    AT_TEMPERATURE,
    JUDGED,
    OF_RECIPE,
    candidate_params,
    num_scored,
    to_score_params,
)
from dasd_assets.rules.checkpoints import current_checkpoints, trained_names
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_assets.rules.filters import FILTERS, filter_version, required_filters
from dasd_assets.rules.rollouts import current_wanted
from dasd_assets.rules.scores import threshold_version
from dasd_assets.rules.thinking import STRUCTURE, advice, dropped_by_structure
from dasd_resources.inference.engine import PERMANENT
from dasd_resources.inference.engines import Engines
from dasd_resources.landing.rejections import DUPLICATES, MALFORMED
from dasd_resources.recipe import Checks, Recipe
from dasd_resources.storage.ledger import MAX_ATTEMPTS
from dasd_resources.storage.warehouse import Warehouse


@dataclass(frozen=True)
class AssetCheckFinding:
    """What a check found: a sentence, and the figures behind it."""

    passed: bool
    message: str  # Markdown, as every description: text of others only as `code`
    figures: Mapping[str, int | float | str]


@dataclass(frozen=True)
class Scope:
    """What a check looks at; `batch` is empty for what is of no batch."""

    warehouse: Warehouse
    engines: Engines
    recipe: Recipe
    batch: str = ""

    def read(self, query: str, **params: object) -> pl.DataFrame:
        known = {
            **candidate_params(self.recipe, self.teacher),
            "temperatures": list(self.recipe.generation.temperatures),
            "filter_version": filter_version(self.recipe, self.student),
        }
        return self.warehouse.read(query, {**known, "student": self.student, "batch": self.batch, **params})

    @property
    def teacher(self) -> str:
        """Its fingerprint."""
        return self.engines.fingerprint(self.recipe.teacher, "teacher.model")

    @property
    def student(self) -> str:
        """The undistilled one's fingerprint."""
        return self.engines.fingerprint(self.recipe.student, "student.model")


@dataclass(frozen=True)
class Check:
    """A check of an asset, by name, and what evaluates it."""

    asset: str
    name: str
    description: str
    evaluate: Callable[[Scope], AssetCheckFinding]

    @property
    def key(self) -> dg.AssetCheckKey:
        return dg.AssetCheckKey(dg.AssetKey(self.asset), self.name)


def share(count: int, total: int, limit: float, what: str, key: str, look: str) -> AssetCheckFinding:
    """Whether `count` of `total` is at most the limit that the recipe sets at `key`; `look` follows where not."""
    found = count / total if total else 0.0
    passed = found <= limit
    message = f"{count:,} of {total:,} {what} ({found:.1%}; limit {limit:.1%}, recipe key {key})"
    figures = {"share": found, "limit": limit, "count": count, "total": total}
    return AssetCheckFinding(passed, message if passed else f"{message}. {look}", figures)


def teacher_sentence_share(num_teacher: int, num_typed: int, limits: Checks) -> AssetCheckFinding:
    """Whether the share of teacher sentences lies within the recipe's limits; without sentences there is none."""
    low, high = limits.min_teacher_sentence_share, limits.max_teacher_sentence_share
    found = num_teacher / num_typed if num_typed else 0.0
    limited = f"{found:.1%}; limits {low:.1%} to {high:.1%}"
    message = f"{num_teacher:,} of {num_typed:,} sentences are the teacher's ({limited})"
    figures: dict[str, int | float | str] = {"share": found, "low": low, "high": high, "num_sentences": num_typed}
    if not num_typed or low <= found <= high:
        return AssetCheckFinding(True, message, figures)
    look = (
        "The student knows what the teacher says: lower selection.divergence.threshold, or take harder questions"
        if found < low
        else "The models hardly agree on anything: look at the parity checks, both chat templates and system prompts"
    )
    return AssetCheckFinding(
        False, f"{message}. {look}; limits: recipe key checks.min_teacher_sentence_share, max_….", figures
    )


def accuracy_change(
    before: pl.DataFrame, after: pl.DataFrame, name: str, previous: str, limit: float
) -> AssetCheckFinding:
    """Whether a checkpoint is as accurate as its parent, but for `limit` standard errors, on every benchmark.

    before, after: benchmark, temperature, question_id, correct (None where not asked yet, False where the request
    failed). Questions are paired, and all samples of one are one observation, so that only what changed counts.
    """
    failed, figures = [], {}
    setting = ["benchmark", "temperature"]
    old, new = (rows.partition_by(setting, as_dict=True) for rows in (before, after))
    for key in sorted(old.keys() & new.keys()):
        where = f"{key[0]}, T={key[1]:g}"
        if num_missing := sum(rows[key]["correct"].null_count() for rows in (old, new)):
            figures[where] = f"incomplete, {num_missing:,} answers are missing"
            continue
        change = paired_change(old[key], new[key])
        if change.value is None:
            continue
        figures[where] = _points(change)
        # Of one question nothing says how much of a change is chance.
        if change.standard_error is not None and change.value < min(0, -limit * change.standard_error):
            failed.append(where)
    compared = "; ".join(f"{where}: {change}" for where, change in figures.items())
    message = compared or f"nothing to compare: {name} and {previous} have answered no question in common yet"
    if failed:
        message = (
            f"{name} answers worse than {previous} by more than {limit:g} standard errors on {' and '.join(failed)} "
            f"({message}). Look at {checkpoint_asset(name)}'s loss, at its dataset's samples, and at the answers: "
            f"`SELECT * FROM evaluations WHERE NOT correct`; recipe key checks.max_accuracy_drop"
        )
    return AssetCheckFinding(not failed, message, figures)


def _points(change: Estimate) -> str:
    """`-37.5 ± 12.5 points (4 questions)`."""
    error = "no standard error" if change.standard_error is None else f"± {100 * change.standard_error:.1f}"
    questions = "1 question" if change.num_questions == 1 else f"{change.num_questions} questions"
    return f"{100 * (change.value or 0):+.1f} {error} points ({questions})"


def batch_checks(recipe: Recipe) -> list[Check]:
    """The checks of what is made batch by batch."""
    per_dataset = [check for dataset in recipe.datasets for check in _generation_checks(dataset)]
    return [
        Check("prompts", "duplicate_questions", "Few questions were landed before.", _duplicate_questions),
        Check("prompts", "rejected_lines", "Nearly every line is a prompt.", _rejected_lines),
        *per_dataset,
        *[
            Check("response_verdicts", f"drop_rate_{name}", f"It drops few: {entry.drops}.", _drop_rate(name))
            for name, entry in FILTERS.items()
        ],
        Check("student_logprobs", "failed_requests", "Nearly every response was scored.", _unscored),
        Check(
            "sentence_types", "teacher_sentence_share", "Some sentences are the teacher's own, not all.", _teacher_share
        ),
    ]


def later_checks(recipe: Recipe) -> list[Check]:
    """The checks of what reads all batches."""
    names = ["student", *trained_names(recipe)]
    return [
        Check("student_rollouts", "failed_requests", "Nearly every rollout was made.", _missing_rollouts),
        Check("teacher_continuations", "failed_requests", "Nearly every prefix was continued.", _missing_continuations),
        *[
            Check(
                "evaluations",
                f"accuracy_{name}_not_below_{previous}",
                f"{name} answers held-out questions no worse than {previous}.",
                _accuracy_not_below(name, previous),
            )
            for previous, name in pairwise(names)
        ],
    ]


def build(recipe: Recipe) -> list[dg.AssetChecksDefinition]:
    """One step for the checks of a batch, and one for each later asset that has some."""
    later = later_checks(recipe)
    assets = dict.fromkeys(check.asset for check in later)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks; the pinned Dagster has them
        return [
            _step(recipe, "batch_checks", batch_checks(recipe), PROMPT_BATCH),
            *[_step(recipe, f"{asset}_checks", [c for c in later if c.asset == asset], None) for asset in assets],
        ]


def _step(
    recipe: Recipe, name: str, checks: Sequence[Check], partitions: dg.PartitionsDefinition | None
) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(check.name, asset=check.asset, description=check.description, partitions_def=partitions)
        for check in checks
    ]

    @dg.multi_asset_check(name=name, specs=specs, can_subset=True)
    def evaluate(
        context: dg.AssetCheckExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> Iterator[dg.AssetCheckResult]:
        scope = Scope(warehouse, engines, recipe, batch_of(context) if partitions else "")
        for check in checks:
            if check.key in context.selected_asset_check_keys:
                yield _result(check, check.evaluate(scope))

    return evaluate


def _result(check: Check, finding: AssetCheckFinding) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=check.asset,
        check_name=check.name,
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=finding.message,
        metadata={name: tidy(value) for name, value in finding.figures.items()},
    )


def _duplicate_questions(scope: Scope) -> AssetCheckFinding:
    if scope.recipe.imports is not None:
        return AssetCheckFinding(
            True, "not counted: files of responses repeat their questions, one row per response", {}
        )
    query = """SELECT count(*) FILTER (list_contains($duplicates, kind)) AS twins, count(*) AS rejected,
            (SELECT count(*) FROM prompts WHERE batch = $batch) AS accepted
        FROM rejected_prompts WHERE batch = $batch"""
    twins, rejected, accepted = scope.read(query, duplicates=list(DUPLICATES)).row(0)
    key, limit = "checks.max_duplicate_question_share", scope.recipe.checks.max_duplicate_question_share
    rejected_lines = f"SELECT * FROM rejected_prompts WHERE batch = '{scope.batch}'"
    look = f"Was a file landed twice? {code(rejected_lines)}"
    return share(twins, rejected + accepted, limit, "lines repeat a question", key, look)


def _rejected_lines(scope: Scope) -> AssetCheckFinding:
    query = """SELECT (SELECT count(*) FROM prompts WHERE batch = $batch) AS accepted, count(*) AS rejected,
            count(*) FILTER (list_contains($malformed, kind)) AS bad
        FROM rejected_prompts WHERE batch = $batch"""
    accepted, rejected, bad = scope.read(query, malformed=list(MALFORMED)).row(0)
    key, limit = "checks.max_rejected_line_share", scope.recipe.checks.max_rejected_line_share
    look = code(f"SELECT source_line, kind, reason FROM rejected_prompts WHERE batch = '{scope.batch}'")
    found = share(bad, rejected + accepted, limit, "lines could not be read as prompts", key, look)
    if bad and not accepted:
        return AssetCheckFinding(False, f"no line of it is a prompt. {look}", found.figures)
    return found


def _generation_checks(dataset: str) -> list[Check]:
    asset = generation_asset(dataset)
    return [
        Check(
            asset, "failed_requests", "Nearly every request was answered.", lambda scope: _unanswered(scope, dataset)
        ),
        Check(
            asset,
            "duplicate_responses",
            "Few candidates of a question say the same, word for word.",
            lambda scope: _duplicate_responses(scope, dataset),
        ),
    ]


_RESPONSES = f"""FROM responses r WHERE r.batch = $batch AND {OF_RECIPE} AND {AT_TEMPERATURE}"""


def _unanswered(scope: Scope, dataset: str) -> AssetCheckFinding:
    query = f"""SELECT ((SELECT count(*) FROM prompts WHERE batch = $batch) - (SELECT count(*) FROM asked_prompts
            WHERE recipe = $quotas_of AND batch = $batch AND NOT asked)) * $num_candidates AS wanted,
        (SELECT count(*) {_RESPONSES}) AS present"""
    params = {"temperature": scope.recipe.datasets[dataset], "quotas_of": scope.recipe.quota_scope}
    wanted, present = scope.read(query, **params).row(0)
    if scope.recipe.imports is not None:  # which says nothing of how many responses a question has
        query = "SELECT count(*) FROM failed_requests WHERE asset = 'responses' AND batch = $batch"
        num_failed = int(scope.read(query).item())
        return _failed(scope, "responses", num_failed, num_failed + present)
    return _failed(scope, "responses", wanted - present, wanted)


def _duplicate_responses(scope: Scope, dataset: str) -> AssetCheckFinding:
    query = f"SELECT count(*) AS total, count(DISTINCT (r.prompt_id, hash(r.text))) AS texts {_RESPONSES}"
    total, texts = scope.read(query, temperature=scope.recipe.datasets[dataset]).row(0)
    key, limit = "checks.max_duplicate_response_share", scope.recipe.checks.max_duplicate_response_share
    look = "More candidates cost much and bring little: raise the temperature, or lower generation.num_candidates"
    return share(total - texts, total, limit, "responses repeat another of their question", key, look)


def _drop_rate(name: str) -> Callable[[Scope], AssetCheckFinding]:
    def evaluate(scope: Scope) -> AssetCheckFinding:
        query = f"""SELECT count(*) FILTER (NOT v.passed) AS dropped, count(*) AS judged
            FROM responses r JOIN response_verdicts v USING (response_id)
            WHERE r.batch = $batch AND v.batch = $batch AND {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND v.filter = $filter
              AND v.filter_version = $filter_version AND {JUDGED}"""
        dropped, judged = scope.read(query, filter=name).row(0)
        look = code(
            f"SELECT kind, count(*) FROM response_verdicts WHERE batch = '{scope.batch}' AND filter = '{name}' AND "
            "NOT passed GROUP BY ALL"
        )
        if name == STRUCTURE and (advised := _thinking_advice(scope)):
            look = f"{advised}. {look}"
        limit = scope.recipe.checks.max_drop_share.get(name, FILTERS[name].max_drop_share)
        return share(dropped, judged, limit, f"responses fail {name}", f"checks.max_drop_share.{name}", look)

    return evaluate


def _thinking_advice(scope: Scope) -> str:
    params = {"batches": [scope.batch], "filter_version": filter_version(scope.recipe, scope.student)}
    known = {
        **candidate_params(scope.recipe, scope.teacher),
        "temperatures": list(scope.recipe.generation.temperatures),
    }
    return advice(dropped_by_structure(scope.warehouse, {**known, **params}), scope.recipe.teacher.thinking)


def _unscored(scope: Scope) -> AssetCheckFinding:
    version = filter_version(scope.recipe, scope.student)
    filters = required_filters(False, scope.recipe.filters.required)
    params = to_score_params(scope.recipe, scope.teacher, scope.batch, version, filters)
    scored, wanted = num_scored(scope.warehouse, params, scope.student)
    return _failed(scope, "student_logprobs", wanted - scored, wanted)


_ASKED_AGAIN = f"Another run asks again, up to {MAX_ATTEMPTS} times in all, for those that can succeed"


def _failed(scope: Scope, table: str, num_failed: int, num_wanted: int) -> AssetCheckFinding:
    query = """SELECT reason, bool_and(list_contains($permanent, kind)) FROM failed_requests
        WHERE asset = $asset AND (batch = $batch OR $batch = '') GROUP BY ALL ORDER BY ALL"""
    stored = dict(scope.read(query, asset=table, permanent=list(PERMANENT)).iter_rows()) if num_failed else {}
    again = "None can succeed until what it asks is another" if stored and all(stored.values()) else _ASKED_AGAIN
    look = f"{again}. Reasons, in failed_requests: {codes([*stored][:3]) or 'none stored'}"
    key, limit = "checks.max_failed_request_share", scope.recipe.checks.max_failed_request_share
    return share(num_failed, num_wanted, limit, "requests ended without a row", key, look)


def _teacher_share(scope: Scope) -> AssetCheckFinding:
    query = """SELECT count(*) FILTER (sentence_type = 'teacher'), count(sentence_type) FROM sentence_types
        WHERE batch = $batch AND student_fingerprint = $student AND threshold_version = $threshold_version"""
    num_teacher, num_typed = scope.read(query, threshold_version=threshold_version(scope.recipe)).row(0)
    return teacher_sentence_share(num_teacher, num_typed, scope.recipe.checks)


def _missing_rollouts(scope: Scope) -> AssetCheckFinding:
    checkpoint = str(distilled_checkpoint(scope.warehouse, scope.recipe)["checkpoint_id"])
    wanted = len(current_wanted(scope.warehouse, scope.recipe, scope.student, checkpoint))
    made = student_rollouts_now(scope.warehouse, scope.engines, scope.recipe).height
    return _failed(scope, "student_rollouts", wanted - made, wanted)


def _missing_continuations(scope: Scope) -> AssetCheckFinding:
    wanted = len(current_prefixes(scope.warehouse, scope.engines, scope.recipe, scope.teacher))
    made = current_continuations(scope.warehouse, scope.engines, scope.recipe).height
    return _failed(scope, "teacher_continuations", wanted - made, wanted)


def _not_trained(scope: Scope, *names: str) -> str:
    """Which of the checkpoints there is not, and why; empty if there are all."""
    made = current_checkpoints(scope.warehouse, scope.recipe)["name"]
    empty = empty_datasets(scope.warehouse, scope.recipe.name)
    return "; ".join(
        f"{name} was skipped, its dataset is empty: {empty[name]['reason']}"
        if name in empty
        else f"{name} is not trained yet"
        for name in names
        if name not in made
    )


def _accuracy_not_below(name: str, previous: str) -> Callable[[Scope], AssetCheckFinding]:
    def evaluate(scope: Scope) -> AssetCheckFinding:
        if absent := _not_trained(scope, previous, name):
            return AssetCheckFinding(True, f"nothing to compare: {absent}", {})
        answers = checkpoint_outcomes(scope.warehouse, scope.recipe)
        before, after = (answers.filter(pl.col("checkpoint") == of) for of in (previous, name))
        return accuracy_change(before, after, name, previous, scope.recipe.checks.max_accuracy_drop)

    return evaluate
