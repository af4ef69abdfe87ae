"""The tests of a question of code, in the layouts of the datasets there are.

| layout | keys | datasets |
| --- | --- | --- |
| inputs and outputs | `input_output` (JSON) or `inputs`, `outputs`; `fn_name` for a function | TACO, APPS |
| lists of tests | `public_test_cases`, `private_test_cases` (JSON), `tests`, `test_cases`, of | LiveCodeBench |
| | `input`, `output`, `testtype` or `type`; `func_name`, `fn_name` or the `starter_code` | |
| by origin | `public_tests`, `private_tests`, `generated_tests` with `input`, `output` | CodeContests |
| assertions | `test_list` with `test_setup_code` or `test_imports`; `test` with `entry_point` | MBPP, HumanEval |

They are looked for in the reference answer and in the metadata, and all that a row has count. Tests that are pickled
are refused, never loaded.
"""

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dasd_resources.verifiers.judgement import Asked
from dasd_resources.verifiers.packed_tests import unpacked
from dasd_resources.visible_text import excerpt

_BY_ORIGIN = ("public_tests", "private_tests", "generated_tests")
_LISTS = ("public_test_cases", "private_test_cases", "tests", "test_cases")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{40,}={0,2}\s*", re.ASCII)
CONVERT = (
    "write it as JSON where you trust its source: json.dumps(json.loads(pickle.loads(zlib.decompress("
    "base64.b64decode(text)))))"
)


class InvalidTests(ValueError):
    """The tests cannot be read; the message says what is wrong with them."""


@dataclass(frozen=True)
class OutputTest:
    """A program that reads `input` prints `output`."""

    input: str
    output: str


@dataclass(frozen=True)
class CallTest:
    """A function gives one of these values for these arguments."""

    name: str
    arguments: list[object]
    values: tuple[object, ...]


@dataclass(frozen=True)
class AssertTest:
    """Assertions about the names that a program defines."""

    code: str


Test = OutputTest | CallTest | AssertTest


def question_tests(asked: Asked) -> list[Test]:
    """All tests of a question, at least one. Raises InvalidTests."""
    metadata = _loaded("metadata", asked.metadata)
    fields = metadata if isinstance(metadata, dict) else {}
    fields = {**fields, **_reference_fields(asked.reference_answer)}
    found = list(_tests(fields))
    if not found:
        raise InvalidTests(
            "there are no tests: give them as reference_answer or in the row's other fields (docs/verifiers.md, "
            f"«code»); the fields are {excerpt(sorted(fields))}"
        )
    return found


def _reference_fields(reference: str) -> dict[str, object]:
    """A reference answer as the fields it stands for: JSON of a layout, or the code of a test."""
    if not reference.strip():
        return {}
    try:
        value = json.loads(reference)
    except ValueError:
        if _BASE64.fullmatch(reference):
            raise InvalidTests(f"reference_answer is encoded, and no pickle is ever loaded: {CONVERT}") from None
        return {"test": reference} if "assert" in reference else {}  # else it is a solution, which tests nothing
    return value if isinstance(value, dict) else {"tests": value} if isinstance(value, list) else {}


def _tests(fields: Mapping[str, object]) -> Iterator[Test]:
    if (given := fields.get("input_output")) is not None:
        yield from _paired(_object("input_output", given), fields)
    elif "inputs" in fields and "outputs" in fields:
        yield from _paired(fields, fields)
    for key in _BY_ORIGIN:
        if (given := fields.get(key)) is not None:
            by_origin = _object(key, given)
            yield from _paired({"inputs": by_origin.get("input"), "outputs": by_origin.get("output")}, {})
    for key in _LISTS:
        if (given := fields.get(key)) is not None:
            yield from _listed(key, _loaded(key, given), fields)
    yield from _assertions(fields)


def _paired(tests: Mapping[str, object], fields: Mapping[str, object]) -> Iterator[Test]:
    inputs, outputs = tests.get("inputs"), tests.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise InvalidTests("inputs and outputs must be two lists of one length")
    name = tests.get("fn_name") or fields.get("fn_name")
    for given, output in zip(inputs, outputs, strict=True):
        if name:
            # A single value often stands in a list of its own.
            values = (output, output[0]) if isinstance(output, list) and len(output) == 1 else (output,)
            yield CallTest(_name(name), _arguments(given), values)
        else:
            yield OutputTest(_text(given), _text(output))


def _listed(key: str, tests: object, fields: Mapping[str, object]) -> Iterator[Test]:
    if isinstance(tests, dict) and "inputs" in tests:
        yield from _paired(tests, fields)
        return
    if not isinstance(tests, list):
        raise InvalidTests(f"{key} must be a list of tests, found {excerpt(tests)}")
    if tests and all(isinstance(test, str) for test in tests):
        yield from _asserted(tests, fields)
        return
    for number, test in enumerate(tests):
        if not (isinstance(test, dict) and "input" in test and "output" in test):
            raise InvalidTests(f"{key}[{number}] must have input and output, found {excerpt(test)}")
        name = test.get("fn_name") or test.get("func_name") or fields.get("func_name") or fields.get("fn_name")
        kind = str(test.get("testtype") or test.get("type") or ("functional" if name else "stdin"))
        if kind in ("functional", "function_call") or (name and kind not in ("stdin", "stdin_stdout")):
            output = test["output"]
            if isinstance(test["input"], str):  # LiveCodeBench: a line of JSON for each argument, and JSON again
                yield CallTest(_name(name or _started(fields)), _arguments(test["input"]), (_loaded("output", output),))
            else:
                values = (output, output[0]) if isinstance(output, list) and len(output) == 1 else (output,)
                yield CallTest(_name(name or _started(fields)), _arguments(test["input"]), values)
        else:
            yield OutputTest(_text(test["input"]), _text(test["output"]))


def _assertions(fields: Mapping[str, object]) -> Iterator[Test]:
    listed = fields.get("test_list")
    if isinstance(listed, list):
        challenge = fields.get("challenge_test_list")
        yield from _asserted([*listed, *(challenge if isinstance(challenge, list) else [])], fields)
    if isinstance(test := fields.get("test"), str) and re.search(r"\b(?:assert|raise)\b", test):
        entry = fields.get("entry_point")
        yield _checked(test + (f"\n\ncheck({_name(entry)})\n" if entry and "def check(" in test else ""))


def _asserted(tests: Iterable[object], fields: Mapping[str, object]) -> Iterator[Test]:
    setup = fields.get("test_setup_code") or fields.get("test_imports") or ""
    before = "\n".join(map(str, setup)) if isinstance(setup, list) else str(setup)
    for test in tests:
        yield _checked(f"{before}\n{test}\n")


def _checked(code: str) -> AssertTest:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidTests(f"a test is no Python ({error}): {excerpt(code)}") from None
    if not any(isinstance(node, ast.Assert | ast.Raise) for node in ast.walk(tree)):
        raise InvalidTests(f"a test asserts nothing: {excerpt(code)}")
    if not _asserts_when_run(tree):
        raise InvalidTests(f"a test only defines functions; call them at its end: {excerpt(code)}")
    if missing := sorted(_imported(tree) - sys.stdlib_module_names):
        raise InvalidTests(
            f"a test imports {', '.join(missing)}: the sandbox has the standard library alone, and what the program "
            f"defines needs no import; leave it out: {excerpt(code)}"
        )
    return AssertTest(code)


def _asserts_when_run(tree: ast.Module) -> bool:
    """Whether what is outside every function and class asserts, raises, or uses one of them."""
    outside, defined = list[ast.AST](tree.body), set[str]()
    for node in outside:  # which grows
        if isinstance(node, _DEFINITIONS):
            defined.add(node.name)
        else:
            outside += ast.iter_child_nodes(node)
    return any(
        isinstance(node, ast.Assert | ast.Raise) or (isinstance(node, ast.Name) and node.id in defined)
        for node in outside
    )


def _imported(tree: ast.AST) -> set[str]:
    """The modules that a test cannot do without: it may try one (`try: import numpy`)."""
    found, nodes = set[str](), [tree]
    for node in nodes:  # which grows
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level or str(node.module).partition(".")[0])
        elif not isinstance(node, ast.Try):
            nodes += ast.iter_child_nodes(node)
    return found


def _arguments(given: object) -> list[object]:
    """A list of arguments; of text, a line of JSON for each."""
    if isinstance(given, str):
        return [_loaded("input", line) for line in given.splitlines() if line.strip()]
    return given if isinstance(given, list) else [given]


def _text(given: object) -> str:
    """Standard input or output; a list has its lines."""
    if isinstance(given, list):
        return "\n".join(map(str, given))
    return given if isinstance(given, str) else json.dumps(given)


def _name(name: object) -> str:
    last = str(name or "").strip().removeprefix("Solution.")
    if not last.isidentifier():
        raise InvalidTests(f"a test calls a function, but which? {excerpt(name)} is no name; give fn_name or func_name")
    return last


def _started(fields: Mapping[str, object]) -> str | None:
    """The function that a starter code begins: the last that it defines, but for __init__."""
    names = re.findall(r"^\s*def\s+(\w+)\s*\(", str(fields.get("starter_code") or ""), re.MULTILINE)
    return next((name for name in reversed(names) if name != "__init__"), None)


def _object(key: str, value: object) -> dict[str, object]:
    found = _loaded(key, value)
    if not isinstance(found, dict):
        raise InvalidTests(f"{key} must be an object, found {excerpt(value)}")
    return found


def _loaded(key: str, value: object) -> object:
    """A value, read as JSON if it is text; tests may be packed."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(unpacked(value) if key in _LISTS else value)
    except (ValueError, RecursionError) as error:
        if key in _LISTS and _BASE64.fullmatch(value):
            raise InvalidTests(f"{key} is encoded, and no pickle is ever loaded: {CONVERT}") from None
        raise InvalidTests(f"{key} is not JSON ({error}): {excerpt(value)}") from None
