"""What a child does: run a program, call a function of it, answer a test's calls, score an answer."""

import json
import os
import sys
from collections.abc import Callable
from types import ModuleType

from dasd_resources.sandbox.inside.values import NotPlain, decoded, encoded

RESULT = 3  # the descriptor of a child's result
LISTED, TRUTH = "[*]", "[?]"  # ask, in place of a name, for all that an object yields, and whether it counts as true
# What a starter code of the sites that ask for a function takes for granted.
_TAKEN_FOR_GRANTED = """
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import ceil, comb, factorial, floor, gcd, inf, isqrt, lcm, log, log2, log10, perm, pi, prod, sqrt
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import *
"""


def run_program(program: str) -> None:
    """Run a program as its own main module."""
    _executed(program, {})


def call_function(program: str, name: str, arguments: list[object]) -> None:
    """Call a function of a program, or a method of its class Solution; the value goes to RESULT."""
    names = _executed(program, granted())
    value = _function(names, name)(*(decoded(argument) for argument in arguments))
    write_result({"value": encoded(value)})


def serve_calls(program: str, requests: int, replies: int) -> None:
    """Answer calls of a test until there are no more: see `tests.Remote`."""
    names = _executed(program, granted())
    kept: list[object] = []
    with open(requests, encoding="ascii") as lines, open(replies, "w", encoding="ascii") as answers:
        for line in lines:
            answers.write(json.dumps(_answer(json.loads(line), names, kept)) + "\n")
            answers.flush()


def score_answer(dataset: str, answer: str, entry: dict[str, object]) -> None:
    """The score of reasoning-gym's own scorer goes to RESULT."""
    from reasoning_gym import get_score_answer_fn

    write_result({"value": float(get_score_answer_fn(dataset)(answer, entry))})


def granted() -> dict[str, object]:
    """Names that a function's program finds without importing them."""
    names: dict[str, object] = {}
    exec(_TAKEN_FOR_GRANTED, names)
    names.pop("__builtins__")
    return names


def write_result(result: dict[str, object]) -> None:
    """To RESULT, whole."""
    left = json.dumps(result).encode()
    while left:
        left = left[os.write(RESULT, left) :]


def _executed(program: str, names: dict[str, object]) -> dict[str, object]:
    module = ModuleType("__main__")
    module.__dict__.update(names)
    sys.modules["__main__"] = module
    sys.argv = ["program.py"]
    exec(compile(program, "program.py", "exec"), module.__dict__)
    return module.__dict__


def _function(names: dict[str, object], name: str) -> Callable[..., object]:
    solution = names.get("Solution")
    method: object = getattr(solution(), name, None) if isinstance(solution, type) else None
    found = names.get(name) if method is None else method
    if not callable(found):
        raise NameError(f"the program defines no function {name}")
    function: Callable[..., object] = found
    return function


def _answer(request: dict[str, object], names: dict[str, object], kept: list[object]) -> dict[str, object]:
    """What came of a request: a value, an object that is kept here, or what was raised."""
    arguments = [decoded(argument) for argument in _list(request["arguments"])]
    keywords = {str(key): decoded(value) for key, value in _list(request["keywords"])}
    try:
        target = _target(request, names, kept)
        value = target(*arguments, **keywords) if request["call"] else target
    except Exception as error:
        return {"raised": type(error).__name__, "message": str(error)[:300]}
    return {**_reply(value, kept), "arguments": [encoded(argument) for argument in arguments]}


def _list(value: object) -> list:
    assert isinstance(value, list)
    return value


def _target(request: dict[str, object], names: dict[str, object], kept: list[object]) -> Callable[..., object]:
    name, of = request["name"], request["kept"]
    if of is None:
        return _named(names, str(name))  # type: ignore[return-value]
    found = _named(names, of) if isinstance(of, str) else kept[int(str(of))]
    if name in (LISTED, TRUTH):
        return lambda: (list if name == LISTED else bool)(found)  # type: ignore[call-overload]
    return found if name is None else getattr(found, str(name))  # type: ignore[return-value]


def _named(names: dict[str, object], name: str) -> object:
    """What a name of the program stands for; a function may be a method of its class Solution."""
    return names[name] if name in names else _function(names, name)


def _reply(value: object, kept: list[object]) -> dict[str, object]:
    try:
        return {"value": encoded(value)}
    except NotPlain:
        kept.append(value)
        return {"kept": len(kept) - 1, "type": type(value).__name__, "callable": callable(value)}
