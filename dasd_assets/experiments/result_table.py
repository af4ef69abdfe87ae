"""The table of an experiment: every arm's accuracy and its difference to the baseline, with what it was trained on.

Plain frames in, rows and Markdown out; `comparison` reads and writes.
"""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from dasd_assets.records.markdown import Cell
from dasd_assets.rules.statistics import comparisons, mean_accuracy, p_text
from dasd_resources.storage.warehouse import Row
from dasd_resources.visible_text import visible

COLUMNS = (
    "arm",
    "benchmark",
    "temperature",
    "accuracy",
    "less baseline",
    "p (Holm)",
    "could have seen",
    "examples",
    "tokens",
    "steps",
    "seeds",
)
SETTING = ("benchmark", "temperature")
SHOWN = tuple(name for name in COLUMNS if name not in SETTING)  # of one benchmark and temperature
Shown = dict[str, Cell | None]


def compared_arms(answers: pl.DataFrame, baseline: str, arms: Sequence[str]) -> pl.DataFrame:
    """`comparisons` of the arms that share a seed with the baseline, in their order; empty if there is none.

    answers: arm, seed, benchmark, temperature, question_id, correct. Cells that are not there yet are left out.
    """
    seeds = {arm: set(answers.filter(pl.col("arm") == arm)["seed"]) for arm in arms}
    others = [arm for arm in arms if arm != baseline and seeds[arm] & seeds.get(baseline, set())]
    return comparisons(answers.filter(pl.col("arm").is_in([*others, baseline])), baseline, others)


def result_rows(
    answers: pl.DataFrame, stages: pl.DataFrame, compared: pl.DataFrame, arms: Sequence[str]
) -> list[Shown]:
    """A row of COLUMNS per benchmark, temperature and arm that has answered, as text; in %, as the report's tables are.

    stages: arm, seed, num_examples, num_tokens, num_steps, a row per stage. compared: of `compared_arms`.
    """
    differences = {(row["arm"], *(row[name] for name in SETTING)): row for row in compared.to_dicts()}
    spent = {row["arm"]: row for row in _spent(stages).to_dicts()}
    rows = []
    for setting, part in answers.sort(SETTING).group_by(SETTING, maintain_order=True):
        for arm in arms:
            of_arm = part.filter(pl.col("arm") == arm)
            if not of_arm.is_empty():
                named = dict(zip(SETTING, setting, strict=True))
                against = differences.get((arm, *setting))
                rows.append({"arm": arm, **named, **_accuracy(of_arm), **_difference(against), **_counts(spent[arm])})
    return [{name: row[name] for name in COLUMNS} for row in rows]


def _spent(stages: pl.DataFrame) -> pl.DataFrame:
    """What an arm is trained on in all its stages, a mean over its seeds."""
    counts = ["num_examples", "num_tokens", "num_steps"]
    return stages.group_by("arm", "seed").agg(pl.col(counts).sum()).group_by("arm").agg(pl.col(counts).mean())


def _accuracy(answers: pl.DataFrame) -> Shown:
    mean = mean_accuracy(answers)
    error = "" if mean.standard_error is None else f" ± {100 * mean.standard_error:.1f}"
    return {"accuracy": f"{100 * mean.accuracy:.1f}{error}", "seeds": mean.num_seeds}


def _difference(against: Row | None) -> Shown:
    texts: list[Cell | None] = [None, None, None]
    if against is not None:
        texts[0] = f"{100 * against['difference']:+.1f}"
    if against is not None and against["low"] is not None:
        texts = [
            f"{texts[0]} [{100 * against['low']:+.1f}, {100 * against['high']:+.1f}]",
            p_text(against["p_holm"]),
            f"{100 * against['minimum_detectable_effect']:.1f}",
        ]
    return dict(zip(("less baseline", "p (Holm)", "could have seen"), texts, strict=True))


def _counts(spent: Row) -> Shown:
    names = {"examples": "num_examples", "tokens": "num_tokens", "steps": "num_steps"}
    return {shown: f"{spent[name]:,.0f}" for shown, name in names.items()}


def result_markdown(baseline: str, rows: Sequence[Shown]) -> str:
    """The rows as Markdown: a table for each benchmark and temperature, and below them how they are read."""
    settings = dict.fromkeys((row["benchmark"], row["temperature"]) for row in rows)
    parts = [
        f"### {_cell(benchmark)}, T={temperature:g}\n\n"
        + markdown_table(
            SHOWN, [row for row in rows if (row["benchmark"], row["temperature"]) == (benchmark, temperature)]
        )
        for benchmark, temperature in settings
    ]
    return "\n\n".join([*parts, _LEGEND.format(baseline=baseline)])


def markdown_table(columns: Sequence[str], rows: Iterable[Mapping[str, Cell | None]]) -> str:
    """Rows as a table of a Markdown file."""
    lines = [columns, ["---"] * len(columns), *([_cell(row[name]) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Cell | None) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "–" if value is None else visible(text).replace("|", r"\|")


_LEGEND = """Accuracies in %, ± a standard error over seeds and questions. Less baseline: less `{baseline}`, paired by
seed and question, with a 95 % interval; p is corrected for all rows; could have seen: the true difference that such a
comparison finds in 80 of 100 repetitions ([how it is computed](../statistics.md)). Examples, tokens and steps are of
all stages."""
