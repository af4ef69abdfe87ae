"""The closed set of codes in `rejected_prompts.kind`: why a line of a landed file is not in `prompts`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from dasd_resources.landing.prompt_files import Prompt

Malformed = Literal[
    "empty_file",
    "damaged_file",
    "row_too_long",
    "invalid_encoding",
    "invalid_json",
    "invalid_cells",
    "missing_question",
    "invalid_field",
    "unknown_verifier",
    "missing_reference",
    "invalid_reference",
]
Excluded = Literal[
    "duplicate",
    "duplicate_line",
    "duplicate_merged",
    "duplicate_file_gone",
    "near_duplicate",
    "held_out",
    "overlaps_held_out",
    "withdrawn",
    "withdrawn_file_gone",
]
RejectionKind = Malformed | Excluded

REJECTION_KINDS: dict[RejectionKind, str] = {
    "empty_file": "The file has no row; the line is 0.",
    "damaged_file": "The file breaks off, or is not of its format; what follows is lost; the line is 0.",
    "row_too_long": "The row has more bytes than a row may have.",
    "invalid_encoding": "The row is not UTF-8.",
    "invalid_json": "The row is not one JSON object with distinct keys and finite numbers, or is nested too deeply.",
    "invalid_cells": "The record of a table of text has a stray quote, or other cells than the header.",
    "missing_question": "The row has no question.",
    "invalid_field": "A field has the wrong type, is empty, cannot be stored, or stands twice.",
    "unknown_verifier": "There is no verifier of this name.",
    "missing_reference": "The row names a verifier, but has no reference answer.",
    "invalid_reference": "The verifier does not accept the reference answer itself, so no response could be correct.",
    "duplicate": "Batch `owner_batch` brought the same prompt, `prompt_id`, before.",
    "duplicate_line": "An earlier line of the same file is the same prompt, `prompt_id`.",
    "duplicate_merged": "The same as either of these; what the line says besides is in `prompt_lines`, to be merged.",
    "duplicate_file_gone": "Prompt `prompt_id` was left to batch `owner_batch`, which is gone, as is this line's file.",
    "near_duplicate": "Almost the same question as prompt `prompt_id` of batch `owner_batch`.",
    "held_out": "The question is in a benchmark, or in another file of held-out questions.",
    "overlaps_held_out": "The question shares word n-grams with a held-out one (`held_out_overlaps`).",
    "withdrawn": "A takedown withdrew the question.",
    "withdrawn_file_gone": "The question is no longer withdrawn, but its text went with this line's file.",
}
assert (*get_args(Malformed), *get_args(Excluded)) == tuple(REJECTION_KINDS), "each kind stands in both, in one order"
MALFORMED: tuple[str, ...] = get_args(Malformed)  # what is wrong with the line itself, not with its question
DUPLICATES: tuple[RejectionKind, ...] = ("duplicate", "duplicate_line", "duplicate_merged")


@dataclass(frozen=True)
class RejectedPrompt:
    """A row that is not in `prompts`, and why; line 0 stands for the file as a whole.

    reason: for people. prompt_id: of the prompt it repeats, or the withdrawn one. owner_batch: the batch that has it.
    line: what a sound row says whose question an earlier row of the file has.
    """

    source_file: str
    source_line: int
    kind: RejectionKind
    reason: str
    prompt_id: str | None = None
    owner_batch: str | None = None
    line: "Prompt | None" = None
