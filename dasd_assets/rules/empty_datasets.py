"""Why a dataset holds no example: the closed set of codes in `empty_datasets.kind`, and the sentence of each.

The stage that would train on an empty dataset is skipped; the next one goes on from the checkpoint before.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from dasd_resources.storage.lake import Lake, Row

EmptyKind = Literal[
    "no_response",
    "none_selectable",
    "no_question",
    "none_rolled_out",
    "none_cut_off",
    "none_cut",
    "none_continued",
    "none_passed",
    "no_teacher",
]
EMPTY_KINDS: dict[EmptyKind, str] = {
    "no_response": "There is no response of its temperature.",
    "none_selectable": "Filters, or a key that the reason names, left none of its temperature, or none was scored.",
    "no_question": "Of `mixed`: the last temperature's dataset is empty, so there is no question to roll out.",
    "none_rolled_out": "Of `mixed`: every rollout failed.",
    "none_cut_off": "Of `mixed`: no rollout reached its token limit.",
    "none_cut": "Of `mixed`: no rollout that was cut off has a place where its prefix could end.",
    "none_continued": "Of `mixed`: the teacher continued no prefix.",
    "none_passed": "Of `mixed`: no continuation passed the required filters.",
    "no_teacher": "Of `mixed`: the responses are imported, and no teacher is here to continue the student's.",
}
assert get_args(EmptyKind) == tuple(EMPTY_KINDS), "each kind stands in both, in one order"


@dataclass(frozen=True)
class MixtureCounts:
    """How many rollouts came how far: wanted, made, cut off, cut to a prefix, continued, and passed by the filters."""

    num_wanted: int
    num_rolled_out: int
    num_cut_off: int
    num_cut: int
    num_continued: int
    num_passed: int
    has_teacher: bool = True

    @property
    def kind(self) -> EmptyKind:
        """The first step after which nothing was left."""
        if not self.has_teacher:
            return "no_teacher"
        steps: list[tuple[int, EmptyKind]] = [
            (self.num_wanted, "no_question"),
            (self.num_rolled_out, "none_rolled_out"),
            (self.num_cut_off, "none_cut_off"),
            (self.num_cut, "none_cut"),
            (self.num_continued, "none_continued"),
        ]
        return next((kind for number, kind in steps if not number), "none_passed")

    @property
    def funnel(self) -> str:
        """The counts in words."""
        return (
            f"of {self.num_wanted:,} questions {self.num_rolled_out:,} were rolled out, {self.num_cut_off:,} cut off, "
            f"{self.num_continued:,} continued by the teacher, and {self.num_passed:,} passed the filters"
        )


def empty_mixture(recipe: str, dataset: str, counts: MixtureCounts) -> Row:
    """The `empty_datasets` row of the mixed-policy dataset."""
    return {
        "recipe": recipe,
        "dataset": dataset,
        "kind": counts.kind,
        "reason": f"{_MIXTURE[counts.kind]}: {counts.funnel}",
        "num_responses": None,
        "num_rolled_out": counts.num_rolled_out,
        "num_cut_off": counts.num_cut_off,
        "num_continued": counts.num_continued,
        "num_passed": counts.num_passed,
    }


_MIXTURE: dict[EmptyKind, str] = {
    "no_question": "the last temperature's dataset is empty, so there was no question to roll out",
    "none_rolled_out": "every rollout failed",
    "none_cut_off": "no rollout was cut off",
    "none_cut": "no rollout that was cut off could be cut to a prefix",
    "none_continued": "the teacher continued no rollout that was cut off",
    "none_passed": "no continuation passed the filters",
    "no_teacher": "the responses are imported, and no teacher is here to continue what the student begins",
}


def empty_selection(recipe: str, dataset: str, num_responses: int, drops: str) -> Row:
    """The `empty_datasets` row of a temperature's dataset. drops: what left none, in words."""
    kind: EmptyKind = "none_selectable" if num_responses else "no_response"
    reason = f"none of {num_responses:,} responses is left to select; {drops}" if num_responses else drops
    counts = {"num_rolled_out": None, "num_cut_off": None, "num_continued": None, "num_passed": None}
    key = {"recipe": recipe, "dataset": dataset}
    return {**key, "kind": kind, "reason": reason, "num_responses": num_responses, **counts}


def empty_datasets(lake: Lake, recipe: str) -> dict[str, Row]:
    """Dataset -> its `empty_datasets` row, of those of a recipe that are empty now."""
    rows = lake.read("SELECT * FROM empty_datasets WHERE recipe = $recipe", {"recipe": recipe}).to_dicts()
    return {row["dataset"]: row for row in rows}
