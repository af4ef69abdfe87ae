"""Landed files -> `landed_responses`, `landed_logprobs`, and `rejected_responses` with kind and reason.

Only for a recipe with `imports`. A file's rows bring questions (`prompts`), responses, and logprobs of responses of any
file. What becomes of them is up to a recipe (`imported_responses`); these rows are the same for all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.prompts import find_landed
from dasd_assets.records.declaration import declare
from dasd_assets.records.partitions import batches
from dasd_assets.records.provenance import origin
from dasd_assets.records.wording import number_of
from dasd_assets.rules.landed import (
    LANDED_ASSET,
    MAPPING,
    NOTHING_LANDED,
    READING,
    WITHOUT_PROMPT,
    landed_versions,
    reading_version,
)
from dasd_resources.landing.landing_folder import landing_folder
from dasd_resources.landing.prompt_files import readable_name
from dasd_resources.landing.response_files import Landed, LandedResponse, Logprobs, read_responses
from dasd_resources.landing.response_rejections import RejectedResponse
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row, Warehouse

ROWS_PER_COMMIT = 1000  # of 8,192 tokens, as Python objects: 0.6 GB
TABLE_OF: dict[type[Landed], str] = {
    LandedResponse: "landed_responses",
    Logprobs: "landed_logprobs",
    RejectedResponse: "rejected_responses",
}


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`landed_responses`, where the recipe imports."""
    if recipe.imports is None:
        return []
    declared = declare(
        recipe,
        LANDED_ASSET,
        ["landed_responses", "landed_logprobs", "rejected_responses", "landed_files"],
        reads={"prompts": "prompts"},
        rules=[READING],
        parts=[MAPPING] if recipe.landing.columns else [],
    )

    @declared.asset(
        group="inputs",
        kinds={"ducklake"},
        description="One row per response of a landed file; logprobs, and what was not taken, are in tables beside it.",
    )
    def landed_responses(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        batch = context.partition_key
        folder = landing_folder(recipe, Path(warehouse.home))
        version = reading_version(recipe)
        if not _is_read(warehouse, batch, version):
            file = find_landed(folder, batch)
            with folder.local_copy(file, batch) as path:
                landed = read_responses(path, file.name, recipe.landing.columns, file.rows)
                _store(warehouse, origin(context), batch, readable_name(file.name), version, landed)
        counts = landed_counts(warehouse, batch)
        if counts["num_rejected"]:
            context.log.warning(_warning(counts["num_rejected"], batch))
        if num := counts["num_without_prompt"]:
            context.log.warning(f"{number_of(num, 'response')} not used, as their questions are in rejected_prompts")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(
                landed_versions(warehouse, batches(context.instance)).get(batch, NOTHING_LANDED)
            ),
            metadata=declared.result(warehouse, counts.pop("num_responses"), {"batch": batch}, **counts),
        )

    return [landed_responses]


def _is_read(warehouse: Warehouse, batch: str, version: str) -> bool:
    """Whether the batch's file was read to its end by these rules; its content is part of the batch's name."""
    query = "SELECT 1 FROM landed_files WHERE batch = $batch AND reading_version = $version"
    return not warehouse.read(query, {"batch": batch, "version": version}).is_empty()


def _store(warehouse: Warehouse, origin: str, batch: str, name: str, version: str, landed: Iterable[Landed]) -> None:
    """Commit what a file brings, a part at a time, and at its end that it was read.

    What an earlier reading left goes first: where that was killed, nothing says by which mapping it was.
    """
    left = iter(landed)
    with warehouse.commit(origin) as transaction:
        for table in (*TABLE_OF.values(), "landed_files"):
            transaction.replace(table, {"batch": batch}, pl.DataFrame())
    while part := list(islice(left, ROWS_PER_COMMIT)):
        with warehouse.commit(origin) as transaction:
            for table, rows in _tables(part, batch):
                transaction.append_missing(table, rows, batch)
    with warehouse.commit(origin) as transaction:
        row = {"batch": batch, "source_file": name, "reading_version": version}
        transaction.replace("landed_files", {"batch": batch}, pl.DataFrame([row]))


def _tables(part: Sequence[Landed], batch: str) -> Iterator[tuple[str, pl.DataFrame]]:
    for kind, table in TABLE_OF.items():
        rows: list[Row] = [{**asdict(one), "batch": batch} for one in part if isinstance(one, kind)]
        if rows:
            yield table, pl.DataFrame(rows, infer_schema_length=None)


def landed_counts(warehouse: Warehouse, batch: str) -> dict[str, int]:
    """Of what a file brought. num_without_prompt: responses whose question was rejected, so of no use."""
    query = ", ".join(
        f"(SELECT count(*) FROM {table} WHERE batch = $batch) AS {name}"
        for name, table in (
            ("num_responses", "landed_responses"),
            ("num_logprobs", "landed_logprobs"),
            ("num_rejected", "rejected_responses"),
            ("num_without_prompt", f"(SELECT l.batch FROM landed_responses l {WITHOUT_PROMPT})"),
        )
    )
    return warehouse.read(f"SELECT {query}", {"batch": batch}).row(0, named=True)


def _warning(num_rejected: int, batch: str) -> str:
    look = f"SELECT source_line, kind, reason FROM rejected_responses WHERE batch = '{batch}'"
    return f"{number_of(num_rejected, 'response')} rejected; the reasons: {look}"
