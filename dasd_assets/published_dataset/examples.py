"""The examples of a training set with all that is published of them, in the order of their ids."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from dasd_assets.rules.asset_names import DAS, RANDOM
from dasd_assets.rules.checkpoints import stage, trained_names
from dasd_assets.rules.filters.catalogue import CORRECTNESS, continuation_filter_version, filter_version
from dasd_assets.rules.instructions import AS_ASKED
from dasd_assets.rules.verdict import DECIDED
from dasd_resources.errors import UserError
from dasd_resources.landing.prompt_files import safe_stem
from dasd_resources.recipe import Export, Recipe
from dasd_resources.storage.passes import MAX_PASSES, ROWS_OF_OBJECTS
from dasd_resources.storage.spool import in_order
from dasd_resources.storage.warehouse import Reading, Row

TEXTS_AT_ONCE = 128  # of 64K tokens: some 40 MB
EXAMPLES_AT_ONCE = 1024  # that are looked up at once, without their texts


class LostTexts(UserError, LookupError):
    """Responses or continuations that are trained on are gone; the message says how many."""


class QuestionsGone(UserError, LookupError):
    """Examples are of questions that are withdrawn, or no longer prompts; the message says how many."""


@dataclass(frozen=True)
class Config:
    """A training set as the hub names it: one of the recipe's datasets under a policy."""

    name: str
    dataset: str
    policy: str


def configs(reading: Reading, recipe: Recipe, settings: Export) -> list[Config]:
    """Those with examples, in the order of training; the controls last, if they are wanted.

    They are called as the datasets are, or, in the report's form, `stage1` and so on.
    """
    query = "SELECT DISTINCT dataset, policy FROM sft_examples WHERE recipe = $recipe"
    there = set(reading.read(query, {"recipe": recipe.name}).iter_rows())
    wanted = [(name, policy) for policy in (DAS, RANDOM) for name in trained_names(recipe)]
    return [
        _config(recipe, settings, dataset, policy)
        for dataset, policy in wanted
        if (dataset, policy) in there and (policy == DAS or settings.control)
    ]


def _config(recipe: Recipe, settings: Export, dataset: str, policy: str) -> Config:
    number = stage(recipe, dataset)
    assert number is not None, "only the teacher has no stage"
    name = f"stage{number}" if settings.form == "report" else dataset
    return Config(name if policy == DAS else f"{name}_{policy}", dataset, policy)


def examples(
    reading: Reading, recipe: Recipe, settings: Export, config: Config, student: str, folder: Path
) -> Iterator[Row]:
    """Rows of `_EXAMPLES` and `_TEXTS`, with the metadata that may go out and the source; never all in memory.

    student: its fingerprint, with whose tokens lengths were judged. folder: on whose disk the texts are put in order.
    Raises QuestionsGone before the first row, LostTexts, at the end, if one has none.
    """
    params = {
        "recipe": recipe.name,
        "dataset": config.dataset,
        "policy": config.policy,
        "correctness": CORRECTNESS,
        "filter_version": filter_version(recipe, student),
        "continuation_filter_version": continuation_filter_version(recipe, student),
    }
    lengths = reading.read(f"SELECT id, len(input_ids) AS num_tokens FROM {_OF_CONFIG} ORDER BY id", params)
    ids = lengths["id"]
    if num_gone := reading.read(_NUM_GONE, params).item():
        raise QuestionsGone(
            f"{num_gone:,} of {len(ids):,} examples of {config.name} are of questions that are withdrawn, or no "
            "longer prompts: `dasd run` makes the training sets without them; --at takes an earlier snapshot"
        )
    query = _TEXTS.format(logprobs=", token_ids, logprobs" if settings.logprobs else "")
    texts = reading.stream(query, {"ids": ids.to_list()}, TEXTS_AT_ONCE)
    num_rows, parts_of_pass = 0, ceil(max(EXAMPLES_AT_ONCE, len(ids) / MAX_PASSES) / TEXTS_AT_ONCE)
    with in_order(texts, "id", ids, TEXTS_AT_ONCE, str(folder)) as parts:
        for number, part in enumerate(parts):
            if number % parts_of_pass == 0:
                of_pass = ids[number * TEXTS_AT_ONCE : (number + parts_of_pass) * TEXTS_AT_ONCE]
                known = reading.read(_EXAMPLES, {**params, "first": of_pass[0], "last": of_pass[-1]})
            rows = part.join(known, on="id", maintain_order="left").join(lengths, on="id", maintain_order="left")
            num_rows += rows.height
            for row in rows.iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS):
                yield {**row, **_of_landed(row, settings), "messages": _messages(row, recipe)}
    if num_rows < len(ids):
        lost = f"{len(ids) - num_rows:,} of {len(ids):,} examples of {config.name} have no text"
        raise LostTexts(f"{lost}; `dasd audit verify` says which, and what to do")


_OF_CONFIG = """(SELECT *, coalesce(response_id, continuation_id) AS id FROM sft_examples
        WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy)"""
# One whose response or continuation is gone has no prompt_id, and is not counted here: it is a lost text.
_NUM_GONE = """SELECT count(*) FROM lineage_examples
    WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy AND prompt_id IS NOT NULL AND (
        prompt_id NOT IN (SELECT prompt_id FROM prompts) OR prompt_id IN (SELECT prompt_id FROM withdrawn_prompts))"""
# Where no verifier has decided whether an answer is right, `correct` is NULL.
# `question` is the text that the student is trained on, with the instruction that the response was asked with.
_EXAMPLES = f"""
    WITH judged AS (
        SELECT response_id AS id, passed FROM response_verdicts v WHERE response_id BETWEEN $first AND $last
            AND filter = $correctness AND filter_version = $filter_version AND {DECIDED}
        UNION ALL SELECT continuation_id, passed FROM continuation_verdicts v WHERE filter = $correctness
            AND filter_version = $continuation_filter_version AND {DECIDED})
    SELECT e.id, e.example_id, e.response_id, e.continuation_id,
        p.prompt_id, p.domain, {AS_ASKED} AS question, p.system_prompt, p.reference_answer, p.verifier, p.metadata,
        p.source_file, length(c.prefix_text) AS num_prefix_characters,
        coalesce(r.temperature, c.temperature) AS temperature, coalesce(r.top_p, c.top_p) AS top_p, r.sample_index,
        coalesce(r.finish_reason, c.finish_reason) AS finish_reason,
        j.passed AS correct, s.score_name, s.score, s.rank
    FROM (SELECT * EXCLUDE (input_ids, labels) FROM {_OF_CONFIG} WHERE id BETWEEN $first AND $last) e
        LEFT JOIN (FROM responses WHERE response_id BETWEEN $first AND $last) r ON r.response_id = e.response_id
        LEFT JOIN (FROM teacher_continuations WHERE continuation_id BETWEEN $first AND $last) c
            ON c.continuation_id = e.continuation_id
        LEFT JOIN student_rollouts b ON b.rollout_id = c.rollout_id
        LEFT JOIN responses a ON a.response_id = coalesce(e.response_id, b.reference_response_id)
        LEFT JOIN prompts p ON p.prompt_id = coalesce(r.prompt_id, c.prompt_id)
        LEFT JOIN selected_responses s ON s.recipe = e.recipe AND s.dataset = e.dataset AND s.policy = e.policy
            AND s.response_id = e.response_id
        LEFT JOIN judged j ON j.id = e.id"""
# What is long, read once: ids are hashes, so each part of them is spread over all files.
_TEXTS = """SELECT response_id AS id, text{logprobs} FROM responses
        WHERE response_id IN (SELECT unnest($ids::VARCHAR[]))
    UNION ALL BY NAME SELECT continuation_id AS id, text FROM teacher_continuations
        WHERE continuation_id IN (SELECT unnest($ids::VARCHAR[]))"""


def _of_landed(row: Row, settings: Export) -> Mapping[str, object]:
    """What of a question's metadata may go out, as JSON, and where the question comes from."""
    known = json.loads(row["metadata"] or "{}")
    kept = {key: known[key] for key in sorted(settings.metadata) if key in known}
    source = known.get(settings.source_key)
    return {
        "metadata": json.dumps(kept, ensure_ascii=False, sort_keys=True),
        "source": source if isinstance(source, str) and source else safe_stem(row["source_file"] or "unknown"),
    }


def _messages(row: Row, recipe: Recipe) -> list[dict[str, str]]:
    """The conversation that the student is trained on: its system prompt, the question, the canonical text."""
    system = recipe.student.system_prompt if row["system_prompt"] is None else row["system_prompt"]
    turns = [("system", system), ("user", row["question"]), ("assistant", row["text"])]
    return [{"role": role, "content": content} for role, content in turns if content is not None]
