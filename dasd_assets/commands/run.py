"""`dasd run`: bring everything up to date in this process, and nothing that already is.

Landed files become batches; every step of the plan (planning.py) is carried out: first what all batches need, then
batch by batch, then what reads them all. Asked for certain assets, it materializes exactly these.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import IntegrityError

from dasd_assets.commands.console import console
from dasd_assets.commands.display import display
from dasd_assets.commands.dry_run import dry_run
from dasd_assets.commands.messages import echo as print_message
from dasd_assets.commands.messages import timed
from dasd_assets.commands.own_questions import own_questions
from dasd_assets.commands.selected_assets import chosen_assets
from dasd_assets.commands.summary import summary
from dasd_assets.definitions import EnvironmentEngines, build_definitions
from dasd_assets.records.current_checkpoint import enter_folders
from dasd_assets.records.partitions import PROMPT_BATCH, batches
from dasd_assets.records.quarantine import quarantine
from dasd_assets.records.wording import short
from dasd_assets.service.attempts import Attempt
from dasd_assets.service.in_process import RunFailed, execute
from dasd_assets.service.instance import open_instance
from dasd_assets.service.landed import look, never_begun, not_read, read_later, removed
from dasd_assets.service.planning import MAX_FAILED_BATCHES, Planner, root_versions
from dasd_assets.service.recovery import fail_abandoned_runs
from dasd_assets.service.rounds import Part, Round, next_part, rounds
from dasd_assets.service.steps import LEVELS, Level, Step
from dasd_resources.home import LANDING_FOLDER, prepare_home
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import LOG_FOLDER, Engines
from dasd_resources.landing.landing_folder import landing_folder, seconds_until_settled
from dasd_resources.recipe import Recipe, RecipeError, load_recipe
from dasd_resources.storage.ledger import MAX_ATTEMPTS
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.visible_text import show

WAIT_SECONDS = 1.0
Echo = Callable[[str], None]


def command(args: argparse.Namespace) -> int:
    """Everything, or what --select names; then, of everything, the summary."""
    started, home = time.monotonic(), args.home
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    dagster_home = prepare_home(home, args.dagster_home)
    os.environ["DAGSTER_HOME"] = str(dagster_home)  # a step in a process of its own reads it
    engines = EnvironmentEngines(home=str(home), keep_loaded_seconds=recipe.automation.keep_loaded_seconds)
    definitions = dg.Definitions.merge(
        build_definitions(recipe, home, engines), dg.Definitions(loggers={"console": console})
    )
    with open_instance(dagster_home) as instance:
        write_own = own_questions(args.recipe, home, batches(instance))
        if args.dry_run:
            if write_own:
                show(f"the run would begin with the questions that recipe {recipe.name} brings")
            show(dry_run(instance, definitions, recipe, engines, home, args.select))
            return 0
        with display() as shown:
            if write_own:
                names = ", ".join(path.name for path in write_own(home / LANDING_FOLDER))
                shown.say(timed(f"no question had landed: those that recipe {recipe.name} brings are {names}"))
            for log in _engine_logs(recipe, home):
                shown.say(timed(f"what the engine prints goes to {log}"))
            done = _make(instance, definitions, recipe, engines, args, lambda message: shown.say(timed(message)))
        print_message(f"{done} materializations in {time.monotonic() - started:.0f} s")
        if not args.select:
            show(summary(instance, definitions, Warehouse(home=str(home)), engines, recipe))
    return 0


def _engine_logs(recipe: Recipe, home: Path) -> list[Path]:
    """The files for what engines of the recipe print, of those that print anything."""
    models = ((recipe.teacher, recipe.parity.teacher), (recipe.student, recipe.parity.student))
    here = [(model.engine, parity) for model, parity in models if model.ray is None]  # else Ray keeps it, on the node
    engines = [name for engine, parity in here for name in (engine, parity.engine_for(engine))]
    names = {log for engine in engines if (log := ENGINES[engine].log) is not None}
    return [home / LOG_FOLDER / name for name in sorted(names)]


def _make(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    recipe: Recipe,
    engines: Engines,
    args: argparse.Namespace,
    echo: Echo,
) -> int:
    """Everything, or the selection; returns the number of materializations."""
    if args.select:
        return materialize_selected(instance, definitions, recipe, args.select, args.home, echo)
    return bring_up_to_date(instance, definitions, recipe, engines, args.home, echo)


def bring_up_to_date(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    recipe: Recipe,
    engines: Engines,
    home: Path,
    echo: Echo,
    levels: Sequence[Level] = LEVELS,
) -> int:
    """Materialize what is out of date; returns the number of materializations. Raises RunFailed or RecipeError.

    levels: of the steps that are made, such as batches alone.
    A batch that fails does not stop the others, but what reads all batches then waits. MAX_FAILED_BATCHES of them end
    the run; a batch that has no attempts left is quarantined. Active runs of the service are waited for.
    """
    warehouse = Warehouse(home=str(home))
    planner = Planner(instance, definitions, recipe, engines, warehouse)
    root_versions(engines, recipe, warehouse)
    enter_folders(warehouse, engines, recipe)
    register_batches(instance, recipe, home, echo)
    done = 0
    failed: dict[str, RunFailed | RecipeError] = {}
    reported: set[str] = set()
    in_rounds = rounds(recipe, definitions.resolve_asset_graph())
    retried: Counter[tuple[str, str]] = Counter()  # assets of steps whose failed rows were asked again by this run
    part: Part | None = None
    while due := _next(planner, levels, in_rounds, failed, retried, home, reported, echo):
        part = next_part(due, in_rounds, part)
        step = part.step
        retried.update((step.identity, asset) for asset in step.assets if step.retry)
        what = "checking" if part.only_checks else "materializing"
        echo(f"{what} {len(step.assets)} assets{_of(step.batch)}: {step.why}")
        try:
            execute(instance, definitions, step.assets, step.batch, home, step.tags, part.unchecked, part.only_checks)
        except (RunFailed, RecipeError) as error:
            failed[step.target] = error
            if step.batch is None or len(failed) >= MAX_FAILED_BATCHES:
                raise
            echo(f"batch {step.batch} failed, going on with the others: {error}")
        else:
            done += 0 if part.only_checks else len(step.assets)
    if failed:
        raise RunFailed("\n".join(f"batch {batch}: {error}" for batch, error in failed.items()))
    return done


def _next(
    planner: Planner,
    levels: Sequence[Level],
    in_rounds: Sequence[Round],
    failed: Collection[str],
    retried: Mapping[tuple[str, str], int],
    home: Path,
    reported: set[str],
    echo: Echo,
) -> list[Attempt]:
    """The steps without an active run, in order; waits while there are only others. Empty if none is left."""
    while True:
        fail_abandoned_runs(planner.instance, home)
        plan = planner.plan(levels, patient=False, of_recipe=in_rounds)
        for batch, row in quarantine(planner.warehouse).now.items():
            if batch not in reported:
                reported.add(batch)
                echo(f"batch {batch} is quarantined and left out: {row.reason} (see `dasd quarantine`)")
        due = []
        for attempt in plan.due:
            step = attempt.step
            if step.target in failed:
                continue
            if (left := _still_retried(step, retried)).reasons:
                due.append(replace(attempt, step=left))
            elif step.target not in reported:
                reported.add(step.target)
                echo(f"{step.why}{_of(step.batch)}: left to a later run (see failed_requests)")
        if due:
            return due
        if plan.changed:  # without the batches quarantined just now, there may be more to do
            continue
        if plan.exhausted:
            step, decision = plan.exhausted[0]
            raise RunFailed(f"{step.why}, after {decision.number - 1} attempts: {decision.why}")
        if not plan.active_runs:
            return []
        if reported.isdisjoint(plan.active_runs):
            reported.update(plan.active_runs)
            echo(f"waiting for runs of the service: {', '.join(run_id[:8] for run_id in plan.active_runs)}")
        time.sleep(WAIT_SECONDS)


def _still_retried(step: Step, retried: Mapping[tuple[str, str], int]) -> Step:
    """The step without the assets whose failed rows were asked a few times: these are left to a later run."""
    asked = {asset for asset in step.assets if retried.get((step.identity, asset), 0) >= MAX_ATTEMPTS}
    return replace(step, reasons={asset: why for asset, why in step.reasons.items() if asset not in asked})


def _of(batch: str | None) -> str:
    return f" of batch {batch}" if batch else ""


def register_batches(instance: dg.DagsterInstance, recipe: Recipe, home: Path, echo: Echo) -> None:
    """Make a partition of every landed file whose content no batch has; a file that is still growing is skipped.

    A partition that no file has, and of which nothing was made, is removed: somebody added it in the web UI.
    """
    assert PROMPT_BATCH.name is not None
    folder = landing_folder(recipe, home)
    landed = look(folder, batches(instance), {}, time.time())
    if landed.growing:
        time.sleep(max(map(seconds_until_settled, landed.growing)))
        landed = look(folder, batches(instance), {file.name: file.stamp for file in landed.growing}, time.time())
    if doomed := never_begun(instance, landed.without_file):
        for name in doomed:
            instance.delete_dynamic_partition(PROMPT_BATCH.name, name)
        echo(removed(doomed, landed.url))
    if landed.new:
        _add(instance, PROMPT_BATCH.name, landed.new)
        echo(f"{len(landed.new)} new prompt batches: {', '.join(landed.new)}")
    if landed.growing:
        echo(f"skipped, still being written: {', '.join(short(file.name) for file in landed.growing)}")
    if landed.unreadable:
        echo(read_later(landed.unreadable))
    if landed.passed_over:
        echo(f"in {landed.url}: {not_read(landed.passed_over)}")


def _add(instance: dg.DagsterInstance, name: str, new: Sequence[str]) -> None:
    """Dagster looks and then inserts, so two processes that start at once may both insert: the second looks again."""
    try:
        instance.add_dynamic_partitions(name, new)
    except IntegrityError:
        instance.add_dynamic_partitions(name, sorted(set(new) - set(batches(instance))))


def materialize_selected(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    recipe: Recipe,
    selection: str,
    home: Path,
    echo: Echo,
) -> int:
    """Materialize the assets of a Dagster selection (`response_scores+`), stale or not, in every batch.

    Raises RunFailed, or RecipeError where an asset meets a fault of the recipe; models that none needs may be missing.
    """
    graph = definitions.resolve_asset_graph()
    keys, chosen = list(graph.toposorted_asset_keys), chosen_assets(graph, selection)
    register_batches(instance, recipe, home, echo)
    per_batch = [key for key in keys if key in chosen and graph.get(key).is_partitioned]
    single = [key for key in keys if key in chosen and not graph.get(key).is_partitioned]
    roots = [key for key in single if not graph.get(key).parent_keys]
    steps = [(roots, None), *[(per_batch, batch) for batch in batches(instance)]]
    steps.append(([key for key in single if key not in roots], None))
    for assets, batch in steps:
        if assets:
            names = [key.to_user_string() for key in assets]
            echo(f"materializing {', '.join(names)}{_of(batch)}")
            execute(instance, definitions, names, batch, home)
    return sum(len(assets) for assets, _ in steps)
