"""Each layout reads a small file as its set is published, and says which line of a wrong one is at fault."""

import json
import re
from itertools import permutations
from pathlib import Path

import polars as pl
import pytest

from dasd_resources.benchmarks.choices import with_shuffled_choices
from dasd_resources.benchmarks.layouts import LAYOUTS
from dasd_resources.benchmarks.questions import benchmark_prompts
from dasd_resources.landing.prompt_files import InvalidRow, Prompt
from dasd_resources.recipe import Benchmark, RecipeError, Task
from dasd_resources.verifiers.catalogue import verify
from dasd_resources.verifiers.code_tests import OutputTest, question_tests
from dasd_resources.verifiers.judgement import Asked
from dasd_resources.verifiers.packed_tests import PACKED_FROM, PREFIX, TooManyTests, packed, unpacked

PAGE = Path(__file__).parents[1] / "docs" / "held_out_benchmarks.md"
Rows = list[dict[str, object]]

AIME24: Rows = [
    {"id": 60, "problem": "What is 2 + 3?", "solution": "It is 5.", "answer": "5", "url": "u", "year": "2024"}
]
AIME24_PASCAL: Rows = [{"ID": "2024-I-1", "Problem": "What is 2 + 3?", "Solution": "It is 5.", "Answer": 5}]
AIME24_BOXED: Rows = [{"id": 60, "problem": "What is 2 + 3?", "solution": r"\boxed{5}", "url": "u"}]
AIME25: Rows = [{"id": "0", "problem": "What is 2 + 3?", "answer": "005"}]
AIME25_OPENCOMPASS: Rows = [{"question": "What is 2 + 3?", "answer": "5"}]
MATH500: Rows = [
    {
        "problem": "Simplify $2/4$.",
        "solution": r"It is $\boxed{\frac{1}{2}}$.",
        "answer": r"\frac{1}{2}",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "test/algebra/1.json",
    }
]
GPQA: Rows = [
    {
        "Record ID": "rec1",
        "Question": "Which is a metal?\n",
        "Correct Answer": "iron\n",
        "Incorrect Answer 1": "helium",
        "Incorrect Answer 2": "chlorine",
        "Incorrect Answer 3": "sulphur",
        "Explanation": "Iron is.",
        "Subdomain": "Chemistry (general)",
        "High-level domain": "Chemistry",
        "Canary String": "…",
    }
]
TESTS = json.dumps([{"input": "2 3", "output": "5", "testtype": "stdin"}])
CALLS = json.dumps([{"input": "2\n3", "output": "5", "testtype": "functional"}])
LCB: Rows = [
    {
        "question_title": "Sum",
        "question_content": "Add two numbers.",
        "platform": "atcoder",
        "question_id": "abc1_a",
        "contest_id": "abc1",
        "contest_date": "2025-01-04T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": TESTS,
        "private_test_cases": TESTS,
        "metadata": "{}",
    },
    {
        "question_title": "Sum",
        "question_content": "Add two numbers by a function.",
        "platform": "leetcode",
        "question_id": "1",
        "contest_id": "w1",
        "contest_date": "2025-01-05T00:00:00",
        "starter_code": "class Solution:\n    def add(self, a: int, b: int) -> int:\n        ",
        "difficulty": "easy",
        "public_test_cases": CALLS,
        "private_test_cases": CALLS,
        "metadata": json.dumps({"func_name": "add"}),
    },
]
FILES = [
    ("aime24", AIME24),
    ("aime24", AIME24_PASCAL),
    ("aime24", AIME24_BOXED),
    ("aime25", AIME25),
    ("aime25", AIME25_OPENCOMPASS),
    ("math500", MATH500),
    ("gpqa_diamond", GPQA),
    ("livecodebench_v5", LCB),
    ("livecodebench_v6", LCB),
]


def written(folder: Path, rows: Rows, suffix: str = ".jsonl") -> str:
    """A file of these rows."""
    path = folder / f"benchmark{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        pl.DataFrame(rows).write_parquet(path)
    return str(path)


def read(folder: Path, layout: str, rows: Rows, suffix: str = ".jsonl", **values: object) -> list[Prompt]:
    """The questions of a file in that layout."""
    path = written(folder, rows, suffix)
    return list(benchmark_prompts(Benchmark.model_validate({"name": "b", "layout": layout, "path": path, **values})))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(("layout", "rows"), FILES)
def test_every_layout_reads_its_file(tmp_path: Path, layout: str, rows: Rows, suffix: str) -> None:
    found = read(tmp_path, layout, rows, suffix)
    assert len(found) == len(rows)
    assert {prompt.verifier for prompt in found} == {LAYOUTS[layout].verifier}
    benchmark = Benchmark.model_validate({"name": "b", "layout": layout, "path": "b.jsonl"})
    assert (benchmark.max_tokens, benchmark.instruction) == (LAYOUTS[layout].max_tokens, LAYOUTS[layout].instruction)


def test_every_layout_has_a_file_here_and_a_row_in_the_docs() -> None:
    assert {layout for layout, _ in FILES} == set(LAYOUTS)
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {row[0].strip("|` "): (row[2].strip("` "), int(row[3].replace(",", ""))) for row in rows}
    assert told == {name: (layout.verifier, layout.max_tokens) for name, layout in LAYOUTS.items()}


@pytest.mark.parametrize(("layout", "rows"), FILES[:5])
def test_answers_of_aime_are_read_wherever_a_copy_has_them(tmp_path: Path, layout: str, rows: Rows) -> None:
    [prompt] = read(tmp_path, layout, rows)
    assert prompt.question == "What is 2 + 3?"
    for answer, outcome in ((r"So it is $\boxed{5}$.", "correct"), (r"\boxed{6}", "incorrect")):
        asked = Asked(prompt.question, prompt.reference_answer or "", prompt.metadata)
        assert verify("math", answer, asked).outcome == outcome


def test_long_tests_are_stored_compressed_and_judge_as_before(tmp_path: Path) -> None:
    many = [{"input": f"{n} 1", "output": str(n + 1), "testtype": "stdin"} for n in range(4000)]
    [prompt] = read(tmp_path, "livecodebench_v6", [{**LCB[0], "private_test_cases": json.dumps(many)}])
    assert len(prompt.metadata) < len(json.dumps(many)) / 4 and TESTS in json.loads(prompt.metadata).values()
    found = question_tests(Asked(prompt.question, "", prompt.metadata))
    assert found[-4000:] == [OutputTest(test["input"], test["output"]) for test in many]


def test_packed_tests_that_are_damaged_or_a_bomb_are_refused() -> None:
    text = packed("[1]" * PACKED_FROM)
    assert unpacked(text) == "[1]" * PACKED_FROM and packed("[]") == unpacked("[]") == "[]"
    for faulty in (text[:-8], text.replace("base64:", "base64:A"), PREFIX):
        with pytest.raises(ValueError, match="packed tests"):
            unpacked(faulty)
    with pytest.raises(ValueError, match="unpack to more than"):
        unpacked(text, most=PACKED_FROM)
    with pytest.raises(TooManyTests, match="at most 65,536 are accepted"):
        packed("[1]" * PACKED_FROM, most=PACKED_FROM)


def without(rows: Rows, key: str) -> Rows:
    return [*rows, {**{name: value for name, value in rows[-1].items() if name != key}, **DIFFERENT}]


DIFFERENT = {"problem": "Another?", "Question": "Another?", "question_content": "Another?"}
PICKLED = "eJxrYJlqwQABPSbR1UqZeQWlJUpWCkqGSjoKSvmlJcjcktTikpLKglSQQHFJSmaeUm3sFD0AOe4SqQ=="


@pytest.mark.parametrize(
    ("layout", "rows", "told"),
    [
        ("aime24", without(AIME24, "answer"), "line 2: verifier math needs a reference_answer"),
        ("aime25", [*AIME25, {"problem": "Another?", "answer": ""}], "line 2: verifier math needs a reference_answer"),
        ("math500", without(MATH500, "answer"), "line 2: verifier math needs a reference_answer"),
        ("gpqa_diamond", without(GPQA, "Correct Answer"), "line 2: Correct Answer must be a text, found None"),
        (
            "gpqa_diamond",
            without(GPQA, "Incorrect Answer 2"),
            "line 2: Incorrect Answer 2 must be a text, found None",
        ),
        (
            "gpqa_diamond",
            [{**GPQA[0], "Incorrect Answer 3": "helium "}],
            "line 1: two of the choices are the same, 'helium'",
        ),
        ("livecodebench_v6", [{**LCB[0], "private_test_cases": PICKLED}], "line 1: .* no pickle is ever loaded"),
        (
            "livecodebench_v5",
            [{**LCB[0], "public_test_cases": "[]", "private_test_cases": "[]"}],
            "line 1: there are no",
        ),
        ("livecodebench_v6", [{**LCB[1], "metadata": "{}", "starter_code": "x"}], "line 1: a test calls a function"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, layout: str, rows: Rows, told: str) -> None:
    with pytest.raises(RecipeError, match=f"evaluation.benchmarks b: path .*{told}"):
        read(tmp_path, layout, rows)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_file_of_another_set_is_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(RecipeError, match="line 1: "):
        read(tmp_path, layout, [{"text": "What is 2 + 3?", "label": "5"}])


def test_choices_are_shuffled_by_seed_and_question_alone(tmp_path: Path) -> None:
    other = {**GPQA[0], "Question": "Which is a gas?", "Correct Answer": "neon"}
    [first, second] = read(tmp_path, "gpqa_diamond", [*GPQA, other])
    assert read(tmp_path, "gpqa_diamond", [other, *GPQA])[1].question == first.question
    metadata = json.loads(first.metadata)
    assert sorted(metadata["choices"]) == ["chlorine", "helium", "iron", "sulphur"]
    assert (metadata["shuffle_seed"], metadata["record_id"]) == (0, "rec1")
    assert metadata["choices"]["ABCD".index(first.reference_answer or "")] == "iron"
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", metadata["choices"], strict=True))
    assert first.question == f"Which is a metal?\n\n{lines}"
    assert read(tmp_path, "gpqa_diamond", GPQA, ".csv")[0].question == first.question
    # Stored answers are to these very texts: a test on every machine that the order is the same.
    assert metadata["choices"] == ORDER
    assert json.loads(second.metadata)["choices"] != ORDER
    seeds = {read(tmp_path, "gpqa_diamond", GPQA, shuffle_seed=seed)[0].reference_answer for seed in range(12)}
    assert seeds == set("ABCD")


ORDER = ["sulphur", "chlorine", "iron", "helium"]


def test_every_order_of_choices_is_as_likely() -> None:
    names, orders = [f"c{index}" for index in range(4)], list(permutations("abcd"))
    counts = dict.fromkeys(orders, 0)
    for seed in range(2400):
        row = {"q": "?", **dict(zip(names, "abcd", strict=True))}
        counts[tuple(with_shuffled_choices(row, "q", names, seed)["choices"])] += 1  # type: ignore[index, arg-type]
    # 100 expected of each of 24; five standard deviations of a count are 49.
    assert all(51 < count < 149 for count in counts.values())


def test_a_choice_that_is_a_letter_is_a_text_as_any_other() -> None:
    row = {"q": "Which base pairs with T?", "right": "A", "w1": "C", "w2": "G", "w3": "B"}
    shuffled = with_shuffled_choices(row, "q", ["right", "w1", "w2", "w3"], 0)
    assert shuffled["choices"]["ABCD".index(str(shuffled["letter"]))] == "A"  # type: ignore[index]
    with pytest.raises(InvalidRow, match="w1 must be a text, found True"):
        with_shuffled_choices({**row, "w1": True}, "q", ["right", "w1", "w2", "w3"], 0)


def test_questions_of_livecodebench_say_how_a_program_is_run(tmp_path: Path) -> None:
    [program, function] = read(tmp_path, "livecodebench_v6", LCB)
    assert program.question.endswith("The program reads standard input and prints to standard output.")
    assert "```python\nclass Solution:\n    def add" in function.question
    assert json.loads(function.metadata)["func_name"] == "add"


@pytest.mark.sandbox
@pytest.mark.parametrize("operator", ["+", "-"])
def test_livecodebench_is_judged_in_the_sandbox(tmp_path: Path, operator: str) -> None:
    [program, function] = read(tmp_path, "livecodebench_v6", LCB)
    answers = {
        program: f"```python\na, b = map(int, input().split())\nprint(a {operator} b)\n```",
        function: f"```python\nclass Solution:\n    def add(self, a, b):\n        return a {operator} b\n```",
    }
    for prompt, answer in answers.items():
        outcome = verify("code", answer, Asked(prompt.question, "", prompt.metadata)).outcome
        assert outcome == ("correct" if operator == "+" else "incorrect")


def generated(**values: object) -> list[Prompt]:
    task = {"dataset": "chain_sum", "num_questions": 5, "seed": 1, **values}
    return list(benchmark_prompts(Benchmark.model_validate({"name": "g", "task": task, "max_tokens": 9})))


def test_a_task_generates_the_same_different_questions() -> None:
    found = generated()
    assert found == generated() and len({prompt.question for prompt in found}) == 5
    assert found == generated(num_questions=8)[:5]
    assert {prompt.question for prompt in found}.isdisjoint(prompt.question for prompt in generated(seed=10**6))
    for prompt in found:
        asked = Asked(prompt.question, prompt.reference_answer or "", prompt.metadata)
        assert prompt.verifier and verify(prompt.verifier, prompt.reference_answer or "", asked).outcome == "correct"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"dataset": "chain_summ"}, "unknown verifier"),
        ({"dataset": "codeio"}, "codeio takes .* use `json`"),
        ({"config": {"terms": 2}}, "chain_sum does not take the config {'terms': 2}"),
        ({"config": {"min_terms": 5, "max_terms": 2}}, "chain_sum does not take the config"),
        (
            {"config": {"min_terms": 2, "max_terms": 2, "max_digits": 1}, "num_questions": 1000},
            r"chain_sum gives only \d+ different questions in 20000 entries; ask for fewer",
        ),
    ],
)
def test_a_task_that_cannot_be_generated_says_why(values: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=f"evaluation.benchmarks g: task: .*{told}"):
        generated(**values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "needs either `path`"),
        ({"path": "b", "task": {"dataset": "dice", "num_questions": 1, "seed": 1}}, "needs either `path`"),
        ({"path": "b", "layout": "aime"}, "there is no layout 'aime'; there are aime24, aime25"),
        ({"path": "b", "layout": "aime24", "shuffle_seed": 1}, "whose choices are unordered: gpqa_diamond; remove it"),
        ({"path": "b", "instruction": " Answer."}, "without white space around it"),
        ({"path": "b", "instruction": "{question} {question}"}, "names {question} more than once"),
        ({"layout": "aime24", "task": {"dataset": "dice", "num_questions": 1, "seed": 1}}, "are of a file"),
        ({"task": {"dataset": "dice", "num_questions": 1, "seed": 1, "config": {"size": 2}}}, "names size; say it in"),
    ],
)
def test_what_a_benchmark_refuses(values: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Benchmark.model_validate({"name": "b", "max_tokens": 1, **values})


def test_keys_beside_a_layout_replace_its_own() -> None:
    benchmark = Benchmark.model_validate(
        {"name": "b", "path": "b", "layout": "aime25", "max_tokens": 7, "instruction": None}
    )
    assert (benchmark.max_tokens, benchmark.instruction) == (7, None)
    assert benchmark == Benchmark.model_validate(json.loads(benchmark.model_dump_json()))
    assert Task(dataset="dice", num_questions=1, seed=0).config == {}
