"""`dasd plan`: what a recipe takes, stage by stage, before it is run: from a pilot's figures, or from stated ones."""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dasd_assets.commands.check.batch_sizes import questions_per_batch
from dasd_assets.commands.check.landed import landed_records
from dasd_assets.commands.check.landed_responses import landed
from dasd_assets.commands.display import display
from dasd_assets.commands.messages import timed
from dasd_assets.commands.pilot import run_pilot, scaled_to, this_machine
from dasd_assets.commands.pilot_files import draw
from dasd_assets.commands.planned_pool import carried_figures, has_answered, landed_figures, over
from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.evaluation.questions import question_rows
from dasd_assets.plan.assumptions import BENCHMARK_SIZES, NUM_QUESTIONS, OF_QUESTIONS, UNKNOWN_BENCHMARK, assumed
from dasd_assets.plan.estimate import estimate
from dasd_assets.plan.figures import Figure, Figures, exact
from dasd_assets.plan.hardware import CPU, Machine, machine
from dasd_assets.plan.model_size import ABSENT, ModelSize, size_of
from dasd_assets.plan.page import document, page
from dasd_assets.plan.savings import savings
from dasd_assets.plan.scope import Scope
from dasd_assets.rules.recipe_names import check_names
from dasd_resources.errors import UserError
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines
from dasd_resources.inference.model_files import find_model
from dasd_resources.json_text import json_text
from dasd_resources.landing.landing_folder import landing_folder
from dasd_resources.landing.prompt_files import NO_DOMAIN, Prompt
from dasd_resources.recipe import Benchmark, Model, Recipe, RecipeError, load_recipe
from dasd_resources.storage.lake import Lake
from dasd_resources.visible_text import show

RECORDED = "landed files"
DEFAULT_DEVICE, DEFAULT_NUM = "H100", 8


def command(args: argparse.Namespace) -> int:
    """Prints the plan; with --pilot, first runs it."""
    recipe = load_recipe(args.name or args.recipe or args.default_recipe, args.home)
    check_names(recipe)
    _check_options(recipe, args)
    here, engines = this_machine(), EnvironmentEngines(home=str(args.home))
    planned = _machine(args, here)
    prompts = list(landed_prompts(recipe, args.home))
    scope, told = scope_of(recipe, prompts, planned, args.questions)
    told |= there_before(recipe, args.home, len(prompts), engines)
    scope = replace(scope, answered_before=answered_before(recipe, args.home, engines))
    figures: Figures = {**assumed(recipe, planned), **told}
    if args.pilot:
        asked, on_this = draw(prompts, args.pilot), replace(scope, machine=here)
        with display() as shown:
            pilot = run_pilot(
                recipe,
                asked,
                on_this,
                args.home,
                engines,
                lambda line: shown.say(timed(line)),
                dagster_home=args.dagster_home,
            )
        figures = over(told, {**figures, **scaled_to(pilot, planned)})
    plan = estimate(recipe, scope, figures)
    saved = savings(plan)
    show(json_text(document(plan, saved)) if args.json else page(plan, saved))
    return 0


def _check_options(recipe: Recipe, args: argparse.Namespace) -> None:
    """Raises UserError for an option that means nothing to a recipe that takes another's selection."""
    source = recipe.selection_from
    if source is not None and args.pilot:
        raise UserError(
            f"--pilot: recipe {recipe.name} trains on what {source} has selected, and a few questions have no such "
            f"selection; plan {recipe.name} without --pilot, which takes its rows from this home, and see what a pilot "
            f"of {source} says of times"
        )
    if source is not None and args.questions is not None:
        raise UserError(
            f"--questions: recipe {recipe.name} trains on what {source} has selected, of the questions that are here; "
            f"leave it out, or plan {source}"
        )


def there_before(recipe: Recipe, home: Path, num_questions: int, engines: Engines) -> dict[str, Figure]:
    """The figures of responses that are there before the run; none of a recipe whose teacher samples them."""
    if recipe.selection_from is not None:
        return carried_figures(Lake(home=str(home)), recipe, engines)
    if recipe.imports is not None:
        return landed_figures(landed(landing_folder(recipe, home), recipe), recipe, num_questions)
    return {}


def answered_before(recipe: Recipe, home: Path, engines: Engines) -> frozenset[str]:
    """The teacher, where the recipe whose selection this one takes has had it answer the benchmarks here."""
    if recipe.selection_from is None:
        return frozenset()
    teacher = engines.fingerprint(recipe.teacher, "teacher.model")
    return frozenset({"teacher"} if has_answered(Lake(home=str(home)), teacher) else ())


def _machine(args: argparse.Namespace, here: Machine) -> Machine:
    """What is named; else this machine, if the pilot runs on it or it has GPUs, or the report's eight H100."""
    if args.gpu is None and args.gpus is None and (args.pilot or not here.is_cpu):
        return here if args.price is None else replace(here, price=args.price)
    name = args.gpu or (DEFAULT_DEVICE if here.is_cpu else here.device.name)
    num = args.gpus or (here.num if name.lower() == CPU else DEFAULT_NUM)
    return machine(name, num, args.price)


def landed_prompts(recipe: Recipe, home: Path) -> Iterator[Prompt]:
    """The questions of the landing folder that can be used, each once."""
    seen = set[str]()
    for record in landed_records(landing_folder(recipe, home), recipe):
        if isinstance(record, Prompt) and record.prompt_id not in seen:
            seen.add(record.prompt_id)
            yield record


def scope_of(
    recipe: Recipe, prompts: list[Prompt], planned: Machine, num_questions: int | None
) -> tuple[Scope, dict[str, Figure]]:
    """What there is to do, and where its numbers come from. num_questions: in place of what has landed."""
    landed = Counter(prompt.domain for prompt in prompts)
    total, origin = float(len(prompts)), RECORDED
    if num_questions is not None:
        total, origin = float(num_questions), "--questions"
    elif not prompts:
        total, origin = float(NUM_QUESTIONS), OF_QUESTIONS
    shares = dict(landed) or dict(recipe.selection.budgets.get(recipe.last_dataset, {})) or {NO_DOMAIN: 1}
    questions = {domain: total * num / sum(shares.values()) for domain, num in shares.items()}
    told = {"questions": exact(total, origin)}
    benchmarks = dict[str, int]()
    for benchmark in recipe.evaluation.benchmarks:
        num, source = _benchmark(benchmark)
        benchmarks[benchmark.name] = num
        told[f"questions of {benchmark.name}"] = exact(num, source)
    files = Counter(prompt.source_file for prompt in prompts) or {name: round(num) for name, num in questions.items()}
    num_batches = len(list(questions_per_batch(recipe, files.values())))  # where none has landed: a file per domain
    teacher, student = _size(recipe.teacher, "teacher"), _size(recipe.student, "student")
    return Scope(questions, num_batches, benchmarks, teacher, student, planned), told


def _benchmark(benchmark: Benchmark) -> tuple[int, str]:
    try:
        return len(question_rows(benchmark)), "its file" if benchmark.path else "its task"
    except RecipeError:
        if benchmark.layout in BENCHMARK_SIZES:
            return BENCHMARK_SIZES[benchmark.layout], "as published; the file is not here"
        return UNKNOWN_BENCHMARK, "assumed; the file is not here"


def _size(spec: Model, role: str) -> ModelSize:
    """From the model's folder; of one that is not here, from the configuration that is known of it."""
    if ENGINES[spec.engine].absent:
        return ABSENT
    try:
        path = find_model(spec.model, f"{role}.model")
    except RecipeError:
        path = None
    return size_of(spec.model, path, spec.dtype)
