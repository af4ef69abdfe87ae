"""The described columns are those of a real catalog, and each has a meaning."""

from conftest import Project

from dasd_resources.storage.columns import COMMON, OF_TABLE, tables


def test_they_are_those_of_a_real_catalog(finished: Project) -> None:
    query = """SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
        WHERE database_name = 'dasd' AND table_name <> 'schema_version'
            AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'dasd')
        ORDER BY table_oid, column_index"""
    actual: dict[str, list[tuple[str, str, bool]]] = {}
    for table, *column in finished.read(query).iter_rows():
        actual.setdefault(table, []).append(tuple(column))
    assert {table: [(c.name, c.type, c.nullable) for c in columns] for table, columns in tables().items()} == actual


def test_each_has_a_meaning() -> None:
    assert [(table, c.name) for table, columns in tables().items() for c in columns if not c.description] == []


def test_no_description_is_of_a_column_that_is_gone() -> None:
    names = {table: {column.name for column in columns} for table, columns in tables().items()}
    assert set(COMMON) <= set().union(*names.values())
    for table, described in OF_TABLE.items():
        assert set(described) <= names[table]
