"""Every table of the warehouse, declared once: read this package to know what there is.

| module | tables of |
| --- | --- |
| `inputs` | questions as they landed |
| `imports` | responses that landed |
| `responses` | the teacher's responses, and what is found out about each |
| `datasets` | what is selected and trained on |
| `mixed_policy` | rollouts, cuts and continuations |
| `models` | checkpoints and their evaluations |
| `answers` | the checkpoints' answers, scored by three models |
| `comparisons` | what experiments found |
| `heldout` | teacher responses that were not trained on, scored by each checkpoint |
| `experiments` | which checkpoint each arm has under each seed |
| `service` | what the service remembers |
| `recurring` | columns that several of them have |
| `table` | how a table is declared |

To add a table, or a column that may be NULL, add it here and do nothing else: a catalog that lacks it gets it when it
is opened (`storage.schema`); the checks of `dasd audit verify`, the web UI, the summary and `docs/tables.md` follow.
A column that may not be NULL, or another name or type, also needs a step in `storage.migrations`.
"""

from dasd_resources.storage.tables import (
    answers,
    comparisons,
    datasets,
    experiments,
    heldout,
    imports,
    inputs,
    mixed_policy,
    models,
    responses,
    service,
)
from dasd_resources.storage.tables.table import Column, Reference, Table, TableError, check

__all__ = ["TABLES", "Column", "Reference", "Table", "TableError", "check", "declared", "measured", "owned_by"]

_SUBJECTS = (
    inputs,
    imports,
    responses,
    datasets,
    mixed_policy,
    models,
    answers,
    heldout,
    experiments,
    comparisons,
    service,
)
TABLES: dict[str, Table] = {table.name: table for subject in _SUBJECTS for table in subject.TABLES}
check(TABLES)


def declared(name: str) -> Table:
    """The table of that name. Raises TableError if none is declared."""
    if name not in TABLES:
        raise TableError(f"the table {name!r} is not declared in dasd_resources.storage.tables: {', '.join(TABLES)}")
    return TABLES[name]


def owned_by(name: str) -> list[Table]:
    """The tables whose rows belong to a row of this one, and move with it to another batch."""
    return [table for table in TABLES.values() if table.owner == name]


def measured(name: str, column: str, *others: str) -> str:
    """SQL for a computed column and others of a table, without a look at its lists where it is stored with the row.

    Where an earlier release wrote the row, it is computed now: to the last digit what would be stored.
    """
    [expression] = [found.computed for found in declared(name).columns if found.name == column]
    names = ", ".join(others)
    return f"""(SELECT {names}, {column} FROM {name} WHERE {column} IS NOT NULL
        UNION ALL SELECT {names}, {expression} AS {column} FROM {name} WHERE {column} IS NULL)"""
