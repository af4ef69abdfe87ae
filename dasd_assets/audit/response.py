"""A response, from the landed line to the checkpoints that learned from it; and a training example, by its source."""

from collections.abc import Mapping, Sequence

from dasd_assets.audit.prompt import Record, prompt_record, question_record
from dasd_assets.audit.ranking import selections
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_assets.rules.typed_ids import find_id
from dasd_resources.storage.lake import Reading


def audit_response(reading: Reading, response_id: str) -> Record:
    """Everything known of a response, each fact with the Dagster run that wrote it (`run_id`)."""
    itself = response_record(reading, response_id)
    made: Record = itself["generation"]
    key = {"id": response_id, "batch": made["batch"]}
    domain = itself["prompt"].get("domain")
    return {
        "response_id": response_id,
        "prompt": prompt_record(reading, made["prompt_id"]),
        "generation": made,
        "landed": reading.read(_LANDED, {"landed": made["landed_id"]}).to_dicts(),
        "teacher": _teacher(reading, made["teacher_fingerprint"]),
        "text": itself["text"],
        "verdicts": itself["verdicts"],
        "student_tokens": reading.read(_TOKENS, key).to_dicts(),
        "student_logprobs": reading.read(_STUDENT, key).to_dicts(),
        "sentences": itself["sentences"],
        "scores": itself["scores"],
        "selections": selections(reading, {"response_id": response_id, **made}, itself["verdicts"], domain),
        **learned_from(reading, response_id),
    }


def response_record(reading: Reading, typed: str) -> Record:
    """A response itself: its question, text, verdicts, sentences and scores. typed: its id, or the beginning of it."""
    key = located(reading, typed)
    response = reading.read(_RESPONSE, key).row(0, named=True)
    return {
        "response_id": key["id"],
        "prompt": question_record(reading, response["prompt_id"], key["batch"]),
        "generation": {k: v for k, v in response.items() if k not in ("response_id", "text")},
        "text": response["text"],
        "verdicts": reading.read(_VERDICTS, key).to_dicts(),
        "sentences": _sentences(reading, key, response["text"]),
        "scores": reading.read(_SCORES, key).to_dicts(),
    }


def located(reading: Reading, typed: str) -> dict[str, str]:
    """Id and batch of a response: all else is looked up in its batch's own files, the id in all of them, once."""
    found = reading.read(_BATCH, {"id": typed})
    if found.is_empty():  # not a whole id
        typed = find_id(reading, "response", typed)
        found = reading.read(_BATCH, {"id": typed})
    return {"id": typed, "batch": found.item(0, 0)}


def learned_from(reading: Reading, response_id: str) -> Record:
    """What holds a response or was measured against it: examples, checkpoints, rollouts."""
    return {
        "examples": reading.read(_EXAMPLES, {"id": response_id}).to_dicts(),
        "checkpoints": reading.read(_CHECKPOINTS, {"id": response_id}).to_dicts(),
        "rollouts": reading.read(_ROLLOUTS, {"id": response_id}).to_dicts(),
    }


def audit_selections(reading: Reading, key: Mapping[str, str]) -> list[Record]:
    """Of a response, only in which datasets it is, or why it is not. key: of `located`."""
    response = reading.read(_RESPONSE, key).row(0, named=True)
    query = "SELECT domain FROM prompts WHERE prompt_id = $id AND batch = $batch"
    domains = reading.read(query, {"id": response["prompt_id"], "batch": key["batch"]})["domain"].to_list()
    return selections(reading, response, reading.read(_VERDICTS, key).to_dicts(), domains[0] if domains else None)


def audit_example(reading: Reading, example_id: str) -> Record:
    """A training example: the datasets and checkpoints that hold it, and the response or continuation it is made of."""
    now = reading.read(_EXAMPLE, {"id": example_id}).to_dicts()
    learned = reading.read(_TRAINED_ON, {"id": example_id}).to_dicts()
    source = (now or learned)[0]
    record: Record = {
        "example_id": example_id,
        "response_id": source["response_id"],
        "continuation_id": source["continuation_id"],
        "datasets": now,
        "checkpoints": learned,
    }
    if source["response_id"] is not None:
        return {**record, "response": audit_response(reading, source["response_id"])}
    return {**record, **audit_continuation(reading, source["continuation_id"])}


def audit_continuation(reading: Reading, continuation_id: str) -> Record:
    """A continuation back to its cut, rollout, checkpoint, reference response and question."""
    key = {"id": continuation_id}
    continuation = reading.read(_CONTINUATION, key).row(0, named=True)
    return {
        "continuation": continuation,
        "cut": reading.read(_CUT, {"id": continuation["rollout_id"]}).to_dicts(),
        "rollout": rollout_record(reading, continuation["rollout_id"]),
        "verdicts": reading.read(_CONTINUATION_VERDICTS, key).to_dicts(),
        "teacher": _teacher(reading, continuation["teacher_fingerprint"]),
        "prompt": prompt_record(reading, continuation["prompt_id"]),
    }


def rollout_record(reading: Reading, rollout_id: str) -> Record | None:
    """A rollout of the student; None where there is none of this id."""
    return next(iter(reading.read(_ROLLOUT, {"id": rollout_id}).to_dicts()), None)


def _teacher(reading: Reading, fingerprint: str) -> list[Record]:
    """Where the model of that fingerprint is registered: recipe, folder, run."""
    query = "SELECT recipe, path, run_id FROM checkpoints WHERE checkpoint_id = $id AND name = 'teacher' ORDER BY ALL"
    return reading.read(query, {"id": fingerprint}).to_dicts()


def _sentences(reading: Reading, key: Record, text: str) -> list[Record]:
    """The sentences under each student and segmenter version, with their type under each threshold version."""
    rows = reading.read(_SENTENCES, key).to_dicts()
    types = reading.read(_TYPES, key).to_dicts()
    known: dict[tuple[str, int], dict[str, Record]] = {}
    for row in types:
        kinds = known.setdefault((row["student_fingerprint"], row["sentence_index"]), {})
        kinds[row["threshold_version"]] = {"sentence_type": row["sentence_type"], "threshold": row["threshold"]}
    return [
        {
            **row,
            "text": text[row["start"] : row["stop"]],
            "types": known.get((row["student_fingerprint"], row["sentence_index"]), {}),
        }
        for row in rows
    ]


def typed_sentences(rows: Sequence[Record], student: str | None, version: str | None) -> list[Record]:
    """The sentences under this student, else under another; of today's segmenter, else of an earlier one.

    rows: `sentences` of `audit_response`. version: of the threshold by which `kind` is the type. Whose they are is in
    `student_fingerprint`.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for row in rows:
        groups.setdefault((row["student_fingerprint"], row["segmenter_version"]), []).append(row)
    best = max(groups, key=lambda group: (group[0] == student, group[1] == SEGMENTER_VERSION), default=("", ""))
    return [
        {**row, "kind": row["types"].get(version, {}).get("sentence_type") or "untyped"}
        for row in sorted(groups.get(best, []), key=lambda row: int(row["sentence_index"]))
    ]


_BATCH = "SELECT batch FROM responses WHERE response_id = $id"
_RESPONSE = """SELECT * EXCLUDE (token_ids, logprobs, offsets, num_tokens, mean_logprob), len(token_ids) AS num_tokens,
    list_sum(logprobs::DOUBLE[]) AS sum_logprob
    FROM responses WHERE response_id = $id AND batch = $batch"""
_OF_RESPONSE = "WHERE response_id = $id AND batch = $batch ORDER BY ALL"
_LANDED = """SELECT batch, source_file, source_line, item, sample, run_id FROM landed_responses
    WHERE landed_id = $landed ORDER BY ALL"""
_VERDICTS = f"SELECT filter_version, filter, passed, kind, reason, run_id FROM response_verdicts {_OF_RESPONSE}"
_TOKENS = f"""SELECT student_fingerprint, num_prompt_tokens, len(token_ids) AS num_tokens, kind, reason, run_id
    FROM student_tokens {_OF_RESPONSE}"""
_STUDENT = f"""SELECT student_fingerprint, engine, dtype, len(logprobs) AS num_tokens,
    list_sum(logprobs::DOUBLE[]) AS sum_logprob, run_id FROM student_logprobs {_OF_RESPONSE}"""
_SENTENCES = f"""SELECT student_fingerprint, segmenter_version, sentence_index, start, stop, teacher_prob, student_prob,
    teacher_sum_logprob, teacher_num_tokens, student_sum_logprob, student_num_tokens, run_id
    FROM sentence_probabilities {_OF_RESPONSE}"""
_TYPES = f"""SELECT student_fingerprint, threshold_version, sentence_index, sentence_type, threshold
    FROM sentence_types {_OF_RESPONSE}"""
_SCORES = f"""SELECT student_fingerprint, threshold_version, score_name, score, num_sentences, run_id
    FROM response_scores {_OF_RESPONSE}"""
_EXAMPLES = """SELECT recipe, dataset, policy, example_id, dataset_id, len(input_ids) AS num_tokens, snapshot_id, run_id
    FROM sft_examples WHERE response_id = $id ORDER BY ALL"""
_TRAINED = """SELECT DISTINCT c.checkpoint_id, c.recipe, c.name, c.stage, c.dataset, c.snapshot_id,
    e.example_id, e.response_id, e.continuation_id, c.run_id
    FROM checkpoint_examples e JOIN checkpoints c USING (checkpoint_id)"""
_CHECKPOINTS = f"{_TRAINED} WHERE e.response_id = $id ORDER BY ALL"
_TRAINED_ON = f"{_TRAINED} WHERE e.example_id = $id ORDER BY ALL"
_EXAMPLE = """SELECT recipe, dataset, policy, example_id, response_id, continuation_id, dataset_id,
    len(input_ids) AS num_tokens, len(list_filter(labels, lambda t: t >= 0)) AS num_loss_tokens, snapshot_id, run_id
    FROM sft_examples WHERE example_id = $id ORDER BY ALL"""
_ROLLOUTS = """SELECT rollout_id, checkpoint_id, cut_off, run_id FROM student_rollouts
    WHERE reference_response_id = $id ORDER BY ALL"""
_CONTINUATION = """SELECT * EXCLUDE (token_ids, logprobs, offsets, num_tokens), len(token_ids) AS num_tokens
    FROM teacher_continuations WHERE continuation_id = $id"""
_ROLLOUT = """SELECT * EXCLUDE (token_ids, logprobs, offsets, num_tokens), len(token_ids) AS num_tokens
    FROM student_rollouts WHERE rollout_id = $id"""
_CUT = "SELECT * FROM prefix_cuts WHERE rollout_id = $id ORDER BY ALL"
_CONTINUATION_VERDICTS = """SELECT filter_version, filter, passed, kind, reason, run_id FROM continuation_verdicts
    WHERE continuation_id = $id ORDER BY ALL"""
