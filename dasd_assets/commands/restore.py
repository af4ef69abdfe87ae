"""`dasd restore`: a backup brought to DASD_HOME."""

import argparse
from pathlib import Path

from dasd_resources.storage.restore import restore
from dasd_resources.visible_text import show_message


def command(args: argparse.Namespace) -> int:
    """Every file is verified before any is put in place."""
    manifest, kept = restore(Path(args.folder), args.home, args.replace)
    show_message(
        f"{args.home}: {len(manifest.entries)} files of {manifest.created_at}, snapshot {manifest.snapshot_id}"
    )
    if kept:
        show_message(f"what was there before is in {kept}")
    return 0
