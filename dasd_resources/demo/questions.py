"""Demo questions: reasoning-gym's `chain_sum` as landing files of prompts and a held-out test file.

Left out: any list of used seeds. chain_sum repeats itself across seeds, so the three uses of a question (test, prompts,
training of the demo models) are separated by a hash of its text, which keeps them disjoint whatever their sizes.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Literal

from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import create_dataset, get_score_answer_fn

from dasd_resources.whole_files import write_whole

Split = Literal["test", "prompts", "models"]
JsonValue = str | int | list[int] | dict[str, "JsonValue"]
QuestionRow = dict[str, JsonValue]

VERIFIER = "reasoning_gym:chain_sum"
TEST_FILE = Path(__file__).parent / "chain_sum_test.jsonl"
PROMPT_FILES = ("chain_sum_a.jsonl", "chain_sum_b.jsonl")
NUM_PROMPTS = 1600
NUM_TEST = 320
SEED = 42
ROWS_PER_SEED = 1_000_000  # chain_sum seeds row i with seed + i, so two streams overlap unless this far apart


def split_of(question: str) -> Split:
    """The only use a question may be put to, from its text: 1/8 test, 3/8 prompts, 4/8 training of the demo models."""
    bucket = bucket_of(question)
    return "test" if bucket == 0 else "prompts" if bucket < 4 else "models"


def bucket_of(question: str) -> int:
    """One of eight buckets, 0 to 7, from the question's text."""
    return hashlib.sha256(question.encode()).digest()[0] % 8


@cache
def chain_sum(min_terms: int, max_terms: int, seed: int) -> ProceduralDataset:
    """reasoning-gym's chain_sum with one-digit operands."""
    config = {"min_terms": min_terms, "max_terms": max_terms, "min_digits": 1, "max_digits": 1}
    return create_dataset("chain_sum", seed=seed, size=ROWS_PER_SEED, **config)


def questions(split: Split) -> Iterator[QuestionRow]:
    """Endless rows of one split (3-6 terms), each question text once."""
    seen: set[str] = set()
    entries = chain_sum(3, 6, SEED)
    for index in count():
        row = prompt_row(entries[index])
        question = str(row["question"])
        if split_of(question) == split and question not in seen:
            seen.add(question)
            yield row


def prompt_row(entry: QuestionRow, domain: str = "math", verifier: str = VERIFIER) -> QuestionRow:
    """A reasoning-gym entry as a row of a prompt file; `metadata` is what its verifier needs back."""
    return {
        "question": entry["question"],
        "reference_answer": entry["answer"],
        "domain": domain,
        "verifier": verifier,
        "metadata": entry["metadata"],
    }


def score(answer: str, row: QuestionRow) -> float:
    """reasoning-gym's own score of an extracted final answer; 1.0, and only that, is correct."""
    entry = {"question": row["question"], "answer": row["reference_answer"], "metadata": row["metadata"]}
    return float(scorer(str(row["verifier"]).removeprefix("reasoning_gym:"))(answer, entry))


scorer = cache(get_score_answer_fn)  # to get one loads its data set


def write_rows(path: Path, rows: list[QuestionRow]) -> None:
    """Write JSONL atomically; a file that already holds exactly these rows is left untouched."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if path.exists() and path.read_bytes() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def write_prompt_files(folder: Path, num_prompts: int = NUM_PROMPTS) -> list[Path]:
    """Land the demo's prompts as two files of equal size; returns their paths."""
    rows = list(islice(questions("prompts"), num_prompts))
    half = (num_prompts + 1) // 2
    paths = [folder / name for name in PROMPT_FILES]
    for path, part in zip(paths, (rows[:half], rows[half:]), strict=True):
        write_rows(path, part)
    return paths


def write_test_file(path: Path = TEST_FILE, num_test: int = NUM_TEST) -> Path:
    """Write the held-out questions; the shipped file is made by this."""
    write_rows(path, list(islice(questions("test"), num_test)))
    return path


def read_rows(path: Path) -> list[QuestionRow]:
    """Rows of a prompt or test file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_disjoint(*files: Path, split_of: Callable[[str], str] = split_of) -> None:
    """Raise if a question text occurs twice in these files, or in one the models may have been trained on."""
    texts = [str(row["question"]) for file in files for row in read_rows(file)]
    repeated = sorted({text for text in texts if texts.count(text) > 1})
    assert not repeated, f"questions occur more than once: {repeated}"
    trained = [text for text in texts if split_of(text) == "models"]
    assert not trained, f"questions are reserved for training the models: {trained}"


def main() -> None:
    """Write the prompt files and, where asked, a test file of another size or place."""
    parser = argparse.ArgumentParser(description="Write the demo's chain_sum questions as landing files.")
    parser.add_argument("prompts_dir", type=Path, help="folder in which the prompt files land")
    parser.add_argument("eval_file", type=Path, nargs="?", default=TEST_FILE, help="default: the shipped file")
    parser.add_argument("--num-prompts", type=int, default=NUM_PROMPTS)
    parser.add_argument("--num-eval", type=int, default=NUM_TEST)
    args = parser.parse_args()
    paths = [*write_prompt_files(args.prompts_dir, args.num_prompts), write_test_file(args.eval_file, args.num_eval)]
    assert_disjoint(*paths)
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
