"""`dasd experiment NAME…`: run experiments to their end, or some arms and seeds of one, and print what they have found.

`--all` runs every one of the recipe; `--write FOLDER` writes what all have found as pages. What is there is not made
again, so a run that was interrupted goes on. Without a name, the known experiments and how far each is.
"""

import argparse
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import dagster as dg

from dasd_assets.commands.console import console
from dasd_assets.commands.messages import echo as print_message
from dasd_assets.commands.run import Echo
from dasd_assets.definitions import EnvironmentEngines, build_definitions
from dasd_assets.experiments.cells import (
    CHECKPOINTS,
    EVALUATIONS,
    REPORT,
    Cell,
    answers,
    every_cell,
    failed_text,
    in_order,
    outdated_cells,
    outdated_text,
    partition_key,
    stage_rows,
    trained_cells,
)
from dasd_assets.experiments.claims import verdicts
from dasd_assets.experiments.pages import write_pages
from dasd_assets.experiments.result_table import COLUMNS, Results, compared_arms, one_seed_note, result_rows
from dasd_assets.records.progress import duration
from dasd_assets.records.wording import number_of
from dasd_assets.rules.arms import check_policies
from dasd_assets.service.in_process import RunFailed, execute
from dasd_assets.service.instance import open_instance
from dasd_assets.service.planning import Plan, Planner
from dasd_assets.service.steps import LEVELS
from dasd_resources.home import EXPERIMENT_FOLDER, prepare_home
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe, RecipeError, load_recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.recipe.experiment_files import (
    checked,
    experiments_of,
    load_experiment,
    names_of_others,
)
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.visible_text import show

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
QUESTIONS = "benchmark_questions"
Name = TypeVar("Name", str, int)


def command(args: argparse.Namespace) -> int:
    """Run the named experiments or all, or list those of the recipe; then write the pages, where a folder is named."""
    home = args.home
    recipe = load_recipe(args.recipe or args.default_recipe, home)
    warehouse = Warehouse(home=str(home))
    if len(args.names) != 1 and not args.all and (args.arms or args.seeds):
        raise RecipeError("--arms and --seeds are of one experiment: name it, and no other")
    if not args.names and not args.all:
        if not args.write:
            show("\n".join(listed(warehouse, recipe, home)))
    else:
        _run(args, recipe, warehouse)
    if args.write:
        changed = write_pages(warehouse, recipe, sound_experiments(recipe, home), Path(args.write))
        print_message(f"{args.write}: {', '.join(changed) or 'nothing'} changed")
    return 0


def _run(args: argparse.Namespace, recipe: Recipe, warehouse: Warehouse) -> None:
    started, home = time.monotonic(), args.home
    if args.all and (args.names or args.arms or args.seeds):
        raise RecipeError("--all runs every cell of every experiment: leave out names, --arms and --seeds")
    chosen = sound_experiments(recipe, home) if args.all else named_experiments(args.names, recipe, home)
    for experiment in chosen:
        check_policies(experiment, recipe)
    cells = {one.name: chosen_cells(one, args.arms, args.seeds) for one in chosen}
    dagster_home = prepare_home(home, args.dagster_home)
    os.environ["DAGSTER_HOME"] = str(dagster_home)  # a step in a process of its own reads it
    engines = EnvironmentEngines(home=str(home))
    definitions = dg.Definitions.merge(
        build_definitions(recipe, home, engines, compared=chosen), dg.Definitions(loggers={"console": console})
    )
    with open_instance(dagster_home) as instance:
        for number, experiment in enumerate(chosen, start=1):
            if len(chosen) > 1:
                print_message(f"experiment {number} of {len(chosen)}, after {duration(time.monotonic() - started)}")
            wanted = cells[experiment.name]
            run_experiment(instance, definitions, recipe, experiment, wanted, engines, home, print_message)
    print_message(f"{sum(map(len, cells.values()))} cells in {time.monotonic() - started:.0f} s")
    for experiment in chosen:
        show("\n".join(page(warehouse, recipe, experiment)))


def named_experiments(names: Sequence[str], recipe: Recipe, home: Path) -> list[Experiment]:
    """The experiments of these names or files, each once. Raises RecipeError where two different ones have one name."""
    found = dict[str, Experiment]()
    for name in names:
        experiment = checked(load_experiment(name, home), recipe)
        if found.setdefault(experiment.name, experiment) != experiment:
            raise RecipeError(f"{name}: another of those to run is named {experiment.name}, too; rename one")
    return list(found.values())


def sound_experiments(recipe: Recipe, home: Path) -> list[Experiment]:
    """All known experiments of the recipe. Raises RecipeError for the first that is faulty, or if there is none."""
    found = list(experiments_of(recipe, home))
    for experiment in found:
        if isinstance(experiment, RecipeError):
            raise experiment
    if not found:
        others = ", ".join(names_of_others(recipe, home))
        raise RecipeError(
            f"no experiment is of recipe {recipe.name}; name others in its `experiments` ({others}), or declare one in "
            f"{home / EXPERIMENT_FOLDER}"
        )
    return [experiment for experiment in found if isinstance(experiment, Experiment)]


def chosen_cells(experiment: Experiment, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> list[Cell]:
    """The cells of these arms and seeds; of all, where none are named. Raises RecipeError for one that there is not."""
    if unknown := sorted(set(arms or ()) - set(experiment.arms)):
        raise RecipeError(f"--arms: {experiment.name} has no {', '.join(unknown)}; it has {', '.join(experiment.arms)}")
    if others := sorted(set(seeds or ()) - set(experiment.seeds)):
        known = ", ".join(map(str, experiment.seeds))
        raise RecipeError(f"--seeds: {experiment.name} has no {', '.join(map(str, others))}; it has {known}")
    return in_order(((arm, seed) for arm in arms or experiment.arms for seed in seeds or experiment.seeds), experiment)


def run_experiment(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    recipe: Recipe,
    experiment: Experiment,
    cells: Sequence[Cell],
    engines: Engines,
    home: Path,
    echo: Echo,
) -> None:
    """Train and evaluate these cells, then report on all that are there, and rank them among all models of the home.

    Raises RunFailed or RecipeError.
    """
    require_data(instance, definitions, recipe, experiment, engines, home)
    execute(instance, definitions, [QUESTIONS], None, home)
    assets = [CHECKPOINTS + experiment.name, EVALUATIONS + experiment.name]
    for first, last in blocks(cells, experiment):
        echo(f"experiment {experiment.name}: {partition_key(first)} to {partition_key(last)}")
        tags = {RANGE_START: partition_key(first), RANGE_END: partition_key(last)}
        execute(instance, definitions, assets, None, home, tags)
    execute(instance, definitions, [REPORT + experiment.name, "leaderboard"], None, home)


def require_data(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    recipe: Recipe,
    experiment: Experiment,
    engines: Engines,
    home: Path,
) -> None:
    """Raise RunFailed where the recipe's datasets, from which an experiment starts, are not made or out of date."""
    mixed = any(stage.is_mixed for stages in experiment.arms.values() for stage in stages)
    levels = [level for level in LEVELS if mixed or level != "training"]
    plan = Planner(instance, definitions, recipe, engines, Warehouse(home=str(home))).plan(levels, patient=False)
    if first := to_do_first(plan):
        raise RunFailed(f"recipe {recipe.name} is not up to date, and experiments start from its datasets: {first}")


def to_do_first(plan: Plan) -> str:
    """What to do before all that the plan is of is up to date; empty where it is."""
    if plan.due:
        return f"run `dasd run` first ({plan.due[0].step.why})"
    if plan.active_runs:
        return f"wait for the runs that make them ({', '.join(run_id[:8] for run_id in plan.active_runs)})"
    if plan.exhausted:
        step, decision = plan.exhausted[0]
        num_attempts = number_of(decision.number - 1, "attempt")
        return f"see `dasd audit staleness` ({step.why}, after {num_attempts}: {decision.why})"
    return ""


def blocks(cells: Sequence[Cell], experiment: Experiment) -> Iterator[tuple[Cell, Cell]]:
    """First and last cell of each rectangle of neighbouring arms and seeds: what one run can make together.

    cells: all of some arms and some seeds.
    """
    arms, seeds = dict.fromkeys(arm for arm, _ in cells), dict.fromkeys(seed for _, seed in cells)
    for first_arm, last_arm in _neighbours(list(experiment.arms), arms):
        for first_seed, last_seed in _neighbours(experiment.seeds, seeds):
            yield (first_arm, first_seed), (last_arm, last_seed)


def _neighbours(every: Sequence[Name], chosen: Iterable[Name]) -> Iterator[tuple[Name, Name]]:
    """First and last of each run of the chosen ones that stand together."""
    places = sorted(map(every.index, chosen))
    for _, group in groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
        together = [place for _, place in group]
        yield every[together[0]], every[together[-1]]


def page(warehouse: Warehouse, recipe: Recipe, experiment: Experiment) -> Iterator[str]:
    """The experiment's table, with what the report found, and the verdict on each claim."""
    found, num = answers(warehouse, recipe, experiment), len(every_cell(experiment))
    yield from ("", experiment.title, f"  baseline {experiment.baseline}; the report: {experiment.report}", "")
    if found.is_empty():
        yield "  no cell has answered all questions yet"
        return
    compared, stages = compared_arms(found, experiment), stage_rows(warehouse, recipe, experiment)
    outdated = outdated_cells(warehouse, recipe, experiment)
    shown = result_rows(found, stages, compared, experiment, outdated)
    rows = [COLUMNS, *([row[name] for name in COLUMNS] for row in shown)]
    texts = [["" if value is None else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    yield from ("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in texts)
    done = found.select("arm", "seed").n_unique()
    yield from ("", f"  {done} of {num} cells; accuracies in %, ± standard error; differences with 95 % intervals")
    yield from (f"  {note}" for note in one_seed_note(shown))
    if failed := failed_text(found):
        yield f"  {failed}"
    if text := outdated_text(outdated):
        yield f"  {text}"
    for one in verdicts(warehouse, recipe, experiment, Results(found, compared, stages, outdated)):
        yield from ("", f"  claim: {one.claim}", f"  verdict: {one.text}", *(f"    {line}" for line in one.comparisons))


def listed(warehouse: Warehouse, recipe: Recipe, home: Path) -> Iterator[str]:
    """A line per known experiment of the recipe: how many of its cells are trained, and answered; then the others."""
    for experiment in experiments_of(recipe, home):
        if isinstance(experiment, RecipeError):
            yield f"faulty: {experiment}"
            continue
        num, trained, answered, old = len(every_cell(experiment)), 0, 0, set[Cell]()
        if warehouse.catalog.exists():
            trained = trained_cells(warehouse, recipe, experiment).height
            answered = answers(warehouse, recipe, experiment).select("arm", "seed").n_unique()
            old = outdated_cells(warehouse, recipe, experiment)
        title = experiment.title + (f" ({text})" if (text := outdated_text(old)) else "")
        yield f"{experiment.name:<16}{trained:>4} trained, {answered:>3} answered of {num:>3}  {title}"
    if others := ", ".join(names_of_others(recipe, home)):
        yield f"of other recipes, for this one's `experiments: [NAME]`: {others}"
