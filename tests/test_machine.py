"""Cores and memory are those of the container, where there is one with limits."""

import os
from pathlib import Path

import pytest
from worker_engines import unloadable

from dasd_assets.commands.pilot import this_machine
from dasd_resources import machine
from dasd_resources.inference.engine_workers import EngineWorkers


@pytest.mark.parametrize(
    ("quota", "expected"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", None), (None, None)]
)
def test_a_quota_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, expected: int | None
) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert machine.num_cores() == (expected or 3)


def test_replicas_and_a_plan_count_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert EngineWorkers(unloadable, [[]])._num_threads == 1
    assert this_machine().num == 1


def test_a_limit_bounds_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory() > 2**20
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine.free_memory() == 2**20
