"""Which tokens of a training example carry loss, and what its id depends on."""

from tempfile import TemporaryFile

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.rules.tokens import tokens_of
from dasd_assets.sft_datasets import EXAMPLES_AT_ONCE, NO_LOSS, example_row, spool, spooled
from dasd_assets.sft_datasets import example as example_of
from dasd_resources.chat import Chat
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.warehouse import Row

TEXT = "<think>\n4 + 3 = 7.\n</think>\nThe answer is 7."
SOURCE = {"question": "4 + 3?", "system_prompt": None, "text": TEXT}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    recipe = load_recipe("demo")
    return Engines(home=str(tmp_path_factory.mktemp("home"))).find(recipe.student, "student.model").chat


def example(chat: Chat, source: Row, loss_from: int = 0) -> dict[str, list[int]]:
    """Of a text, tokenised."""
    return example_of(tokens_of(chat, source), loss_from)


def row_of(chat: Chat, source: Row, loss_from: int = 0) -> Row:
    return example_row({**source, **tokens_of(chat, source)}, loss_from)


def said(chat: Chat, tokens: dict[str, list[int]]) -> str:
    """The text of the tokens that carry loss, after checking that a label is its own token."""
    pairs = list(zip(tokens["input_ids"], tokens["labels"], strict=True))
    assert all(label in (NO_LOSS, token) for token, label in pairs)
    assert tokens["labels"][-1] == chat.end_of_turn_id
    return chat.read_response([label for _, label in pairs if label != NO_LOSS]).text


def test_a_response_carries_loss_on_all_of_itself_and_none_of_the_prompt(chat: Chat) -> None:
    tokens = example(chat, SOURCE)
    prompt = chat.prompt_ids("4 + 3?")
    assert tokens["input_ids"][: len(prompt)] == prompt
    assert tokens["labels"] == [NO_LOSS] * len(prompt) + tokens["input_ids"][len(prompt) :]
    assert said(chat, tokens) == TEXT


def test_the_questions_own_system_prompt_takes_the_recipes_place(chat: Chat) -> None:
    tokens = example(chat, {**SOURCE, "system_prompt": "Add."})
    prompt = chat.prompt_ids("4 + 3?", "Add.")
    assert prompt != chat.prompt_ids("4 + 3?")
    assert tokens["input_ids"][: len(prompt)] == prompt
    assert tokens["labels"][: len(prompt) + 1] == [*[NO_LOSS] * len(prompt), tokens["input_ids"][len(prompt)]]


def test_loss_from_a_character_on_spares_the_tokens_before_it(chat: Chat) -> None:
    start = TEXT.index("The answer")
    assert said(chat, example(chat, SOURCE, loss_from=start)) == "The answer is 7."


def test_a_token_that_begins_before_that_character_carries_no_loss(chat: Chat) -> None:
    encoded = chat.encode_response("4 + 3?", TEXT)
    close = encoded.offsets.index(TEXT.index("</think>"))
    labels = example(chat, SOURCE, loss_from=TEXT.index("</think>") + 1)["labels"][encoded.num_prompt_tokens :]
    assert labels[: close + 1] == [NO_LOSS] * (close + 1)
    assert labels[close + 1 :] == encoded.token_ids[encoded.num_prompt_tokens + close + 1 :]


def test_beyond_the_text_only_the_end_of_turn_carries_loss(chat: Chat) -> None:
    tokens = example(chat, SOURCE, loss_from=len(TEXT))
    assert [label for label in tokens["labels"] if label != NO_LOSS] == [chat.end_of_turn_id]


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>|\0"), max_size=30), st.data())
def test_loss_is_on_a_suffix_of_whole_tokens(chat: Chat, body: str, data: st.DataObject) -> None:
    text = f"<think>\n{body}🙂和\n</think>\nend"
    loss_from = data.draw(st.integers(0, len(text)))
    encoded = chat.encode_response("q", text)
    labels = example(chat, {**SOURCE, "question": "q", "text": text}, loss_from)["labels"]
    first = next(index for index, label in enumerate(labels) if label != NO_LOSS)
    assert labels[first:] == encoded.token_ids[first:]
    assert encoded.num_prompt_tokens <= first
    before = encoded.offsets[: first - encoded.num_prompt_tokens]
    assert all(offset < loss_from for offset in before)


def test_a_question_that_cannot_be_asked_is_not_taught() -> None:
    with pytest.raises(ValueError, match="r7 cannot be taught"):
        example_row({"response_id": "r7", "token_ids": None, "num_prompt_tokens": None, "offsets": None})


def row(**values: object) -> Row:
    return {"response_id": "r1", **SOURCE, **values}


def test_an_example_names_its_one_source(chat: Chat) -> None:
    of_response = row_of(chat, row())
    assert (of_response["response_id"], of_response["continuation_id"]) == ("r1", None)
    of_continuation = row_of(chat, {"continuation_id": "c1", **SOURCE})
    assert (of_continuation["response_id"], of_continuation["continuation_id"]) == (None, "c1")


def test_an_id_follows_source_tokens_and_labels_alone(chat: Chat) -> None:
    first = row_of(chat, row())
    assert first == row_of(chat, row(domain="math", rank=3))
    others = [
        row_of(chat, row(response_id="r2")),
        row_of(chat, row(question="4 + 4?")),
        row_of(chat, row(text=TEXT + ".")),
        row_of(chat, row(), loss_from=20),
        row_of(chat, {"continuation_id": "r1", **SOURCE}),
    ]
    assert len({first["example_id"], *[other["example_id"] for other in others]}) == 6


def test_any_number_of_examples_is_spooled_a_part_at_a_time(chat: Chat) -> None:
    first = row_of(chat, row())
    rows = [{**first, "example_id": f"e{i}", "input_ids": [*range(i % 7)]} for i in range(EXAMPLES_AT_ONCE + 3)]
    with TemporaryFile() as file:
        made = spool(file, iter(rows))
        parts = list(spooled(file))
    assert made.rows() == [(one["example_id"], len(one["input_ids"])) for one in rows]
    assert [part.height for part in parts] == [EXAMPLES_AT_ONCE, 3]
    assert pl.concat(parts).to_dicts() == rows
    with TemporaryFile() as file:
        assert spool(file, []).is_empty()
        assert list(spooled(file)) == []
