"""Who may ask the viewer, and what a page of it may do.

The texts were written by models, the server may run beside a browser with hostile pages open in it:

1. A page of another site whose name is made to lead here (DNS rebinding) sends its own name as Host, and is refused.
   Addresses in numbers cannot be made to lead elsewhere, so where all may ask they are accepted.
2. Where others than this machine can reach the server, a token is asked for: once in the address that `dasd view`
   prints, then as a cookie that only this host is sent, at whatever port.
3. Pages may load this server's own files, and nothing else; no inline script or style, no frame, no form elsewhere.
4. Only GET and HEAD are answered.
"""

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dasd_resources.web_address import LOOPBACK_NAMES, web_address

EVERYWHERE = frozenset({"0.0.0.0", "::"})
COOKIE = "dasd_view_token"  # and the port: a browser sends one host's cookies to all its ports
# Observable Plot adds one style sheet to each chart: its hash, for which tests/test_ui_viewer.py looks.
PLOT_STYLE = "sha256-+TfQir1nvDucAdvE6XUQBt4ayUjpAWkbw2kCdSfekHM="
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    f"style-src 'self' '{PLOT_STYLE}'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """host: what the server listens on. names: others by which it may be asked. token: None where none is."""

    host: str
    names: Collection[str] = ()
    token: str | None = field(default=None, repr=False)

    @staticmethod
    def to(host: str, names: Collection[str] = ()) -> "Access":
        """As is fit for a host: with a new token for any but loopback."""
        return Access(host, names, None if host in LOOPBACK_NAMES else secrets.token_urlsafe(24))

    def address(self, port: int) -> str:
        """What to open in a browser: where the server listens on all interfaces, by the first of the names."""
        host = [*self.names, socket.gethostname()][0] if self.host in EVERYWHERE else self.host
        return f"{web_address(host, port)}/" + (f"?token={self.token}" if self.token else "")

    def accepts_host(self, header: str) -> bool:
        """Whether a request with this Host header may be answered."""
        name = _name_of(header)
        if name in LOOPBACK_NAMES or name in {self.host.lower(), *(name.lower() for name in self.names)}:
            return True
        return self.host in EVERYWHERE and _is_address(name)

    def accepts_token(self, given: str | None) -> bool:
        return self.token is None or hmac.compare_digest((given or "").encode(), self.token.encode())


def _name_of(header: str) -> str:
    """The Host header without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _cookie(request: Request) -> str:
    """The name of the cookie that holds the token of the viewer at the port that was asked."""
    port = re.search(r":(\d+)$", request.headers.get("host", ""))
    return f"{COOKIE}_{port[1]}" if port else COOKIE


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """The middleware that holds every request against an Access, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(Request(scope))
        await (refused or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """The answer in place of the page; None if the request may pass."""
        if not self._access.accepts_host(request.headers.get("host", "")):
            return PlainTextResponse("This server is not asked by that name (dasd view --allow-host NAME).\n", 400)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("The viewer only shows.\n", 405)
        if "token" in request.query_params and self._access.token is not None:
            return self._welcome(request)
        if not self._access.accepts_token(request.cookies.get(_cookie(request))):
            return PlainTextResponse("Open the address that `dasd view` printed: it has the token.\n", 403)
        return None

    def _welcome(self, request: Request) -> Response:
        """From the address with the token to the same without it, which may be sent to others; they need their own."""
        if not self._access.accepts_token(request.query_params["token"]):
            return PlainTextResponse("That is not the token of this server.\n", 403)
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        # Of the path alone, with one slash in front: two would name another site.
        path = "/" + request.url.path.lstrip("/\\")
        response = RedirectResponse(f"{path}?{urlencode(rest)}" if rest else path, 303)
        response.set_cookie(_cookie(request), str(self._access.token), httponly=True, samesite="strict", path="/")
        return response
