"""Quality filters (report §6.2): `responses` -> `response_verdicts`, one row per response and filter.

A response passes or fails each filter on its own, so the verdicts say everything that is wrong with it. Left out:
rewriting; a response is kept as it is or dropped with its reason. To add a filter, add its entry to `FILTERS`, at the
end (docs/extending.md).
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING, VERIFYING_LIMITS, Verdict, VerdictKind, final_answer_verdict
from dasd_resources.chat import split_thinking
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Filters, Recipe, Repetition, Thinking
from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.verifiers import VERIFIER_VERSION, Asked

FILTER_VERSION = "1"  # raise it when a verdict can change; not for a filter that is added

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
    num_student_tokens counts the text in the student's. thinking: what the recipe says of the teacher. confinement: of
    the program in its answer.
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
    thinking: Thinking = "required"
    confinement: Confinement = USUAL


@dataclass(frozen=True)
class Filter:
    """A filter; verdict rows, checks, figures in the web UI, and what is trained on follow from its entry.

    drops: what it drops, as the end of a sentence. judge: by the recipe's section `filters`. max_drop_share: the share
    of dropped responses above which its asset check warns; a recipe may set another in `checks.max_drop_share`.
    limits: dotted paths of what it reads of the recipe; they decide `filter_version`.
    always_required: whether it must pass for a text to be trained on; if not, only where the recipe says
    `require_correct`.
    """

    drops: str
    judge: Callable[[Response, Filters], Verdict]
    max_drop_share: float
    limits: tuple[str, ...] = ()
    always_required: bool = True


def judge(response: Response, filters: Filters, known: Collection[str] = ()) -> dict[str, Verdict]:
    """The verdict of every filter, keyed and ordered as FILTERS. known: filters whose verdicts there are already."""
    return {name: entry.judge(response, filters) for name, entry in FILTERS.items() if name not in known}


def filter_version(recipe: Recipe, student: str) -> str:
    """Identifies the rules that judged a row: their code, their limits, and the tokenizer that counts length.

    student: its fingerprint. Which filters there are is left out: verdicts of one that is added are rows beside the
    others, which stay valid.
    """
    return content_hash([FILTER_VERSION, VERIFIER_VERSION, recipe.version(*LIMITS), student])[:12]


def continuation_filter_version(recipe: Recipe, student: str) -> str:
    """Identifies the rules that judged a continuation: the filters, on the student's tokens of the whole text."""
    return content_hash(["whole", filter_version(recipe, student)])[:12]


def required_filters(require_correct: bool) -> tuple[str, ...]:
    """The filters that must pass for a text to be trained on. require_correct: the recipe's."""
    return tuple(name for name, entry in FILTERS.items() if entry.always_required or require_correct)


def length(num_student_tokens: int, max_student_tokens: int) -> Verdict:
    """At most so many tokens, counted by the tokenizer that will be trained."""
    if num_student_tokens <= max_student_tokens:
        return Verdict(True)
    return Verdict(False, "too_long", f"{num_student_tokens} student tokens, at most {max_student_tokens}")


def truncation(finish_reason: str) -> Verdict:
    """Ended by the model itself."""
    if finish_reason == "stop":
        return Verdict(True)
    return Verdict(False, "cut_off", f"cut off: finish_reason is {finish_reason}")


def structure(text: str, tool_call: bool, thinking: Thinking = "required") -> Verdict:
    """No tool call; a thinking part as the recipe has it; a final answer; each delimiter once, or never without."""
    body, answer = split_thinking(text)
    faults: list[tuple[VerdictKind, str]] = []
    if tool_call:
        faults.append(("tool_call", "calls a tool"))
    thinks = bool((body or "").strip())
    if thinking == "required" and not thinks:
        faults.append(("no_thinking", "no thinking part"))
    if thinking == "none" and thinks:
        faults.append(("unexpected_thinking", "a thinking part, where teacher.thinking is none"))
    if not (answer or "").strip():
        faults.append(("no_final_answer", "no final answer"))
    # Without a thinking part, one that is required is all that is missed: its delimiters are not counted, too.
    expected = 0 if body is None and thinking != "required" else 1
    for tag in ("<think>", "</think>"):
        if (count := text.count(tag)) > expected:
            faults.append(("extra_delimiters", f"{count} {tag} delimiters, exactly {expected} expected"))
    return Verdict.of_faults(faults)


def repetition(text: str, token_ids: Sequence[int], limits: Repetition) -> Verdict:
    """No measure of repetition above the recipe's share."""
    ids = np.asarray(token_ids, dtype=np.int64)
    shares: list[tuple[VerdictKind, str, float]] = [
        *[("repeated_ngrams", f"duplicate {n}-grams", duplicate_ngram_share(ids, n)) for n in limits.ngram_sizes],
        ("repeated_paragraphs", "repeated paragraphs", repeated_unit_share(_PARAGRAPH_END.split(text))),
        ("repeated_sentences", "repeated sentences", repeated_unit_share(_SENTENCE_END.split(text))),
        ("repeated_phrases", "repeated phrases", repeated_phrase_share(text)),
    ]
    faults: list[tuple[VerdictKind, str]] = [
        (kind, f"{name} make up {share:.2f}, at most {limits.max_duplicate_share:g}")
        for kind, name, share in shares
        if share > limits.max_duplicate_share
    ]
    tail = repeating_tail_share(ids, limits.tail_tokens)
    if tail > limits.max_tail_share:
        loop = f"a loop makes up {tail:.2f} of the last tokens, at most {limits.max_tail_share:g}"
        faults.append(("looping_tail", loop))
    return Verdict.of_faults(faults)


def correctness(response: Response) -> Verdict:
    """The verifier's verdict on the final answer; a question without a verifier passes, and the kind says so."""
    if response.verifier is None:
        return Verdict(True, "no_verifier", "no verifier")
    asked = Asked(
        response.question, response.reference_answer or "", response.metadata, confinement=response.confinement
    )
    return final_answer_verdict(response.text, response.verifier, asked, blank_is_missing=False)


CORRECTNESS = "correctness"  # the one that tells right answers from wrong ones
# The report's list (§6.2): "filter out samples exceeding the training context"; truncated outputs; tool or function
# calls, and both a thinking part and a final answer; "regular expressions and n-gram matching" for repeated paragraphs,
# sentences and phrases. Correctness is no filter of the report: it compares right with wrong answers (§4).
FILTERS: dict[str, Filter] = {
    "length": Filter(
        drops="responses that, with their prompt, exceed the training context in student tokens",
        judge=lambda response, filters: length(response.num_student_tokens, filters.max_student_tokens),
        max_drop_share=0.1,
        limits=("filters.max_student_tokens",),
    ),
    "truncation": Filter(
        drops="responses that did not end by themselves",
        judge=lambda response, filters: truncation(response.finish_reason),
        max_drop_share=0.2,
    ),
    "structure": Filter(
        drops="responses that call a tool, think otherwise than `teacher.thinking` says, or lack a final answer",
        judge=lambda response, filters: structure(response.text, response.tool_call, response.thinking),
        max_drop_share=0.1,
        limits=("teacher.thinking",),
    ),
    "repetition": Filter(
        drops="responses that repeat themselves or end in a loop",
        judge=lambda response, filters: repetition(response.text, response.token_ids, filters.repetition),
        max_drop_share=0.1,
        limits=("filters.repetition",),
    ),
    CORRECTNESS: Filter(
        drops="responses whose final answer the question's verifier does not accept",
        judge=lambda response, filters: correctness(response),
        max_drop_share=0.7,
        limits=VERIFYING_LIMITS,
        always_required=False,
    ),
}
LIMITS = tuple(dict.fromkeys(path for entry in FILTERS.values() for path in entry.limits))  # in that order
FILTERING = Rule("filters", FILTER_VERSION, LIMITS, (VERIFYING,), FILTERS)


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
