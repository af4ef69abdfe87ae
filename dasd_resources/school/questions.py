"""The school's questions as landing files, one per domain, and its held-out test and validation files.

`python -m dasd_resources.school.questions FOLDER` lands them. As in the demo, the uses of a question are separated by a
hash of its text; the validation questions are those on which a choice may be made, the test questions are not.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Literal

from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import create_dataset

from dasd_resources.demo.questions import (
    ROWS_PER_SEED,
    SEED,
    QuestionRow,
    assert_disjoint,
    bucket_of,
    prompt_row,
    write_rows,
)
from dasd_resources.school.catalogue import FAMILIES
from dasd_resources.school.family import Family, metadata_of

Split = Literal["test", "prompts", "validation", "models"]
SCHOOL = Path(__file__).parent
HELD_OUT_FILES: dict[Split, Path] = {"test": SCHOOL / "test.jsonl", "validation": SCHOOL / "validation.jsonl"}
NUM_HELD_OUT: dict[Split, int] = {"test": 160, "validation": 80}  # per family
NUM_PROMPTS = 960  # per family
PROMPT_FILES = tuple(f"school_{family.domain}.jsonl" for family in FAMILIES)


def split_of(question: str) -> Split:
    """The only use of a question, from its text: 1/8 test, 3/8 prompts, 1/8 validation, 3/8 training of the models."""
    bucket = bucket_of(question)
    return "test" if bucket == 0 else "prompts" if bucket < 4 else "validation" if bucket == 4 else "models"


@cache
def entries(family: Family, seed: int) -> ProceduralDataset:
    """The family's data set."""
    return create_dataset(family.dataset, seed=seed, size=ROWS_PER_SEED, **family.config)


def family_row(family: Family, index: int, seed: int) -> QuestionRow | None:
    """The question at this index, its `level` in the metadata; None if the family does not ask it."""
    row = prompt_row(entries(family, seed)[index], family.domain, family.verifier)
    if not family.accepts(row):
        return None
    return row | {"metadata": metadata_of(row) | {"level": family.level(row)}}


def questions(family: Family, split: Split) -> Iterator[QuestionRow]:
    """Rows of one split, each question text once; endless as long as the family has questions."""
    seen: set[str] = set()
    for index in count():
        row = family_row(family, index, SEED)
        if row is None or (question := str(row["question"])) in seen or split_of(question) != split:
            continue
        seen.add(question)
        yield row


def first_rows(split: Split, per_family: int) -> list[QuestionRow]:
    """The first rows of a split, family after family."""
    return [row for family in FAMILIES for row in islice(questions(family, split), per_family)]


def write_prompt_files(folder: Path, per_family: int = NUM_PROMPTS) -> list[Path]:
    """Land the prompts, one file per domain; returns their paths."""
    paths = [folder / name for name in PROMPT_FILES]
    for family, path in zip(FAMILIES, paths, strict=True):
        write_rows(path, list(islice(questions(family, "prompts"), per_family)))
    return paths


def write_held_out_file(split: Split, path: Path) -> Path:
    """Write the test or the validation questions; the shipped files are made by this."""
    write_rows(path, first_rows(split, NUM_HELD_OUT[split]))
    return path


def main() -> None:
    """Write the prompt files, and the shipped files where they are missing."""
    parser = argparse.ArgumentParser(description="Write the school's questions as landing files.")
    parser.add_argument("prompts_dir", type=Path, help="folder in which the prompt files land")
    parser.add_argument("--num-prompts", type=int, default=NUM_PROMPTS, help="per domain")
    args = parser.parse_args()
    held_out = [write_held_out_file(split, path) for split, path in HELD_OUT_FILES.items()]
    paths = [*write_prompt_files(args.prompts_dir, args.num_prompts), *held_out]
    assert_disjoint(*paths, split_of=split_of)
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
