"""The four types over the cube of three probabilities, against a plain reading of the rule; and over the threshold."""

import math
from itertools import product

import polars as pl
import pytest

from dasd_assets.rules.answer_types import FOUR_TYPES, MODELS, answer_threshold_version, four_types, strength
from dasd_assets.rules.scores import sentence_type
from dasd_resources.recipe import Divergence, Recipe, load_recipe

STEP = 0.0625  # exact in binary, so that a difference of two steps is the threshold and not beyond it
THRESHOLD = 2 * STEP
CUBE = list(
    product([STEP * n for n in range(1, 9)], repeat=3)
)  # 512 cases, the near ones and the very border among them
RULE = Divergence(measure="probability", threshold=THRESHOLD, per="token")


def sentences(cases: list[tuple[float, float, float]], num_tokens: int = 1) -> pl.DataFrame:
    """A sentence for each case of probabilities under teacher, student and checkpoint."""
    columns = {"start": [0] * len(cases), "stop": [4] * len(cases)}
    sums, counts = {}, {}
    for place, model in enumerate(MODELS):
        sums[f"{model}_sum_logprob"] = [num_tokens * math.log(case[place]) for case in cases]
        counts[f"{model}_num_tokens"] = [num_tokens] * len(cases)
    return pl.DataFrame({**columns, **sums, **counts})


def plainly(teacher: float, student: float, distilled: float) -> str:
    if teacher - student > THRESHOLD:
        return "teacher"
    if student - teacher > THRESHOLD:
        return "student"
    return "boosted" if min(abs(distilled - teacher), abs(distilled - student)) > THRESHOLD else "shared"


def near_border(case: tuple[float, float, float]) -> bool:
    """Whether a pair is apart by the threshold itself, which exp(log(p)) may miss by a rounding."""
    return any(abs(abs(a - b) - THRESHOLD) < 1e-9 for a, b in product(case, case))


def test_every_case_of_the_cube_has_exactly_the_type_that_the_rule_gives() -> None:
    cases = [case for case in CUBE if not near_border(case)]
    assert len(cases) > 200
    types = sentences(cases).select(four_types(RULE)).to_series().to_list()
    assert types == [plainly(*case) for case in cases]
    assert set(types) == set(FOUR_TYPES)


def test_no_case_is_left_without_a_type() -> None:
    types = sentences(CUBE).select(four_types(RULE)).to_series()
    assert types.null_count() == 0
    assert set(types) == set(FOUR_TYPES)


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ((0.5, 0.2, 0.5), "teacher"),
        ((0.2, 0.5, 0.2), "student"),
        ((0.5, 0.5, 0.5), "shared"),
        ((0.5, 0.5, 0.8), "boosted"),
        ((0.5, 0.5, 0.2), "boosted"),  # lowered, too, is clearly different
        ((0.5, 0.45, 0.58), "shared"),  # further than the threshold from the student, not from the teacher
        ((0.5, 0.45, 0.63), "boosted"),
        ((0.5, 0.2, 0.99), "teacher"),  # whatever the checkpoint thinks
    ],
)
def test_the_types_by_hand(case: tuple[float, float, float], kind: str) -> None:
    rule = Divergence(measure="probability", threshold=0.1, per="token")
    assert sentences([case], 4).select(four_types(rule)).item() == kind


@pytest.mark.parametrize("lacking", MODELS)
def test_where_a_model_owns_no_token_there_is_no_type(lacking: str) -> None:
    one = sentences([(0.5, 0.2, 0.5)]).with_columns(pl.lit(0).alias(f"{lacking}_num_tokens"))
    assert one.select(four_types(RULE)).item() is None


def test_teacher_and_student_are_those_of_the_candidates_rule() -> None:
    table = sentences(CUBE).with_columns(four=four_types(RULE), two=sentence_type(RULE))
    merged = table.with_columns(four=pl.col("four").replace({"shared": "close", "boosted": "close"}))
    assert merged["four"].to_list() == merged["two"].to_list()


@pytest.mark.parametrize("measure", ["probability", "log"])
@pytest.mark.parametrize("per", ["token", "character"])
def test_strength_is_never_negative_and_there_for_every_type(measure: str, per: str) -> None:
    rule = Divergence.model_validate({"measure": measure, "threshold": 0.1, "per": per})
    found = sentences(CUBE).select(strength(rule)).to_series()
    assert found.null_count() == 0
    assert found.min() >= 0  # type: ignore[operator]


def test_another_threshold_is_another_version(tiny: Recipe) -> None:
    recipe = load_recipe("demo")
    other = recipe.selection.divergence.model_copy(update={"threshold": 0.2})
    changed = recipe.model_copy(update={"selection": recipe.selection.model_copy(update={"divergence": other})})
    assert answer_threshold_version(recipe) == answer_threshold_version(tiny)
    assert answer_threshold_version(recipe) != answer_threshold_version(changed)
