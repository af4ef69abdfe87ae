"""The `dasd` command. It and definitions.py are the only readers of the environment.

Modules with commands of their own add them by `add_commands`. Dagster and the models' libraries take seconds to import,
so a command that needs them imports them itself: an audit answers sooner than they would load.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import duckdb
import polars as pl

from dasd_assets.audit.command import add_commands as add_audit_commands
from dasd_assets.commands import operations
from dasd_assets.records.wording import number_of
from dasd_resources.errors import UserError
from dasd_resources.home import WORKSPACE, home_of, prepare_home, recipe_of
from dasd_resources.json_text import json_text
from dasd_resources.storage.lake import Lake

FAILED = 1
LOOPBACK = "127.0.0.1"
DAMAGED = ("sqlite3", "sqlalchemy", "yaml")  # whose errors, where nothing else is said, are of Dagster's files


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 a materialization or query failed, 2 the recipe or the call is at fault."""
    args = _parser().parse_args(argv)
    args.home, args.dagster_home = home_of(os.environ), os.environ.get("DAGSTER_HOME")
    args.default_recipe = recipe_of(os.environ)
    try:
        return int(args.command(args))
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        return _complain(str(error), error.exit_code)
    except (duckdb.Error, OSError) as error:
        return _complain(str(error), FAILED)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in DAMAGED:
            raise
        told = " ".join(str(error).split("\n[")[0].split())
        return _complain(f"{told}: a file of {args.home} is damaged; `dasd restore` brings a backup back", FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted; what was finished is kept, and the next `dasd run` goes on from there", FAILED)


def run(args: argparse.Namespace) -> int:
    """`dasd run`."""
    import dagster as dg

    from dasd_assets.commands.console import console
    from dasd_assets.commands.run import bring_up_to_date, materialize_selected
    from dasd_assets.commands.summary import summary
    from dasd_assets.definitions import EnvironmentEngines, build_definitions
    from dasd_assets.service.instance import open_instance
    from dasd_resources.recipe import load_recipe
    from dasd_resources.storage.warehouse import Warehouse

    started = time.monotonic()
    home = args.home
    recipe = load_recipe(args.recipe or args.default_recipe)
    dagster_home = prepare_home(home, args.dagster_home)
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    engines = EnvironmentEngines(home=str(home))
    definitions = dg.Definitions.merge(
        build_definitions(recipe, home, engines), dg.Definitions(loggers={"console": console})
    )
    with open_instance(dagster_home) as instance:
        if args.select:
            done = materialize_selected(instance, definitions, recipe, args.select, home, _echo)
        else:
            done = bring_up_to_date(instance, definitions, recipe, engines, home, _echo)
        _echo(f"{done} materializations in {time.monotonic() - started:.0f} s")
        if not args.select:
            print(summary(instance, Warehouse(home=str(home)), engines, recipe))
    return 0


def ui(args: argparse.Namespace) -> int:
    """`dasd ui`: Dagster's web UI and daemon over the same home, on loopback; ends with it."""
    from dasd_resources.recipe import load_recipe

    load_recipe(args.default_recipe)
    dagster_home = prepare_home(args.home, args.dagster_home)
    environment = os.environ | {"DASD_HOME": str(args.home), "DAGSTER_HOME": str(dagster_home)}
    if args.host != LOOPBACK:
        _echo(f"warning: the web UI has no log-in, and {args.host} lets others on the network use it")
    from dasd_assets.service.instance import open_instance
    from dasd_assets.service.recovery import fail_abandoned_runs

    with open_instance(dagster_home) as instance:
        abandoned = fail_abandoned_runs(instance, args.home)
    if abandoned:
        _echo(f"{abandoned} runs that a killed service left behind are failed; it goes on from what was committed")
    _echo(f"the web UI will be on http://{args.host}:{args.port}; Ctrl-C ends it, and the next start goes on")
    quiet = ["-W", "ignore::FutureWarning"]  # Dagster's advice to use a command of its own
    command = [sys.executable, *quiet, "-m", "dagster", "dev", "--workspace", str(WORKSPACE), "--log-level", "warning"]
    return subprocess.call([*command, "--host", args.host, "--port", str(args.port)], env=environment)


def quarantine(args: argparse.Namespace) -> int:
    """`dasd quarantine`: what is set aside and why, or bring it back."""
    from dasd_assets.records.quarantine import quarantine as of_warehouse
    from dasd_assets.records.quarantine import release
    from dasd_resources.storage.warehouse import Warehouse

    Lake(home=str(args.home)).require()
    warehouse = Warehouse(home=str(args.home))
    aside = of_warehouse(warehouse).now
    if args.release:
        wanted = list(aside) if args.release == ["all"] else args.release
        unknown = sorted(set(wanted) - set(aside))
        if unknown:
            known = ", ".join(aside) or "none"
            return _complain(f"not quarantined: {', '.join(unknown)}; quarantined are: {known}", FAILED)
        for batch in release(warehouse, wanted):
            _echo(f"released {batch}; the service, or the next `dasd run`, tries it again")
    elif args.json:
        print(json_text([asdict(row) for row in aside.values()]))
    else:
        for row in aside.values():
            print(f"{row.batch}  since {row.quarantined_at:%Y-%m-%d %H:%M}, {row.num_attempts} attempts: {row.reason}")
        _echo(f"{number_of(len(aside), 'batch is', 'batches are')} quarantined")
    return 0


def sql(args: argparse.Namespace) -> int:
    """`dasd sql`."""
    from dasd_resources.storage.sql_sandbox import select

    lake = Lake(home=str(args.home))
    lake.require()
    table = select(lake.catalog, args.query.encode("utf-8", "replace").decode(), at=args.at)
    try:
        if args.json:
            print(json_text(table.to_dicts()))
        else:
            with pl.Config(tbl_rows=200, tbl_cols=-1, fmt_str_lengths=80, tbl_width_chars=160):
                print(table)
    except (ValueError, OverflowError, pl.exceptions.PanicException) as error:
        return _complain(f"a value cannot be shown, a time beyond the year 9999 perhaps: cast it ({error})", FAILED)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dasd", description="Distribution-aligned sequence distillation.")
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="bring everything up to date; nothing that already is is redone")
    runs.add_argument("--recipe", help="a shipped recipe's name or a YAML file's path (default: $DASD_RECIPE or demo)")
    runs.add_argument("--select", help="materialize exactly these assets, e.g. 'response_scores+'")
    runs.set_defaults(command=run)
    page = commands.add_parser("ui", help="open Dagster's web UI and daemon on loopback")
    page.add_argument("--host", default=LOOPBACK, help="anything but loopback is open to whoever can reach it")
    page.add_argument("--port", type=int, default=3000)
    page.set_defaults(command=ui)
    aside = commands.add_parser("quarantine", help="list the batches set aside because they keep failing, and why")
    aside.add_argument("--release", nargs="+", metavar="BATCH", help="bring these back, or all with the word 'all'")
    aside.add_argument("--list", action="store_true", help="the default")
    aside.add_argument("--json", action="store_true", help="print a JSON array of objects")
    aside.set_defaults(command=quarantine)
    queries = commands.add_parser("sql", help="query the warehouse, read-only, beside running writers")
    queries.add_argument("query")
    queries.add_argument("--json", action="store_true", help="print a JSON array of objects")
    queries.add_argument("--at", type=int, metavar="SNAPSHOT", help="as of this snapshot (see: FROM dasd.snapshots())")
    queries.set_defaults(command=sql)
    operations.add_commands(commands)
    add_audit_commands(commands)
    return parser


def _echo(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def _complain(message: str, code: int) -> int:
    print(f"dasd: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
