"""`dasd ui`: Dagster's web UI and daemon over a home, on loopback unless the user asks for another host (no table)."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import BinaryIO

from sqlalchemy.exc import SQLAlchemyError

from dasd_assets.commands.messages import echo
from dasd_assets.commands.service_end import end_service
from dasd_assets.commands.service_terminal import service_output
from dasd_assets.commands.service_watch import wait_for_end
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.service.instance import open_instance
from dasd_assets.service.one_service import SERVICE, hold
from dasd_assets.service.recovery import fail_abandoned_runs
from dasd_resources.errors import UserError
from dasd_resources.home import WORKSPACE, prepare_home
from dasd_resources.interruption import OF_TERMINAL, at_interruption, begin
from dasd_resources.recipe import load_recipe
from dasd_resources.web_address import LOOPBACK_NAMES, web_address

QUIET = ("-W", "ignore::FutureWarning")  # Dagster's advice to use a command of its own
ENDING_SECONDS = 18.0
OPENING_SECONDS = 180.0  # the web UI takes some ten to start, longer on a busy machine
FIRST_PAGE = "/assets/distillation_report"  # what was made, dropped and gained


class PortTaken(UserError):
    """Something else listens on the port."""

    exit_code = 2


def command(args: argparse.Namespace) -> int:
    """Returns when the web UI and the daemon have ended by themselves; SIGINT or SIGTERM ends them all, with code 0."""
    check_names(load_recipe(args.default_recipe, args.home))
    dagster_home = prepare_home(args.home, args.dagster_home)
    address, on_loopback = web_address(args.host, args.port), args.host in LOOPBACK_NAMES
    service = hold(args.home, "dasd ui", address)
    if not on_loopback:
        echo(f"warning: the web UI has no log-in, and {args.host} lets others on the network use it")
    _require_free(args.host, args.port)
    with open_instance(dagster_home) as instance:
        abandoned = fail_abandoned_runs(instance, args.home)
    if abandoned:
        echo(f"marked {abandoned} runs that were cut off; the service continues from what was committed")
    echo(f"the web UI will be on {address}{FIRST_PAGE}; stop it with Ctrl-C, the next start continues")
    if args.open or (args.open is None and sys.stderr.isatty() and on_loopback and has_own_window()):
        Thread(target=open_when_there, args=(address,), name="open-browser", daemon=True).start()
    environment = {"DASD_HOME": str(args.home), "DAGSTER_HOME": str(dagster_home), SERVICE: service}
    with (
        TemporaryDirectory(prefix="dasd-") as temporary,  # for sockets and lists that killed parts leave
        service_output(sys.stderr, args.home, dagster_home) as printed,
    ):
        return _serve(args.host, args.port, os.environ | environment | {"TMPDIR": temporary}, dagster_home, printed)


def has_own_window(find: Callable[[], webbrowser.BaseBrowser] = webbrowser.get) -> bool:
    """Whether the browser that would be started has a window: one that writes to the terminal would take it."""
    try:
        # Python runs the browsers of a terminal, such as w3m, in the foreground; others are of classes of their own.
        return type(find()) is not webbrowser.GenericBrowser
    except webbrowser.Error:
        return False


def open_when_there(
    address: str, seconds: float = OPENING_SECONDS, browse: Callable[[str], bool] = webbrowser.open
) -> None:
    """The first page in a browser, as soon as the web UI answers; says so where none can be started."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"{address}/server_info", timeout=5):
                break
        except OSError:
            time.sleep(0.5)
    else:
        echo(f"the web UI did not answer within {seconds:.0f} s: open {address}{FIRST_PAGE} later")
        return
    if not browse(f"{address}{FIRST_PAGE}"):
        echo(f"no browser could be started here; open {address}{FIRST_PAGE} in one")


def _serve(
    host: str, port: int, environment: dict[str, str], dagster_home: Path, printed: BinaryIO | None = None
) -> int:
    """Until the service ends by itself; one that has lost its code or its daemon is ended and started again.

    printed: the file for what it prints; without one, what is ours.
    """
    while True:
        dagster = _start(host, port, environment, printed)
        try:
            with at_interruption(partial(end_service, dagster), seconds=ENDING_SECONDS):
                ended = wait_for_end(dagster, partial(_heartbeat, dagster_home))
        finally:
            begin()
            end_service(dagster)
        if isinstance(ended, int):
            return ended
        echo(f"{ended}: the service is started again")


def _heartbeat(dagster_home: Path) -> float | None:
    """When the daemon last said that it lives; None if it never did, or if that cannot be read now."""
    with suppress(SQLAlchemyError, OSError), open_instance(dagster_home) as instance:
        return max((beat.timestamp for beat in instance.get_daemon_heartbeats().values()), default=None)
    return None


def _start(
    host: str, port: int, environment: dict[str, str], printed: BinaryIO | None = None
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, *QUIET, "-m", "dagster", "dev", "--workspace", str(WORKSPACE), "--log-level", "warning"]
    # The terminal's signals are for this process alone, which ends the others in order. But they must not be blocked:
    # a run that is to be canceled interrupts itself.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINAL)
    command += ["--host", host, "--port", str(port)]
    dagster = subprocess.Popen(command, env=environment, stdout=printed, stderr=printed, start_new_session=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINAL)
    return dagster


def _require_free(host: str, port: int) -> None:
    """Raise PortTaken, before anything starts, if the web UI could not listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"port {port} of {host}: {error.strerror}; give another --port") from None
