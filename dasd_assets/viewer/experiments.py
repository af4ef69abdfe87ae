"""Experiments: differences between arms with their intervals, and the accuracy of an arm's checkpoints over time."""

from collections import Counter

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.audit.checkpoint import accuracies, incomplete, several_limits
from dasd_assets.audit.prompt import Record
from dasd_assets.rules.statistics.comparison import OF_ONE_SEED
from dasd_assets.viewer.viewer import Viewer

Setting = tuple[str, float, float, int]  # benchmark, temperature, top-p, token limit
_COMPARED = """SELECT *, count(p) OVER (PARTITION BY recipe, experiment) AS num_corrected FROM experiment_comparisons
    ORDER BY recipe, experiment, benchmark, temperature, difference DESC"""
_CELLS = """SELECT x.recipe, x.experiment, x.arm, x.seed, x.stage, x.checkpoint_id, x.dataset, x.policy, x.num_examples,
        x.num_tokens, x.num_steps, x.run_id, c.materialized_at
    FROM experiment_cells x LEFT JOIN (
        SELECT checkpoint_id, min(materialized_at) AS materialized_at FROM checkpoints GROUP BY checkpoint_id
    ) c USING (checkpoint_id)
    ORDER BY x.recipe, x.experiment, x.arm, x.seed, x.stage"""


def experiments(viewer: Viewer, request: Request) -> Response:
    """The page of all experiments of the home."""
    with viewer.lake.reading() as reading:
        compared = reading.read(_COMPARED).to_dicts()
        cells = reading.read(_CELLS).to_dicts()
        found = accuracies(reading, list(dict.fromkeys(row["checkpoint_id"] for row in cells)))
    names = dict.fromkeys((row["recipe"], row["experiment"]) for row in (*cells, *compared))
    return viewer.page(
        request,
        "experiments.html",
        of_one_seed=OF_ONE_SEED,
        experiments=[_experiment(name, compared, cells, found) for name in names],
    )


def _experiment(
    name: tuple[str, str], compared: list[Record], cells: list[Record], answered: dict[str, list[Record]]
) -> Record:
    ours = [row for row in compared if (row["recipe"], row["experiment"]) == name]
    made = [row for row in cells if (row["recipe"], row["experiment"]) == name]
    settings = dict.fromkeys((row["benchmark"], row["temperature"]) for row in ours)
    asked = [row for cell in made for row in answered.get(cell["checkpoint_id"], [])]
    several = several_limits(asked)
    return {
        "recipe": name[0],
        "name": name[1],
        "cells": [{**row, "accuracies": answered.get(row["checkpoint_id"], [])} for row in made],
        "several": several,
        "incomplete": _incomplete({row["checkpoint_id"] for row in made}, answered),
        "comparisons": [
            {"benchmark": setting[0], "temperature": setting[1], "rows": rows, "chart": _intervals(rows)}
            for setting in settings
            if (rows := [row for row in ours if (row["benchmark"], row["temperature"]) == setting])
        ],
        "runs": [_runs(setting, several, made, answered) for setting in sorted(set(map(_setting, asked)))],
    }


def _incomplete(checkpoints: set[str], answered: dict[str, list[Record]]) -> str:
    """What failed and is missing of all of them."""
    rows = [row for checkpoint in checkpoints for row in answered.get(checkpoint, [])]
    return incomplete({name: sum(row[name] for row in rows) for name in ("num_failed", "num_missing")})


def _setting(row: Record) -> Setting:
    return row["benchmark"], row["temperature"], row["top_p"], row["max_tokens"]


def _intervals(rows: list[Record]) -> Record:
    points = [
        {
            "name": f"{row['arm']} less {row['baseline']}",
            "mean": row["difference"],
            "low": row["low"],
            "high": row["high"],
        }
        for row in rows
    ]
    return {
        "label": "difference in points of accuracy, with its 95 % interval",
        "zero": True,
        "rows": points,
    }


def _runs(setting: Setting, several: bool, made: list[Record], answered: dict[str, list[Record]]) -> Record:
    """Accuracy of every cell by when it was trained; no rows where no arm was trained twice: there is no course."""
    points = [
        {
            "at": cell["materialized_at"].isoformat(),
            "value": row["accuracy"],
            "arm": f"{cell['arm']} stage {cell['stage']}",
        }
        for cell in made
        if cell["materialized_at"] is not None
        for row in answered.get(cell["checkpoint_id"], [])
        if _setting(row) == setting and row["accuracy"] is not None
    ]
    benchmark, temperature, top_p, max_tokens = setting
    which = f"{benchmark}, T={temperature:g}" + (f", top-p {top_p:g}, at most {max_tokens:,} tokens" if several else "")
    label = f"{which}: accuracy of each arm's checkpoints, in %, by the time they were trained"
    trained = Counter(point["arm"] for point in points)
    repeated = max(trained.values(), default=0) > 1
    return {"label": label, "rows": sorted(points, key=lambda point: str(point["at"])) if repeated else []}
