"""The rollouts that a recipe asks of a checkpoint (report §5): which questions, and at most how many tokens each."""

import math
from collections.abc import Iterator, Sequence

import polars as pl

from dasd_assets.rules.checkpoints import CHAIN
from dasd_assets.rules.ids import rollout_id
from dasd_assets.rules.instructions import AS_ASKED
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.stored_tokens import OF_RESPONSES, require_tokens
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.recipe import MixedPolicy, Recipe
from dasd_resources.storage.lake import Lake, Reading, Row
from dasd_resources.storage.passes import ROWS_OF_OBJECTS
from dasd_resources.storage.tables import measured

ROLLOUTS_AT_ONCE = 1024
ROLLOUT_VERSION = "1"
ROLLOUTS = Rule(
    "rollouts",
    ROLLOUT_VERSION,
    (
        "name",
        "seed",
        "mixed_policy.num_questions",
        "mixed_policy.length_cap",
        "mixed_policy.rollout_temperature",
        "mixed_policy.rollout_top_p",
    ),
    (CHAIN,),
)


def length_cap(num_reference_tokens: int, cap: float) -> int:
    """⌈cap · length⌉ tokens; the product is rounded first, so that 1.1 · 50 gives 55 and not 56."""
    return math.ceil(round(cap * num_reference_tokens, 6))


def draw_questions(references: pl.DataFrame, num_questions: int | None, seed: int) -> pl.DataFrame:
    """One reference per question; of all questions, or of `num_questions` drawn by a hash of seed and prompt id."""
    ordered = sorted(references["prompt_id"].unique(), key=lambda key: content_hash([seed, "rollout", key]))
    drawn = references.filter(pl.col("prompt_id").is_in(ordered[:num_questions]))
    return drawn.unique("prompt_id", keep="first", maintain_order=True)


def wanted_rollouts(references: pl.DataFrame, checkpoint: str, policy: MixedPolicy) -> list[Row]:
    """Rows with rollout_id and max_tokens added.

    references: prompt_id, question, system_prompt, response_id, reference_num_tokens.
    """
    wanted: list[Row] = []
    for row in references.iter_rows(named=True):
        cap = length_cap(row["reference_num_tokens"], policy.length_cap)
        key = {
            "checkpoint_id": checkpoint,
            "prompt_id": row["prompt_id"],
            "reference_response_id": row["response_id"],
            "max_tokens": cap,
            "temperature": policy.rollout_temperature,
            "top_p": policy.rollout_top_p,
        }
        wanted.append({**row, "rollout_id": rollout_id(key), "max_tokens": cap})
    return wanted


def current_wanted(lake: Lake, recipe: Recipe, student: str, checkpoint: str) -> list[Row]:
    """The rollouts that a recipe asks of a checkpoint now, made or not. student: the fingerprint of the untrained one.

    The reference's length is that of its tokens that are in the text: end of turn (offset -1) excluded. Raises NoTokens
    if one has none yet. None where no teacher is here to continue them.
    """
    if ENGINES[recipe.teacher.engine].absent:
        return []
    with lake.reading() as reading:
        selected = reading.read(_SELECTED, {"recipe": recipe.name, "dataset": recipe.last_dataset})
        drawn = draw_questions(selected, recipe.mixed_policy.num_questions, recipe.seed)
        # Only now what they are, and how long: of earlier releases' rows, that is read off their tokens.
        found = reading.read(_REFERENCES, {"student": student, "ids": drawn["response_id"].to_list()})
    references = drawn.join(found, on="response_id", how="left", maintain_order="left")
    # A reference without tokens is an error: left out, it would silently take its question from the mixed dataset.
    require_tokens(references["reference_num_tokens"].count(), drawn.height, OF_RESPONSES.name)
    return wanted_rollouts(references, checkpoint, recipe.mixed_policy)


_SELECTED = """SELECT prompt_id, response_id FROM selected_responses SEMI JOIN prompts USING (prompt_id)
    WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das' ORDER BY rank, response_id"""
_REFERENCES = f"""SELECT s.response_id, {AS_ASKED} AS question, p.system_prompt,
        t.num_text_tokens AS reference_num_tokens
    FROM (SELECT DISTINCT response_id, prompt_id FROM selected_responses
            WHERE response_id IN (SELECT unnest($ids::VARCHAR[]))) s JOIN prompts p USING (prompt_id)
        LEFT JOIN (SELECT response_id, instruction FROM responses) a USING (response_id)
        LEFT JOIN (FROM {measured("student_tokens", "num_text_tokens", "response_id", "student_fingerprint")}
            WHERE student_fingerprint = $student AND response_id IN (SELECT unnest($ids::VARCHAR[]))) t
            USING (response_id)"""


def current_rollouts(lake: Lake, recipe: Recipe, student: str, checkpoint: str) -> pl.DataFrame:
    """The `student_rollouts` that a recipe wants now, in the order of rollout_id.

    Columns rollout_id, prompt_id, reference_num_tokens, cut_off; texts are left to `texts_of`.
    """
    ids = [row["rollout_id"] for row in current_wanted(lake, recipe, student, checkpoint)]
    query = """SELECT rollout_id, prompt_id, reference_num_tokens, cut_off
        FROM student_rollouts SEMI JOIN prompts USING (prompt_id)
        WHERE checkpoint_id = $checkpoint AND rollout_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY rollout_id"""
    return lake.read(query, {"checkpoint": checkpoint, "ids": ids})


def texts_of(reading: Reading, rollout_ids: Sequence[str], columns: str = "text") -> Iterator[Row]:
    """(rollout_id, text, or other columns) of these rollouts, in no order: one pass over the table, few in memory."""
    query = f"SELECT rollout_id, {columns} FROM student_rollouts WHERE rollout_id IN (SELECT unnest($ids::VARCHAR[]))"
    for part in reading.stream(query, {"ids": list(rollout_ids)}, ROLLOUTS_AT_ONCE):
        yield from part.iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS)


def asked_texts(lake: Lake, rollout_ids: Sequence[str]) -> Iterator[Row]:
    """(rollout_id, prompt_id, text, question, system_prompt) of these rollouts, in the order of their ids.

    A part is read at a time, as it is asked for: nothing stays open while an engine works on it.
    """
    for first in range(0, len(rollout_ids), ROLLOUTS_AT_ONCE):
        part = lake.read(_ASKED, {"ids": list(rollout_ids[first : first + ROLLOUTS_AT_ONCE])})
        yield from part.iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS)


_ASKED = f"""SELECT r.rollout_id, r.prompt_id, r.text, {AS_ASKED} AS question, p.system_prompt
    FROM (FROM student_rollouts WHERE rollout_id IN (SELECT unnest($ids::VARCHAR[]))) r JOIN prompts p USING (prompt_id)
        LEFT JOIN (SELECT response_id, instruction FROM responses) a ON a.response_id = r.reference_response_id
    ORDER BY r.rollout_id"""
