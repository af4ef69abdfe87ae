"""The examples of a training set with all that is published of them, in the order of their ids."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dasd_assets.rules.asset_names import DAS, RANDOM
from dasd_assets.rules.checkpoints import stage, trained_names
from dasd_assets.rules.filters import CORRECTNESS, continuation_filter_version, filter_version
from dasd_assets.rules.instructions import AS_ASKED
from dasd_resources.landing.prompt_files import safe_stem
from dasd_resources.recipe import Export, Recipe
from dasd_resources.storage.passes import ROWS_OF_OBJECTS, passes
from dasd_resources.storage.warehouse import Reading, Row

EXAMPLES_AT_ONCE = 1024  # of 64K tokens: some 300 MB of text


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


def examples(reading: Reading, recipe: Recipe, settings: Export, config: Config, student: str) -> Iterator[Row]:
    """Rows of `_EXAMPLES`, with the metadata that may go out and the source; never all in memory.

    student: its fingerprint, with whose tokens lengths were judged.
    """
    params = {
        "recipe": recipe.name,
        "dataset": config.dataset,
        "policy": config.policy,
        "correctness": CORRECTNESS,
        "filter_version": filter_version(recipe, student),
        "continuation_filter_version": continuation_filter_version(recipe, student),
    }
    query = _EXAMPLES.format(logprobs=", r.token_ids, r.logprobs" if settings.logprobs else "")
    ids = reading.read(f"SELECT id, 1 FROM {_OF_CONFIG} ORDER BY id", params).rows()
    for first, last in passes(ids, EXAMPLES_AT_ONCE):
        for row in _rows(reading, query, {**params, "first": first, "last": last}):
            yield {**row, **_of_landed(row, settings), "messages": _messages(row, recipe)}


def _rows(reading: Reading, query: str, params: dict[str, object]) -> Iterator[Row]:
    for part in reading.stream(query, params, EXAMPLES_AT_ONCE):
        yield from part.iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS)


_OF_CONFIG = """(SELECT *, coalesce(response_id, continuation_id) AS id FROM sft_examples
        WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy)"""
# A verdict of a verifier is there or not (a question without one passes as `no_verifier`): then `correct` is NULL.
# `question` is the text that the student is trained on, with the instruction that the response was asked with.
_EXAMPLES = f"""
    WITH judged AS (
        SELECT response_id AS id, passed FROM response_verdicts WHERE filter = $correctness
            AND filter_version = $filter_version AND kind IS DISTINCT FROM 'no_verifier'
        UNION ALL SELECT continuation_id, passed FROM continuation_verdicts WHERE filter = $correctness
            AND filter_version = $continuation_filter_version AND kind IS DISTINCT FROM 'no_verifier')
    SELECT e.id, e.example_id, e.response_id, e.continuation_id,
        p.prompt_id, p.domain, {AS_ASKED} AS question, p.system_prompt, p.reference_answer, p.verifier, p.metadata,
        p.source_file, coalesce(r.text, c.text) AS text, length(c.prefix_text) AS num_prefix_characters,
        coalesce(r.temperature, c.temperature) AS temperature, coalesce(r.top_p, c.top_p) AS top_p, r.sample_index,
        coalesce(r.finish_reason, c.finish_reason) AS finish_reason,
        j.passed AS correct, s.score_name, s.score, s.rank, len(e.input_ids) AS num_tokens{{logprobs}}
    FROM (FROM {_OF_CONFIG} WHERE id BETWEEN $first AND $last) e
        LEFT JOIN (FROM responses WHERE response_id BETWEEN $first AND $last) r ON r.response_id = e.response_id
        LEFT JOIN (FROM teacher_continuations WHERE continuation_id BETWEEN $first AND $last) c
            ON c.continuation_id = e.continuation_id
        LEFT JOIN student_rollouts b ON b.rollout_id = c.rollout_id
        LEFT JOIN responses a ON a.response_id = coalesce(e.response_id, b.reference_response_id)
        LEFT JOIN prompts p ON p.prompt_id = coalesce(r.prompt_id, c.prompt_id)
        LEFT JOIN selected_responses s ON s.recipe = e.recipe AND s.dataset = e.dataset AND s.policy = e.policy
            AND s.response_id = e.response_id
        LEFT JOIN judged j ON j.id = e.id
    ORDER BY e.id"""


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
