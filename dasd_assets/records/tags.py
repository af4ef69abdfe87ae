"""The tags of a materialization: what it was made from, what it read of all batches, how many of its rows failed.

Dagster writes code, data and input versions itself, one version per input. Of an input of which an asset reads all
batches it cannot: the asset adds one tag with the hash of the batches' versions (`batches_tag`). `staleness` compares
these tags with what there is now.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import dagster as dg

from dasd_assets.records.materializations import Latest, latest_materializations
from dasd_resources.content_hash import content_hash

DATA_VERSION_TAG = "dagster/data_version"
CODE_VERSION_TAG = "dagster/code_version"
INPUT_VERSION_TAG = "dagster/input_data_version/"  # + the input's name
INPUT_EVENT_TAG = "dagster/input_event_pointer/"  # + its name: its last event of any batch before the step
BATCHES_VERSION_TAG = "dasd.batches_version/"  # + the input's name
RETRY_TAG = "dasd.retry"
UPKEEP = "upkeep"  # the group of assets that serve the home, not the data: never out of date


def retry_tag(num_retryable: int) -> dict[str, str]:
    """The tag by which an asset reports that some of its rows failed, and are worth another attempt."""
    return {RETRY_TAG: str(num_retryable)} if num_retryable else {}


def batches_tag(instance: dg.DagsterInstance, asset: str, batches: list[str]) -> dict[str, str]:
    """The tag by which an asset that reads all batches records what it read; take it before reading."""
    return {BATCHES_VERSION_TAG + asset: batches_version(instance, asset, batches)}


def batches_version(instance: dg.DagsterInstance, asset: str, batches: list[str]) -> str:
    """Hash of the data versions that the named batches of an asset have now; missing ones count as such."""
    return hash_of_batches(latest_materializations(instance, {asset: True})[asset], batches)


def hash_of_batches(latest: Latest, batches: Sequence[str]) -> str:
    """The same, of materializations already read."""
    return hash_of_versions({batch: data_version(latest, batch) for batch in batches})


def hash_of_versions(versions: Mapping[str, str | None]) -> str:
    """Of an asset's batches: batch -> data version, None where it was never made."""
    return content_hash(versions)[:16]


def data_version(latest: Latest, batch: str | None) -> str | None:
    """Of an asset, in a batch; None if it was never made."""
    return latest[batch].tags.get(DATA_VERSION_TAG) if batch in latest else None


@lru_cache(maxsize=2**17)
def recordings(data_version: str) -> tuple[str, str]:
    """How Dagster writes an input's version: as it is, or hashed where the input is a partition."""
    return data_version, hashlib.sha256(data_version.encode()).hexdigest()
