"""Landed responses: the shapes that are read, what a row says of a response, and hostile rows."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.response_files import (
    Landed,
    LandedResponse,
    Logprobs,
    read_questions,
    read_responses,
)
from dasd_resources.landing.response_rejections import RejectedResponse
from dasd_resources.landing.row_files.rows import MAX_RESPONSE_ROW_BYTES
from dasd_resources.recipe.landing_settings import Columns

ASKED, SAID = "What is 1 + 1?", "<think>\n1 + 1 = 2\n</think>\n2"


def landed(folder: Path, *rows: object) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def brought(path: Path) -> list[Landed]:
    return list(read_responses(path, path.name))


def the_response(folder: Path, row: object) -> LandedResponse:
    [found] = brought(landed(folder, row))
    assert isinstance(found, LandedResponse), found
    return found


def the_question(folder: Path, row: object) -> Prompt:
    [found] = read_questions(landed(folder, row), "a.jsonl")
    assert isinstance(found, Prompt), found
    return found


SHAPES = {
    "a question and its response": {"question": ASKED, "response": SAID},
    "messages": {
        "messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}],
    },
    "messages with a system turn that is empty": {
        "messages": [
            {"role": "system", "content": ""},
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": SAID},
        ],
    },
    "messages with the thinking apart": {
        "messages": [
            {"role": "user", "content": ASKED},
            {"role": "assistant", "reasoning_content": "1 + 1 = 2", "content": "2"},
        ],
    },
    "OpenThoughts' conversations": {
        "difficulty": 3,
        "source": "sums",
        "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}],
    },
    "the report's release": {"uuid": "u1", "input": ASKED, "output": SAID, "domain": "math", "meta": "{}"},
    "Alpaca's with an instruction alone": {"instruction": ASKED, "input": "", "output": SAID},
    "Alpaca's without an input": {"instruction": ASKED, "input": None, "output": SAID},
    "prompt and completion": {
        "prompt": [{"role": "user", "content": ASKED}],
        "completion": [{"role": "assistant", "content": SAID}],
    },
    "prompt and completion as texts": {"prompt": ASKED, "completion": SAID},
}


@pytest.mark.parametrize("row", SHAPES.values(), ids=SHAPES)
def test_published_shapes_are_a_question_with_its_response(tmp_path: Path, row: dict[str, object]) -> None:
    found, question = the_response(tmp_path, row), the_question(tmp_path, row)
    assert (found.text, found.finish_reason, found.temperature, found.sample_index) == (SAID, "stop", None, None)
    assert (question.question, question.system_prompt) == (ASKED, None)
    assert found.prompt_id == question.prompt_id
    assert SAID not in question.metadata and ASKED not in question.metadata


def test_an_instruction_stands_above_its_input(tmp_path: Path) -> None:
    row = {"instruction": "Translate to French", "input": "Good day", "output": "Bonjour", "level": 1}
    question = the_question(tmp_path, row)
    assert (question.question, question.metadata) == ("Translate to French\n\nGood day", '{"level":1}')
    assert the_response(tmp_path, row).text == "Bonjour"
    assert the_question(tmp_path, {**row, "instruction": " "}).question == "Good day"
    tokens = {"sample_uuid": "u1", "token_ids": [1], "logprobs": [-1]}
    found, _ = brought(landed(tmp_path, {**row, "input": None, **tokens}))
    assert isinstance(found, LandedResponse) and found.text == "Bonjour"


def test_the_question_keeps_the_rows_other_keys_and_the_response_its_own(tmp_path: Path) -> None:
    row = {"messages": SHAPES["messages"]["messages"], "source": "sums", "sample_uuid": "u1", "temperature": 0.6}
    row |= {"sample_index": 3, "finish_reason": "length", "domain": "math"}
    question, found = the_question(tmp_path, row), the_response(tmp_path, row)
    assert (question.metadata, question.domain) == ('{"source":"sums"}', "math")
    assert (found.sample, found.temperature, found.sample_index, found.finish_reason) == ("u1", 0.6, 3, "length")


LINEAGE = {
    "id": "r1",
    "prompt_id": "p1",
    "origin": "response",
    "num_prefix_characters": None,
    "domain": "math",
    "source": "sums",
    "question_system_prompt": None,
    "reference_answer": "2",
    "verifier": "exact",
    "temperature": 0.6,
    "top_p": 1.0,
    "sample_index": 1,
    "finish_reason": "stop",
    "correct": True,
    "score_name": "teacher_share",
    "score": 0.5,
    "rank": 1,
    "num_tokens": 9,
    "metadata": '{"kind": "easy"}',
}
TURNS = [{"role": "system", "content": "Help."}, *SHAPES["messages"]["messages"]]  # type: ignore[misc]
PUBLISHED = {
    "messages": {"messages": TURNS, **LINEAGE},
    "prompt_completion": {"prompt": TURNS[:-1], "completion": TURNS[-1:], **LINEAGE},
    "sharegpt": {"conversations": SHAPES["OpenThoughts' conversations"]["conversations"], "system": "Help.", **LINEAGE},
}


@pytest.mark.parametrize("row", PUBLISHED.values(), ids=PUBLISHED)
def test_what_dasd_has_published_is_read_back_in_each_form(tmp_path: Path, row: dict[str, object]) -> None:
    found, question = the_response(tmp_path, row), the_question(tmp_path, row)
    assert (found.text, found.sample_uuid, found.sample_index, found.temperature) == (SAID, "r1", 1, 0.6)
    asked = (question.question, question.system_prompt, question.domain, question.reference_answer, question.verifier)
    assert asked == (ASKED, None, "math", "2", "exact")
    assert json.loads(question.metadata) == {"kind": "easy", "source": "sums"}
    own = the_question(tmp_path, {**row, "question_system_prompt": "Be brief."})
    assert own.system_prompt == "Be brief."


def test_the_reports_form_has_it_in_meta_and_a_continuation_is_no_response(tmp_path: Path) -> None:
    row = {"uuid": "r1", "input": ASKED, "output": SAID, "domain": "math", "meta": json.dumps(LINEAGE)}
    found, question = the_response(tmp_path, row), the_question(tmp_path, row)
    assert (found.sample_uuid, found.temperature, found.sample_index) == ("r1", 0.6, 1)
    assert (question.reference_answer, question.verifier, question.metadata) == (
        "2",
        "exact",
        '{"kind":"easy","source":"sums"}',
    )
    begun = {**LINEAGE, "origin": "continuation"}
    for whole in ({**row, "meta": json.dumps(begun)}, {"messages": TURNS, **begun}):
        [rejected] = brought(landed(tmp_path, whole))
        assert isinstance(rejected, RejectedResponse) and rejected.kind == "invalid_response"
        assert "a continuation, which a student began" in rejected.reason


def test_logprobs_in_the_row_are_found_by_the_response_alone(tmp_path: Path) -> None:
    """An `id` of a question, which several of its responses have, would mix up their logprobs."""
    rows = [{"id": 7, "question": ASKED, "response": text, "token_ids": [1], "logprobs": [-1]} for text in "ab"]
    one, its, other, others = brought(landed(tmp_path, *rows))
    assert isinstance(one, LandedResponse) and isinstance(other, LandedResponse)
    assert isinstance(its, Logprobs) and isinstance(others, Logprobs)
    assert (its.sample, others.sample) == (one.landed_id, other.landed_id) and its.sample != others.sample


def test_a_system_turn_is_the_questions_system_prompt(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, *SHAPES["messages"]["messages"]]
    assert the_question(tmp_path, {"messages": turns}).system_prompt == "Be brief."


def test_several_responses_of_a_row_are_each_one(tmp_path: Path) -> None:
    more = {"response": "3", "token_ids": [5], "logprobs": [-0.5], "sample_uuid": "u2"}
    path = landed(tmp_path, {"question": ASKED, "responses": ["2", more, "2"], "temperature": 1})
    first, second, logprobs, copy = brought(path)
    assert isinstance(first, LandedResponse) and isinstance(second, LandedResponse) and isinstance(copy, LandedResponse)
    assert [(one.text, one.item, one.temperature) for one in (first, second, copy)] == [
        ("2", 0, 1.0),
        ("3", 1, 1.0),
        ("2", 2, 1.0),
    ]
    assert logprobs == Logprobs(second.landed_id, "a.jsonl", 1, 1, [5], [-0.5])
    assert first.landed_id == first.sample == copy.landed_id != second.landed_id


def test_logprobs_come_in_the_responses_row_or_in_a_companion(tmp_path: Path) -> None:
    lists = {"token_ids": [4, 5], "logprobs": [0, -1.25]}
    own, *_ = inline = brought(landed(tmp_path, {"question": ASKED, "response": SAID, **lists}))
    assert isinstance(own, LandedResponse) and own.sample == own.landed_id
    assert inline[1] == Logprobs(own.landed_id, "a.jsonl", 1, 0, [4, 5], [0.0, -1.25])
    companion = landed(tmp_path, {"sample_uuid": "u1", "token_ids": [4, 5], "logprobs": [0.0, -1.25]})
    assert brought(companion) == [Logprobs("u1", "a.jsonl", 1, 0, [4, 5], [0.0, -1.25])]
    assert list(read_questions(companion, "a.jsonl")) == []


def test_an_id_may_be_a_whole_float_and_an_empty_one_is_none(tmp_path: Path) -> None:
    for said, uuid in (({"id": 7.0}, "7"), ({"sample_uuid": "", "id": 7}, "7"), ({"id": ""}, None)):
        assert the_response(tmp_path, {"question": ASKED, "response": SAID, **said}).sample_uuid == uuid
    [found] = brought(landed(tmp_path, {"sample_uuid": "", "token_ids": [1], "logprobs": [-1]}))
    assert isinstance(found, RejectedResponse) and found.reason.startswith("sample_uuid is empty")


def test_numbers_may_be_texts_and_whole_floats(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,response,temperature,sample_index\nq,r,0.6,3\nq,s,1,\n")
    [first, second] = brought(tmp_path / "a.csv")
    assert isinstance(first, LandedResponse) and isinstance(second, LandedResponse)
    assert [(one.temperature, one.sample_index) for one in (first, second)] == [(0.6, 3), (1.0, None)]
    whole = the_response(tmp_path, {"question": ASKED, "response": SAID, "temperature": 1, "sample_index": 0.0})
    assert (whole.temperature, whole.sample_index) == (1.0, 0)


def test_a_questions_rows_are_no_duplicate_lines(tmp_path: Path) -> None:
    path = landed(tmp_path, *[{"question": ASKED, "response": text} for text in ("1", "2", "3")])
    assert [type(record) for record in read_questions(path, "a.jsonl")] == [Prompt]
    assert len({one.prompt_id for one in brought(path) if isinstance(one, LandedResponse)}) == 1
    assert len(brought(path)) == 3


def test_what_a_later_row_knows_of_its_question_is_not_lost(tmp_path: Path) -> None:
    known = [{}, {"reference_answer": 2, "verifier": "math"}, {"reference_answer": 2, "verifier": "math"}, {}]
    rows = [{"question": ASKED, "response": str(number), **one} for number, one in enumerate(known)]
    first, second = read_questions(landed(tmp_path, *rows), "a.jsonl")
    assert isinstance(first, Prompt) and isinstance(second, RejectedPrompt) and second.line is not None
    assert (second.kind, second.source_line) == ("duplicate_line", 2)
    assert (second.line.reference_answer, second.line.verifier) == ("2", "math")


def test_a_later_row_that_says_nothing_new_is_no_duplicate_line(tmp_path: Path) -> None:
    known = [{"domain": "math", "reference_answer": 2, "verifier": "math"}, {"reference_answer": 2}] * 2
    rows = [{"question": ASKED, "response": str(number), **one} for number, one in enumerate(known)]
    assert [type(one) for one in read_questions(landed(tmp_path, *rows), "a.jsonl")] == [Prompt]


def test_a_row_with_a_response_is_no_companion_whatever_its_question_is_called(tmp_path: Path) -> None:
    row = {"problem": ASKED, "response": SAID, "sample_uuid": "u1", "token_ids": [1], "logprobs": [-1]}
    path, mapping = landed(tmp_path, row), Columns.model_validate({"question": "problem"})
    [question] = read_questions(path, path.name, [mapping])
    assert isinstance(question, Prompt) and question.question == ASKED
    found, logprobs = read_responses(path, path.name, [mapping])
    assert isinstance(found, LandedResponse) and isinstance(logprobs, Logprobs)
    assert (found.text, found.sample_uuid, logprobs.sample) == (SAID, "u1", found.landed_id)


def test_float32_of_parquet_comes_through_exactly(tmp_path: Path) -> None:
    values = [-0.1, -3.4028e38, 0.0]
    logprobs = pa.array([values], pa.list_(pa.float32()))
    table = pa.table({"sample_uuid": ["u1"], "token_ids": [[1, 2, 3]], "logprobs": logprobs})
    pq.write_table(table, tmp_path / "a.parquet")
    [found] = brought(tmp_path / "a.parquet")
    assert isinstance(found, Logprobs)
    assert found.logprobs == logprobs[0].as_py()


BAD_LOGPROBS = {
    "2 token_ids, but 1 logprobs": {"token_ids": [1, 2], "logprobs": [-1.0]},
    "token_ids and logprobs must both be lists": {"token_ids": [1, 2]},
    "logprob 0.5 at token 1 is not a natural log-probability": {"token_ids": [1, 2], "logprobs": [-1.0, 0.5]},
    "logprob None at token 0": {"token_ids": [1], "logprobs": [None]},
    "logprob True at token 0": {"token_ids": [1], "logprobs": [True]},
    "logprob inf at token 0": '{"question": "a", "response": "b", "token_ids": [1], "logprobs": [1e999]}',
    "logprob -inf at token 0": '{"question": "a", "response": "b", "token_ids": [1], "logprobs": [-1e999]}',
    "logprob -1e+300 at token 0": {"token_ids": [1], "logprobs": [-1e300]},
    "logprob -1000": {"token_ids": [1], "logprobs": [-(10**400)]},
    "token id -1 at token 0": {"token_ids": [-1], "logprobs": [-1.0]},
    "token id 1.5 at token 0": {"token_ids": [1.5], "logprobs": [-1.0]},
    "token id 2147483648 at token 0": {"token_ids": [2**31], "logprobs": [-1.0]},
}


@pytest.mark.parametrize(("reason", "lists"), BAD_LOGPROBS.items(), ids=BAD_LOGPROBS)
def test_logprobs_that_are_none_reject_their_response(tmp_path: Path, reason: str, lists: object) -> None:
    row = lists if isinstance(lists, str) else {"question": ASKED, "response": SAID, **dict(lists)}  # type: ignore[call-overload]
    [rejected] = brought(landed(tmp_path, row))
    assert isinstance(rejected, RejectedResponse)
    assert rejected.kind == "invalid_logprobs" and reason in rejected.reason
    assert [type(record) for record in read_questions(tmp_path / "a.jsonl", "a.jsonl")] == [Prompt]


BAD_RESPONSES = {
    "the row has a question, and no response to it": ("missing_response", {}),
    "response must be a text, found 3": ("invalid_response", {"response": 3}),
    "response must be a text, found '  '": ("invalid_response", {"response": "  "}),
    "holds a NUL character": ("invalid_response", {"response": "a\0b"}),
    "holds a lone surrogate at character 0": ("invalid_response", {"response": "\ud800"}),
    "responses must be a list of some": ("invalid_response", {"responses": []}),
    "beside which there is no response": ("invalid_response", {"responses": ["a"], "response": "b"}),
    "temperature must be above 0": ("invalid_response", {"response": "a", "temperature": "hot"}),
    "temperature must be above 0, at most 2; found 'true'": (
        "invalid_response",
        {"response": "a", "temperature": "true"},
    ),
    "temperature must be above 0, at most 2; found nan": ("invalid_response", {"response": "a", "temperature": "NaN"}),
    "sample_index must be a number from 0": ("invalid_response", {"response": "a", "sample_index": -1}),
    "sample_index must be a number from 0; found 0.5": ("invalid_response", {"response": "a", "sample_index": 0.5}),
    "finish_reason must be stop or length": ("invalid_response", {"response": "a", "finish_reason": "tool_calls"}),
    "sample_uuid must be a text": ("invalid_response", {"response": "a", "sample_uuid": [1]}),
    "id must be a text, found 1.5": ("invalid_response", {"response": "a", "uuid": "", "id": 1.5}),
    "uuid holds a NUL character": ("invalid_response", {"response": "a", "uuid": "a\0b"}),
}


@pytest.mark.parametrize(("reason", "bad"), BAD_RESPONSES.items(), ids=BAD_RESPONSES)
def test_a_response_that_cannot_be_taken_has_its_reason(
    tmp_path: Path, reason: str, bad: tuple[str, dict[str, object]]
) -> None:
    kind, fields = bad
    [rejected] = brought(landed(tmp_path, {"question": ASKED, **fields}))
    assert isinstance(rejected, RejectedResponse)
    assert (rejected.kind, rejected.source_line) == (kind, 1) and reason in rejected.reason


BAD_ROWS = {
    "several turns of the user": {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
    "does not begin with the user": {
        "messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    },
    "has no turn of a user": {"messages": []},
    "must hold objects": {"messages": ["a"]},
    "has a turn of 'tool'": {"messages": [{"role": "tool", "content": "a"}]},
    "has a turn of None": {"conversations": [{"value": "a"}]},
    "not JSON": "{",
    "nested more than 100 deep": '{"messages": ' + "[" * 200 + "]" * 200 + "}",
    "at most 16777216 are accepted": json.dumps({"question": "a", "response": "b" * MAX_RESPONSE_ROW_BYTES}),
    "question is missing": {"response": "a"},
}


@pytest.mark.parametrize(("reason", "row"), BAD_ROWS.items(), ids=BAD_ROWS)
def test_a_row_that_is_no_question_is_rejected_as_one(tmp_path: Path, reason: str, row: object) -> None:
    path = landed(tmp_path, row, {"question": "good", "response": "better"})
    bad, good = read_questions(path, "a.jsonl")
    assert isinstance(bad, RejectedPrompt) and reason in bad.reason
    assert isinstance(good, Prompt)
    [found] = brought(path)
    assert isinstance(found, LandedResponse) and found.source_line == 2


def test_a_file_that_breaks_off_brings_what_stands_before(tmp_path: Path) -> None:
    path = landed(tmp_path, *[{"question": f"{number}?", "response": "a"} for number in range(3)])
    path.write_bytes(path.read_bytes() + b'{"question": "x", "respo')
    assert len(brought(path)) == 3
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    assert brought(tmp_path / "b.parquet") == []
    assert [type(one) for one in read_questions(tmp_path / "b.parquet", "b.parquet")] == [RejectedPrompt]


def test_of_a_question_that_a_mapping_finds_in_several_turns_the_response_is_rejected(tmp_path: Path) -> None:
    turns = [("user", ASKED), ("assistant", SAID), ("user", "And 2 + 2?"), ("assistant", "4")]
    path = landed(tmp_path, {"messages": [{"role": role, "content": text} for role, text in turns]})
    mapping = Columns.model_validate({"question": {"messages": "messages"}})
    [question] = read_questions(path, path.name, [mapping])
    assert isinstance(question, Prompt) and question.question == ASKED
    [found] = read_responses(path, path.name, [mapping])
    assert isinstance(found, RejectedResponse) and found.kind == "invalid_response"
