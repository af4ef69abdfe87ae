"""Check of the machine: room on the disk."""

import math
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import polars as pl

from dasd_assets.commands.check.landed import Prompts
from dasd_assets.commands.check.outcome import CheckFailed, CheckUnknown
from dasd_assets.plan.assumptions import STORED_IN, TOKENS_PER_SENTENCE, of_disk
from dasd_assets.plan.figures import at_hand
from dasd_assets.records.wording import size_of
from dasd_assets.rules.checkpoints import trained_names
from dasd_resources.home import CHECKPOINT_FOLDER
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.inference.model_files import count_weights
from dasd_resources.recipe import Recipe
from dasd_resources.sft.disk import published_bytes, rows_bytes, state_bytes
from dasd_resources.storage.data_places import ObjectStore
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.tables import measured
from dasd_resources.storage.upkeep import table_sizes


def disk(recipe: Recipe, home: Path, student: PromptedModel | None, prompts: Prompts) -> str:
    """All responses and what is trained on, at most, or of as many tokens as there are by now; checkpoints; a training.

    What a training takes while it runs is of its largest stage, and on the home's disk wherever the tables are. What
    the home has already of rows and checkpoints, whichever recipe's they are, takes no more room.
    """
    if student is None:
        raise CheckUnknown("the student is not here, and so the size of its checkpoints is not known")
    num_responses = prompts.num_prompts * recipe.generation.num_candidates * len(recipe.generation.temperatures)
    mean, known = _mean_tokens(home)
    each, tokens = at_hand(of_disk()), mean or recipe.generation.max_tokens
    examples = {name: tokens * most_examples(recipe, name, prompts) for name in recipe.datasets}
    taught = 2 * sum(examples.values())  # and the control's
    rows = num_responses * tokens * _response_token(each) + taught * each["bytes.example_token"]
    checkpoints, training = _trainings(recipe, count_weights(student.path), examples, each["bytes.example_token"])
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    elsewhere = isinstance(Lake(home=str(home)).catalog.data, ObjectStore)
    present = min(_checkpoint_bytes(home), checkpoints) + (0 if elsewhere else min(_row_bytes(home), rows))
    needed = math.ceil(checkpoints + training + rows * (not elsewhere) - present)
    free, where = shutil.disk_usage(there).free, " in the object store" * elsewhere
    less = f"; {size_of(present)} of that is here already" if present else ""
    message = (
        f"{size_of(needed)} needed ({size_of(rows)}{where} for {num_responses:,} responses of {known} "
        f"{tokens:,.0f} tokens and the training sets, {size_of(checkpoints)} for checkpoints, {size_of(training)} "
        f"while the largest stage trains{less}), {size_of(free)} free"
    )
    if needed > free:
        raise CheckFailed(f"{message}: make room, or set DASD_HOME to a larger disk")
    return message


def _checkpoint_bytes(home: Path) -> int:
    """Of those that are published."""
    folders = [folder for folder in (home / CHECKPOINT_FOLDER).glob("*") if folder.is_dir() and not folder.suffix]
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


def _row_bytes(home: Path) -> int:
    """Of the tables that grow with tokens."""
    lake, names = Lake(home=str(home)), [*chain.from_iterable(STORED_IN.values())]
    if not lake.catalog.exists():
        return 0
    return int(table_sizes(lake).filter(pl.col("table_name").is_in(names))["num_bytes"].sum())


def _response_token(each: Mapping[str, float]) -> float:
    """Bytes of a response's token: of the teacher and of the student, who has as many, and its share of a sentence."""
    tokens = each["bytes.teacher_token"] + each["bytes.student_token"] + each["bytes.student_logprob"]
    return tokens + each["bytes.sentence"] / TOKENS_PER_SENTENCE


def most_examples(recipe: Recipe, dataset: str, prompts: Prompts) -> float:
    """As many as the policy may select, within the budget where every landed domain has one."""
    selection, most = recipe.selection, float(prompts.num_prompts)
    if selection.policy == "top_k":
        most *= min(recipe.generation.num_candidates, selection.max_per_question or math.inf)
    budget = selection.budgets.get(dataset, {})
    if selection.budget_unit == "examples" and prompts.domains <= budget.keys():
        most = min(most, sum(budget[domain] for domain in prompts.domains))
    return most


def _trainings(
    recipe: Recipe, num_weights: int, examples: Mapping[str, float], file_token: float
) -> tuple[float, float]:
    """Bytes of all checkpoints, and of the largest stage while it trains. examples: dataset -> tokens."""
    stages = {name: recipe.training.of(name) for name in trained_names(recipe)}
    checkpoints = sum(published_bytes(num_weights, own, recipe.epochs(name)) for name, own in stages.items())
    rows = max(rows_bytes(num, stages[name], file_token) for name, num in examples.items())
    return checkpoints, state_bytes(num_weights) + rows


def _mean_tokens(home: Path) -> tuple[float | None, str]:
    lake = Lake(home=str(home))
    if not lake.catalog.exists():
        return None, "at most"
    mean = lake.read(f"SELECT avg(num_tokens) FROM {measured('responses', 'num_tokens', 'response_id')}").item()
    return (mean, "so far") if mean else (None, "at most")
