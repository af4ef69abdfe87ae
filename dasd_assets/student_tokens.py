"""Every response in the student's tokens: `responses` -> `student_tokens`, the one place where they are tokenised.

Filters count these tokens, the student is scored and trained on them: what is measured is what is learned.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.instructions import AS_ASKED
from dasd_assets.rules.stored_tokens import OF_RESPONSES, TokenTable
from dasd_assets.rules.tokens import TOKENS, token_table
from dasd_resources.chat import Chat
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.passes import ROWS_OF_OBJECTS, enough
from dasd_resources.storage.warehouse import Row, Warehouse

TEXTS_PER_COMMIT = 1000
CHARACTERS_PER_COMMIT = 4_000_000  # the same for long ones, 1 M tokens; of 4 M, 2,560 continuations took 77 MB more


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`student_tokens`."""
    generations = list(map(generation_asset, recipe.datasets))
    declared = declare(
        recipe,
        "student_tokens",
        "student_tokens",
        reads={"responses": generations, "prompts": "prompts"},
        models=["student_model"],
        rules=[TOKENS],
    )

    @declared.asset(
        group="responses",
        kinds={"ducklake"},
        description="One row per response: prompt, text and end of turn in the tokens of the student.",
    )
    def student_tokens(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        batch = context.partition_key
        num_todo, todo = untokenised(warehouse, batch, student.fingerprint)
        rows = logged(todo, num_todo, "responses tokenised", context.log.info)
        num_new = write_tokens(warehouse, OF_RESPONSES, student.chat, student.fingerprint, rows, origin(context), batch)
        made = _tokenised(warehouse, batch, student.fingerprint)
        return dg.MaterializeResult(
            data_version=content_version([*made["response_id"], student.fingerprint]),
            metadata=declared.result(
                warehouse,
                made.height,
                {"batch": batch, "student_fingerprint": student.fingerprint},
                num_new=num_new,
                num_refused=made["kind"].count(),
            ),
        )

    return [student_tokens]


def untokenised(warehouse: Warehouse, batch: str, student: str) -> tuple[int, Iterator[Row]]:
    """How many responses of a batch have no tokens of this student, and each with its question, few in memory."""
    todo = """FROM responses a JOIN prompts p USING (prompt_id)
        WHERE a.batch = $batch AND p.batch = $batch AND a.response_id NOT IN (
            SELECT response_id FROM student_tokens WHERE batch = $batch AND student_fingerprint = $student)"""
    params = {"batch": batch, "student": student}

    def rows() -> Iterator[Row]:
        query = f"SELECT a.response_id, a.text, {AS_ASKED} AS question, p.system_prompt {todo}"
        with warehouse.reading() as reading:
            for part in reading.stream(query, params, TEXTS_PER_COMMIT):
                yield from part.iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS)

    return int(warehouse.read(f"SELECT count(*) {todo}", params).item()), rows()


def write_tokens(
    warehouse: Warehouse,
    table: TokenTable,
    chat: Chat,
    student: str,
    texts: Iterable[Row],
    origin: str,
    batch: str | None = None,
) -> int:
    """Tokenise and commit texts, a commit's worth at a time; returns how many were new.

    texts: the table's key, and what `tokens_of` needs. batch: of all of them, where the table has batches.
    """
    num_new, left = 0, iter(texts)
    named = {"student_fingerprint": pl.lit(student)} | ({} if batch is None else {"batch": pl.lit(batch)})
    while (rows := token_table(chat, _of_a_commit(left), table.key)).height:
        with warehouse.commit(origin) as transaction:
            num_new += transaction.append_missing(table.name, rows.with_columns(**named), batch)
    return num_new


def _of_a_commit(texts: Iterator[Row]) -> Iterator[Row]:
    """The next texts, so many of them or so long together."""
    return enough(islice(texts, TEXTS_PER_COMMIT), _num_characters, CHARACTERS_PER_COMMIT)


def _num_characters(row: Row) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str))


def _tokenised(warehouse: Warehouse, batch: str, student: str) -> pl.DataFrame:
    query = "SELECT response_id, kind FROM student_tokens WHERE batch = $batch AND student_fingerprint = $student"
    return warehouse.read(query, {"batch": batch, "student": student})
