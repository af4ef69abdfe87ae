"""Two processes train as one does: the same losses, the same published weights, and on from a kill of one of them."""

import os
import signal
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import (  # noqa: F401 - the fixtures are used by name
    JobMaker,
    Reading,
    home,
    ignore,
    make_job,
    one_thread,
    points_of,
    rows,
    student,
)

from dasd_resources.sft.checkpoint import Pace, Trained
from dasd_resources.sft.trainer import SftJob, TrainingError, train

# Two optimizer steps an epoch, of 24 rows: two forward passes in each of two processes, four in one alone.
CHANGES = {"epochs": 2, "global_batch_size": 24, "per_device_batch_size": 6, "save_every_steps": 2}
# As the report trains: several rows in each bin, which no forward pass keeps in memory; of 8 bins as many passes.
PACKED = {
    **CHANGES,
    "packing": True,
    "batch_counts": "bins",
    "global_batch_size": 8,
    "per_device_batch_size": 2,
    "max_length": 128,
    "group_by_length": False,
    "gradient_checkpointing": True,
}
NEEDS_DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
STRATEGIES = ["ddp", "fsdp2", pytest.param("zero3", marks=NEEDS_DEEPSPEED)]


@pytest.fixture(scope="module")
def alone(make_job: JobMaker) -> Trained:  # noqa: F811
    return train(make_job("alone", **CHANGES), ignore)


def of_two(
    make_job: JobMaker,  # noqa: F811
    name: str,
    strategy: str,
    changes: Mapping[str, object] = CHANGES,
) -> SftJob:
    return make_job(name, **changes, strategy=strategy, gpus_per_node=2)


def assert_same(trained: Trained, alone: Trained) -> None:
    assert [point.loss for point in trained.losses] == pytest.approx([point.loss for point in alone.losses], abs=1e-5)
    assert [point.tokens for point in trained.losses] == [point.tokens for point in alone.losses]
    weights, expected = (load_file(one.path / "model.safetensors") for one in (trained, alone))
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert weight.dtype == expected[name].dtype
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5)


def test_two_processes_of_fsdp2_train_as_one(make_job: JobMaker, alone: Trained) -> None:  # noqa: F811
    assert_same(train(of_two(make_job, "fsdp2", "fsdp2"), ignore), alone)


@pytest.mark.parametrize(
    "strategy",
    [
        "fsdp2",
        pytest.param("ddp", marks=pytest.mark.drill),
        pytest.param("zero3", marks=[pytest.mark.drill, NEEDS_DEEPSPEED]),
    ],
)
def test_two_processes_train_on_bins_as_one(make_job: JobMaker, strategy: str) -> None:  # noqa: F811
    alone = train(make_job("bins", **PACKED), ignore)
    assert (alone.num_samples, alone.num_bins, alone.num_steps) == (48, 16, 4)
    assert_same(train(of_two(make_job, f"bins-{strategy}", strategy, PACKED), ignore), alone)


@pytest.mark.drill
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_a_kill_of_one_process_the_others_end_and_a_rerun_goes_on(
    make_job: JobMaker,  # noqa: F811
    alone: Trained,
    strategy: str,
) -> None:
    job, resumed, killed = of_two(make_job, f"killed-{strategy}", strategy), list[Reading](), list[int]()

    def kill(reading: Reading) -> None:
        if reading.step >= 3 and not killed:
            killed.extend(processes(job, rank=1))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(TrainingError, match="SIGKILL"):
        train(job, kill)
    assert killed and not processes(job, rank=0)
    assert not job.destination.exists()
    if strategy == "fsdp2":
        state = job.partial / "state" / "checkpoint-2"
        for part in ("pytorch_model_fsdp_0", "optimizer_0"):
            assert len(list((state / part).glob("*.distcp"))) == 2
    trained = train(job, resumed.append)
    assert isinstance(resumed[0], Pace) and resumed[0].step == 2
    assert points_of(resumed)[0].step == 3
    assert_same(trained, alone)


def processes(job: SftJob, rank: int) -> list[int]:
    """Those that train a job as the given one of its processes."""
    return [process for process, environment in _training(job.partial) if f"RANK={rank}" in environment]


def _training(partial: Path) -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(partial / "job.json") in (folder / "cmdline").read_text().split("\0"):
                yield int(folder.name), (folder / "environ").read_text().split("\0")
        except OSError:  # it has ended
            continue
