"""The leaderboard: every model of the home by its accuracy in each evaluation, with one standard error."""

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.viewer.viewer import Viewer


def leaderboard(viewer: Viewer, request: Request) -> Response:
    """The page; the figures are those of the asset `leaderboard`."""
    from dasd_assets.evaluation.leaderboard import COLUMNS, EVALUATION, cells, labels, standings, title  # loads Dagster
    from dasd_resources.storage.warehouse import Warehouse

    found = standings(Warehouse(home=viewer.lake.home))
    names = labels(found) if found.height else {}
    parts = found.partition_by(EVALUATION, maintain_order=True) if found.height else []
    return viewer.page(
        request,
        "leaderboard.html",
        columns=[name for name in COLUMNS if name != "checkpoint_id"],
        evaluations=[
            {
                "title": title(part.row(0, named=True)),
                "rows": [cells(row) for row in part.to_dicts()],
                "chart": {
                    "label": "accuracy in %, of k answers to a question, with one standard error over questions",
                    "zero": False,
                    "rows": [_point(row, names) for row in part.drop_nulls("rank").to_dicts()],
                },
            }
            for part in parts
        ],
    )


def _point(row: dict[str, object], names: dict[str, str]) -> dict[str, object]:
    mean, error = float(str(row["accuracy"])), row["standard_error"]
    reach = None if error is None else float(str(error))
    return {
        "name": f"{names[str(row['checkpoint_id'])]}, k={row['num_samples']}",
        "mean": mean,
        "low": None if reach is None else mean - reach,
        "high": None if reach is None else mean + reach,
    }
