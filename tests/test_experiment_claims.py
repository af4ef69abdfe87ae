"""The verdict on what an experiment claims: each of its outcomes, of frames that are written here."""

from pathlib import Path

import polars as pl
import pytest

from dasd_assets.experiments.claims import (
    CLAIMED,
    FAILS,
    HOLDS,
    LEGEND,
    OPEN,
    claim_rows,
    claims_section,
    claims_table,
    judged,
)
from dasd_assets.experiments.dataset_differences import LESS, LOSS, width
from dasd_assets.experiments.pages import CLAIMS, EXPERIMENTS, OF_ANOTHER_HOME, rows_there
from dasd_assets.experiments.result_table import markdown_table
from dasd_assets.rules.statistics.holm import SIGNIFICANT
from dasd_resources.recipe.claim import Claim
from dasd_resources.recipe.experiment import Experiment

GRID = Experiment.model_validate(
    {
        "name": "grid",
        "title": "Four arms",
        "report": "Nothing.",
        "recipe": "demo",
        "seeds": [1, 2],
        "baseline": "random",
        "arms": {"student": [], **{arm: [{"dataset": "t060"}] for arm in ("random", "das", "longest")}},
        "pairs": [["das", "student"]],
    }
)


def of(*above: tuple[str, str], measure: str = "accuracy") -> Experiment:
    claim = {"claim": "The first is\n better", "above": above, "of": measure}
    return GRID.model_copy(update={"claims": (Claim.model_validate(claim),)})


def compared(*rows: tuple[str, float, float | None], temperature: float = 1.0, num_seeds: int = 2) -> pl.DataFrame:
    """arm, difference to random and p of each, with an interval of 0.02 and 0.04 to its sides where there is a p."""
    return pl.DataFrame(
        [
            {
                "arm": arm,
                "baseline": "random",
                "benchmark": "math",
                "temperature": temperature,
                "difference": difference,
                "low": None if p is None else difference - 0.02,
                "high": None if p is None else difference + 0.04,
                "minimum_detectable_effect": None if p is None else 0.05,
                "p_holm": p,
                "num_seeds": num_seeds,
            }
            for arm, difference, p in rows
        ],
        schema_overrides=dict.fromkeys(("low", "high", "minimum_detectable_effect", "p_holm"), pl.Float64),
    )


@pytest.mark.parametrize(
    ("difference", "p", "num_seeds", "whole", "shown"),
    [
        (0.1, 0.049, 2, HOLDS, "das less random +10.0 [+8.0, +14.0] (yes)"),
        (-0.1, 0.049, 2, FAILS, "das less random -10.0 [-12.0, -6.0] (no: the other way)"),
        (0.1, SIGNIFICANT, 2, OPEN, "das less random +10.0 [+8.0, +14.0] (not told apart; 5.0 could have been seen)"),
        (-0.1, 0.9, 2, OPEN, "das less random -10.0 [-12.0, -6.0] (not told apart; 5.0 could have been seen)"),
        (0.1, 0.001, 1, OPEN, "das less random +10.0 [+8.0, +14.0] (one seed)"),
        (0.0, None, 2, OPEN, "das less random +0.0 (no interval)"),
    ],
)
def test_a_comparison_is_decided_by_its_corrected_p_and_its_sign(
    difference: float, p: float | None, num_seeds: int, whole: str, shown: str
) -> None:
    rows = compared(("das", difference, p), num_seeds=num_seeds)
    [found] = judged(of(("das", "random")), rows, None)
    assert (found.claim, found.text, found.comparisons) == ("The first is better", whole, [shown])


def test_a_pair_that_is_compared_the_other_way_round_is_turned() -> None:
    [found] = judged(of(("random", "das")), compared(("das", -0.1, 0.01)), None)
    assert (found.whole, found.comparisons) == (HOLDS, ["random less das +10.0 [+6.0, +12.0] (yes)"])
    [found] = judged(of(("random", "das")), compared(("das", 0.1, 0.01)), None)
    assert (found.whole, found.comparisons) == (FAILS, ["random less das -10.0 [-14.0, -8.0] (no: the other way)"])
    [found] = judged(of(("random", "das")), compared(("das", 0.0, None)), None)
    assert found.comparisons == ["random less das +0.0 (no interval)"]


def test_a_claim_holds_where_each_comparison_says_yes_and_fails_where_one_is_the_other_way() -> None:
    pairs = ("das", "random"), ("longest", "random")
    cases = [(0.1, 0.01, HOLDS), (0.1, 0.5, OPEN), (-0.1, 0.5, OPEN), (-0.1, 0.01, FAILS)]
    for difference, p, whole in cases:
        rows = compared(("das", 0.1, 0.01), ("longest", difference, p))
        assert [one.whole for one in judged(of(*pairs), rows, None)] == [whole]
    rows = compared(("das", 0.1, 0.5), ("longest", -0.1, 0.01))
    assert [one.whole for one in judged(of(*pairs), rows, None)] == [FAILS]


def test_what_is_not_compared_yet_leaves_a_claim_open() -> None:
    pairs = ("das", "random"), ("longest", "random")
    [found] = judged(of(*pairs), compared(("das", 0.1, 0.01)), None)
    assert (found.whole, found.comparisons[1]) == (OPEN, "longest less random (not there yet)")
    [found] = judged(of(*pairs), compared(("das", -0.1, 0.01)), None)
    assert found.whole == FAILS
    [found] = judged(of(*pairs), compared(("das", 0.1, 0.01)).clear(), None)
    assert (found.text, set(found.said.values())) == (OPEN, {"not there yet"})


def test_each_benchmark_and_temperature_has_a_verdict_and_is_named_where_there_are_several() -> None:
    rows = pl.concat([compared(("das", 0.1, 0.01), temperature=0.6), compared(("das", -0.1, 0.01))])
    found = judged(of(("das", "random")), rows, None)
    assert [one.text for one in found] == [f"math, T=0.6: {HOLDS}", f"math, T=1: {FAILS}"]
    [loss] = judged(of(("das", "random"), measure="training_loss"), rows, trained(0.2, 0.1))
    assert loss.text == HOLDS  # what they were trained on is one, wherever they are asked


def trained(difference: float | None, half: float | None, num_seeds: int = 2) -> pl.DataFrame:
    names = {"arm": "das", LESS: "random", LOSS: difference, width(LOSS): half, "num_seeds": num_seeds}
    return pl.DataFrame([names], schema_overrides=dict.fromkeys((LOSS, width(LOSS)), pl.Float64))


@pytest.mark.parametrize(
    ("difference", "half", "whole", "shown"),
    [
        (0.2, 0.1, HOLDS, " +0.200 [+0.100, +0.300] (yes)"),
        (-0.2, 0.1, FAILS, " -0.200 [-0.300, -0.100] (no: the other way)"),
        (0.1, 0.2, OPEN, " +0.100 [-0.100, +0.300] (not told apart)"),
        (0.1, None, OPEN, " +0.100 (no interval)"),
        (None, None, OPEN, " (not there yet)"),
    ],
)
def test_what_arms_are_trained_on_is_decided_by_the_interval(
    difference: float | None, half: float | None, whole: str, shown: str
) -> None:
    rows = compared(("das", 0.1, 0.01))
    [found] = judged(of(("das", "random"), measure="training_loss"), rows, trained(difference, half))
    assert (found.whole, found.comparisons) == (whole, [f"das less random{shown}"])
    [turned] = judged(of(("random", "das"), measure="training_loss"), rows, trained(difference, half))
    assert turned.whole == {HOLDS: FAILS, FAILS: HOLDS, OPEN: OPEN}[whole]
    [of_one] = judged(of(("das", "random"), measure="training_loss"), rows, trained(difference, half, num_seeds=1))
    assert of_one.whole == OPEN and (half is None or of_one.comparisons[0].endswith("] (one seed)"))


def test_a_page_has_a_row_of_each_claim_and_the_web_ui_one_of_each_comparison() -> None:
    rows = compared(("das", 0.1, 0.01), ("longest", -0.1, 0.01))
    found = judged(of(("das", "random"), ("longest", "random")), rows, None)
    [row] = claim_rows(found)
    assert tuple(row) == CLAIMED and str(row["comparisons"]).count("; ") == 1
    assert claims_section(found)[1:] == [markdown_table(CLAIMED, [row]), LEGEND] and claims_section([]) == []
    table = claims_table(found)
    assert [[one[name] for name in table.columns] for one in table.rows] == [
        ["The first is better", FAILS, "das less random", "+10.0 [+8.0, +14.0]", "yes"],
        ["The first is better", FAILS, "longest less random", "-10.0 [-12.0, -6.0]", "no: the other way"],
    ]


def test_rows_of_the_list_are_read_as_they_stand(tmp_path: Path) -> None:
    claimed = [
        {**dict.fromkeys(CLAIMS, None), "claim": claim, "page": f"[{page} | a title]({page}.md)"}
        for claim, page in (("first | of two", "grid"), ("of the other", "other_grid"), ("second", "grid"))
    ]
    listed = [{**dict.fromkeys(EXPERIMENTS, "1 of 2"), "experiment": f"[Grid]({name}.md)"} for name in ("a", "grid")]
    assert rows_there(tmp_path, CLAIMS, "grid") == []
    tables = [markdown_table(CLAIMS, claimed), markdown_table(EXPERIMENTS, listed), OF_ANOTHER_HOME]
    (tmp_path / "results.md").write_text("\n\n".join(tables) + "\n")
    assert rows_there(tmp_path, CLAIMS, "grid") == [claimed[0], claimed[2]]
    assert rows_there(tmp_path, EXPERIMENTS, "grid") == [listed[1]]
    assert rows_there(tmp_path, EXPERIMENTS, "unknown") == []
