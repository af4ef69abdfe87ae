"""Keys, references and rules of rows: what a query finds, table by table, from how the tables are declared."""

from collections.abc import Iterator
from dataclasses import dataclass

from dasd_assets.audit.files import AGAIN, REMEDIES, Fault
from dasd_assets.audit.verify.sampling import by_batches
from dasd_assets.rules.candidates import JUDGED
from dasd_resources.storage.lake import Params, Reading
from dasd_resources.storage.tables import TABLES, Reference, Table


@dataclass(frozen=True)
class RowRule:
    """A rule for rows of tables with these columns: `what` a message.

    fault: the SQL condition that breaks it; v is the table.
    """

    columns: tuple[str, ...]
    what: str
    fault: str


ROW_RULES = (
    RowRule(
        ("token_ids", "logprobs", "offsets"),
        "its token ids, logprobs and offsets differ in number",
        "len(token_ids) <> len(logprobs) OR len(token_ids) <> len(offsets)",
    ),
    RowRule(
        ("token_ids", "num_prompt_tokens", "offsets", "kind"),
        "its tokens are missing without a reason, are there despite one, or do not match its offsets in number",
        """(kind IS NULL) <> (token_ids IS NOT NULL AND num_prompt_tokens IS NOT NULL AND offsets IS NOT NULL)
            OR len(token_ids) <> num_prompt_tokens + len(offsets)""",
    ),
    *(
        RowRule(
            table.column_names,
            f"its {column.name} is not that of its lists",
            f"{column.name} IS NOT NULL AND {column.name} IS DISTINCT FROM {column.computed}",
        )
        for table in TABLES.values()
        for column in table.columns
        if column.computed
    ),
    RowRule(
        ("logprobs",),
        "it has a logprob that is above 0 or not finite",
        "NOT coalesce(list_max(logprobs) <= 0 AND isfinite(list_min(logprobs)), len(logprobs) = 0)",
    ),
    RowRule(
        ("text", "offsets"),
        "an offset lies outside its text",
        "coalesce(list_max(offsets) >= length(text) OR list_min(offsets) < -1, FALSE)",
    ),
    RowRule(("input_ids", "labels"), "its token ids and labels differ in number", "len(input_ids) <> len(labels)"),
    RowRule(
        ("filter", "passed", "kind", "reason"),
        "it passes for a reason, or fails without one",
        f"passed = (kind IS NOT NULL AND {JUDGED}) OR (kind IS NULL) <> (reason IS NULL)",
    ),
    RowRule(
        ("correct", "kind", "reason"),
        "it passes for a reason, or fails without one",
        "correct = (kind IS NOT NULL) OR (kind IS NULL) <> (reason IS NULL)",
    ),
)


def doubled(reading: Reading, table: Table) -> Iterator[Fault]:
    """Keys of several rows. Where a reference says of which batch a row is, one in two batches is its fault."""
    key = ", ".join(table.key)
    in_one_batch = "batch" in table.key or any("batch" in reference.columns for reference in table.references)
    for where, params in by_batches(reading, table.name) if in_one_batch else _ONE_PASS:
        # Hashes take a tenth of the keys' memory; whether the keys of equal ones are equal is then seen.
        query = f"""SELECT {key}, count(*) AS num FROM {table.name} WHERE {where} AND hash({key}) IN (
                SELECT hash({key}) FROM {table.name} WHERE {where} GROUP BY ALL HAVING count(*) > 1)
            GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL"""
        for row in reading.read(query, params).iter_rows(named=True):
            name = " ".join(str(value) for column, value in row.items() if column != "num")
            yield Fault(table.name, name, f"there are {row['num']} rows of this key", AGAIN)


def orphans(reading: Reading, table: Table, reference: Reference) -> Iterator[Fault]:
    """Rows whose parent is missing; a withdrawn or retired question is no missing one, nor is where none is named."""
    known = """UNION ALL SELECT prompt_id FROM withdrawn_prompts
        UNION ALL SELECT retired_id FROM prompt_lines WHERE retired_id IS NOT NULL"""
    withdrawn = known if reference.table == "prompts" else ""
    pairs = zip(reference.parent, reference.columns, strict=True)
    columns, names = ", ".join(reference.columns), ", ".join(f"{name} AS {column}" for name, column in pairs)
    in_one_batch = "batch" in reference.columns and not reference.parent_columns
    both = by_batches(reading, table.name, reference.table)
    for where, params in both if in_one_batch else _ONE_PASS:
        query = f"""SELECT DISTINCT {columns} FROM (FROM {table.name} WHERE {where})
            ANTI JOIN (SELECT {names} FROM {reference.table} WHERE {where} {withdrawn}) USING ({columns})
            WHERE {reference.columns[0]} IS NOT NULL ORDER BY ALL"""
        for row in reading.read(query, params).iter_rows(named=True):
            name = " ".join(f"{column} {value}" for column, value in row.items())
            yield Fault(table.name, name, f"{reference.table} has no such row", AGAIN)


_ONE_PASS: tuple[tuple[str, Params], ...] = (("TRUE", {}),)


def wrong(reading: Reading, table: Table) -> Iterator[Fault]:
    """Rows that break a rule for the columns they have."""
    name = " || ' ' || ".join(table.row_name)
    for rule in ROW_RULES:
        if table.has(*rule.columns):
            query = f"SELECT {name} AS id FROM {table.name} v WHERE {rule.fault} ORDER BY id"
            for row in reading.read(query).iter_rows(named=True):
                yield Fault(table.name, str(row["id"]), rule.what, REMEDIES.get(table.name, AGAIN))
