"""Do right answers have more teacher sentences before a mistake could be made, or only once it has been made?

    DASD_HOME=… python bench/provenance_before_mistakes.py RECIPE

In the demo's world a wrong step shows by its numbers ("5 + 7 is 13"). Of each question, the sentences before the first
wrong step of its wrong answers are compared with as many of its right ones; beside it stands the comparison of whole
answers, which `answer_provenance` makes. Wrong answers without a wrong step (a term skipped, no end) are left out.
"""

import os
import re
import sys
from pathlib import Path

import polars as pl
from results import table

from dasd_assets.answer_provenance.findings import sampled_sentences, with_text
from dasd_assets.rules.type_shares import ANSWER, QUESTION, answer_shares, differences_within_questions
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.warehouse import Warehouse

STEP = re.compile(r"(-?\d+) ([+-]) (-?\d+) (?:=|is|gives|makes) (-?\d+)")
CELL = [*QUESTION, "temperature"]


def is_wrong(sentence: str) -> bool:
    """Whether a sentence says a sum or a difference, and another number than it is."""
    found = STEP.search(sentence)
    if found is None:
        return False
    left, right, said = int(found[1]), int(found[3]), int(found[4])
    return (left + right if found[2] == "+" else left - right) != said


def before_mistakes(sentences: pl.DataFrame) -> pl.DataFrame:
    """Of every answer to a question with a wrong step, the sentences up to the earliest such step."""
    wrong = sentences.filter(~pl.col("correct") & pl.col("sentence").map_elements(is_wrong, return_dtype=pl.Boolean))
    first = wrong.group_by(CELL).agg(upto=pl.col("sentence_index").min())
    return sentences.join(first, on=CELL).filter(pl.col("sentence_index") < pl.col("upto"))


def row(name: str, what: str, sentences: pl.DataFrame) -> list[object]:
    """Right minus wrong in teacher sentences, within questions, in points."""
    found = differences_within_questions(answer_shares(sentences), ["type"]).filter(pl.col("type") == "teacher")
    if found.is_empty():  # no question has right answers and wrong ones
        return [f"{name}, {what}", "", "", 0]
    points = {key: 100 * found[key][0] for key in ("difference", "low", "high")}
    interval = f"{points['low']:+.1f} to {points['high']:+.1f}"
    return [f"{name}, {what}", f"{points['difference']:+.1f}", interval, int(found["num_questions"][0])]


def main(recipe_name: str) -> None:
    home = os.environ["DASD_HOME"]
    recipe = load_recipe(recipe_name, Path(home))
    answers, sentences = sampled_sentences(Warehouse(home=home), Engines(home=home), recipe)
    said = with_text(sentences, answers.unique(["answer_id", "checkpoint_id"])).sort([*ANSWER, "sentence_index"])
    rows = []
    for part in said.filter(pl.col("checkpoint").cast(pl.String) != "student").partition_by("checkpoint"):
        name = str(part["checkpoint"][0])
        rows += [row(name, "whole answers", part), row(name, "before the first wrong step", before_mistakes(part))]
    print("## Teacher sentences before a mistake\n")
    print(table(["right minus wrong within questions", "points", "95 %", "questions"], rows))


if __name__ == "__main__":
    main(sys.argv[1])
