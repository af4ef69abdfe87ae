"""`dasd restore`: a backup brought to DASD_HOME."""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg

from dasd_assets.service.instance import open_instance
from dasd_assets.service.one_service import without_service
from dasd_assets.service.recovery import living_owners
from dasd_resources.home import names_history
from dasd_resources.storage.backup import BackupError, Manifest, read_manifest
from dasd_resources.storage.restore import chosen, restore
from dasd_resources.visible_text import show_message


def command(args: argparse.Namespace) -> int:
    """Every file is verified before any is put in place."""
    folder = chosen(Path(args.folder))
    _require_no_later_history(args.home, Path(args.dagster_home or args.home / "dagster"), read_manifest(folder))
    with _at_rest(args.home) if args.replace and args.home.is_dir() else nullcontext():
        manifest, kept = restore(folder, args.home, args.replace)
    show_message(
        f"{args.home}: {len(manifest.entries)} files of {manifest.created_at}, snapshot {manifest.snapshot_id}"
    )
    if kept:
        show_message(f"what was there before is in {kept}")
    return 0


@contextmanager
def _at_rest(home: Path) -> Iterator[None]:
    """Raise ServiceRunning or BackupError where a process would go on in the home when it has been moved aside."""
    with without_service(home):
        if living_owners(home):
            raise BackupError(f"a run is at work in {home}: wait for it, or stop it, then restore")
        yield


def _require_no_later_history(home: Path, dagster_home: Path, manifest: Manifest) -> None:
    """Raise BackupError where Dagster's history is not in the home, which is replaced, and goes on after the backup."""
    settings = dagster_home / "dagster.yaml"
    in_home = settings.resolve().is_relative_to(home.resolve())
    if not settings.is_file() or (in_home and not names_history(settings.read_text())):
        return
    with TemporaryDirectory() as folder:
        if in_home:  # the home stays as empty as it is
            shutil.copy(settings, folder)
        with open_instance(Path(folder) if in_home else dagster_home) as instance:
            later = _made_after(instance, datetime.fromisoformat(manifest.created_at).timestamp())
    if later:
        raise BackupError(
            f"Dagster's history, which {settings} names, goes on after this backup ({manifest.created_at}): it says "
            f"that {', '.join(later[:3])} was made since, and nothing would make again what the backup lacks of it. "
            "First bring that history back as of before the backup (a database from its dump, docs/deployment.md), or "
            "begin a new one: move the folder aside, or empty the database"
        )


def _made_after(instance: dg.DagsterInstance, moment: float) -> list[str]:
    """The assets that were materialized after it."""
    found = (
        (record.asset_entry, record.asset_entry.last_materialization_record) for record in instance.get_asset_records()
    )
    return [entry.asset_key.to_user_string() for entry, last in found if last is not None and last.timestamp > moment]
