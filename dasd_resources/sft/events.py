"""A training's curves as TensorBoard reads them: one file, in which each point of the loss curve is an event.

The file is made of the points whenever a training begins, goes on, or is published, so one that was killed and resumed
has each step once. Left out: TensorBoard itself, which only those install who look at the curves with it.
"""

from collections.abc import Iterator, Sequence
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
def events(path: Path, points: Sequence[Progress]) -> Iterator[Writer]:
    """A new file of these points, in place of any that is there; `add` to it while it is open."""
    from tensorboardX.proto.event_pb2 import Event  # loads torch, which takes a second
    from tensorboardX.record_writer import RecordWriter

    writer = RecordWriter(str(path))
    try:
        writer.write(Event(file_version=FORMAT).SerializeToString())
        for point in points:
            add(writer, point)
        yield writer
    finally:
        writer.close()


def add(writer: Writer, point: Progress) -> None:
    """One event, which a TensorBoard that is watching sees at once: `train/…` of every curve that was measured."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    measured = {curve: getattr(point, curve) for curve in CURVES}
    values = [Summary.Value(tag=f"train/{k}", simple_value=v) for k, v in measured.items() if v is not None]
    event = Event(wall_time=point.time or 0.0, step=point.step, summary=Summary(value=values))
    writer.write(event.SerializeToString())
    writer.flush()
