"""Why a dataset is empty: the first step after which nothing was left, with the counts."""

import pytest

from dasd_assets.rules.empty_datasets import MixtureCounts, empty_mixture, empty_selection


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
