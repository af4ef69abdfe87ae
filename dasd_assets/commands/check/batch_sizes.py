"""Whether the batches that landed files make are of a size that a run handles well (`landing.questions_per_batch`)."""

from collections.abc import Collection, Iterable, Iterator

from dasd_assets.commands.check.landed import Prompts
from dasd_assets.commands.check.landed_responses import Found
from dasd_assets.commands.check.outcome import CheckWarning
from dasd_resources.recipe import Recipe
from dasd_resources.storage.passes import MAX_PASSES

# At it, a pass over responses as long as the report's is of 16 M tokens, 1.4 GB. Above it, memory grows with the batch,
# and what a kill or an edited file can undo is days of work.
MOST_RESPONSES = MAX_PASSES * 1000
# Below it, a batch's own costs outweigh its work: some ten steps, as many commits, files and looks of every tick.
FEWEST_RESPONSES, MANY_BATCHES = 1000, 20


def batch_sizes(recipe: Recipe, prompts: Prompts) -> str:
    """Responses per batch, from the questions that landed. Raises CheckWarning for too many, or for many of too few."""
    each = recipe.generation.num_candidates * len(recipe.generation.temperatures)
    sizes = [each * number for number in questions_per_batch(recipe, prompts.per_file.values())]
    return _judged(sizes, f" ({each} of each question)", each, "nothing is scored before a whole batch is sampled")


def imported_batch_sizes(landed: Found) -> str:
    """Responses per batch of those that have landed. Raises CheckWarning as `batch_sizes` does."""
    each = -(-landed.per_batch.total() // max(len(landed.batch_of), 1))
    return _judged(landed.per_batch.values(), "", each, "nothing is selected before a whole batch is scored")


def _judged(sizes: Collection[int], of_what: str, each: int, reason: str) -> str:
    """each: responses of a question. reason: besides memory, against a batch too large."""
    if not sizes:
        return "none has landed"
    small = [size for size in sizes if size < FEWEST_RESPONSES]
    found = f"{len(sizes):,} of {min(sizes):,} to {max(sizes):,} responses{of_what}"
    if max(sizes) > MOST_RESPONSES:
        raise CheckWarning(
            f"{found}: beyond {MOST_RESPONSES:,}, the memory that a step takes grows with the batch, and {reason}; "
            f"set landing.questions_per_batch: {max(MOST_RESPONSES // each, 1)}"
        )
    if len(small) > MANY_BATCHES:
        raise CheckWarning(
            f"{found}: {len(small):,} have fewer than {FEWEST_RESPONSES:,}, and each has steps, commits and data files "
            "of its own; land fewer, larger files, or set a larger landing.questions_per_batch"
        )
    return found


def questions_per_batch(recipe: Recipe, per_file: Iterable[int]) -> Iterator[int]:
    """How many questions each batch has, about: rows that are rejected take places in the parts of a large file.

    per_file: how many each landed file has.
    """
    most = recipe.landing.questions_per_batch
    for number in per_file:
        while most is not None and number > most:
            yield most
            number -= most
        yield number
