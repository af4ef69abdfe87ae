from dataclasses import replace
from math import ceil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chat import harmony, harmony_ids
from tokenizers import Tokenizer

from dasd_assets.generations import seed_of
from dasd_assets.mixed_policy.continuations import continuation_id, continuation_row, prefix_end, request
from dasd_assets.mixed_policy.cuts import CUT_VERSION, cut_row, draw_cut
from dasd_assets.mixed_policy.mixture import continuation_example, off_policy_draw
from dasd_assets.mixed_policy.rollouts import draw_questions, length_cap, rollout_row, wanted_rollouts
from dasd_assets.rules.sentences import sentence_logprobs, sentence_spans
from dasd_resources.chat import Chat
from dasd_resources.inference.engine import Completion, Failure, FinishReason, GenerationRequest
from dasd_resources.inference.engines import Engines, PromptedModel
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


def test_a_cut_moves_to_an_admissible_point_beyond_half() -> None:
    assert {draw_cut(9, [0, 3, 6], seed) for seed in range(300)} == {6}  # also from 5, which has none before it
    assert {draw_cut(9, [0, 5, 7], seed) for seed in range(300)} == {5, 7}
    assert draw_cut(9, [0, 3, 4], 1) is None


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
    assert refused.kind == "no_budget"
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


@given(st.integers(1, 5000), st.integers(100, 300))
def test_the_cap_is_the_ceiling_of_the_exact_product(length: int, hundredths: int) -> None:
    assert length_cap(length, hundredths / 100) == -(-length * hundredths // 100)


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


@pytest.mark.parametrize(
    "other", [{"length_cap": 2.0}, {"rollout_temperature": 0.9}, {"rollout_top_p": 0.9}, {"num_questions": 1}]
)
def test_a_rollout_id_follows_its_sampling(other: dict[str, float]) -> None:
    policy = RECIPE.mixed_policy.model_copy(update=other)
    ids = [{row["rollout_id"] for row in wanted_rollouts(references(), "c1", p)} for p in (RECIPE.mixed_policy, policy)]
    assert (ids[0] == ids[1]) is ("num_questions" in other)
    assert ids[0] == ids[1] or not ids[0] & ids[1]


def test_a_rollout_id_follows_its_reference() -> None:
    other = references().with_columns(response_id=pl.lit("x"))
    longer = references().with_columns(pl.col("reference_num_tokens") + 10)
    tables = (references(), other, longer)
    ids = [row["rollout_id"] for table in tables for row in wanted_rollouts(table, "c1", RECIPE.mixed_policy)]
    assert len(set(ids)) == 6
    assert wanted_rollouts(references().clear(), "c1", RECIPE.mixed_policy) == []


def test_the_first_reference_of_a_question_is_drawn_whatever_the_order_of_questions() -> None:
    rows = [(f"p{number % 20}", f"r{number}") for number in range(60)]
    table = pl.DataFrame(rows, schema=["prompt_id", "response_id"], orient="row")
    drawn = draw_questions(table, 7, 1)
    assert drawn["prompt_id"].n_unique() == drawn.height == 7
    assert all(int(response[1:]) < 20 for response in drawn["response_id"])
    swapped = pl.concat([table[10:20], table[:10], table[20:]])
    assert set(draw_questions(swapped, 7, 1)["response_id"]) == set(drawn["response_id"])
    assert set(draw_questions(table, 7, 2)["response_id"]) != set(drawn["response_id"])
    assert set(drawn["response_id"]) < set(draw_questions(table, 8, 1)["response_id"])
    assert draw_questions(table.clear(), 7, 1).is_empty()


@given(st.sets(st.text("abc", min_size=1, max_size=4)), st.integers(0, 20), st.integers(0, 40), st.integers(0, 5))
def test_any_ratio_of_off_policy_rows(ids: set[str], count: int, tenths: int, seed: int) -> None:
    drawn = off_policy_draw(sorted(ids), count, tenths / 10, seed)
    assert len(drawn) == min(len(ids), -(-count * tenths // 10))
    assert set(drawn) <= ids
    more = off_policy_draw(sorted(ids), count + 1, tenths / 10, seed)
    assert more[: len(drawn)] == drawn  # a larger draw only adds


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(home=str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def teacher(engines: Engines) -> PromptedModel:
    return engines.find(RECIPE.teacher, "teacher.model")


@pytest.fixture(scope="module")
def student(engines: Engines) -> PromptedModel:
    return engines.find(RECIPE.student, "student.model")


def completion(token_ids: list[int], reason: FinishReason) -> Completion:
    return Completion("k", token_ids, [-0.5] * len(token_ids), reason)


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_rollout_is_cut_off_exactly_if_it_hit_the_cap(student: PromptedModel, reason: FinishReason) -> None:
    [wanted, _] = wanted_rollouts(references(), "c1", RECIPE.mixed_policy)
    encoded = STUDENT.encode_response("q", "<think>\n4 + 3")
    sampled = completion(encoded.token_ids[encoded.num_prompt_tokens : -1], reason)
    row = rollout_row(sampled, wanted, "c1", student, RECIPE.mixed_policy)
    assert row["cut_off"] is (reason == "length")
    assert (row["text"], row["offsets"]) == ("<think>\n4 + 3", encoded.offsets[:-1])
    assert (row["max_tokens"], row["reference_num_tokens"], row["reference_response_id"]) == (15, 10, "r")
    assert (row["seed"], row["temperature"], row["checkpoint_id"]) == (seed_of("k"), 1.0, "c1")


@pytest.mark.parametrize(
    ("prefix", "said", "text"),
    [
        ("<think>\n4 + 3", " = 7.\n</think>\n7", "<think>\n4 + 3 = 7.\n</think>\n7"),
        ("<think>\n4 + 3 = 7.", "\n</think>\nThe answer is 7.", "<think>\n4 + 3 = 7.\n</think>\nThe answer is 7."),
        ("<think>\n4.\n</think>\nThe", " answer is 7.", "<think>\n4.\n</think>\nThe answer is 7."),
    ],
)
def test_a_continuation_row_joins_both_parts(teacher: PromptedModel, prefix: str, said: str, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(teacher.path / "tokenizer.json"))
    token_ids = [*tokenizer.encode(said, add_special_tokens=False).ids, teacher.chat.end_of_turn_id]
    row = {**PREFIX, "prefix_text": prefix}
    asked = request(row, teacher, RECIPE)
    assert isinstance(asked, GenerationRequest)
    made = continuation_row(completion(token_ids, "stop"), row, asked, teacher)
    assert (made["text"], made["continuation_text"], made["prefix_text"]) == (text, said, prefix)
    assert made["text"] == made["prefix_text"] + made["continuation_text"]
    assert made["offsets"][0] == len(prefix)
    assert made["offsets"][-1] == -1
    assert len(made["token_ids"]) == len(made["logprobs"]) == len(made["offsets"])
    assert made["max_tokens"] == asked.max_tokens < RECIPE.generation.max_tokens


PREFIX = {
    **{"continuation_id": "k", "rollout_id": "r", "prompt_id": "p", "question": "q", "system_prompt": None},
    "max_response_tokens": RECIPE.generation.max_tokens,
}


def test_a_continuation_goes_on_from_the_prefix_text_in_the_teachers_tokens(teacher: PromptedModel) -> None:
    asked = request({**PREFIX, "prefix_text": "<think>\n4 + 3"}, teacher, RECIPE)
    assert isinstance(asked, GenerationRequest)
    prompt = teacher.chat.prompt_ids("q")
    assert list(asked.prompt_token_ids[: len(prompt)]) == prompt
    assert teacher.chat.read_response(asked.prompt_token_ids[len(prompt) :]).text == "<think>\n4 + 3"
    assert (asked.temperature, asked.seed) == (0.6, seed_of("k"))
    assert asked.stop_token_ids == teacher.chat.stop_token_ids


def test_a_prefix_may_leave_the_teacher_one_token_but_not_none(teacher: PromptedModel) -> None:
    row = {**PREFIX, "prefix_text": "<think>\n4 + 3 = 7. 7"}
    size = len(teacher.chat.continuation_ids("q", row["prefix_text"])) - len(teacher.chat.prompt_ids("q"))

    def with_budget(max_tokens: int) -> GenerationRequest | Failure:
        generation = RECIPE.generation.model_copy(update={"max_tokens": max_tokens})
        return request(row, teacher, RECIPE.model_copy(update={"generation": generation}))

    one = with_budget(size + 1)
    assert isinstance(one, GenerationRequest)
    assert one.max_tokens == 1
    assert with_budget(size) == Failure(
        "k", f"the prefix alone fills generation.max_tokens {size}; raise it", "no_budget"
    )


def test_a_continuation_id_follows_what_decides_it() -> None:
    key = {"rollout_id": "r1", "prefix_text": "p", "teacher_fingerprint": "t"}
    key |= {"temperature": 0.6, "top_p": 1.0, "max_response_tokens": 99}
    others: list[dict[str, str | float]] = [
        {"rollout_id": "r2"},
        {"prefix_text": "q"},
        {"teacher_fingerprint": "u"},
        {"temperature": 0.3},
        {"top_p": 0.9},
        {"max_response_tokens": 98},
    ]
    ids = {continuation_id(key), *[continuation_id({**key, **other}) for other in others]}
    assert len(ids) == 7
    assert continuation_id({**key, "max_tokens": 5}) == continuation_id(key)


@given(st.text("ab \n", max_size=8), st.text("ab \n", max_size=8))
def test_the_shared_part_is_the_longest(text: str, prefix: str) -> None:
    end = prefix_end(text, prefix)
    assert text[:end] == prefix[:end]
    assert end == min(len(text), len(prefix)) or text[end] != prefix[end]


def test_a_ratio_is_rounded_before_it_is_rounded_up() -> None:
    assert 50 * 1.1 > 55  # in floating point
    assert len(off_policy_draw([f"r{i}" for i in range(60)], 50, 1.1, seed=1)) == 55
    assert length_cap(50, 1.1) == 55


def test_a_harmony_teacher_goes_on_in_its_analysis_channel_and_every_logprob_keeps_its_characters(
    teacher: PromptedModel,
) -> None:
    model = replace(teacher, chat=harmony())
    row = {**PREFIX, "prefix_text": "<think>\nWe start with 4. 4 + 3"}
    asked = request(row, model, RECIPE)
    assert isinstance(asked, GenerationRequest)
    begun = harmony_ids("<|channel|>analysis<|message|>We start with 4. 4 + 3")
    assert list(asked.prompt_token_ids) == harmony().prompt_ids("q") + begun
    assert asked.max_tokens == RECIPE.generation.max_tokens - len(begun)

    header = "<|end|><|start|>assistant<|channel|>final<|message|>"
    token_ids = harmony_ids(f" = 7. Done.{header}7<|return|>")
    logprobs = [-0.125 * (index + 1) for index in range(len(token_ids))]
    made = continuation_row(Completion("k", token_ids, logprobs, "stop"), row, asked, model)
    assert made["text"] == "<think>\nWe start with 4. 4 + 3 = 7. Done.\n</think>\n7"
    assert made["continuation_text"] == " = 7. Done.\n</think>\n7"
    spans = sentence_spans(made["text"])
    assert [made["text"][a:b] for a, b in spans] == ["We start with 4. ", "4 + 3 = 7. ", "Done.", "7"]
    sums, counts = sentence_logprobs(made["text"], made["logprobs"], made["offsets"], spans)
    apart = [lp for lp, offset in zip(logprobs, made["offsets"], strict=True) if offset < 0]
    assert len(apart) == len(harmony_ids(header)) + 1  # and the end of turn
    assert counts[0] == 0 and counts[-1] == 1
    assert sums.sum() + sum(apart) == pytest.approx(sum(logprobs), abs=1e-9)
