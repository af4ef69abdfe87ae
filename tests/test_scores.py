import math
from itertools import accumulate

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.rules.scores import SCORES, response_scores, sentence_type, threshold_version
from dasd_resources.recipe import Divergence, Recipe, load_recipe

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


@pytest.mark.parametrize("name", SCORES)
def test_every_score_by_hand(name: str) -> None:
    divergence = Divergence(measure="probability", threshold=0.25, per="token")
    table = sentences().with_columns(sentence_type(divergence).alias("sentence_type"))
    row = response_scores(table).filter(score_name=name).row(0, named=True)
    assert row["num_sentences"] == 2
    assert row["score"] == pytest.approx(by_hand(name), abs=1e-12)


def by_hand(name: str) -> float:
    if name == "teacher_share":
        return 1 / 2
    if name == "teacher_token_share":
        return 4 / 7
    reduction, measure, per = name.split("_")
    if reduction == "response":
        first = -1.7 / (5 if per == "token" else 16)
        second = -2.3 / (7 if per == "token" else 16)
        return first - second if measure == "log" else math.exp(first) - math.exp(second)
    gaps = []
    for teacher, num_teacher, student, num_student, characters in SENTENCES[:2]:
        means = [teacher / (num_teacher if per == "token" else characters)]
        means.append(student / (num_student if per == "token" else characters))
        first, second = means if measure == "log" else map(math.exp, means)
        gaps.append(first - second)
    if reduction == "weighted":
        return (4 * gaps[0] + 3 * gaps[1]) / 7
    return sum(gaps) / (2 if reduction == "mean" else 1)


def test_a_response_without_a_typed_sentence_has_no_score() -> None:
    table = sentences().tail(1).with_columns(sentence_type=pl.lit(None, pl.String))
    assert response_scores(table)["score"].to_list() == [None] * len(SCORES)


def test_a_difference_of_exactly_the_threshold_is_close() -> None:
    # per token in log space: -1 + 1.5 = 0.5 and -1.5 + 1 = -0.5, exact in binary
    table = rows([(-2.0, 2, -3.0, 2, 4), (-3.0, 2, -2.0, 2, 4), (0.0, 0, -2.0, 2, 4), (-2.0, 2, 0.0, 0, 4)])
    assert typed(table, "log", 0.5) == ["close", "close", None, None]
    assert typed(table, "log", math.nextafter(0.5, 0)) == ["teacher", "student", None, None]
    assert typed(table, "log", math.nextafter(0.5, 1)) == ["close", "close", None, None]


def test_a_finer_tokenizer_wins_per_token_and_not_per_character() -> None:
    # The same probability of the text, exp(-4), in 8 tokens of the teacher's and 2 of the student's.
    table = rows([(-4.0, 8, -4.0, 2, 16)])
    assert typed(table, "probability", 0.1) == ["teacher"]  # exp(-0.5) - exp(-2) = 0.471
    assert typed(table, "probability", 0.1, "character") == ["close"]


def test_scores_by_hand() -> None:
    # Per token: teacher 1/2, 1/4, 1/2, student 1/8, 1/2, 1/2. Logs per character, of 4, 2 and 1 of them, in units of
    # ln 1/2: teacher 2/4, 2/2, 1/1, student 3/4, 1/2, 2/1.
    half = math.log(1 / 2)
    table = rows([(2 * half, 2, 3 * half, 1, 4), (2 * half, 1, half, 1, 2), (half, 1, 2 * half, 2, 1)])
    table = with_types(table, "probability", 0.3)
    assert table["sentence_type"].to_list() == ["teacher", "close", "close"]  # 0.375, -0.25, 0
    scores = {
        row["score_name"]: row["score"]
        for row in response_scores(table).to_dicts()
        if row["score_name"].startswith(("teacher_share", "mean", "sum"))
    }
    a, b, c = 2 ** (-2 / 4) - 2 ** (-3 / 4), 2**-1 - 2 ** (-1 / 2), 2**-1 - 2**-2
    assert scores == pytest.approx(
        {
            "teacher_share": 1 / 3,
            "mean_probability_token": 0.125 / 3,
            "sum_probability_token": 0.125,
            "mean_log_token": half * (1 - 3 + 2 - 1 + 0) / 3,
            "sum_log_token": half * (1 - 3 + 2 - 1 + 0),
            "mean_probability_character": (a + b + c) / 3,
            "sum_probability_character": a + b + c,
            "mean_log_character": half * (-1 / 4 + 1 / 2 - 1) / 3,
            "sum_log_character": half * (-1 / 4 + 1 / 2 - 1),
        },
        abs=1e-12,
    )


Sentence = tuple[float, int, float, int, int]


def rows(sentences: list[Sentence], response_id: str = "r") -> pl.DataFrame:
    """Sentences as SENTENCES gives them, one after the other in a text."""
    names = ("teacher_sum_logprob", "teacher_num_tokens", "student_sum_logprob", "student_num_tokens")
    schema = {names[0]: pl.Float64, names[1]: pl.Int32, names[2]: pl.Float64, names[3]: pl.Int32}
    stops = list(accumulate(sentence[4] for sentence in sentences))
    return pl.DataFrame([sentence[:4] for sentence in sentences], schema=schema, orient="row").with_columns(
        response_id=pl.lit(response_id),
        start=pl.Series([0, *stops[:-1]][: len(stops)], dtype=pl.Int32),
        stop=pl.Series(stops, dtype=pl.Int32),
    )


def typed(table: pl.DataFrame, measure: str, threshold: float, per: str = "token") -> list[str | None]:
    return with_types(table, measure, threshold, per)["sentence_type"].to_list()


def with_types(table: pl.DataFrame, measure: str, threshold: float, per: str = "token") -> pl.DataFrame:
    divergence = Divergence.model_validate({"measure": measure, "threshold": threshold, "per": per})
    return table.with_columns(sentence_type(divergence).alias("sentence_type"))


def gap(sentence: Sentence, measure: str, per: str) -> float | None:
    teacher, num_teacher, student, num_student, characters = sentence
    if not num_teacher or not num_student:
        return None
    first = teacher / (num_teacher if per == "token" else characters)
    second = student / (num_student if per == "token" else characters)
    return first - second if measure == "log" else math.exp(first) - math.exp(second)


def plain_score(name: str, sentences: list[Sentence], divergence: Divergence) -> float | None:
    counted = [s for s in sentences if gap(s, "log", "token") is not None]
    if not counted:
        return None
    if name.endswith("share"):
        is_teacher = [(gap(s, divergence.measure, divergence.per) or 0) > divergence.threshold for s in counted]
        weights = [s[3] if name == "teacher_token_share" else 1 for s in counted]
        return sum(w for w, yes in zip(weights, is_teacher, strict=True) if yes) / sum(weights)
    reduction, measure, per = name.split("_")
    if reduction == "response":
        a, b, c, d, e = map(sum, zip(*counted, strict=True))
        return gap((a, b, c, d, e), measure, per)
    gaps = [gap(s, measure, per) or 0.0 for s in counted]
    weights = [s[3] if reduction == "weighted" else 1 for s in counted]
    total = sum(w * g for w, g in zip(weights, gaps, strict=True))
    return total / (1 if reduction == "sum" else sum(weights))


logprobs = st.floats(-30, 0, width=32)
sentence = st.tuples(logprobs, st.integers(0, 5), logprobs, st.integers(0, 5), st.integers(1, 40))
per = st.sampled_from(["token", "character"])
divergences = st.builds(
    Divergence, measure=st.just("probability"), threshold=st.floats(0.01, 0.99), per=per
) | st.builds(Divergence, measure=st.just("log"), threshold=st.floats(0.01, 2), per=per)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(sentence, min_size=1, max_size=6), min_size=1, max_size=4), divergences)
def test_scores_equal_plain_python(texts: list[list[Sentence]], divergence: Divergence) -> None:
    table = pl.concat([rows(sentences, f"r{number}") for number, sentences in enumerate(texts)])
    scores = response_scores(table.with_columns(sentence_type(divergence).alias("sentence_type")))
    keys = [(f"r{number}", name) for number in range(len(texts)) for name in sorted(SCORES)]
    assert scores.select("response_id", "score_name").rows() == keys
    for response_id, name, score in scores.select("response_id", "score_name", "score").iter_rows():
        expected = plain_score(name, texts[int(response_id[1:])], divergence)
        assert (score is None) == (expected is None)
        assert score is None or score == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_threshold_has_a_version_that_nothing_else_moves() -> None:
    recipe = load_recipe("demo")

    def selecting(**values: object) -> Recipe:
        return recipe.model_copy(update={"selection": recipe.selection.model_copy(update=values)})

    divergence = recipe.selection.divergence
    others = [{"threshold": 0.2}, {"measure": "log"}, {"per": "character"}]
    versions = {threshold_version(selecting(divergence=divergence.model_copy(update=other))) for other in others}
    assert len(versions | {threshold_version(recipe)}) == 4
    assert threshold_version(selecting(score="sum_log_token", policy="top_k")) == threshold_version(recipe)
