"""One response of the teacher: its text, its sentences, and all else that is known of it; coloured in a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import polars as pl

from dasd_assets.audit.prompt import Record
from dasd_assets.audit.response import typed_sentences
from dasd_assets.rules.scores import threshold_version
from dasd_resources.recipe import Recipe

COLUMNS = {
    "sentence": pl.Int64,
    "start": pl.Int64,
    "stop": pl.Int64,
    "text": pl.String,
    "sentence_type": pl.String,
    "teacher_prob": pl.Float64,
    "student_prob": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class Response:
    """A response. record: what `dasd audit response` shows, as plain values.

    sentences: one row per sentence, counted from 1, with its place in `text` (code points), its type by the recipe that
    was used last, and its geometric mean probability per token under teacher and student; none that is not scored yet.
    """

    response_id: str
    question: str
    text: str
    sentences: pl.DataFrame
    record: Mapping[str, object]

    @classmethod
    def of(cls, record: Record, students: Sequence[Record]) -> Self:
        """Of the record of an audit. students: checkpoint_id and recipe_document of each, the newest first."""
        rows = typed_sentences(record["sentences"], *_last_rule(record["sentences"], students))
        typed = [
            {**row, "sentence": number, "sentence_type": None if row["kind"] == "untyped" else row["kind"]}
            for number, row in enumerate(rows, start=1)
        ]
        sentences = pl.DataFrame([{name: row[name] for name in COLUMNS} for row in typed], schema=COLUMNS)
        question = str(record["prompt"].get("question", ""))
        return cls(str(record["response_id"]), question, str(record["text"]), sentences, record)

    def __repr__(self) -> str:
        return f"<response {self.response_id}: {len(self.text):,} characters, {self.sentences.height:,} sentences>"

    def _repr_html_(self) -> str:
        from dasd_assets.report.page import response_html  # imports Dagster, which takes a second

        return response_html(f"response {self.response_id}", self.question, self.text, self.sentences.to_dicts())


def _last_rule(sentences: Sequence[Record], students: Sequence[Record]) -> tuple[str | None, str | None]:
    """The student and the threshold version of the recipe used last by which these sentences are typed; else None."""
    typed = {(row["student_fingerprint"], version) for row in sentences for version in row["types"]}
    for student in students:
        try:
            recipe = Recipe.model_validate_json(student["recipe_document"])
        except ValueError:  # of an earlier release
            continue
        if (rule := (student["checkpoint_id"], threshold_version(recipe))) in typed:
            return rule
    return None, None
