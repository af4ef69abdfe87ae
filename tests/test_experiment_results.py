"""The table and figures of an experiment's report: pure, so of frames that are written here."""

import math
import re

import numpy as np
import polars as pl
import pytest
from drawn import PNG, decoded

from dasd_assets.experiments.by_difficulty import STAR, difficulty_tables, grouped
from dasd_assets.experiments.cut_off_rollouts import change_text, rollouts_cut_off
from dasd_assets.experiments.dataset_differences import LOSS, of_losses, of_traits, width
from dasd_assets.experiments.dataset_traits import ERRORS, clustered_errors, count_column
from dasd_assets.experiments.figures import cut_off_by_length, forest, loss_against_accuracy
from dasd_assets.experiments.pages import _listed
from dasd_assets.experiments.result_table import (
    COLUMNS,
    ONE_SEED,
    SHOWN,
    compared_arms,
    markdown_table,
    result_markdown,
    result_rows,
)
from dasd_assets.experiments.ways import by_ways_alone, ways_rows
from dasd_assets.mixed_policy.cut_off_shares import Halves
from dasd_assets.rules.statistics.comparison import compare, mean_accuracy
from dasd_assets.rules.statistics.holm import holm
from dasd_assets.rules.statistics.pairing import paired_differences
from dasd_resources.recipe.experiment import Experiment

ARMS = ["student", "random", "das"]
GRID = Experiment.model_validate(
    {
        "name": "grid",
        "title": "Three arms",
        "report": "Nothing.",
        "recipe": "demo",
        "seeds": [1, 2],
        "baseline": "random",
        "arms": {arm: [] if arm == "student" else [{"dataset": "t060"}] for arm in ARMS},
        "pairs": [["das", "student"]],
    }
)
CHANCE = {"student": 0.1, "random": 0.4, "das": 0.7}


@pytest.fixture(scope="module")
def answers() -> pl.DataFrame:
    """Three arms under two seeds, but das under one, on two benchmarks; the student's answers are the same for both."""
    random = np.random.default_rng(0)
    rows = [
        (arm, seed, benchmark, 1.0, f"q{question}", bool(random.random() < CHANCE[arm]), 10 * question, question > 30)
        for arm in ARMS
        for seed in ((1,) if arm == "das" else (1, 2))
        for benchmark in ("math", "code")
        for question in range(40)
        for _ in range(2)
    ]
    columns = ["arm", "seed", "benchmark", "temperature", "question_id", "correct", "num_tokens", "cut_off"]
    found = pl.DataFrame([row for row in rows if row[:2] != ("student", 2)], schema=columns, orient="row")
    again = found.filter(pl.col("arm") == "student").with_columns(seed=pl.lit(2, pl.Int64))
    return pl.concat([found, again])


@pytest.fixture(scope="module")
def compared(answers: pl.DataFrame) -> pl.DataFrame:
    return compared_arms(answers, GRID)


STAGES = pl.DataFrame(
    [
        ("student", 1, 0, 0, 0),
        ("student", 2, 0, 0, 0),
        ("random", 1, 10, 1000, 4),
        ("random", 1, 20, 3000, 6),
        ("random", 2, 12, 2000, 4),
        ("random", 2, 20, 3001, 6),
        ("das", 1, 30, 9000, 9),
    ],
    schema=["arm", "seed", "num_examples", "num_tokens", "num_steps"],
    orient="row",
)


def test_arms_stand_in_the_experiments_order_on_the_seeds_they_share(compared: pl.DataFrame) -> None:
    assert compared.select("benchmark", "arm", "baseline", "num_seeds").rows() == [
        ("code", "student", "random", 2),
        ("code", "das", "random", 1),
        ("code", "das", "student", 1),
        ("math", "student", "random", 2),
        ("math", "das", "random", 1),
        ("math", "das", "student", 1),
    ]
    assert compared["p_holm"].to_list() == holm(compared["p"].to_list())


def test_cells_that_are_not_there_yet_are_left_out(answers: pl.DataFrame) -> None:
    only_second = answers.filter(~((pl.col("arm") == "random") & (pl.col("seed") == 1)))
    found = compared_arms(only_second, GRID).filter(benchmark="math").select("arm", "baseline").rows()
    assert found == [("student", "random"), ("das", "student")]
    without = compared_arms(answers.filter(pl.col("arm") != "random"), GRID)
    assert without.select("arm", "baseline").unique().rows() == [("das", "student")]
    assert compared_arms(answers.filter(pl.col("arm") == "random"), GRID).is_empty()
    not_in_math = answers.filter(~((pl.col("arm") == "das") & (pl.col("benchmark") == "math")))
    found = compared_arms(not_in_math, GRID)
    assert found.select("benchmark", "arm", "baseline").rows() == [
        ("code", "student", "random"),
        ("code", "das", "random"),
        ("code", "das", "student"),
        ("math", "student", "random"),
    ]
    assert found["p_holm"].to_list() == holm(found["p"].to_list())


def test_the_untrained_student_is_one_model_and_is_held_against_every_seed(
    answers: pl.DataFrame, compared: pl.DataFrame
) -> None:
    under_one = answers.filter(~((pl.col("arm") == "student") & (pl.col("seed") == 2)))
    assert compared_arms(under_one, GRID).equals(compared)
    rows = result_rows(answers, STAGES, compared, GRID)
    assert [row["seeds"] for row in rows[4:]] == [1, 2, 1, None]  # student, random, das, das less student
    assert [row["seeds compared"] for row in rows[4:]] == [2, None, 1, 1]
    assert ONE_SEED in result_markdown(rows) and ONE_SEED not in result_markdown(rows[4:6])
    alone = mean_accuracy(under_one.filter(arm="student", benchmark="math"))
    assert rows[4]["accuracy"] == f"{100 * alone.accuracy:.1f} ± {100 * (alone.standard_error or 0):.1f}"


def test_a_row_is_the_comparison_beside_what_the_arm_was_trained_on(
    answers: pl.DataFrame, compared: pl.DataFrame
) -> None:
    rows = result_rows(answers, STAGES, compared, GRID)
    names = [*ARMS, "das"]
    assert [(row["benchmark"], row["arm"]) for row in rows] == [(b, arm) for b in ("code", "math") for arm in names]
    assert all(tuple(row) == COLUMNS for row in rows)
    baseline, das, pair = rows[5:]
    assert [baseline[name] for name in ("less", "difference", "p (Holm)", "could have seen")] == [None] * 4
    assert (das["less"], pair["less"], pair["accuracy"], pair["examples"]) == ("random", "student", None, None)
    assert str(pair["difference"]).startswith(f"{100 * compared['difference'][-1]:+.1f} [")
    # Means over seeds of all stages: 10 + 20 and 12 + 20 examples, 4,000 and 5,001 tokens.
    assert (baseline["examples"], baseline["tokens"], baseline["steps"], baseline["seeds"]) == ("31", "4,500", "10", 2)
    found = compare(paired_differences(answers.filter(pl.col("benchmark") == "math"), "das", "random"))
    assert found.low is not None and found.high is not None and found.minimum_detectable_effect is not None
    assert das["difference"] == f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    assert das["could have seen"] == f"{100 * found.minimum_detectable_effect:.1f}"
    assert float(str(das["p (Holm)"]).lstrip("≤")) >= (found.p or 1) - 5e-4


def test_an_arm_with_cells_of_another_declaration_says_how_many(answers: pl.DataFrame, compared: pl.DataFrame) -> None:
    rows = result_rows(answers, STAGES, compared, GRID, {("random", 1), ("random", 2), ("das", 1)})
    assert [row["seeds"] for row in rows[4:]] == [1, "2 (2 cells outdated)", "1 (1 cell outdated)", None]


def test_a_table_is_of_one_benchmark_and_temperature(answers: pl.DataFrame, compared: pl.DataFrame) -> None:
    rows = result_rows(answers.with_columns(benchmark=pl.lit("a|b")).head(80), STAGES, compared, GRID)
    page = result_markdown(rows)
    lines = page.splitlines()
    assert lines[:2] == [r"### a\|b, T=1", ""]
    assert lines[2].count("|") == lines[3].count("|") == len(SHOWN) + 1
    assert lines[4].startswith("| student | ")


def of_ways(arm: str, seed: int | None, *counts: tuple[str, int, int]) -> list[tuple[str, int | None, str, str, bool]]:
    """Answers of an arm, one to each question. counts: of each way, how many there are and how many are right."""
    ways = [(way, place < right) for way, number, right in counts for place in range(number)]
    return [(arm, seed, f"q{place}", way, right) for place, (way, right) in enumerate(ways)]


def answered(*rows: list[tuple[str, int | None, str, str, bool]]) -> pl.DataFrame:
    return pl.DataFrame(
        [row for of_arm in rows for row in of_arm],
        schema={"arm": pl.String, "seed": pl.Int64, "question_id": pl.String, "way": pl.String, "correct": pl.Boolean},
        orient="row",
    )


def test_ways_alone_move_an_arm_by_the_accuracy_of_the_baseline_in_each() -> None:
    """Half of the answers moved from a way of .6 to one of .2: .2 of .5 is lost, whatever the arm's own accuracy."""
    given = answered(
        *(of_ways("random", seed, ("long", 30, 18), ("short", 10, 2)) for seed in (1, 2)),
        of_ways("das", 1, ("long", 10, 10), ("short", 30, 0)),
        of_ways("student", None, ("other", 30, 3), ("failed", 10, 0)),
    )
    shown = pl.DataFrame(
        {"arm": ["random", "random", "das", "das"], "way": ["long", "short"] * 2, "number": [1600, 400, 2, 8]}
    )
    grid = GRID.model_copy(update={"ways": {"long": "l", "short": "s"}})
    rows = [list(row.values()) for row in ways_rows(grid, shown, given)]
    shares = [[re.sub(r" ± \d+| \[.*", "", str(value)) for value in row] for row in rows]
    # The baseline never goes the student's way, which therefore is as right as it is: 3 of 40, a request failed in ten.
    assert shares == [
        ["student", "– · 0 · –", "– · 0 · –", "– · 100 · 10", "-42.5", "0", "30"],
        ["random", "80 · 75 · 60", "20 · 25 · 20", "0 · 0 · –", "None", "2,000", "80"],
        ["das", "20 · 25 · 100", "80 · 75 · 0", "0 · 0 · –", "-20.0", "10", "40"],
    ]
    # Of 40 questions, 10 and 30: the errors of shares of .25 and, of the 30 that are the student's way, of .1.
    assert rows[2][1] == f"20 · 25 ± {100 * math.sqrt(0.25 * 0.75 / 39):.0f} · 100"
    assert rows[0][3] == f"– · 100 · 10 ± {100 * math.sqrt(30 * 0.1 * 0.9 * 40 / 39) / 30:.0f}"


def test_what_ways_alone_move_has_an_interval_as_wide_as_answers_drawn_anew_spread() -> None:
    random = np.random.default_rng(0)

    def drawn() -> pl.DataFrame:
        """Of 100 questions: the arm goes the worse way oftener, by the question's own chance."""
        hard = random.random(100)
        rows = [
            (
                arm,
                1,
                f"q{place}",
                "long" if long else "short",
                bool(random.random() < (0.7 if long else 0.3) - chance / 4),
            )
            for arm, bias in (("das", 0.3), ("random", 0.0))
            for place, chance in enumerate(hard)
            for _ in range(2)
            for long in (bool(random.random() < 0.8 - chance / 2 - bias),)
        ]
        return answered(rows)

    found = [by_ways_alone(drawn(), "das", "random") for _ in range(60)]
    moved = np.array([one.difference for one in found if one])
    errors = [one.standard_error for one in found if one and one.standard_error]
    assert len(moved) == len(errors) == 60
    assert np.mean(errors) == pytest.approx(moved.std(), rel=0.25)
    inside = [
        one.low <= moved.mean() <= one.high for one in found if one and one.low is not None and one.high is not None
    ]
    assert np.mean(inside) >= 0.9


def test_ways_alone_are_told_of_the_seeds_that_both_have_and_of_none_otherwise() -> None:
    given = answered(
        *(of_ways("random", seed, ("long", 20, 10 * seed), ("short", 20, 10)) for seed in (1, 2)),
        of_ways("das", 2, ("long", 10, 0), ("short", 30, 0)),
        of_ways("low", 3, ("long", 40, 40)),
        of_ways("student", None, ("long", 40, 0)),
    )
    both, untrained = (by_ways_alone(given, arm, "random") for arm in ("das", "student"))
    assert by_ways_alone(given, "low", "random") is None
    assert both and both.num_seeds == 1 and both.difference == pytest.approx((1 + 3 * 0.5) / 4 - 0.75)
    assert untrained and untrained.num_seeds == 2 and untrained.difference == pytest.approx(0.75 - 0.625)


@pytest.mark.parametrize("right", [0, 1])
def test_of_a_way_that_the_baseline_goes_on_few_questions_no_accuracy_is_taken_from_it(right: int) -> None:
    given = answered(
        of_ways("random", 1, ("rare", 1, right), ("often", 39, 20)),
        of_ways("das", 1, ("rare", 20, 7), ("often", 20, 0)),
    )
    found = by_ways_alone(given, "das", "random")
    assert found and found.difference == pytest.approx((7 + 20 * 20 / 39) / 40 - (20 + right) / 40)


def test_the_error_of_a_mean_is_over_questions_of_which_all_examples_are_one() -> None:
    """Two questions of 1, 1 and 0, 0 are two observations, not four: sqrt(2 / 1 · (1 + 1)) / 4 = .5, where all apart
    would be sqrt(4 / 3 · 4 · .25) / 4 = .29; the same examples under two seeds say no more than under one."""
    questions = {"arm": ["das"] * 2, "stage": [1] * 2, "dataset": ["t060"] * 2, "prompt_id": ["p", "q"]}
    one = pl.DataFrame(questions | {key: [2.0, 0.0] for key in ERRORS} | {f"{name}_count": [2, 2] for name in ERRORS})
    alike = one.with_columns(right=pl.lit(2.0), sentences=pl.lit(None, pl.Float64), sentences_count=pl.lit(0))
    for seeds in ([one], [one, one]):
        [row] = clustered_errors(pl.concat(seeds)).to_dicts()
        assert all(row[column] == pytest.approx(0.5) for column in ERRORS.values())
    [row] = clustered_errors(alike).to_dicts()
    assert (row["right_error"], row["sentences_error"], row["tokens_error"]) == (None, None, pytest.approx(0.5))
    assert clustered_errors(one.head(1))["tokens_error"].to_list() == [None]


def of_questions(**examples: tuple[float, int]) -> pl.DataFrame:
    """Sum and number of every trait, of the examples to each question."""
    sums, numbers = zip(*examples.values(), strict=True)
    return pl.DataFrame(
        {"prompt_id": list(examples)}
        | {name: list(sums) for name in ERRORS}
        | {count_column(name): list(numbers) for name in ERRORS}
    )


def test_the_difference_of_two_means_is_paired_by_question() -> None:
    """Means .5 and 1. Of three questions each adds its residual under the one less that under the other, of four
    examples: .25, -.25 and 0; sqrt(3 / 2 · .125) = .433, and t of two degrees of freedom is 4.303."""
    own, other = of_questions(p=(2.0, 2), q=(0.0, 2)), of_questions(p=(2.0, 2), r=(2.0, 2))
    apart, alike = of_traits(own, other), of_traits(own, own)
    without = pl.concat([other, of_questions(s=(0.0, 0), t=(0.0, 0))])  # two questions of which no example has it
    assert of_traits(own, without) == pytest.approx(apart)
    for name in ERRORS:
        assert (apart[name], apart[width(name)]) == (pytest.approx(-0.5), pytest.approx(1.8631, abs=1e-3))
        assert (alike[name], alike[width(name)]) == (0.0, None)
    assert set(of_traits(own, of_questions(p=(0.0, 0))).values()) == {None}


def test_the_difference_of_losses_is_paired_by_seed() -> None:
    """.2 and .3: sd .0707, error .05, and t of one degree of freedom is 12.706."""
    own = pl.DataFrame({"seed": [1, 2], "loss": [0.3, 0.5]})
    other = pl.DataFrame({"seed": [3, 1, 2], "loss": [9.0, 0.1, 0.2]})
    expected = {LOSS: pytest.approx(0.25), width(LOSS): pytest.approx(0.6353, abs=1e-3)}
    assert of_losses(own, other) == expected
    assert of_losses(own.head(1), other) == {LOSS: pytest.approx(0.2), width(LOSS): None}
    assert of_losses(own, other.head(1)) == {LOSS: None, width(LOSS): None}


def test_rollouts_are_counted_by_the_length_of_the_reference_and_their_halves_compared() -> None:
    """16 of the lengths 1 to 16: the first 2 of the shorter half of 8 are cut off, 1 of the longer."""
    cut_off = [True, True] + [False] * 13 + [True]
    rollouts = pl.DataFrame({"reference_num_tokens": range(1, 17), "cut_off": cut_off}).reverse()
    heading, table, text, _ = rollouts_cut_off(rollouts)
    rows = table.splitlines()
    assert len(rows) == 2 + 8 + 1 and heading.startswith("## ")
    assert rows[2:4] == ["| 1 to 2 | 2 | 2 | 100.0 |", "| 3 to 4 | 2 | 0 | 0.0 |"]
    assert rows[9:] == ["| 15 to 16 | 2 | 1 | 50.0 ± 35.4 |", "| 1 to 16 | 16 | 3 | 18.8 ± 9.8 |"]
    # 1/8 - 2/8; the interval is that of 2/10 - 3/10, whose error is sqrt((16 + 21) / 10 ** 3) = .192. Without the first
    # two 1/7, and the interval of 2/9 - 1/9, whose error is sqrt((14 + 8) / 9 ** 3) = .174.
    assert change_text(Halves.of(cut_off)) == "-12.5 [-47.7, +27.7]"
    assert text.endswith("which has 2 of the 3, +14.3 [-22.9, +45.2].")
    assert rollouts_cut_off(rollouts.head(15)) == []


def test_the_list_counts_no_difference_of_one_seed(answers: pl.DataFrame, compared: pl.DataFrame) -> None:
    sure = compared.filter(pl.col("p_holm") < 0.05)
    assert 0 < sure.filter(pl.col("arm") != "das").height < sure.height
    assert _listed(GRID, answers, compared, "")["significant"] == f"{sure.filter(pl.col('arm') != 'das').height} of 6"


def test_figures_are_small_and_show_every_arm(answers: pl.DataFrame, compared: pl.DataFrame) -> None:
    losses = pl.DataFrame({"arm": ARMS * 2, "loss": [0.5, 0.4, 0.3] * 2, "accuracy": [0.1, 0.4, 0.7] * 2})
    figures = [forest(compared, "random"), loss_against_accuracy(losses), cut_off_by_length(answers)]
    for figure in figures:
        assert decoded(figure).startswith(PNG)
        assert len(decoded(figure)) < 20_000
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["student", "das", "das\nless student"]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"code, T=1", "math, T=1"}
    assert axes.get_xlabel() == "accuracy less random, or the arm that is named, points of %"
    lines = figures[2].axes[0].get_lines()
    rates = np.asarray(lines[0].get_ydata(), dtype=float)
    assert (len(lines), rates[0], rates[-1]) == (3, 0.0, 1.0)


def test_a_difference_without_an_interval_is_drawn_as_a_point() -> None:
    none = pl.lit(None, pl.Float64)
    rows = pl.DataFrame(
        {"arm": ["a"], "baseline": ["b"], "benchmark": ["m"], "temperature": [1.0], "difference": [0.0]}
    )
    assert decoded(forest(rows.with_columns(low=none, high=none, minimum_detectable_effect=none), "b")).startswith(PNG)


def test_a_domains_levels_make_up_to_three_groups_of_about_as_many_questions() -> None:
    levels = {"sums": [1, 1, 2, 3, 3, 4], "letters": [7, 7, 7, 7, 8, 9], "free": [None, 2]}
    rows = [("math", f"{name}{i}", name, level) for name, found in levels.items() for i, level in enumerate(found)]
    schema = {"benchmark": pl.String, "question_id": pl.String, "domain": pl.String, "level": pl.Int32}
    groups = grouped(pl.DataFrame(rows, schema, orient="row"))
    assert groups.group_by("group", maintain_order=True).len().rows() == [
        *[("free", 2)],
        *[("letters", 6), ("letters, level 7", 4), ("letters, level 8 to 9", 2)],
        *[("sums", 6), ("sums, level 1", 2), ("sums, level 2", 1), ("sums, level 3 to 4", 3)],
    ]


def test_the_tables_of_difficulty_have_each_arms_accuracy_and_each_difference_in_each_group(
    answers: pl.DataFrame,
) -> None:
    math = answers.filter(pl.col("benchmark") == "math")
    asked = [("math", f"q{i}", "sums", 1 + (i >= 30)) for i in range(40)]
    groups = grouped(pl.DataFrame(asked, ["benchmark", "question_id", "domain", "level"], orient="row"))
    found = difficulty_tables(GRID, math, STAGES, groups)
    assert list(found) == ["accuracy", "difference", "could have seen"]
    tables = [list(map(cells, markdown_table(*one).splitlines())) for one in found.values()]
    names = ["sums (40)", "sums, level 1 (30)", "sums, level 2 (10)"]
    assert [table[0] for table in tables] == [["arm", *names], *[["arm", "less", *names]] * 2]
    # All questions are those of the experiment's own table; the harder ones are a table of their own.
    whole = result_rows(math, STAGES, compared_arms(math, GRID), GRID)
    hard = math.filter(pl.col("question_id").is_in([f"q{i}" for i in range(30, 40)]))
    alone = result_rows(hard, STAGES, compared_arms(hard, GRID), GRID)
    assert [line[:2] for line in tables[0][2:]] == [[row["arm"], row["accuracy"]] for row in whole[:3]]
    assert [line[3] for line in tables[0][2:]] == [row["accuracy"] for row in alone[:3]]
    for place, rows in ((2, whole), (4, alone)):
        differences = [[row["arm"], row["less"], row["difference"]] for row in rows if row["difference"]]
        assert [[*line[:2], line[place].removesuffix(STAR)] for line in tables[1][2:]] == differences
        assert len(differences) == 3 and all("[" in found for *_, found in differences)
        seen = [row["could have seen"] for row in rows if row["difference"]]
        assert [line[place] for line in tables[2][2:]] == seen
    # A star is of the corrected p of all nine: one that is below .05 by itself alone has none, nor has one of one seed.
    of_two = pl.concat([math, math.filter(pl.col("arm") == "das").with_columns(seed=pl.lit(2, pl.Int64))])
    for given, of_one_seed in ((math, "das"), (of_two, None)):
        several = [
            compared_arms(given.filter(pl.col("question_id").is_in(of["question_id"].implode())), GRID)["p"]
            for _, of in groups.group_by("group", maintain_order=True)
        ]
        sure = [p is not None and p < 0.05 for p in holm([p for one in several for p in one])]
        rows = difficulty_tables(GRID, given, STAGES, groups)["difference"].rows
        stars = [(row["arm"], str(row[name]).endswith(STAR)) for name in names for row in rows]
        assert stars == [(arm, one and arm != of_one_seed) for (arm, _), one in zip(stars, sure, strict=True)]
        assert 0 < sum(sure) < 9
    [only] = found = difficulty_tables(GRID, math.filter(pl.col("arm") == "das"), STAGES, groups)
    assert len(found[only].rows) == 1


def test_of_a_group_of_one_question_and_of_one_that_nobody_answers_right_nothing_could_be_seen(
    answers: pl.DataFrame,
) -> None:
    math = answers.filter(pl.col("benchmark") == "math").with_columns(
        correct=pl.col("correct") & ~pl.col("question_id").is_in(["q0", "q1"])
    )
    asked = [("math", f"q{i}", {0: "hard", 1: "hard", 2: "alone"}.get(i, "sums"), None) for i in range(40)]
    schema = {"benchmark": pl.String, "question_id": pl.String, "domain": pl.String, "level": pl.Int32}
    found = difficulty_tables(GRID, math, STAGES, grouped(pl.DataFrame(asked, schema, orient="row")))
    seen = found["could have seen"]
    assert list(seen.columns) == ["arm", "less", "alone (1)", "hard (2)", "sums (37)"]
    assert all(row["alone (1)"] is row["hard (2)"] is None and row["sums (37)"] for row in seen.rows)


def cells(line: str) -> list[str]:
    """The cells of a table's line."""
    return [cell.strip() for cell in line.strip("|").split("|")]
