"""`dasd view`: the viewer's arguments, and its server, on loopback unless the user asks for another host."""

import argparse
import socket
from importlib.util import find_spec
from threading import Thread
from urllib.parse import urlsplit

from dasd_assets.audit.arguments import RECIPE_HELP, port
from dasd_resources.errors import UserError
from dasd_resources.home import VIEWER
from dasd_resources.packages import pip_install
from dasd_resources.web_address import LOOPBACK

NEEDED = ("jinja2", "starlette", "uvicorn")

Subparsers = argparse._SubParsersAction


class CannotServe(UserError):
    """The viewer cannot start; the message says what to do."""

    exit_code = 2


def add_commands(commands: Subparsers) -> None:
    """Add `view` to the `dasd` command's parsers; cli.py sets `home` on the arguments."""
    view = commands.add_parser("view", help="look at questions, responses, answers and results in the browser")
    view.add_argument("--host", default=LOOPBACK, help="for any but loopback, the address has a token in it")
    view.add_argument("--port", type=port, default=urlsplit(VIEWER).port)
    view.add_argument("--allow-host", nargs="+", default=[], metavar="NAME", help="names by which others reach it")
    view.add_argument("--dagster", metavar="URL", help="where `dasd ui` is, for links (default: this home's last)")
    view.add_argument("--recipe", help=RECIPE_HELP)
    view.set_defaults(command=command)


def command(args: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise CannotServe(f"{', '.join(missing)} is not installed: {pip_install('dasd[ui]')}")
    import uvicorn

    from dasd_assets.commands.messages import echo
    from dasd_assets.service.one_service import last_address
    from dasd_assets.viewer.access import Access
    from dasd_assets.viewer.app import create_app
    from dasd_assets.viewer.links import DEFAULT_DAGSTER
    from dasd_assets.viewer.viewer import Viewer
    from dasd_resources.recipe import load_recipe
    from dasd_resources.storage.lake import Lake

    dagster = (args.dagster or last_address(args.home) or DEFAULT_DAGSTER).rstrip("/")
    if not dagster.startswith(("http://", "https://")):
        raise CannotServe(f"--dagster {dagster}: give an address that begins with http:// or https://")
    lake = Lake(home=str(args.home))
    lake.require()
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    viewer = Viewer(lake, recipe, dagster)
    access = Access.to(args.host, args.allow_host)
    listening = _listen(args.host, args.port)
    Thread(target=viewer.rows.refresh, name="explore-rows", daemon=True).start()  # before somebody asks
    echo(f"the viewer of {args.home} is on {access.address(args.port)}; stop it with Ctrl-C")
    config = uvicorn.Config(create_app(viewer, access), log_level="warning", server_header=False, access_log=False)
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises CannotServe where it cannot, before anything is read."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        raise CannotServe(f"cannot listen on {host}:{port} ({error}): give another --port") from None
    return found
