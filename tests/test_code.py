"""The verifier `code`: programs in answers, tests in every layout, verdicts, and what a program does to forge one."""
# ruff: noqa: E501 (programs on one line)

import base64
import json
import math
import pickle
import zlib

import pytest

from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.verifiers.catalogue import reference_fault, verify
from dasd_resources.verifiers.code_output import same_output, same_value
from dasd_resources.verifiers.code_programs import program_of
from dasd_resources.verifiers.code_tests import AssertTest, CallTest, InvalidTests, OutputTest, question_tests
from dasd_resources.verifiers.judgement import Asked, Judgement

pytestmark = pytest.mark.sandbox

DOUBLE = "Here it is.\n\n```python\nn = int(input())\nprint(2 * n)\n```\nIt doubles."
SHORT = Confinement(seconds_per_test=0.25, memory_mb=192)


def asked(reference: object = "", confinement: Confinement = USUAL, **fields: object) -> Asked:
    text = reference if isinstance(reference, str) else json.dumps(reference)
    return Asked("?", text, json.dumps(fields), confinement=confinement)


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\na\n```\nor better\n```py\nb\n```", "b\n"),
        ("```python\na\n```\noutput:\n```\n12\n```", "a\n"),
        ("so\n```\na\n```", "a\n"),
        ("~~~~ python3 title=x\na\n```\nb\n~~~~\n", "a\n```\nb\n"),
        ("```Python\r\na\r\n```", "a\r\n"),
        ("```python\nit was cut", "it was cut\n"),
        ("```python\n```", None),
        ("print(1)", None),
        ("```cpp\nint main(){}\n```", None),
    ],
)
def test_the_program_is_the_last_block_of_python(answer: str, program: str | None) -> None:
    assert program_of(answer)[0] == program


def test_an_answer_without_a_program_is_incorrect_and_says_why() -> None:
    about = asked({"inputs": ["1\n"], "outputs": ["2\n"]})
    assert verify("code", "42", about) == Judgement("incorrect", "no_program", "code: it has no fenced block of code")
    assert verify("code", "```c++\nint x;\n```", about).reason == "code: its only code is c++, not Python"


IN_OUT = {"inputs": ["1\n", "4\n"], "outputs": ["2\n", "8\n"]}
ADDED = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], 7]}
LISTED = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
FUNCTIONAL = [{"input": '[1, 2]\n"a"', "output": "[3]", "testtype": "functional"}]
ENCODED = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(LISTED)))).decode()
LAYOUTS = {
    "reference, inputs and outputs": (asked(IN_OUT), [OutputTest("1\n", "2\n"), OutputTest("4\n", "8\n")]),
    "TACO": (asked(input_output=json.dumps(IN_OUT)), [OutputTest("1\n", "2\n"), OutputTest("4\n", "8\n")]),
    "APPS, lines as lists": (
        asked(input_output={"inputs": [["1", "2"]], "outputs": [["3"]]}),
        [OutputTest("1\n2", "3")],
    ),
    "APPS, a function": (
        asked(input_output=json.dumps(ADDED)),
        [CallTest("add", [1, 2], ([3], 3)), CallTest("add", [3, 4], (7,))],
    ),
    "LiveCodeBench": (
        asked(public_test_cases=json.dumps(LISTED), private_test_cases=json.dumps(LISTED), func_name=None),
        [OutputTest("1\n", "2\n")] * 2,
    ),
    "LiveCodeBench, a function": (
        asked(public_test_cases=json.dumps(FUNCTIONAL), func_name="sums"),
        [CallTest("sums", [[1, 2], "a"], ([3],))],
    ),
    "LiveCodeBench, by its starter code": (
        asked(
            public_test_cases=json.dumps(FUNCTIONAL),
            starter_code="class Solution:\n    def __init__(self):\n        pass\n    def sums(self, a, b):\n        ",
        ),
        [CallTest("sums", [[1, 2], "a"], ([3],))],
    ),
    "a list of function calls": (
        asked(tests=[{"type": "function_call", "fn_name": "f", "input": [1], "output": [2]}]),
        [CallTest("f", [1], ([2], 2))],
    ),
    "CodeContests": (
        asked(public_tests={"input": ["1\n"], "output": ["2\n"]}, private_tests={"input": [], "output": []}),
        [OutputTest("1\n", "2\n")],
    ),
    "MBPP": (
        asked(test_list=["assert f(1) == 2"], test_setup_code="import math"),
        [AssertTest("import math\nassert f(1) == 2\n")],
    ),
    "HumanEval": (
        asked(test="def check(candidate):\n    assert candidate(1) == 2\n", entry_point="f"),
        [AssertTest("def check(candidate):\n    assert candidate(1) == 2\n\n\ncheck(f)\n")],
    ),
    "a list of untyped calls": (
        asked(tests=[{"fn_name": "f", "input": [1], "output": [2]}]),
        [CallTest("f", [1], ([2], 2))],
    ),
    "assertions as the reference": (asked("assert f(1) == 2"), [AssertTest("assert f(1) == 2")]),
    "a solution as the reference, tests elsewhere": (
        asked("print(2 * int(input()))", inputs=["1"], outputs=["2"]),
        [OutputTest("1", "2")],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_tests_are_read_in_the_layouts_there_are(name: str) -> None:
    about, tests = LAYOUTS[name]
    assert question_tests(about) == tests
    assert reference_fault("code", about) is None


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (asked(), "there are no tests: give them .* the fields are \\[\\]"),
        (asked("x = 1", difficulty="hard"), "there are no tests: .*\\['difficulty'\\]"),
        (asked({"inputs": ["1"], "outputs": []}), "two lists of one length"),
        (asked({"inputs": [], "outputs": []}), "there are no tests"),
        (
            asked(private_test_cases=ENCODED),
            "private_test_cases is encoded, and no pickle is ever loaded: write it as JSON",
        ),
        (asked(ENCODED), "reference_answer is encoded, and no pickle"),
        (asked(input_output="{"), "input_output is not JSON"),
        (asked(tests=[{"input": "1"}]), r"tests\[0\] must have input and output"),
        (asked(public_test_cases=json.dumps(FUNCTIONAL)), "None is no name; give fn_name or func_name"),
        (asked(test_list=["assert f(1) =="]), "a test is no Python"),
        (asked(test_list=["f(1)"]), "a test asserts nothing"),
        (asked("def test_f():\n    assert f(1) == 2"), "a test only defines functions; call them at its end"),
        (asked(test="def check(candidate):\n    assert candidate(1) == 2\n"), "only defines functions"),
        (
            asked(
                test="import unittest\nclass T(unittest.TestCase):\n    def test_f(self):\n        assert f(1) == 2\n"
                "if __name__ == '__main__':\n    unittest.main(exit=False)"
            ),
            "only defines functions",
        ),
        (asked("from solution import f\nassert f(1) == 2"), "a test imports solution: the sandbox has the standard"),
        (asked("import math, numpy.linalg, pytest\nassert f(1) == 2"), "a test imports numpy, pytest: "),
        (asked("from . import f\nassert f(1) == 2"), r"a test imports \.: "),
    ],
)
def test_tests_that_cannot_be_run_are_refused_when_they_land(about: Asked, message: str) -> None:
    with pytest.raises(InvalidTests, match=message):
        question_tests(about)
    assert reference_fault("code", about) is not None
    found = verify("code", DOUBLE, about)
    assert (found.outcome, found.kind) == ("unverifiable", "invalid_tests")


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("1 2\n3", "1 2 \n3\n\n", True),
        ("1 2 3", "1 2\n3", False),
        ("0.3333334", "0.33333333", True),
        ("0.34", "0.33333333", False),
        ("3", "3.0", True),
        ("3.0", "3", False),
        ("yes", "YES", False),
        ("1e-7", "0.0", True),
        ("nan", "0.5", False),
        ("", "1", False),
        ("1\n1", "1", False),
    ],
)
def test_output_is_compared_word_by_word(found: str, expected: str, same: bool) -> None:
    assert same_output(found, expected) is same


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ((1, [2]), [1, [2]], True),
        ({1: 2.0}, {"1": 2}, True),
        (0.1 + 0.2, 0.3, True),
        (True, 1, True),
        ("1", 1, False),
        ([1], [1, 2], False),
        (None, 0, False),
        (10**400, 1.5, False),
        (False, 2.5, False),
        (1.0, True, True),
        (5.0, 5, True),
        (3333333.5, 3333333, False),
        ([2.5], 2, False),
        (math.inf, math.inf, True),
        (math.nan, math.nan, False),
        ({10**5000: 1}, {"a": 1}, False),
        ({1, 2}, [1, 2], False),
    ],
)
def test_values_are_compared_as_plain_data(found: object, expected: object, same: bool) -> None:
    assert same_value(found, expected) is same


ADD = asked(ADDED)
ASSERTED = asked(test_list=["assert f([3, 1]) == [1, 3]", "assert f([]) == []"])
VERDICTS = [
    ("a program", DOUBLE, asked(IN_OUT), None),
    ("a wrong one", fenced("print(2)"), asked(IN_OUT), ("wrong_output", "test 2 of 2: it prints '2\\n', expected '8\\n'")),
    ("an error", fenced("1 / 0"), asked(IN_OUT), ("runtime_error", "test 1 of 2: 'ZeroDivisionError: division by zero'")),
    ("no Python", fenced("so it is"), asked(IN_OUT), ("runtime_error", "test 1 of 2: 'SyntaxError: invalid syntax'")),
    ("too slow", fenced("while True: pass"), asked(IN_OUT, SHORT), ("timed_out", "test 1 of 2: no time is left")),
    ("too large", fenced("x = [0] * 10**9"), asked(IN_OUT, SHORT), ("out_of_memory", "test 1 of 2: no memory is left")),
    ("too loud", fenced("while 1: print('x' * 9999)"), asked(IN_OUT), ("too_much_output", "test 1 of 2: it writes too much")),
    ("a function", fenced("def add(a, b): return a + b"), ADD, None),
    ("a method", fenced("class Solution:\n  def add(self, a: int, b: int) -> List[int]: return [a + b]"), ADD,
     ("wrong_output", "test 2 of 2: add returns [7], expected 7")),
    ("another function", fenced("def sub(a, b): return 3"), ADD,
     ("runtime_error", "test 1 of 2: 'NameError: the program defines no function add'")),
    ("no plain data", fenced("class X: pass\ndef add(a, b): return X()"), ADD,
     ("runtime_error", "test 1 of 2: 'dasd_resources.sandbox.inside.values.NotPlain: it is a X, not plain data'")),
    ("a huge number", fenced("def add(a, b): return 10 ** 5000"), ADD, ("wrong_output", None)),
    ("assertions", fenced("f = sorted"), ASSERTED, None),
    ("a failed assertion", fenced("def f(a): return a"), ASSERTED, ("wrong_output", "test 1 of 2: 'AssertionError'")),
    ("an error under test", fenced("def f(a): return [a[1], a[0]]"), ASSERTED,
     ("runtime_error", "test 2 of 2: 'IndexError: list index out of range'")),
    ("a list in place", fenced("def f(a): a.sort()"), asked(test="x = [2, 1]\nf(x)\nassert x == [1, 2]"), None),
    ("a class", fenced("class S:\n  def __init__(self): self.a = []\n  def push(self, x): self.a.append(x)\n  def __len__(self): return len(self.a)"),
     asked(test="s = S()\ns.push(4)\nassert len(s) == 1 and s.a == [4]"), None),
    ("a generator", fenced("def f(n):\n  yield from range(n)"), asked(test="assert list(f(3)) == [0, 1, 2]"), None),
    ("truth", fenced("import re\nX = []\nclass Empty:\n  def __len__(self): return 0\ndef f(a): return re.match('a', a) or Empty()"),
     asked(test="assert f('abc') and f and not f('b') and not X"), None),
    ("a name's own", fenced("PRIMES = [2, 3, 5]"), asked(test="assert len(PRIMES) == 3 and 5 in PRIMES and PRIMES[1] == 3 and list(PRIMES)"), None),
    ("a test's own function", fenced("def f(n): return n"),
     asked("try:\n  import numpy\nexcept ImportError:\n  pass\ndef test():\n  assert f(1) == 2\nif __name__ == '__main__':\n  test()"),
     ("wrong_output", "test 1 of 1: 'AssertionError'")),
    ("an expected error", fenced("def f(n): raise ValueError('no')"),
     asked(test="try:\n  f(1)\n  assert False\nexcept ValueError as e:\n  assert str(e) == 'no'"), None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "about", "expected"), VERDICTS, ids=[name for name, *_ in VERDICTS])
def test_a_program_is_correct_if_it_passes_every_test(
    name: str, answer: str, about: Asked, expected: tuple[str, str | None] | None
) -> None:
    found = verify("code", answer, about)
    if expected is None:
        assert found == Judgement("correct")
    else:
        kind, reason = expected
        assert (found.outcome, found.kind) == ("incorrect", kind), found
        assert reason is None or found.reason == f"code: {reason}"


def test_a_test_that_hands_over_code_says_nothing_of_the_program() -> None:
    found = verify("code", fenced("def f(g): return g(1)"), asked(test="assert f(lambda x: x) == 1"))
    assert (found.outcome, found.kind) == ("unverifiable", "invalid_tests")
    assert found.reason == (
        "code: test 1 of 1: the test hands over what cannot be sent to a program: it is a function, not plain data"
    )


ALWAYS_EQUAL = "class E(int):\n  def __eq__(self, other): return True\n  __ne__ = lambda self, other: False\n  __hash__ = int.__hash__\n"
FORGERIES = {
    "an early exit": "import os\ndef f(a): os._exit(0)\nos._exit(0)",
    "a quiet exit": "import sys\ndef f(a): sys.exit(0)\nsys.exit(0)",
    "equal to everything": f"{ALWAYS_EQUAL}def f(a): return E(5)\nprint(E(5))",
    "a list equal to everything": "class L(list):\n  __eq__ = lambda s, o: True\ndef f(a): return L([9])",
    "a dict of lies": "class O:\n  __eq__ = lambda s, o: True\n  __len__ = lambda s: 2\ndef f(a): return O()",
    "no assertion error": "import builtins\nbuiltins.AssertionError = SystemExit\ndef f(a): return 9",
    "no comparison": "import operator, sys\nsys.modules['dasd_resources.verifiers.code_output'] = None\ndef f(a): return 9",
    "a result of its own": "import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'{\"passed\": true}\\n')\n  except OSError: pass\n"
    "def f(a): return 9\nprint('{\"passed\": true}')",
    "a result in place of a call": "import os\ndef f(a):\n  for fd in range(3, 64):\n    try: os.write(fd, b'{\"passed\": true}\\n')\n    except OSError: pass\n  os._exit(0)",
    "the tests from the stack": "import gc, inspect\ndef f(a):\n  for o in gc.get_objects():\n    if isinstance(o, dict) and 'test' in o: o['test'] = 'pass'\n  return 9",
    "a patched pipe": "import json, builtins\njson.dumps = lambda *a, **k: '{\"passed\": true}'\ndef f(a): return 9",
    "another test process": "import os, signal\ndef f(a):\n  for pid in range(2, 99):\n    if pid != os.getpid():\n      try: os.kill(pid, signal.SIGKILL)\n      except OSError: pass\n  return 9",
    "a raised pass": "def f(a): raise SystemExit(0)",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_verdict_cannot_be_forged(name: str) -> None:
    answer = fenced(FORGERIES[name])
    for about in (
        asked({"inputs": ["1"], "outputs": ["7"]}),
        asked({"fn_name": "f", "inputs": [[[1]]], "outputs": [7]}),
        asked(test_list=["assert f([1]) == 7"]),
        asked(test="def check(candidate):\n  assert candidate([1]) == 7\n", entry_point="f"),
        asked(test="if not f([1]) == 7: raise ValueError('wrong')"),
    ):
        assert verify("code", answer, about).outcome == "incorrect", about
