"""Quality filters (report §6.2): `responses` -> `response_verdicts`, one row per response and filter.

A response passes or fails each filter on its own, so the reasons say everything that is wrong with it. Left out:
rewriting; a response is kept as it is or dropped with its reason.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dasd_assets.rules.rule import Rule
from dasd_resources.chat import split_thinking
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Filters, Recipe, Repetition
from dasd_resources.verifiers import VERIFIER_VERSION, verify

# The report's list (§6.2)                                                 here
# "filter out samples exceeding the training context", student tokens      length
# truncated outputs                                                        truncation
# tool or function calls; both a thinking part and a final answer          structure
# "regular expressions and n-gram matching" for repeated paragraphs,       repetition
#   sentences and phrases
# (not a filter of the report: recorded to compare right with wrong, §4)   correctness
FILTERS = ("length", "truncation", "structure", "repetition", "correctness")
QUALITY_FILTERS = tuple(name for name in FILTERS if name != "correctness")
FILTER_VERSION = "1"
VERIFIERS = Rule("verifiers", VERIFIER_VERSION)
FILTERING = Rule("filters", FILTER_VERSION, ("filters.max_student_tokens", "filters.repetition"), (VERIFIERS,))

MAX_PERIOD = 512  # a longer loop repeats its 50-grams; searching on would cost more than all else
MIN_REPEATS = 3  # of a period: twice is how a writer restates a line
MIN_UNIT_CHARS = 20  # shorter sentences ("Wait.", "return x") recur in sound reasoning

_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])\s*|\n\s*")
_PHRASE_RUN = re.compile(r"(?<!\w)(\w.{3,60}?)\1{7,}", re.DOTALL)


@dataclass(frozen=True)
class Response:
    """A teacher response and its question, as far as the filters look at them.

    text is canonical; token_ids are the teacher's, as sampled, or of a text that both models wrote the student's;
    num_student_tokens counts the text in the student's.
    """

    text: str
    token_ids: Sequence[int]
    finish_reason: str
    tool_call: bool
    num_student_tokens: int
    question: str
    reference_answer: str | None
    verifier: str | None
    metadata: str


@dataclass(frozen=True)
class Verdict:
    """Whether a response passes a filter; the reason says why not, or why nothing could be judged."""

    passed: bool
    reason: str | None = None


def judge(response: Response, filters: Filters) -> dict[str, Verdict]:
    """The verdict of every filter, keyed and ordered as FILTERS."""
    verdicts = (
        length(response.num_student_tokens, filters.max_student_tokens),
        truncation(response.finish_reason),
        structure(response.text, response.tool_call),
        repetition(response.text, response.token_ids, filters.repetition),
        correctness(response),
    )
    return dict(zip(FILTERS, verdicts, strict=True))


def filter_version(recipe: Recipe, student: str) -> str:
    """Identifies the rules that judged a row: their code, their limits, and the tokenizer that counts length.

    student: its fingerprint.
    """
    limits = recipe.version("filters.max_student_tokens", "filters.repetition")
    return content_hash([FILTER_VERSION, VERIFIER_VERSION, limits, student])[:12]


def continuation_filter_version(recipe: Recipe, student: str) -> str:
    """Identifies the rules that judged a continuation: the filters, on the student's tokens of the whole text."""
    return content_hash(["whole", filter_version(recipe, student)])[:12]


def required_filters(require_correct: bool) -> tuple[str, ...]:
    """The filters that must pass for a text to be trained on: correctness only where the recipe requires it."""
    return FILTERS if require_correct else QUALITY_FILTERS


def length(num_student_tokens: int, max_student_tokens: int) -> Verdict:
    """At most so many tokens, counted by the tokenizer that will be trained."""
    if num_student_tokens <= max_student_tokens:
        return Verdict(True)
    return Verdict(False, f"{num_student_tokens} student tokens, at most {max_student_tokens}")


def truncation(finish_reason: str) -> Verdict:
    """Ended by the model itself."""
    return Verdict(True) if finish_reason == "stop" else Verdict(False, f"cut off: finish_reason is {finish_reason}")


def structure(text: str, tool_call: bool) -> Verdict:
    """No tool call; one thinking part and one final answer, neither blank."""
    body, answer = split_thinking(text)
    counts = {tag: text.count(tag) for tag in ("<think>", "</think>")}
    faults = {
        "calls a tool": tool_call,
        "no thinking part": not (body or "").strip(),
        "no final answer": not (answer or "").strip(),
        **{f"{count} {tag} delimiters, exactly 1 expected": count > 1 for tag, count in counts.items()},
    }
    reasons = [reason for reason, found in faults.items() if found]
    return Verdict(not reasons, "; ".join(reasons) or None)


def repetition(text: str, token_ids: Sequence[int], limits: Repetition) -> Verdict:
    """No measure of repetition above the recipe's share."""
    ids = np.asarray(token_ids, dtype=np.int64)
    shares = {
        **{f"duplicate {n}-grams": duplicate_ngram_share(ids, n) for n in limits.ngram_sizes},
        "repeated paragraphs": repeated_unit_share(_PARAGRAPH_END.split(text)),
        "repeated sentences": repeated_unit_share(_SENTENCE_END.split(text)),
        "repeated phrases": repeated_phrase_share(text),
    }
    reasons = [
        f"{name} make up {share:.2f}, at most {limits.max_duplicate_share:g}"
        for name, share in shares.items()
        if share > limits.max_duplicate_share
    ]
    tail = repeating_tail_share(ids, limits.tail_tokens)
    if tail > limits.max_tail_share:
        reasons.append(f"a loop makes up {tail:.2f} of the last tokens, at most {limits.max_tail_share:g}")
    return Verdict(not reasons, "; ".join(reasons) or None)


def correctness(response: Response) -> Verdict:
    """The verifier's word on the final answer; a question without a verifier passes, and the reason says so."""
    if response.verifier is None:
        return Verdict(True, "no verifier")
    assert response.reference_answer is not None, "landing refuses a verifier without a reference answer"
    _, answer = split_thinking(response.text)
    if answer is None:
        return Verdict(False, "no final answer")
    passed, reason = verify(response.verifier, answer, response.question, response.reference_answer, response.metadata)
    return Verdict(passed, reason)


def duplicate_ngram_share(token_ids: npt.NDArray[np.int64], size: int) -> float:
    """Share of n-grams that occurred before: 1 - distinct / all; 0 for fewer than 2 * size tokens, too few to tell.

    token_ids: (T,). n-grams are compared by 64-bit hash.
    """
    if len(token_ids) < 2 * size:
        return 0.0
    hashes = np.sort(_ngram_hashes(token_ids, size))
    return 1.0 - (1 + np.count_nonzero(hashes[1:] != hashes[:-1])) / len(hashes)


def repeating_tail_share(token_ids: npt.NDArray[np.int64], tail_tokens: int) -> float:
    """Share of the last `tail_tokens` tokens in their longest stretch of one period, said MIN_REPEATS times or more.

    token_ids: (T,). The stretch need not end the response: an end-of-turn token, or an answer, may follow the loop.
    """
    tail = token_ids[-tail_tokens:]
    periods = range(1, min(MAX_PERIOD, len(tail) // MIN_REPEATS) + 1)
    longest = max((_longest_period(tail, period) for period in periods), default=0)
    return longest / max(len(tail), 1)


def repeated_unit_share(units: Iterable[str]) -> float:
    """Share of characters in paragraphs or sentences said before; short ones never count as repeated."""
    counts = Counter(stripped for unit in units if (stripped := unit.strip()))
    repeated = sum((n - 1) * len(unit) for unit, n in counts.items() if len(unit) >= MIN_UNIT_CHARS)
    return repeated / max(sum(n * len(unit) for unit, n in counts.items()), 1)


def repeated_phrase_share(text: str) -> float:
    """Share of characters in phrases of 4 to 61 characters said eight times or more in a row, the first excluded."""
    repeated = sum(len(match[0]) - len(match[1]) for match in _PHRASE_RUN.finditer(text))
    return repeated / max(len(text), 1)


def _ngram_hashes(token_ids: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.uint64]:
    """(T,) -> (T - size + 1,), by doubling: the hash of 2^(k+1) tokens is made of two hashes of 2^k."""
    power, width, covered = _mix(token_ids.astype(np.uint64)), 1, 0
    result = np.zeros(len(token_ids), dtype=np.uint64)
    while width <= size:
        if size & width:
            count = len(token_ids) - covered - width + 1
            result, covered = _mix(result[:count] + power[covered : covered + count]), covered + width
        power, width = _mix(power[:-width] + _mix(power[width:])), 2 * width
    return result


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64: each output bit depends on every input bit, so sums of mixed values do not cancel."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _longest_period(tail: npt.NDArray[np.int64], period: int) -> int:
    """Length of the longest stretch with this period, counted if it holds the period MIN_REPEATS times; else 0."""
    breaks = np.flatnonzero(tail[period:] != tail[:-period])
    edges = np.concatenate(([-1], breaks, [len(tail) - period]))
    stretch = int(np.diff(edges).max()) - 1 + period
    return stretch if stretch >= MIN_REPEATS * period else 0
