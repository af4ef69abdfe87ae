"""SHA-256 of a value's canonical JSON, from which every id of the project is made."""

import hashlib
import json


def content_hash(value: object) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
