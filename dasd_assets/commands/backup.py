"""`dasd backup`: a consistent copy of the home, while writers run."""

import argparse
import sys
from pathlib import Path

from dasd_assets.service.instance import open_instance
from dasd_assets.service.lost_tables import require_tables
from dasd_resources.storage.backup import back_up
from dasd_resources.storage.lake import Lake
from dasd_resources.visible_text import show_message


def command(args: argparse.Namespace) -> int:
    """Raises LostTables where the home's tables are gone: an empty backup would push out the good ones."""
    dagster_home = Path(args.dagster_home or args.home / "dagster")
    lake = Lake(home=str(args.home))
    if lake.catalog.exists() and (dagster_home / "dagster.yaml").is_file():
        with open_instance(dagster_home) as instance, lake.reading() as reading:
            require_tables(instance, reading)
    folder, manifest = back_up(args.home, dagster_home, Path(args.folder), args.keep, args.link)
    for path in manifest.missing:
        show_message(f"warning: checkpoint {path} is named in the catalog but gone: not in the backup", sys.stderr)
    show_message(
        f"{folder}: {len(manifest.entries)} files, {manifest.num_bytes:,} bytes, snapshot {manifest.snapshot_id}"
    )
    return 0
