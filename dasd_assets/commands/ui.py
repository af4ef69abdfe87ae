"""`dasd ui`: Dagster's web UI and daemon over a home, on loopback unless the user asks for another host (no table)."""

import argparse
import os
import subprocess
import sys

from dasd_assets.commands import LOOPBACK
from dasd_assets.commands.messages import echo
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.service.instance import open_instance
from dasd_assets.service.recovery import fail_abandoned_runs
from dasd_resources.home import WORKSPACE, prepare_home
from dasd_resources.recipe import load_recipe

QUIET = ("-W", "ignore::FutureWarning")  # Dagster's advice to use a command of its own


def command(args: argparse.Namespace) -> int:
    """Returns when the web UI and the daemon have ended."""
    check_names(load_recipe(args.default_recipe, args.home))
    dagster_home = prepare_home(args.home, args.dagster_home)
    if args.host != LOOPBACK:
        echo(f"warning: the web UI has no log-in, and {args.host} lets others on the network use it")
    with open_instance(dagster_home) as instance:
        abandoned = fail_abandoned_runs(instance, args.home)
    if abandoned:
        echo(f"marked {abandoned} runs of a killed service as failed; it continues from what was committed")
    echo(f"the web UI will be on http://{args.host}:{args.port}; stop it with Ctrl-C, the next start continues")
    dagster = [sys.executable, *QUIET, "-m", "dagster", "dev", "--workspace", str(WORKSPACE), "--log-level", "warning"]
    environment = os.environ | {"DASD_HOME": str(args.home), "DAGSTER_HOME": str(dagster_home)}
    return subprocess.call([*dagster, "--host", args.host, "--port", str(args.port)], env=environment)
