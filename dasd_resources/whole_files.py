"""Files that are there whole or not at all: written beside their place under a hidden name, then renamed into it."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Put this content at a path whose folder is there; who reads meanwhile finds the old file or the new one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
