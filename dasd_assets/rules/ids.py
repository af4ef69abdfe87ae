"""Ids and seeds of rows, hashed from everything that decides them; and the draw of off-policy rows.

An id is the hash of everything that decides its row and of nothing else: neither engine nor batch nor order. Rows with
one id are the same row, which is what makes ledgers, retries and additional candidates safe.
"""

from collections.abc import Iterable, Mapping

from dasd_resources.content_hash import content_hash

RESPONSE_ID_FIELDS = (
    "prompt_id",
    "teacher_fingerprint",
    "template_version",
    "system_prompt",
    "temperature",
    "top_p",
    "max_tokens",
    "sample_index",
)
IMPORTED_ID_FIELDS = (
    "landed_id",
    "teacher_fingerprint",
    "template_version",
    "temperature",
    "top_p",
    "max_tokens",
)
ROLLOUT_ID_FIELDS = ("checkpoint_id", "prompt_id", "reference_response_id", "max_tokens", "temperature", "top_p")
CONTINUATION_ID_FIELDS = (
    "rollout_id",
    "prefix_text",
    "teacher_fingerprint",
    "temperature",
    "top_p",
    "max_response_tokens",
)
EVALUATION_ID_FIELDS = (
    "checkpoint_id",
    "benchmark",
    "temperature",
    "top_p",
    "max_tokens",
    "question_id",
    "sample_index",
    "verifier_version",
)
SEEDED_WITH = "2, math-verify 0.9.0"  # the verifiers that the seeds of answers held when they held any


def seed_of(row_id: str) -> int:
    """A 62-bit seed that depends on the row alone, so that neither order nor batching moves its noise."""
    return int(content_hash(["seed", row_id])[:16], 16) >> 2


def response_id(key: Mapping[str, object]) -> str:
    """Hash of everything that decides a response; key: the columns of its row, and the teacher's system_prompt.

    An instruction counts where there is one, so that ids from before there were any stay.
    """
    return content_hash({name: key[name] for name in RESPONSE_ID_FIELDS} | _where_given(key, "instruction"))[:32]


def _where_given(key: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: key[name] for name in names if key.get(name) is not None}


def imported_response_id(key: Mapping[str, object]) -> str:
    """Hash of everything that decides an imported response; key: the columns of its row."""
    return content_hash(["landed response", {name: key[name] for name in IMPORTED_ID_FIELDS}])[:32]


def rollout_id(key: Mapping[str, object]) -> str:
    """Hash of everything that decides a rollout; key: the columns of its row."""
    return content_hash([key[name] for name in ROLLOUT_ID_FIELDS])[:32]


def continuation_id(key: Mapping[str, object]) -> str:
    """Hash of everything that decides a continuation; key: the columns of its row."""
    return content_hash([key[name] for name in CONTINUATION_ID_FIELDS])[:32]


def evaluation_id(key: Mapping[str, object]) -> str:
    """Hash of everything that decides an answer and how it is judged; key: the columns of its row.

    An instruction, and a judge that the question's id does not hold, count where there is one, so that ids from before
    there were any stay.
    """
    known = {name: key[name] for name in EVALUATION_ID_FIELDS} | _where_given(key, "instruction", "judged_by")
    return content_hash([known, key["template_version"]])[:32]


def answer_seed(key: Mapping[str, object]) -> int:
    """The seed of an answer, of what decides it alone: whoever judges it, a model that is asked anew says the same.

    key: as for `evaluation_id`.
    """
    return seed_of(evaluation_id({**key, "verifier_version": SEEDED_WITH, "judged_by": None}))


def example_id(source: Mapping[str, object], tokens: Mapping[str, object]) -> str:
    """Hash of an example's source (response_id or continuation_id) and every token and label of it."""
    ids = {"response_id": source.get("response_id"), "continuation_id": source.get("continuation_id")}
    return content_hash([ids, {"input_ids": tokens["input_ids"], "labels": tokens["labels"]}])[:32]


def sft_dataset_id(recipe: str, dataset: str, policy: str, example_ids: Iterable[str]) -> str:
    """Hash of recipe, dataset and policy, and of the examples."""
    return content_hash([{"recipe": recipe, "dataset": dataset, "policy": policy}, sorted(example_ids)])[:16]


def selection_id(dataset: str, policy: str, selection_version: str, response_ids: Iterable[str]) -> str:
    """Hash of the rule that selected, and of the selected responses."""
    return content_hash([dataset, policy, selection_version, sorted(response_ids)])[:16]


def mixed_selection_id(dataset: str, recipe: str, response_ids: Iterable[str]) -> str:
    """Hash of the off-policy rows of the mixed-policy dataset."""
    return content_hash([dataset, recipe, sorted(response_ids)])[:16]


def off_policy_order(response_ids: Iterable[str], seed: int) -> list[str]:
    """The ids in the order in which the mixed-policy dataset draws them: by a hash of seed and id."""
    return sorted(response_ids, key=lambda key: content_hash([seed, "off-policy", key]))


def checkpoint_id(parent: str, example_ids: Iterable[str], settings: str) -> str:
    """Hash of the parent, the examples (whose ids are hashes of their content) and the training settings."""
    return content_hash([parent, sorted(example_ids), settings])[:16]
