"""All filters by name, and judging a response by every one of them; `responses` -> `response_verdicts`.

A response passes or fails each filter on its own, so the verdicts say everything that is wrong with it. Left out:
rewriting; a response is kept as it is or dropped with its reason. To add a filter, add its entry to `FILTERS`, at the
end (docs/extending.md).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from dasd_assets.rules.filters.form import length, structure, truncation
from dasd_assets.rules.filters.language import language_drift
from dasd_assets.rules.filters.question import box, relevance
from dasd_assets.rules.filters.refusals import refusal
from dasd_assets.rules.filters.repeats import repetition
from dasd_assets.rules.filters.work import work
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING, VERIFYING_LIMITS, Verdict, final_answer_verdict
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Filters, Recipe, Thinking
from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.verifiers.catalogue import VERIFIER_VERSION
from dasd_resources.verifiers.judgement import Asked

FILTER_VERSION = "4"  # raise it when a verdict can change; not for a filter that is added


@dataclass(frozen=True)
class Response:
    """A teacher response and its question, as far as the filters look at them.

    text is canonical; token_ids are the teacher's, as sampled, or of a text that both models wrote the student's;
    num_student_tokens counts the text in the student's. asked: the question with the recipe's
    instruction, if it has one. thinking: what the recipe says of the teacher. confinement: of
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
    asked: str | None = None


@dataclass(frozen=True)
class Measure:
    """What the value of a filter's verdicts is, and where it stops passing: at most the limit, or at least it.

    meaning: as the label of an axis.
    """

    meaning: str
    limit: Callable[[Filters], float]
    at_most: bool = True


@dataclass(frozen=True)
class Filter:
    """A filter; verdict rows, checks, figures in the web UI, and what is trained on follow from its entry.

    drops: what it drops, as the end of a sentence. judge: by the recipe's section `filters`. max_drop_share: the share
    of dropped responses above which its asset check warns; a recipe may set another in `checks.max_drop_share`.
    limits: dotted paths of what it reads of the recipe; they decide `filter_version`.
    always_required: whether it must pass for a text to be trained on; if not, only where the recipe lists it in
    `filters.required`, or for correctness, says `require_correct`.
    measure: what its verdicts' value is, if they have one; a plot of it in the web UI follows.
    """

    drops: str
    judge: Callable[[Response, Filters], Verdict]
    max_drop_share: float
    limits: tuple[str, ...] = ()
    always_required: bool = True
    measure: Measure | None = None


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


def required_filters(require_correct: bool, also: Collection[str] = ()) -> tuple[str, ...]:
    """The filters that must pass for a text to be trained on. also: the recipe's `filters.required`."""
    chosen = {*also, *((CORRECTNESS,) if require_correct else ())}
    return tuple(name for name, entry in FILTERS.items() if entry.always_required or name in chosen)


def correctness(response: Response) -> Verdict:
    """The verifier's verdict on the final answer; a question without a verifier passes, and the kind says so."""
    if response.verifier is None:
        return Verdict(True, "no_verifier", "no verifier")
    asked = Asked(
        response.question, response.reference_answer or "", response.metadata, confinement=response.confinement
    )
    return final_answer_verdict(response.text, response.verifier, asked, blank_is_missing=False)


CORRECTNESS = "correctness"  # the one that tells right answers from wrong ones
WORK = "work"  # the one that tells right steps from wrong ones
# The report's list (§6.2): "filter out samples exceeding the training context"; truncated outputs; tool or function
# calls, and both a thinking part and a final answer; "regular expressions and n-gram matching" for repeated paragraphs,
# sentences and phrases. Correctness is no filter of the report: it compares right with wrong answers (§4). Nor are
# those after it: they are recorded for every response, and drop one only where the recipe requires them.
FILTERS: dict[str, Filter] = {
    "length": Filter(
        drops="responses that, with their prompt, exceed the training context in student tokens",
        judge=lambda response, filters: length(response.num_student_tokens, filters.max_student_tokens),
        max_drop_share=0.1,
        limits=("filters.max_student_tokens",),
        measure=Measure("student tokens of prompt and response", lambda filters: filters.max_student_tokens),
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
        measure=Measure("greatest share of repetition, as a multiple of its limit", lambda filters: 1.0),
    ),
    CORRECTNESS: Filter(
        drops="responses whose final answer the question's verifier does not accept",
        judge=lambda response, filters: correctness(response),
        max_drop_share=0.7,
        limits=VERIFYING_LIMITS,
        always_required=False,
    ),
    "refusal": Filter(
        drops="responses whose short answer declines to answer",
        judge=lambda response, filters: refusal(response.text, filters.max_refusal_chars),
        max_drop_share=0.05,
        limits=("filters.max_refusal_chars",),
        always_required=False,
        measure=Measure(
            "characters of an answer that declines", lambda filters: filters.max_refusal_chars + 1, at_most=False
        ),
    ),
    "language": Filter(
        drops="responses whose thinking turns into another language than the question's",
        judge=lambda response, filters: language_drift(
            response.text, response.asked or response.question, filters.max_foreign_share
        ),
        max_drop_share=0.05,
        limits=("filters.max_foreign_share",),
        always_required=False,
        measure=Measure("share of the thinking in another language", lambda filters: filters.max_foreign_share),
    ),
    "box": Filter(
        drops="responses whose answer lacks the box that the question asks for",
        judge=lambda response, filters: box(response.text, response.asked or response.question),
        max_drop_share=0.2,
        always_required=False,
        measure=Measure("boxes in the answer, where the question asks for one", lambda filters: 1, at_most=False),
    ),
    "relevance": Filter(
        drops="responses whose thinking hardly mentions what the question is about",
        judge=lambda response, filters: relevance(response.text, response.question, filters.min_question_share),
        max_drop_share=0.05,
        limits=("filters.min_question_share",),
        always_required=False,
        measure=Measure(
            "share of the question's terms in the thinking", lambda filters: filters.min_question_share, at_most=False
        ),
    ),
    WORK: Filter(
        drops="responses with a step that is known to be wrong, whatever their answer",
        judge=lambda response, filters: work(response.text, response.metadata),
        max_drop_share=0.5,
        always_required=False,
        measure=Measure("steps that are known to be wrong", lambda filters: 0),
    ),
}
LIMITS = tuple(dict.fromkeys(path for entry in FILTERS.values() for path in entry.limits))  # in that order
FILTERING = Rule("filters", FILTER_VERSION, LIMITS, (VERIFYING,), FILTERS)
