"""Assertions about a program that lives in another process: what it returns arrives as plain data.

So no class, exit or patched function of the program reaches the test, which runs here with what it expects.
"""

import ast
import builtins
import json
import sys
from collections.abc import Iterator
from typing import TextIO

from dasd_resources.sandbox.inside import jobs
from dasd_resources.sandbox.inside.jobs import granted, write_result
from dasd_resources.sandbox.inside.values import NotPlain, decoded, encoded


class ProgramEnded(BaseException):
    """The program is no longer there; a test does not catch that by accident."""


class ProgramRaised(Exception):
    """The program raised what a test cannot name."""


class Program:
    """The other process, asked line by line."""

    def __init__(self, requests: TextIO, replies: TextIO) -> None:
        self._requests, self._replies = requests, replies
        self.raised: BaseException | None = None  # by the program, the last time

    def ask(self, name: str | None, kept: int | str | None, call: bool, arguments: tuple, keywords: dict) -> object:
        """A value, or a `Remote` for an object that stays there; raises what the program raised.

        name: of the program; or an attribute of what is `kept`, an object's number or a name of the program.
        """
        request = {
            **{"name": name, "kept": kept, "call": call},
            "arguments": [encoded(argument) for argument in arguments],
            "keywords": [[key, encoded(value)] for key, value in keywords.items()],
        }
        reply = self._reply(json.dumps(request))
        if "raised" in reply:
            self.raised = _error(str(reply["raised"]), str(reply["message"]))
            raise self.raised
        for argument, changed in zip(arguments, reply["arguments"], strict=True):
            _update(argument, decoded(changed))
        return Remote(self, None, reply["kept"]) if "kept" in reply else decoded(reply["value"])

    def _reply(self, request: str) -> dict:
        try:
            self._requests.write(request + "\n")
            self._requests.flush()
            reply = json.loads(self._replies.readline() or "null")
        except (OSError, ValueError):
            reply = None
        if not isinstance(reply, dict):
            raise ProgramEnded
        return reply


class Remote:
    """A name of the program, or an object that stays there: it can be called, and its attributes asked for."""

    def __init__(self, program: Program, name: str | None, kept: int | None = None) -> None:
        self._program, self._name, self._kept = program, name, kept

    def __call__(self, *arguments: object, **keywords: object) -> object:
        return self._program.ask(self._name, self._kept, True, arguments, keywords)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._kept is None:  # a name of the program: what it stands for is asked for first
            return getattr(self._program.ask(self._name, None, False, (), {}), name)
        return self._program.ask(name, self._kept, False, (), {})

    def __iter__(self) -> Iterator[object]:
        listed = self._asked(jobs.LISTED)
        return iter(listed if isinstance(listed, list) else [listed])

    def __bool__(self) -> bool:
        return bool(self._asked(jobs.TRUTH))

    def __len__(self) -> int:
        return int(str(self._asked("__len__")))

    def __getitem__(self, key: object) -> object:
        return self._asked("__getitem__", key)

    def __contains__(self, key: object) -> bool:
        return bool(self._asked("__contains__", key))

    def __str__(self) -> str:
        return str(self._asked("__str__"))

    def _asked(self, method: str, *arguments: object) -> object:
        """What a method says; not `__eq__`: a program's own would call anything equal to what is expected."""
        try:
            return self._program.ask(method, self._kept if self._name is None else self._name, True, arguments, {})
        except AttributeError as error:
            raise TypeError(str(error)) from None  # as Python itself says of an object without the method


def run_test(test: str, requests: int, replies: int) -> None:
    """Run a test's assertions; whether they hold goes to RESULT."""
    try:
        tree = ast.parse(test)
    except SyntaxError as error:
        return write_result({"fault": f"the test is no Python: {error.msg}"})
    with open(requests, "w", encoding="ascii") as asked, open(replies, encoding="ascii") as answered:
        program = Program(asked, answered)
        names = granted() | {name: Remote(program, name) for name in unbound(tree)} | {"__name__": "__main__"}
        write_result(_outcome(compile(tree, "test", "exec"), names, program))
        sys.stdout.flush()
    return None


def unbound(tree: ast.AST) -> set[str]:
    """Names that a test reads and nothing in it binds, and Python does not have: the program's."""
    found, bound = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (found if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        bound.update(_binds(node))
    return found - bound - set(dir(builtins))


def _binds(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).split(".")[0]
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name


def _outcome(code: object, names: dict[str, object], program: Program) -> dict[str, object]:
    try:
        exec(code, names)  # type: ignore[arg-type]
    except ProgramEnded:
        return {"ended": True}
    except NotPlain as error:
        return {"fault": f"the test hands over what cannot be sent to a program: {error}"}
    except BaseException as error:
        kind = "raised" if error is program.raised else "failed"
        return {kind: f"{type(error).__name__}: {error}".rstrip(": ")[:300]}
    return {"passed": True}


def _error(name: str, message: str) -> Exception:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:  # UnicodeDecodeError and its like want more
            return ProgramRaised(f"{name}: {message}")
    return ProgramRaised(f"{name}: {message}")


def _update(argument: object, changed: object) -> None:
    """What a program did to a list, dict or set that it was given."""
    if isinstance(argument, list) and isinstance(changed, list):
        argument[:] = changed
    elif (isinstance(argument, dict) and isinstance(changed, dict)) or (
        isinstance(argument, set) and isinstance(changed, set)
    ):
        argument.clear()
        argument.update(changed)
