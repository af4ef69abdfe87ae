"""The page of the report: one file without scripts or anything to load, and its figures as files beside it.

What models and questions say gets into it through the template alone, which escapes markup and what nobody would see.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from dasd_assets.records.plots import TYPE_COLOURS, png
from dasd_assets.report.captions import Caption, captions
from dasd_assets.report.findings import ReportData, drop_rows
from dasd_assets.report.wording import Interval, accuracy_interval, headline, verdict
from dasd_assets.rules.scores import TYPE_NAMES
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.visible_text import visible_page
from dasd_resources.whole_files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
PAGE_TEMPLATE, RESPONSE = "page.html", "response.html"


@dataclass(frozen=True)
class Shown:
    """A figure on the page."""

    name: str
    caption: Caption
    svg: Markup


@dataclass(frozen=True)
class Part:
    """A piece of a response: a sentence, with its number from 1, or what stands between two (number None)."""

    text: str
    number: int | None = None
    kind: str = ""
    tip: str = ""


def report_folder(warehouse: Warehouse, recipe: Recipe) -> Path:
    """Where the report of a recipe lies."""
    return Path(warehouse.home) / "reports" / recipe.name


def write(data: ReportData, figures: Mapping[str, "Figure"], recipe: Recipe, folder: Path) -> dict[str, Path]:
    """Write the page, and each figure as a PNG of its name; returns the latter. A file is complete or the old one."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        write_whole(files[name], png(figure))
    write_whole(folder / PAGE, page(data, figures, recipe).encode())
    return files


def page(data: ReportData, figures: Mapping[str, "Figure"], recipe: Recipe) -> str:
    """The page as HTML."""
    drop_columns, drops = drop_rows(data.drops)
    return _template(PAGE_TEMPLATE).render(
        recipe=recipe.name,
        headline=headline(data),
        data=data,
        num_responses=int(data.responses["num_responses"].sum()),
        num_examples=int(data.datasets["num_examples"].sum()),
        num_trained=data.trained.height,
        datasets=data.datasets.to_dicts(),
        drop_columns=drop_columns,
        drops=drops,
        accuracies=list(_accuracy_rows(data.accuracies)),
        gains=list(_gain_rows(data.gains)),
        checkpoints=data.checkpoints.to_dicts(),
        figures=[Shown(name, about, svg(figures[name], name)) for name, about in captions(data, recipe).items()],
        response=data.response,
        question="" if data.response is None else data.response.question,
        parts=[] if data.response is None else list(parts(data.response.text, data.response.sentences.to_dicts())),
        colours={str(kind): TYPE_COLOURS[kind] for kind in TYPE_NAMES},
    )


def response_html(title: str, question: str, text: str, sentences: Sequence[Row]) -> str:
    """A response as HTML that needs no style sheet, for a notebook. sentences: as `parts` takes them."""
    colours = {str(kind): TYPE_COLOURS[kind] for kind in TYPE_NAMES}
    shown = list(parts(text, sentences))
    return _template(RESPONSE).render(title=title, question=question, parts=shown, colours=colours)


def parts(text: str, sentences: Sequence[Row]) -> Iterator[Part]:
    """The whole text of a response, in order, cut at its sentences.

    sentences: start, stop, sentence_type, teacher_prob, student_prob, in order of place.
    """
    at = 0
    for number, row in enumerate(sentences, start=1):
        if row["start"] > at:
            yield Part(text[at : row["start"]])
        tip = f"sentence {number}: {row['sentence_type'] or 'no type'}; " + ", ".join(
            f"{name} {'not known' if row[column] is None else format(row[column], '.3f')}"
            for name, column in (("teacher", "teacher_prob"), ("student", "student_prob"))
        )
        yield Part(text[row["start"] : row["stop"]], number, row["sentence_type"] or "", tip)
        at = row["stop"]
    if at < len(text):
        yield Part(text[at:])


def svg(figure: "Figure", name: str) -> Markup:
    """A figure as part of a page: text as text, and ids that no other figure there has."""
    import matplotlib

    buffer = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawn = buffer.getvalue()
    own = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawn[drawn.index("<svg") :])
    return Markup(own)  # matplotlib has escaped the texts in it


def _accuracy_rows(accuracies: pl.DataFrame) -> Iterator[dict[str, object]]:
    for row in accuracies.to_dicts():
        found = accuracy_interval(row)
        settled = row["num_answers"] + row["num_failed"]
        yield {
            **row,
            "shown": f"incomplete: {settled:,} of {settled + row['num_missing']:,}" if found is None else found.shown(),
            "width": 0.0 if found is None else 100 * found.value,
        }


def _gain_rows(gains: pl.DataFrame) -> Iterator[Row]:
    for row in gains.to_dicts():
        change = Interval(row["difference"], row["low"], row["high"])
        yield {**row, "shown": change.shown("+"), "verdict": verdict(change)}


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _shown(value: object) -> object:
    """A value as the template writes it: no text holds a character that a reader would not see."""
    return visible_page(value) if isinstance(value, str) and not isinstance(value, Markup) else value
