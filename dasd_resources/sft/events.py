"""Curves as TensorBoard reads them: a file of events, each of which has the values of some curves at one step.

A training's is made of its recorded points whenever it begins, goes on, or is published, so one that was killed and
resumed has each step once. Left out: TensorBoard itself, which only those install who look at the curves with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dasd_resources.sft.checkpoint import Progress

FORMAT = "brain.Event:2"
CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "padding_share", "tokens")


class Writer(Protocol):
    """As much of tensorboardX's record writer as is used."""

    def write(self, data: bytes) -> None: ...

    def flush(self) -> None: ...


@contextmanager
def events(path: Path, points: Sequence[Progress] = ()) -> Iterator[Writer]:
    """A new file of these points, in place of any that is there; `add` to it while it is open."""
    from tensorboardX.proto.event_pb2 import Event  # loads torch, which takes a second
    from tensorboardX.record_writer import RecordWriter

    writer = RecordWriter(str(path))
    try:
        writer.write(Event(file_version=FORMAT).SerializeToString())
        for point in points:
            add_point(writer, point)
        yield writer
    finally:
        writer.close()


def add_point(writer: Writer, point: Progress) -> None:
    """`train/…` of every curve of a training that was measured."""
    measured = {curve: getattr(point, curve) for curve in CURVES}
    add(writer, point.step, {f"train/{k}": v for k, v in measured.items() if v is not None}, point.time or 0.0)


def add(writer: Writer, step: int, values: Mapping[str, float], time: float) -> None:
    """One event, which a TensorBoard that is watching sees at once. time: in seconds since 1970."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
    writer.write(Event(wall_time=time, step=step, summary=summary).SerializeToString())
    writer.flush()
