"""`dasd audit …` and `dasd takedown`: their arguments, and where the answers go."""

import argparse
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from dasd_assets.audit.arguments import RECIPE_HELP, positive
from dasd_assets.audit.checkpoint import audit_checkpoint
from dasd_assets.audit.pages.checkpoint import checkpoint_page
from dasd_assets.audit.pages.question import prompt_page
from dasd_assets.audit.pages.response import example_page, response_page
from dasd_assets.audit.pages.staleness import staleness_page
from dasd_assets.audit.pages.takedown import takedown_page
from dasd_assets.audit.prompt import Record, downstream, prompt_record
from dasd_assets.audit.response import audit_example, audit_response
from dasd_assets.rules.typed_ids import AuditError, find_id
from dasd_resources.home import prepare_home
from dasd_resources.json_text import json_text
from dasd_resources.storage.lake import Lake
from dasd_resources.visible_text import show, show_message

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
    stale = _add(kinds, "staleness", _staleness, "what is out of date, and why")
    stale.add_argument("--recipe", help=RECIPE_HELP)
    truth = _add(kinds, "verify", _verify, "recompute hashes, references, sums and files; name what disagrees")
    truth.add_argument("--sample", type=positive, metavar="N", help="recompute only N rows of each table")
    takedown = commands.add_parser(
        "takedown", help="withdraw questions from all that is made from now on, or bring them back"
    )
    takedown.add_argument("file", help="prompt ids or questions, one a line, plain or as JSON; - reads standard input")
    takedown.add_argument("--reason", help="kept with every row that it keeps out")
    takedown.add_argument("--undo", action="store_true", help="bring them back")
    takedown.add_argument("--json", action="store_true", help="print one JSON object")
    takedown.set_defaults(command=_takedown)
    checkpoint.add_argument("--tokens", action="store_true", help="hash every token, however many there are")
    prompt.add_argument("--downstream", action="store_true", help="list every row and checkpoint that it touched")


def _add(
    kinds: Subparsers, name: str, command: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=summary, description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=command)
    return parser


@contextmanager
def _in_a_moment() -> Iterator[None]:
    """For commands that take a second: nothing is spent on looking for garbage, at the process's end either.

    That would be a third of the time that staleness takes. DuckDB would import pandas, for 0.4 s, to look for its NA
    among a query's parameters: here there is none.
    """
    absent = "pandas" not in sys.modules
    if absent:
        sys.modules["pandas"] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        if "torch" not in sys.modules:  # a library of PyTorch's complains of whatever is left at the end
            gc.freeze()
        gc.enable()
        if absent:
            del sys.modules["pandas"]


@_in_a_moment()
def _response(args: argparse.Namespace) -> int:
    with _open(args).reading() as reading:
        record = audit_response(reading, find_id(reading, "response", args.id))
    return say(args, record, response_page)


@_in_a_moment()
def _example(args: argparse.Namespace) -> int:
    with _open(args).reading() as reading:
        record = audit_example(reading, find_id(reading, "example", args.id))
    return say(args, record, example_page)


@_in_a_moment()
def _checkpoint(args: argparse.Namespace) -> int:
    lake = _open(args)
    with lake.reading() as reading:
        identity = find_id(reading, "checkpoint", args.id)
        record = audit_checkpoint(lake, reading, identity, all_tokens=args.tokens)
    return say(args, record, checkpoint_page) or (DISAGREES if record["faults"] else 0)


@_in_a_moment()
def _prompt(args: argparse.Namespace) -> int:
    with _open(args).reading() as reading:
        identity = find_id(reading, "prompt", args.id)
        record = prompt_record(reading, identity)
        if args.downstream:
            record["downstream"] = downstream(reading, identity)
    return say(args, record, prompt_page)


@_in_a_moment()
def _staleness(args: argparse.Namespace) -> int:
    from dasd_assets.audit.outdated import staleness  # imports Dagster and every stage
    from dasd_resources.recipe import load_recipe

    _open(args)
    dagster_home = prepare_home(args.home, args.dagster_home)
    record = staleness(load_recipe(args.recipe or args.default_recipe, args.home), args.home, dagster_home)
    return say(args, record, staleness_page)


def _verify(args: argparse.Namespace) -> int:
    from dasd_assets.audit.verify import as_record, verify  # imports every stage

    faults = []
    for fault in verify(_open(args), args.sample, lambda title: show(title, sys.stderr)):
        faults.append(fault)
        if not args.json:
            show_message(str(fault))
    if args.json:
        show(json_text(as_record(faults)))
    elif not faults:
        show("Everything agrees.")
    return DISAGREES if faults else 0


def _takedown(args: argparse.Namespace) -> int:
    from dasd_assets.audit.takedown import read_names, take_down

    if not args.undo and not (args.reason or "").strip():
        raise AuditError("give a --reason: it is kept with every row that the takedown keeps out")
    lake = _open(args)
    with sys.stdin if args.file == "-" else Path(args.file).open(encoding="utf-8") as lines:
        ids, questions = read_names(lines)
    return say(args, take_down(lake, ids, questions, args.reason or "", args.undo), takedown_page)


def say(args: argparse.Namespace, record: Record, page: Callable[[Record], str]) -> int:
    """Print a record as its page, or as JSON."""
    show(json_text(record) if args.json else page(record))
    return 0


def _open(args: argparse.Namespace) -> Lake:
    lake = Lake(home=str(args.home))
    lake.require()
    return lake
