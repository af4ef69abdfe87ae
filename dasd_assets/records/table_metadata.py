"""Metadata of a table's asset for the web UI: columns with meaning and lineage, row counts, figures, sample rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from dasd_assets.records.code_versions import CodeVersion
from dasd_assets.records.column_lineage import Sources, column_lineage
from dasd_assets.records.markdown import code_value, table, viewer_link
from dasd_resources.storage.tables import declared
from dasd_resources.storage.warehouse import Reading, Warehouse

Figure = str | int | float | bool | dg.MetadataValue | None

NUM_SAMPLES = 3
TEXT = "text"  # of the response that a sample row is of
VIEWER_LINK = "viewer"  # metadata: where `dasd view` shows it


@dataclass(frozen=True)
class TableAsset:
    """An asset's table, the assets that wrote the tables it is made from, and the code and recipe that make it."""

    name: str
    sources: Sources
    version: CodeVersion

    @property
    def lineage(self) -> dg.TableColumnLineage:
        return column_lineage(self.name, self.sources)

    @property
    def definition(self) -> dict[str, Figure | dg.TableSchema | dg.TableColumnLineage]:
        """Metadata of the definition."""
        lineage = self.lineage
        columns = [
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=column.meaning + _origin(lineage.deps_by_column.get(column.name, ())),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in declared(self.name).columns
        ]
        return {
            "dagster/table_name": f"dasd.{self.name}",
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "dagster/column_lineage": lineage,
            **self.version.metadata,
        }

    def part(self, rows: str) -> dict[str, Figure | dg.TableSchema | dg.TableColumnLineage]:
        """Metadata of the definition of one of several assets that share a table. rows: the SQL condition of its own.

        Without that condition two assets would have the same table name, and the web UI would show them as "linked".
        """
        return {**self.definition, "dagster/table_name": f"dasd.{self.name} WHERE {rows}"}

    def result(
        self,
        warehouse: Warehouse,
        num_rows: int,
        rows: Mapping[str, object],
        shown: Mapping[str, object] | None = None,
        /,
        **figures: Figure,
    ) -> dict[str, Figure | dg.TableColumnLineage]:
        """Metadata of a materialization: row counts, figures, and a few sample rows.

        rows: column -> value of the rows that are counted; the samples are some of them, equal also to `shown`.
        Where `batch` is among them, num_rows is that batch's, and the row count, which the web UI puts on top of the
        page, is of all batches together.
        """
        with warehouse.reading() as reading:
            counts: dict[str, Figure] = {"dagster/row_count": num_rows}
            if "batch" in rows:
                counts = {"dagster/row_count": self._count(reading, rows), "num_rows_of_batch": num_rows}
            sample = self._sample(reading, {**rows, **(shown or {})})
        return {
            **counts,
            **_seen(rows),
            "dagster/column_lineage": self.lineage,
            **{name: tidy(value) for name, value in figures.items() if value is not None},
            "sample": sample,
            **self.version.metadata,
        }

    def _count(self, reading: Reading, rows: Mapping[str, object]) -> int:
        """Rows of all batches, those since removed included."""
        others = {column: value for column, value in rows.items() if column != "batch"}
        return int(reading.read(f"SELECT count(*) FROM {self.name} WHERE {_equal(others)}", others).item())

    def _sample(self, reading: Reading, rows: Mapping[str, object]) -> dg.TableMetadataValue:
        columns = declared(self.name).sample_columns
        query = f"SELECT {', '.join(columns)} FROM {self.name} WHERE {_equal(rows)} LIMIT {NUM_SAMPLES}"
        found = reading.read(query, rows).to_dicts()
        if not found or "response_id" not in columns or self.name == "responses" or "responses" not in self.sources:
            return table(columns, found)
        # A row of numbers says little without the text that they are of.
        wanted = {"ids": [row["response_id"] for row in found], **{key: rows[key] for key in rows if key == "batch"}}
        asked = f"""SELECT response_id, any_value(text) FROM responses
            WHERE {"batch = $batch" if "batch" in rows else "TRUE"} AND response_id IN (SELECT unnest($ids::VARCHAR[]))
            GROUP BY ALL"""
        texts = dict(reading.read(asked, wanted).iter_rows())
        return table([*columns, TEXT], [{**row, TEXT: texts.get(row["response_id"])} for row in found])


def _seen(rows: Mapping[str, object]) -> dict[str, Figure]:
    """The viewer's page of these very rows, where it has one; that of the asset stands in its definition."""
    if "batch" in rows:
        return {VIEWER_LINK: viewer_link("explore", batch=rows["batch"])}
    if "checkpoint_id" in rows:
        return {VIEWER_LINK: viewer_link(f"checkpoint/{rows['checkpoint_id']}")}
    if "dataset" in rows:
        return {VIEWER_LINK: viewer_link("explore", chosen=rows["dataset"])}
    return {}


def _equal(rows: Mapping[str, object]) -> str:
    return " AND ".join(f"{column} = ${column}" for column in rows) or "TRUE"


def audited(command: str, query: str, snapshot_id: int) -> dict[str, Figure]:
    """Metadata for audits: the command that explains a row, a query of its lineage, and the snapshot that holds it."""
    return {
        "audit": code_value(f"dasd audit {command}"),
        "lineage": code_value(f'dasd sql "{query}"'),
        "snapshot_id": snapshot_id,
    }


def tidy(value: Figure) -> Figure:
    """A float rounded to four significant digits; any other value unchanged."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _origin(deps: Sequence[dg.TableColumnDep]) -> str:
    """Links to the columns a column comes from: the open-source web UI does not show lineage elsewhere."""
    columns: dict[str, list[str]] = {}
    for dep in deps:
        columns.setdefault(dep.asset_key.to_user_string(), []).append(f"`{dep.column_name}`")
    parts = [f"[{asset}](/assets/{asset}) {', '.join(names)}" for asset, names in columns.items()]
    return f" ← {'; '.join(parts)}" if parts else ""
