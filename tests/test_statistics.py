"""Paired differences with intervals: hand-computed cases, scipy's and statsmodels' values, and simulated coverage."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from dasd_assets.rules.statistics import bootstrap as bootstrap_module
from dasd_assets.rules.statistics.bootstrap import LEAST_P, deviations, interval, p_value
from dasd_assets.rules.statistics.comparison import (
    Comparison,
    compare,
    comparisons,
    corrected_p_text,
    mean_accuracy,
    p_text,
)
from dasd_assets.rules.statistics.holm import holm
from dasd_assets.rules.statistics.pairing import Paired, Unpaired, paired_differences
from dasd_assets.rules.statistics.power import detectable_with, minimum_detectable_effect, student_quantile
from dasd_assets.rules.statistics.variance import MeanSquares

SAMPLE = [
    -0.045,
    -0.087,
    -0.015,
    0.288,
    0.244,
    0.265,
    0.015,
    0.093,
    -0.004,
    0.162,
    -0.062,
    0.082,
    0.077,
    -0.07,
    -0.006,
    0.088,
    0.03,
    0.451,
    -0.09,
    0.346,
]
SCIPY = (0.02455, 0.15775)
FEW = 1000  # replicates, in simulations
SCHEMA = ["arm", "seed", "question_id", "correct"]


def frame(rows: list[tuple[str, int, str, bool]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def marks(arm: str, cells: dict[tuple[int, str], str]) -> list[tuple[str, int, str, bool]]:
    """Rows of answers; `11` in a cell is two right ones."""
    return [(arm, seed, key, mark == "1") for (seed, key), text in cells.items() for mark in text]


def paired(differences: np.ndarray) -> Paired:
    """Differences as if of an arm whose baseline is always wrong."""
    num_seeds, num_questions = differences.shape
    questions = tuple(f"q{number}" for number in range(num_questions))
    return Paired(tuple(range(num_seeds)), questions, differences, np.zeros_like(differences), None)


def simulated(
    random: np.random.Generator, num_seeds: int, num_questions: int, effect: float, by_seed: float, by_question: float
) -> np.ndarray:
    """(S, Q) differences of two arms with 4 samples a cell, whose true difference is `effect`."""
    base = random.uniform(0.3, 0.7, num_questions)
    shift = effect + random.normal(0, by_seed, num_seeds)[:, None] + random.normal(0, by_question, num_questions)
    return (
        np.asarray(
            random.binomial(4, (base + shift / 2).clip(0, 1)) - random.binomial(4, (base - shift / 2).clip(0, 1))
        )
        / 4
    )


def test_cells_are_means_of_samples_paired_by_seed_and_question() -> None:
    das = marks("das", {(1, "a"): "11", (1, "b"): "10", (2, "a"): "00", (2, "b"): "11"})
    control = marks("random", {(2, "b"): "01", (2, "a"): "10", (1, "b"): "1000", (1, "a"): "1"})
    found = paired_differences(frame(das + control), "das", "random")
    assert (found.seeds, found.question_ids) == ((1, 2), ("a", "b"))
    assert found.differences.tolist() == [[0, 0.25], [-0.5, 0.5]]
    assert found.sampling_variances is None  # one cell has a single sample


def test_the_draw_of_samples_has_the_variance_of_their_means() -> None:
    """p (1 - p) / (k - 1), unbiased: 1/4 of two samples with one right, of both arms."""
    rows = [*marks("a", {(1, "x"): "10", (1, "y"): "11"}), *marks("b", {(1, "x"): "01", (1, "y"): "1100"})]
    found = paired_differences(frame(rows), "a", "b")
    assert found.sampling_variances is not None
    assert found.sampling_variances.tolist() == [[0.5, pytest.approx(1 / 12)]]


def test_a_model_without_a_seed_is_held_against_every_seed_of_the_other() -> None:
    trained = marks("trained", {(1, "a"): "11", (1, "b"): "10", (2, "a"): "00", (2, "b"): "11"})
    student = marks("student", {(0, "a"): "10", (0, "b"): "11"})
    answers = frame(trained + student).with_columns(seed=pl.when(pl.col("arm") != "student").then("seed"))
    found = paired_differences(answers, "trained", "student")
    assert (found.seeds, found.differences.tolist()) == ((1, 2), [[0.5, -0.5], [-0.5, 0]])
    assert found.sampling_variances is not None and found.common_variances is not None
    assert found.common_variances.tolist() == [0.25, 0]
    assert found.sampling_variances.tolist() == [[0.25, 0.25], [0.25, 0]]
    alone = mean_accuracy(answers.filter(arm="student"))
    assert (alone.accuracy, alone.standard_error, alone.num_seeds) == (0.75, pytest.approx(0.25), 1)
    both = paired_differences(answers.with_columns(seed=pl.lit(None, pl.Int64)), "trained", "student")
    assert (both.seeds, both.differences.tolist()) == ((None,), [[0, -0.25]])
    with pytest.raises(Unpaired, match="student has answers with a seed and others without"):
        paired_differences(pl.concat([answers, frame(student)]), "trained", "student")


def test_only_common_seeds_are_paired_unless_seeds_are_named() -> None:
    rows = [*marks("a", {(s, "x"): "1" for s in (1, 2, 3)}), *marks("b", {(s, "x"): "1" for s in (2, 3, 4)})]
    assert paired_differences(frame(rows), "a", "b").seeds == (2, 3)
    with pytest.raises(Unpaired, match="b has no answers under seed 1"):
        paired_differences(frame(rows), "a", "b", seeds=[1, 2])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({(1, "x"): "1"}, "b has no answer to y under seed 1"),
        ({(1, "x"): "1", (1, "y"): "1", (1, "z"): "1"}, "a has no answer to z under seed 1"),
        ({(9, "x"): "1"}, "no seed is common .a: 1; b: 9."),
        ({}, "b has no answers"),
    ],
)
def test_what_is_missing_on_one_side_is_named(rows: dict[tuple[int, str], str], message: str) -> None:
    answers = frame([*marks("a", {(1, "x"): "1", (1, "y"): "0"}), *marks("b", rows)])
    with pytest.raises(Unpaired, match=message):
        paired_differences(answers, "a", "b")


def test_several_settings_and_answers_without_a_verdict_are_refused() -> None:
    answers = frame([*marks("a", {(1, "x"): "10"}), *marks("b", {(1, "x"): "11"})])
    with pytest.raises(Unpaired, match=r"several temperatures \(0.6, 1.0\)"):
        paired_differences(answers.with_columns(temperature=pl.Series([0.6, 0.6, 1.0, 1.0])), "a", "b")
    with pytest.raises(Unpaired, match="1 answers have no correct"):
        paired_differences(answers.with_columns(correct=pl.Series([True, None, True, True])), "a", "b")


def test_mean_squares_by_hand() -> None:
    """Seeds' means 2 and 4, questions' 1, 3 and 5, mean 3; what is left is ±1, ∓1, 0 on 2 degrees of freedom."""
    cells = np.array([[1.0, 1.0, 4.0], [1.0, 5.0, 6.0]])
    squares = MeanSquares.of(cells)
    assert (squares.seeds, squares.questions, squares.rest) == (6, 8, 2)
    assert squares.standard_error == pytest.approx(((6 + 8 - 2) / 6) ** 0.5)
    assert squares.degrees_of_freedom == pytest.approx((6 + 8 - 2) ** 2 / (6**2 / 1 + 8**2 / 2 + 2**2 / 2))


def test_seeds_that_vary_less_than_chance_take_nothing_away() -> None:
    cells = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.6]])
    squares = MeanSquares.of(cells)
    assert squares.seeds < squares.rest
    assert squares.standard_error == pytest.approx(cells.mean(axis=0).std(ddof=1) / 4**0.5)


def test_one_seed_is_a_bootstrap_over_questions() -> None:
    """The values are those of scipy 1.17, which has no Student's t in it: so of the same data with Q/(Q-1) and t added.

    `scipy.stats.bootstrap((x,), np.mean, n_resamples=1_000_000, method="percentile", rng=0)` gives SCIPY.
    """
    cells = np.array([SAMPLE])
    error = MeanSquares.of(cells).standard_error
    assert error == pytest.approx(np.std(SAMPLE, ddof=1) / len(SAMPLE) ** 0.5)
    low, high = interval(float(cells.mean()), deviations(cells, "scipy"))
    widened = (len(SAMPLE) / (len(SAMPLE) - 1)) ** 0.5 * student_quantile(0.975, len(SAMPLE) - 1) / 1.95996
    mean = cells.mean()
    assert low == pytest.approx(mean + (SCIPY[0] - mean) * widened, abs=0.004)
    assert high == pytest.approx(mean + (SCIPY[1] - mean) * widened, abs=0.004)


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [
        (0.975, 1, 12.7062047362),  # the values of scipy.stats.t.ppf
        (0.975, 2.5, 3.5746548420),
        (0.975, 4, 2.7764451052),
        (0.8, 4, 0.9409645772),
        (0.975, 199, 1.9719565442),
        (0.8, 1e6, 0.8416215930),
        (0.05, 7, -1.8945786051),
    ],
)
def test_quantiles_of_students_t(probability: float, freedom: float, expected: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(expected, rel=2e-5)


def test_an_interval_is_the_same_again_in_any_order_and_mirrored_for_the_reverse() -> None:
    random = np.random.default_rng(3)
    rows = [
        (arm, seed, f"q{question}", bool(random.random() < chance))
        for arm, chance in (("a", 0.6), ("b", 0.4))
        for seed in range(3)
        for question in range(40)
        for _ in range(2)
    ]
    first = compare(paired_differences(frame(rows), "a", "b"))
    np.random.seed(0)  # global state counts for nothing
    assert compare(paired_differences(frame(rows).sample(fraction=1, shuffle=True, seed=1), "a", "b")) == first
    reverse = compare(paired_differences(frame(rows), "b", "a"))
    assert first.low is not None and first.high is not None
    assert (reverse.difference, reverse.low, reverse.high, reverse.p) == pytest.approx(
        (-first.difference, -first.high, -first.low, first.p)
    )
    assert first.low < first.difference < first.high


def test_chunks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = np.random.default_rng(0).normal(size=(4, 50))
    whole = deviations(cells, "k").std()
    monkeypatch.setattr(bootstrap_module, "CHUNK", 70)
    assert deviations(cells, "k").std() == pytest.approx(whole, rel=0.05)


def test_replicates_have_the_standard_error_where_seeds_are_many() -> None:
    cells = simulated(np.random.default_rng(5), 40, 100, 0.0, 0.1, 0.2)
    error = MeanSquares.of(cells).standard_error
    assert deviations(cells, "k").std() == pytest.approx(error, rel=0.04)


def test_p_is_below_five_percent_where_the_interval_leaves_zero_out() -> None:
    cells = np.random.default_rng(0).normal(size=(3, 30))
    drawn = deviations(cells, "k")
    for mean in np.linspace(0, 3 * drawn.std(), 40):
        low, _ = interval(mean, drawn)
        if abs(low) > 0.02 * drawn.std():
            assert (p_value(mean, drawn) < 0.05) == (low > 0)
            assert p_value(-mean, -drawn) == p_value(mean, drawn)


@pytest.mark.parametrize(
    "cells", [np.zeros((3, 20)), np.full((2, 5), 0.5), np.array([[1.0]]), np.array([[0.0], [1.0]])]
)
def test_what_does_not_vary_has_no_interval(cells: np.ndarray) -> None:
    found = compare(paired(cells))
    assert found.difference == cells.mean()
    assert (found.low, found.high, found.p, found.standard_error, found.minimum_detectable_effect) == (None,) * 5


def test_holm_by_hand() -> None:
    """statsmodels.stats.multitest.multipletests([.01, .04, .03, .005], method="holm"): .03, .06, .06, .02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == [pytest.approx(0.03), None, *map(pytest.approx, (0.06, 0.06, 0.02))]
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_table_is_corrected_over_all_its_rows() -> None:
    random = np.random.default_rng(1)
    rows = [
        (arm, seed, benchmark, 1.0, f"q{question}", bool(random.random() < chance))
        for arm, chance in (("das", 0.62), ("random", 0.5), ("longest", 0.55))
        for seed in range(2)
        for benchmark in ("math", "code")
        for question in range(60)
    ]
    answers = pl.DataFrame(rows, schema=["arm", "seed", *("benchmark", "temperature"), *SCHEMA[2:]], orient="row")
    table = comparisons(answers, [("das", "random"), ("longest", "random"), ("das", "longest")])
    assert table.select("arm", "benchmark").rows() == [
        ("das", "code"),
        ("longest", "code"),
        ("das", "code"),
        ("das", "math"),
        ("longest", "math"),
        ("das", "math"),
    ]
    assert table["p_holm"].to_list() == holm(table["p"].to_list())
    assert table["num_questions"].to_list() == [60] * 6
    [das] = comparisons(answers.filter(pl.col("benchmark") == "math"), [("das", "random")]).to_dicts()
    alone = paired_differences(answers.filter(pl.col("benchmark") == "math"), "das", "random")
    assert Comparison(**{name: das[name] for name in Comparison.__dataclass_fields__}) == compare(alone)
    assert das["p_holm"] == das["p"]


def test_mean_accuracy_is_clustered_by_question_and_by_seed() -> None:
    """Questions at 1, 1/2 and 0: over √3 questions 0.2887, not over √12 answers; a single question has no error."""
    one = frame(marks("a", {(1, "x"): "1111", (1, "y"): "1100", (1, "z"): "0000"}))
    found = mean_accuracy(one)
    assert (found.accuracy, found.standard_error) == (0.5, pytest.approx(0.28867513))
    assert (found.num_questions, found.num_seeds) == (3, 1)
    assert mean_accuracy(one.filter(pl.col("question_id") == "y")).standard_error is None
    two = pl.concat([one, frame(marks("a", {(2, "x"): "1111", (2, "y"): "1111", (2, "z"): "1111"}))])
    cells = np.array([[1, 0.5, 0], [1, 1, 1]])
    assert mean_accuracy(two).standard_error == MeanSquares.of(cells).standard_error
    with pytest.raises(Unpaired, match="of 2: a, b"):
        mean_accuracy(pl.concat([one, frame(marks("b", {(1, "x"): "1"}))]))


def test_coverage_of_the_interval_and_error_of_the_table_under_the_null() -> None:
    """200 tables of 5 arms that all equal the baseline, 5 seeds that differ as much as questions' noise."""
    random, covered, rejected = np.random.default_rng(11), [], []
    for _ in range(200):
        found = [compare(paired(simulated(random, 5, 60, 0.0, 0.03, 0.1)), FEW) for _ in range(5)]
        covered += [one.low <= 0 <= one.high for one in found if one.low is not None and one.high is not None]
        rejected.append(min(p for p in holm([one.p for one in found]) if p is not None) < 0.05)
    assert 0.94 <= np.mean(covered) <= 0.985
    assert np.mean(rejected) <= 0.07  # 0.05, and less than two of its standard errors


@pytest.mark.parametrize(
    ("num_seeds", "by_seed", "by_question", "at_least"),
    [(1, 0.0, 0.2, 0.93), (2, 0.0, 0.1, 0.94), (2, 0.05, 0.1, 0.88), (3, 0.05, 0.1, 0.92), (5, 0.1, 0.1, 0.92)],
)
def test_coverage_of_a_known_effect(num_seeds: int, by_seed: float, by_question: float, at_least: float) -> None:
    random = np.random.default_rng(7)
    found = [compare(paired(simulated(random, num_seeds, 60, 0.1, by_seed, by_question)), FEW) for _ in range(300)]
    covered = [one.low <= 0.1 <= one.high for one in found if one.low is not None and one.high is not None]
    assert np.mean(covered) >= at_least


def against_one_model(random: np.random.Generator, num_questions: int, effect: float, by_seed: float) -> Paired:
    """Five seeds against one model, 4 samples a cell: the model's draw of samples is the same for all seeds."""
    base = random.uniform(0.2, 0.8, num_questions)
    model = np.broadcast_to(random.binomial(4, base) / 4, (5, num_questions))
    chance = (base + effect + random.normal(0, by_seed, 5)[:, None]).clip(0, 1)
    arm = random.binomial(4, chance) / 4
    variances = [cells * (1 - cells) / 3 for cells in (arm, model)]
    return Paired(tuple(range(5)), tuple(map(str, range(num_questions))), arm, model, sum(variances), variances[1][0])


def test_coverage_against_one_model_whose_chance_all_seeds_share() -> None:
    """Of 1,400 it is .946."""
    random = np.random.default_rng(13)
    found = [compare(against_one_model(random, 60, 0.1, 0.04), FEW) for _ in range(300)]
    covered = [one.low <= 0.1 <= one.high for one in found if one.low is not None and one.high is not None]
    assert 0.92 <= np.mean(covered) <= 0.985


def test_more_samples_take_away_the_chance_that_all_seeds_share_too() -> None:
    """Where nothing but the draw of samples differs, so many of them leave next to nothing."""
    found = against_one_model(np.random.default_rng(14), 400, 0.0, 0.0)
    now, then = (detectable_with(found, samples=samples) for samples in (1, 1e6))
    apart = detectable_with(replace(found, common_variances=np.zeros(400)), samples=1e6)
    assert now is not None and then is not None and apart is not None
    assert then < 0.4 * now < apart


def test_an_effect_of_the_detectable_size_is_found_in_80_of_100() -> None:
    random = np.random.default_rng(2)
    squares = MeanSquares(5, 60, seeds=0.35, questions=0.2, rest=0.12)
    effect = minimum_detectable_effect(squares)
    assert effect is not None

    def cells() -> np.ndarray:
        by_seed = random.normal(0, ((0.35 - 0.12) / 60) ** 0.5, 5)[:, None]
        by_question = random.normal(0, ((0.2 - 0.12) / 5) ** 0.5, 60)
        return effect + by_seed + by_question + random.normal(0, 0.12**0.5, (5, 60))

    found = np.mean([(compare(paired(cells()), FEW).p or 1) < 0.05 for _ in range(300)])
    assert 0.73 <= found <= 0.87


def test_what_more_of_each_would_buy() -> None:
    random = np.random.default_rng(4)

    def sampled(num_seeds: int) -> Paired:
        cells = [random.binomial(4, random.uniform(0.2, 0.8, (num_seeds, 200))) / 4 for _ in range(2)]
        variances = sum(cell * (1 - cell) / 3 for cell in cells)
        return Paired(tuple(range(num_seeds)), tuple(map(str, range(200))), *cells, variances, np.zeros(200))

    one, five = sampled(1), sampled(5)
    now = compare(five).minimum_detectable_effect
    assert now == pytest.approx(detectable_with(five), rel=0.1)
    more: dict[str, Callable[[Paired], float | None]] = {
        "seeds": lambda of: detectable_with(of, seeds=2),
        "questions": lambda of: detectable_with(of, questions=4),
        "samples": lambda of: detectable_with(of, samples=2),
    }
    assert all((ask(five) or 1) < (now or 0) for ask in more.values())
    assert more["questions"](one) == pytest.approx((detectable_with(one) or 0) / 2, rel=0.02)
    assert more["seeds"](one) is None
    assert detectable_with(paired(five.differences), samples=2) is None
    assert detectable_with(paired(np.zeros((2, 5)))) is None


def test_no_p_value_is_shown_as_zero() -> None:
    assert [p_text(p) for p in (0.0002, 0.00099, 0.001, 0.0496, 1.0)] == ["<0.001", "<0.001", "0.001", "0.050", "1.000"]
    of_two = [corrected_p_text(p, 2) for p in (2 * LEAST_P, 4 * LEAST_P)]
    assert of_two == ["<0.001", "<0.001"]
    found = [LEAST_P] * 17 + [2 * LEAST_P, 30 * LEAST_P]  # the one but last is no smaller than those before it
    shown = [corrected_p_text(p, len(found)) for p in holm(found) if p is not None]
    assert shown == ["≤0.004"] * 18 + ["0.006"]
    assert [p_text(p, at_most=True) for p in (0.0002, 22 * LEAST_P)] == ["<0.001", "≤0.005"]
