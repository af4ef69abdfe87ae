"""Who wrote a commit, and what a materialization holds: the commit message and the data version."""

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
    """Data version of a set of ids: equal if and only if the sets are, so that an unchanged table rebuilds nothing."""
    return dg.DataVersion(content_hash(sorted(str(key) for key in ids))[:16])
