"""Cuts of rollouts: beyond half, between characters, outside delimiters."""

from math import ceil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.rules.cuts import CUT_VERSION, cut_row, draw_cut
from dasd_assets.rules.ids import seed_of
from dasd_resources.chat import Chat
from dasd_resources.recipe import load_recipe

RECIPE = load_recipe("demo")
STUDENT = Chat.load(Path(RECIPE.student.model), RECIPE.student)


@given(st.integers(2, 300), st.integers(0, 2**62))
def test_a_cut_lies_beyond_half_where_every_token_is_admissible(num_tokens: int, seed: int) -> None:
    cut = draw_cut(num_tokens, range(num_tokens), seed)
    assert cut is not None
    assert ceil(num_tokens / 2) <= cut <= num_tokens - 1 or num_tokens == 1


def test_every_point_beyond_half_is_drawn() -> None:
    assert {draw_cut(9, range(9), seed) for seed in range(300)} == {5, 6, 7, 8}


def test_a_cut_moves_to_an_admissible_point_beyond_half() -> None:
    assert {draw_cut(9, [0, 3, 6], seed) for seed in range(300)} == {6}  # also from 5, which has none before it
    assert {draw_cut(9, [0, 5, 7], seed) for seed in range(300)} == {5, 7}
    assert draw_cut(9, [0, 3, 4], 1) is None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["<think>\n", ""]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>|"), min_size=4, max_size=60),
)
def test_a_prefix_is_whole_characters(opening: str, body: str) -> None:
    text = f"{opening}{body}🙂和"
    encoded = STUDENT.encode_response("q", text)
    tokens = encoded.token_ids[encoded.num_prompt_tokens : -1]
    aligned = STUDENT.read_response(tokens)
    row = cut_row({"rollout_id": body, "text": aligned.text, "offsets": aligned.offsets})
    if row["cut_token"] is not None:
        kept = STUDENT.read_response(tokens[: row["cut_token"]]).text
        assert kept == aligned.text[: row["cut_char"]]


@given(st.integers(0, 200), st.sets(st.integers(0, 199)), st.integers(0, 2**62))
def test_a_cut_is_the_admissible_point_next_to_a_draw_beyond_half(
    num_tokens: int, admissible: set[int], seed: int
) -> None:
    points = sorted(point for point in admissible if point < num_tokens)
    cut = draw_cut(num_tokens, points, seed)
    drawn = draw_cut(num_tokens, range(num_tokens), seed)
    assert cut == draw_cut(num_tokens, points[::-1], seed)
    beyond = [point for point in points if point >= max(num_tokens / 2, 1)]
    assert (cut is None) == (not beyond)
    if cut is None or drawn is None:
        assert drawn is not None or num_tokens < 2
        return
    assert cut in beyond
    assert not any(cut < point <= drawn or (cut > drawn and point < cut) for point in beyond)


@pytest.mark.parametrize(("num_tokens", "cuts"), [(0, {None}), (1, {None}), (2, {1}), (3, {2}), (4, {2, 3})])
def test_cuts_of_the_shortest_rollouts(num_tokens: int, cuts: set[int | None]) -> None:
    assert {draw_cut(num_tokens, range(num_tokens), seed) for seed in range(50)} == cuts


def test_a_cut_keeps_no_half_character_and_no_half_delimiter() -> None:
    text = "<think>\n👩‍🚀👩‍🚀\n</think>\n漢字漢字"
    encoded = STUDENT.encode_response("q", text)
    tokens = encoded.token_ids[encoded.num_prompt_tokens : -1]
    offsets = encoded.offsets[:-1]
    rows = [cut_row({"rollout_id": f"r{i}", "text": text, "offsets": offsets}) for i in range(400)]
    closing = range(text.index("</think>"), text.index("</think>") + len("</think>\n"))
    assert len({row["cut_token"] for row in rows}) > 3
    for row in rows:
        kept = STUDENT.read_response(tokens[: row["cut_token"]]).text
        assert kept == text[: row["cut_char"]]
        assert "\ufffd" not in kept
        assert row["cut_char"] not in closing
        assert (row["reason"], row["cut_version"]) == (None, CUT_VERSION)


def test_a_rollout_that_cannot_be_cut_says_why() -> None:
    row = cut_row({"rollout_id": "r", "text": "🎉", "offsets": [0, 0, 0, 0]})
    assert (row["cut_token"], row["cut_char"]) == (None, None)
    assert row["reason"] == "no token beyond half starts a character outside a delimiter"
    assert row["seed"] == seed_of("cut r")
