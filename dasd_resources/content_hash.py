"""SHA-256 of a value's canonical JSON, from which every id of the project is made, and of a file."""

import hashlib
import json
from pathlib import Path


def content_hash(value: object) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
