"""Files of TensorBoard's events, read without it."""

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def events_in(file: Path) -> list[Event]:
    """Its events, the file's version first. Each record is a length, 4 bytes of checksum, an event, 4 more."""
    data, found = file.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Curve -> (step, value), of all files of events in a folder."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in (event for file in folder.glob("events.*") for event in events_in(file)):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found
