"""The table of an experiment: every arm's accuracy and its difference to the baseline, with what it was trained on.

Below the arms stand the further pairs that the experiment compares: differences, and nothing else.

Plain frames in, rows and Markdown out; `comparison` reads and writes.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import polars as pl

from dasd_assets.records.markdown import Cell
from dasd_assets.records.wording import number_of, with_error, with_interval
from dasd_assets.rules.statistics.comparison import OF_ONE_SEED, SETTING, comparisons, corrected_p_text, mean_accuracy
from dasd_assets.rules.statistics.holm import SIGNIFICANT, holm
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Row
from dasd_resources.visible_text import visible

COMPARED = "seeds compared"
# Of rows of `compared_arms`: whether they differ; what is of one seed says nothing of others trained alike.
IS_SURE = (pl.col("p_holm") < SIGNIFICANT) & (pl.col("num_seeds") > 1)
COLUMNS = (
    "arm",
    "benchmark",
    "temperature",
    "accuracy",
    "less",
    "difference",
    COMPARED,
    "p (Holm)",
    "could have seen",
    "examples",
    "tokens",
    "steps",
    "seeds",
)
SHOWN = tuple(name for name in COLUMNS if name not in SETTING)  # of one benchmark and temperature
Shown = dict[str, Cell | None]
ONE_SEED = f"A difference over one seed is {OF_ONE_SEED}."


class Results(NamedTuple):
    """What an experiment has found so far, as all that is shown of it takes it.

    answers: of `cells.answers`. compared: of `compared_arms`. stages: of `cells.stage_rows`. outdated: of
    `cells.outdated_cells`.
    """

    answers: pl.DataFrame
    compared: pl.DataFrame
    stages: pl.DataFrame
    outdated: Collection[tuple[str, int]]


class ShownTable(NamedTuple):
    """Rows as text: a page has them as Markdown, the web UI as a table."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Cell | None]]


def compared_arms(answers: pl.DataFrame, experiment: Experiment) -> pl.DataFrame:
    """`comparisons` of the experiment's pairs whose arms share a seed, in their order; empty if there is none.

    answers: arm, seed, benchmark, temperature, question_id, correct. Cells that are not there yet are left out, at each
    benchmark and temperature by itself.
    """
    models = of_models(answers, experiment).sort(SETTING)
    found = [comparisons(models.clear(), [])]
    for _, part in models.group_by(SETTING, maintain_order=True):
        seeds = {arm: set(part.filter(pl.col("arm") == arm)["seed"]) for arm in experiment.arms}
        pairs = [(arm, other) for arm, other in experiment.compared if can_be_paired(seeds[arm], seeds[other])]
        found.append(comparisons(part.filter(pl.col("arm").is_in({arm for pair in pairs for arm in pair})), pairs))
    rows = pl.concat(found)
    return rows.with_columns(p_holm=pl.Series(holm(rows["p"].to_list()), dtype=pl.Float64))


def of_models(answers: pl.DataFrame, experiment: Experiment) -> pl.DataFrame:
    """The answers with those of an arm without stages once, their seed None: it is one model under every seed."""
    untrained = pl.col("arm").is_in([arm for arm, stages in experiment.arms.items() if not stages])
    is_first = pl.col("seed") == pl.col("seed").first().over("arm")
    return answers.filter(~untrained | is_first).with_columns(seed=pl.when(~untrained).then("seed"))


def can_be_paired(seeds: set[int | None], others: set[int | None]) -> bool:
    """Whether two arms share a seed, or one of them is a model without one."""
    return bool(seeds & others) or (bool(seeds and others) and None in seeds | others)


def result_rows(
    answers: pl.DataFrame,
    stages: pl.DataFrame,
    compared: pl.DataFrame,
    experiment: Experiment,
    outdated: Collection[tuple[str, int]] = (),
) -> list[Shown]:
    """Rows of COLUMNS as text, per benchmark and temperature: each arm that has answered, then each further pair.

    In %, as the report's tables are. stages: arm, seed, num_examples, num_tokens, num_steps, a row per stage.
    compared: of `compared_arms`. outdated: of `cells.outdated_cells`; how many an arm has stands beside its seeds.
    """
    num_outdated = Counter(arm for arm, _ in outdated)
    corrected = compared.with_columns(num_corrected=pl.col("p").count())
    spent = {row["arm"]: row for row in _spent(stages).to_dicts()}
    rows = list[Shown]()
    for setting, part in of_models(answers, experiment).sort(SETTING).group_by(SETTING, maintain_order=True):
        named = dict(zip(SETTING, setting, strict=True))
        found = {(row["arm"], row["baseline"]): row for row in corrected.filter(**named).to_dicts()}
        for arm in experiment.arms:
            of_arm = part.filter(pl.col("arm") == arm)
            if not of_arm.is_empty():
                against = _difference(found.get((arm, experiment.baseline)))
                seeds = _seeds(of_arm, num_outdated[arm])
                rows.append({"arm": arm, **named, **against, **_accuracy(of_arm), **_counts(spent[arm]), **seeds})
        pairs = [pair for pair in experiment.pairs if pair in found]
        rows += [{"arm": pair[0], **named, **_difference(found[pair])} for pair in pairs]
    return [{name: row.get(name) for name in COLUMNS} for row in rows]


def _spent(stages: pl.DataFrame) -> pl.DataFrame:
    """What an arm is trained on in all its stages, a mean over its seeds."""
    counts = ["num_examples", "num_tokens", "num_steps"]
    return stages.group_by("arm", "seed").agg(pl.col(counts).sum()).group_by("arm").agg(pl.col(counts).mean())


def _accuracy(answers: pl.DataFrame) -> Shown:
    mean = mean_accuracy(answers)
    return {"accuracy": percent(mean.accuracy, mean.standard_error)}


def _seeds(answers: pl.DataFrame, num_outdated: int) -> Shown:
    number = answers["seed"].n_unique()
    return {"seeds": f"{number} ({number_of(num_outdated, 'cell', 'cells')} outdated)" if num_outdated else number}


def _difference(found: Row | None) -> Shown:
    if found is None:
        return {}
    difference = points(found["difference"], found["low"], found["high"])
    row = {"less": found["baseline"], "difference": difference, COMPARED: found["num_seeds"]}
    if found["low"] is None:
        return row
    return {
        **row,
        "p (Holm)": corrected_p_text(found["p_holm"], found["num_corrected"]),
        "could have seen": f"{100 * found['minimum_detectable_effect']:.1f}",
    }


def percent(share: float | None, error: float | None, num_digits: int = 1) -> str:
    """`26.1 ± 1.2`, in %; of no share a dash."""
    if share is None:
        return "–"
    return with_error(100 * share, None if error is None else 100 * error, f".{num_digits}f")


def points(difference: float, low: float | None, high: float | None) -> str:
    """`-8.4 [-10.6, -6.1]`, in points of %."""
    low, high = (None if end is None else 100 * end for end in (low, high))
    return with_interval(100 * difference, low, high, "+.1f")


def _counts(spent: Row) -> Shown:
    names = {"examples": "num_examples", "tokens": "num_tokens", "steps": "num_steps"}
    return {shown: f"{spent[name]:,.0f}" for shown, name in names.items()}


def result_markdown(rows: Sequence[Shown]) -> str:
    """The rows as Markdown: a table for each benchmark and temperature, and below them how they are read."""
    settings = dict.fromkeys((row["benchmark"], row["temperature"]) for row in rows)
    parts = [
        f"### {setting_name(*setting)}\n\n"
        + markdown_table(SHOWN, [row for row in rows if (row["benchmark"], row["temperature"]) == setting])
        for setting in settings
    ]
    return "\n\n".join([*parts, " ".join([_LEGEND, *one_seed_note(rows)])])


def one_seed_note(rows: Sequence[Shown]) -> list[str]:
    """ONE_SEED, where a row's difference is over one seed."""
    return [ONE_SEED] if any(row[COMPARED] == 1 for row in rows) else []


def setting_name(benchmark: Cell | None, temperature: Cell | None) -> str:
    """What stands above what is said of one benchmark and temperature."""
    return f"{_cell(benchmark)}, T={temperature:g}"


def markdown_table(columns: Sequence[str], rows: Iterable[Mapping[str, Cell | None]]) -> str:
    """Rows as a table of a Markdown file."""
    lines = [
        list(map(_cell, columns)),
        ["---"] * len(columns),
        *([_cell(row[name]) for name in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Cell | None) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "–" if value is None else visible(text).replace("|", r"\|")


_LEGEND = """Accuracies in %, ± a standard error over seeds and questions. Difference: of the arm less the one that is
named, paired by seed and question, with a 95 % interval; p is corrected for all differences of the experiment; could
have seen: the true difference that such a comparison, were it the only one, finds in 80 of 100 repetitions; with p
corrected, only a larger one is found as often ([how it is computed](../statistics.md)). Seeds: of the arm; seeds
compared: those that both have. The untrained student is one model, whatever the seed, and is held against every seed of
the others. Examples, tokens and steps are of all stages.
Rows without an accuracy are further pairs of arms that the grid declares."""
