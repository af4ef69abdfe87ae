"""A checkpoint: the exact rows it was trained on, what trained it, and every model it descends from.

The rows are those of its snapshot; their ids must give the dataset id and the checkpoint id that were recorded, so
nobody can have added, removed or changed one.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from dasd_assets.audit.prompt import Record
from dasd_assets.rules.asset_names import DAS
from dasd_assets.rules.ids import checkpoint_id, example_id, sft_dataset_id
from dasd_assets.rules.last_prompts import (
    ANSWER,
    OF_CHECKPOINTS,
    SAMPLING,
    failed_answers,
    last_prompts,
    missing_answers,
    newest_answers,
)
from dasd_resources.sft.checkpoint import RECORD
from dasd_resources.storage.connections import UnknownSnapshot
from dasd_resources.storage.data_files import DamagedFiles
from dasd_resources.storage.lake import Lake, Reading

MAX_TOKENS = 2_000_000  # of which an audit recomputes the examples' ids unasked: half a second's work


def audit_checkpoint(lake: Lake, reading: Reading, checkpoint_id: str, all_tokens: bool = False) -> Record:
    """What made a checkpoint; `faults` lists what does not agree, each with what to do.

    all_tokens: recompute the examples' ids from their tokens however many they are.
    """
    rows = reading.read(
        "SELECT * FROM checkpoints WHERE checkpoint_id = $id ORDER BY materialized_at DESC", {"id": checkpoint_id}
    ).to_dicts()
    row, faults = rows[0], list[str]()
    folder = lake.folder(row["path"])
    made, folder_faults = read_record(folder, checkpoint_id, trained=row["dataset"] is not None)
    faults += folder_faults
    links, chain_faults = chain(reading, checkpoint_id)
    faults += chain_faults
    trained_on = None
    if row["dataset"] is not None:
        trained_on, row_faults = trained_rows(lake, row, all_tokens)
        faults += row_faults
    return {
        **{key: value for key, value in row.items() if key not in ("recipe_document", "environment")},
        "path": str(folder),
        "recipes": [{key: other[key] for key in ("recipe", "name", "stage")} for other in rows],
        "trained_on": trained_on,
        "recipe_document": document(row, "recipe_document", faults) or made.get("recipe"),
        "environment": document(row, "environment", faults) or made.get("environment"),
        "chain": links,
        "evaluations": accuracies(reading, [checkpoint_id])[checkpoint_id],
        "num_rollouts": int(reading.read(_NUM_ROLLOUTS, {"id": checkpoint_id}).item()),
        "faults": faults,
    }


def document(row: Record, column: str, faults: list[str]) -> Record | None:
    """The JSON object in a column of `checkpoints`; None, with a fault, for what is none."""
    try:
        return None if row[column] is None else dict(json.loads(row[column]))
    except (ValueError, TypeError):
        faults.append(f"its {column} is no JSON object: restore a backup, or materialize it again")
        return None


def accuracies(reading: Reading, checkpoint_ids: Sequence[str]) -> dict[str, list[Record]]:
    """Checkpoint -> accuracy in each benchmark and sampling it was asked in, with num_answers, num_failed, num_missing.

    A request that failed is wrong. accuracy: of what is there; None where nothing is yet.
    """
    found: dict[str, list[Record]] = {checkpoint_id: [] for checkpoint_id in checkpoint_ids}
    for row in reading.read(_EVALUATIONS, {"ids": list(checkpoint_ids)}).to_dicts():
        found[row.pop("checkpoint_id")].append(row)
    return found


def incomplete(row: Record) -> str:
    """`3 failed, 12 missing`, of a row of `accuracies`; empty where every answer is there."""
    counts = ((row["num_failed"], "failed"), (row["num_missing"], "missing"))
    return ", ".join(f"{number:,} {words}" for number, words in counts if number)


def several_limits(rows: Sequence[Record]) -> bool:
    """Whether rows of `accuracies` differ in top-p or token limit alone, so that these have to be shown."""
    limits = {(row["benchmark"], row["temperature"], row["top_p"], row["max_tokens"]) for row in rows}
    return len({which[:2] for which in limits}) < len(limits)


def chain(reading: Reading, checkpoint_id: str) -> tuple[list[Record], list[str]]:
    """The checkpoint and its ancestors, up to the untrained student; and what is wrong with them."""
    links: list[Record] = []
    wanted: object = checkpoint_id
    while wanted is not None:
        found = reading.read(_LINK, {"id": wanted}).to_dicts()
        if not found:
            child = links[-1]["checkpoint_id"]
            return links, [f"the table checkpoints lacks {wanted}, the parent of {child}: restore it from a backup"]
        if found[0] in links:
            return links, [f"checkpoint {wanted} descends from itself: restore the table checkpoints from a backup"]
        links.append(found[0])
        wanted = found[0]["parent_checkpoint_id"]
    return links, []


def read_record(folder: Path, checkpoint_id: str, trained: bool) -> tuple[Record, list[str]]:
    """The record published in a checkpoint's folder, and what is wrong with that folder."""
    if not folder.is_dir() and not trained:
        return {}, [f"its folder {folder} is gone: `dasd run` enters where the recipe's is now, if it is the same"]
    if not folder.is_dir():
        return {}, [f"its folder {folder} is gone: restore it from a backup, or materialize it again"]
    if not trained:
        return {}, []
    if not (folder / RECORD).is_file():
        return {}, [f"its folder {folder} has no {RECORD}: move the folder away and materialize the checkpoint again"]
    try:
        record = dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        message = (
            f"{folder / RECORD} cannot be read ({error}): move the folder away and materialize the checkpoint again"
        )
        return {}, [message]
    if record.get("checkpoint_id") != checkpoint_id:
        return record, [f"its folder {folder} holds checkpoint {record.get('checkpoint_id')}: move it away"]
    return record, []


def trained_rows(lake: Lake, row: Record, all_tokens: bool) -> tuple[Record, list[str]]:
    """Count, ids and hashes of the examples at the checkpoint's snapshot, and what does not agree with the record."""
    if row["snapshot_id"] is None:
        return dict(_UNSEEN), ["its snapshot is not recorded, so the rows it was trained on cannot be shown"]
    try:
        with lake.reading(at=row["snapshot_id"]) as then:
            policy = row["policy"] or DAS
            params = {"recipe": row["recipe"], "dataset": row["dataset"], "policy": policy}
            examples = then.read(_EXAMPLES, params)
            num_tokens = int(examples["num_tokens"].sum())
            check = all_tokens or num_tokens <= MAX_TOKENS
            changed = changed_examples(then.read(_TOKENS, params)) if check else []
    except (UnknownSnapshot, DamagedFiles) as error:
        return dict(_UNSEEN), [f"the rows it was trained on cannot be shown: {error}"]
    found: Record = {
        "snapshot_id": row["snapshot_id"],
        "num_examples": examples.height,
        "num_tokens": num_tokens,
        "tokens_checked": check,
        "dataset_id": sft_dataset_id(row["recipe"], row["dataset"], policy, examples["example_id"]),
        "checkpoint_id": checkpoint_id(row["parent_checkpoint_id"], examples["example_id"], row["training_version"]),
        "example_ids": examples["example_id"].to_list(),
    }
    return found, [*_disagreements(row, found), *changed]


def changed_examples(examples: pl.DataFrame) -> list[str]:
    """A line for each example whose id is not that of its tokens."""
    return [
        f"example {row['example_id']}: its tokens are not those that gave it this id"
        for row in examples.iter_rows(named=True)
        if example_id(row, row) != row["example_id"]
    ]


def _disagreements(row: Record, found: Record) -> list[str]:
    names = ("num_examples", "dataset_id", "checkpoint_id")
    return [
        f"{name} of the rows at snapshot {row['snapshot_id']} is {found[name]}, the record says {row[name]}"
        for name in names
        if found[name] != row[name]
    ]


_UNSEEN: Record = {"num_examples": None, "example_ids": []}
_LINK = """SELECT checkpoint_id, parent_checkpoint_id, recipe, name, stage, dataset, snapshot_id,
    num_examples, training_version, path, run_id
    FROM checkpoints WHERE checkpoint_id = $id ORDER BY materialized_at DESC LIMIT 1"""
_OF_DATASET = "FROM sft_examples WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy ORDER BY example_id"
_EXAMPLES = f"SELECT example_id, len(input_ids) AS num_tokens {_OF_DATASET}"
_TOKENS = f"SELECT example_id, response_id, continuation_id, input_ids, labels {_OF_DATASET}"
_STATUS = {"answered": "answers", "failed": "failed", "missing": "missing"}
# Only what was asked with the last prompt counts. A request that failed is a wrong answer until there is one, whichever
# version of the verifier judged it: ids of requests hold the version.
_EVALUATIONS = f"""WITH asked_last AS ({last_prompts(OF_CHECKPOINTS)}),
    answers AS ({newest_answers(OF_CHECKPOINTS)}),
    failed AS ({failed_answers(OF_CHECKPOINTS)})
    SELECT {SAMPLING}, {", ".join(f"count(*) FILTER (status = '{name}') AS num_{of}" for name, of in _STATUS.items())},
        avg(correct::INT) AS accuracy
    FROM (SELECT {SAMPLING}, correct, 'answered' AS status FROM answers
        UNION ALL SELECT {SAMPLING}, FALSE, 'failed' FROM failed ANTI JOIN answers USING ({ANSWER})
        UNION ALL SELECT {SAMPLING}, NULL, 'missing' FROM ({missing_answers(OF_CHECKPOINTS)}))
    GROUP BY ALL ORDER BY ALL"""
_NUM_ROLLOUTS = "SELECT count(*) FROM student_rollouts WHERE checkpoint_id = $id"
