"""All verifiers by name, and judging an answer by the name of its verifier."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dasd_resources.verifiers.code import check_tests, judge_code
from dasd_resources.verifiers.constraints import check_constraints, judge_constraints
from dasd_resources.verifiers.evaluated_scorers import PRELOAD
from dasd_resources.verifiers.exact import judge_exact
from dasd_resources.verifiers.final_answer import MAX_ANSWER_CHARS
from dasd_resources.verifiers.json_answers import check_json, judge_json
from dasd_resources.verifiers.judgement import Asked, Judgement
from dasd_resources.verifiers.math_answers import judge_math
from dasd_resources.verifiers.multiple_choice import judge_multiple_choice
from dasd_resources.verifiers.numeric import is_tolerance, judge_numeric
from dasd_resources.verifiers.reasoning_gym_datasets import (
    EVALUATED_DATASETS,
    EXCLUDED_DATASETS,
    REASONING_GYM_DATASETS,
    WITHOUT_REFERENCE,
)
from dasd_resources.verifiers.reasoning_gym_tasks import check_reasoning_gym, judge_reasoning_gym
from dasd_resources.verifiers.votes import (
    Vote,
    choice_vote,
    exact_vote,
    json_vote,
    math_vote,
    numeric_vote,
    task_vote,
)
from dasd_resources.visible_text import excerpt

# Raise it when a verdict can change; not for a verifier that is added. It names what `math` asks, as verdicts do by it.
VERIFIER_VERSION = "4, math-verify 0.9.0"


@dataclass(frozen=True)
class Verifier:
    """A way to judge the answer part of a response: `judge(answer, asked)` never raises for an answer.

    parameters: what may follow a colon in its name; one of them must, where there are any; "" is for none. takes: the
    same where they cannot be listed; nothing need follow then.
    check_reference: why no answer could be correct, None if one could; for a verifier whose reference is no answer,
    such as tests of code or a schema: those read the metadata, too. Without it, the reference must pass as an answer.
    needs_no_reference: those parameters ("" for none) with which a row may have no reference answer, which is then "".
    excluded: parameters that one might expect, each with the reason why it is not taken.
    vote: an answer in the form in which equal ones are counted for a majority (votes.py); without it none is taken.
    """

    judge: Callable[[str, Asked], Judgement]
    parameters: frozenset[str] = frozenset()
    takes: Callable[[str], bool] | None = None
    check_reference: Callable[[Asked], str | None] | None = None
    needs_no_reference: frozenset[str] = frozenset()
    excluded: Mapping[str, str] = field(default_factory=dict)
    vote: Vote | None = None


VERIFIERS: dict[str, Verifier] = {
    "code": Verifier(judge_code, check_reference=check_tests, needs_no_reference=frozenset({""})),
    "constraint": Verifier(
        judge_constraints,
        frozenset({"", "loose"}),
        check_reference=check_constraints,
        needs_no_reference=frozenset({"", "loose"}),
    ),
    "exact": Verifier(judge_exact, vote=exact_vote),
    "json": Verifier(
        judge_json,
        frozenset({"", "schema"}),
        check_reference=check_json,
        needs_no_reference=frozenset({"schema"}),
        vote=json_vote,
    ),
    "math": Verifier(judge_math, vote=math_vote),
    "multiple_choice": Verifier(judge_multiple_choice, vote=choice_vote),
    "numeric": Verifier(judge_numeric, takes=is_tolerance, vote=numeric_vote),
    "reasoning_gym": Verifier(
        judge_reasoning_gym,
        REASONING_GYM_DATASETS | EVALUATED_DATASETS,
        check_reference=check_reasoning_gym,
        needs_no_reference=WITHOUT_REFERENCE,
        excluded=EXCLUDED_DATASETS,
        vote=task_vote,
    ),
}


def runs_programs(name: str) -> bool:
    """Whether judging by this known verifier runs what a model wrote, which takes a sandbox."""
    return name == "code" or bool(preloaded(name))


def preloaded(name: str) -> tuple[str, ...]:
    """The installed modules that judging by this known verifier loads in its sandbox."""
    kind, _, parameter = name.partition(":")
    return PRELOAD if kind == "reasoning_gym" and parameter in EVALUATED_DATASETS else ()


def known_verifier(name: str) -> bool:
    """Whether `verify` takes this name: an entry of VERIFIERS, with one of its parameters if it has any."""
    kind, colon, parameter = name.partition(":")
    if kind not in VERIFIERS:
        return False
    entry = VERIFIERS[kind]
    if bool(colon) != bool(parameter):
        return False
    return entry.takes(parameter) if entry.takes is not None else parameter in (entry.parameters or {""})


def reads_metadata(name: str) -> bool:
    """Whether what this known verifier judges by (tests, a schema, constraints) may be in the row's metadata."""
    return VERIFIERS[name.partition(":")[0]].check_reference is not None


def needs_reference(name: str) -> bool:
    """Whether a row with this known verifier must have a reference answer."""
    kind, _, parameter = name.partition(":")
    return parameter not in VERIFIERS[kind].needs_no_reference


def unknown_verifier(name: str) -> str:
    """The message on a name that `verify` does not take: why not, and what it takes."""
    kind, _, parameter = name.partition(":")
    excluded = VERIFIERS[kind].excluded.get(parameter) if kind in VERIFIERS else None
    if excluded is not None:
        return f"unknown verifier {excerpt(name)}: {parameter} {excluded}"
    return f"unknown verifier {excerpt(name)}; known are {', '.join(verifier_names())}"


def verifier_names() -> list[str]:
    """Every accepted name, for error messages."""
    return sorted(
        f"{kind}:{parameter}" if parameter else kind
        for kind, verifier in VERIFIERS.items()
        for parameter in verifier.parameters or {""}
    )


def verify(verifier: str, answer: str, asked: Asked) -> Judgement:
    """Whether the answer part of a response is correct, and if not, why.

    Raises ValueError for an unknown verifier, never for an answer.
    """
    entry, asked = _entry(verifier, asked)
    judged = entry.judge(answer, asked)
    return replace(judged, reason=judged.reason and f"{verifier}: {judged.reason}")


def takes_votes(name: str) -> bool:
    """Whether answers judged by this known verifier can be counted for a majority: its questions have one answer."""
    kind, _, _ = name.partition(":")
    return VERIFIERS[kind].vote is not None and needs_reference(name)


def vote(verifier: str, answer: str, asked: Asked) -> str | None:
    """The answer part's final answer as it is counted for a majority; None where it gives none that can be."""
    entry, asked = _entry(verifier, asked)
    return entry.vote(answer, asked) if entry.vote is not None and takes_votes(verifier) else None


def reference_fault(verifier: str, asked: Asked) -> str | None:
    """Why no answer could be correct: the reference fails its verifier's check, or as an answer; None if it passes."""
    entry, asked = _entry(verifier, asked)
    if entry.check_reference is not None:
        return entry.check_reference(asked)
    reference = asked.reference_answer
    if len(reference) > MAX_ANSWER_CHARS:
        return f"reference_answer has {len(reference)} characters, at most {MAX_ANSWER_CHARS} are compared"
    if entry.judge(reference, asked).outcome == "correct":
        return None
    return (
        f"reference_answer {excerpt(reference)} fails its own verifier {verifier}, so no answer could be correct; "
        "correct it, or name another verifier"
    )


def _entry(verifier: str, asked: Asked) -> tuple[Verifier, Asked]:
    """The verifier of this name, and what it is asked with the name's parameter."""
    if not known_verifier(verifier):
        raise ValueError(unknown_verifier(verifier))
    kind, _, parameter = verifier.partition(":")
    return VERIFIERS[kind], replace(asked, parameter=parameter)
