"""Filter verdicts on every response: `responses` -> `response_verdicts`.

Verdicts are kept per filter version: a changed filter judges anew, it never regenerates a response or drops a row.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.filters import FILTERING, FILTERS, Response, filter_version, judge
from dasd_assets.rules.verdict import Verdict
from dasd_resources.chat import Chat, UnsupportedQuestion
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Filters, Recipe
from dasd_resources.storage.ledger import Ledger
from dasd_resources.storage.warehouse import Row, Warehouse

RESPONSES_AT_ONCE = 1024


def judge_row(row: Row, student: Chat, filters: Filters, known: Collection[str] = ()) -> dict[str, Verdict]:
    """Every filter's verdict on a row of `responses` or `teacher_continuations` joined with its prompt.

    A row without token ids of its whole text (a continuation's are only of its end) is judged on the student's.
    known: filters whose verdicts there are already.
    """
    try:
        encoded = student.encode_response(row["question"], row["text"], row["system_prompt"])
    except UnsupportedQuestion as error:
        reason = f"the student cannot be asked: {error}"
        refused = Verdict(False, "unsupported_question", reason)
        return {name: refused for name in FILTERS if name not in known}
    fields = {"token_ids": encoded.token_ids[encoded.num_prompt_tokens :], **row}
    judged = {name: fields[name] for name in Response.__annotations__ if name != "num_student_tokens"}
    return judge(Response(**judged, num_student_tokens=len(encoded.token_ids)), filters, known)


def verdict_rows(key: Row, verdicts: Mapping[str, Verdict], version: str) -> list[Row]:
    """One row per filter, each with the columns of `key`."""
    return [{**key, "filter": name, **asdict(verdict), "filter_version": version} for name, verdict in verdicts.items()]


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`response_verdicts`."""

    generations = [f"teacher_generations_{dataset}" for dataset in recipe.datasets]
    declared = declare(
        recipe,
        "response_verdicts",
        ["response_verdicts", "failed_requests"],
        reads={"responses": generations, "prompts": "prompts"},
        models=["student_model"],
        rules=[FILTERING],
    )

    @declared.asset(
        group="responses",
        kinds={"ducklake"},
        description="One row per response and filter: whether it passed, and if not, why. Dropped are:\n\n"
        + "\n".join(f"- `{name}`: {entry.drops}" for name, entry in FILTERS.items()),
    )
    def response_verdicts(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        version, batch = filter_version(recipe, student.fingerprint), context.partition_key
        with Ledger(warehouse, "response_verdicts", origin(context), batch, max_rows=50_000) as ledger:
            num_todo, todo = unjudged(warehouse, batch, version)
            for row in logged(todo, num_todo, "responses judged", context.log.info):
                judged = judge_row(row, student.chat, recipe.filters, row["known"])
                for verdict in verdict_rows({"response_id": row["response_id"], "batch": batch}, judged, version):
                    ledger.add(verdict)
        return _result(warehouse, batch, version, declared)

    return [response_verdicts]


def unjudged(warehouse: Warehouse, batch: str, version: str) -> tuple[int, Iterator[Row]]:
    """How many responses of a batch lack a filter's verdict by these rules, and each, few in memory at a time.

    Each with its prompt, and `known`: the filters whose verdicts it has.
    """
    todo = """FROM responses r JOIN prompts p USING (prompt_id) LEFT JOIN (
            SELECT response_id, list(filter) AS known FROM response_verdicts
            WHERE batch = $batch AND filter_version = $version GROUP BY response_id) v USING (response_id)
        WHERE r.batch = $batch AND p.batch = $batch
          AND NOT list_has_all(coalesce(v.known, []), $filters::VARCHAR[])"""
    params = {"batch": batch, "version": version, "filters": list(FILTERS)}

    def rows() -> Iterator[Row]:
        query = f"""SELECT r.response_id, r.text, r.token_ids, r.finish_reason, r.tool_call,
            p.question, p.system_prompt, p.reference_answer, p.verifier, p.metadata,
            coalesce(v.known, []) AS known {todo}"""
        with warehouse.reading() as reading:
            for part in reading.stream(query, params, RESPONSES_AT_ONCE):
                yield from part.iter_rows(named=True)

    return int(warehouse.read(f"SELECT count(*) {todo}", params).item()), rows()


def _result(warehouse: Warehouse, batch: str, version: str, declared: Declaration) -> dg.MaterializeResult:
    query = """SELECT response_id, filter, passed FROM response_verdicts
        WHERE batch = $batch AND filter_version = $version"""
    verdicts = warehouse.read(query, {"batch": batch, "version": version})
    failed = {name: verdicts.filter(~pl.col("passed") & (pl.col("filter") == name)).height for name in FILTERS}
    return dg.MaterializeResult(
        data_version=content_version([*verdicts["response_id"].unique(), version]),
        metadata=declared.result(
            warehouse,
            verdicts.height,
            {"batch": batch, "filter_version": version},
            {"passed": False},
            num_responses=verdicts["response_id"].n_unique(),
            **{f"failed_{name}": count for name, count in failed.items()},
        ),
    )
