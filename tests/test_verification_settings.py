"""The recipe's limits of programs: they decide verdicts; a recipe that says nothing of them has its former hashes."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import change
from test_filters import GOOD

from dasd_assets.records.unsafe import confinement_of, sandbox_figure
from dasd_assets.rules.filters.catalogue import LIMITS, correctness, filter_version
from dasd_assets.rules.verdict import Verdict, judge_answer, verifier_version
from dasd_resources.recipe import RecipeError, load_recipe
from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.verifiers.catalogue import VERIFIER_VERSION

RECIPE = load_recipe("demo")
SHORT = Confinement(seconds_per_test=0.25)
TESTS = '{"inputs": ["4"], "outputs": ["8"]}'
SLOW = "<think>\nLoop.\n</think>\n```python\nwhile True: pass\n```"


def test_a_recipe_that_says_nothing_has_the_usual_limits_and_its_former_hashes() -> None:
    assert RECIPE.verification.confinement == USUAL
    assert not {path for path in RECIPE.parts(*LIMITS) if path.startswith("verification")}
    assert verifier_version(RECIPE) == VERIFIER_VERSION


@pytest.mark.parametrize(("key", "value"), [("seconds_per_test", 2.0), ("seconds_per_answer", 9.0), ("memory_mb", 512)])
def test_a_limit_belongs_to_the_versions_of_verdicts(key: str, value: float) -> None:
    changed = change(RECIPE, f"verification.{key}", value)
    assert filter_version(changed, "s") != filter_version(RECIPE, "s")
    assert verifier_version(changed) != verifier_version(RECIPE)


def test_how_programs_are_confined_does_not_but_is_said_where_it_is_unsafe() -> None:
    unsafe, said = change(RECIPE, "verification.sandbox", "unsafe"), list[str]()
    assert filter_version(unsafe, "s") == filter_version(RECIPE, "s")
    assert confinement_of(RECIPE, said.append) == USUAL and said == []
    assert confinement_of(unsafe, said.append).unsafe
    assert said[0].startswith("verification.sandbox is unsafe: programs that models write run here with the rights")
    assert sandbox_figure(USUAL) == {}
    assert sandbox_figure(Confinement(unsafe=True)) == {"sandbox": "none: verification.sandbox is unsafe"}


def test_another_word_for_unsafe_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    shipped = (Path(__file__).parents[1] / "dasd_resources/recipes/demo.yaml").read_text()
    file.write_text(shipped + "\nverification: {sandbox: off}\n")
    with pytest.raises(RecipeError, match=r"verification\.sandbox: Input should be 'required' or 'unsafe'"):
        load_recipe(str(file))


@pytest.mark.sandbox
def test_the_limits_reach_the_program_in_responses_and_in_evaluations() -> None:
    slow = Verdict(False, "timed_out", "code: test 1 of 1: no time is left")
    response = replace(GOOD, text=SLOW, verifier="code", reference_answer=TESTS, confinement=SHORT)
    assert correctness(response) == slow
    question = {"question": "?", "verifier": "code", "reference_answer": TESTS, "metadata": "{}"}
    assert judge_answer(SLOW, question, SHORT) == slow
    right = SLOW.replace("while True: pass", "print(2 * int(input()))")
    assert judge_answer(right, {**question, "reference_answer": None, "metadata": TESTS}) == Verdict(True)
