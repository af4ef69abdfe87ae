"""A verdict on a text, of a filter or of a verifier alone (evaluations): whether it passes, and the code of why not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dasd_assets.rules.rule import Rule
from dasd_resources.chat import split_thinking
from dasd_resources.storage.lake import Row
from dasd_resources.verifiers import VERIFIER_VERSION, Asked, verify

VERIFYING = Rule("verifiers", VERIFIER_VERSION)

VerdictKind = Literal[
    "unsupported_question",
    "too_long",
    "cut_off",
    "tool_call",
    "no_thinking",
    "no_final_answer",
    "extra_delimiters",
    "repeated_ngrams",
    "repeated_paragraphs",
    "repeated_sentences",
    "repeated_phrases",
    "looping_tail",
    "wrong_answer",
    "no_verifier",
    "refusal",
    "language_drift",
    "no_box",
    "off_topic",
]
# Codes of `response_verdicts.kind`, `continuation_verdicts.kind` and `evaluations.kind`, in the order in which a filter
# looks: where it finds several faults, the kind is the first and the reason lists all.
VERDICT_KINDS: dict[VerdictKind, str] = {
    "unsupported_question": "The student's chat template refuses the question, so no filter could look (all fail).",
    "too_long": "Prompt and response exceed the training context.",
    "cut_off": "The response did not end by itself.",
    "tool_call": "The response calls a tool.",
    "no_thinking": "The thinking part is missing or blank.",
    "no_final_answer": "The final answer is missing or blank.",
    "extra_delimiters": "The text has more than one `<think>` or `</think>`.",
    "repeated_ngrams": "Too large a share of the response is n-grams said again and again.",
    "repeated_paragraphs": "A stretch of the text is mostly a loop of paragraphs.",
    "repeated_sentences": "A stretch of the text is mostly a loop of sentences.",
    "repeated_phrases": "A stretch of the text is mostly a loop within a sentence.",
    "looping_tail": "The last tokens are mostly a loop.",
    "wrong_answer": "The verifier does not accept the final answer: another, an empty or an overlong one.",
    "no_verifier": "Nothing could be judged, for the question has no verifier (passes).",
    "refusal": "The answer is short and declines to answer.",
    "language_drift": "Too large a share of the thinking is in another language than the question.",
    "no_box": "The question asks for a box, the answer has none.",
    "off_topic": "The thinking has too small a share of the question's terms.",
}
assert get_args(VerdictKind) == tuple(VERDICT_KINDS), "each kind stands in both, in one order"


@dataclass(frozen=True)
class Verdict:
    """Whether a response passes a filter; kind and reason say why not, or why nothing could be judged.

    kind: for code, see VERDICT_KINDS. reason: for people. Both are None where something was judged and passed.
    value: what the filter compared with its limit; None where it compares no number.
    """

    passed: bool
    kind: VerdictKind | None = None
    reason: str | None = None
    value: float | None = None

    @classmethod
    def of_faults(cls, faults: Sequence[tuple[VerdictKind, str]], value: float | None = None) -> "Verdict":
        """Passed if there is no fault; else the first one's kind, and a reason that lists all."""
        return cls(not faults, faults[0][0] if faults else None, "; ".join(text for _, text in faults) or None, value)


def final_answer_verdict(text: str, verifier: str, asked: Asked, *, blank_is_missing: bool) -> Verdict:
    """The verifier's verdict on the final answer of a canonical text; without one, it fails.

    blank_is_missing: whether a blank answer fails as a missing one (evaluations) or as a wrong one (filters, of which
    `structure` reports it). Rows of either kind are stored, and audits judge them again.
    """
    _, answer = split_thinking(text)
    if answer is None or (blank_is_missing and not answer.strip()):
        return Verdict(False, "no_final_answer", "no final answer")
    judged = verify(verifier, answer, asked)
    return Verdict(judged.outcome == "correct", judged.kind, judged.reason)


def judge_answer(text: str, question: Row) -> Verdict:
    """The verifier's verdict on the final answer of a canonical text."""
    verifier, *known = (str(question[name]) for name in ("verifier", "question", "reference_answer", "metadata"))
    return final_answer_verdict(text, verifier, Asked(*known), blank_is_missing=True)
