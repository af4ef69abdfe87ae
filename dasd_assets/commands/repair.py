"""`dasd repair`: what is damaged, what of it can be made again, and, with `--apply`, the first step to that."""

import argparse
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import dagster as dg

from dasd_assets.records.partitions import batches
from dasd_assets.records.wording import number_of
from dasd_assets.service.attempts import unfinished_runs
from dasd_assets.service.instance import open_instance
from dasd_assets.service.recovery import fail_abandoned_runs
from dasd_resources.home import prepare_home
from dasd_resources.landing.landing_folder import LandingFolder, landing_folder
from dasd_resources.recipe import load_recipe
from dasd_resources.sft.checkpoint import CheckpointError, published
from dasd_resources.storage.data_files import DamagedFiles
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.repair import RESTORE, HomeInUse, RepairPlan, drop_files, plan_repair
from dasd_resources.visible_text import show_message

LEFT = 1  # exit code: something is damaged, and not all of it has been dropped


def command(args: argparse.Namespace) -> int:
    """Print the plan; with `--apply`, drop the files whose rows the next `dasd run` makes again."""
    lake = Lake(home=str(args.home))
    lake.require()
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    folder = landing_folder(recipe, args.home)
    with open_instance(prepare_home(args.home, args.dagster_home)) as instance:
        _last_event_at_rest(instance, args.home)
        existing = batches(instance)
        unlanded = [batch for batch in existing if folder.find(batch) is None]
        plan, checkpoints = plan_repair(lake, existing, unlanded), list(_checkpoints(lake))
        show_message("\n".join(described(plan, checkpoints, list(_landed(folder, unlanded)))))
        if args.apply and plan.drop:
            snapshot = drop_files(lake, plan, partial(_last_event_at_rest, instance, args.home))
            show_message(
                f"Dropped {number_of(len(plan.drop), 'file')} (snapshot {snapshot}): `dasd run` makes the rows again."
            )
        elif plan.drop:
            show_message(
                "Nothing was changed: `dasd repair --apply` drops the first, then `dasd run` makes their rows again."
            )
    return LEFT if plan.keep or (plan.drop and not args.apply) or checkpoints else 0


def _last_event_at_rest(instance: dg.DagsterInstance, home: Path) -> int:
    """The last event of Dagster's log. Raises HomeInUse while a run is at work, or about to be."""
    fail_abandoned_runs(instance, home)
    if runs := unfinished_runs(instance, home, time.time()):
        named = ", ".join(run.run_id[:8] for run in runs)
        raise HomeInUse(f"a run is at work ({named}): nothing was changed; wait for it, or stop it and `dasd ui`")
    return instance.event_log_storage.get_maximum_record_id() or 0


def described(plan: RepairPlan, checkpoints: list[str], landed: list[str]) -> Iterator[str]:
    """The plan, one line a file, with what there is to do about each."""
    if not (plan.drop or plan.keep or checkpoints):
        yield "Nothing is damaged."
    parts = {
        "Can be made again from what is left:": [
            f"{damage} ({number_of(damage.file.num_rows, 'row')})" for damage in plan.drop
        ],
        "But:": plan.notes,
        "Cannot be made again:": [*(f"{damage}; {reason}" for damage, reason in plan.keep), *checkpoints],
        "Are not where they landed; their prompts are in the tables:": landed,
    }
    for title, lines in parts.items():
        yield from [title, *(f"  {line}" for line in lines)] if lines else []


def _checkpoints(lake: Lake) -> Iterator[str]:
    """Trained checkpoints whose folder is gone or damaged: training makes others, but not the same ones."""
    with suppress(DamagedFiles):  # of the table itself: the plan names them
        rows = lake.read("SELECT * FROM checkpoints WHERE dataset IS NOT NULL ORDER BY checkpoint_id").to_dicts()
        for row in {row["checkpoint_id"]: row for row in rows}.values():
            if what := _weights(lake.folder(row["path"]), row["checkpoint_id"], row["content_hash"]):
                yield f"checkpoint {row['checkpoint_id']}: {what}; {RESTORE}"


def _weights(folder: Path, checkpoint_id: str, content_hash: str) -> str | None:
    """What is wrong with a checkpoint's folder; None if it holds what was published."""
    try:
        trained = published(folder, checkpoint_id)
    except (CheckpointError, ValueError, KeyError, OSError) as error:
        return str(error)
    if trained is None:
        return f"its folder {folder} is gone"
    return None if trained.content_hash == content_hash else f"{folder} does not hold the weights that were published"


def _landed(folder: LandingFolder, unlanded: list[str]) -> Iterator[str]:
    for batch in unlanded:
        yield f"the file of batch {batch}: gone from {folder.url}, or edited; put it back to have its lines read again"
