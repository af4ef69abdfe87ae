"""Lineage names real columns of real ancestors, and a column taken over as it is holds only values of its source."""

from pathlib import Path

import dagster as dg
import pytest
from conftest import Project

from dasd_assets.definitions import build_definitions
from dasd_assets.records.dagster_internals import BaseAssetGraph
from dasd_assets.records.declaration import written_tables
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.tables import TABLES, declared


def graph_of(name: str) -> BaseAssetGraph:
    return build_definitions(load_recipe(name), Path("/nonexistent")).resolve_asset_graph()


def lineage(graph: BaseAssetGraph, key: dg.AssetKey) -> dict[str, list[tuple[dg.AssetKey, str]]]:
    found = graph.get(key).metadata["dagster/column_lineage"]
    assert isinstance(found, dg.TableColumnLineage)
    return {c: [(dep.asset_key, dep.column_name) for dep in deps] for c, deps in found.deps_by_column.items()}


def ancestors(graph: BaseAssetGraph, key: dg.AssetKey) -> set[dg.AssetKey]:
    parents = graph.get(key).parent_keys
    return set(parents).union(*[ancestors(graph, parent) for parent in parents])


def columns_of(graph: BaseAssetGraph, key: dg.AssetKey) -> set[str]:
    return {column for table in written_tables(graph.get(key)) for column in declared(table).column_names}


@pytest.mark.parametrize("name", ["demo", "dasd-4b"])
def test_every_source_is_a_column_of_an_asset_upstream(name: str) -> None:
    graph = graph_of(name)
    for key in graph.toposorted_asset_keys:
        if "dagster/column_lineage" in graph.get(key).metadata:
            above = ancestors(graph, key)
            for column, deps in lineage(graph, key).items():
                assert column in columns_of(graph, key)
                for source, source_column in deps:
                    assert source in above, (key, column)
                    assert source_column in columns_of(graph, source), (key, column)


def test_a_training_token_leads_back_to_the_question() -> None:
    """Following lineage up from the labels of a dataset reaches the landed question, and the other dataset never.

    But for the responses of the other: `student_tokens` has those of both, and lineage names whole tables.
    """
    graph = graph_of("demo")
    reached, waiting = set(), [(dg.AssetKey("sft_dataset_t060"), "labels")]
    while waiting:
        key, column = waiting.pop()
        reached.add((key.to_user_string(), column))
        waiting += lineage(graph, key).get(column, [])
    assert {("prompts", "question"), ("teacher_generations_t060", "text")} <= reached
    assert {asset for asset, _ in reached if asset.endswith("t100")} == {"teacher_generations_t100"}


def test_a_columns_own_name_upstream_means_the_same_values(finished: Project) -> None:
    compared = 0
    for table, declaration in TABLES.items():
        for column, sources in ((c.name, c.sources) for c in declaration.columns):
            for source in sources:
                source_table, _, source_column = source.partition(".")
                if source_column == column and len(sources) == 1:
                    query = (
                        f"SELECT count(*) FROM {table} WHERE {column} IS NOT NULL AND {column} NOT IN (FROM (SELECT "
                    )
                    query += f"{column} FROM {source_table} WHERE {column} IS NOT NULL))"
                    assert finished.read(query).item() == 0, (table, column, source)
                    compared += 1
    assert compared > 15
