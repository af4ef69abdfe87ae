"""Checkpoints: weights, snapshots, and the rows they saw."""

from collections.abc import Collection, Iterator

from dasd_assets.audit.checkpoint import audit_checkpoint
from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.prompt import Record
from dasd_assets.audit.verify.chats import recorded_recipe
from dasd_assets.rules.candidates import HELD_OUT, held_out_share
from dasd_resources.sft.checkpoint import CheckpointError, published
from dasd_resources.storage.lake import Lake, Reading

REMEDY = "restore a backup"


def checkpoints(lake: Lake, reading: Reading) -> Iterator[Fault]:
    """Each trained checkpoint's weights, its record, and the rows it saw."""
    rows = reading.read("SELECT * FROM checkpoints ORDER BY checkpoint_id").to_dicts()
    for row in {row["checkpoint_id"]: row for row in rows}.values():
        audit = audit_checkpoint(lake, reading, row["checkpoint_id"], all_tokens=True)
        for what in audit["faults"]:
            yield Fault("checkpoints", row["checkpoint_id"], what, f"or {AGAIN}")
        if row["dataset"] is not None:
            yield from _folder(lake, row)
            yield from _examples(reading, row, audit["trained_on"]["example_ids"])
            yield from _held_out(reading, row)


def _examples(reading: Reading, row: Record, trained_on: Collection[str]) -> Iterator[Fault]:
    """Rows of `checkpoint_examples`, which a takedown reads, that are not of its snapshot; others count the missing."""
    query = "SELECT example_id FROM checkpoint_examples WHERE checkpoint_id = $checkpoint_id ORDER BY example_id"
    known = set(trained_on)
    for example in reading.read(query, row)["example_id"] if known else ():
        if example not in known:
            name = f"{row['checkpoint_id']} {example}"
            yield Fault("checkpoint_examples", name, "the checkpoint's snapshot has no such example", REMEDY)


def _held_out(reading: Reading, row: Record) -> Iterator[Fault]:
    """Examples of questions that the recipe it was trained by holds out of training."""
    recipe = recorded_recipe(row)
    share = 0.0 if recipe is None else held_out_share(recipe)
    query = f"""SELECT r.example_id, r.prompt_id FROM checkpoint_examples r
        WHERE r.checkpoint_id = $checkpoint_id AND {HELD_OUT} ORDER BY ALL"""
    params = {"checkpoint_id": row["checkpoint_id"], "held_out_share": share}
    for example, prompt in reading.read(query, params).iter_rows():
        what = f"it was trained on an example of question {prompt}, which its recipe holds out (heldout.questions)"
        remedy = "materialize its dataset again, and then the checkpoint"
        yield Fault("checkpoint_examples", f"{row['checkpoint_id']} {example}", what, remedy)


def _folder(lake: Lake, row: Record) -> Iterator[Fault]:
    try:
        trained = published(lake.folder(row["path"]), row["checkpoint_id"])
    except (CheckpointError, ValueError, KeyError) as error:
        yield Fault("checkpoints", row["checkpoint_id"], str(error), "then run `dasd run`")
        return
    if trained is None:
        return
    if trained.content_hash != row["content_hash"]:
        what = f"its weights hash to {trained.content_hash[:16]}…, the record says {row['content_hash'][:16]}…"
        yield Fault("checkpoints", row["checkpoint_id"], what, REMEDY)
    made = {"num_steps": trained.num_steps, "seconds": trained.seconds, "final_loss": trained.losses[-1].loss}
    for name, value in made.items():
        if row[name] != value:
            what = f"its {name} is {row[name]}, the record in its folder says {value}"
            yield Fault("checkpoints", row["checkpoint_id"], what, REMEDY)
