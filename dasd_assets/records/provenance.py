"""What every commit and materialization says of itself: who wrote it, and what its content is."""

import json
from collections.abc import Iterable

import dagster as dg

from dasd_resources.content_hash import content_hash


def origin(context: dg.AssetExecutionContext) -> str:
    """The commit message of an asset's writes: asset, partition and Dagster run id, as JSON."""
    return json.dumps(
        {
            "asset": context.asset_key.to_user_string(),
            "partition": context.partition_key if context.has_partition_key else None,
            "run_id": context.run.run_id,
        }
    )


def content_version(ids: Iterable[object]) -> dg.DataVersion:
    """A data version that is equal exactly when the set of ids is, so that an unchanged table rebuilds nothing."""
    return dg.DataVersion(content_hash(sorted(str(key) for key in ids))[:16])
