"""Commands for whoever runs a home: `dasd check`, `dasd backup`, `dasd restore`."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

Subparsers = argparse._SubParsersAction


def check_command(args: argparse.Namespace) -> int:
    """`dasd check`: exit code 1 if anything would stop a run."""
    from dasd_assets.commands.check import Finding, check
    from dasd_assets.definitions import EnvironmentEngines
    from dasd_resources.recipe import load_recipe

    recipe = load_recipe(args.recipe or args.default_recipe)
    findings: list[Finding] = []
    for finding in check(recipe, args.home, EnvironmentEngines(home=str(args.home)), args.quick):
        findings.append(finding)
        if not args.json:
            print(f"{finding.status:8}{finding.check:22}{finding.told}", flush=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    return int(any(finding.status == "failed" for finding in findings))


def backup_command(args: argparse.Namespace) -> int:
    """`dasd backup`."""
    from dasd_assets.service.instance import open_instance
    from dasd_assets.service.lost_tables import require_tables
    from dasd_resources.storage.backup import back_up
    from dasd_resources.storage.lake import Lake

    dagster_home = Path(args.dagster_home or args.home / "dagster")
    lake = Lake(home=str(args.home))
    if lake.catalog.is_file() and (dagster_home / "dagster.yaml").is_file():
        with open_instance(dagster_home) as instance, lake.reading() as reading:
            require_tables(instance, reading)  # an empty backup would push out the good ones
    folder, manifest = back_up(args.home, dagster_home, Path(args.folder), args.keep, args.link)
    for path in manifest.missing:
        print(f"warning: checkpoint {path} is named in the catalog but gone: not in the backup", file=sys.stderr)
    print(f"{folder}: {len(manifest.entries)} files, {manifest.num_bytes:,} bytes, snapshot {manifest.snapshot_id}")
    return 0


def restore_command(args: argparse.Namespace) -> int:
    """`dasd restore`."""
    from dasd_resources.storage.restore import restore

    manifest, kept = restore(Path(args.folder), args.home, args.replace)
    print(f"{args.home}: {len(manifest.entries)} files of {manifest.created_at}, snapshot {manifest.snapshot_id}")
    if kept:
        print(f"what was there before is in {kept}")
    return 0


def add_commands(commands: Subparsers) -> None:
    """Add them to the `dasd` command."""
    checks = commands.add_parser("check", help="look at all that a recipe needs, before hours are spent on it")
    checks.add_argument(
        "--recipe", help="a shipped recipe's name or a YAML file's path (default: $DASD_RECIPE or demo)"
    )
    checks.add_argument("--quick", action="store_true", help="load no model: leave out what the engines really return")
    checks.add_argument("--json", action="store_true", help="print a JSON array of objects")
    checks.set_defaults(command=check_command)
    backups = commands.add_parser("backup", help="save the home to a folder, consistent, while writers run")
    backups.add_argument("folder", help="one subfolder per backup; later ones share files with those before")
    backups.add_argument("--keep", type=positive, default=3, help="delete all but this many of the newest (default 3)")
    backups.add_argument(
        "--link", action="store_true", help="hard-link files to the home's: fast, but on the same disk"
    )
    backups.set_defaults(command=backup_command)
    restores = commands.add_parser("restore", help="bring a backup to DASD_HOME, every file verified")
    restores.add_argument("folder", help="a folder of `dasd backup` (its newest) or one backup in it")
    restores.add_argument("--replace", action="store_true", help="move a home that is there aside first")
    restores.set_defaults(command=restore_command)


def positive(text: str) -> int:
    """For argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value
