"""A large landed file in parts of so many rows (`landing.questions_per_batch`), each of which is a prompt batch.

What a part is called follows from its place and its rows: of a file that grows, all parts but the last stay what they
were. Left out: parts of equal size; the last one has what is left.
"""

import hashlib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from dasd_resources.landing.prompt_files import Rows
from dasd_resources.landing.row_files.formats import read_rows
from dasd_resources.landing.row_files.rows import MAX_RESPONSE_ROW_BYTES, DamagedFile

NUMBERED = re.compile(r"\.\d{5}$")  # the end of a part's name, before its content's hash


def part_digests(path: Path, num_rows: int, stop: int | None = None) -> list[str]:
    """SHA-256, hex, of each `num_rows` rows of a file; where it is damaged, the last one covers that, too.

    One digest, if any, for a file that has no more rows than that. stop: the row, from 0, before which to end; None: at
    the file's end. Raises OSError only where the system is at fault.
    """
    digests, hashed, number = list[str](), hashlib.sha256(), 0
    for number, said in enumerate(islice(_said(path), stop), start=1):
        hashed.update(said)
        if number % num_rows == 0:
            digests.append(hashed.hexdigest())
            hashed = hashlib.sha256()
    return [*digests, hashed.hexdigest()] if number % num_rows else digests


def _said(path: Path) -> Iterator[bytes]:
    """What each row says, and then what is said of the damage, if there is any."""
    try:
        for row in read_rows(path, MAX_RESPONSE_ROW_BYTES):
            yield f"{row.text}\n{row.unreadable}\n".encode("utf-8", "surrogatepass")
    except DamagedFile as error:
        yield f"{error}\n".encode("utf-8", "surrogatepass")


def rows_of(number: int, num_parts: int, num_rows: int) -> Rows:
    """Those of a file's part, counted from 0; the last one goes to the file's end, where damage shows."""
    return number * num_rows, None if number == num_parts - 1 else (number + 1) * num_rows


def part_stem(stem: str, number: int) -> str:
    """The start of a part's batch key, from that of its file."""
    return f"{stem}.{number + 1:05d}"
