"""Shares of the report's size: how their figures are extrapolated, and that page and plan are those of the figures."""

import importlib
from types import ModuleType

import pytest
from test_bench import FRAME

from dasd_assets.plan.assumptions import assumed
from dasd_assets.plan.figures import Figure
from dasd_assets.plan.hardware import machine
from dasd_resources.recipe import load_recipe

SHARES = (0.03, 0.1, 1.0, 3.0)
# Step -> the plan's rate of it, and how many of its units there are for a token of the responses (counted at 1 %).
RATES = {
    "student tokens": ("tokenised_per_second", 1.0),
    "verdicts": ("judged_tokens_per_second", 1.0),
    "sentence table": ("sentence_tokens_per_second", 1.0),
    "datasets": ("written_tokens_per_second", 108_484_857 / 257_140_182),
}
BYTES = {
    "bytes.teacher_token": ["responses"],
    "bytes.student_token": ["student_tokens"],
    "bytes.student_logprob": ["student_logprobs"],
    "bytes.sentence": ["sentence_probabilities", "sentence_types"],
    "bytes.example_token": ["sft_examples"],
}


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FRAME["ROOT"] / "bench")
    return importlib.import_module("bench_scale")


@pytest.mark.parametrize("num_shares", [2, 3, 4])
def test_a_fixed_cost_is_not_taken_for_slow_growth(scale: ModuleType, num_shares: int) -> None:
    """10 s, and 40 for each percent: a power law through the three smallest would give 100 % an hour less."""
    shares = SHARES[:num_shares]
    fixed, exponent, *hours = scale.whole(shares, [10 + 40 * share for share in shares])
    assert (fixed, exponent) == (pytest.approx(10), pytest.approx(1))
    assert hours == [pytest.approx(10 + 40 * 100)] * 2


def test_what_grows_faster_than_the_responses_is_shown(scale: ModuleType) -> None:
    _, exponent, in_proportion, by_exponent = scale.whole(SHARES, [10 + 40 * share**1.5 for share in SHARES])
    assert exponent == pytest.approx(1.5, abs=0.05)
    assert by_exponent == pytest.approx(10 + 40 * 100**1.5, rel=0.2)
    assert by_exponent > 4 * in_proportion


def test_a_faster_machine_at_the_largest_share_does_not_make_growth_slow(scale: ModuleType) -> None:
    *rest, last = [10 + 40 * share for share in SHARES]
    _, exponent, *hours = scale.whole(SHARES, [*rest, 0.7 * last])
    assert exponent < 1
    assert hours == [pytest.approx(0.7 * 40 * 100, rel=0.05)] * 2


def test_noise_makes_no_cost_negative(scale: ModuleType) -> None:
    fixed, exponent, *hours = scale.whole(SHARES, [0.6, 0.8, 0.4, 0.5])
    assert 0 <= fixed <= 0.4 and exponent >= 0
    assert all(0 < seconds < 60 for seconds in hours)
    _, exponent, *hours = scale.whole(SHARES, [0.6, 0.8, 0.4, 2.0])  # of a few seconds the growth is not seen
    assert exponent == 1 and hours[0] == hours[1]


def test_peaks_are_extrapolated_from_shares_that_hold_whole_batches(scale: ModuleType) -> None:
    """200 questions are 0.19 %: what a part of a batch takes says nothing of many."""
    assert scale.most(SHARES[:3], [0.5e9, 0.9e9, 1.2e9]) is None
    assert scale.most(SHARES, [0.5e9, 0.9e9, 1.2e9, 1.3e9]) == pytest.approx(1.3e9 + 0.05e9 * 97)
    assert scale.most(SHARES, [0.5e9, 0.9e9, 1.2e9, 1.1e9]) == 1.1e9


def test_rows_a_second_are_responses_or_sentences(scale: ModuleType) -> None:
    size = {"responses": 100.0, "tokens": 2_000 * scale.TOKENS_PER_SENTENCE}
    assert [scale.paces(step, size, 50.0)[1] for step in scale.STEPS[1:]] == [
        *("", 2.0, 2.0, 2.0, 2.0),
        *(pytest.approx(40), pytest.approx(40)),
        *(2.0, 2.0, "", "", ""),
    ]


def test_the_page_has_the_figures_that_are_kept(scale: ModuleType) -> None:
    text = (scale.DOCS / scale.PAGE).read_text(encoding="utf-8")
    assert scale.with_tables(text, scale.stored(scale.DOCS)) == text, "run bench/bench_scale.py --write"


def test_a_plan_assumes_what_was_measured_at_the_largest_share(scale: ModuleType) -> None:
    """Each value within a fifth, in its interval."""
    kept, figures = scale.stored(scale.DOCS), assumed(load_recipe("dasd-4b"), machine("H100", 8))
    last = max(share for share, step in kept.found if step == scale.SIZES)
    sizes = kept.found[last, scale.SIZES]
    measured = {name: sum(sizes[f"bytes.{table}"] for table in tables) for name, tables in BYTES.items()}
    types = {"types and scores": ("typed_per_second", 2 / scale.TOKENS_PER_SENTENCE)}
    for step, (name, units) in {**RATES, **types}.items():
        measured[name] = units * sizes["tokens"] / scale.growth(kept, step).seconds[last]
    wrong = {name: (value, figures[name]) for name, value in measured.items() if not _agrees(value, figures[name])}
    assert wrong == {}, "set dasd_assets/plan/assumptions.py from docs/planning.md, and its sample output"


def _agrees(value: float, figure: Figure) -> bool:
    return figure.low <= value <= figure.high and figure.value == pytest.approx(value, rel=0.2)
