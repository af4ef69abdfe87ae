"""The tags of a materialization: versions of its inputs, and which of its rows failed and may be tried again.

Dagster itself writes the versions of code, data and inputs, one version per input. For an input of which an asset reads
all batches it cannot: the asset adds one tag with the hash of the batches' versions (`batches_tag`). `staleness`
compares the tags with the current versions.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import dagster as dg

from dasd_assets.records.materializations import Latest, latest_materializations
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.recipe import Model
from dasd_resources.storage.ledger import Ledger

DATA_VERSION_TAG = "dagster/data_version"
CODE_VERSION_TAG = "dagster/code_version"
INPUT_VERSION_TAG = "dagster/input_data_version/"  # + the input's name
INPUT_EVENT_TAG = "dagster/input_event_pointer/"  # + its name: its last event of any batch before the step
BATCHES_VERSION_TAG = "dasd.batches_version/"  # + the input's name
RETRY_TAG = "dasd.retry"
DROPPED_TAG = "dasd.dropped"  # on the event by which `dasd rescore` tells how many rows of a batch it has dropped
CONTEXT_TAG = "dasd.context"  # the contexts that some requests exceeded: worth an attempt once these are others
PERMANENT = "dasd.permanent"  # metadata of a step's failure that no further attempt can mend
EXPERIMENTS = "experiments"  # the group of assets that compare ways of training: made when asked for, never out of date
UPKEEP = "upkeep"  # the group of assets that serve the home, not the data: never out of date


def retry_tags(ledgers: Iterable[tuple[Ledger, Model]]) -> dict[str, str]:
    """The tags by which an asset reports rows that failed and can be tried again, now or with a longer context.

    ledgers: each with the model that it asked.
    """
    used = list(ledgers)
    num_retryable = sum(ledger.num_retryable for ledger, _ in used)
    contexts = sorted({context_of(model) for ledger, model in used if ledger.num_overflowed})
    again = {RETRY_TAG: str(num_retryable)} if num_retryable else {}
    return {**again, CONTEXT_TAG: ",".join(contexts)} if contexts else again


def failure(message: str, permanent: bool) -> dg.Failure:
    """A step's failure. permanent: no further attempt can mend it, so the planner makes none (`attempts.decide`)."""
    return dg.Failure(message, metadata={PERMANENT: True} if permanent else None, allow_retries=not permanent)


def context_of(model: Model) -> str:
    """Identifies what bounds a model's context besides its own files: engine, engine option, servers of both kinds."""
    option = ENGINES[model.engine].context_option
    limit = model.engine_options.get(option) if option else None
    scored_by = [] if model.scoring_server is None else [list(model.scoring_server.base_urls)]
    return content_hash([model.engine, limit, model.server and list(model.server.base_urls), *scored_by])[:12]


def batches_tag(instance: dg.DagsterInstance, asset: str, batches: list[str]) -> dict[str, str]:
    """The tag by which an asset that reads all batches records what it read; take it before reading."""
    return {BATCHES_VERSION_TAG + asset: batches_version(instance, asset, batches)}


def batches_version(instance: dg.DagsterInstance, asset: str, batches: list[str]) -> str:
    """Hash of the current data versions of these batches of an asset; None for one that was never made."""
    return hash_of_batches(latest_materializations(instance, {asset: True})[asset], batches)


def hash_of_batches(latest: Latest, batches: Sequence[str]) -> str:
    """The same, from materializations that are already read."""
    return hash_of_versions({batch: data_version(latest, batch) for batch in batches})


def hash_of_versions(versions: Mapping[str, str | None]) -> str:
    """Hash of an asset's data versions by batch; None stands for a batch that was never made."""
    return content_hash(versions)[:16]


def data_version(latest: Latest, batch: str | None) -> str | None:
    """Data version of an asset in a batch; None if it was never made."""
    return latest[batch].tags.get(DATA_VERSION_TAG) if batch in latest else None


@lru_cache(maxsize=2**17)
def recorded_versions(data_version: str) -> tuple[str, str]:
    """The two forms in which Dagster records an input's version: unchanged, or SHA-256 for a partition."""
    return data_version, hashlib.sha256(data_version.encode()).hexdigest()
