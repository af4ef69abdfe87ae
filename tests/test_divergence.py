import math

import polars as pl
import pytest

from dasd_assets.divergence import response_scores, sentence_type
from dasd_resources.recipe import SCORE_NAMES, Divergence

# (teacher sum, teacher tokens, student sum, student tokens, characters); the last sentence has no student token.
SENTENCES = [(-0.2, 2, -2.0, 4, 10), (-1.5, 3, -0.3, 3, 6), (-0.1, 1, 0.0, 0, 2)]


def sentences() -> pl.DataFrame:
    rows = [
        {
            "response_id": "r",
            "sentence_index": index,
            "start": 0,
            "stop": characters,
            "teacher_sum_logprob": teacher,
            "teacher_num_tokens": num_teacher,
            "student_sum_logprob": student,
            "student_num_tokens": num_student,
        }
        for index, (teacher, num_teacher, student, num_student, characters) in enumerate(SENTENCES)
    ]
    return pl.DataFrame(rows)


def types(measure: str, threshold: float, per: str = "token") -> list[str | None]:
    divergence = Divergence.model_validate({"measure": measure, "threshold": threshold, "per": per})
    return sentences().select(sentence_type(divergence).alias("type"))["type"].to_list()


def test_types_are_told_by_the_difference_of_geometric_means() -> None:
    # exp(-0.1) - exp(-0.5) = 0.298 and exp(-0.5) - exp(-0.1) = -0.298
    assert types("probability", 0.25) == ["teacher", "student", None]
    assert types("probability", 0.3) == ["close", "close", None]


def test_types_in_log_space_and_per_character() -> None:
    # per token: -0.1 + 0.5 = 0.4; per character: (-0.2 + 2.0) / 10 = 0.18 and (-1.5 + 0.3) / 6 = -0.2
    assert types("log", 0.39) == ["teacher", "student", None]
    assert types("log", 0.41) == ["close", "close", None]
    assert types("log", 0.19, "character") == ["close", "student", None]


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_every_score_by_hand(name: str) -> None:
    divergence = Divergence(measure="probability", threshold=0.25, per="token")
    table = sentences().with_columns(sentence_type(divergence).alias("sentence_type"))
    row = response_scores(table).filter(score_name=name).row(0, named=True)
    assert row["num_sentences"] == 2
    assert row["score"] == pytest.approx(by_hand(name), abs=1e-12)


def by_hand(name: str) -> float:
    if name == "teacher_share":
        return 1 / 2
    reduction, measure, per = name.split("_")
    gaps = []
    for teacher, num_teacher, student, num_student, characters in SENTENCES[:2]:
        means = [teacher / (num_teacher if per == "token" else characters)]
        means.append(student / (num_student if per == "token" else characters))
        first, second = means if measure == "log" else map(math.exp, means)
        gaps.append(first - second)
    return sum(gaps) / (2 if reduction == "mean" else 1)


def test_a_response_without_a_typed_sentence_has_no_score() -> None:
    table = sentences().tail(1).with_columns(sentence_type=pl.lit(None, pl.String))
    assert response_scores(table)["score"].to_list() == [None] * len(SCORE_NAMES)
