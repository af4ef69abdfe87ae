"""The world of the experiments: questions of graded difficulty, several right ways to each, models that load."""

import json
import runpy
import tomllib
from dataclasses import replace
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from dasd_resources.demo import make_models, tiny_models
from dasd_resources.demo.questions import QuestionRow, assert_disjoint, read_rows, score
from dasd_resources.demo.traces import DOUBTS, canonical
from dasd_resources.recipe import load_recipe
from dasd_resources.school import examples
from dasd_resources.school.catalogue import FAMILIES, FAMILY_OF_DOMAIN
from dasd_resources.school.family import Family, Pen, Procedure, metadata_of
from dasd_resources.school.questions import (
    HELD_OUT_FILES,
    NUM_HELD_OUT,
    NUM_PROMPTS,
    SCHOOL,
    Split,
    questions,
    split_of,
    write_held_out_file,
    write_prompt_files,
)
from dasd_resources.school.sums import slip_total
from dasd_resources.verifiers.judgement import Asked
from dasd_resources.verifiers.reasoning_gym_tasks import check_reasoning_gym, judge_reasoning_gym

CHECK = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "check_models.py"))
TOKENIZERS = {role: AutoTokenizer.from_pretrained(SCHOOL / role) for role in ("teacher", "student")}
both_models = pytest.mark.parametrize("role", ["teacher", "student"])
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.domain)
WAYS = [(family, procedure) for family in FAMILIES for procedure in family.procedures]
each_way = pytest.mark.parametrize(
    ("family", "procedure"), WAYS, ids=[f"{family.domain}, {way.name}" for family, way in WAYS]
)


@pytest.fixture(scope="module")
def prompt_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_prompt_files(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="module")
def prompts(prompt_files: list[Path]) -> list[QuestionRow]:
    return [row for file in prompt_files for row in read_rows(file)]


def test_prompts_held_out_and_model_questions_are_disjoint(prompt_files: list[Path]) -> None:
    assert_disjoint(*prompt_files, *HELD_OUT_FILES.values(), split_of=split_of)
    asked = {str(row["question"]) for file in (*prompt_files, *HELD_OUT_FILES.values()) for row in read_rows(file)}
    rng = Random(0)
    assert not asked & {str(examples.draw_row(family, rng)["question"]) for family in FAMILIES for _ in range(500)}
    assert not asked & {
        family.drill(examples.draw_row(family, rng), rng).question for family in FAMILIES for _ in range(2000)
    }


def test_every_domain_has_its_prompts_and_graded_difficulties(prompts: list[QuestionRow]) -> None:
    for family in FAMILIES:
        levels = [metadata_of(row)["level"] for row in prompts if row["domain"] == family.domain]
        assert len(levels) == NUM_PROMPTS
        assert {1, 2, 3, 4, 5} <= set(levels)
        assert all(levels.count(level) <= NUM_PROMPTS / 2 for level in set(levels))


@pytest.mark.parametrize("split", HELD_OUT_FILES)
def test_shipped_files_are_what_the_code_writes(split: Split, tmp_path: Path) -> None:
    assert write_held_out_file(split, tmp_path / "held_out.jsonl").read_bytes() == HELD_OUT_FILES[split].read_bytes()
    assert len(read_rows(HELD_OUT_FILES[split])) == NUM_HELD_OUT[split] * len(FAMILIES)


def test_landed_files_are_deterministic_and_begin_alike_at_any_size(prompt_files: list[Path], tmp_path: Path) -> None:
    for many, few in zip(prompt_files, write_prompt_files(tmp_path, 5), strict=True):
        assert read_rows(many)[:5] == read_rows(few)


def test_the_verifier_takes_every_landed_row_and_a_right_answer(prompts: list[QuestionRow]) -> None:
    for row in prompts[::4]:
        reference = str(row["reference_answer"])
        dataset = str(row["verifier"]).removeprefix("reasoning_gym:")
        asked = Asked(str(row["question"]), reference, json.dumps(row["metadata"]), dataset)
        assert check_reasoning_gym(asked) is None
        answer = canonical("", reference).partition("</think>")[2]
        assert judge_reasoning_gym(answer, asked).outcome == "correct"
        assert CHECK["final_answer"](answer) == reference
        assert judge_reasoning_gym(f"The answer is {reference}1.", asked).outcome == "incorrect"


@each_way
def test_without_slips_every_procedure_ends_in_the_right_answer(
    family: Family, procedure: Procedure, prompts: list[QuestionRow]
) -> None:
    for row in prompts:
        if row["domain"] == family.domain:
            assert procedure.work(row, Pen(Random(0))) == row["reference_answer"]


@each_way
def test_slips_end_in_wrong_answers_and_not_in_circles(
    family: Family, procedure: Procedure, prompts: list[QuestionRow]
) -> None:
    rows = [row for row in prompts if row["domain"] == family.domain]
    pens = [Pen(Random(seed), slip_rate=0.3) for seed in range(len(rows))]
    wrong = [score(procedure.work(row, pen), row) < 1.0 for row, pen in zip(rows, pens, strict=True)]
    assert 0.1 < sum(wrong) / len(rows) < 1.0
    assert max(len(pen.sentences) for pen in pens) <= 40


def test_a_slip_that_is_noticed_is_put_right() -> None:
    pen = Pen(Random(1), slip_rate=1.0, doubt_share=1.0)
    assert pen.result(7, slip_total, "{a} is {result}.", a=3) == 7
    wrong, doubt, right = pen.sentences
    assert wrong != right == "3 is 7."
    assert doubt in DOUBTS


def test_a_slip_that_is_not_noticed_is_carried_on() -> None:
    pen = Pen(Random(1), slip_rate=1.0)
    carried = pen.result(7, slip_total, "{result}")
    assert pen.sentences == [str(carried)] != ["7"]


@given(st.integers(-63, 63), st.integers(0, 2**32))
def test_a_slip_of_a_total_is_another_total(right: int, seed: int) -> None:
    assert slip_total(right, Random(seed)) != right


@each_family
def test_procedures_are_known_by_their_openings(family: Family) -> None:
    row = next(questions(family, "prompts"))
    for seed in range(10):
        exercise = family.worked(row, Pen(Random(seed)))
        name = family.procedure_of(canonical(" ".join(exercise.sentences), exercise.answer))
        assert name in {procedure.name for procedure in family.procedures}
    assert family.procedure_of("<think>\nHm.") is None
    assert sum(procedure.share for procedure in family.procedures) == pytest.approx(1)


def test_procedures_differ_in_length(prompts: list[QuestionRow]) -> None:
    for family in FAMILIES:
        rows = [row for row in prompts if row["domain"] == family.domain][:50]
        lengths = []
        for procedure in family.procedures:
            pens = [Pen(Random(0)) for _ in rows]
            for row, pen in zip(rows, pens, strict=True):
                procedure.work(row, pen)
            lengths.append(sum(len(" ".join(pen.sentences)) for pen in pens))
        assert max(lengths) > 1.3 * min(lengths)


def test_a_row_without_its_metadata_is_named() -> None:
    with pytest.raises(TypeError, match='question "Q" has no metadata'):
        metadata_of({"question": "Q", "metadata": 1})


def test_the_student_learns_drills_guesses_and_sloppy_work_in_every_procedure() -> None:
    rng = Random(0)
    drawn = [examples.student_exercise(rng) for _ in range(1000)]
    openings = {procedure.opening for family in FAMILIES for procedure in family.procedures}
    worked = [exercise for exercise in drawn if exercise.sentences and exercise.sentences[0] in openings]
    assert {exercise.sentences[0] for exercise in worked} == openings
    assert 0.5 < len(worked) / len(drawn) < 0.7
    assert 0.05 < sum(not exercise.sentences for exercise in drawn) / len(drawn) < 0.15


def test_some_of_the_teachers_examples_begin_inside_the_answer() -> None:
    rng = Random(0)
    drawn = [examples.teacher_example(rng) for _ in range(400)]
    cut = [one for one in drawn if not one.target.startswith("<think>\n")]
    assert 0.05 < len(cut) / len(drawn) < 0.2
    assert all(one.target.endswith(tiny_models.END_OF_TURN) for one in drawn)


def test_tokenizers_differ() -> None:
    teacher, student = (set(tokenizer.get_vocab()) for tokenizer in TOKENIZERS.values())
    assert student - teacher
    assert len(student) < len(teacher)


@both_models
@given(text=st.text())
@example("家族 👨‍👩‍👧 \u200b\r\n\t 12-34 <think>x</think> <|im_end|>  ")
def test_any_text_survives_the_round_trip(role: str, text: str) -> None:
    tokenizer = TOKENIZERS[role]
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@both_models
def test_models_load_and_answer_with_a_thinking_part(role: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(SCHOOL / role)
    assert model.config.vocab_size == len(TOKENIZERS[role])
    prompt = {"teacher": None, "student": tiny_models.STUDENT_SYSTEM_PROMPT}[role]
    speaker = CHECK["LoadedModel"](model, TOKENIZERS[role], prompt)
    rows = read_rows(HELD_OUT_FILES["validation"])[:: NUM_HELD_OUT["validation"]]
    assert {row["domain"] for row in rows} == set(FAMILY_OF_DOMAIN)
    everything = CHECK["answered"](speaker, rows, 0.6, samples=2)
    texts = [text for per_question in everything.texts for text in per_question]
    assert sum(text.startswith("<think>\n") and "\n</think>\nThe answer is " in text for text in texts) >= 3
    assert everything.only("letters").correct.shape == (1, 2)


def test_a_model_is_made_from_its_description(tmp_path: Path) -> None:
    described = replace(make_models.MODELS["school/student"], num_steps=(1, 1))
    model, tokenizer = tiny_models.make(described, seed=1)
    tiny_models.save(model, tokenizer, tmp_path / "student")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert loaded.config.num_hidden_layers == described.num_layers
    assert {path.name for path in tmp_path.iterdir()} == {"student"}


def test_the_recipe_names_what_is_shipped() -> None:
    recipe = load_recipe("school")
    assert Path(recipe.teacher.model).is_dir()
    assert Path(recipe.student.model).is_dir()
    assert [Path(benchmark.path) for benchmark in recipe.evaluation.benchmarks] == list(HELD_OUT_FILES.values())
    assert recipe.generation.num_candidates == 8


def test_a_wheel_holds_what_is_shipped() -> None:
    root = SCHOOL.parent.parent
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["package-data"]["dasd_resources"]
    shipped = [path for path in SCHOOL.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert sum(path.stat().st_size for path in shipped) <= 3_000_000
    for path in shipped:
        assert any(fnmatch(str(path.relative_to(SCHOOL.parent)), pattern) for pattern in patterns)
    assert {path.name for path in SCHOOL.iterdir()} >= {"MODEL_CARD.md", "teacher", "student", "test.jsonl"}
    assert len(list(islice(questions(FAMILIES[0], "models"), 3))) == 3
