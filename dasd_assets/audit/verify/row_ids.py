"""Ids and seeds again, from the columns that decide them."""

import json
from collections.abc import Callable, Iterator, Mapping

from dasd_assets.audit.checkpoint import document
from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.prompt import Record
from dasd_assets.audit.verify.sampling import CHUNK, drawn
from dasd_assets.rules.answers import answer_logprobs_id
from dasd_assets.rules.heldout_responses import heldout_logprobs_id
from dasd_assets.rules.ids import (
    CONTINUATION_ID_FIELDS,
    EVALUATION_ID_FIELDS,
    RESPONSE_ID_FIELDS,
    ROLLOUT_ID_FIELDS,
    continuation_id,
    evaluation_id,
    example_id,
    imported_response_id,
    response_id,
    rollout_id,
    seed_of,
)
from dasd_resources.landing.question_identity import judged_question_id, question_key
from dasd_resources.landing.response_files import landed_response_id
from dasd_resources.storage.lake import Reading
from dasd_resources.storage.tables import TABLES


def rehashed(
    reading: Reading,
    table: str,
    columns: str,
    made: Callable[[Record], Mapping[str, object]],
    sample: int | None,
    say: Callable[[str], None],
) -> Iterator[Fault]:
    """Rows whose ids or seeds are not those that their content gives.

    made: row -> the values it should have; none for a row that does not hold what would be needed.
    """
    key, num_unknown = columns.split(", ")[0], 0
    for chunk in reading.stream(f"SELECT {columns} FROM {drawn(table, key, sample)}", {}, CHUNK):
        for row in chunk.iter_rows(named=True):
            again = made(row)
            num_unknown += TABLES[table].key == (key,) and key not in again
            for name, value in again.items():
                if row[name] != value:
                    yield Fault(table, str(row[key]), f"its {name} is {row[name]}, its content gives {value}", AGAIN)
    if num_unknown:
        say(f"  {num_unknown:,} rows of {table} are of an earlier release, which did not record all that made their id")


def responses(reading: Reading, sample: int | None, say: Callable[[str], None]) -> Iterator[Fault]:
    """Ids of responses; the teacher's system prompt is in the recipe that its model was registered with."""
    query = "SELECT checkpoint_id, recipe_document FROM checkpoints WHERE name = 'teacher'"
    rows = reading.read(query).to_dicts()
    recipes = {row["checkpoint_id"]: document(row, "recipe_document", []) for row in rows}
    prompts = {
        key: recipe["teacher"]["system_prompt"] for key, recipe in recipes.items() if recipe and "teacher" in recipe
    }

    def made(row: Record) -> Mapping[str, object]:
        seed = {"seed": seed_of(row["response_id"])}
        if row["landed_id"] is not None:
            return {"response_id": imported_response_id(row), **seed}
        if row["teacher_fingerprint"] not in prompts:
            return seed
        again = {**row, "system_prompt": prompts[row["teacher_fingerprint"]]}
        return {"response_id": response_id(again), **seed}

    fields = [name for name in RESPONSE_ID_FIELDS if name != "system_prompt"]
    columns = ", ".join(["response_id", "seed", "landed_id", "instruction", *fields])
    yield from rehashed(reading, "responses", columns, made, sample, say)


def _rollout(row: Record) -> Mapping[str, object]:
    identity = rollout_id(row)
    return {"rollout_id": identity, "seed": seed_of(identity)}


def _continuation(row: Record) -> Mapping[str, object]:
    seed = {"seed": seed_of(row["continuation_id"])}
    return seed if row["max_response_tokens"] is None else {"continuation_id": continuation_id(row), **seed}


def _evaluation(row: Record) -> Mapping[str, object]:
    return {} if row["template_version"] is None else {"evaluation_id": evaluation_id(row)}


def _prompt(row: Record) -> Mapping[str, object]:
    """By the formula of the release that landed it: `prompts` of an earlier one get their key when next made."""
    question = row["question"], row["system_prompt"]
    if row["question_key"] is None:
        return {"prompt_id": judged_question_id(*question, row["domain"], row["verifier"], row["reference_answer"])}
    key = question_key(*question)
    fields = row["id_fields"]
    return {"prompt_id": judged_question_id(*question, *json.loads(fields)) if fields else key, "question_key": key}


def _landed(row: Record) -> Mapping[str, object]:
    parts = (row["prompt_id"], row["sample_uuid"], row["temperature"], row["finish_reason"], row["text"])
    return {"landed_id": landed_response_id(*parts)}


_PROMPT = "prompt_id, question, system_prompt, domain, verifier, reference_answer, question_key, id_fields"
_EVALUATION = ", ".join(["evaluation_id", "template_version", "instruction", "judged_by", *EVALUATION_ID_FIELDS])
HASHED: tuple[tuple[str, str, Callable[[Record], Mapping[str, object]]], ...] = (
    ("prompts", _PROMPT, _prompt),
    ("landed_responses", "landed_id, sample_uuid, prompt_id, temperature, finish_reason, text", _landed),
    (
        "student_rollouts",
        ", ".join(["rollout_id", "seed", *ROLLOUT_ID_FIELDS]),
        _rollout,
    ),
    ("prefix_cuts", "rollout_id, seed", lambda r: {"seed": seed_of(f"cut {r['rollout_id']}")}),
    ("teacher_continuations", ", ".join(["continuation_id", "seed", *CONTINUATION_ID_FIELDS]), _continuation),
    *((table, _EVALUATION, _evaluation) for table in ("evaluations", "evaluation_requests")),
    (
        "answer_logprobs",
        "answer_logprobs_id, answer_id, checkpoint_id",
        lambda r: {"answer_logprobs_id": answer_logprobs_id(r["answer_id"], r["checkpoint_id"])},
    ),
    (
        "heldout_logprobs",
        "heldout_logprobs_id, response_id, checkpoint_id",
        lambda r: {"heldout_logprobs_id": heldout_logprobs_id(r["response_id"], r["checkpoint_id"])},
    ),
    (
        "sft_examples",
        "example_id, response_id, continuation_id, input_ids, labels",
        lambda r: {"example_id": example_id(r, r)},
    ),
)
