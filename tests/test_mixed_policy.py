import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from conftest import Project, refuse
from hypothesis import given
from hypothesis import strategies as st
from test_chat import harmony, harmony_ids
from test_rollouts import references
from tokenizers import Tokenizer

from dasd_assets.mixed_policy.continuation_verdicts import to_judge
from dasd_assets.mixed_policy.continuations import (
    continuation_row,
    current_continuations,
    prefix_end,
    request,
    teachers_prefix,
)
from dasd_assets.mixed_policy.mixture import continuation_example, continuations_to_teach, off_policy_draw
from dasd_assets.mixed_policy.rollouts import rollout_row
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.rules.filters.repeats import repetition
from dasd_assets.rules.ids import continuation_id, seed_of
from dasd_assets.rules.judging import judge_row
from dasd_assets.rules.rollouts import length_cap, wanted_rollouts
from dasd_assets.rules.sentences import edges, sentence_spans
from dasd_assets.rules.stored_tokens import NoTokens
from dasd_assets.rules.tokens import tokens_of
from dasd_resources.chat import Chat
from dasd_resources.inference.engine import Completion, Failure, FinishReason, GenerationRequest
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.lake import Params
from dasd_resources.storage.warehouse import Warehouse

RECIPE = load_recipe("demo")
STUDENT = Chat.load(Path(RECIPE.student.model), RECIPE.student)


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


def test_a_question_that_the_teachers_template_refuses_is_a_failure(teacher: PromptedModel, tmp_path: Path) -> None:
    """As of a response that was imported with its logprobs: its teacher has never been asked here."""
    folder = shutil.copytree(teacher.path, tmp_path / "model")
    refuse(folder, "messages[0].content == 'Hm.'", "no such system prompt")
    refuses = replace(teacher, chat=Chat.load(folder, teacher.spec))
    row = {**PREFIX, "prefix_text": "<think>\n4 + 3"}
    assert isinstance(request(row, refuses, RECIPE), GenerationRequest)
    refused = request({**row, "system_prompt": "Hm."}, refuses, RECIPE)
    assert isinstance(refused, Failure)
    assert (refused.request_id, refused.kind) == ("k", "unsupported_question")
    assert "(no such system prompt)" in refused.reason


def test_a_teacher_that_writes_no_thinking_goes_on_from_the_answer_alone() -> None:
    for kept in ("<think>\n\n</think>\n4 + 3", "4 + 3"):
        assert teachers_prefix(kept, "none") == "4 + 3"
    assert teachers_prefix("<think>\n", "none") == ""
    for kept in ("<think>\nWe start\n</think>\n4", "<think>\nWe"):
        assert teachers_prefix(kept, "none") == kept  # it thinks, so the filter drops it
    assert teachers_prefix("<think>\n\n</think>\n4", "optional") == "<think>\n\n</think>\n4"


@pytest.mark.parametrize("loss_on_prefix", [True, False])
def test_loss_on_the_whole_continuation_or_on_the_teachers_part(loss_on_prefix: bool) -> None:
    text = "<think>\n4 + 4 = 8.\n</think>\nThe answer is 8."
    row = {"continuation_id": "c", "question": "q", "system_prompt": None, "text": text, "prefix_text": text[:16]}
    example = continuation_example({**row, **tokens_of(STUDENT, row)}, loss_on_prefix)
    encoded = STUDENT.encode_response("q", text)
    response, labels = (ids[encoded.num_prompt_tokens :] for ids in (encoded.token_ids, example["labels"]))
    with_loss = [offset < 0 or offset >= (0 if loss_on_prefix else 16) for offset in encoded.offsets]
    assert labels == [token if wanted else -100 for token, wanted in zip(response, with_loss, strict=True)]
    assert labels[-1] == STUDENT.end_of_turn_id
    assert (labels[0] == -100) is not loss_on_prefix
    assert (example["response_id"], example["continuation_id"]) == (None, "c")


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
        ("4 + 3", " = 7. The answer is 7.", "4 + 3 = 7. The answer is 7."),
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
    sums, counts = edges(made["text"], spans).sums(made["logprobs"], made["offsets"])
    apart = [lp for lp, offset in zip(logprobs, made["offsets"], strict=True) if offset < 0]
    assert len(apart) == len(harmony_ids(header)) + 1  # and the end of turn
    assert counts[0] == 0 and counts[-1] == 1
    assert sums.sum() + sum(apart) == pytest.approx(sum(logprobs), abs=1e-9)


def test_a_continuation_is_judged_on_the_students_tokens_of_its_whole_text(finished: Project) -> None:
    student = finished.engines.find(finished.recipe.student, "student.model")
    ids = current_continuations(finished.warehouse, finished.engines, finished.recipe)["continuation_id"].to_list()
    rows = [*to_judge(finished.warehouse, student.fingerprint, ids)]
    assert [row["continuation_id"] for row in rows] == ids != []
    for row in rows:
        encoded = student.chat.encode_response(row["question"], row["text"], row["system_prompt"])
        assert row["token_ids"] == encoded.token_ids[encoded.num_prompt_tokens :]
        assert row["num_student_tokens"] == len(encoded.token_ids)
        assert set(judge_row(row, finished.recipe.filters)) == set(FILTERS)


def test_lengths_are_stored_with_rows_and_computed_for_older_ones(copy: Project) -> None:
    stored = current_continuations(copy.warehouse, copy.engines, copy.recipe)
    with copy.warehouse.commit("test") as transaction:
        for table in ("student_rollouts", "teacher_continuations"):
            lengths = "count(num_tokens), count(*) FILTER (num_tokens = len(token_ids)), count(*)"
            assert len({*transaction.read(f"SELECT {lengths} FROM {table}").row(0)} - {0}) == 1
            transaction.read(f"UPDATE {table} SET num_tokens = NULL")
    assert current_continuations(copy.warehouse, copy.engines, copy.recipe).equals(stored)


def test_wanted_continuations_are_found_in_one_pass(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    queries: list[str] = []

    class Noting(Warehouse):
        def read(self, query: str, params: Params | None = None, at: int | None = None) -> pl.DataFrame:
            queries.append(query)
            return super().read(query, params, at)

    warehouse, num_queries = Noting(home=str(finished.home)), set()
    every = finished.read("SELECT continuation_id FROM teacher_continuations ORDER BY ALL")["continuation_id"]
    for at_once in (1, 1024):
        monkeypatch.setattr("dasd_assets.rules.rollouts.ROLLOUTS_AT_ONCE", at_once)
        found = current_continuations(warehouse, finished.engines, finished.recipe)["continuation_id"]
        assert found.to_list() == every.to_list() != []
        num_queries.add(len(queries))
        queries.clear()
    assert len(num_queries) == 1


def test_continuations_to_teach_are_read_once_in_their_order(finished: Project, streamed: list[str]) -> None:
    student = finished.engines.fingerprint(finished.recipe.student, "student.model")
    every = finished.read("""SELECT continuation_id, text, prefix_text, num_prompt_tokens, t.token_ids, t.offsets
        FROM teacher_continuations JOIN continuation_tokens t USING (continuation_id) ORDER BY ALL""")
    ids = every["continuation_id"].to_list()[::-1]
    rows = list(continuations_to_teach(finished.warehouse, student, ids, num_read=1))
    assert rows == every.reverse().to_dicts()
    assert len(rows) > 1
    [query] = streamed
    assert [query.count(f"FROM {table} ") for table in ("teacher_continuations", "continuation_tokens")] == [1, 1]
    assert list(continuations_to_teach(finished.warehouse, student, [])) == []
    with pytest.raises(NoTokens, match="materialize continuation_tokens first"):
        list(continuations_to_teach(finished.warehouse, "another student", ids))


def test_a_cut_that_is_stored_is_not_drawn_again(copy: Project) -> None:
    query = "SELECT * EXCLUDE (run_id) FROM prefix_cuts ORDER BY rollout_id"
    before = copy.read(query)
    assert before.height > 1
    with copy.warehouse.commit("test") as transaction:
        lost = {"id": before["rollout_id"][0]}
        transaction.read("DELETE FROM prefix_cuts WHERE rollout_id = $id", lost)
        unreadable = "UPDATE student_rollouts SET offsets = [NULL] WHERE rollout_id <> $id"
        transaction.read(unreadable, lost)
    copy.materialize("prefix_cuts")
    assert copy.read(query).equals(before)


def test_repetition_is_found_in_the_whole_text() -> None:
    loop = "".join(f"Now {'+'.join(str(i % 7) for i in range(j % 3, 30))}. " for j in range(12))
    text = f"<think>\n{loop}\n</think>\nThe answer is 7."
    made = tokens_of(STUDENT, {"question": "q", "system_prompt": None, "text": text})
    verdict = repetition(text, made["token_ids"][made["num_prompt_tokens"] :], RECIPE.filters.repetition)
    assert not verdict.passed
    assert verdict.kind == "repeated_phrases"


def test_made_again_unchanged_the_off_policy_rows_stay_those_of_the_run_that_chose_them(copy: Project) -> None:
    query = "SELECT * FROM selected_responses WHERE dataset = 'mixed' ORDER BY response_id"
    before = copy.read(query)
    copy.materialize("mixed_policy_dataset")
    assert before.height > 0
    assert copy.read(query).rows() == before.rows()  # run_id, too
