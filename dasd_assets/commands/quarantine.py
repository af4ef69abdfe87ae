"""`dasd quarantine`: which batches are quarantined and why, and their release."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from dasd_assets.commands.messages import echo
from dasd_assets.records.quarantine import Quarantined, quarantine, release
from dasd_assets.records.wording import number_of
from dasd_resources.errors import UserError
from dasd_resources.json_text import json_text
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.visible_text import show, show_message


class NotQuarantined(UserError):
    """A batch to release is not quarantined; the message names those that are."""


def command(args: argparse.Namespace) -> int:
    """List the quarantined batches, or release some."""
    Lake(home=str(args.home)).require()
    warehouse = Warehouse(home=str(args.home))
    quarantined = quarantine(warehouse).now
    if args.release:
        _release(warehouse, quarantined, args.release)
    elif args.json:
        show(json_text([asdict(row) for row in quarantined.values()]))
    else:
        for row in quarantined.values():
            since = f"{row.quarantined_at:%Y-%m-%d %H:%M}"
            show_message(f"{row.batch}  since {since}, {row.num_attempts} attempts: {row.reason}")
        echo(f"{number_of(len(quarantined), 'batch is', 'batches are')} quarantined")
    return 0


def _release(warehouse: Warehouse, quarantined: Mapping[str, Quarantined], names: Sequence[str]) -> None:
    """names: batches, or the one word `all`."""
    wanted = list(quarantined) if names == ["all"] else names
    if unknown := sorted(set(wanted) - set(quarantined)):
        known = ", ".join(quarantined) or "none"
        raise NotQuarantined(f"not quarantined: {', '.join(unknown)}; quarantined are: {known}")
    for batch in release(warehouse, wanted):
        echo(f"released {batch}; the service, or the next `dasd run`, tries it again")
