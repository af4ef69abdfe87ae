from math import ceil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.mixed_policy.continuations import prefix_end, request
from dasd_assets.mixed_policy.cuts import cut_row, draw_cut
from dasd_assets.mixed_policy.mixture import continuation_example, off_policy_draw
from dasd_assets.mixed_policy.rollouts import draw_questions, length_cap, wanted_rollouts
from dasd_resources.chat import Chat
from dasd_resources.engine import Failure, GenerationRequest
from dasd_resources.engines import Engines
from dasd_resources.recipe import load_recipe

RECIPE = load_recipe("demo")
STUDENT = Chat.load(Path(RECIPE.student.model), RECIPE.student)


@pytest.mark.parametrize(("length", "cap", "expected"), [(10, 1.5, 15), (7, 1.5, 11), (10, 1.1, 11), (3, 1.0, 3)])
def test_the_cap_is_rounded_up_once(length: int, cap: float, expected: int) -> None:
    assert length_cap(length, cap) == expected


@given(st.integers(2, 300), st.integers(0, 2**62))
def test_a_cut_lies_beyond_half_where_every_token_is_admissible(num_tokens: int, seed: int) -> None:
    cut = draw_cut(num_tokens, range(num_tokens), seed)
    assert cut is not None
    assert ceil(num_tokens / 2) <= cut <= num_tokens - 1 or num_tokens == 1


def test_every_point_beyond_half_is_drawn() -> None:
    assert {draw_cut(9, range(9), seed) for seed in range(300)} == {5, 6, 7, 8}


def test_a_cut_moves_back_to_an_admissible_point() -> None:
    assert {draw_cut(9, [0, 3, 6], seed) for seed in range(300)} == {3, 6}
    assert draw_cut(9, [0], 1) is None


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>|"), min_size=4, max_size=60))
def test_a_prefix_is_whole_characters(body: str) -> None:
    text = f"<think>\n{body}🙂和"
    encoded = STUDENT.encode_response("q", text)
    tokens = encoded.token_ids[encoded.num_prompt_tokens : -1]
    aligned = STUDENT.read_response(tokens)
    row = cut_row({"rollout_id": body, "text": aligned.text, "offsets": aligned.offsets})
    if row["cut_token"] is not None:
        kept = STUDENT.read_response(tokens[: row["cut_token"]]).text
        assert kept == aligned.text[: row["cut_char"]]


def references() -> pl.DataFrame:
    rows = [("p", "q?", None, "r", 10), ("s", "t?", None, "u", 7)]
    names = ["prompt_id", "question", "system_prompt", "response_id", "reference_num_tokens"]
    return pl.DataFrame(rows, schema=names, orient="row")


def test_rollout_ids_follow_what_decides_them() -> None:
    first = wanted_rollouts(references(), "c1", RECIPE.mixed_policy)
    assert [row["max_tokens"] for row in first] == [15, 11]
    again = wanted_rollouts(references().reverse(), "c1", RECIPE.mixed_policy)
    assert {row["rollout_id"] for row in first} == {row["rollout_id"] for row in again}
    other = wanted_rollouts(references(), "c2", RECIPE.mixed_policy)
    assert not {row["rollout_id"] for row in first} & {row["rollout_id"] for row in other}


def test_questions_are_drawn_once_each() -> None:
    assert draw_questions(references(), None, 1).height == 2
    assert draw_questions(references(), 1, 1).height == 1
    assert draw_questions(pl.concat([references()] * 2), None, 1).height == 2


@pytest.mark.parametrize(("count", "ratio", "expected"), [(2, 1.5, 3), (3, 1.1, 4), (0, 9.0, 0), (100, 1.0, 10)])
def test_off_policy_rows_in_the_ratio_or_all_there_are(count: int, ratio: float, expected: int) -> None:
    ids = [f"r{i}" for i in range(10)]
    drawn = off_policy_draw(ids, count, ratio, seed=1)
    assert len(drawn) == len(set(drawn)) == expected
    assert sorted(drawn) == sorted(off_policy_draw(ids[::-1], count, ratio, seed=1))


def test_the_teachers_part_begins_where_the_prefix_ends() -> None:
    assert prefix_end("<think>\nab cd", "<think>\nab") == 10
    assert prefix_end("<think>\nab\n</think>\n", "<think>\nab ") == 10


def test_a_continuation_has_the_rest_of_the_teachers_budget(tmp_path: Path) -> None:
    teacher = Engines(home=str(tmp_path)).find(RECIPE.teacher, "teacher.model")
    row = {"continuation_id": "c", "question": "q", "system_prompt": None, "prefix_text": "<think>\nWe start with 4."}
    asked = request(row, teacher, RECIPE)
    assert isinstance(asked, GenerationRequest)
    num_prefix = len(asked.prompt_token_ids) - len(teacher.chat.prompt_ids("q"))
    assert num_prefix > 0
    assert asked.max_tokens == RECIPE.generation.max_tokens - num_prefix
    refused = request({**row, "prefix_text": "<think>\n" + "4 + 4 = 8. " * 200}, teacher, RECIPE)
    assert isinstance(refused, Failure)
    assert "generation.max_tokens 256" in refused.reason


@pytest.mark.parametrize("loss_on_prefix", [True, False])
def test_loss_on_the_whole_continuation_or_on_the_teachers_part(loss_on_prefix: bool) -> None:
    text = "<think>\n4 + 4 = 8.\n</think>\nThe answer is 8."
    row = {"continuation_id": "c", "question": "q", "system_prompt": None, "text": text, "prefix_text": text[:16]}
    example = continuation_example(STUDENT, row, loss_on_prefix)
    encoded = STUDENT.encode_response("q", text)
    response, labels = (ids[encoded.num_prompt_tokens :] for ids in (encoded.token_ids, example["labels"]))
    with_loss = [offset < 0 or offset >= (0 if loss_on_prefix else 16) for offset in encoded.offsets]
    assert labels == [token if wanted else -100 for token, wanted in zip(response, with_loss, strict=True)]
    assert labels[-1] == STUDENT.end_of_turn_id
    assert (labels[0] == -100) is not loss_on_prefix
    assert (example["response_id"], example["continuation_id"]) == (None, "c")
