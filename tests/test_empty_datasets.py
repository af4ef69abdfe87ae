"""Why a dataset is empty: the first step after which nothing was left, with the counts."""

from collections.abc import Mapping

import pytest
from conftest import Project, change, changed

from dasd_assets.rules.empty_datasets import MixtureCounts, empty_mixture, empty_selection
from dasd_assets.selection import select_from_pool, why_empty


@pytest.mark.parametrize(
    ("counts", "kind", "told"),
    [
        ((0, 0, 0, 0, 0), "no_question", "so there was no question to roll out: of 0 questions 0 were rolled out"),
        ((4, 0, 0, 0, 0), "none_rolled_out", "every rollout failed: of 4 questions 0 were rolled out"),
        ((4, 3, 0, 0, 0), "none_cut_off", "no rollout was cut off: of 4 questions 3 were rolled out, 0 cut off"),
        ((4, 3, 2, 0, 0), "none_cut", "no rollout that was cut off could be cut to a prefix: "),
        ((4, 3, 2, 2, 0), "none_continued", "the teacher continued no rollout that was cut off: "),
        (
            (4, 3, 2, 2, 1),
            "none_passed",
            "no continuation passed the filters: of 4 questions 3 were rolled out, 2 cut ",
        ),
    ],
)
def test_a_mixture_is_empty_for_the_first_step_that_leaves_nothing(
    counts: tuple[int, int, int, int, int], kind: str, told: str
) -> None:
    row = empty_mixture("r", "mixed", MixtureCounts(*counts, num_passed=0))
    assert (row["kind"], row["num_rolled_out"], row["num_continued"]) == (kind, counts[1], counts[4])
    assert told in row["reason"]


def test_a_selection_is_empty_without_responses_or_by_the_filters() -> None:
    none = empty_selection("r", "t060", 0, "there are no responses")
    assert (none["kind"], none["num_responses"], none["reason"]) == ("no_response", 0, "there are no responses")
    dropped = empty_selection("r", "t060", 1200, "structure dropped 1200 of 1200")
    assert dropped["kind"] == "none_selectable"
    assert dropped["reason"] == "none of 1,200 responses is left to select; structure dropped 1200 of 1200"


TOKENS = {"selection.budget_unit": "tokens", "selection.budgets": {"t100": {"math": 1, "sums": 1, "code": 1}}}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"selection.min_sentences": 1_000}, "fewer sentences than selection.min_sentences: lower that; "),
        ({"heldout.questions": 0.999_999}, "scored ones are held out: lower heldout.questions; "),
        (TOKENS, "has more tokens than its budget: raise selection.budgets.t100; "),
    ],
)
def test_a_key_that_leaves_none_of_the_accepted_responses_is_named(
    finished: Project, settings: Mapping[str, object], told: str
) -> None:
    recipe = changed(finished.recipe, settings)
    params = finished.pool_params(recipe, "t100")
    assert select_from_pool(finished.warehouse, recipe, "t100", params)[0].is_empty()
    assert told in why_empty(finished.warehouse, recipe, "t100", params)["reason"]


def test_filters_that_drop_the_best_response_of_every_question_are_named(copy: Project) -> None:
    recipe = change(copy.recipe, "filters.apply", "after_selection")
    params = copy.pool_params(recipe, "t100")
    selected, _ = select_from_pool(copy.warehouse, recipe, "t100", params)
    with copy.warehouse.commit("test") as transaction:
        query = "UPDATE response_verdicts SET passed = FALSE WHERE list_contains($ids, response_id)"
        transaction.read(query, {"ids": selected["response_id"].to_list()})
    assert select_from_pool(copy.warehouse, recipe, "t100", params)[0].is_empty()
    told = "filters drop the best response of every question: write filters.apply: before_selection; "
    assert told in why_empty(copy.warehouse, recipe, "t100", params)["reason"]
