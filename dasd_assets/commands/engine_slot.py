"""A slot of Dagster's `engine` pool for a command that loads a model and makes no asset: no two models on one GPU.

The work is a Dagster run of one step. So the pool counts it, the web UI lists it, an engine step of the service waits
for it, and what a killed command leaves occupied is freed as it is after any run (`service/recovery.py`). A command
whose model is behind a server is such a run without a slot: the model is loaded there.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import dagster as dg

from dasd_assets.commands.console import console
from dasd_assets.records.declaration import ENGINE_POOL
from dasd_assets.service.in_process import RunFailed, run_here
from dasd_assets.service.recovery import fail_abandoned_runs
from dasd_resources.standard_streams import STREAMS, streams_to

Found = TypeVar("Found")
WAIT_SECONDS = 1.0


def with_engine(
    instance: dg.DagsterInstance,
    home: Path,
    name: str,
    work: Callable[[], Found],
    say: Callable[[str], None],
    *,
    loads_here: bool = True,
    converses: bool = False,
) -> Found:
    """What `work` returns, called once the pool has a free slot, which it has until it ends. Raises what it raises.

    name: of the run's job. say: is told once whom it waits for. loads_here: False needs no slot, and waits for nobody.
    converses: the work has the terminal to itself; what it prints is then not kept with the run.
    """
    found, raised = list[Found](), list[Exception]()
    terminal = [os.dup(stream) for stream in STREAMS] if converses else []

    @dg.op(name=name, pool=ENGINE_POOL if loads_here else None, out=dg.Out(dg.Nothing))
    def step() -> None:
        try:
            with streams_to(*terminal) if converses else nullcontext():  # not to the run's log, where Dagster sent them
                found.append(work())
        except Exception as error:  # Dagster would raise another one in its place
            raised.append(error)
            raise

    @dg.job(name=name, logger_defs={"console": console}, executor_def=dg.in_process_executor)
    def alone() -> None:
        step()

    try:
        if loads_here:
            _wait(instance, home, say)
        run_here(instance, alone, home)
    finally:
        for descriptor in terminal:
            os.close(descriptor)
    if raised:
        raise raised.pop()  # or it would keep itself: its traceback has this frame, and that the list
    if not found:
        raise RunFailed(f"{name}: the run ended before its step began; see the web UI's list of runs")
    return found[0]


def _wait(instance: dg.DagsterInstance, home: Path, say: Callable[[str], None]) -> None:
    """Return when a slot is free; should another come first, Dagster's own claim waits on."""
    said = False
    while True:
        fail_abandoned_runs(instance, home)  # one that was killed meanwhile would keep its slot
        holders = _holders(instance)
        if not holders:
            return
        if not said:
            say(f"waiting for the engine, which is taken: {', '.join(holders)}")
            said = True
        time.sleep(WAIT_SECONDS)


def _holders(instance: dg.DagsterInstance) -> Sequence[str]:
    """`student_logprobs of run 1f2e3d4c` for each slot, where none is free."""
    pool = instance.event_log_storage.get_concurrency_info(ENGINE_POOL)
    if pool.limit is None or len(pool.claimed_slots) < pool.limit:
        return []
    return [f"{slot.step_key} of run {slot.run_id[:8]}" for slot in pool.claimed_slots]
