"""Check of the machine: room on the disk."""

import math
import shutil
from pathlib import Path

from dasd_assets.commands.check.outcome import CheckFailed, CheckUnknown
from dasd_assets.rules.checkpoints import trained_names
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.inference.model_files import WEIGHTS
from dasd_resources.recipe import Recipe
from dasd_resources.storage.data_places import ObjectStore
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.tables import measured

# ids, logprob and offset of a token take 7.7 bytes; the text some 2 more. The student has its own tokens.
BYTES_PER_TOKEN = 2 * 7.7 + 2 + 2  # teacher, student, text, sentence sums
STATE_COPIES = 4  # a private training checkpoint: weights, two moments, and the one before it being deleted


def disk(recipe: Recipe, home: Path, student: PromptedModel | None, num_prompts: int) -> str:
    """Rows of all responses, at most, or of as many tokens as there are by now; and the checkpoint of every stage."""
    if student is None:
        raise CheckUnknown("the student is not here, and so the size of its checkpoints is not known")
    num_responses = num_prompts * recipe.generation.num_candidates * len(recipe.generation.temperatures)
    mean, known = _mean_tokens(home)
    rows = num_responses * (mean or recipe.generation.max_tokens) * BYTES_PER_TOKEN
    weights = sum(file.stat().st_size for file in student.path.glob(WEIGHTS))
    checkpoints = weights * (len(trained_names(recipe)) + STATE_COPIES)
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    elsewhere = isinstance(Lake(home=str(home)).catalog.data, ObjectStore)
    needed, free = math.ceil(checkpoints + rows * (not elsewhere)), shutil.disk_usage(there).free
    where = " in the object store" * elsewhere
    message = (
        f"{size(needed)} needed ({size(rows)}{where} for {num_responses:,} responses of {known} "
        f"{mean or recipe.generation.max_tokens:,.0f} tokens, {size(checkpoints)} for checkpoints), {size(free)} free"
    )
    if needed > free:
        raise CheckFailed(f"{message}: make room, or set DASD_HOME to a larger disk")
    return message


def _mean_tokens(home: Path) -> tuple[float | None, str]:
    lake = Lake(home=str(home))
    if not lake.catalog.exists():
        return None, "at most"
    mean = lake.read(f"SELECT avg(num_tokens) FROM {measured('responses', 'num_tokens', 'response_id')}").item()
    return (mean, "so far") if mean else (None, "at most")


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
