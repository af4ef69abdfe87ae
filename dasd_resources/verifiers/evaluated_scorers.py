"""The scorers of reasoning-gym that evaluate an answer or a row: run in a sandbox, each answer in a process of its own.

An answer is let in only in its dataset's own notation, in which nothing can be called but mathematics: what evaluates
it holds the right answer, too, and could be talked into anything. The sandboxes stay open, for loading the library
takes a second; one that an answer has left a file in is closed, so nothing reaches the next answer.
"""

import ast
import atexit
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from threading import Lock

from dasd_resources.sandbox import Confinement, Ended, Job, Session
from dasd_resources.verifiers.judgement import Asked, Judgement
from dasd_resources.visible_text import excerpt

MAX_EXPRESSION_CHARS = 1_000
PRELOAD = ("reasoning_gym",)
_NAMES = frozenset((  # and single letters
    "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln",
    "sqrt", "Abs", "pi", "erf",
))  # fmt: skip
_LIST = re.compile(r"[\w\s\[\],'\"_-]+")
_ARITHMETIC = re.compile(r"[\d\s+\-*/()]+")
_ALGEBRA = re.compile(r"[A-Za-z0-9\s+\-*/().,]+", re.ASCII)
_HEXADECIMAL = re.compile(r"\s*-?(?:0[xX])?[0-9a-fA-F]+\s*")
_LEFT_OUT = re.compile(r"\.\s*[A-Za-z]|\*\*[^*]*\*\*[^*]*\*\*")  # attributes; towers of powers


class GaveUp(Exception):
    """The scorer came to no end, so whether the answer is right is not known."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__(judgement.reason)
        self.judgement = judgement


def in_notation(answer: str, asked: Asked) -> bool:
    """Whether the answer is written as its dataset's answers are."""
    return len(answer) <= MAX_EXPRESSION_CHARS and _NOTATIONS[asked.parameter](answer, asked)


def check_evaluated(asked: Asked) -> str | None:
    """Why no answer could be right. Nothing is evaluated for it: a row is landed where there may be no sandbox."""
    missing = sorted(_NEEDED.get(asked.parameter, frozenset()) - _metadata(asked).keys())
    if missing:
        return f"metadata lacks {', '.join(missing)}; land the dataset's own metadata unchanged"
    if not in_notation(asked.reference_answer, asked):
        return (
            f"reference_answer {excerpt(asked.reference_answer)} is no answer of {asked.parameter}; land it unchanged"
        )
    return None


def evaluated_score(answer: str, entry: dict[str, object], asked: Asked) -> float | None:
    """What the dataset's own scorer gives the answer; None where it raises. Raises GaveUp, and NoSandbox."""
    job: Job = {"kind": "score", "dataset": asked.parameter, "answer": answer, "entry": entry}
    with _session(asked.confinement) as session:
        came = session.run(job)
    if came.status == "broken":  # it ended with the thread that had opened it, or with this answer
        with Session(asked.confinement, PRELOAD) as session:
            came = session.run(job)
    if came.status != "ended":
        raise GaveUp(_given_up(came, asked.confinement))
    try:
        return float(json.loads(came.output)["value"])
    except (ValueError, TypeError, KeyError):
        return None


def _given_up(came: Ended, confinement: Confinement) -> Judgement:
    if came.status == "timed_out":
        why = f"scoring took more than {confinement.seconds_per_test:g} s"
        return Judgement("unverifiable", "verifier_timed_out", why)
    if came.status == "out_of_memory":
        why = f"scoring took more than {confinement.memory_mb} MB"
        return Judgement("unverifiable", "verifier_out_of_memory", why)
    return Judgement("error", "verifier_failed", f"the scorer's sandbox ended with it ({came.status})")


def exact_value(expression: str) -> Fraction | None:
    """What an expression of whole numbers and + - * / comes to; None if it is none."""
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add | ast.Sub):
            return left + right if isinstance(node.op, ast.Add) else left - right
        if isinstance(node.op, ast.Mult | ast.Div):
            return left * right if isinstance(node.op, ast.Mult) else left / right
    raise ValueError("no arithmetic")


def _comes_to(answer: str, target: object) -> bool:
    return _ARITHMETIC.fullmatch(answer) is not None and str(exact_value(answer)) == str(target)


def _algebra(answer: str, asked: Asked) -> bool:
    names = re.findall(r"[A-Za-z]+", re.sub(r"(?<![A-Za-z])\d+(?:\.\d*)?(?:e[+-]?\d+)?", " ", answer))
    return (
        _ALGEBRA.fullmatch(answer) is not None
        and _LEFT_OUT.search(answer) is None
        and all(len(name) == 1 or name in _NAMES for name in names)
    )


def _matching(pattern: re.Pattern[str]) -> Callable[[str, Asked], bool]:
    return lambda answer, asked: pattern.fullmatch(answer) is not None


_NOTATIONS: dict[str, Callable[[str, Asked], bool]] = {
    "binary_matrix": _matching(_LIST),
    "bitwise_arithmetic": _matching(_HEXADECIMAL),
    "countdown": lambda answer, asked: _comes_to(answer, _metadata(asked).get("target")),
    "intermediate_integration": _algebra,
    "n_queens": _matching(_LIST),
    "polynomial_multiplication": _algebra,
    "puzzle24": lambda answer, asked: _comes_to(answer, 24),  # the scorer takes 24.9
    "simple_integration": _algebra,
    "spiral_matrix": _matching(_LIST),
    "string_insertion": _matching(_LIST),
}
_NEEDED = {
    "bitwise_arithmetic": frozenset({"problem"}),
    "countdown": frozenset({"numbers", "target"}),
    "intermediate_integration": frozenset({"integrand", "variable"}),
    "n_queens": frozenset({"valid_answers"}),
    "simple_integration": frozenset({"integrand", "variable"}),
}


def _metadata(asked: Asked) -> dict[str, object]:
    metadata: dict[str, object] = json.loads(asked.metadata)
    return metadata


_open: dict[Confinement, list[Session]] = {}
_opening = Lock()


@contextmanager
def _session(confinement: Confinement) -> Iterator[Session]:
    """An open sandbox that nobody uses, else another; it is kept if it survives."""
    session = _idle(confinement) or Session(confinement, PRELOAD)
    try:
        yield session
    finally:
        if session.usable:
            with _opening:
                _open.setdefault(confinement, []).append(session)
        else:
            session.close()


def _idle(confinement: Confinement) -> Session | None:
    with _opening:
        idle = _open.get(confinement, [])
        while idle:
            session = idle.pop()
            if session.usable:  # it ends with the thread that opened it
                return session
            session.close()
    return None


@atexit.register
def close_sessions() -> None:
    """End the sandboxes that are kept open."""
    with _opening:
        for session in [session for idle in _open.values() for session in idle]:
            session.close()
        _open.clear()
