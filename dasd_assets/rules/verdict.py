"""A verdict on a text, of a filter or of a verifier alone (evaluations): whether it passes, and the code of why not."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dasd_assets.rules.rule import Rule
from dasd_resources.chat import split_thinking
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.verification_settings import LIMITS
from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.storage.lake import Row
from dasd_resources.verifiers.catalogue import VERIFIER_VERSION, verify
from dasd_resources.verifiers.judgement import UNVERIFIABLE, Asked, JudgementKind

VERIFYING = Rule("verifiers", VERIFIER_VERSION)
VERIFYING_LIMITS = LIMITS  # of the recipe: they decide what becomes of a program

VerdictKind = Literal[
    "unsupported_question",
    "too_long",
    "cut_off",
    "tool_call",
    "no_thinking",
    "unexpected_thinking",
    "no_final_answer",
    "extra_delimiters",
    "repeated_ngrams",
    "repeated_paragraphs",
    "repeated_sentences",
    "repeated_phrases",
    "looping_tail",
    JudgementKind,
    "no_verifier",
    "refusal",
    "language_drift",
    "no_box",
    "off_topic",
    "wrong_step",
]
# Codes of `response_verdicts.kind`, `continuation_verdicts.kind` and `evaluations.kind`, in the order in which a filter
# looks: where it finds several faults, the kind is the first and the reason lists all.
VERDICT_KINDS: dict[VerdictKind, str] = {
    "unsupported_question": "The student's chat template refuses the question, so no filter could look (all fail).",
    "too_long": "Prompt and response exceed the training context.",
    "cut_off": "The response did not end by itself.",
    "tool_call": "The response calls a tool.",
    "no_thinking": "The thinking part is missing or blank.",
    "unexpected_thinking": "There is a thinking part, where the recipe says that the teacher writes none.",
    "no_final_answer": "The final answer is missing or blank.",
    "extra_delimiters": "The text has more `<think>` or `</think>` than its parts need.",
    "repeated_ngrams": "Too large a share of the response is n-grams said again and again.",
    "repeated_paragraphs": "A stretch of the text is mostly a loop of paragraphs.",
    "repeated_sentences": "A stretch of the text is mostly a loop of sentences.",
    "repeated_phrases": "A stretch of the text is mostly a loop within a sentence.",
    "looping_tail": "The last tokens are mostly a loop.",
    "wrong_answer": "The verifier does not accept the final answer: another, an empty or an overlong one.",
    "no_program": "The answer has no program in Python, or one that is too long.",
    "wrong_output": "The program prints or returns something else than a test expects.",
    "runtime_error": "The program ends with an error, or without a result.",
    "timed_out": "The program takes more time than a test, or all of them, may.",
    "out_of_memory": "The program takes more memory than it may.",
    "too_much_output": "The program writes more than it may, to its output or to its folder.",
    "invalid_tests": "The question's tests cannot be run, so no program can pass (fails).",
    "not_comparable": "Another text than the reference, which is a sentence or formula that only people can compare.",
    "verifier_timed_out": "Comparing the final answer took too long, so whether it is right is not known.",
    "verifier_out_of_memory": "Comparing the final answer took too much memory, so whether it is right is not known.",
    "verifier_failed": "The verifier failed, not the answer.",
    "no_verifier": "Nothing could be judged, for the question has no verifier (passes).",
    "refusal": "The answer is short and declines to answer.",
    "language_drift": "Too large a share of the thinking is in another language than the question.",
    "no_box": "The question asks for a box, the answer has none.",
    "off_topic": "The thinking has too small a share of the question's terms.",
    "wrong_step": "A step of the thinking is known to be wrong: an equation, or the work of a question of the school.",
}
assert get_args(VerdictKind) == tuple(VERDICT_KINDS), "each kind stands in both, in one order"
# The answer is neither right nor known to be wrong. DECIDED: in SQL, with the alias v of a table of verdicts.
UNDECIDED: tuple[VerdictKind, ...] = (*UNVERIFIABLE, "verifier_failed")
DECIDED = f"coalesce(NOT list_contains({['no_verifier', *UNDECIDED]}, v.kind), TRUE)"


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


def verifier_version(recipe: Recipe) -> str:
    """Identifies what judged an answer: the verifiers, and the limits of programs where the recipe sets them."""
    limits = recipe.parts(*VERIFYING_LIMITS) and recipe.version(*VERIFYING_LIMITS)
    return f"{VERIFIER_VERSION}, limits {limits}" if limits else VERIFIER_VERSION


def judge_answer(text: str, question: Row, confinement: Confinement = USUAL) -> Verdict:
    """The verifier's verdict on the final answer of a canonical text. confinement: of the program in it."""
    names = ("verifier", "question", "reference_answer", "metadata")
    verifier, asked, reference, metadata = (str(question[name] or "") for name in names)
    known = Asked(asked, reference, metadata, confinement=confinement)
    return final_answer_verdict(text, verifier, known, blank_is_missing=True)


def not_decided(kinds: Iterable[VerdictKind | None] | Mapping[VerdictKind | None, int]) -> dict[str, int]:
    """How many of these verdicts say nothing of the answer, which counts as not correct; as metadata.

    kinds: of the verdicts, one by one, or of each how many there are.
    """
    counts = Counter(kinds)
    return {
        "num_unverifiable": sum(counts[kind] for kind in UNVERIFIABLE),
        "num_verifier_failed": counts["verifier_failed"],
    }
