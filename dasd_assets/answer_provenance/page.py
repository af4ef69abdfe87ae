"""The tables of provenance: in the web UI, where the page is told in words and pictures, and in that page."""

from collections.abc import Iterator, Mapping

import dagster as dg
import polars as pl

from dasd_assets.answer_provenance.findings import Findings
from dasd_assets.records.markdown import code, table
from dasd_assets.records.wording import number_of
from dasd_assets.rules.answer_types import FOUR_TYPES
from dasd_resources.visible_text import excerpt_line

PAGE = "provenance.md"
SENTENCE_CHARS = 160
SCORE = "How far beyond the threshold (of shared ones: within it), summed over the answers that hold the sentence."
CAPTIONS = {
    "types_by_stage": "Shares of the four types in each checkpoint's own answers.",
    "types_by_position": "Figure 6 for own answers: shares by position, pooled over questions.",
    "right_minus_wrong": "Right minus wrong answers, pooled over questions and within them.",
    "right_minus_wrong_by_position": "The same within questions, by position.",
    "thresholds": "The same within questions, under other thresholds.",
    "one_answer": "Figure 5: one answer, sentence by sentence, under three models.",
}


def tables(found: Findings) -> dict[str, dg.TableMetadataValue]:
    """The tables for the web UI, which shows their cells as plain text."""
    return {
        "shares": table(["checkpoint", "num_answers", *FOUR_TYPES], share_rows(found.stages)),
        "right_and_wrong": table(DIFFERENCE_COLUMNS, difference_rows(found.pooled, found.within)),
        "threshold_table": table(THRESHOLD_COLUMNS, threshold_rows(found.thresholds)),
        "answer_sentences": table(ANSWER_COLUMNS, numbered(found.answer)),
        "characteristic_sentences": table(
            ["type", "score", "num_answers", "sentence"], found.characteristic.to_dicts()
        ),
    }


DIFFERENCE_COLUMNS = ["checkpoint", "type", "right", "wrong", "pooled", "within_questions", "questions_with_both"]
THRESHOLD_COLUMNS = ["threshold", *FOUR_TYPES, *(f"{kind}_right_minus_wrong" for kind in FOUR_TYPES)]
ANSWER_COLUMNS = ["number", "sentence_type", "teacher_prob", "student_prob", "distilled_prob", "sentence"]


def share_rows(stages: pl.DataFrame) -> Iterator[dict[str, object]]:
    """A row per checkpoint: mean share of each type with its interval."""
    for part in stages.partition_by("checkpoint", maintain_order=True):
        shares = {row["type"]: _share(row["mean"], row["low"], row["high"]) for row in part.to_dicts()}
        yield {"checkpoint": part["checkpoint"][0], "num_answers": part["num_answers"][0], **shares}


def difference_rows(pooled: pl.DataFrame, within: pl.DataFrame) -> Iterator[dict[str, object]]:
    """A row per checkpoint and type: shares in right and wrong answers, and their difference both ways."""
    inside = {(row["checkpoint"], row["type"]): row for row in within.to_dicts()}
    for row in pooled.to_dicts():
        own = inside.get((row["checkpoint"], row["type"]))
        yield {
            "checkpoint": row["checkpoint"],
            "type": row["type"],
            "right": _percent(row["right"]),
            "wrong": _percent(row["wrong"]),
            "pooled": _share(row["difference"], row["low"], row["high"], "+"),
            "within_questions": None if own is None else _share(own["difference"], own["low"], own["high"], "+"),
            "questions_with_both": 0 if own is None else own["num_questions"],
        }


def threshold_rows(thresholds: pl.DataFrame) -> Iterator[dict[str, object]]:
    """A row per threshold: share of each type, and its difference within questions."""
    for part in thresholds.partition_by("threshold", maintain_order=True):
        row: dict[str, object] = dict.fromkeys(THRESHOLD_COLUMNS)
        row["threshold"] = f"{part['threshold'][0]:g}"
        for one in part.to_dicts():
            row[one["type"]] = _percent(one["share"])
            row[f"{one['type']}_right_minus_wrong"] = _share(one["difference"], one["low"], one["high"], "+")
        yield row


def numbered(answer: pl.DataFrame) -> list[dict[str, object]]:
    """The sentences of the shown answer, each with its number from 1."""
    return answer.with_columns(number=pl.col("sentence_index") + 1).to_dicts()


def page(found: Findings, pictures: Mapping[str, str]) -> str:
    """The findings as Markdown. pictures: name -> file beside the page. What models wrote is in code spans alone."""
    divergence = found.divergence
    rule = f"{divergence.measure} per {divergence.per}, threshold {divergence.threshold:g}"
    lines = [
        "# Provenance",
        "",
        f"Sentences of {found.num_typed:,} of {found.num_answers:,} answers that the checkpoints gave to held-out "
        f"questions ({found.sample}), typed by {rule}. Intervals are of 95 %, clustered by question. "
        "The rule, and how to read this: docs/provenance.md.",
    ]
    if found.newest is None:
        return "\n".join([*lines, "", "No answer has a typed sentence: see `answer_logprobs` for why.", ""])
    shown = tables(found)
    lines += ["", "## From stage to stage", "", *_picture("types_by_stage", pictures), *_table(shown["shares"])]
    lines += ["", f"## By position, answers of {found.newest}", "", *_picture("types_by_position", pictures)]
    lines += ["", "## Right and wrong answers", ""]
    lines += [
        "Pooled over questions, right answers are those to easy questions: what differs may be the difficulty. Within "
        "questions it cannot.",
        "",
    ]
    for name in ("right_minus_wrong", "right_minus_wrong_by_position"):
        lines += _picture(name, pictures)
    lines += [*_table(shown["right_and_wrong"]), "", "## Under other thresholds", "", *_picture("thresholds", pictures)]
    lines += [*_table(shown["threshold_table"]), "", "## One answer", "", *_picture("one_answer", pictures)]
    lines += [_sentence(row, f"{row['number']}, {row['sentence_type'] or 'untyped'}") for row in numbered(found.answer)]
    lines += ["", "## Characteristic sentences", "", SCORE]
    for part in found.characteristic.partition_by("type", maintain_order=True):
        labels = [f"{row['score']:.2f}, {number_of(row['num_answers'], 'answer')}" for row in part.to_dicts()]
        lines += ["", f"### {part['type'][0]}", ""]
        lines += [_sentence(row, label) for row, label in zip(part.to_dicts(), labels, strict=True)]
    return "\n".join([*lines, ""])


def _sentence(row: Mapping[str, object], label: object) -> str:
    return f"- {label}: {code(excerpt_line(str(row['sentence']), SENTENCE_CHARS))}"


def _picture(name: str, pictures: Mapping[str, str]) -> list[str]:
    return [CAPTIONS[name], "", f"![{name}]({pictures[name]})", ""]


def _table(value: dg.TableMetadataValue) -> list[str]:
    """A table of numbers and our own names; texts of others never stand in one."""
    names = [column.name for column in value.schema.columns]
    rows = [[str(record.data[name]) for name in names] for record in value.records]
    return [
        f"| {' | '.join(row)} |" for row in ([name.replace("_", " ") for name in names], ["---"] * len(names), *rows)
    ]


def _percent(value: float | None, sign: str = "") -> str | None:
    return None if value is None else f"{100 * value:{sign}.1f} %"


def _share(value: float | None, low: float | None, high: float | None, sign: str = "") -> str | None:
    """A share or difference with its interval, if that is known."""
    if value is None or low is None or high is None:
        return _percent(value, sign)
    return f"{100 * value:{sign}.1f} % ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"
