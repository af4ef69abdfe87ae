"""Long tests of a question as they are stored: compressed, as text, since a question's metadata is JSON.

LiveCodeBench's have some megabytes a question, of which every answer's judgement passes on a copy.
"""

import base64
import binascii
import zlib

PREFIX = "zlib+base64:"
PACKED_FROM = 1 << 16  # characters; shorter ones stay legible
MAX_UNPACKED = 1 << 28  # bytes of one field; also what keeps a hostile one from filling the memory
MAX_PACKED = 1 << 26  # characters


class TooManyTests(ValueError):
    """More tests than a question may have; the message says how many bytes, and what is accepted."""


def packed(tests: str, most: int = MAX_UNPACKED) -> str:
    """The same, compressed if they are long. Raises TooManyTests for more than `most` bytes."""
    if len(tests) < PACKED_FROM:
        return tests
    content = tests.encode()
    if len(content) > most:
        raise TooManyTests(f"{len(content):,} bytes of tests, at most {most:,} are accepted")
    found = PREFIX + base64.b64encode(zlib.compress(content)).decode()
    if len(found) > MAX_PACKED:
        raise TooManyTests(f"{len(found):,} bytes of tests even when compressed, at most {MAX_PACKED:,} are stored")
    return found


def unpacked(tests: str, most: int = MAX_UNPACKED) -> str:
    """What `packed` was given. Raises ValueError for what it did not write, and for more than it takes."""
    if not tests.startswith(PREFIX):
        return tests
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(base64.b64decode(tests.removeprefix(PREFIX), validate=True), most)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"packed tests are damaged: {error}") from None
    if not decompressor.eof:
        raise ValueError(f"packed tests break off, or unpack to more than {most:,} bytes")
    return content.decode()
