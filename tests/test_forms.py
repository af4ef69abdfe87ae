"""What is published in a form, and read back: the same questions, responses and logprobs."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dasd_assets.published_dataset.forms import FORMS, LOGPROBS, Form
from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.landing.response_files import LandedResponse, Logprobs, read_questions, read_responses
from dasd_resources.landing.response_rejections import RejectedResponse
from dasd_resources.storage.lake import Row

QUESTION, TEXT = "What is 1 + 1?\n\nPut the answer in \\boxed{}.", "<think>\n1 + 1 = 2\n</think>\n\\boxed{2}"


def example(**others: object) -> Row:
    """A row of `examples.examples`."""
    row: Row = {
        "id": "r1",
        "response_id": "r1",
        "continuation_id": None,
        "prompt_id": "p1",
        "domain": "math",
        "question": QUESTION,
        "system_prompt": None,
        "reference_answer": "2",
        "verifier": "math",
        "metadata": '{"level": 3}',
        "source": "sums",
        "text": TEXT,
        "num_prefix_characters": None,
        "temperature": 0.6,
        "top_p": 0.95,
        "sample_index": 3,
        "finish_reason": "stop",
        "token_ids": [5, 7],
        "logprobs": [-0.5, -1.25],
        "correct": True,
        "score_name": "das",
        "score": 0.25,
        "rank": 1,
        "num_tokens": 20,
        **others,
    }
    system = "Be brief." if row["system_prompt"] is None else row["system_prompt"]  # the student's
    turns = [("system", system), ("user", row["question"]), ("assistant", row["text"])]
    return {**row, "messages": [{"role": role, "content": content} for role, content in turns]}


def written(folder: Path, form: Form, rows: list[Row], ending: str = "parquet") -> Path:
    path, values = folder / f"a.{ending}", [form.row(row) for row in rows]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(values, form.schema), path)
    else:
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"system_prompt": "Be exact.", "domain": "general", "reference_answer": None, "verifier": None},
        {"metadata": '{"level": 3, "source": "its own"}', "finish_reason": "length", "temperature": 1.0},
    ],
)
def test_a_row_is_read_back_as_it_was(tmp_path: Path, form: str, ending: str, others: dict[str, object]) -> None:
    row = example(**others)
    path = written(tmp_path, FORMS[form], [row], ending)
    [question], [response] = read_questions(path, path.name), read_responses(path, path.name)
    assert isinstance(question, Prompt) and isinstance(response, LandedResponse)
    for name in ("question", "system_prompt", "reference_answer", "verifier", "domain"):
        assert getattr(question, name) == row[name], name
    assert json.loads(question.metadata) == {"source": "sums", **json.loads(row["metadata"])}
    for name in ("text", "temperature", "sample_index", "finish_reason"):
        assert getattr(response, name) == row[name], name
    assert (response.sample_uuid, response.prompt_id) == ("r1", question.prompt_id)


@pytest.mark.parametrize("form", FORMS)
def test_a_verifier_goes_with_the_metadata_that_it_judges_by(tmp_path: Path, form: str) -> None:
    named = {"verifier": "constraint", "reference_answer": None}
    constraints = json.dumps({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})
    for metadata, verifier in (("{}", None), (constraints, "constraint")):
        path = written(tmp_path, FORMS[form], [example(**named, metadata=metadata)])
        [question], [response] = read_questions(path, path.name), read_responses(path, path.name)
        assert isinstance(question, Prompt) and isinstance(response, LandedResponse)
        assert (question.verifier, response.text) == (verifier, TEXT)


@pytest.mark.parametrize("form", FORMS)
def test_a_continuation_is_refused(tmp_path: Path, form: str) -> None:
    row = example(id="c1", response_id=None, continuation_id="c1", sample_index=None, num_prefix_characters=9)
    path = written(tmp_path, FORMS[form], [row])
    [found] = read_responses(path, path.name)
    assert isinstance(found, RejectedResponse)
    assert (found.kind, found.reason[:14]) == ("invalid_response", "a continuation")


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_logprobs_are_read_back_as_they_were(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, LOGPROBS, [example()], ending)
    assert list(read_questions(path, path.name)) == []
    assert list(read_responses(path, path.name)) == [Logprobs("r1", path.name, 1, 0, [5, 7], [-0.5, -1.25])]
