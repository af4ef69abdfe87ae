"""`server`: where a remote model is served. Its API key is never part of a recipe, nor sent unencrypted."""

import re
from ipaddress import ip_address
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from dasd_resources.recipe.parts import Part, Positive, Seconds

# Strict, so that no URL can be read as another host than the one it connects to, and none holds a password.
BASE_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>(?:[a-z0-9-]{1,63}\.)*[a-z0-9-]{1,63}|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>\d{1,5}))?(?:/[\w.~-]+)*/?",
    re.ASCII | re.IGNORECASE,
)


class Server(Part):
    """Where a remote model is served, as what, and within which limits; the key itself is never written here.

    Limits per minute hold for all base URLs together, `max_concurrency` for each.
    """

    base_urls: tuple[str, ...] = Field(strict=False, min_length=1)
    """Such as [http://localhost:8000/v1]; requests are spread over them."""
    model: Annotated[str, Field(min_length=1)]
    """Its id in the server's /v1/models."""
    revision: Annotated[str, Field(min_length=1)]
    """Of its weights, which cannot be read from here."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """The environment variable that holds the key."""
    allow_key_over_http: bool = False
    """Whether the key may cross the network in the clear."""
    max_concurrency: Positive = 256
    """Requests at a time, of each server."""
    requests_per_minute: Positive | None = None
    """Of all servers together."""
    tokens_per_minute: Positive | None = None
    """Of all servers together."""
    connect_timeout_s: Seconds = 10.0
    """For a connection."""
    request_timeout_s: Seconds = 3600.0
    """For a whole response, its waiting in the server's queue included."""
    max_attempts: Positive = 5
    """Of one request."""
    patience_s: Seconds = 600.0
    """How long to wait for a server that is busy, or for a healthy one."""

    @field_validator("base_urls")
    @classmethod
    def _plain_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            match = BASE_URL.fullmatch(url)
            if not match or not 0 < int(match["port"] or 1) < 2**16:
                raise ValueError(
                    "each must read http(s)://host[:port]/v1, without user, password or query; the key of a server "
                    "comes from the environment variable that api_key_env names"
                )
        plain = tuple(url.rstrip("/") for url in urls)
        if len(set(plain)) < len(plain):
            raise ValueError("two are the same; remove one")
        return plain

    @model_validator(mode="after")
    def _no_key_in_the_clear(self) -> Self:
        open_to_all = [url for url in self.base_urls if not _is_private(url)]
        if self.api_key_env and open_to_all and not self.allow_key_over_http:
            raise ValueError(
                f"the key in {self.api_key_env} would cross the network in the clear to {', '.join(open_to_all)}; "
                "use https, or set allow_key_over_http: true"
            )
        return self


def _is_private(url: str) -> bool:
    """Whether nobody can read on the way what is sent there: it goes by TLS, or stays on this machine."""
    match = BASE_URL.fullmatch(url)
    assert match
    scheme, host = match["scheme"], match["host"].strip("[]")
    if scheme == "https" or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
