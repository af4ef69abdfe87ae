"""Landed prompt files -> `prompts`, and `rejected_prompts` with kind and reason for every line that is no prompt.

One batch is one landed file. The first batch to bring a prompt owns it; a later copy is rejected, with the prompt's
id. A prompt whose batch was removed (because its file was edited, say) passes to the next batch that brings it,
together with its responses; a batch whose copy was rejected is out of date until then. A withdrawn question is
rejected (withdrawals.py).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.markdown import table
from dasd_assets.records.partitions import batches
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import failure
from dasd_assets.records.wording import listed, number_of, short
from dasd_assets.rules.landed import READING
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING
from dasd_assets.withdrawals import ORPHANED_LINES, WITHDRAWN, without_withdrawn
from dasd_resources.landing.landing_folder import LandedFile, LandingFolder
from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.response_files import read_questions
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row, Transaction, Warehouse
from dasd_resources.verifiers import VERIFIERS
from dasd_resources.visible_text import visible

PROMPTS_VERSION = "1"
NUM_REASONS = 5  # rejected lines shown in the metadata
# A reference answer must pass its verifier; lines that name a verifier that is added since come in.
LANDING = Rule("prompts", PROMPTS_VERSION, (), (VERIFYING,), VERIFIERS)


def find_landed(folder: LandingFolder, batch: str) -> LandedFile:
    """The landed file of a batch. Raises dg.Failure, which no further attempt mends, if there is none."""
    found = folder.find(batch)
    if found is None:
        raise failure(
            f"batch {short(batch)!r}: no file in {folder.url} has this content. A batch comes to be by a file dropped "
            "there, not by adding a partition; where its file was removed or edited before it was read, put it back. A "
            "partition without a file is removed by the service and by the next `dasd run`",
            permanent=True,
        )
    return found


def split_owned(
    records: Iterable[Prompt | RejectedPrompt], batch: str, owners: Mapping[str, str]
) -> tuple[list[Row], list[Row]]:
    """Rows of `prompts` and of `rejected_prompts`; `owners` maps prompt ids of other batches to their batch."""
    prompts: list[Row] = []
    rejected: list[Row] = []
    for record in records:
        if isinstance(record, RejectedPrompt):
            rejected.append({"batch": batch, **asdict(record)})
        elif record.prompt_id in owners:
            rejected.append({"batch": batch, **asdict(_duplicate(record, owners[record.prompt_id]))})
        else:
            prompts.append(_prompt(record, batch))
    return prompts, rejected


def _prompt(record: Prompt, batch: str) -> Row:
    return {
        "prompt_id": record.prompt_id,
        "batch": batch,
        "domain": record.domain,
        "question": record.question,
        "system_prompt": record.system_prompt,
        "reference_answer": record.reference_answer,
        "verifier": record.verifier,
        "metadata": record.metadata,
        "source_file": record.source_file,
        "source_line": record.source_line,
    }


def _duplicate(prompt: Prompt, owner: str) -> RejectedPrompt:
    reason = f"duplicate of prompt {prompt.prompt_id} in batch {owner}"
    return RejectedPrompt(prompt.source_file, prompt.source_line, "duplicate", reason, prompt.prompt_id, owner)


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`prompts`."""
    imports = recipe.imports is not None  # then a file's rows hold responses, too
    declared = declare(
        recipe,
        "prompts",
        ["prompts", "rejected_prompts"],
        reads={"withdrawn_prompts": ()},
        rules=[LANDING, READING] if imports else [LANDING],
    )

    @declared.asset(
        group="inputs",
        kinds={"ducklake"},
        description="One row per question of a landed file; the other lines are in rejected_prompts, with the reason.",
    )
    def prompts(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        batch = context.partition_key
        folder = LandingFolder.of(recipe.automation.landing, Path(warehouse.home))
        existing = batches(context.instance)
        records = _landed_or_stored(folder, warehouse, batch, existing, imports)
        with warehouse.commit(origin(context)) as transaction:
            rows, rejected = store_prompts(transaction, records, batch, existing)
        if rejected:
            context.log.warning(_warning(rejected, batch))
        return dg.MaterializeResult(
            data_version=content_version(row["prompt_id"] for row in rows),
            metadata=declared.result(
                warehouse,
                len(rows),
                {"batch": batch},
                num_rejected=len(rejected),
                rejected=_reasons(rejected) if rejected else None,
                domains=_per_domain(rows),
                landed_file=_path(folder, records),
            ),
        )

    return [prompts]


def store_prompts(
    transaction: Transaction, records: Iterable[Prompt | RejectedPrompt], batch: str, existing: Collection[str]
) -> tuple[list[Row], list[Row]]:
    """Replace a batch's rows of `prompts` and `rejected_prompts` by what its file brings now; returns both.

    existing: all batches; a prompt of a batch that is not among them passes to this one.
    """
    records = list(records)
    # 1. Prompts that another batch has: if that batch exists this line is a duplicate, else the prompt becomes ours.
    others = _owners(transaction, batch, [record.prompt_id for record in records if isinstance(record, Prompt)])
    owners = {key: other for key, other in others.items() if other in existing}
    rows, rejected = split_owned(records, batch, owners)
    # 2. Withdrawn questions are rejected, too.
    rows, withdrawn = without_withdrawn(transaction, rows)
    rejected += withdrawn
    # 3. Responses follow their prompt: those of a removed batch, and those from before a withdrawal that was undone.
    ownerless = [key for key in others if key not in owners]
    _take_over(transaction, batch, [*ownerless, *_once_withdrawn(transaction, [row["prompt_id"] for row in rows])])
    transaction.replace("prompts", {"batch": batch}, pl.DataFrame(rows, infer_schema_length=None))
    transaction.replace("rejected_prompts", {"batch": batch}, pl.DataFrame(rejected, infer_schema_length=None))
    return rows, rejected


def _path(folder: LandingFolder, records: Sequence[Prompt | RejectedPrompt]) -> dg.PathMetadataValue | None:
    """Of the landed file; None if it has only logprobs."""
    return dg.MetadataValue.path(visible(f"{folder.url}/{records[0].source_file}")) if records else None


def _warning(rejected: list[Row], batch: str) -> str:
    """How many lines were rejected, by kind: a reason quotes its line, which has no place in a log."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in Counter(row["kind"] for row in rejected).most_common())
    look = f"SELECT source_line, reason FROM rejected_prompts WHERE batch = '{batch}'"
    return f"{number_of(len(rejected), 'line')} rejected ({kinds}); the reasons: {look}"


def _reasons(rejected: list[Row]) -> dg.TableMetadataValue:
    """The first rejected lines and their reasons."""
    return table(["source_line", "kind", "reason"], rejected[:NUM_REASONS])


def _per_domain(rows: list[Row]) -> str:
    """The number of prompts per domain, the most frequent first: `math 120, code 30`."""
    counts = Counter(row["domain"] for row in rows).most_common()
    return listed([f"{short(domain)} {count:,}" for domain, count in counts])


def _landed_or_stored(
    folder: LandingFolder, warehouse: Warehouse, batch: str, existing: list[str], imports: bool
) -> list[Prompt | RejectedPrompt]:
    """The records of the landed file, or what is stored of it if the file is gone.

    So a withdrawal, a removed batch or a new release reaches also a batch whose file is gone. Rejected lines whose text
    went with the file stay rejected.
    """
    if folder.find(batch) is None and not warehouse.read(_IS_STORED, {"batch": batch}).is_empty():
        params = {"batch": batch, "existing": existing}
        own, taken_over = (
            [Prompt(**row) for row in warehouse.read(query, params).iter_rows(named=True)]
            for query in (_OWN_PROMPTS, _TAKEN_OVER)
        )
        rejected = [RejectedPrompt(**row) for row in warehouse.read(_REJECTED, params).iter_rows(named=True)]
        return [*own, *taken_over, *rejected]
    file = find_landed(folder, batch)
    with folder.local_copy(file, batch) as path:
        return list(read_questions(path, file.name) if imports else read_prompts(path, file.name))


_IS_STORED = """SELECT 1 FROM prompts WHERE batch = $batch
    UNION ALL SELECT 1 FROM rejected_prompts WHERE batch = $batch LIMIT 1"""
_OWN_PROMPTS = "SELECT * EXCLUDE (batch, run_id) FROM prompts WHERE batch = $batch"
_TAKEN_OVER = f"""SELECT p.* EXCLUDE (batch, run_id)
        REPLACE (l.source_file AS source_file, l.source_line AS source_line)
    FROM ({ORPHANED_LINES} AND batch = $batch) l JOIN prompts p USING (prompt_id)"""
# Rejected lines that stay rejected: all but those that become prompts. Some would be prompts now, but their text went
# with the file: they get a kind of their own, so that the batch is not out of date for ever.
_REJECTED = f"""WITH kept AS (SELECT * REPLACE (CASE
            WHEN source_line IN (SELECT source_line FROM ({ORPHANED_LINES} AND batch = $batch))
            THEN 'duplicate_file_gone'
            WHEN kind = '{WITHDRAWN}' AND prompt_id NOT IN (SELECT prompt_id FROM withdrawn_prompts)
            THEN 'withdrawn_file_gone' ELSE kind END AS kind)
        FROM rejected_prompts WHERE batch = $batch AND source_line NOT IN (SELECT source_line FROM ({_TAKEN_OVER})))
    SELECT source_file, source_line, kind, prompt_id, owner_batch, CASE kind
        WHEN 'duplicate_file_gone' THEN 'duplicate of a prompt whose batch is gone, as is this file'
        WHEN 'withdrawn_file_gone' THEN 'no more withdrawn, but this file is gone' ELSE reason END AS reason
    FROM kept"""


def _owners(transaction: Transaction, batch: str, prompt_ids: list[str]) -> dict[str, str]:
    """Prompt id -> the other batch, existing or removed, that has it; only prompts that another batch has."""
    query = (
        "SELECT prompt_id, batch FROM prompts WHERE batch <> $batch AND prompt_id IN (SELECT unnest($ids::VARCHAR[]))"
    )
    return dict(transaction.read(query, {"batch": batch, "ids": prompt_ids}).iter_rows())


def _once_withdrawn(transaction: Transaction, prompt_ids: list[str]) -> list[str]:
    """The prompts once rejected as withdrawn: their responses still belong to the batch that had them before."""
    query = """SELECT DISTINCT prompt_id FROM rejected_prompts
        WHERE kind IN ('withdrawn', 'withdrawn_file_gone') AND prompt_id IN (SELECT unnest($ids::VARCHAR[]))"""
    return transaction.read(query, {"ids": prompt_ids})["prompt_id"].to_list()


def _take_over(transaction: Transaction, batch: str, ids: list[str]) -> None:
    """Move these prompts and all their rows in other tables to the batch, so that no response is made twice."""
    if ids:
        transaction.move_to_batch("prompts", ids, batch)
