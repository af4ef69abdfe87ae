"""JSON Lines: one row a line."""

from collections.abc import Iterable, Iterator

from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, FileRow, row


def line_rows(chunks: Iterable[bytes], most: int = MAX_ROW_BYTES) -> Iterator[FileRow]:
    """Rows up to each newline and the end. Of a row of more than `most` bytes only the start is kept in memory."""
    # `start` is the unfinished row so far (no longer extended once it is too long), `length` its true number of bytes.
    line, start, length = 1, b"", 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            if part or length:  # skip blank lines here: millions fit into a small compressed file
                yield from row(line, start + part, length + len(part), most)
            line, start, length = line + 1, b"", 0
        start, length = start + rest if length <= most else start, length + len(rest)
    yield from row(line, start, length, most)
