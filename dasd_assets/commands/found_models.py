"""The models that a recipe can name: those of this machine's Hugging Face cache, and those that a server has."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dasd_resources.inference.model_files import CONTEXT_KEYS, find_model
from dasd_resources.inference.replica import AttemptFailed, Busy, Refused, Replica, checked_secret, http_client
from dasd_resources.recipe import Model, RecipeError, Server
from dasd_resources.recipe.faults import error_lines

SECONDS, MAX_BYTES = 10.0, 2**22  # for a server to list its models


@dataclass(frozen=True)
class ServedModel:
    """A model as a server lists it: its id, where its files are from, if it says so, and its context."""

    name: str
    root: str | None
    context: int | None


def cached_models() -> list[str]:
    """Names of the hub models in this machine's cache that have a configuration and a tokenizer, in order."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = set[str]()
    for repository in repositories:
        files = {file.file_name for revision in repository.revisions for file in revision.files}
        if repository.repo_type == "model" and {"config.json", "tokenizer_config.json"} <= files:
            found.add(repository.repo_id)
    return sorted(found)


def commit_of(name: str) -> str | None:
    """The commit of a cached hub model, of which its snapshot's folder has its name; None for a folder."""
    folder = local_folder(name)
    return folder.name if folder is not None and folder.parent.name == "snapshots" else None


def local_folder(name: str) -> Path | None:
    """Where a model lies on this machine, if it does."""
    try:
        return find_model(name, "model")
    except RecipeError:
        return None


def configuration(name: str) -> Mapping[str, object]:
    """A model's config.json; empty where it is not here."""
    folder = local_folder(name)
    file = folder / "config.json" if folder is not None else None
    document = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else {}
    return document if isinstance(document, dict) else {}


def context_of(name: str) -> int | None:
    """The tokens that a model takes, by its configuration, if that is here and says so."""
    config = configuration(name)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in CONTEXT_KEYS:
            if isinstance(found := part.get(key), int):
                return found
    return None


def is_url(text: str) -> bool:
    """Whether this is a server's address rather than a model."""
    return text.startswith(("http://", "https://"))


def base_url(url: str) -> str:
    """The address that its API begins with: `http://host:8000` -> `http://host:8000/v1`."""
    path = url.partition("://")[2].partition("/")[2]
    return url.rstrip("/") + ("" if path else "/v1")


def served_models(url: str, api_key_env: str | None) -> list[ServedModel]:
    """What an OpenAI-compatible server lists under /models. Raises RecipeError, with what to do, if it does not."""
    server = _server(url, api_key_env)
    secret = checked_secret(server, os.environ.get(api_key_env or ""))
    try:
        listed = json.loads(asyncio.run(_models_page(server, secret)))["data"]
        found = [
            ServedModel(str(one["id"]), _text(one.get("root")), _number(one.get("max_model_len"))) for one in listed
        ]
    except (AttemptFailed, Busy, Refused, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(
            f"--teacher {url}: no list of models at {url}/models ({type(error).__name__}: {error}); start the server, "
            "or correct the address" + ("" if api_key_env else "; if it wants a key, name its variable: --api-key-env")
        ) from None
    if not found:
        raise RecipeError(f"--teacher {url}: the server has no model")
    return found


def _server(url: str, api_key_env: str | None) -> Server:
    """The server as a recipe has it, whose rules hold: no password in the address, no key in the clear."""
    server = {"base_urls": [url], "model": "any", "revision": "any", "api_key_env": api_key_env}
    try:
        served = Model.model_validate({"model": "any", "server": server}).server
    except ValidationError as error:
        raise RecipeError("\n".join(f"--teacher: {line}" for line in error_lines(error, Model))) from None
    assert served is not None
    return served


async def _models_page(server: Server, secret: str | None) -> bytes:
    async with http_client(server, secret, None) as client:
        replica = Replica(server.base_urls[0], client, secret, asyncio.Semaphore(1))
        return await replica.fetch("/models", None, MAX_BYTES, SECONDS)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
