"""Whether the batches that landed files make are of a size that a run handles well (`landing.questions_per_batch`)."""

from collections.abc import Collection, Iterable, Iterator

from dasd_assets.commands.check.landed import Prompts
from dasd_assets.commands.check.landed_responses import Found
from dasd_assets.commands.check.outcome import CheckWarning
from dasd_resources.recipe import Recipe

# A larger batch is days of work before its first check, and none was run of responses as long as the report's, which
# are a quarter of `max_tokens`. Of short responses, ids and rows are what grows.
MOST_TOKENS, MOST_RESPONSES = 256_000_000, 64_000
# Below it, a batch's own costs outweigh its work: some ten steps, as many commits, files and looks of every tick.
FEWEST_RESPONSES, MANY_BATCHES = 1000, 20


def batch_sizes(recipe: Recipe, prompts: Prompts) -> str:
    """Responses per batch, from the questions that landed. Raises CheckWarning for too many, or for many of too few."""
    each = recipe.generation.num_candidates * len(recipe.generation.temperatures)
    sizes = [each * number for number in questions_per_batch(recipe, prompts.per_file.values())]
    most = min(MOST_RESPONSES, MOST_TOKENS // recipe.generation.max_tokens)
    reason = "nothing is checked before a whole batch is sampled"
    return _judged(sizes, most, f" ({each} of each question)", each, reason)


def imported_batch_sizes(landed: Found) -> str:
    """Responses per batch of those that have landed. Raises CheckWarning as `batch_sizes` does."""
    each = -(-landed.per_batch.total() // max(len(landed.batch_of), 1))
    reason = "nothing is selected before a whole batch is scored"
    return _judged(landed.per_batch.values(), MOST_RESPONSES, "", each, reason)


def _judged(sizes: Collection[int], most: int, of_what: str, each: int, reason: str) -> str:
    """most: responses that a batch may have. each: of a question. reason: another against a batch too large."""
    if not sizes:
        return "none has landed"
    small = [size for size in sizes if size < FEWEST_RESPONSES]
    found = f"{len(sizes):,} of {min(sizes):,} to {max(sizes):,} responses{of_what}"
    if max(sizes) > most:
        raise CheckWarning(
            f"{found}: beyond {most:,} as long as these may be, a batch may take days, and {reason}; "
            f"set landing.questions_per_batch: {max(most // each, 1)}"
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
