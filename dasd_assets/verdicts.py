"""Filter verdicts on every response: `responses` and `student_tokens` -> `response_verdicts`.

Verdicts are kept per filter version: a changed filter judges anew, it never regenerates a response or drops a row.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg

from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.plots import dropped_at_limits, inline, values_at_limit
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import Figure
from dasd_assets.records.unsafe import confinement_of, sandbox_figure
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.filters.catalogue import FILTERING, FILTERS, filter_version
from dasd_assets.rules.instructions import as_asked
from dasd_assets.rules.judging import VERDICTS_PER_COMMIT, judge_row, verdict_figures, verdict_rows
from dasd_assets.rules.prompt_ids import known_versions
from dasd_assets.rules.stored_tokens import LENGTH_BY_STUDENT, require_tokens
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Filters, Recipe
from dasd_resources.storage.ledger import Ledger
from dasd_resources.storage.passes import ROWS_OF_OBJECTS
from dasd_resources.storage.tables import measured
from dasd_resources.storage.warehouse import Reading, Row, Warehouse
from dasd_resources.verifiers.in_order import in_order
from dasd_resources.verifiers.verdict_cache import VERDICTS

RESPONSES_AT_ONCE = 64  # as a data frame; of 65,536 tokens, 50 MB


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`response_verdicts`."""

    generations = list(map(generation_asset, recipe.datasets))
    declared = declare(
        recipe,
        "response_verdicts",
        ["response_verdicts", "failed_requests"],
        reads={"responses": generations, "prompts": "prompts", "student_tokens": "student_tokens"},
        models=["student_model"],
        rules=[FILTERING],
    )

    @declared.asset(
        group="responses",
        kinds={"ducklake"},
        description="One row per response and filter: whether it passed, and if not, why. Dropped are:\n\n"
        + "\n".join(
            f"- `{name}`: {entry.drops}{'' if entry.always_required else ', where the recipe requires it'}"
            for name, entry in FILTERS.items()
        ),
    )
    def response_verdicts(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student, batch = engines.fingerprint(recipe.student, "student.model"), context.partition_key
        version, confinement = filter_version(recipe, student), confinement_of(recipe, context.log.warning)
        with (
            Ledger(warehouse, "response_verdicts", origin(context), batch, max_rows=VERDICTS_PER_COMMIT) as ledger,
            VERDICTS.kept_in(Path(warehouse.home)),
        ):
            num_todo, num_waiting, todo = unjudged(warehouse, batch, student, version)
            if num_waiting:
                context.log.warning(
                    f"{num_waiting:,} responses have no tokens yet: judged when student_tokens has them"
                )
            asked = partial(
                judge_row, filters=recipe.filters, thinking=recipe.teacher.thinking, confinement=confinement
            )
            judged = in_order(todo, lambda row: (row["response_id"], asked(row, known=row["known"])))
            for response, found in logged(judged, num_todo, "responses judged", context.log.info):
                for verdict in verdict_rows({"response_id": response, "batch": batch}, found, version):
                    ledger.add(verdict)
        return _result(warehouse, batch, version, recipe.filters, declared, sandbox_figure(confinement))

    return [response_verdicts]


def unjudged(warehouse: Warehouse, batch: str, student: str, version: str) -> tuple[int, int, Iterator[Row]]:
    """How many responses of a batch lack a filter's verdict by these rules; how many more have no tokens yet; the rows.

    The rows as `judge_row` takes them, few in memory at a time; each has `known`, the filters whose verdicts it has.
    student: the fingerprint whose tokens are counted. Raises NoTokens if none of them is made.
    """
    params = {"batch": batch, "student": student, "version": version, "filters": list(FILTERS)}
    lacking = warehouse.read(_LACKING, params)
    todo = lacking.filter("has_tokens")
    if todo.is_empty():
        require_tokens(0, lacking.height, "student_tokens")

    def rows() -> Iterator[Row]:
        with warehouse.reading() as reading:
            # Joined here: DuckDB, which takes filtered rows for few, may keep the texts of a whole batch for its join.
            questions = reading.read(_QUESTIONS, params)
            texts = reading.stream(_TEXTS, {"batch": batch, "ids": todo["response_id"].to_list()}, RESPONSES_AT_ONCE)
            for part in texts:
                known = part.join(questions, on="prompt_id").join(todo, on="response_id")
                for row in known.iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS):
                    yield {**row, "asked": as_asked(row["question"], row["instruction"])}

    return todo.height, lacking.height - todo.height, rows()


_TOKENS = measured("student_tokens", "num_tokens", "response_id", "batch", "student_fingerprint", "kind", "reason")
_LACKING = f"""SELECT a.response_id, s.response_id IS NOT NULL AS has_tokens, {LENGTH_BY_STUDENT},
        coalesce(v.known, []) AS known
    FROM (SELECT response_id, prompt_id FROM responses WHERE batch = $batch) a
        SEMI JOIN (FROM prompts WHERE batch = $batch) p USING (prompt_id)
        LEFT JOIN (FROM {_TOKENS} WHERE batch = $batch AND student_fingerprint = $student) s USING (response_id)
        LEFT JOIN (SELECT response_id, list(filter) AS known FROM response_verdicts
            WHERE batch = $batch AND filter_version = $version GROUP BY response_id) v USING (response_id)
    WHERE NOT list_has_all(coalesce(v.known, []), $filters::VARCHAR[])"""
_QUESTIONS = "SELECT prompt_id, question, reference_answer, verifier, metadata FROM prompts WHERE batch = $batch"
_TEXTS = """SELECT response_id, prompt_id, text, token_ids, finish_reason, tool_call, instruction
    FROM responses WHERE batch = $batch AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""


def _result(
    warehouse: Warehouse,
    batch: str,
    version: str,
    filters: Filters,
    declared: Declaration,
    sandbox: dict[str, str],
) -> dg.MaterializeResult:
    rows = {"batch": batch, "filter_version": version}
    with warehouse.reading() as reading:
        counts = reading.read(f"SELECT filter, passed, kind, count(*) AS number {_JUDGED} GROUP BY ALL", rows)
        ids = reading.read(f"SELECT DISTINCT response_id {_JUDGED}", rows)["response_id"]
        asked = reading.read("SELECT prompt_id FROM prompts WHERE batch = $batch", rows)["prompt_id"]
        judged_by = known_versions(reading, asked.to_list())
        values = _values(reading, rows, filters)
    return dg.MaterializeResult(
        data_version=content_version([*ids, version, *judged_by]),
        metadata=declared.result(
            warehouse,
            int(counts["number"].sum()),
            rows,
            {"passed": False},
            **sandbox,
            num_responses=ids.len(),
            **verdict_figures(counts),
            **values,
        ),
    )


def _values(reading: Reading, rows: dict[str, str], filters: Filters) -> dict[str, Figure]:
    """Per filter that measures something, a plot of its values, and how many would be dropped at other limits."""
    figures: dict[str, Figure] = {}
    for name, entry in FILTERS.items():
        if entry.measure is None:
            continue
        query = f"SELECT value {_JUDGED} AND filter = $filter AND value IS NOT NULL"
        if values := reading.read(query, {**rows, "filter": name})["value"].to_list():
            limit = entry.measure.limit(filters)
            figures[f"{name}_values"] = inline(values_at_limit(values, limit, entry.measure.meaning))
            figures[f"{name}_dropped_at"] = dropped_at_limits(values, limit, at_most=entry.measure.at_most)
    return figures


_JUDGED = "FROM response_verdicts WHERE batch = $batch AND filter_version = $filter_version"
