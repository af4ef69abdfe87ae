"""The embedded default: questions that never leak, tokenizers that lose nothing, models that load."""

import runpy
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from dasd_resources.demo import examples, tiny_models
from dasd_resources.demo import questions as demo_questions
from dasd_resources.demo.questions import TEST_FILE, read_rows, score, split_of, write_prompt_files, write_test_file
from dasd_resources.demo.traces import QUESTION, SumStep, canonical, slip, steps_of, worked_body

CHECK = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "check_models.py"))
DEMO = TEST_FILE.parent
TOKENIZERS = {name: AutoTokenizer.from_pretrained(DEMO / name) for name in ("teacher", "student")}
both_models = pytest.mark.parametrize("name", ["teacher", "student"])


@pytest.fixture(scope="module")
def prompt_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_prompt_files(tmp_path_factory.mktemp("prompts"))


def test_prompts_test_and_model_questions_are_disjoint(prompt_files: list[Path]) -> None:
    prompts = {str(row["question"]) for file in prompt_files for row in read_rows(file)}
    test = {str(row["question"]) for row in read_rows(TEST_FILE)}
    rng = Random(0)
    draws = [examples.draw_expression(rng) for _ in range(5000)]
    trained = {QUESTION.format(expression=expression) for expression in draws}
    assert len(prompts) == demo_questions.NUM_PROMPTS
    assert len(test) == demo_questions.NUM_TEST
    assert not prompts & test
    assert not (prompts | test) & trained
    demo_questions.assert_disjoint(TEST_FILE, *prompt_files)


def test_assert_disjoint_names_a_repeated_question() -> None:
    with pytest.raises(AssertionError, match="more than once"):
        demo_questions.assert_disjoint(TEST_FILE, TEST_FILE)


def test_assert_disjoint_names_a_question_reserved_for_the_models(tmp_path: Path) -> None:
    demo_questions.write_rows(tmp_path / "leak.jsonl", [next(demo_questions.questions("models"))])
    with pytest.raises(AssertionError, match="reserved for training"):
        demo_questions.assert_disjoint(tmp_path / "leak.jsonl")


def test_question_files_are_deterministic_and_left_untouched(prompt_files: list[Path], tmp_path: Path) -> None:
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in prompt_files]
    write_prompt_files(prompt_files[0].parent)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in prompt_files] == before
    assert [path.read_bytes() for path in write_prompt_files(tmp_path)] == [content for content, _ in before]
    assert not list(tmp_path.glob("*.tmp"))


def test_shipped_test_file_is_what_the_code_writes(tmp_path: Path) -> None:
    assert write_test_file(tmp_path / "test.jsonl").read_bytes() == TEST_FILE.read_bytes()


def test_more_prompts_keep_the_first_ones() -> None:
    few, many = (list(islice(demo_questions.questions("prompts"), size)) for size in (5, 50))
    assert few == many[:5]
    assert {split_of(str(row["question"])) for row in many} == {"prompts"}


def test_score_is_reasoning_gyms_own() -> None:
    row = {"question": "1 - 5 - 2 =", "reference_answer": "-6", "metadata": {}, "verifier": demo_questions.VERIFIER}
    assert score("-6", row) == 1.0
    assert score("6", row) == 0.0
    assert 0.0 < score("It is -6", row) < 1.0


def test_steps_run_left_to_right() -> None:
    assert steps_of("4 - 7 + 9") == [SumStep(4, "-", 7, -3), SumStep(-3, "+", 9, 6)]


def test_wording_agrees_with_chain_sum() -> None:
    row = read_rows(TEST_FILE)[0]
    assert isinstance(row["metadata"], dict)
    assert QUESTION.format(expression=row["metadata"]["expression"]) == row["question"]


@given(st.integers(0, 2**32))
def test_a_slip_is_always_wrong(seed: int) -> None:
    rng = Random(seed)
    step = SumStep(a := rng.randint(-40, 50), "+", b := rng.randint(0, 9), a + b)
    assert slip(step, rng).c != step.c


@given(st.integers(0, 2**32))
def test_a_trace_ends_in_the_right_answer(seed: int) -> None:
    sentences, slipped, separator = worked_body("4 - 7 + 9", Random(seed), slip_at=1)
    text = canonical(separator.join(sentences), 6)
    assert CHECK["final_answer"](text) == "6"
    assert " 6." not in sentences[slipped - 1]
    assert any("9" in sentence and "6." in sentence for sentence in sentences[slipped:])


def test_tokenizers_differ() -> None:
    teacher, student = (tokenizer.get_vocab() for tokenizer in TOKENIZERS.values())
    assert set(student) < set(teacher) or set(student) - set(teacher)
    assert len(student) < len(teacher)


@both_models
@given(text=st.text())
@example("家族 👨‍👩‍👧 \u200b\r\n\t 12-34 <think>x</think> <|im_end|>  ")
def test_any_text_survives_the_round_trip(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@both_models
def test_digits_and_think_tags_stand_alone(name: str) -> None:
    tokens = TOKENIZERS[name].tokenize("<think>\n12 + 3 = 15.\n</think>\n")
    assert [token for token in tokens if "think" in token] == ["<think>", "</think>"]
    assert all(sum(character.isdigit() for character in token) <= 1 for token in tokens)


@both_models
def test_skipping_special_tokens_keeps_the_thinking(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer("<think>\n1.\n</think>\n1<|im_end|>").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>\n1.\n</think>\n1"


@both_models
def test_chat_template_keeps_the_thinking_intact(name: str) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "<think>\nB\n</think>\nA"},
    ]
    rendered = TOKENIZERS[name].apply_chat_template(messages, tokenize=False)
    assert rendered == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nB\n</think>\nA<|im_end|>\n"
    )


@both_models
def test_chat_template_renders_the_prompt_the_models_were_trained_on(name: str) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    rendered = TOKENIZERS[name].apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == tiny_models.render("Q", "S")
    rendered = TOKENIZERS[name].apply_chat_template(messages[1:], tokenize=False, add_generation_prompt=True)
    assert rendered == tiny_models.render("Q")


@both_models
def test_models_load_and_answer_with_a_thinking_part(name: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(DEMO / name)
    assert model.config.vocab_size == len(TOKENIZERS[name])
    prompt = {"teacher": None, "student": tiny_models.STUDENT_SYSTEM_PROMPT}[name]
    speaker = CHECK["LoadedModel"](model, TOKENIZERS[name], prompt)
    texts = speaker.tokenizer.batch_decode(CHECK["sample"](speaker, [speaker.prompt(read_rows(TEST_FILE)[0])] * 8, 0.6))
    assert sum(text.startswith("<think>\n") and "\n</think>\nThe answer is " in text for text in texts) >= 6


def test_everything_shipped_is_at_most_two_megabytes() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= 2_000_000


def test_label_mask_covers_the_context_only() -> None:
    tokenizer: PreTrainedTokenizerFast = TOKENIZERS["teacher"]
    [(ids, labels)] = tiny_models.encode([tiny_models.Example("1 +", " 2")], tokenizer)
    assert tokenizer.decode(ids) == "1 + 2"
    assert labels == [-100, -100, *tokenizer(" 2").input_ids]


def test_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    rates = [tiny_models.learning_rate(step, 100, 1.0, 0.1) for step in (0, 4, 5, 100)]
    assert rates == pytest.approx([0.2, 1.0, 1.0, 0.1])
