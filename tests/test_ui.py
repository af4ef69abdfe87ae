"""The web UI as a person uses it, in headless Chromium: the graph, a batch materialized by clicks, what its pages show.

`make test-ui` runs it (marker `ui`). The service is the real one, over a home in which a file has landed: it makes the
batch by itself, and only then does the person come. DASD_SCREENSHOTS names a folder to keep pictures in.
"""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, ClassVar

import pytest
import yaml
from PIL import Image
from unfriendly import HOST, unfriendly_home

from dasd_assets.definitions import build_definitions
from dasd_assets.records.code_versions import MADE_WITH
from dasd_assets.rules.scores import SCORES
from dasd_resources.demo.questions import questions, write_rows
from dasd_resources.home import VIEWER, WORKSPACE
from dasd_resources.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.ui

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW = 600.0  # seconds: two cores, busy with the other tests
NUM_QUESTIONS = 6
WINDOW = {"width": 1600, "height": 900}
RECIPE = load_recipe("demo")
NUM_RESPONSES = NUM_QUESTIONS * RECIPE.generation.num_candidates * len(RECIPE.generation.temperatures)
GRAPH = build_definitions(RECIPE, Path()).resolve_asset_graph()
ASSETS = {key.to_user_string(): GRAPH.get(key).group_name for key in GRAPH.toposorted_asset_keys}


@dataclass(frozen=True)
class Service:
    """A running `dasd ui`; what the test waits for is asked of its API, what a person does is done in the page."""

    url: str
    log: Path

    def ask(self, query: str) -> dict[str, object]:
        request = urllib.request.Request(
            f"{self.url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer: dict[str, dict[str, object]] = json.load(reply)
        assert "errors" not in answer, answer
        return answer["data"]

    def is_settled(self) -> bool:
        """Whether the service has made the batch's data and selected from it, and has nothing in hand."""
        data = self.ask("""{
            runsOrError { ... on Runs { results { status } } }
            assetOrError(assetKey: {path: ["sft_dataset_t100"]}) { ... on Asset { assetMaterializations { runId } } }
        }""")
        runs, asset = data["runsOrError"], data["assetOrError"]
        assert isinstance(runs, dict) and isinstance(asset, dict)
        statuses = {run["status"] for run in runs["results"]}
        assert "FAILURE" not in statuses, data
        return bool(asset.get("assetMaterializations")) and statuses == {"SUCCESS"}

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SLOW
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except OSError:  # not listening yet
                pass
            time.sleep(1)
        pytest.fail(f"no {what} within {SLOW:.0f} s; the end of the service's log:\n{self.log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`dasd ui` with the demo recipe over a fresh home, when it has made the data of six questions that landed."""
    home = tmp_path_factory.mktemp("ui") / "home"
    write_rows(home / "prompts" / "sums.jsonl", list(islice(questions("prompts"), NUM_QUESTIONS)))
    command = [sys.executable, "-m", "dasd_assets.cli", "ui"]
    with running(home.parent / "log.txt", command, {"DASD_HOME": str(home)}) as started:
        started.wait_for(started.is_settled, "finished batch")
        yield started


@contextmanager
def running(log: Path, command: list[str], homes: dict[str, str]) -> Iterator[Service]:
    """The web UI that a command serves on `--port`, once it answers. homes: what its environment names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DASD_", "DAGSTER_"))}
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env={**environment, **homes},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    started = Service(f"http://127.0.0.1:{port}", log)
    try:
        started.wait_for(lambda: urllib.request.urlopen(f"{started.url}/server_info").status == 200, "web UI")
        yield started
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def page() -> Iterator["Page"]:
    """A page of 1600 × 900 in headless Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no Chromium found: install it (Debian: apt-get install chromium)"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        opened = browser.new_page(viewport=WINDOW)
        opened.set_default_timeout(SLOW * 1000)
        yield opened
        browser.close()


def keep(page: "Page", name: str) -> None:
    """A picture of the page, if DASD_SCREENSHOTS names a folder; few colours keep it small."""
    if folder := os.environ.get("DASD_SCREENSHOTS"):
        path = Path(folder) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.wait_for_load_state("networkidle")
        picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def test_the_graph_shows_every_group_and_asset(service: Service, page: "Page") -> None:
    expanded = "%2C".join(f"global%40global%3A{group}" for group in dict.fromkeys(ASSETS.values()))
    page.goto(f"{service.url}/asset-groups?expanded={expanded}")
    page.get_by_text("Hide navigation").click()
    page.evaluate("localStorage.setItem('asset-graph-direction', JSON.stringify('vertical'))")
    page.set_viewport_size({"width": 3000, "height": 3600})  # the UI draws no names where they would be too small
    page.reload()

    def all_drawn() -> bool:
        drawn = page.locator("svg foreignObject").evaluate_all("nodes => nodes.map(node => node.textContent)")
        return all(any(is_short_for(text, name) for text in drawn) for name in [*ASSETS, *ASSETS.values()])

    service.wait_for(all_drawn, "whole graph")
    keep(page, "graph")
    page.set_viewport_size(WINDOW)


def is_short_for(text: str, name: str) -> bool:
    """Whether a node of the graph shows a name, whole or with its middle left out."""
    head, cut, tail = text.partition("…")
    return name.startswith(head) and name.endswith(tail) if cut else text == name


def test_a_batch_is_materialized_by_clicks(service: Service, page: "Page") -> None:
    page.goto(f"{service.url}/assets/response_scores")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("All", exact=True).click()
    page.get_by_role("button", name=re.compile("Launch 1 run")).click()
    page.get_by_role("link", name="View", exact=True).click()
    page.get_by_text("Success", exact=True).first.wait_for()
    page.get_by_text('Finished execution of step "response_scores"').first.wait_for()
    keep(page, "run")


def test_an_assets_page_shows_count_plot_and_checks(service: Service, page: "Page") -> None:
    page.goto(f"{service.url}/assets/response_scores")
    page.get_by_text("Row count").first.wait_for()
    page.get_by_text(str(NUM_RESPONSES * len(SCORES)), exact=True).first.wait_for()
    page.get_by_text("One row per response and score").first.wait_for()
    keep(page, "asset")
    page.get_by_text("[Show Markdown]").first.click()
    assert width_of(page.locator("img[alt=plot]").first) > 300
    keep(page, "plot")


def test_the_checks_of_an_asset_have_passed(service: Service, page: "Page") -> None:
    page.goto(f"{service.url}/assets/teacher_generations_t100?view=checks")
    page.get_by_text("prefill_parity", exact=True).first.click()
    page.get_by_text(re.compile("tokens of .* responses agree")).first.wait_for()
    page.get_by_text("Passed", exact=True).first.wait_for()
    keep(page, "checks")


class Bait(BaseHTTPRequestHandler):
    """Answers everything, so that nothing is tried twice, and notes what was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def bait() -> Iterator[str]:
    """The address of a server that nothing on any page may ask."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Bait) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}"  # which a browser takes for this machine
        server.shutdown()


@pytest.fixture(scope="module")
def unfriendly(tmp_path_factory: pytest.TempPathFactory, tiny: Recipe, bait: str) -> Iterator[Service]:
    """The web UI alone, without a daemon, over a home in which everything that others write is hostile."""
    with ThreadPoolExecutor(1) as apart:  # from Playwright, whose event loop runs in this thread
        project = apart.submit(unfriendly_home, tmp_path_factory.mktemp("unfriendly"), tiny, bait).result()
    recipe = project.home.parent / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(project.recipe.model_dump(mode="json")))
    homes = {"DASD_HOME": str(project.home), "DAGSTER_HOME": str(project.home / "dagster"), "DASD_RECIPE": str(recipe)}
    command = [sys.executable, "-m", "dagster_webserver", "--workspace", str(WORKSPACE)]
    with running(project.home.parent / "log.txt", command, homes) as started:
        yield started


# Pages that show what others wrote: sample rows, what a check found, every text as code.
UNFRIENDLY = [
    "prompts",
    "teacher_generations_t060",
    "selected_responses_t060",
    "student_rollouts",
    "benchmark_questions",
    "evaluations",
    "prompts?view=checks&checkDetail=duplicate_questions",
    "prompts?view=checks&checkDetail=no_quarantined_batches",
    "teacher_generations_t060?view=checks&checkDetail=failed_requests",
    "teacher_generations_t060?view=checks&checkDetail=prefill_parity",
]


def test_nothing_that_others_wrote_is_loaded_or_linked(unfriendly: Service, page: "Page", bait: str) -> None:
    """Questions, domains, answers, responses, reasons and a file's name, where the UI shows them."""
    page.goto("about:blank")  # what the tests before have opened asks its own service for news
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    links = dict[str, list[str]]()
    for path in UNFRIENDLY:
        page.goto(f"{unfriendly.url}/assets/{path}")
        page.get_by_text("Latest execution" if "?" in path else MADE_WITH).first.wait_for()
        if path.endswith("duplicate_questions"):
            page.get_by_text("All of them:").wait_for()
        page.wait_for_function("text => document.body.innerText.includes(text)", arg=f"://{HOST}")  # theirs are there
        page.wait_for_load_state("networkidle")
        links[path] = page.locator("a[href]").evaluate_all("links => links.map(link => link.href)")
        keep(page, f"unfriendly-{path.replace('?', '-')}")
    assert Bait.asked == []
    assert [url for url in requested if not url.startswith((unfriendly.url, "data:", "blob:"))] == []
    assert [url for url in requested if "mutation" in url] == []  # which Dagster carries out, whatever asks for it
    theirs = [link for found in links.values() for link in found if HOST in link or "mutation" in link]
    to_a_batch = (f"{unfriendly.url}/assets/", f"{VIEWER}/explore?batch=")  # in the UI's pages, in the viewer's
    assert [link for link in theirs if not link.startswith(to_a_batch)] == []
    page.evaluate("address => fetch(address, {mode: 'no-cors'})", f"{bait}/really")
    assert Bait.asked == ["/really"]  # it would have seen a request


def width_of(picture: "Locator") -> int:
    """Pixels of a picture that the browser could decode; 0 for one that it could not."""
    picture.wait_for()
    width: int = picture.evaluate("image => image.decode().then(() => image.naturalWidth, () => 0)")
    return width
