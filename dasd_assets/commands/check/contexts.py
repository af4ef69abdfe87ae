"""Checks of the contexts: the longest sequence that a recipe asks of a model, against what it takes."""

from dasd_assets.commands.check.landed import Prompts
from dasd_assets.commands.check.outcome import CheckFailed, CheckUnknown, CheckWarning
from dasd_assets.evaluation.questions import longest_prompt, question_rows
from dasd_assets.rules.rollouts import length_cap
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.recipe import Benchmark, Recipe, RecipeError


def context(recipe: Recipe, role: str, model: PromptedModel, prompts: Prompts) -> str:
    """The longest sequence the recipe asks of a model, against what it takes."""
    if model.spec.server is not None:
        return "known to the server, which is asked with its logprobs and refuses what is longer"
    return room(recipe, role, model, prompts, model.context)


def room(recipe: Recipe, role: str, model: PromptedModel, prompts: Prompts, context: int) -> str:
    """What the recipe asks of a context of so many tokens. Raises CheckFailed or CheckWarning if it is too much."""
    landed, limit = prompts.longest_for(model), recipe.generation.max_tokens
    asked = [
        (b.max_tokens + size, f"{b.name}'s max_tokens {b.max_tokens:,} and its longest question's {size:,}")
        for b, size in ((b, _longest_question(b, model)) for b in recipe.evaluation.benchmarks)
    ]
    if role == "teacher":
        asked.append((limit + landed, f"generation.max_tokens {limit:,} and the longest prompt's {landed:,}"))
    tokens, summands = max(asked)
    if tokens > context:
        raise CheckFailed(f"{summands} exceed the context of {context:,}")
    if role == "student" and recipe.training.max_length > context:
        raise CheckFailed(
            f"training.max_length {recipe.training.max_length:,} exceeds the context of {context:,}; lower it"
        )
    filtered, sampled = recipe.filters.apply != "after_selection", ENGINES[model.spec.as_scored.engine].sampled_to_score
    scored = min(limit + landed, recipe.filters.max_student_tokens) if filtered else limit + landed
    if role == "student" and scored + sampled > context:
        raise CheckWarning(
            f"a response may have generation.max_tokens {limit:,}, which with the longest prompt's {landed:,}"
            f"{f' and {sampled} that scoring needs for itself' if sampled else ''} exceed the context of {context:,}: "
            "such responses cannot be scored"
        )
    capped = length_cap(recipe.filters.max_student_tokens, recipe.mixed_policy.length_cap)
    if role == "student" and capped + landed > context:
        raise CheckWarning(
            f"a rollout may have {capped:,} tokens (mixed_policy.length_cap times filters.max_student_tokens), which "
            f"with the longest prompt's {landed:,} exceed the context of {context:,}: such rollouts will fail"
        )
    return f"{context:,} tokens, of which {tokens:,} may be asked"


def _longest_question(benchmark: Benchmark, model: PromptedModel) -> int:
    """Tokens of a benchmark's longest question as a model is asked it. Raises CheckUnknown if its file is at fault."""
    try:
        rows = question_rows(benchmark)
    except RecipeError:
        name = f"benchmark {benchmark.name}"
        raise CheckUnknown(f"whether the longest question of {name} fits: its file is at fault, see {name}") from None
    return longest_prompt(model.chat, rows)
