"""Which answers are scored, by which models, in which tokens; each once, whatever is judged anew or interrupted."""

import polars as pl
import pytest
from conftest import Project

from dasd_assets.answer_logprobs import build, to_score
from dasd_assets.rules.answers import ANSWER_ID, answer_logprobs_id, answer_tokens, sampled_answers
from dasd_resources.chat import Aligned, Chat, Encoded, UnsupportedQuestion
from dasd_resources.inference.engine import Failure
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.lake import Row

TEXT = "<think>\n1 + 2 = 3.\n</think>\nThe answer is 3."


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    recipe = load_recipe("demo")
    return Engines(home=str(tmp_path_factory.mktemp("home"))).find(recipe.teacher, "teacher.model").chat


def answer(text: str, finish_reason: str) -> Row:
    return {"question": "1 + 2 =", "system_prompt": None, "text": text, "finish_reason": finish_reason}


def test_the_end_of_turn_is_scored_only_where_the_answer_ended_by_itself(chat: Chat) -> None:
    ended, cut = (answer_tokens(chat, answer(TEXT, reason), "a") for reason in ("stop", "length"))
    assert isinstance(ended, Encoded)
    assert isinstance(cut, Encoded)
    assert ended.token_ids == [*cut.token_ids, chat.end_of_turn_id]
    assert ended.offsets == [*cut.offsets, -1]
    for encoded in (ended, cut):
        assert len(encoded.token_ids) - encoded.num_prompt_tokens == len(encoded.offsets)
        assert chat.read_response(encoded.token_ids[encoded.num_prompt_tokens :]).text == TEXT


def test_an_answer_that_was_cut_while_it_thought_keeps_its_text(chat: Chat) -> None:
    encoded = answer_tokens(chat, answer("<think>\n1 + 2", "length"), "a")
    assert isinstance(encoded, Encoded)
    assert chat.read_response(encoded.token_ids[encoded.num_prompt_tokens :]).text == "<think>\n1 + 2"


class LossyChat:
    """A chat whose tokenizer reads every 3 as 8, and whose template refuses questions of system prompts."""

    def encode_response(self, question: str, text: str, system_prompt: str | None) -> Encoded:
        if system_prompt is not None:
            raise UnsupportedQuestion("no system role")
        return Encoded([1, *range(len(text)), 0], 1, [*range(len(text)), -1])

    def read_response(self, token_ids: list[int]) -> Aligned:
        return Aligned(TEXT.replace("3", "8"), [*range(len(TEXT)), -1], False)


def test_tokens_that_say_another_text_are_not_scored() -> None:
    found = answer_tokens(LossyChat(), answer(TEXT, "stop"), "a")
    assert isinstance(found, Failure)
    assert (found.request_id, found.kind) == ("a", "tokens_differ")
    assert "1 + 2 = 3." in found.reason
    assert "1 + 2 = 8." in found.reason


def test_a_question_that_the_model_cannot_be_asked_is_a_failure() -> None:
    found = answer_tokens(LossyChat(), {**answer(TEXT, "stop"), "system_prompt": "Be brief."}, "a")
    assert found == Failure("a", "no system role", "unsupported_question")


def test_teacher_and_student_score_each_text_once_and_a_checkpoint_its_own() -> None:
    rows = [("a1", "c1"), ("a1", "c2"), ("a2", "c2"), ("a2", "c2"), ("a3", "c1")]
    answers = pl.DataFrame(rows, schema=["answer_id", "checkpoint_id"], orient="row")
    for role in ("teacher", "student"):
        assert to_score(answers, role, "m")["answer_id"].to_list() == ["a1", "a2", "a3"]
    own = [answer_logprobs_id("a1", "c2"), answer_logprobs_id("a2", "c2")]
    assert to_score(answers, "t060", "c2")["answer_logprobs_id"].to_list() == own


def test_every_sampled_answer_is_scored_by_three_models(finished: Project) -> None:
    answers = sampled_answers(finished.warehouse, finished.recipe)
    assert answers["checkpoint"].unique(maintain_order=True).to_list() == ["student", "t060", "t100", "mixed"]
    assert answers.height == 4 * 5 * 2  # checkpoints, questions, answers to each
    roles = dict(finished.read("SELECT name, checkpoint_id FROM checkpoints").iter_rows())
    wanted = {(row["answer_id"], model) for row in answers.to_dicts()
              for model in (roles["teacher"], roles["student"], row["checkpoint_id"])}  # fmt: skip
    scored = finished.read("SELECT * FROM answer_logprobs")
    assert set(scored.select("answer_id", "checkpoint_id").iter_rows()) == wanted
    assert scored.height == len(wanted)
    lengths = scored.select(pl.col("token_ids", "logprobs", "offsets").list.len())
    assert lengths["token_ids"].to_list() == lengths["logprobs"].to_list() == lengths["offsets"].to_list()


def test_an_answer_that_is_judged_anew_is_not_scored_again(copy: Project) -> None:
    before = copy.count("answer_logprobs")
    with copy.warehouse.commit("test") as transaction:
        transaction.read("UPDATE evaluations SET verifier_version = 'older', evaluation_id = md5(evaluation_id)")
    assert copy.materialize("evaluations") == 1
    assert copy.materialize("answer_logprobs") == 1
    assert copy.count("answer_logprobs") == before
    assert copy.fake.scored == []


def test_what_a_crash_left_is_scored_and_nothing_twice(copy: Project) -> None:
    before = copy.read("SELECT answer_logprobs_id, logprobs FROM answer_logprobs ORDER BY ALL")
    with copy.warehouse.commit("test") as transaction:
        transaction.read("DELETE FROM answer_logprobs")
    copy.fake.crash_after = 11
    with pytest.raises(RuntimeError, match="crashed after 11 results"):
        copy.materialize("answer_logprobs")
    assert 0 < copy.count("answer_logprobs") <= 11
    copy.fake.crash_after = None
    copy.materialize("answer_logprobs")
    assert copy.read("SELECT answer_logprobs_id, logprobs FROM answer_logprobs ORDER BY ALL").equals(before)
    assert len(copy.fake.scored) == len(set(copy.fake.scored)) == before.height


def test_an_answer_id_names_question_end_and_text(finished: Project) -> None:
    columns = "question_id, finish_reason, response_text, instruction"
    query = f"SELECT count(DISTINCT {ANSWER_ID}) FROM (VALUES {{}}) evaluations({columns})"
    asked = "('q', 'stop', 'a'), ('q', 'stop', 'a'), ('q', 'length', 'a'), ('q', 'stop', 'b'), ('p', 'stop', 'a')"
    values = asked.replace(")", ", NULL)") + ", ('q', 'stop', 'a', 'Answer.')"
    assert finished.read(query.format(values)).item() == 5


def test_without_provenance_nothing_is_built(tiny: Recipe) -> None:
    assert build(tiny.model_copy(update={"provenance": None})) == []
