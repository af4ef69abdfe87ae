"""What a verifier is asked and what it answers."""

from dataclasses import dataclass
from typing import Literal

from dasd_resources.sandbox import USUAL, Confinement

Outcome = Literal["correct", "incorrect", "unverifiable", "error"]
JudgementKind = Literal[
    "wrong_answer",
    "no_program",
    "wrong_output",
    "runtime_error",
    "timed_out",
    "out_of_memory",
    "too_much_output",
    "invalid_tests",
    "not_comparable",
    "verifier_timed_out",
    "verifier_out_of_memory",
    "verifier_failed",
]
# Of judgements that say nothing of the answer. Whether a verifier gives up may depend on the machine.
UNVERIFIABLE: tuple[JudgementKind, ...] = (
    "invalid_tests",
    "not_comparable",
    "verifier_timed_out",
    "verifier_out_of_memory",
)
GIVEN_UP: tuple[JudgementKind, ...] = ("verifier_timed_out", "verifier_out_of_memory", "verifier_failed")


@dataclass(frozen=True)
class Asked:
    """What an answer is compared with: its question, the reference answer, and its metadata (JSON).

    parameter: what follows the colon in the verifier's name, such as the dataset of `reasoning_gym:gcd`.
    confinement: of what a verifier has to run to judge.
    """

    question: str
    reference_answer: str
    metadata: str
    parameter: str = ""
    confinement: Confinement = USUAL


@dataclass(frozen=True)
class Judgement:
    """Whether an answer is correct; where it is not, a code of why (`kind`) and the same for people.

    unverifiable: the answer may be right, but cannot be compared. error: the verifier failed, not the answer.
    """

    outcome: Outcome
    kind: JudgementKind | None = None
    reason: str | None = None


CORRECT = Judgement("correct")
