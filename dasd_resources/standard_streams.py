"""Where standard output and error go for a while, for what is no Python, too: libraries write to the descriptors."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STREAMS = (1, 2)  # standard output and error


@contextmanager
def streams_to(*descriptors: int) -> Iterator[None]:
    """Within, standard output and error are these open files; afterwards, what they were before."""
    kept = [os.dup(stream) for stream in STREAMS]
    try:
        _flush()
        for stream, descriptor in zip(STREAMS, descriptors, strict=True):
            os.dup2(descriptor, stream)
        yield
    finally:
        _flush()
        for stream, original in zip(STREAMS, kept, strict=True):
            os.dup2(original, stream)
            os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
