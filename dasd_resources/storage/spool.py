"""Rows on disk while a step works on them: read in one pass over their tables, given out a part at a time.

In a file in the home that vanishes with the process. So neither are all rows in memory, nor is a snapshot held for as
long as the work takes, nor are the tables read again for every part.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

import polars as pl
import pyarrow as pa


@contextmanager
def spooled(parts: Iterable[pl.DataFrame], home: str) -> Iterator[Iterator[pl.DataFrame]]:
    """The same parts, all of which are read before the first is given. parts: of equal columns."""
    with TemporaryFile(dir=home) as file:
        stream: pa.ipc.RecordBatchStreamWriter | None = None
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        for part in parts:
            table = part.to_arrow()
            stream = stream or pa.ipc.new_stream(file, table.schema, options=options)
            stream.write_table(table)
        if stream is None:
            yield iter(())
            return
        stream.close()
        file.seek(0)
        with pa.ipc.open_stream(file) as written:
            yield (pl.DataFrame(pa.Table.from_batches([batch])) for batch in written)
