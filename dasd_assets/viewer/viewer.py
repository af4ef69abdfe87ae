"""What every page of the viewer has: the tables, the recipe by whose rules they are shown, and the templates."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dasd_assets.audit.checkpoint import incomplete
from dasd_assets.audit.pages.question import other_line
from dasd_assets.rules.checkpoints import current_checkpoints, undistilled_student
from dasd_assets.rules.statistics.comparison import corrected_p_text
from dasd_assets.viewer import links
from dasd_assets.viewer.coloured import runs, shown_text
from dasd_assets.viewer.explore_rows import ExploreRows
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake
from dasd_resources.visible_text import excerpt_line, visible

FRAGMENT = "HX-Request"  # htmx asks for a part of a page


@dataclass(frozen=True)
class Viewer:
    """dagster: address of Dagster's web UI, to which runs and assets link."""

    lake: Lake
    recipe: Recipe
    dagster: str = links.DEFAULT_DAGSTER

    @cached_property
    def rows(self) -> ExploreRows:
        return ExploreRows(self.lake, self.recipe)

    @cached_property
    def _templates(self) -> Environment:
        """Everything that is written into a page is escaped; a name that a page lacks is an error."""
        found = Environment(
            loader=PackageLoader("dasd_assets.viewer"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        found.filters |= {
            "excerpt": lambda text, length=160: excerpt_line(str(text), length),
            "linked": lambda text: links.linked(visible(str(text))),
            "shown": lambda text: shown_text(str(text)),
            "runs": lambda text: runs(str(text)),
            "prob": lambda value: "–" if value is None else f"{value:.3f}",
            "incomplete": incomplete,
            "other_line": other_line,
            "p_value": lambda p_holm, num: "–" if p_holm is None else corrected_p_text(p_holm, num),
            "short": lambda identity: str(identity)[:8],
            "share": lambda value: "–" if value is None else f"{100 * value:.1f} %",
        }
        found.globals |= {
            "place": links.place,
            "asked": links.asked,
            "run_link": lambda run: links.dagster_run(self.dagster, run),
            "asset_link": lambda asset: links.dagster_asset(self.dagster, asset),
            "recipe": self.recipe,
            "dagster_host": urlsplit(self.dagster).netloc,
        }
        return found

    def page(self, request: Request, template: str, status: int = 200, **values: object) -> HTMLResponse:
        """A page, or the part of one that a template is, filled in."""
        text = self._templates.get_template(template).render(path=request.url.path, query=request.url.query, **values)
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)

    def models(self) -> list[Mapping[str, object]]:
        """The recipe's checkpoints now in force: teacher, student and those trained, in order."""
        return list(current_checkpoints(self.lake, self.recipe).to_dicts())

    def student(self) -> str | None:
        """Fingerprint of the undistilled student; None before it is registered."""
        return undistilled_student(self.lake, self.recipe)
