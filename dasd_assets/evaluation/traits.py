"""What maj@k and the repetition rate need of an answer's text, found once: `evaluations` -> `answer_traits`."""

from collections.abc import Callable, Sequence

import polars as pl

from dasd_assets.records.progress import logged
from dasd_assets.rules.filters.catalogue import FILTER_VERSION
from dasd_assets.rules.filters.repeats import repetition
from dasd_assets.rules.filters.short_texts import may_repeat
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING
from dasd_resources.chat import split_thinking
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe, Repetition
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers.catalogue import vote
from dasd_resources.verifiers.judgement import Asked

TRAITS_VERSION = "1"  # raise it when a final answer can be counted otherwise
REPEATING = Rule("repetition", FILTER_VERSION, ("filters.repetition",))
TRAITS = Rule("answer traits", TRAITS_VERSION, (), (VERIFYING, REPEATING))
ROWS_AT_ONCE = 4096  # under a second of work where hardly anything repeats, and a tenth of one to commit
_ANSWERS = """FROM evaluations e JOIN benchmark_questions q USING (benchmark, question_id)
    WHERE e.checkpoint_id IN (SELECT unnest($ids::VARCHAR[])) AND e.evaluation_id NOT IN (
        SELECT evaluation_id FROM answer_traits WHERE traits_version = $version)"""


def traits_version(recipe: Recipe) -> str:
    """Identifies how answers are looked at: code, and the limits of the repetition filter."""
    return content_hash([TRAITS_VERSION, FILTER_VERSION, recipe.version("filters.repetition")])[:12]


def find_traits(
    warehouse: Warehouse, recipe: Recipe, checkpoints: Sequence[str], origin: str, say: Callable[[str], None]
) -> None:
    """Store the traits of those answers of these checkpoints that have none yet, some thousands at a time."""
    params = {"ids": list(checkpoints), "version": traits_version(recipe)}
    total = int(warehouse.read(f"SELECT count(*) {_ANSWERS}", params).item())
    columns = "e.evaluation_id, e.response_text, e.num_tokens, q.verifier, q.question, q.reference_answer, q.metadata"
    with warehouse.reading() as reading:
        parts = reading.stream(f"SELECT {columns} {_ANSWERS} ORDER BY e.evaluation_id", params, ROWS_AT_ONCE)
        answers = (row for part in parts for row in with_may_repeat(part).iter_rows(named=True))
        found: list[Row] = []
        for row in logged(answers, total, "answers", say):
            found.append({**traits(row, recipe.filters.repetition), "traits_version": params["version"]})
            if len(found) == ROWS_AT_ONCE:
                _store(warehouse, found, origin)
                found = []
        _store(warehouse, found, origin)


def _store(warehouse: Warehouse, rows: list[Row], origin: str) -> None:
    if rows:
        with warehouse.commit(origin) as transaction:
            schema = {"final_answer": pl.String}
            transaction.append_missing("answer_traits", pl.DataFrame(rows, schema_overrides=schema))


def with_may_repeat(answers: pl.DataFrame) -> pl.DataFrame:
    """The answers with the column that spares most of them the repetition filter, which took two thirds of the time."""
    return answers.with_columns(may_repeat=pl.Series(may_repeat(answers["response_text"].to_list()), dtype=pl.Boolean))


def traits(answer: Row, limits: Repetition) -> Row:
    """The traits of an answer, which is given with its question, its verifier and `may_repeat`."""
    text = answer["response_text"]
    _, final = split_thinking(text)
    asked = Asked(answer["question"], answer["reference_answer"] or "", answer["metadata"] or "")
    return {
        "evaluation_id": answer["evaluation_id"],
        "final_answer": vote(answer["verifier"], final, asked) if final is not None and final.strip() else None,
        "repetition": repetition(text, range(answer["num_tokens"]), limits).value if answer["may_repeat"] else 0.0,
    }
