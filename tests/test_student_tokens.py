"""A text in the student's tokens: made once by each tokenizer, whole, and read by all that needs them."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import polars as pl
import pytest
from conftest import FakeEngine, Project, change, prompt_rows, refuse

from dasd_assets import student_tokens as student_tokens_module
from dasd_assets import verdicts as verdicts_module
from dasd_assets.rules.rollouts import current_wanted
from dasd_assets.rules.stored_tokens import OF_RESPONSES, NoTokens, stored_tokens
from dasd_assets.rules.tokens import token_table, tokens_of
from dasd_assets.sentence_probabilities import write_sentences
from dasd_assets.student_tokens import untokenised, write_tokens
from dasd_assets.verdicts import unjudged
from dasd_resources.chat import Chat, Encoded
from dasd_resources.inference.engine import InferenceEngine
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Model, load_recipe

RECIPE = load_recipe("demo")
TEXT = "<think>\n4 + 3 = 7.\n</think>\nThe answer is 7."
SOURCE = {"question": "4 + 3?", "system_prompt": None, "text": TEXT}
CHAT = Chat.load(Path(RECIPE.student.model), RECIPE.student)


def test_a_row_is_the_whole_sequence_that_is_trained_on() -> None:
    row = tokens_of(CHAT, SOURCE)
    prompt = CHAT.prompt_ids("4 + 3?")
    assert row["token_ids"][: row["num_prompt_tokens"]] == prompt
    assert CHAT.read_response(row["token_ids"][len(prompt) :]).text == TEXT
    assert len(row["token_ids"]) == len(prompt) + CHAT.num_tokens(TEXT) + 1  # the end of turn
    assert len(row["offsets"]) == CHAT.num_tokens(TEXT) + 1
    assert (row["offsets"][0], row["offsets"][-1]) == (0, -1)
    assert (row["kind"], row["reason"]) == (None, None)


def test_the_questions_own_system_prompt_is_part_of_it() -> None:
    own = "You are a helpful assistant who counts."
    longer, plain = (tokens_of(CHAT, {**SOURCE, "system_prompt": prompt}) for prompt in (own, None))
    assert longer["num_prompt_tokens"] > plain["num_prompt_tokens"]
    assert longer["token_ids"][longer["num_prompt_tokens"] :] == plain["token_ids"][plain["num_prompt_tokens"] :]


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    """The student's chat with a template that takes no system prompt."""
    folder = shutil.copytree(RECIPE.student.model, tmp_path_factory.mktemp("refusing") / "model")
    refuse(folder, "messages[0].role == 'system'", "no system role")
    return Chat.load(folder, RECIPE.student.model_copy(update={"system_prompt": None}))


def test_a_question_the_students_template_refuses_has_a_kind_and_no_tokens(refusing: Chat) -> None:
    row = tokens_of(refusing, {**SOURCE, "system_prompt": "Be kind."})
    assert (row["kind"], row["token_ids"], row["offsets"], row["num_prompt_tokens"]) == (
        "unsupported_question",
        None,
        None,
        None,
    )
    told = "the model's chat template refuses the question with a system prompt of its own"
    assert str(row["reason"]).startswith(told)
    assert tokens_of(refusing, SOURCE)["kind"] is None


def test_a_table_has_a_row_for_each_text_asked_or_refused(refusing: Chat) -> None:
    sources = [{**SOURCE, "response_id": "r1"}, {**SOURCE, "response_id": "r2", "system_prompt": "Be kind."}]
    table = token_table(refusing, sources, "response_id")
    assert table.to_dicts() == [
        {"response_id": source["response_id"], **tokens_of(refusing, source)} for source in sources
    ]
    assert table.schema["token_ids"] == table.schema["offsets"] == pl.List(pl.Int32)
    nothing = token_table(refusing, [], "response_id")
    assert (nothing.height, nothing.schema) == (0, table.schema)


class CountingChat(Chat):
    """A chat that notes the texts that it is given to encode."""

    encoded: list[tuple[str, str, str | None]]
    counted: list[str]

    def encode_response(self, question: str, text: str, system_prompt: str | None = None) -> Encoded:
        self.encoded.append((question, text, system_prompt))
        return super().encode_response(question, text, system_prompt)

    def num_tokens(self, text: str) -> int:
        self.counted.append(text)
        return super().num_tokens(text)


@dataclass
class Counting(Project):
    """A project whose every chat counts."""

    encoded: list[tuple[str, str, str | None]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)

    @cached_property
    def engines(self) -> Engines:  # type: ignore[override]
        project, chats = self, dict[tuple[Path, str], CountingChat]()

        def counting(path: Path, spec: Model) -> CountingChat:
            chat = chats.get((path, spec.model_dump_json()))
            if chat is None:
                chat = chats[path, spec.model_dump_json()] = CountingChat.load(path, spec)  # type: ignore[assignment]
                chat.encoded, chat.counted = project.encoded, project.counted
            return chat

        class CountingEngines(Engines):
            def find(self, spec: Model, key: str) -> PromptedModel:
                found = Engines.find(self, spec, key)
                return replace(found, chat=counting(found.path, spec))

            @contextmanager
            def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
                yield FakeEngine(model, project.fake)

        return CountingEngines(home=str(self.home))

    def texts(self) -> Counter[tuple[str, str, str | None]]:
        """Every text that there is to tokenise, with its question; several responses may say the same."""
        query = """SELECT p.question, t.text, p.system_prompt FROM (
                SELECT prompt_id, text FROM responses UNION ALL SELECT prompt_id, text FROM teacher_continuations
            ) t JOIN prompts p USING (prompt_id)"""
        return Counter(self.read(query).iter_rows())


@pytest.mark.drill
def test_on_its_way_to_the_dataset_every_text_is_tokenised_once(project: Project) -> None:
    """By the student alone, over a whole run with its checks; and what lands later does not repeat it."""
    recipe = change(project.recipe, "provenance", None)  # the answers' texts are on no way to a dataset
    counting = Counting(project.home, recipe, project.fake, warns=True)
    counting.land("a.jsonl", prompt_rows(0, 6))
    counting.run()
    assert counting.count("continuation_tokens") > 0
    assert {*counting.read("SELECT dataset FROM sft_examples")["dataset"]} == {"t060", "t100", "mixed"}
    assert Counter(counting.encoded) == counting.texts()
    counting.land("b.jsonl", prompt_rows(6, 9))
    counting.run()
    assert Counter(counting.encoded) == counting.texts()
    assert counting.counted == []


def test_responses_are_tokenised_with_their_question_and_only_where_missing(copy: Project) -> None:
    student = copy.engines.find(copy.recipe.student, "student.model")
    batch, some = copy.read("SELECT batch, min(response_id) FROM student_tokens GROUP BY ALL LIMIT 1").row(0)
    before = copy.read("FROM student_tokens WHERE response_id = $id", id=some).drop("run_id")
    with copy.warehouse.commit("a test") as transaction:
        transaction.delete_keys("student_tokens", {"batch": batch}, "response_id", [some])
    with pytest.raises(NoTokens, match="materialize student_tokens first"):
        stored_tokens(copy.warehouse, "token_ids", student.fingerprint, [some])
    number, todo = untokenised(copy.warehouse, batch, student.fingerprint)
    rows = [*todo]
    query = """SELECT r.response_id, r.text, p.question, p.system_prompt FROM responses r JOIN prompts p
        USING (prompt_id) WHERE response_id = $id"""
    assert (number, rows) == (1, copy.read(query, id=some).to_dicts())
    made_by = (student.chat, student.fingerprint)
    assert write_tokens(copy.warehouse, OF_RESPONSES, *made_by, rows, "a test", batch) == 1
    assert copy.read("FROM student_tokens WHERE response_id = $id", id=some).drop("run_id").equals(before)
    assert untokenised(copy.warehouse, batch, student.fingerprint)[0] == 0


def test_long_texts_are_committed_a_few_at_a_time(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    student = copy.engines.find(copy.recipe.student, "student.model")
    batch = copy.read("SELECT min(batch) FROM student_tokens").item()
    before = copy.read("FROM student_tokens WHERE batch = $batch ORDER BY ALL", batch=batch).drop("run_id")
    with copy.warehouse.commit("a test") as transaction:
        transaction.replace("student_tokens", {"batch": batch}, before.clear())
    number, todo = untokenised(copy.warehouse, batch, student.fingerprint)
    rows, then = [*todo], copy.warehouse.snapshot_id()
    lengths = [sum(len(value) for value in row.values() if isinstance(value, str)) for row in rows]
    monkeypatch.setattr(student_tokens_module, "CHARACTERS_PER_COMMIT", sum(lengths[:2]))
    made_by = (student.chat, student.fingerprint)
    assert write_tokens(copy.warehouse, OF_RESPONSES, *made_by, rows, "a test", batch) == number == before.height
    assert copy.read("FROM student_tokens WHERE batch = $batch ORDER BY ALL", batch=batch).drop("run_id").equals(before)
    assert 2 < copy.warehouse.snapshot_id() - then < number


def test_what_has_no_tokens_is_not_left_out_of_verdicts_silently(copy: Project) -> None:
    student = copy.engines.fingerprint(copy.recipe.student, "student.model")
    batch = copy.read("SELECT min(batch) FROM responses").item()
    with copy.warehouse.commit("a test") as transaction:
        transaction.replace("student_tokens", {"batch": batch}, pl.DataFrame())
    with pytest.raises(NoTokens, match=r"student_tokens has the tokens of 0 of \d+ texts"):
        unjudged(copy.warehouse, batch, student, "other rules")


def test_responses_whose_tokens_are_missing_are_judged_later_and_counted(copy: Project) -> None:
    student = copy.engines.fingerprint(copy.recipe.student, "student.model")
    batch, some, num = copy.read("SELECT batch, min(response_id), count(*) FROM responses GROUP BY ALL LIMIT 1").row(0)
    with copy.warehouse.commit("a test") as transaction:
        transaction.delete_keys("student_tokens", {"batch": batch}, "response_id", [some])
    num_todo, num_waiting, rows = unjudged(copy.warehouse, batch, student, "other rules")
    assert (num_todo, num_waiting) == (num - 1, 1)
    assert some not in {row["response_id"] for row in rows}


def test_a_batch_is_judged_in_parts_each_response_once(
    copy: Project, streamed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    student = copy.engines.fingerprint(copy.recipe.student, "student.model")
    batch = copy.read("SELECT batch FROM responses LIMIT 1").item()
    num_todo, _, rows = unjudged(copy.warehouse, batch, student, "other rules")
    at_once = sorted(rows, key=itemgetter("response_id"))
    streamed.clear()
    monkeypatch.setattr(verdicts_module, "RESPONSES_AT_ONCE", 2)
    in_parts = unjudged(copy.warehouse, batch, student, "other rules")[2]
    assert sorted(in_parts, key=itemgetter("response_id")) == at_once
    assert 2 < num_todo == len(at_once)
    assert len(streamed) == 1, "the texts were read again for each part"


def test_a_reference_without_tokens_takes_no_question_from_the_mixed_dataset(copy: Project) -> None:
    student = copy.engines.fingerprint(copy.recipe.student, "student.model")
    assert current_wanted(copy.warehouse, copy.recipe, student, "a checkpoint")
    query = """SELECT response_id, t.batch FROM selected_responses s JOIN student_tokens t USING (response_id)
        WHERE s.dataset = $name AND s.policy = 'das' LIMIT 1"""
    some, batch = copy.read(query, name=copy.recipe.last_dataset).row(0)
    with copy.warehouse.commit("a test") as transaction:
        transaction.delete_keys("student_tokens", {"batch": batch}, "response_id", [some])
    with pytest.raises(NoTokens, match="materialize student_tokens first"):
        current_wanted(copy.warehouse, copy.recipe, student, "a checkpoint")


def test_a_withdrawn_response_that_was_scored_before_there_were_tokens_stops_no_sentence(copy: Project) -> None:
    student = copy.engines.fingerprint(copy.recipe.student, "student.model")
    some, prompt, batch = copy.read("""SELECT response_id, prompt_id, batch FROM student_logprobs
        JOIN responses USING (response_id, batch) ORDER BY response_id LIMIT 1""").row(0)
    with copy.warehouse.commit("a test") as transaction:
        for table in ("student_tokens", "sentence_probabilities"):
            transaction.delete_keys(table, {"batch": batch}, "response_id", [some])
        transaction.delete_keys("prompts", {"batch": batch}, "prompt_id", [prompt])
    write_sentences(copy.warehouse, batch, student, "a test")
    assert copy.read("FROM sentence_probabilities WHERE response_id = $id", id=some).is_empty()


def test_the_same_tokens_are_counted_scored_and_trained_on(finished: Project) -> None:
    query = """SELECT count(*), count(*) FILTER (e.input_ids = t.token_ids),
            count(*) FILTER (len(s.logprobs) = len(t.token_ids) - t.num_prompt_tokens)
        FROM sft_examples e JOIN student_tokens t USING (response_id) JOIN student_logprobs s USING (response_id)"""
    num, same, scored = finished.read(query).row(0)
    assert num == same == scored > 0
    query = """SELECT count(*), count(*) FILTER (e.input_ids = t.token_ids)
        FROM sft_examples e JOIN continuation_tokens t USING (continuation_id)"""
    num, same = finished.read(query).row(0)
    assert num == same > 0
