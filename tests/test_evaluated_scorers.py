"""reasoning-gym's scorers that evaluate: their own answers are right, and nothing but mathematics is let in."""

import json
from fractions import Fraction

import pytest
from reasoning_gym import create_dataset

from dasd_resources.sandbox import USUAL, Confinement, Session
from dasd_resources.verifiers.catalogue import reference_fault, verify
from dasd_resources.verifiers.evaluated_scorers import evaluated_score, exact_value, in_notation
from dasd_resources.verifiers.judgement import Asked, Judgement
from dasd_resources.verifiers.reasoning_gym_datasets import EVALUATED_DATASETS

pytestmark = pytest.mark.sandbox

ESCAPES = (
    "__import__('os').system('true')",
    "exec(chr(97))",
    "eval(1)",
    "open(C)",
    "x.__class__",
    "(1).real",
    "Integral(x, x)",
    "lambda: 1",
    "[print]",
    "[].append(1)",
    "9**9**9**9",
    "x" * 2000,
)


def rows(dataset: str) -> list[tuple[Asked, str]]:
    return [
        (
            Asked(entry["question"], entry["answer"], json.dumps(entry["metadata"], default=str), dataset),
            entry["answer"],
        )
        for entry in create_dataset(dataset, seed=3, size=2)
    ]


@pytest.mark.parametrize("dataset", sorted(EVALUATED_DATASETS))
def test_its_own_answers_are_correct_and_no_code_is_let_in(dataset: str) -> None:
    for asked, answer in rows(dataset):
        assert reference_fault(f"reasoning_gym:{dataset}", asked) is None
        assert verify(f"reasoning_gym:{dataset}", f"<answer>\n{answer}\n</answer>", asked).outcome == "correct"
        wrong = verify(f"reasoning_gym:{dataset}", "The answer is 7.", asked)
        assert (wrong.outcome, wrong.kind) == ("incorrect", "wrong_answer")
        assert [attempt for attempt in ESCAPES if in_notation(attempt, asked) and "(" in attempt] == []


@pytest.mark.parametrize(
    ("dataset", "answer", "right"),
    [
        ("puzzle24", "(8 - 6 + 1) * 8", True),
        ("puzzle24", "8 * 6 / 8 * 4", False),  # other numbers
        ("puzzle24", "8 + 8 + 6 + 1", False),
        ("simple_integration", "x**3 + 5 + C", True),
        ("simple_integration", "3*x**2", False),
        ("polynomial_multiplication", "(x + 1)**2", False),  # the scorer compares as written
        ("polynomial_multiplication", "2*x + x**2 + 1", True),
    ],
)
def test_another_way_to_write_it_is_right_where_the_scorer_says_so(dataset: str, answer: str, right: bool) -> None:
    metadata = {"numbers": [8, 6, 1, 8], "integrand": "3*x**2", "variable": "x"}
    reference = {"puzzle24": "8*(8 - 6 + 1)", "simple_integration": "x**3 + C"}.get(dataset, "x**2 + 2*x + 1")
    asked = Asked("?", reference, json.dumps(metadata))
    assert (verify(f"reasoning_gym:{dataset}", answer, asked).outcome == "correct") is right


def test_a_row_that_no_answer_could_match_is_refused_without_evaluating_it() -> None:
    name = "reasoning_gym:countdown"
    fault = reference_fault(name, Asked("?", "1 + 2", json.dumps({"target": 3})))
    assert fault == "metadata lacks numbers; land the dataset's own metadata unchanged"
    wrong = reference_fault(name, Asked("?", "1 + 3", json.dumps({"target": 3, "numbers": [1, 3]})))
    assert wrong == "reference_answer '1 + 3' is no answer of countdown; land it unchanged"


def test_a_scorer_that_reaches_a_limit_says_nothing_of_the_answer() -> None:
    metadata = json.dumps({"numbers": [1, 2], "target": 3})
    asked = Asked("?", "1 + 2", metadata, confinement=Confinement(seconds_per_test=0.001))
    assert verify("reasoning_gym:countdown", "2 + 1", asked) == Judgement(
        "unverifiable", "verifier_timed_out", "reasoning_gym:countdown: scoring took more than 0.001 s: answer '2 + 1'"
    )


def test_exact_values_are_of_whole_numbers_and_four_operations() -> None:
    assert exact_value("(1 + 2) * 4 / 3 - -1") == Fraction(5)
    for text in ("1 / 0", "2 ** 3", "f(1)", "1.5", "1 +", "'a'"):
        assert exact_value(text) is None


def test_an_answer_leaves_nothing_to_the_next() -> None:
    """Were one to run code all the same: a patched library, a file, a process do not reach the next answer."""
    entry = {"question": "?", "answer": "1", "metadata": {"numbers": [1], "target": 1}}
    asked = Asked("?", "1", json.dumps(entry["metadata"]), "countdown")
    patch = """
import reasoning_gym, sympy, os
sympy.parse_expr = reasoning_gym.get_score_answer_fn = lambda *a: 1.0
if os.fork() == 0:
    import time; time.sleep(60)
"""
    with Session(USUAL, preload=("reasoning_gym",)) as session:
        assert session.run({"kind": "program", "program": patch, "input": ""}).codes == (0,)
        scored = session.run({"kind": "score", "dataset": "countdown", "answer": "2", "entry": entry})
        assert json.loads(scored.output)["value"] < 1
        assert session.usable
        session.run({"kind": "program", "program": "open('/tmp/note', 'w').write('1')", "input": ""})
        assert not session.usable
    assert evaluated_score("1", entry, asked) == 1.0
