"""The checks of what is made batch by batch: questions, responses, filters, scores, types of sentences."""

from collections.abc import Callable

from dasd_assets.checks.findings import AssetCheckFinding, Check, Scope, failed_requests, share
from dasd_assets.records.markdown import code
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.candidates import (
    AT_ANY_TEMPERATURE,
    AT_TEMPERATURE,
    JUDGED,
    OF_RECIPE,
    candidate_params,
    num_scored,
)
from dasd_assets.rules.filters.catalogue import FILTERS, filter_version
from dasd_assets.rules.quotas import IS_ASKED
from dasd_assets.rules.scores import threshold_version
from dasd_assets.rules.thinking import STRUCTURE, advice, dropped_by_structure
from dasd_assets.student_logprobs import scoring_params
from dasd_resources.landing.rejections import DUPLICATES, MALFORMED
from dasd_resources.recipe import Checks, Recipe


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


def teacher_sentence_share(num_teacher: int, num_typed: int, limits: Checks) -> AssetCheckFinding:
    """Whether the share of teacher sentences lies within the recipe's limits; without sentences there is none."""
    low, high = limits.min_teacher_sentence_share, limits.max_teacher_sentence_share
    figures: dict[str, int | float | str] = {"low": low, "high": high, "num_sentences": num_typed}
    if not num_typed:
        return AssetCheckFinding(True, "no sentence has a type", figures)
    found = num_teacher / num_typed
    figures["share"] = found
    limited = f"{found:.1%}; limits {low:.1%} to {high:.1%}"
    message = f"{num_teacher:,} of {num_typed:,} sentences are the teacher's ({limited})"
    if low <= found <= high:
        return AssetCheckFinding(True, message, figures)
    look = (
        "The student knows what the teacher says: lower selection.divergence.threshold, or take harder questions"
        if found < low
        else "The models hardly agree on anything: look at the parity checks, both chat templates and system prompts"
    )
    return AssetCheckFinding(
        False, f"{message}. {look}; limits: recipe key checks.min_teacher_sentence_share, max_….", figures
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


_REJECTED_KINDS = "SELECT kind, count(*) FROM rejected_prompts WHERE batch = $batch GROUP BY ALL ORDER BY 2 DESC, 1"


def _rejected_lines(scope: Scope) -> AssetCheckFinding:
    query = """SELECT (SELECT count(*) FROM prompts WHERE batch = $batch) AS accepted, count(*) AS rejected,
            count(*) FILTER (list_contains($malformed, kind)) AS bad
        FROM rejected_prompts WHERE batch = $batch"""
    accepted, rejected, bad = scope.read(query, malformed=list(MALFORMED)).row(0)
    key, limit = "checks.max_rejected_line_share", scope.recipe.checks.max_rejected_line_share
    look = code(f"SELECT source_line, kind, reason FROM rejected_prompts WHERE batch = '{scope.batch}'")
    found = share(bad, rejected + accepted, limit, "lines could not be read as prompts", key, look)
    if (bad if scope.recipe.imports else rejected) and not accepted:  # files of responses repeat questions of others
        why = "; ".join(f"{count:,} {kind}" for kind, count in scope.read(_REJECTED_KINDS).iter_rows())
        return AssetCheckFinding(False, f"no line of it became a question: {code(why)}. {look}", found.figures)
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
    query = f"""WITH questions AS (SELECT prompt_id FROM prompts p WHERE batch = $batch AND {IS_ASKED})
        SELECT (SELECT count(*) FROM questions) * $num_candidates AS wanted,
            (SELECT count(*) {_RESPONSES} AND r.prompt_id IN (FROM questions)) AS present"""
    params = {"temperature": scope.recipe.datasets[dataset], "quota_scope": scope.recipe.quota_scope}
    wanted, present = scope.read(query, **params).row(0)
    if scope.recipe.imports is not None:  # which says nothing of how many responses a question has
        query = "SELECT count(*) FROM failed_requests WHERE asset = 'responses' AND batch = $batch"
        num_failed = int(scope.read(query).item())
        return failed_requests(scope, "responses", num_failed, num_failed + present)
    return failed_requests(scope, "responses", wanted - present, wanted)


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
    params = scoring_params(scope.recipe, scope.teacher, scope.student, scope.batch)
    scored, wanted = num_scored(scope.warehouse, params, scope.student)
    return failed_requests(scope, "student_logprobs", wanted - scored, wanted)


def _teacher_share(scope: Scope) -> AssetCheckFinding:
    query = """SELECT count(*) FILTER (sentence_type = 'teacher'), count(sentence_type) FROM sentence_types
        WHERE batch = $batch AND student_fingerprint = $student AND threshold_version = $threshold_version"""
    num_teacher, num_typed = scope.read(query, threshold_version=threshold_version(scope.recipe)).row(0)
    return teacher_sentence_share(num_teacher, num_typed, scope.recipe.checks)
