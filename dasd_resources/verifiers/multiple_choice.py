"""`multiple_choice`: the same option letter."""

import re

from dasd_resources.verifiers.final_answer import compare_final_answer, tidy
from dasd_resources.verifiers.judgement import Asked, Judgement
from dasd_resources.verifiers.written_numbers import plain

_CHOICE = re.compile(r"(?i:option|choice)\s+\(?([A-Za-z])\b|\(([A-Za-z])\)|([A-Za-z])(?=$|[.):,])")


def judge_multiple_choice(answer: str, asked: Asked) -> Judgement:
    """Whether the final answer names the reference answer's option."""
    return compare_final_answer(answer, asked, _same_choice)


def _same_choice(answer: str, reference: str) -> bool:
    expected = _choice(reference)
    return expected is not None and _choice(answer) == expected


def _choice(text: str) -> str | None:
    """The option letter a text starts with: `B`, `(b)`, `B. because`, `Option B`."""
    match = _CHOICE.match(tidy(plain(text)))
    return match[match.lastindex].upper() if match and match.lastindex else None
