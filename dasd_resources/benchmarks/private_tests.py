"""LiveCodeBench's private tests, which come as base64 of a compressed pickle of one text: the text, and no pickle run.

A pickle is a program for a machine that can call anything. It is not loaded here: its operations are listed, and where
they are those that write down one text and no other, that text is taken from the list.
"""

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Iterator
from pathlib import Path

KEY = "private_test_cases"
TEXT = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
HARMLESS = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")
MOST_BYTES = 1 << 30  # of what is unpacked


class NotPlain(ValueError):
    """Tests that are more than one text; the message says what they are."""


def write_plain(packed: Path, plain: Path) -> None:
    """The same rows with their private tests as JSON. Raises NotPlain, naming the line."""
    with packed.open(encoding="utf-8") as lines, plain.open("w", encoding="utf-8") as written:
        for line in _plain_lines(lines):
            written.write(line)


def _plain_lines(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            tests = row.get(KEY)
            if isinstance(tests, str) and not tests.startswith("["):
                row[KEY] = unpacked(tests)
        except (ValueError, AttributeError, zlib.error) as error:
            raise NotPlain(f"line {number}: {error}") from None
        yield json.dumps(row) + "\n"


def unpacked(tests: str) -> str:
    """The JSON of packed tests. Raises ValueError, zlib.error or NotPlain for what is none."""
    try:
        compressed = base64.b64decode(tests, validate=True)
    except binascii.Error as error:
        raise NotPlain(f"its {KEY} are neither JSON nor base64 ({error})") from None
    unpacking = zlib.decompressobj()
    pickled = unpacking.decompress(compressed, MOST_BYTES)
    if unpacking.unconsumed_tail:
        raise NotPlain(f"its {KEY} are more than {MOST_BYTES:,} bytes")
    text = _only_text(pickled)
    if not isinstance(json.loads(text), list):
        raise NotPlain(f"its {KEY} are JSON, but no list")
    return text


def _only_text(pickled: bytes) -> str:
    operations = [(operation.name, value) for operation, value, _ in pickletools.genops(pickled)]
    if other := sorted({name for name, _ in operations} - {*TEXT, *HARMLESS}):
        raise NotPlain(f"its {KEY} are a pickle that does more than hold a text ({', '.join(other)})")
    texts = [value for name, value in operations if name in TEXT]
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise NotPlain(f"its {KEY} are a pickle of {len(texts)} texts, not of one")
    return texts[0]
