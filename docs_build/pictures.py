"""The README's pictures, from a home in which `make demo` has run: `DASD_HOME=… python -m docs_build.pictures`.

docs/pictures/accuracy.svg: accuracy on held-out questions before and after each stage, and the teacher's.
docs/pictures/response.svg: one selected response, its sentences coloured by whose they are, with both probabilities.
"""

import os
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import polars as pl
from matplotlib.figure import Figure

from dasd_assets.records.plots import TYPE_COLOURS
from dasd_resources.home import home_of
from dasd_resources.storage.lake import Lake

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
STAGES = {
    "student": "student,\nbefore",
    "t060": "after stage 1\n(T = 0.6)",
    "t100": "after stage 2\n(T = 1.0)",
    "mixed": "after stage 3\n(mixed policy)",
    "teacher": "teacher",
}
ACCURACY = """SELECT c.name, m.value, m.standard_error
    FROM evaluation_metrics m JOIN checkpoints c USING (checkpoint_id)
    WHERE c.recipe = 'demo' AND m.metric LIKE 'avg@%' AND m.temperature = 0.6
    QUALIFY row_number() OVER (PARTITION BY c.name ORDER BY c.materialized_at DESC) = 1"""
# The response that shows most: of those selected at T=1, the one whose sentences are of most kinds, then the longest.
RESPONSE = """SELECT r.response_id, p.question, r.text FROM selected_responses s JOIN responses r USING (response_id)
        JOIN prompts p ON p.prompt_id = s.prompt_id JOIN sentence_types t USING (response_id)
    WHERE s.recipe = 'demo' AND s.dataset = 't100' AND s.policy = 'das'
    GROUP BY ALL HAVING count(*) BETWEEN 6 AND 9
    ORDER BY count(DISTINCT t.sentence_type) DESC, count(*) DESC, r.response_id LIMIT 1"""
SENTENCES = """SELECT b.start, b.stop, b.teacher_prob, b.student_prob, t.sentence_type
    FROM sentence_probabilities b
    JOIN sentence_types t USING (response_id, student_fingerprint, sentence_index)
    WHERE response_id = $response_id ORDER BY sentence_index"""
ROW = 0.32  # inches
INK, FAINT = "#202124", "#5f6368"


def main() -> None:
    """Draws both; raises SystemExit where the demo has not run in this home."""
    lake = Lake(str(home_of(os.environ)))
    accuracy, responses = lake.read(ACCURACY), lake.read(RESPONSE)
    if set(accuracy["name"]) != set(STAGES) or responses.is_empty():
        raise SystemExit(f"{home_of(os.environ)} has no finished demo: run `make demo` first")
    response = responses.row(0, named=True)
    sentences = lake.read(SENTENCES, {"response_id": response["response_id"]})
    PICTURES.mkdir(exist_ok=True)
    # Text as outlines: the same on every machine. A fixed salt and no date: the same file from the same numbers.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "dasd"}):
        for name, figure in {
            "accuracy": accuracy_figure(accuracy),
            "response": response_figure(response["question"], response["text"], sentences),
        }.items():
            figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})


def accuracy_figure(accuracy: pl.DataFrame) -> Figure:
    """A bar per model, in the order of training, with its 95 % interval. accuracy: name, value, standard_error."""
    figure = Figure(figsize=(7.2, 3.0), layout="constrained", facecolor="white")
    axes = figure.subplots()
    found = {name: (value, error) for name, value, error in accuracy.iter_rows()}
    values = [found[name][0] for name in STAGES]
    errors = [1.96 * (nan if found[name][1] is None else found[name][1]) for name in STAGES]
    colours = [TYPE_COLOURS["student"], *["#5b6fb5"] * 3, TYPE_COLOURS["teacher"]]
    axes.bar(range(len(STAGES)), values, 0.62, yerr=errors, color=colours, ecolor=INK, capsize=3)
    for place, (value, error) in enumerate(zip(values, errors, strict=True)):
        axes.text(
            place,
            value + (0 if isnan(error) else error) + 0.02,
            f"{value:.2f}",
            ha="center",
            va="bottom",
            fontsize=12,
            color=INK,
        )
    axes.set_xticks(range(len(STAGES)), list(STAGES.values()), fontsize=9)
    axes.set_ylim(0, 1.15)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_title("Accuracy on 320 held-out sums, 4 answers each, T = 0.6", fontsize=10, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def response_figure(question: str, text: str, sentences: pl.DataFrame) -> Figure:
    """A row per sentence of `text`, on the colour of its type, with the probability under each model."""
    height = ROW * (sentences.height + 4)
    figure = Figure(figsize=(7.2, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 7.2)
    axes.set_ylim(height, 0)
    axes.axis("off")
    axes.text(0.15, ROW * 0.9, question, fontsize=9, color=INK, va="center", weight="bold")
    for at, heading in ((5.4, "teacher"), (6.4, "student")):
        axes.text(at, ROW * 1.9, f"$p$ {heading}", fontsize=9, color=FAINT, va="center", ha="center")
    for place, (start, stop, teacher, student, kind) in enumerate(sentences.iter_rows()):
        middle = ROW * (place + 2.9)
        _sentence(axes, middle, " ".join(text[start:stop].split()), TYPE_COLOURS[kind])
        for at, probability in ((5.4, teacher), (6.4, student)):
            shown = "–" if probability is None else f"{probability:.2f}"
            axes.text(at, middle, shown, fontsize=10, color=INK, va="center", ha="center", family="monospace")
    _legend(axes, height - ROW * 0.6)
    return figure


def _sentence(axes: "Axes", middle: float, text: str, colour: str) -> None:
    box = {"facecolor": colour, "alpha": 0.32, "edgecolor": "none", "boxstyle": "round,pad=0.3"}
    axes.text(0.2, middle, text, fontsize=10, color=INK, va="center", family="monospace", bbox=box)


def _legend(axes: "Axes", middle: float) -> None:
    at = 0.2
    for kind, meaning in (
        ("teacher", "teacher sentence: there is something to learn"),
        ("close", "both find it as likely"),
        ("student", "student sentence"),
    ):
        box = {"facecolor": TYPE_COLOURS[kind], "alpha": 0.32, "edgecolor": "none", "boxstyle": "round,pad=0.2"}
        axes.text(at, middle, "  ", fontsize=8, va="center", family="monospace", bbox=box)
        axes.text(at + 0.25, middle, meaning, fontsize=8, color=FAINT, va="center")
        at += 3.0 if kind == "teacher" else 1.9


if __name__ == "__main__":
    main()
