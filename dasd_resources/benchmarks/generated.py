"""Questions of a reasoning-gym task: the same ones for the same task and version of the library.

Left out: any list of the seeds that training used. A dataset may give one question for two seeds, so training questions
are compared with these by their texts, as with all held-out questions (`decontamination`).
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version

from dasd_resources.landing.prompt_files import InvalidRow, Prompt, prompt_of
from dasd_resources.recipe.evaluation_settings import Task
from dasd_resources.recipe.parts import RecipeError
from dasd_resources.verifiers.catalogue import known_verifier, unknown_verifier

ATTEMPTS = 20  # entries looked at for each question: small datasets repeat themselves


@cache  # reading a package's metadata takes 10 ms, and every look at a plan asks
def generator_version() -> str:
    """Of the library: another may generate other questions."""
    return f"reasoning-gym {version('reasoning-gym')}"


def generated_prompts(task: Task) -> Iterator[Prompt]:
    """`num_questions` different questions; `source_line` is the entry's number, from 1.

    Raises RecipeError for a dataset that cannot be judged, options that it does not take, and too few questions.
    """
    verifier = f"reasoning_gym:{task.dataset}"
    if not known_verifier(verifier):
        raise RecipeError(unknown_verifier(verifier))
    seen: set[str] = set()
    for number, entry in enumerate(_entries(task), 1):
        prompt = _prompt(entry, verifier, number)
        if prompt.prompt_id in seen:
            continue
        seen.add(prompt.prompt_id)
        yield prompt
        if len(seen) == task.num_questions:
            return
    raise RecipeError(
        f"{task.dataset} gives only {len(seen)} different questions in {ATTEMPTS * task.num_questions} entries; ask "
        "for fewer (num_questions), or for harder ones (config)"
    )


def _entries(task: Task) -> Iterator[dict[str, object]]:
    from reasoning_gym.factory import create_dataset  # loads sympy: 0.8 s, which only generating should pay

    try:
        dataset = create_dataset(task.dataset, seed=task.seed, size=ATTEMPTS * task.num_questions, **task.config)
    except (TypeError, ValueError, AssertionError) as error:
        raise RecipeError(f"reasoning-gym's {task.dataset} does not take the config {task.config}: {error}") from None
    for index in range(len(dataset)):
        yield dataset[index]


def _prompt(entry: dict[str, object], verifier: str, number: int) -> Prompt:
    row = {
        "question": entry["question"],
        "reference_answer": entry["answer"],
        "domain": "reasoning",
        "verifier": verifier,
        "metadata": json.loads(json.dumps(entry["metadata"])),  # tuples are lists, as in a stored row
    }
    try:
        return prompt_of(verifier, number, row, row, None)
    except InvalidRow as error:
        raise RecipeError(f"{verifier}, entry {number}: {error}") from None
