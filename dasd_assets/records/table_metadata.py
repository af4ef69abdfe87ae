"""Metadata of a table's asset for the web UI: columns with meaning and lineage, row counts, figures, sample rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from dasd_assets.records.code_versions import CodeVersion
from dasd_assets.records.column_lineage import Sources, column_lineage
from dasd_resources.storage.tables import declared
from dasd_resources.storage.warehouse import Warehouse

Figure = str | int | float | bool | dg.MetadataValue | None

NUM_SAMPLES = 3
CELL_CHARS = 72
INLINE_CHARS = 1000  # the web UI shows longer Markdown only in a dialog


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
        counts: dict[str, Figure] = {"dagster/row_count": num_rows}
        if "batch" in rows:
            counts = {"dagster/row_count": self._count(warehouse, rows), "num_rows_of_batch": num_rows}
        return {
            **counts,
            "dagster/column_lineage": self.lineage,
            **{name: tidy(value) for name, value in figures.items() if value is not None},
            **self.version.metadata,
            "sample": dg.MetadataValue.md(self._sample(warehouse, {**rows, **(shown or {})})),
        }

    def _count(self, warehouse: Warehouse, rows: Mapping[str, object]) -> int:
        """Rows of all batches, those since removed included."""
        others = {column: value for column, value in rows.items() if column != "batch"}
        return int(warehouse.read(f"SELECT count(*) FROM {self.name} WHERE {_equal(others)}", others).item())

    def _sample(self, warehouse: Warehouse, rows: Mapping[str, object]) -> str:
        columns = ", ".join(declared(self.name).sample_columns)
        query = f"SELECT {columns} FROM {self.name} WHERE {_equal(rows)} LIMIT {NUM_SAMPLES}"
        return markdown_table(warehouse.read(query, rows).to_dicts())


def _equal(rows: Mapping[str, object]) -> str:
    return " AND ".join(f"{column} = ${column}" for column in rows) or "TRUE"


def audited(command: str, query: str, snapshot_id: int) -> dict[str, Figure]:
    """Metadata for audits: the command that explains a row, a query of its lineage, and the snapshot that holds it."""
    return {
        "audit": dg.MetadataValue.md(f"`dasd audit {command}`"),
        "lineage": dg.MetadataValue.md(f'`dasd sql "{query}"`'),
        "snapshot_id": snapshot_id,
    }


def tidy(value: Figure) -> Figure:
    """A float rounded to four significant digits; any other value unchanged."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def markdown_table(rows: list[dict[str, object]]) -> str:
    """Rows as a Markdown table short enough for the web UI to show in place: long values cut, all of them as code."""
    if not rows:
        return "no rows"
    head = f"| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}"
    lines = [f"| {' | '.join(cell(value) for value in row.values())} |" for row in rows]
    while len(lines) > 1 and len(head) + sum(len(line) + 1 for line in lines) >= INLINE_CHARS:
        lines.pop()
    return "\n".join([head, *lines])


def cell(value: object) -> str:
    """A value as a code span in a table's cell, so that nothing in it acts as markup, link or line break."""
    if value is None:
        return "–"
    text = _text(value)
    text = text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padded = f" {text} " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else text
    return f"{fence}{padded}{fence}".replace("|", "\\|") if text.strip() else "–"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        begun = ", ".join(_text(item) for item in value[:4])
        return f"[{begun}]" if len(value) <= 4 else f"{len(value)} × [{begun}, …]"
    text = re.sub(r"\s*\n\s*", " ⏎ ", str(value))
    text = "".join(char if char.isprintable() else "�" for char in text)
    return text[:12] + "…" if re.fullmatch("[0-9a-f]{16,}", text) else text


def _origin(deps: Sequence[dg.TableColumnDep]) -> str:
    """Links to the columns a column comes from: the open-source web UI does not show lineage elsewhere."""
    columns: dict[str, list[str]] = {}
    for dep in deps:
        columns.setdefault(dep.asset_key.to_user_string(), []).append(f"`{dep.column_name}`")
    parts = [f"[{asset}](/assets/{asset}) {', '.join(names)}" for asset, names in columns.items()]
    return f" ← {'; '.join(parts)}" if parts else ""
