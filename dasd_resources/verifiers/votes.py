"""The final answer of a text in a form that is equal where two answers are: what a majority is counted by (maj@k).

Only wrong answers are told apart by it. Which are right their verifier says, and those are one answer, however written.
"""

import json
from collections.abc import Callable
from decimal import Decimal

from dasd_resources.verifiers.exact import normal_text
from dasd_resources.verifiers.final_answer import MAX_ANSWER_CHARS, extract_answer
from dasd_resources.verifiers.json_answers import found_json
from dasd_resources.verifiers.judgement import Asked
from dasd_resources.verifiers.math_answers import squeezed
from dasd_resources.verifiers.math_text import stated_answer
from dasd_resources.verifiers.multiple_choice import MAX_CHARS, chosen
from dasd_resources.verifiers.numeric import stated_number
from dasd_resources.verifiers.reasoning_gym_tasks import final_candidates
from dasd_resources.verifiers.written_numbers import plain, quantity

Vote = Callable[[str, Asked], str | None]


def exact_vote(answer: str, asked: Asked) -> str | None:
    """The text but for case, white space, markup and Unicode composition."""
    return _short(normal_text(extract_answer(answer)))


def math_vote(answer: str, asked: Asked) -> str | None:
    """A number as a reduced fraction with its unit; anything else as written, without white space and typography."""
    stated = stated_answer(answer)
    if not _short(stated):
        return None
    number = quantity(plain(stated))
    return f"{number.value} {number.unit}".strip() if number else squeezed(plain(stated))


def numeric_vote(answer: str, asked: Asked) -> str | None:
    """The number as a reduced fraction with its unit; None where the answer gives none."""
    number = stated_number(answer)
    return f"{number.value} {number.unit}".strip() if number else None


def choice_vote(answer: str, asked: Asked) -> str | None:
    """The letter of the option."""
    return chosen(answer, asked.question) if len(answer) <= MAX_CHARS else None


def json_vote(answer: str, asked: Asked) -> str | None:
    """The value with sorted keys and plain numbers; None where there is none."""
    found = found_json(answer)
    return None if found is None else json.dumps(found, sort_keys=True, default=_number)


def task_vote(answer: str, asked: Asked) -> str | None:
    """The first candidate for the final answer, in any case, its white space as one blank."""
    candidates = final_candidates(answer, asked.reference_answer)
    return _short(normal_text(candidates[0])) if candidates else None


def _short(text: str) -> str | None:
    """None for an answer that no verifier reads: an empty or an overlong one."""
    return text if 0 < len(text) <= MAX_ANSWER_CHARS else None


def _number(value: object) -> float:
    """A fraction as json.dumps writes it, an integral one as an integer: 2.0 is 2."""
    assert isinstance(value, Decimal)
    number = float(value)
    return int(number) if number.is_integer() else number
