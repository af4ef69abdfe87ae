"""The `dasd` command: parses its arguments and calls the command's module.

The environment is read here, in definitions.py and by `dasd.open`, nowhere else.

Dagster and the models' libraries take seconds to import, so the module of a command is imported when it is called: an
audit answers sooner than they would load. Nothing slow is imported before the command can be interrupted.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dasd_assets.cli.parser import parse
from dasd_resources.errors import UserError
from dasd_resources.home import HISTORY_VARIABLE, home_of, keep_history, recipe_of
from dasd_resources.interruption import interruptible
from dasd_resources.sqlite_cache import of_the_machine
from dasd_resources.visible_text import show_message

FAILED = 1
# A library's error that nothing else explains comes of a damaged file among Dagster's, a full disk or a busy database.
LIBRARIES_OF_DAGSTERS_FILES = ("sqlite3", "sqlalchemy", "yaml")

INTERRUPTED = {
    "run": "interrupted; what was finished is kept, and the next `dasd run` continues from there",
    "evaluate": "interrupted; what was answered is kept, and the same command continues from there",
    "experiment": "interrupted; what was finished is kept, and the same command continues from there",
    "plan": "interrupted; what the pilot has made is kept, and the same command continues from there",
    "backup": "interrupted; the next `dasd backup` to this folder continues from there",
    "chat": "ended; a chat is not stored",
    "view": "stopped",
    "ui": "stopped; the next start continues the runs that were under way",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 a materialization or query failed, 2 the recipe or the call is at fault.

    Without arguments it is the command that this process was started for: a signal ends it, with 128 + its number.
    """
    if argv is not None:
        return _carry_out(argv)
    return interruptible(partial(_carry_out, sys.argv[1:]), INTERRUPTED.get("".join(sys.argv[1:2]), "interrupted"))


def _carry_out(argv: Sequence[str]) -> int:
    import duckdb

    from dasd_resources.storage.place import choose_storage

    args = parse(argv)
    args.home, args.dagster_home = home_of(os.environ), os.environ.get("DAGSTER_HOME")
    args.default_recipe = recipe_of(os.environ)
    try:
        choose_storage(args.home, os.environ)
        if HISTORY_VARIABLE in os.environ:
            keep_history(args.home, args.dagster_home, os.environ[HISTORY_VARIABLE])
        return int(args.command(args))
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        return _complain(str(error), error.exit_code)
    except (duckdb.Error, OSError) as error:
        return _complain(str(error), FAILED)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in LIBRARIES_OF_DAGSTERS_FILES:
            raise
        message = " ".join(str(error).split("\n[")[0].split())
        return _complain(f"{message}: {_advice(error, args.home)}", FAILED)


def _advice(error: Exception, home: Path) -> str:
    """What to do about an error of a library of Dagster's files."""
    if of_the_machine(getattr(error, "orig", error)):  # SQLAlchemy's holds SQLite's own
        return f"make room on the disk of {home}, or try again when nothing else is at work there"
    if HISTORY_VARIABLE in os.environ:
        return f"see whether the database that {HISTORY_VARIABLE} names runs"
    return f"a file of {home} is damaged; `dasd restore` brings a backup back"


def _complain(message: str, code: int) -> int:
    show_message(f"dasd: {message}", sys.stderr)
    return code
