"""`reasoning_gym:<dataset>`: the dataset's own scorer gives the final answer its full score.

Only scorers that compare are called here (`reasoning_gym_datasets`), those that evaluate in a sandbox
(`evaluated_scorers`). Where one would give its full score too readily,
or would work without bound, a form is asked of the answer first (FORMS).
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from dasd_resources.verifiers.evaluated_scorers import GaveUp, check_evaluated, evaluated_score, in_notation
from dasd_resources.verifiers.final_answer import (
    MARKUP,
    MAX_ANSWER_CHARS,
    boxed,
    extract_answer,
    last_marker,
    marked,
    tagged,
    tidy,
)
from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.verifiers.reasoning_gym_datasets import EVALUATED_DATASETS
from dasd_resources.visible_text import excerpt

Entry = dict[str, object]
Metadata = dict[str, object]

_NUMBER = r"[-+]?[\d.]+(?:[eE][-+]?\d{1,3})?"
_AFTER_MARKER = re.compile(r"\banswers?[*_`]*\s*(?:is\b:?|:)[*_]*", re.IGNORECASE)
_FENCED = re.compile(r"^```[^\n`]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MOVE = re.compile(r"Move disk \d{1,4} from Peg (\d{1,4}) to Peg (\d{1,4})")
_MAX_STEPS = 1_000  # moves or presses that an answer may have, each of which is followed
# What the scorer must be able to do something with, or the row is no row of that dataset.
_PROBES = {"boxnet": "[]", "graph_color": "{}", "rubiks_cube": "U", "rush_hour": "A+1"}
# Loops of the scorers run this far: a number of the row, not of the answer.
_LIMITS = {"rubiks_cube": {"cube_size": 10}, "tower_of_hanoi": {"num_disks": 1_000, "num_pegs": 1_000}}


def judge_reasoning_gym(text: str, asked: Asked) -> Judgement:
    """Whether the dataset's own scorer gives the final answer its full score."""
    candidates = final_candidates(text, asked.reference_answer)
    if not candidates:
        return Judgement("incorrect", "wrong_answer", "the answer is empty")
    if (longest := max(map(len, candidates))) > MAX_ANSWER_CHARS:
        reason = f"the answer has {longest} characters, at most {MAX_ANSWER_CHARS} are compared"
        return Judgement("incorrect", "wrong_answer", reason)
    try:
        if any(has_form(answer, asked) and _score(answer, asked) == 1.0 for answer in candidates):
            return CORRECT
    except GaveUp as error:
        return replace(error.judgement, reason=f"{error}: answer {excerpt(candidates[0])}")
    expected = f", expected {excerpt(asked.reference_answer)}" if asked.reference_answer else " does not solve the task"
    return Judgement("incorrect", "wrong_answer", f"answer {excerpt(candidates[0])}{expected}")


def check_reasoning_gym(asked: Asked) -> str | None:
    """Why this row cannot be judged: its reference or metadata do not get the full score of the scorer."""
    if asked.parameter in EVALUATED_DATASETS:
        return check_evaluated(asked)
    metadata = _metadata(asked)
    for key, most in _LIMITS.get(asked.parameter, {}).items():
        if isinstance(value := metadata.get(key), int) and value > most:
            return f"metadata key {key} is {value}, at most {most} is judged"
    if asked.reference_answer:
        if judge_reasoning_gym(asked.reference_answer, asked).outcome == "correct":
            return None
        return (
            f"reference_answer {excerpt(asked.reference_answer)} does not get the full score of {asked.parameter} with "
            "this row's metadata; land the dataset's question, answer and metadata unchanged"
        )
    probe = _PROBES.get(asked.parameter)
    if probe is None:
        return f"a row of {asked.parameter} needs a reference_answer; write the dataset's answer there"
    if (_score(probe, asked) or 0) > 0:
        return None
    return f"metadata is not that of a {asked.parameter} row; land the dataset's own metadata unchanged"


def final_candidates(text: str, reference: str) -> list[str]:
    """What may be the final answer, as written and without markup: of the tags, else of a fenced block or the words.

    An answer part that is the reference's very text is the reference, whatever markup it seems to hold.
    """
    if text.strip() == reference.strip():
        return [reference] if reference.strip() else []
    found = tagged(text)
    if found is None:
        found = _block(text)
    parts = _worded(text, reference) if found is None else [found]
    return list(dict.fromkeys(one for part in parts for one in (part.strip(), tidy(part)) if one))


def has_form(answer: str, asked: Asked) -> bool:
    """Whether the answer is such that its full score means that it is right, and that scoring it ends soon."""
    if asked.parameter in EVALUATED_DATASETS and not in_notation(answer, asked):
        return False
    form = FORMS.get(asked.parameter)
    return form is None or form(answer, asked)


def _worded(text: str, reference: str) -> list[str]:
    """The final answer in words; of a reference of several lines, also with all the lines that follow the marker."""
    several = "\n" in reference.strip() and not boxed(text)
    markers = list(_AFTER_MARKER.finditer(text)) if several else []
    return [extract_answer(text), *(text[marker.end() :] for marker in markers[-1:])]


def _block(text: str) -> str | None:
    """The last fenced block, where nothing but this block is said to be the answer ("The answer is as follows:")."""
    fence = next(reversed(list(_FENCED.finditer(text))), None)
    if fence is None or boxed(text):
        return None
    marker = last_marker(text)
    if marker is None:
        return fence[1]
    leads = marker.end() > fence.start() or marked(text).rstrip(MARKUP).endswith(":")
    return fence[1] if marker.start() < fence.start() and leads else None


def _score(answer: str, asked: Asked) -> float | None:
    """The scorer's score; None where it raises, as several do for what they cannot parse."""
    metadata = _restored(asked.parameter, _metadata(asked))
    entry: Entry = {"question": asked.question, "answer": asked.reference_answer or None, "metadata": metadata}
    if asked.parameter in EVALUATED_DATASETS:
        return evaluated_score(answer, entry, asked)
    try:
        return _scorer(asked.parameter)(answer, entry)
    except Exception:
        return None


def _metadata(asked: Asked) -> Metadata:
    metadata: Metadata = json.loads(asked.metadata)
    return metadata


def _restored(dataset: str, metadata: Metadata) -> Metadata:
    """Tuples that JSON made lists, where the scorer compares them."""
    grid = metadata.get("output")
    if dataset in ("arc_agi", "rearc") and isinstance(grid, list):
        return metadata | {"output": tuple(tuple(row) if isinstance(row, list) else row for row in grid)}
    return metadata


@cache
def _scorer(dataset: str) -> Callable[[str, Entry], float]:
    from reasoning_gym import get_score_answer_fn  # loads sympy: 0.8 s, which only judging should pay

    scorer: Callable[[str, Entry], float] = get_score_answer_fn(dataset)
    return scorer


def _like(pattern: str, most: int = MAX_ANSWER_CHARS) -> Callable[[str, Asked], bool]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda answer, asked: len(answer) <= most and compiled.fullmatch(answer.strip()) is not None


def _as_many(separator: str | None) -> Callable[[str, Asked], bool]:
    return lambda answer, asked: len(answer.split(separator)) == len(asked.reference_answer.split(separator))


def _uses_the_numbers(answer: str, asked: Asked) -> bool:
    numbers = _metadata(asked).get("numbers")
    given = [str(number) for number in numbers] if isinstance(numbers, list) else []
    return sorted(re.findall(r"\d+", answer)) == sorted(given)


def _moves_between_pegs(answer: str, asked: Asked) -> bool:
    number = _metadata(asked).get("num_pegs")
    pegs = {str(peg) for peg in range(1, number + 1)} if isinstance(number, int) else set()
    moves = [_MOVE.fullmatch(line.strip()) for line in answer.strip().splitlines() if line.strip()]
    return all(move and {move[1], move[2]} <= pegs for move in moves)


FORMS: dict[str, Callable[[str, Asked], bool]] = {
    "advanced_geometry": _like(r"[^,]+(?:,[^,]+)?"),  # it ignores a third coordinate
    "complex_arithmetic": _like(r"[-+\d.ijeE() ]+", 200),  # `nan` gets the full score
    "fraction_simplification": _like(r"\$*\s*(?:\d+\s*/\s*\d+|\\d?frac\s*\{\s*\d+\s*\}\s*\{\s*\d+\s*\})\s*\$*", 200),
    "graph_color": _like(r"\{.*\}"),  # a list is not a colouring
    "kakurasu": _like(r"[01\s,;|\[\]]+"),  # it skips all but 0 and 1
    "knights_knaves": _like(r"(?i:(?!.*\b(?:not|or|either|neither|nor|if|unless)\b)).*"),  # it skips words
    "letter_jumble": _as_many(None),  # it ignores what follows
    "polynomial_equations": _like(rf"{_NUMBER}(?:\s*,\s*{_NUMBER})*"),  # it ignores what is no number
    "puzzle24": _uses_the_numbers,  # it takes any four numbers
    "quantum_lock": _like(
        r"[^A-Za-z]*(?:[A-Ca-c][^A-Za-z]*)+", _MAX_STEPS
    ),  # it skips words, and each press may multiply
    "rubiks_cube": _like(
        r"(?:[LRDUBFXYZMES]w?(?:'[1-3]?|[1-3]'?)?\s*)+", _MAX_STEPS
    ),  # it drops other moves, repeats n times
    "rush_hour": _like(r"(?:[A-Z][+-]\d\s*)+", _MAX_STEPS),  # it walks all n steps
    "sokoban": _like(r"[UDLR\s,]+"),  # it skips other letters
    "time_intervals": _like(r"-?\d+(?:\s+days?)?(?:\s*,\s*[\d:.]+)?|[\d:.]+"),  # it reads `5` of `5 or 6 days`
    "tower_of_hanoi": _moves_between_pegs,  # it prints a move to or from a peg that there is not
    "word_sorting": _as_many(","),  # it ignores what follows
}
