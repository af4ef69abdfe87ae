"""`dasd ui --open`: a browser gets the report's page when the web UI answers; without one its address is said."""

import webbrowser
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from dasd_assets.commands.ui import FIRST_PAGE, has_own_window, open_when_there


class Answering(BaseHTTPRequestHandler):
    """A web UI that is there."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_it_opens_on_the_report(address: str) -> None:
    opened: list[str] = []
    open_when_there(address, browse=lambda page: not opened.append(page))
    assert opened == [f"{address}{FIRST_PAGE}"]


def test_without_a_browser_or_a_web_ui_it_says_so(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    open_when_there(address, browse=lambda page: False)
    assert f"no browser could be started here; open {address}{FIRST_PAGE}" in capsys.readouterr().err
    open_when_there("http://127.0.0.1:9", seconds=0.1)
    assert "did not answer within 0 s" in capsys.readouterr().err


def test_by_itself_it_starts_no_browser_of_the_terminal() -> None:
    def none() -> webbrowser.BaseBrowser:
        raise webbrowser.Error("could not locate runnable browser")

    assert has_own_window(lambda: webbrowser.BackgroundBrowser("xdg-open"))
    assert not has_own_window(lambda: webbrowser.GenericBrowser("w3m"))
    assert not has_own_window(none)
