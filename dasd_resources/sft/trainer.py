"""Train one stage: TRL's SFTTrainer in a child process, its weights published complete or not at all (report §6.4.1).

A folder of starting weights + a Parquet file of `input_ids` and `labels` -> a published checkpoint (`checkpoint.py`),
and, if asked for, one of every epoch before the last.
The child (`child.py`) works in `<destination>.partial`. One that was killed leaves its last private checkpoint
there, and the next `train` of the same job goes on from it. Left out: evaluation while training, adapters, hubs.
"""

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import polars as pl

from dasd_resources.content_hash import file_hash
from dasd_resources.interruption import at_interruption, begin
from dasd_resources.machine import num_cores
from dasd_resources.recipe import Training
from dasd_resources.recipe.parts import deciding
from dasd_resources.sft.checkpoint import (
    EVENTS,
    FAILURE,
    SAVING,
    Pace,
    Progress,
    Trained,
    epoch_folder,
    publish,
    published,
    saved_epochs,
    seconds_trained,
)
from dasd_resources.sft.environment import CHILD_ENVIRONMENT
from dasd_resources.sft.events import add_point, events
from dasd_resources.sft.forked import ForkedChild
from dasd_resources.sft.forked import start as fork
from dasd_resources.sft.launching import CONFIG, config_text, gpus_seen, launch_command
from dasd_resources.sft.states import last_complete
from dasd_resources.sft.trackers import SETTINGS, Run, places, tracker_environment
from dasd_resources.whole_files import write_whole

ENDING_SECONDS = 3.0  # for a child that is interrupted
SAVING_SECONDS = 600.0  # if it is saving: then a second interrupt ends it at once
REASON_CHARS = 1000  # of an exception, in a message

Child = subprocess.Popen[bytes] | ForkedChild


class TrainingError(RuntimeError):
    """The child process failed; the message has its first exception, and ends with the last lines of its log."""


@dataclass(frozen=True)
class SftJob:
    """One stage: `model` is the student or the previous stage, `record` is kept beside the trained weights.

    num_threads decides neither what is resumed nor its id: other threads may give other last digits, as other machines
    do, so the record names them.
    """

    checkpoint_id: str
    model: Path
    rows: Path
    training: Training
    epochs: int
    seed: int
    destination: Path
    record: Mapping[str, object]
    num_threads: int | None = None  # of a training beside others, which is forked (forked.py); None: one per core
    run: Run | None = None  # what trackers call it; None: it reports to none

    @property
    def partial(self) -> Path:
        return self.destination.with_name(self.destination.name + ".partial")


def train(job: SftJob, on_progress: Callable[[Progress | Pace], None]) -> Trained:
    """Train, publish and return the checkpoint; at once if it is there, from its last saved step if it was begun.

    `on_progress` gets the step it begins at, every new point of the loss curve, and the pace between those. Two
    trainings of one checkpoint wait for each other.
    Raises ValueError for rows that cannot be trained on, TrainingError if the child fails, CheckpointError if something
    else is at the destination.
    """
    with _exclusive(job) as lock:
        trained = published(job.destination, job.checkpoint_id)
        if trained is None:
            num_samples = check_rows(job.rows, job.training.max_length)
            resume = _prepare(job)
            started, before = time.monotonic(), seconds_trained(_points(job.partial))
            with events(job.partial / EVENTS, _points(job.partial)) as curves:

                def reported(reading: Progress | Pace) -> None:
                    if isinstance(reading, Progress):
                        add_point(curves, reading)
                    on_progress(reading)

                _run_child(job, resume, lock, reported)
            counts = {**json.loads((job.partial / "result.json").read_text()), "num_samples": num_samples}
            seconds = before + time.monotonic() - started
            record = {**job.record, "checkpoint_id": job.checkpoint_id, "seconds": seconds, **counts}
            _publish_epochs(job, record)
            trained = _publish(job.partial / "weights", job.destination, record, _points(job.partial))
        shutil.rmtree(job.partial, ignore_errors=True)
        return trained


def check_rows(rows: Path, max_length: int) -> int:
    """Number of rows; ValueError names the first row that would be cut, has no loss, or has labels of another length.

    The first label never counts: nothing predicts it.
    """
    table = pl.scan_parquet(rows)
    name = "example_id" if "example_id" in table.collect_schema() else "row"
    losses = pl.col("labels").list.slice(1).list.eval((pl.element() != -100).sum()).list.first()
    counts = (
        table.with_row_index("row")
        .select(name, length=pl.col("input_ids").list.len(), labels=pl.col("labels").list.len(), losses=losses)
        .collect(engine="streaming")
    )
    problems = {
        f"has more tokens than max_length {max_length}; leave it out of the dataset": pl.col("length") > max_length,
        "has not one label per token": pl.col("length") != pl.col("labels"),
        "has no token that carries loss; leave it out of the dataset": pl.col("losses").fill_null(0) == 0,
    }
    for problem, condition in problems.items():
        for found in counts.filter(condition).head(1).iter_rows(named=True):
            raise ValueError(f"{rows}: {name} {found[name]} ({found['length']} tokens) {problem}")
    if counts.is_empty():
        raise ValueError(f"{rows} has no rows: there is nothing to train on")
    return counts.height


def _publish_epochs(job: SftJob, record: Mapping[str, object]) -> None:
    """Publish what was kept on request; each is there whole once the checkpoint itself is."""
    steps_per_epoch = int(str(record["num_steps"])) // job.epochs
    for epoch, weights in saved_epochs(job.partial):
        destination, num_steps = epoch_folder(job.destination, epoch), epoch * steps_per_epoch
        if published(destination, destination.name) is None:
            of_epoch = {"checkpoint_id": destination.name, "epoch": epoch, "num_steps": num_steps}
            points = [point for point in _points(job.partial) if point.step <= num_steps]
            _publish(weights, destination, {**record, **of_epoch, "of": job.checkpoint_id}, points)


def _publish(weights: Path, destination: Path, record: Mapping[str, object], points: Sequence[Progress]) -> Trained:
    with events(weights / EVENTS, points):  # anew: what was shown live may lack a point
        pass
    return publish(weights, destination, record, points)


@contextmanager
def _exclusive(job: SftJob) -> Iterator[int]:
    # The child inherits the lock, so one whose parent was killed still holds it until it has ended.
    job.destination.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(job.destination.with_name(f".{job.destination.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _prepare(job: SftJob) -> Path | None:
    """The private checkpoint to resume from, if this very job saved one; otherwise an empty partial folder."""
    document, description = _document(job), job.partial / "job.json"
    if not _is_same(description, document):
        shutil.rmtree(job.partial, ignore_errors=True)
        job.partial.mkdir()
    write_whole(description, json.dumps(document, indent=1, sort_keys=True).encode())
    resume = last_complete(job.partial / "state")
    step = int(resume.name.removeprefix("checkpoint-")) if resume else 0
    points = [point for point in _points(job.partial) if point.step <= step]
    lines = [json.dumps(dataclasses.asdict(point)) + "\n" for point in points]
    write_whole(job.partial / "progress.jsonl", "".join(lines).encode())
    for left in (SAVING, FAILURE):
        (job.partial / left).unlink(missing_ok=True)
    return resume


def _document(job: SftJob) -> dict[str, object]:
    return {
        "checkpoint_id": job.checkpoint_id,
        "model": str(job.model),
        "rows": str(job.rows),
        "rows_hash": file_hash(job.rows),
        "training": job.training.model_dump(mode="json"),
        "epochs": job.epochs,
        "seed": job.seed,
    }


def _is_same(description: Path, document: Mapping[str, object]) -> bool:
    """Whether the job described there has the weights of this one; an older release may have begun it."""
    try:
        return _deciding(json.loads(description.read_text())) == _deciding(document)
    except (OSError, ValueError, KeyError):  # none was begun, or it was killed as it wrote this
        return False


def _deciding(document: Mapping[str, object]) -> dict[str, object]:
    """What a job's weights depend on: of its model and rows, which id and hash name, not where they are."""
    training = deciding(Training.model_validate(document["training"]))
    return {**document, "model": None, "rows": None, "training": training}


def _points(partial: Path) -> list[Progress]:
    """The loss curve so far, but for a line the child was killed in."""
    progress = partial / "progress.jsonl"
    lines = progress.read_text().splitlines(keepends=True) if progress.exists() else []
    readings = [_reading(line) for line in lines if line.endswith("\n")]
    return [reading for reading in readings if isinstance(reading, Progress)]


def _reading(line: str) -> Progress | Pace:
    fields = json.loads(line)
    return Progress(**fields) if "loss" in fields else Pace(**fields)


def _run_child(job: SftJob, resume: Path | None, lock: int, on_progress: Callable[[Progress | Pace], None]) -> None:
    _prepare_trackers(job)
    config = job.partial / CONFIG
    if job.training.strategy is not None:
        config.write_text(config_text(job.training))
    arguments = [str(job.partial / "job.json"), *([str(resume)] if resume else [])]
    with (job.partial / "log.txt").open("ab") as log, (job.partial / "progress.jsonl").open() as progress:
        progress.seek(0, os.SEEK_END)
        if job.num_threads is not None:
            child: Child = fork(arguments, _environment(job), log.fileno(), lock)
        else:
            child = subprocess.Popen(
                [*launch_command(job.training, config), "-m", "dasd_resources.sft.child", *arguments],
                stdin=subprocess.PIPE,  # never written to: it closes with this process, and the child then ends itself
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(job),
                start_new_session=True,
                pass_fds=(lock,),
            )
        try:
            with at_interruption(partial(_interrupt, child, job.partial / SAVING), seconds=SAVING_SECONDS):
                for line in _lines_until_exit(child, progress):
                    on_progress(_reading(line))
        finally:
            _end(child)
    begin()  # or it has ended because we have: there is nothing to publish, and no failure to tell of
    if child.returncode:
        raise TrainingError(_failure(job, child.returncode))


def _prepare_trackers(job: SftJob) -> None:
    """Their folders, and what the child is told: not in the job's own document, which decides what is resumed."""
    names = job.training.report_to if job.run else ()
    if job.run:
        for folder in places(names, job.run).values():
            folder.mkdir(parents=True, exist_ok=True)
    named = {"run_name": job.run.name, "project": job.run.project} if job.run else {}
    (job.partial / SETTINGS).write_text(json.dumps({"report_to": names, **named}))


def executable(command: str) -> str | None:
    """Where a launcher's command is, as the child process would find it."""
    return shutil.which(command, path=_path())


def _path() -> str:
    """This venv's commands before others."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _environment(job: SftJob) -> dict[str, str]:
    """Ours, with this venv's commands on the path, and defaults instead of those of `accelerate launch`.

    They are all CPUs' threads, and the time that an interrupted save has here.
    """
    threads = num_cores() // (job.training.gpus_per_node or 1)
    defaults = {
        "OMP_NUM_THREADS": str(max(threads, 1)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(SAVING_SECONDS)),  # or 30
    }
    wanted = {"OMP_NUM_THREADS": str(job.num_threads)} if job.num_threads else {}
    trackers = tracker_environment(job.training.report_to, job.run) if job.run else {}
    return {
        **defaults,
        **os.environ,
        **gpus_seen(job.training),
        **wanted,
        **trackers,
        **CHILD_ENVIRONMENT,
        "PATH": _path(),
    }


def _lines_until_exit(child: Child, progress: TextIO) -> Iterator[str]:
    unfinished, running = "", True
    while running:
        running = child.poll() is None
        *lines, unfinished = (unfinished + progress.read()).split("\n")
        yield from lines
        if running:
            time.sleep(0.1)


def _interrupt(child: Child, saving: Path, seconds: float = ENDING_SECONDS) -> None:
    """End an interrupted training; a checkpoint that it is saving is saved first."""
    with suppress(ProcessLookupError):  # it has ended, or has only just been forked
        os.killpg(child.pid, signal.SIGTERM)
    ends = time.monotonic() + seconds
    while child.poll() is None and (saving.exists() or time.monotonic() < ends):
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _end(child: Child) -> None:
    assert child.stdin
    child.stdin.close()
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _failure(job: SftJob, returncode: int) -> str:
    log, failure = job.partial / "log.txt", job.partial / FAILURE
    ended = f"exit code {returncode}" if returncode > 0 else f"killed by {signal.Signals(-returncode).name}"
    reason = f": {failure.read_text('utf-8', 'replace')[:REASON_CHARS]}" if failure.is_file() else ""
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    return (
        f"training {job.checkpoint_id} failed ({ended}){reason}. Fix the cause and run it again: it goes on from the "
        f"last saved step; or delete {job.partial} to start afresh. The end of {log}:\n{tail}"
    )
