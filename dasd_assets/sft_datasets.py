"""Selected responses -> `sft_examples`: their `student_tokens`, with a label for every token that carries loss.

`sft_dataset_…`, one asset per temperature, for the selection and for its random control. Loss is on the whole response
and its end of turn, never on the prompt (report §6.4.1). The report's largest set is 5.8 G tokens: examples are made a
part at a time, kept in a file that vanishes with the process, and committed from there all at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from tempfile import TemporaryFile
from typing import IO

import dagster as dg
import polars as pl
import pyarrow as pa

from dasd_assets.records.declaration import declare
from dasd_assets.records.plots import histogram, inline, shape
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import Figure, audited
from dasd_assets.rules.asset_names import CONTROL_ASSET, DAS, RANDOM, dataset_asset, selection_asset
from dasd_assets.rules.ids import example_id, sft_dataset_id
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.stored_tokens import require_tokens
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.passes import ROWS_OF_OBJECTS
from dasd_resources.storage.warehouse import Row, Warehouse

EXAMPLES_VERSION = "1"
EXAMPLES = Rule("examples", EXAMPLES_VERSION)
NO_LOSS = -100
ROWS_READ_AT_ONCE = 128
EXAMPLES_AT_ONCE = 1024  # in one insert, which is a file
TOKENS_AT_ONCE = 1_000_000  # the same for long examples: ids and labels take 8 MB
SPOOLED = pa.schema(
    {
        "example_id": pa.string(),
        "response_id": pa.string(),
        "continuation_id": pa.string(),
        "input_ids": pa.list_(pa.int32()),
        "labels": pa.list_(pa.int32()),
    }
)


def example(source: Row, loss_from: int = 0) -> dict[str, list[int]]:
    """input_ids and labels (T,) of a text's tokens: loss on each token of the text that starts at or after `loss_from`.

    source: token_ids, num_prompt_tokens, offsets; raises ValueError where the student cannot be asked.
    loss_from: code point in the text; the end of turn always carries loss.
    """
    if source["token_ids"] is None:
        source_id = source.get("response_id") or source.get("continuation_id")
        raise ValueError(f"{source_id} cannot be taught: the student's chat template refuses its question")
    num_prompt = source["num_prompt_tokens"]
    targets = [
        token if offset < 0 or offset >= loss_from else NO_LOSS
        for token, offset in zip(source["token_ids"][num_prompt:], source["offsets"], strict=True)
    ]
    return {"input_ids": source["token_ids"], "labels": [NO_LOSS] * num_prompt + targets}


def example_row(source: Row, loss_from: int = 0) -> Row:
    """The `sft_examples` row of a response or continuation; its id names its source and every token and label.

    source: response_id or continuation_id (the other absent or None), token_ids, num_prompt_tokens, offsets.
    """
    tokens = example(source, loss_from)
    ids = {"response_id": source.get("response_id"), "continuation_id": source.get("continuation_id")}
    return {"example_id": example_id(ids, tokens), **ids, **tokens}


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`sft_dataset_…` per temperature; the mixed-policy dataset is made in mixed_policy."""
    return [_sft_dataset(recipe, dataset) for dataset in recipe.datasets]


def _sft_dataset(recipe: Recipe, dataset: str) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        dataset_asset(dataset),
        ["sft_examples", "published_datasets"],
        reads={"selected_responses": [selection_asset(dataset), CONTROL_ASSET]},
        looks_up={"student_tokens": "student_tokens"},
        models=["student_model"],
        rules=[EXAMPLES],
        parts=["name"],
        rows=f"dataset = '{dataset}' AND policy = '{DAS}'",
    )

    @declared.asset(
        group="sft_datasets",
        kinds={"ducklake"},
        description=f"One row per training example of {dataset}: token ids and labels; beside them, the control's.",
    )
    def sft_dataset(context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines) -> dg.MaterializeResult:
        student = engines.fingerprint(recipe.student, "student.model")
        made = {}
        for policy in (DAS, RANDOM):
            rows = tokens_to_teach(warehouse, student, selected_ids(warehouse, recipe, dataset, policy))
            made[policy] = write_examples(context, warehouse, recipe, dataset, policy, map(example_row, rows))
        return dg.MaterializeResult(
            data_version=content_version(made[DAS]["example_id"]),
            metadata=declared.result(
                warehouse,
                made[DAS].height,
                {"recipe": recipe.name, "dataset": dataset, "policy": DAS},
                num_random=made[RANDOM].height,
                num_tokens=int(made[DAS]["num_tokens"].sum()),
                lengths_shape=shape(made[DAS]["num_tokens"].to_list()),
                lengths=inline(histogram({dataset: made[DAS]["num_tokens"].to_list()}, "tokens per example")),
                **audit_figures(warehouse, recipe, dataset),
            ),
        )

    return sft_dataset


def selected_ids(warehouse: Warehouse, recipe: Recipe, dataset: str, policy: str) -> list[str]:
    """The response ids of a selected dataset, in order."""
    query = """SELECT response_id FROM selected_responses
        WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy ORDER BY response_id"""
    key = {"recipe": recipe.name, "dataset": dataset, "policy": policy}
    return warehouse.read(query, key)["response_id"].to_list()


def tokens_to_teach(warehouse: Warehouse, student: str, ids: Sequence[str]) -> Iterator[Row]:
    """(response_id, num_prompt_tokens, token_ids, offsets) of these responses, in any order.

    Raises NoTokens, at the end, if one has none.
    """
    query = """SELECT response_id, num_prompt_tokens, token_ids, offsets FROM student_tokens
        WHERE student_fingerprint = $student AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""
    num_found = 0
    with warehouse.reading() as reading:
        for part in reading.stream(query, {"student": student, "ids": list(ids)}, ROWS_READ_AT_ONCE):
            num_found += part.height
            yield from part.iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS)
    require_tokens(num_found, len(ids), "student_tokens")


def write_examples(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    recipe: Recipe,
    dataset: str,
    policy: str,
    examples: Iterable[Row],
) -> pl.DataFrame:
    """Replace this recipe's examples of a dataset and policy, and publish them; unchanged ones make no commit.

    examples: rows of `example_row`. Returns example_id and num_tokens of each.
    """
    key = {"recipe": recipe.name, "dataset": dataset, "policy": policy}
    with TemporaryFile(dir=warehouse.home) as file:
        made = spool(file, examples)
        ids = sorted(made["example_id"])
        query = "SELECT example_id FROM sft_examples WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy"
        named = {**key, "dataset_id": sft_dataset_id(**key, example_ids=ids)}
        is_new = ids != sorted(warehouse.read(query, key)["example_id"])
        if is_new:
            columns = [pl.lit(value).alias(name) for name, value in named.items()]
            with warehouse.commit(origin(context)) as transaction:
                parts = (part.with_columns(columns) for part in spooled(file))
                transaction.replace("sft_examples", key, parts)
    # A run killed between the two commits records the snapshot when it runs again.
    if is_new or warehouse.read(_PUBLISHED, named).is_empty():
        _publish(context, warehouse, key, named["dataset_id"], len(ids))
    return made


def _publish(
    context: dg.AssetExecutionContext, warehouse: Warehouse, key: dict[str, str], dataset_id: str, num_examples: int
) -> None:
    """Record the snapshot of a dataset's rows, which has an id only after their commit."""
    row = {**key, "dataset_id": dataset_id, "num_examples": num_examples, "published_at": datetime.now(UTC)}
    with warehouse.commit(origin(context)) as transaction:
        snapshot = transaction.read(_SNAPSHOT, key).item()
        transaction.replace("published_datasets", key, pl.DataFrame([{**row, "snapshot_id": snapshot}]))


# Not if its rows were written after that: they were made again after a damaged file of them was dropped.
_PUBLISHED = """SELECT 1 FROM published_datasets p WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy
    AND dataset_id = $dataset_id AND NOT EXISTS (FROM sft_examples e WHERE e.recipe = $recipe
        AND e.dataset = $dataset AND e.policy = $policy AND e.snapshot_id > p.snapshot_id)"""
_SNAPSHOT = """SELECT coalesce(max(snapshot_id), (SELECT id FROM dasd.current_snapshot())) AS id
    FROM sft_examples WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy
        AND snapshot_id IN (SELECT snapshot_id FROM dasd.snapshots())"""  # of the rows' commit, as audits tell it


def spool(file: IO[bytes], examples: Iterable[Row]) -> pl.DataFrame:
    """Write examples to a file, few in memory; returns example_id and num_tokens of each."""
    lengths, rows = list[tuple[str, int]](), iter(examples)
    with pa.ipc.new_stream(file, SPOOLED, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        while part := list(islice(rows, ROWS_OF_OBJECTS)):
            stream.write_batch(pa.RecordBatch.from_pylist(part, SPOOLED))
            lengths += [(str(row["example_id"]), len(row["input_ids"])) for row in part]
    return pl.DataFrame(lengths, schema={"example_id": pl.String, "num_tokens": pl.Int64}, orient="row")


def spooled(file: IO[bytes]) -> Iterator[pl.DataFrame]:
    """What `spool` has written: up to EXAMPLES_AT_ONCE examples and about TOKENS_AT_ONCE tokens at a time."""
    file.seek(0)
    part, num_rows, num_tokens = list[pa.RecordBatch](), 0, 0
    with pa.ipc.open_stream(file) as stream:
        for batch in stream:
            part.append(batch)
            num_rows, num_tokens = num_rows + batch.num_rows, num_tokens + len(batch["input_ids"].values)
            if num_rows >= EXAMPLES_AT_ONCE or num_tokens >= TOKENS_AT_ONCE:
                yield pl.DataFrame(pa.Table.from_batches(part))
                part, num_rows, num_tokens = [], 0, 0
    if part:
        yield pl.DataFrame(pa.Table.from_batches(part))


def audit_figures(warehouse: Warehouse, recipe: Recipe, dataset: str) -> dict[str, Figure]:
    """Figures of a published dataset that lead to its audit."""
    key = {"recipe": recipe.name, "dataset": dataset, "policy": DAS}
    where = " AND ".join(f"{name} = '{value}'" for name, value in key.items())
    query = f"SELECT * FROM lineage_examples WHERE {where}"
    published = warehouse.read(f"SELECT dataset_id, snapshot_id FROM published_datasets WHERE {where}").row(0)
    return {"dataset_id": published[0], **audited("example EXAMPLE_ID", query, published[1])}
