"""Which responses a recipe wants, and the row a completion becomes."""

import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import refuse
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from dasd_assets.generations import WantedResponse, requests_for, response_row, wanted_responses
from dasd_assets.rules.ids import seed_of
from dasd_resources.chat import Chat
from dasd_resources.inference.engine import Completion, GenerationRequest
from dasd_resources.inference.engines import Engines, PromptedModel, in_parts
from dasd_resources.recipe import Recipe, load_recipe

RECIPE = load_recipe("demo")
TEXT = "<think>\nWe start with 4. 4 + 3 = 7.\n</think>\nThe answer is 7."


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> PromptedModel:
    return Engines(home=str(tmp_path_factory.mktemp("home"))).find(RECIPE.teacher, "teacher.model")


def sampling(**values: object) -> Recipe:
    return RECIPE.model_copy(update={"generation": RECIPE.generation.model_copy(update=values)})


def ids(
    teacher: PromptedModel, recipe: Recipe = RECIPE, temperature: float = 0.6, prompts: tuple[str, ...] = ("p1", "p2")
) -> set[str]:
    return {
        wanted.response_id for wanted in wanted_responses(dict.fromkeys(prompts, "math"), recipe, temperature, teacher)
    }


def test_n_candidates_of_every_prompt(teacher: PromptedModel) -> None:
    wanted = wanted_responses({"p1": "math", "p2": "math"}, RECIPE, 0.6, teacher)
    assert [(w.prompt_id, w.sample_index) for w in wanted] == [
        ("p1", 0), ("p1", 1), ("p1", 2), ("p2", 0), ("p2", 1), ("p2", 2)
    ]  # fmt: skip
    assert len({w.response_id for w in wanted}) == len({w.seed for w in wanted}) == 6
    assert {len(w.response_id) for w in wanted} == {32}


def test_ids_do_not_depend_on_order_company_or_n(teacher: PromptedModel) -> None:
    assert ids(teacher) == ids(teacher, prompts=("p2", "p1"))
    assert ids(teacher) == ids(teacher, prompts=("p1",)) | ids(teacher, prompts=("p2",))
    assert ids(teacher) < ids(teacher, sampling(num_candidates=5))
    assert len(ids(teacher, sampling(num_candidates=5))) == 10


def test_an_instruction_is_asked_below_the_question_and_part_of_the_id(teacher: PromptedModel) -> None:
    box = sampling(instructions={"math": "Put the final answer in \\boxed{}."})
    assert ids(teacher, box) & ids(teacher) == set()
    assert ids(teacher, sampling(instructions={"code": "Use Python."})) == ids(teacher)  # of another domain
    wanted = wanted_responses({"p1": "math"}, box, 0.6, teacher)
    questions = {"p1": {"question": "4 + 3?", "system_prompt": None}}
    request = next(requests_for(wanted, questions, box, 0.6, teacher))
    assert isinstance(request, GenerationRequest)
    asked = teacher.chat.prompt_ids("4 + 3?\n\nPut the final answer in \\boxed{}.", None)
    assert list(request.prompt_token_ids) == list(asked)


def test_ids_do_not_depend_on_engine_or_dtype(teacher: PromptedModel) -> None:
    spec = teacher.spec.model_copy(update={"engine": "vllm", "dtype": "bfloat16", "engine_options": {"seed": 1}})
    assert ids(teacher) == ids(replace(teacher, spec=spec))


def test_ids_differ_with_everything_that_decides_the_text(teacher: PromptedModel) -> None:
    terse = replace(teacher, spec=teacher.spec.model_copy(update={"system_prompt": "Be terse."}))
    sets = [
        ids(teacher),
        ids(teacher, temperature=1.0),
        ids(teacher, sampling(top_p=0.9)),
        ids(teacher, sampling(max_tokens=255)),
        ids(replace(teacher, fingerprint="0" * 16)),
        ids(terse),
        ids(teacher, prompts=("p3", "p4")),
    ]
    assert len(set().union(*sets)) == sum(len(part) for part in sets)


@given(st.text(max_size=40))
def test_a_seed_is_62_bits_of_a_hash_of_the_row_alone(row_id: str) -> None:
    assert 0 <= seed_of(row_id) < 2**62


def test_a_seed_by_hand_and_no_two_alike() -> None:
    assert seed_of("r1") == int(sha256(b'["seed","r1"]').hexdigest()[:16], 16) // 4
    seeds = {seed_of(f"r{number}") for number in range(5000)}
    assert len(seeds) == 5000
    assert max(seeds) > 2**61


def completion(teacher: PromptedModel) -> Completion:
    """The teacher's own tokens of TEXT, with a different logprob each."""
    encoded = teacher.chat.encode_response("4 + 3?", TEXT)
    token_ids = encoded.token_ids[encoded.num_prompt_tokens :]
    return Completion("r1", token_ids, [-0.25 * index for index in range(len(token_ids))], "stop")


def test_a_row_holds_one_logprob_and_one_offset_per_sampled_token(teacher: PromptedModel) -> None:
    sampled = completion(teacher)
    row = response_row(sampled, WantedResponse("r1", "p1", 2), "b1", RECIPE, 0.6, teacher)
    assert (row["text"], row["token_ids"], row["logprobs"]) == (TEXT, sampled.token_ids, sampled.logprobs)
    tokenizer = Tokenizer.from_file(str(teacher.path / "tokenizer.json"))
    pieces = [tokenizer.decode([token], skip_special_tokens=False) for token in sampled.token_ids[:-1]]
    assert "".join(pieces) == TEXT
    starts = [sum(map(len, pieces[:index])) for index in range(len(pieces))]
    assert row["offsets"] == [*starts, -1]  # the end of turn is not in the text


def test_a_row_says_how_it_was_sampled(teacher: PromptedModel) -> None:
    wanted = WantedResponse("r1", "p1", 2)
    row = response_row(completion(teacher), wanted, "b1", RECIPE, 0.6, teacher)
    expected = {
        "response_id": "r1",
        "prompt_id": "p1",
        "batch": "b1",
        "temperature": 0.6,
        "top_p": 1.0,
        "max_tokens": 256,
        "sample_index": 2,
        "seed": seed_of("r1"),
        "teacher_fingerprint": teacher.fingerprint,
        "engine": "transformers",
        "dtype": "float32",
        "tool_call": False,
        "finish_reason": "stop",
    }
    assert {key: row[key] for key in expected} == expected


def test_a_truncated_response_keeps_every_token(teacher: PromptedModel) -> None:
    whole = completion(teacher)
    cut = Completion("r1", whole.token_ids[:6], whole.logprobs[:6], "length")
    row = response_row(cut, WantedResponse("r1", "p1", 0), "b1", RECIPE, 1.0, teacher)
    assert len(row["token_ids"]) == len(row["logprobs"]) == len(row["offsets"]) == 6
    assert TEXT.startswith(row["text"])
    assert row["finish_reason"] == "length"


def test_candidates_share_their_prompt_and_a_question_the_template_refuses_fails_alone(
    teacher: PromptedModel, tmp_path: Path
) -> None:
    folder = shutil.copytree(teacher.path, tmp_path / "model")
    refuse(folder, "messages[0].role == 'system'", "no system role")
    chat = Chat.load(folder, teacher.spec.model_copy(update={"system_prompt": None}))
    asked = replace(teacher, chat=chat)
    questions = {
        "p1": {"question": "4 + 3?", "system_prompt": None},
        "p2": {"question": "4 + 3?", "system_prompt": "Be kind."},
    }
    wanted = wanted_responses(dict.fromkeys(questions, "math"), RECIPE, 0.6, asked)
    [(requests, refused)] = in_parts(requests_for(wanted, questions, RECIPE, 0.6, asked), at_once=100)
    assert [r.request_id for r in requests] == [w.response_id for w in wanted if w.prompt_id == "p1"]
    assert len({id(r.prompt_token_ids) for r in requests}) == 1
    assert [r.seed for r in requests] == [w.seed for w in wanted if w.prompt_id == "p1"]
    assert [f.request_id for f in refused] == [w.response_id for w in wanted if w.prompt_id == "p2"]
    assert {f.kind for f in refused} == {"unsupported_question"}
    assert refused[0].reason == (
        "the model's chat template refuses the question with a system prompt of its own: land it without one "
        "(no system role)"
    )
