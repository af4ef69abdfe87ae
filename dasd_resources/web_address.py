"""Addresses of the web UI and of the viewer, by the host that they listen on."""

LOOPBACK = "127.0.0.1"  # unless the user names another host
LOOPBACK_NAMES = frozenset({"localhost", LOOPBACK, "::1"})  # where this machine alone reaches a server


def web_address(host: str, port: int | str) -> str:
    """Without a slash at its end; an IPv6 address is in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
