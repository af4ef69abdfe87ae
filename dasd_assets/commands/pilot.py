"""A pilot: a recipe on a few of its questions, whole and with the real engines, in a home of its own, and what it says.

It runs twice, on a fifth of the questions and then on all of them, so that what a stage costs to start is told apart
from what its work costs (`plan/measured.py`). The home is kept in DASD_HOME/pilots: a pilot that was killed goes on,
and one that is complete is read again at once. Of each benchmark, too, only so many questions are asked, and each
only a few times. While it runs it has the engine slot of the home that it plans for.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.commands.console import console
from dasd_assets.commands.engine_slot import with_engine
from dasd_assets.commands.pilot_files import Lines, lines_of, smaller, write_lines
from dasd_assets.commands.run import Echo, bring_up_to_date
from dasd_assets.commands.summary import run_seconds
from dasd_assets.definitions import build_definitions
from dasd_assets.evaluation.questions import benchmark_rows, benchmark_version
from dasd_assets.plan.assumptions import assumed
from dasd_assets.plan.figures import Figure, Figures
from dasd_assets.plan.hardware import DEVICES, Machine, machine
from dasd_assets.plan.measured import RATES, Pace, Pass, figures_of, settled, time_figures
from dasd_assets.plan.scope import Scope
from dasd_assets.plan.stages import BETWEEN
from dasd_assets.rules.asset_names import ROLES, checkpoint_asset
from dasd_assets.rules.checkpoints import current_checkpoints
from dasd_assets.service.instance import open_instance
from dasd_assets.stage_training import Train, environment
from dasd_resources.content_hash import content_hash
from dasd_resources.errors import UserError
from dasd_resources.home import LANDING_FOLDER, prepare_home
from dasd_resources.inference.engines import Engines
from dasd_resources.inference.kept_loaded import make_room
from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.machine import num_cores
from dasd_resources.recipe import Recipe
from dasd_resources.sft.checkpoint import Progress, Trained, seconds_trained
from dasd_resources.sft.trainer import train as train_in_child
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.whole_files import write_whole

NAME = "pilot"  # of its runs in the web UI of the home that it plans for
FOLDER = "pilots"
FINGERPRINTS = "fingerprints.sqlite"  # of files by size and time: a large teacher need not be read once more
FIRST_SHARE = 5  # the first pass has one in so many of the questions
SETTLED_SECONDS = 60.0
OTHER_DEVICE = 1.5  # times as uncertain are the times of another device of the same kind


@dataclass(frozen=True)
class Pilot:
    """figures: all that it measured. machine: it ran on this."""

    figures: Figures
    machine: Machine


@dataclass(frozen=True)
class _Home:
    path: Path
    recipe: Recipe
    engines: Engines
    definitions: dg.Definitions
    lines: Lines


def run_pilot(
    recipe: Recipe,
    prompts: Sequence[Prompt],
    scope: Scope,
    home: Path,
    engines: Engines,
    echo: Echo,
    train: Train = train_in_child,
    dagster_home: str | None = None,
) -> Pilot:
    """prompts: those that are asked. scope: as for the whole recipe, on this machine. Raises as `dasd run` does.

    dagster_home: of the home that is planned for, whose engine slot is taken; default: `home`/dagster.
    """
    import torch  # noqa: F401  # loaded now, it is no part of the first step's time
    import transformers  # noqa: F401

    made = _prepare(recipe, prompts, scope.machine, home, engines, train)
    first = max(len(prompts) // FIRST_SHARE, 1)
    if first >= len(prompts):
        raise UserError("--pilot: at least 2 questions must have landed, as it runs on a part of them and then on all")
    passes = list[Pass]()
    for number, part in enumerate((prompts[:first], prompts[first:]), start=1):
        echo(f"pilot, pass {number} of 2: {len(part)} questions more")
        record = made.path / f"pass_{number}.json"
        if not record.is_file():
            earlier = [one.seconds for one in passes]
            seconds = _alone(partial(_pass, made, number, part, earlier, echo), home, dagster_home, echo)
            write_whole(record, json.dumps(seconds, indent=1).encode())
        parts = (part, prompts[: first if number == 1 else None])
        own, whole = (_scope_of(scope, made.recipe, some, number) for some in parts)
        passes.append(Pass(own, whole, json.loads(record.read_text())))
    warehouse = Warehouse(home=str(made.path))
    found = figures_of(warehouse, made.recipe, len(prompts))
    figures = {**assumed(made.recipe, scope.machine), **found}
    times = time_figures(made.recipe, passes, figures, _paces(warehouse, made.recipe))
    return Pilot({**found, **settled(figures), **times}, scope.machine)


def scaled_to(pilot: Pilot, other: Machine) -> Figures:
    """The figures as they hold on another machine: on one of another kind no time does."""
    if pilot.machine.is_cpu != other.is_cpu:
        return {name: one for name, one in pilot.figures.items() if not _is_time(name)}
    if pilot.machine.device == other.device:
        return pilot.figures
    widened = dict(pilot.figures)
    for name, one in pilot.figures.items():
        if name.startswith("factor."):
            origin = f"{one.origin} on {pilot.machine.device.name}, by peak figures"
            widened[name] = Figure(one.value, one.low / OTHER_DEVICE, one.high * OTHER_DEVICE, origin)
    return widened


def this_machine() -> Machine:
    """The GPUs that are visible, or the cores. A GPU that the table does not know counts as an A100."""
    import torch

    if not torch.cuda.is_available():
        return machine("cpu", num_cores())
    name = torch.cuda.get_device_name(0)
    known = next((device for device in DEVICES if device in name), "A100")
    return machine(known, torch.cuda.device_count())


def _prepare(
    recipe: Recipe, prompts: Sequence[Prompt], on: Machine, home: Path, engines: Engines, train: Train
) -> _Home:
    """The pilot's home, new or as it was left, and the recipe as it runs there: a smaller copy in everything landed."""
    lines = lines_of(recipe, prompts, home)
    path = home / FOLDER / f"{recipe.name}-{len(prompts)}-{key_of(recipe, lines, on, engines, environment())}"
    path.mkdir(parents=True, exist_ok=True)
    if (home / FINGERPRINTS).is_file() and not (path / FINGERPRINTS).exists():
        shutil.copy(home / FINGERPRINTS, path / FINGERPRINTS)
    made = smaller(recipe, len(prompts), path)
    engines = engines.model_copy(update={"home": str(path)})
    definitions = build_definitions(made, path, engines, train, compared=())
    logged = dg.Definitions.merge(definitions, dg.Definitions(loggers={"console": console}))
    return _Home(path, made, engines, logged, lines)


def key_of(recipe: Recipe, lines: Lines, on: Machine, engines: Engines, versions: Mapping[str, str]) -> str:
    """Of all that a pilot's figures follow from: where any of it is another, what was measured is not read again.

    versions: of packages and code.
    """
    models = [engines.fingerprint(getattr(recipe, role), f"{role}.model") for role in ("teacher", "student")]
    held_out = benchmark_version(benchmark_rows(recipe))
    landed = sorted(lines.items())
    known = [recipe.model_dump(mode="json"), landed, models, held_out, on.device.name, on.num, dict(versions)]
    return content_hash(known)[:12]


def _alone(
    measure: Callable[[], dict[str, float]], home: Path, dagster_home: str | None, echo: Echo
) -> dict[str, float]:
    """What `measure` returns, called when no other process has a model of this home loaded, nor loads one."""

    def measured() -> dict[str, float]:
        make_room(home)
        return measure()

    with open_instance(prepare_home(home, dagster_home)) as instance:
        return with_engine(instance, home, NAME, measured, echo, converses=True)


def _pass(
    made: _Home, number: int, prompts: Sequence[Prompt], earlier: Sequence[Mapping[str, float]], echo: Echo
) -> dict[str, float]:
    """Asset -> seconds of this pass. earlier: those of the passes before it."""
    file = made.path / LANDING_FOLDER / f"pass_{number}.jsonl"
    write_lines(file, chain.from_iterable(made.lines[prompt.prompt_id] for prompt in prompts))
    settled = time.time() - SETTLED_SECONDS
    os.utime(file, (settled, settled))
    dagster_home = prepare_home(made.path, None)
    os.environ["DAGSTER_HOME"] = str(dagster_home)  # a step in a process of its own reads it
    with open_instance(dagster_home) as instance:
        began, before = time.monotonic(), step_seconds(instance)
        bring_up_to_date(instance, made.definitions, made.recipe, made.engines, made.path, echo)
        wall, after = time.monotonic() - began, step_seconds(instance)
    return pass_seconds(after, before, earlier, wall)


def pass_seconds(
    after: Mapping[str, float], before: Mapping[str, float], earlier: Sequence[Mapping[str, float]], wall: float
) -> dict[str, float]:
    """Asset -> seconds of a pass, of which processes that were killed may have made a part.

    after: of all steps so far. before: the same when this process began, `wall` seconds before. earlier: of the passes
    before this one.
    """
    spent = {asset: seconds - sum(one.get(asset, 0.0) for one in earlier) for asset, seconds in after.items()}
    here = sum(after.values()) - sum(before.values())
    return {**{asset: seconds for asset, seconds in spent.items() if seconds > 0}, BETWEEN: max(wall - here, 0.0)}


def _paces(warehouse: Warehouse, recipe: Recipe) -> dict[str, Pace]:
    """Training asset -> what its loss curve says of its pace, where it says it."""
    trained = current_checkpoints(warehouse, recipe).filter(pl.col("dataset").is_not_null()).iter_rows(named=True)
    paces = {row["name"]: training_pace(Trained.load(warehouse.folder(row["path"])).losses) for row in trained}
    return {checkpoint_asset(name): pace for name, pace in paces.items() if pace}


def training_pace(points: Sequence[Progress]) -> Pace | None:
    """The pace after the first point, with which the child starts; of a training that was interrupted, of its steps."""
    if not points[1:] or not all(point.tokens_per_second for point in points[1:]):
        return None
    before = points[0].tokens
    return Pace(points[-1].tokens - before, seconds_trained(points[1:], before))


def step_seconds(instance: dg.DagsterInstance) -> dict[str, float]:
    """Asset -> seconds of all its steps so far."""
    seconds = dict[str, float]()
    for run in instance.get_runs():
        for step, spent in run_seconds(instance, run.run_id).items():
            seconds[step] = seconds.get(step, 0.0) + spent
    return seconds


def _scope_of(scope: Scope, recipe: Recipe, part: Sequence[Prompt], number: int) -> Scope:
    """What there is to do with these questions, by the smaller recipe."""
    counts: dict[str, float] = {}
    for prompt in part:
        counts[prompt.domain] = counts.get(prompt.domain, 0) + 1
    rows = benchmark_rows(recipe)
    names = [benchmark.name for benchmark in recipe.evaluation.benchmarks]
    benchmarks = {name: sum(row["benchmark"] == name for row in rows) for name in names}
    answered = frozenset(ROLES) if number > 1 else frozenset[str]()
    return replace(scope, questions=counts, num_batches=1, benchmarks=benchmarks, answered_before=answered)


def _is_time(name: str) -> bool:
    """Whether a figure holds on machines of one kind alone."""
    return name.startswith(("factor.", "fixed.", *RATES)) or name.endswith("_per_second")
