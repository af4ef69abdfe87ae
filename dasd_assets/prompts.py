"""Landed prompt files -> `prompts`, and `rejected_prompts` with kind and reason for every line that is no prompt.

One batch is one landed file. The first batch to bring a prompt owns it; a later copy is rejected, with the prompt's
id, and what it says besides is merged (prompt_lines.py). A prompt whose batch was removed (because its file was edited,
say) passes to the next batch that brings it, together with its responses; a batch whose copy was rejected is out of
date until then. Rejected are withdrawn questions, too (withdrawals.py), and those too much like others
(alike_questions.py).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.alike_questions import alike_questions, has_held_out, overlap_rows
from dasd_assets.prompt_lines import OWN_LINES, changed, forget_verdicts, identified, sort_lines
from dasd_assets.records.declaration import declare
from dasd_assets.records.markdown import table
from dasd_assets.records.partitions import batches
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import failure
from dasd_assets.records.wording import listed, number_of, short
from dasd_assets.rules.contamination import CONTAMINATION
from dasd_assets.rules.landed import READING
from dasd_assets.rules.language import LANGUAGE_VERSION
from dasd_assets.rules.merging import MERGING_VERSION
from dasd_assets.rules.near_duplicates import NEAR_DUPLICATES
from dasd_assets.rules.prompt_ids import fill_keys, version_of
from dasd_assets.rules.quotas import QUOTAS, choose_asked, outdated_quotas
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING
from dasd_assets.withdrawals import ORPHANED_LINES, TWINLESS_LINES, WITHDRAWN, outdated_batches, withdrawals_of
from dasd_resources.landing.landing_folder import LandedFile, LandingFolder, landing_folder
from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.question_identity import question_key
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.response_files import read_questions
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Reading, Row, Transaction, Warehouse
from dasd_resources.verifiers.catalogue import VERIFIERS
from dasd_resources.visible_text import visible

PROMPTS_VERSION = "3"
NOTHING_HELD_OUT = (
    "held_out_questions was not materialized yet, so no question was compared with a benchmark: materialize it, and "
    "then prompts again, as `dasd run` does"
)
NUM_REASONS = 5  # rejected lines shown in the metadata
# A reference answer must pass its verifier; lines that name a verifier that is added since come in.
MERGING = Rule("merging", MERGING_VERSION, (), (VERIFYING,))
LANGUAGE = Rule("language", LANGUAGE_VERSION)
LANDING = Rule("prompts", PROMPTS_VERSION, (), (VERIFYING, MERGING, LANGUAGE), VERIFIERS)


def find_landed(folder: LandingFolder, batch: str) -> LandedFile:
    """The landed file of a batch. Raises dg.Failure, which no further attempt mends, if it is gone; else as `_find`."""
    found = _find(folder, batch)
    if found is None:
        raise failure(
            f"batch {short(batch)!r}: no file in {folder.url} has this content. A batch comes to be by a file dropped "
            "there, not by adding a partition; where its file was removed or edited before it was read, put it back. A "
            "partition without a file is removed by the service and by the next `dasd run`",
            permanent=True,
        )
    return found


def _find(folder: LandingFolder, batch: str) -> LandedFile | None:
    """The landed file of a batch, None if it is gone. Raises dg.Failure where the folder is away, not mounted say.

    Only a local folder is known to be: most stores have no folder without files.
    """
    found = folder.find(batch)
    if found is None and folder.local is not None and not folder.exists():
        what_to_do = "mount it; if its files are gone for good, create it, empty"
        raise failure(f"the landing folder {folder.url} is not there now: {what_to_do}", permanent=False)
    return found


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`prompts`."""
    imports = recipe.imports is not None  # then a file's rows hold responses, too
    declared = declare(
        recipe,
        "prompts",
        [
            "prompts",
            "rejected_prompts",
            "prompt_lines",
            "prompt_merges",
            "asked_prompts",
            "held_out_overlaps",
            *(["question_bands"] if recipe.near_duplicates else []),
        ],
        reads={
            "withdrawn_prompts": (),
            **({"held_out_questions": "held_out_questions"} if recipe.decontamination else {}),
        },
        looks_up={"responses": ()},  # ids of earlier releases
        rules=[LANDING, QUOTAS, CONTAMINATION, NEAR_DUPLICATES, *([READING] if imports else [])],
        parts=["landing.columns"] if recipe.landing.columns else [],  # batches of a home without any stay as they are
    )

    @declared.asset(
        group="inputs",
        kinds={"ducklake"},
        description="One row per question of a landed file; the other lines are in rejected_prompts, with the reason.",
    )
    def prompts(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        batch = context.partition_key
        folder = landing_folder(recipe, Path(warehouse.home))
        existing = batches(context.instance)
        records = _landed_or_stored(folder, recipe, warehouse, batch, existing)
        with warehouse.commit(origin(context)) as transaction:
            rows, rejected = store_prompts(transaction, recipe, records, batch, existing)
            chosen = choose_asked(transaction, recipe, batch, existing)
            compared = recipe.decontamination is None or has_held_out(transaction, recipe)
        if rejected:
            context.log.warning(_warning(rejected, batch))
        if not compared:
            context.log.warning(NOTHING_HELD_OUT)
        return dg.MaterializeResult(
            data_version=content_version(
                [*map(version_of, rows), *(f"asked {row['prompt_id']}" for row in chosen if row["asked"])]
            ),
            metadata=declared.result(
                warehouse,
                len(rows),
                {"batch": batch},
                num_rejected=len(rejected),
                num_unasked=sum(not row["asked"] for row in chosen),
                rejected=_reasons(rejected) if rejected else None,
                domains=_per(rows, "domain"),
                languages=_per(rows, "language"),
                landed_file=_path(folder, records),
            ),
        )

    return [prompts]


def outdated_prompts(reading: Reading, recipe: Recipe, existing: Sequence[str]) -> dict[str, str]:
    """Batch -> reason, for those whose `prompts` must follow withdrawals, other batches' lines or quotas."""
    found = outdated_batches(reading, existing)
    for batch, reason in outdated_quotas(reading, recipe, existing).items():
        found[batch] = f"{found[batch]}; {reason}" if batch in found else reason
    return found


def store_prompts(
    transaction: Transaction,
    recipe: Recipe,
    records: Iterable[Prompt | RejectedPrompt],
    batch: str,
    existing: Sequence[str],
) -> tuple[list[Row], list[Row]]:
    """Replace a batch's rows by what its file brings now; returns those of `prompts` and of `rejected_prompts`.

    existing: all batches, in their order; a prompt of a batch that is not among them passes to this one.
    """
    fill_keys(transaction)
    records = list(records)
    # 1. Whose each question is: this batch's, or that of another, which exists.
    sound = [line for line in map(_sound, records) if line is not None]
    lines = identified(transaction, sound, batch, existing)
    # 2. Withdrawn questions are rejected, and so is what is no question.
    withdrawn = withdrawals_of(transaction, ((line.earlier or line.prompt_id, line.prompt.question) for line in lines))
    rejected = [record for record in records if isinstance(record, RejectedPrompt) and record.line is None]
    for line in lines:
        used_id = line.earlier or line.prompt_id
        if (reason := withdrawn.get(used_id)) is not None:
            rejected.append(line.rejected(WITHDRAWN, f"withdrawn: {reason}", used_id))
    left = [line for line in lines if (line.earlier or line.prompt_id) not in withdrawn]
    # 3. So are questions that are held out, or nearly another prompt.
    alike = alike_questions(transaction, recipe, left, batch, existing)
    for line in left:
        if (found := alike.get(line.prompt_id)) is not None:
            rejected.append(line.rejected(found.kind, found.reason, found.twin or line.prompt_id, found.twin_batch))
    # 4. The others are prompts, with what all batches know of them, or copies.
    own = [line for line in left if line.prompt_id not in alike]
    outcome = sort_lines(transaction, own, batch, existing)
    rejected += outcome.rejected
    ids = [row["prompt_id"] for row in outcome.prompts]
    # 5. Rows follow their prompt: those of a removed batch, and those from before a withdrawal that was undone.
    returned = _once_withdrawn(transaction, ids)
    forget_verdicts(transaction, [*changed(transaction, outcome.prompts), *returned])
    transaction.move_to_batch("prompts", [*_ownerless(transaction, ids, batch), *returned], batch)
    _replace(transaction, "prompts", batch, outcome.prompts)
    _replace(transaction, "prompt_lines", batch, outcome.lines)
    _replace(transaction, "prompt_merges", batch, outcome.merges)
    _replace(transaction, "held_out_overlaps", batch, overlap_rows(left, alike, batch))
    rows = [_rejection_row(one, batch) for one in rejected]
    _replace(transaction, "rejected_prompts", batch, rows)
    return outcome.prompts, rows


def _rejection_row(rejected: RejectedPrompt, batch: str) -> Row:
    """The `rejected_prompts` row of a line that is not in `prompts`."""
    return {
        "batch": batch,
        "source_file": rejected.source_file,
        "source_line": rejected.source_line,
        "kind": rejected.kind,
        "reason": rejected.reason,
        "prompt_id": rejected.prompt_id,
        "owner_batch": rejected.owner_batch,
    }


def _replace(transaction: Transaction, name: str, batch: str, rows: list[Row]) -> None:
    transaction.replace(name, {"batch": batch}, pl.DataFrame(rows, infer_schema_length=None))


def _sound(record: Prompt | RejectedPrompt) -> Prompt | None:
    """The question of a line, if it has one: a copy of an earlier line has."""
    return record.line if isinstance(record, RejectedPrompt) else record


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


def _per(rows: list[Row], column: str) -> str:
    """The number of prompts per value, the most frequent first: `math 120, code 30`."""
    counts = Counter(row[column] or "none" for row in rows).most_common()
    return listed([f"{short(value)} {count:,}" for value, count in counts])


def _landed_or_stored(
    folder: LandingFolder, recipe: Recipe, warehouse: Warehouse, batch: str, existing: list[str]
) -> list[Prompt | RejectedPrompt]:
    """The records of the landed file, or what is stored of it if the file is gone.

    So a withdrawal, a removed batch or a new release reaches also a batch whose file is gone. Rejected lines whose text
    went with the file stay rejected.
    """
    if _find(folder, batch) is None and not warehouse.read(_IS_STORED, {"batch": batch}).is_empty():
        params = {"batch": batch, "existing": existing}
        lines = [_stored_line(row) for row in warehouse.read(_STORED_LINES, params).iter_rows(named=True)]
        sound = {line.source_line for line in lines}
        rejected = [RejectedPrompt(**row) for row in warehouse.read(_REJECTED, params).iter_rows(named=True)]
        return [*lines, *(row for row in rejected if row.source_line not in sound)]
    file = find_landed(folder, batch)
    with folder.local_copy(file, batch) as path:
        read = read_questions if recipe.imports is not None else read_prompts
        return list(read(path, file.name, recipe.landing.columns, rows=file.rows))


def _stored_line(row: Row) -> Prompt:
    return Prompt(question_key(row["question"], row["system_prompt"]), **row)


_IS_STORED = """SELECT 1 FROM prompts WHERE batch = $batch
    UNION ALL SELECT 1 FROM rejected_prompts WHERE batch = $batch LIMIT 1"""
_KNOWN = "domain, reference_answer, verifier, metadata"
# 1. The batch's prompts. 2. Its copies that have something to say; the text is the prompt's. 3. Those that have not,
# where the batch that had the prompt is gone.
_STORED_LINES = f"""WITH own AS ({OWN_LINES}), said AS (FROM prompt_lines WHERE batch = $batch)
    SELECT question, system_prompt, {_KNOWN}, source_file, source_line FROM own WHERE batch = $batch
    UNION ALL SELECT o.question, o.system_prompt, l.domain, l.reference_answer, l.verifier, l.metadata,
        l.source_file, l.source_line
    FROM said l JOIN own o USING (prompt_id) WHERE o.batch <> l.batch OR o.source_line <> l.source_line
    UNION ALL SELECT question, system_prompt, {_KNOWN}, l.source_file, l.source_line
    FROM ({ORPHANED_LINES} AND batch = $batch) l JOIN own o USING (prompt_id)
    WHERE l.source_line NOT IN (SELECT source_line FROM said)
    ORDER BY source_line"""
# Rejected lines. Some would be prompts now, but their text went with the file: they get a kind of their own, so that
# the batch is not out of date for ever.
_REJECTED = f"""WITH kept AS (SELECT * REPLACE (CASE
            WHEN source_line IN (SELECT source_line FROM ({ORPHANED_LINES} AND batch = $batch))
            THEN 'duplicate_file_gone'
            WHEN source_line IN (SELECT source_line FROM ({TWINLESS_LINES}) WHERE batch = $batch)
            THEN 'duplicate_file_gone'
            WHEN kind = '{WITHDRAWN}' AND prompt_id NOT IN (SELECT prompt_id FROM withdrawn_prompts)
            THEN 'withdrawn_file_gone' ELSE kind END AS kind)
        FROM rejected_prompts WHERE batch = $batch)
    SELECT source_file, source_line, kind, prompt_id, owner_batch, CASE kind
        WHEN 'duplicate_file_gone' THEN 'duplicate of a prompt whose batch is gone, as is this file'
        WHEN 'withdrawn_file_gone' THEN 'no more withdrawn, but this file is gone' ELSE reason END AS reason
    FROM kept"""


def _ownerless(transaction: Transaction, prompt_ids: list[str], batch: str) -> list[str]:
    """Which of these prompts other batches have, which must be removed ones."""
    query = "SELECT prompt_id FROM prompts WHERE batch <> $batch AND prompt_id IN (SELECT unnest($ids::VARCHAR[]))"
    return transaction.read(query, {"batch": batch, "ids": prompt_ids})["prompt_id"].to_list()


def _once_withdrawn(transaction: Transaction, prompt_ids: list[str]) -> list[str]:
    """The prompts once rejected as withdrawn: their responses still belong to the batch that had them before."""
    query = """SELECT DISTINCT prompt_id FROM rejected_prompts
        WHERE kind IN ('withdrawn', 'withdrawn_file_gone') AND prompt_id IN (SELECT unnest($ids::VARCHAR[]))"""
    return transaction.read(query, {"ids": prompt_ids})["prompt_id"].to_list()
