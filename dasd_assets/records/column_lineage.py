"""Dagster's column lineage, from the declared sources of a table's columns and the assets that wrote them."""

from collections.abc import Mapping, Sequence

import dagster as dg

from dasd_resources.storage.tables import declared

Sources = Mapping[str, str | Sequence[str]]  # table -> the asset or assets that wrote it


def column_lineage(table: str, sources: Sources) -> dg.TableColumnLineage:
    """The lineage of a table's columns in an asset that reads other tables from `sources`.

    Sources in tables that the asset does not read are left out. tests/test_declarations.py checks that `sources` are
    exactly the tables that the asset's queries touch.
    """
    columns = declared(table).columns
    deps = {column.name: _deps(column.sources, sources) for column in columns}
    return dg.TableColumnLineage(deps_by_column={column: found for column, found in deps.items() if found})


def _deps(parts: Sequence[str], sources: Sources) -> list[dg.TableColumnDep]:
    found = []
    for part in parts:
        table, _, column = part.partition(".")
        assets = sources.get(table, ())
        for asset in [assets] if isinstance(assets, str) else assets:
            found.append(dg.TableColumnDep(asset_key=dg.AssetKey(asset), column_name=column))
    return found
