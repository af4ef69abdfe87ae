"""The results of experiments as files: a page each, with its figures, and a page that lists them.

Everything is read from the warehouse. The same rows give the same bytes: no times, no commit, no path.
"""

import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from dasd_assets.experiments.cells import answers, current, every_cell, outdated_cells, stage_rows
from dasd_assets.experiments.claims import CLAIMED, LEGEND, claim_rows, verdicts
from dasd_assets.experiments.comparison import pictures
from dasd_assets.experiments.experiment_page import (
    MARK,
    answers_hash,
    declared_after,
    experiment_page,
    written_of_others,
)
from dasd_assets.experiments.report_tables import of_training
from dasd_assets.experiments.result_table import IS_SURE, Results, Shown, compared_arms, markdown_table
from dasd_assets.records.markdown import Cell
from dasd_assets.rules.statistics.holm import SIGNIFICANT
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.whole_files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INDEX, FIGURES = "results.md", "figures"
CLAIMS = (*CLAIMED, "page")
EXPERIMENTS = ("experiment", "arms", "seeds", "cells", "significant", "what it means")
OF_ANOTHER_HOME = "*Not run in this home: the page is of another.*"
File = tuple[str, bytes]  # path in the folder, content


def write_pages(warehouse: Warehouse, recipe: Recipe, experiments: Sequence[Experiment], folder: Path) -> list[str]:
    """Write a page for each experiment that has answers, and the list of all; returns the names of changed files.

    Each file is there whole or not at all. Of earlier pages, what is no longer written is removed, with the figures
    that they show; those of an experiment that this home has no answers of stay, and the list says so.
    """
    before = _written_before(folder)
    files = dict(_files(warehouse, recipe, experiments, folder))
    changed = [name for name, content in files.items() if _write(folder / name, content)]
    for name in sorted(before - files.keys()):
        (folder / name).unlink(missing_ok=True)
        changed.append(name)
    return changed


def _written_before(folder: Path) -> set[str]:
    """The pages in the folder that `write_pages` has written, and the figures that they show."""
    texts = {path.name: path.read_bytes() for path in folder.glob("*.md") if path.is_file()}
    ours = {name: text.decode(errors="replace") for name, text in texts.items() if text.startswith(MARK.encode())}
    shown = (re.findall(rf"\(({FIGURES}/[\w-]+\.svg)\)", text) for text in ours.values())
    return {*ours, *chain.from_iterable(shown)}


def _files(warehouse: Warehouse, recipe: Recipe, experiments: Sequence[Experiment], folder: Path) -> Iterator[File]:
    claimed, listed = list[Shown](), list[Shown]()
    for experiment in experiments:
        found = answers(warehouse, recipe, experiment)
        compared, now = compared_arms(found, experiment), answers_hash(found)
        row = _listed(experiment, found, compared, now)
        if found.is_empty() and (of_another := dict(_written(folder, experiment.name))):
            yield from of_another.items()
            claimed += rows_there(folder, CLAIMS, experiment.name)
            listed.append(_of_another(next(iter(rows_there(folder, EXPERIMENTS, experiment.name)), row), experiment))
            continue
        stages, outdated = stage_rows(warehouse, recipe, experiment), outdated_cells(warehouse, recipe, experiment)
        results = Results(found, compared, stages, outdated)
        of_now = current(stages, outdated)
        trained = None if found.is_empty() else of_training(warehouse, recipe, experiment, of_now)
        judged = verdicts(warehouse, recipe, experiment, results, trained and trained[1])
        claimed += [{**claim, "page": row["experiment"]} for claim in claim_rows(judged)]
        listed.append(row)
        if trained is not None:
            figures = pictures(warehouse, recipe, experiment, results)
            images = {name: f"{FIGURES}/{experiment.name}_{name}.svg" for name in figures}
            yield from ((images[name], svg(figure)) for name, figure in figures.items())
            text = experiment_page(warehouse, recipe, experiment, results, trained, judged, now, images)
            yield f"{experiment.name}.md", text.encode()
    yield INDEX, index_page(recipe, claimed, listed).encode()


def _written(folder: Path, name: str) -> Iterator[File]:
    """An experiment's page and figures, as they are in the folder."""
    for path in [*folder.glob(f"{name}.md"), *(folder / FIGURES).glob(f"{name}_*.svg")]:
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def rows_there(folder: Path, columns: Sequence[str], name: str) -> list[Shown]:
    """The rows that an experiment has in a table of the list that is in the folder, as they stand there."""
    text = (folder / INDEX).read_text(encoding="utf-8") if (folder / INDEX).is_file() else ""
    _, _, below = text.partition(markdown_table(columns, []) + "\n")
    lines = (line.removeprefix("| ").removesuffix(" |") for line in below.partition("\n\n")[0].splitlines())
    cells = ([None if cell == "–" else cell.replace(r"\|", "|") for cell in line.split(" | ")] for line in lines)
    rows = (dict[str, Cell | None](zip(columns, row, strict=True)) for row in cells if len(row) == len(columns))
    return [row for row in rows if str(row.get("page", row.get("experiment"))).endswith(f"]({name}.md)")]


def _of_another(row: Shown, experiment: Experiment) -> Shown:
    """A row of the list that says that the page is of another home, and links to it."""
    said = str(row["what it means"] or "").removesuffix(OF_ANOTHER_HOME).strip()
    title = f"[{experiment.title}]({experiment.name}.md)"
    return {**row, "experiment": title, "what it means": f"{said} {OF_ANOTHER_HOME}".strip()}


def index_page(recipe: Recipe, claimed: Sequence[Shown], listed: Sequence[Shown]) -> str:
    """The claims of the experiments with their verdicts, and the list: how far each is, and a sentence on each."""
    parts = [
        MARK,
        f"# Results of the experiments of `{recipe.name}`",
        "What an experiment is and how it is declared: [experiments](../experiments.md). How intervals and p-values "
        "are computed: [statistics](../statistics.md).",
        *(["## What is claimed", markdown_table(CLAIMS, claimed), LEGEND, "## The experiments"] if claimed else []),
        markdown_table(EXPERIMENTS, listed),
        "Significant: differences, from the baseline and of further pairs, over two seeds or more, whose p, corrected "
        "within an experiment, "
        f"is below {SIGNIFICANT}.",
    ]
    return "\n\n".join(parts) + "\n"


def _listed(experiment: Experiment, found: pl.DataFrame, compared: pl.DataFrame, now: str) -> Shown:
    done = found.select("arm", "seed").n_unique()
    said = [] if experiment.meaning is None else [first_sentence(" ".join(experiment.meaning.split()))]
    said += [*written_of_others(experiment, now), *declared_after(experiment)] if done else declared_after(experiment)
    significant = compared.filter(IS_SURE).height
    return {
        "experiment": f"[{experiment.title}]({experiment.name}.md)" if done else experiment.title,
        "arms": len(experiment.arms),
        "seeds": len(experiment.seeds),
        "cells": f"{done} of {len(every_cell(experiment))}",
        "significant": f"{significant} of {compared.height}" if done else None,
        "what it means": " ".join(said) or None,
    }


def first_sentence(text: str) -> str:
    """A text up to its first full stop that a space follows, with it."""
    head, stop, _ = text.partition(". ")
    return head + stop.rstrip()


def svg(figure: "Figure") -> bytes:
    """A figure as an SVG file, of the same bytes whenever it is drawn."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "dasd", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return b"\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + b"\n"


def _write(path: Path, content: bytes) -> bool:
    """Whether the file had to be written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return True
