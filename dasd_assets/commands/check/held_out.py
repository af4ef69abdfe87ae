"""Checks of the held-out questions, and of the sandbox where an answer is judged by a program."""

from contextlib import suppress

from dasd_assets.commands.check.landed import Prompts
from dasd_assets.commands.check.outcome import CheckFailed, CheckWarning
from dasd_assets.evaluation.questions import question_rows
from dasd_assets.held_out_questions import held_out_rows
from dasd_assets.records.unsafe import UNSAFE
from dasd_resources.recipe import Benchmark, Recipe, RecipeError
from dasd_resources.sandbox import sandbox_fault


def benchmark_questions(benchmark: Benchmark) -> str:
    return f"{len(question_rows(benchmark)):,} questions, at most {benchmark.max_tokens:,} tokens each"


def held_out(recipe: Recipe) -> str:
    return f"{len(held_out_rows(recipe)):,}, which nothing is trained on"


def verifiers(recipe: Recipe, prompts: Prompts) -> set[str]:
    """Of all questions, landed or held out; a benchmark whose file is at fault has a result of its own."""
    found = set(prompts.verifiers)
    for benchmark in recipe.evaluation.benchmarks:
        with suppress(RecipeError):
            found |= {row["verifier"] for row in question_rows(benchmark)}
    return found


def sandbox(recipe: Recipe, preloads: set[tuple[str, ...]]) -> str:
    """A program runs in it and is seen to end, beside each of these sets of modules that verifiers load in it."""
    confinement = recipe.verification.confinement
    for preload in preloads:
        if (fault := sandbox_fault(confinement, preload)) is not None:
            raise CheckFailed(fault)
    if confinement.unsafe:
        raise CheckWarning(UNSAFE)
    return (
        f"a program ran in it; {confinement.seconds_per_test:g} s of computing a test, "
        f"{confinement.seconds_per_answer:g} s an answer, {confinement.memory_mb} MB"
    )
