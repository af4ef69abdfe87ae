"""A published checkpoint: a folder of weights that is complete or absent, with what made it beside them.

Safetensors, config and tokenizer, `dasd.json` (ids, file hashes, counts, the caller's record), `losses.json` (the loss
curve) and the same for TensorBoard. A folder is filled elsewhere, flushed to disk, and renamed into place; nothing in
it changes afterwards. What others put beside it, such as a conversion for llama.cpp, is let be.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dasd_resources.content_hash import content_hash, file_hash

RECORD, LOSSES = "dasd.json", "losses.json"
EVENTS = "events.out.tfevents.training"  # TensorBoard knows its files by this beginning
NOT_HASHED = (RECORD, LOSSES, EVENTS)  # they say how the weights were made, and decide nothing
EPOCHS = "epochs"  # where a training keeps the weights after each epoch, until all is published
UNFINISHED = ".unfinished"  # of an epoch whose weights are being saved
SAVING = "saving"  # there while a training saves a private checkpoint
FAILURE = "failure.txt"  # the exception of the first of a training's processes to fail by one
PUBLISHED_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".jinja", ".model"})


class CheckpointError(RuntimeError):
    """A folder that is not the checkpoint it should be; the message says how to get that one."""


@dataclass(frozen=True)
class Pace:
    """Where a training is between two points of its loss curve: steps done, of how many, tokens since the start."""

    step: int
    num_steps: int
    tokens: int


@dataclass(frozen=True)
class Progress:
    """A point of the loss curve: mean loss since the last one, learning rate of `step`, tokens since the start.

    grad_norm: of `step`, over all weights, before it is clipped. padding_share: of the positions computed since the
    last point, those that hold no token. time: when the point was reached, in seconds since 1970. These are None in
    checkpoints from before they were measured. How fast a training went decides nothing, and is not compared.
    """

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    tokens: int
    grad_norm: float | None = None
    padding_share: float | None = None
    tokens_per_second: float | None = field(default=None, compare=False)
    time: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Trained:
    """A published checkpoint; `content_hash` is that of its weights, config and tokenizer, whatever made them.

    `num_bins` is `num_samples` without packing; `seconds` are those of the last attempt and of what it went on from.
    trackers: of those that were reported to, name -> "ok", or how it failed.
    """

    path: Path
    content_hash: str
    losses: list[Progress]
    seconds: float
    num_steps: int
    num_samples: int
    num_bins: int
    trackers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The checkpoint in a published folder."""
        record = json.loads((path / RECORD).read_text())
        losses = [Progress(**point) for point in json.loads((path / LOSSES).read_text())]
        kept = {key: record[key] for key in ("content_hash", "seconds", "num_steps", "num_samples", "num_bins")}
        return cls(path=path, losses=losses, trackers=record.get("trackers", {}), **kept)


def seconds_trained(points: Sequence[Progress], tokens: int = 0) -> float:
    """Seconds of the steps up to the last point, whatever lay between attempts; those not measured are left out.

    tokens: seen before the steps of the first point.
    """
    befores = (tokens, *(point.tokens for point in points))
    measured = [(p.tokens - before, p.tokens_per_second) for before, p in zip(befores, points, strict=False)]
    return sum(num / pace for num, pace in measured if pace)


def publish(weights: Path, destination: Path, record: Mapping[str, object], losses: Sequence[Progress]) -> Trained:
    """Write record and loss curve beside the weights, flush all to disk, and rename the folder to `destination`.

    `record` holds at least checkpoint_id, seconds, num_steps, num_samples and num_bins.
    """
    unexpected = [p.name for p in weights.iterdir() if p.suffix not in PUBLISHED_SUFFIXES and p.name != EVENTS]
    assert not unexpected, f"{weights}: {unexpected} must not be published"
    files = _file_hashes(weights)
    document = {**record, "content_hash": content_hash(files), "files": files}
    (weights / RECORD).write_text(json.dumps(document, indent=1, ensure_ascii=False))
    (weights / LOSSES).write_text(json.dumps([dataclasses.asdict(point) for point in losses], indent=1))
    put_in_place(weights, destination)
    return Trained.load(destination)


def published(destination: Path, checkpoint_id: str) -> Trained | None:
    """The checkpoint at `destination`, if there is one.

    Raises CheckpointError if what is there is another checkpoint, or its files are not those that were published.
    """
    if not destination.exists():
        return None
    remedy = f"move or delete {destination} to have it trained again"
    if not (destination / RECORD).is_file():
        raise CheckpointError(f"{destination} is not a published checkpoint (it has no {RECORD}); {remedy}")
    record = json.loads((destination / RECORD).read_text())
    if record["checkpoint_id"] != checkpoint_id:
        raise CheckpointError(
            f"{destination} holds checkpoint {record['checkpoint_id']}, not {checkpoint_id}; {remedy}"
        )
    files = dict(record["files"])
    if others := sorted({name for name, _ in files.items() ^ _file_hashes(destination).items()}):
        what = f"its files are not those that were published ({', '.join(others)})"
        raise CheckpointError(f"{destination}: {what}; put them right, or {remedy}")
    return Trained.load(destination)


def published_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by name of a checkpoint's files, as they were published; none where its record cannot be read."""
    try:
        return dict(json.loads((folder / RECORD).read_text())["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def epoch_folder(checkpoint: Path, epoch: int) -> Path:
    """Where the weights after an epoch of a checkpoint's training are published; epochs count from 1."""
    return checkpoint.with_name(f"{checkpoint.name}-epoch-{epoch}")


def saved_epochs(partial: Path) -> Iterator[tuple[int, Path]]:
    """The epochs that a training has saved to their end, in order, and their folders."""
    names = [path.name for path in (partial / EPOCHS).glob("*") if path.suffix != UNFINISHED]
    yield from ((epoch, partial / EPOCHS / str(epoch)) for epoch in sorted(map(int, names)))


def put_in_place(made: Path, destination: Path) -> None:
    """Rename a file or folder once it is on disk: what is there is whole, and stays there, even if the power fails."""
    flush(made)
    made.rename(destination)
    _fsync(destination.parent)


def flush(made: Path) -> None:
    """Bring a file, or a folder and all in it, to disk: the state of several processes lies in folders of its own."""
    for path in [*made.rglob("*"), made]:
        _fsync(path)


def _file_hashes(folder: Path) -> dict[str, str]:
    """Of whatever could be a part of the model, and not of what others made of it."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in NOT_HASHED)
    return {path.name: file_hash(path) for path in files if path.suffix in PUBLISHED_SUFFIXES}


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
