"""Verifiers: whether a final answer is correct, recorded for every response (report §4 compares right with wrong).

An answer is model output: it is compared, or run in a sandbox, and no answer makes a verifier raise. Each verifier is a
module of this package and an entry of `catalogue.VERIFIERS` (docs/extending.md).
"""

from dasd_resources.verifiers.catalogue import (
    VERIFIER_VERSION,
    VERIFIERS,
    Verifier,
    known_verifier,
    needs_reference,
    reference_fault,
    runs_programs,
    takes_votes,
    unknown_verifier,
    verifier_names,
    verify,
    vote,
)
from dasd_resources.verifiers.final_answer import MAX_ANSWER_CHARS, compare_final_answer
from dasd_resources.verifiers.in_order import in_order
from dasd_resources.verifiers.judgement import CORRECT, GIVEN_UP, UNVERIFIABLE, Asked, Judgement, JudgementKind, Outcome
from dasd_resources.verifiers.verdict_cache import VERDICTS

__all__ = [
    "CORRECT",
    "GIVEN_UP",
    "MAX_ANSWER_CHARS",
    "UNVERIFIABLE",
    "VERDICTS",
    "VERIFIERS",
    "VERIFIER_VERSION",
    "Asked",
    "Judgement",
    "JudgementKind",
    "Outcome",
    "Verifier",
    "compare_final_answer",
    "in_order",
    "known_verifier",
    "needs_reference",
    "reference_fault",
    "runs_programs",
    "takes_votes",
    "unknown_verifier",
    "verifier_names",
    "verify",
    "vote",
]
