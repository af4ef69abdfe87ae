"""`dasd audit …` and `dasd takedown`: their arguments, and where the answers go."""

import argparse
import json
from collections.abc import Callable
from typing import TypeAlias

from dasd_assets.audit.checkpoint import audit_checkpoint
from dasd_assets.audit.ids import find_id
from dasd_assets.audit.pages import checkpoint_page, example_page, prompt_page, response_page
from dasd_assets.audit.prompt import Record, downstream, prompt_record
from dasd_assets.audit.response import audit_example, audit_response
from dasd_resources.lake import Lake

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
DISAGREES = 1


def add_commands(commands: Subparsers) -> None:
    """Add `audit` to the `dasd` command's parsers; cli.py sets `home` on the arguments."""
    audits = commands.add_parser("audit", help="where a row came from, what it touches, whether all of it is true")
    kinds = audits.add_subparsers(required=True)
    response = _add(kinds, "response", _response, "a teacher response, from landed line to checkpoints")
    example = _add(kinds, "example", _example, "a training example, by the response or continuation it is made of")
    checkpoint = _add(kinds, "checkpoint", _checkpoint, "what a checkpoint was trained on, and by what")
    prompt = _add(kinds, "prompt", _prompt, "a question, and all that it touched")
    for parser in (response, example, checkpoint, prompt):
        parser.add_argument("id", help="an id, or its first digits")
    checkpoint.add_argument("--tokens", action="store_true", help="hash every token, however many there are")
    prompt.add_argument("--downstream", action="store_true", help="list every row and checkpoint that it touched")


def _add(
    kinds: Subparsers, name: str, command: Callable[[argparse.Namespace], int], told: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=command)
    return parser


def _response(args: argparse.Namespace) -> int:
    with _open(args).reading() as reading:
        record = audit_response(reading, find_id(reading, "response", args.id))
    return say(args, record, response_page)


def _example(args: argparse.Namespace) -> int:
    with _open(args).reading() as reading:
        record = audit_example(reading, find_id(reading, "example", args.id))
    return say(args, record, example_page)


def _checkpoint(args: argparse.Namespace) -> int:
    lake = _open(args)
    with lake.reading() as reading:
        identity = find_id(reading, "checkpoint", args.id)
        record = audit_checkpoint(lake, reading, identity, all_tokens=args.tokens)
    return say(args, record, checkpoint_page) or (DISAGREES if record["faults"] else 0)


def _prompt(args: argparse.Namespace) -> int:
    with _open(args).reading() as reading:
        identity = find_id(reading, "prompt", args.id)
        record = prompt_record(reading, identity)
        if args.downstream:
            record["downstream"] = downstream(reading, identity)
    return say(args, record, prompt_page)


def say(args: argparse.Namespace, record: Record, page: Callable[[Record], str]) -> int:
    """Print a record as its page, or as JSON."""
    print(json.dumps(record, ensure_ascii=False, default=str) if args.json else page(record))
    return 0


def _open(args: argparse.Namespace) -> Lake:
    lake = Lake(home=str(args.home))
    lake.require()
    return lake
