"""Two processes train as one does: the same losses, the same published weights, and on from a kill of one of them."""

import json
import os
import signal
import sys
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
# A save in the middle of an epoch, and time for a kill before the next.
PACKED = {
    **CHANGES,
    "epochs": 4,
    "save_every_steps": 3,
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


@pytest.fixture(scope="module")
def packed(make_job: JobMaker) -> Trained:  # noqa: F811
    trained = train(make_job("packed", **PACKED), ignore)
    assert (trained.num_samples, trained.num_bins, trained.num_steps) == (48, 16, 8)
    return trained


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


@pytest.mark.drill
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_train_as_one(make_job: JobMaker, alone: Trained, strategy: str) -> None:  # noqa: F811
    assert_same(train(of_two(make_job, strategy, strategy), ignore), alone)


@pytest.mark.drill
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("zero3", marks=NEEDS_DEEPSPEED)])
def test_two_processes_train_on_bins_as_one(make_job: JobMaker, packed: Trained, strategy: str) -> None:  # noqa: F811
    assert_same(train(of_two(make_job, f"packed-{strategy}", strategy, PACKED), ignore), packed)


@pytest.mark.drill
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_a_kill_of_one_process_the_others_end_and_a_rerun_goes_on(
    make_job: JobMaker,  # noqa: F811
    alone: Trained,
    strategy: str,
) -> None:
    kill_and_go_on(of_two(make_job, f"killed-{strategy}", strategy), alone)


# What Python runs as it starts: a training then says at its end which modules FSDP2 has sharded by themselves.
TELLS_SHARDED = """import atexit, gc, json, os, pathlib, sys
gc.disable()  # or some of what is left of the training might be gone
def tell():
    if "RANK" in os.environ and (fsdp := sys.modules.get("torch.distributed.fsdp")):
        names = [type(one).__name__ for one in gc.get_objects() if issubclass(type(one), fsdp.FSDPModule)]
        pathlib.Path(__file__).with_name(f"rank{os.environ['RANK']}.json").write_text(json.dumps(names))
atexit.register(tell)
"""


def test_fsdp2_trains_on_bins_as_one_and_goes_on_after_a_kill(
    make_job: JobMaker,  # noqa: F811
    packed: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(TELLS_SHARDED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    kill_and_go_on(of_two(make_job, "killed-packed", "fsdp2", PACKED), packed)
    sharded = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [names.count("FSDPQwen3DecoderLayer") for names in sharded] == [2, 2]  # every layer, in both processes


def kill_and_go_on(job: SftJob, alone: Trained) -> None:
    """Kill one process once a save is complete, and train on from the last one, to the same end."""
    state, resumed, killed = job.partial / "state", list[Reading](), list[int]()

    def saves() -> list[int]:
        return [int(mark.parent.name.removeprefix("checkpoint-")) for mark in state.glob("checkpoint-*/complete")]

    def kill(reading: Reading) -> None:
        if not killed and saves():
            killed.extend(processes(job, rank=1))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(TrainingError, match="SIGKILL"):
        train(job, kill)
    assert killed and not processes(job, rank=0)
    assert not job.destination.exists()
    saved = max(saves())
    if job.training.strategy == "fsdp2":
        for part in ("pytorch_model_fsdp_0", "optimizer_0"):
            assert len(list((state / f"checkpoint-{saved}" / part).glob("*.distcp"))) == 2
    trained = train(job, resumed.append)
    assert isinstance(resumed[0], Pace) and resumed[0].step == saved
    assert points_of(resumed)[0].step == saved + 1
    assert_same(trained, alone)


# As `srun --ntasks-per-node=1` on two nodes: c10d numbers them. Accelerate refuses a port that is in use on the machine
# that it takes for the first, which on this one both would be.
TWO_NODES = """import subprocess, sys
launch, *arguments = sys.argv[1:]
nodes = [subprocess.Popen([launch, "--machine_rank", str(node), *arguments]) for node in range(2)]
sys.exit(any([node.wait() for node in nodes]))
"""


@pytest.mark.drill
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_nodes_of_one_process_each_train_as_one(
    make_job: JobMaker,  # noqa: F811
    alone: Trained,
    strategy: str,
    tmp_path: Path,
) -> None:
    launcher, numbered = tmp_path / "nodes.py", set[tuple[str, ...]]()
    launcher.write_text(TWO_NODES)
    several = {"nodes": 2, "gpus_per_node": 1, "launcher": (sys.executable, str(launcher))}
    job = make_job(f"nodes-{strategy}", **CHANGES, strategy=strategy, **several)

    def look(reading: Reading) -> None:
        for _, environment in _training(job.partial):
            named = dict(variable.partition("=")[::2] for variable in environment)
            numbered.add(tuple(named[name] for name in ("RANK", "GROUP_RANK", "LOCAL_RANK") if name in named))

    assert_same(train(job, look), alone)
    assert {("0", "0", "0"), ("1", "1", "0")} <= numbered


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
