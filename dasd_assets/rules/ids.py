"""Ids of examples, datasets and checkpoints, and the draw of off-policy rows: made by the stages, made again by audits.

Pure, and without Dagster: an audit is to answer sooner than that would load.
"""

from collections.abc import Iterable, Mapping

from dasd_resources.content_hash import content_hash


def example_id(source: Mapping[str, object], tokens: Mapping[str, object]) -> str:
    """Names an example's source (response_id or continuation_id) and every token and label of it."""
    ids = {"response_id": source.get("response_id"), "continuation_id": source.get("continuation_id")}
    return content_hash([ids, {"input_ids": tokens["input_ids"], "labels": tokens["labels"]}])[:32]


def sft_dataset_id(recipe: str, dataset: str, policy: str, example_ids: Iterable[str]) -> str:
    """Names a dataset by recipe, dataset and policy, and by its examples."""
    return content_hash([{"recipe": recipe, "dataset": dataset, "policy": policy}, sorted(example_ids)])[:16]


def selection_id(dataset: str, policy: str, selection_version: str, response_ids: Iterable[str]) -> str:
    """Names a selection by the rule that made it, and by its responses."""
    return content_hash([dataset, policy, selection_version, sorted(response_ids)])[:16]


def mixed_selection_id(dataset: str, recipe: str, response_ids: Iterable[str]) -> str:
    """Names the off-policy rows of the mixed-policy dataset."""
    return content_hash([dataset, recipe, sorted(response_ids)])[:16]


def off_policy_order(response_ids: Iterable[str], seed: int) -> list[str]:
    """In the order in which the mixed-policy dataset draws them: by a hash of seed and id."""
    return sorted(response_ids, key=lambda key: content_hash([seed, "off-policy", key]))


def checkpoint_id(parent: str, example_ids: Iterable[str], settings: str) -> str:
    """A checkpoint is its parent, the examples it saw (ids name their content) and the training settings."""
    return content_hash([parent, sorted(example_ids), settings])[:16]
