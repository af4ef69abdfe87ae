"""`dasd view` as a person uses it, in headless Chromium: its flows, hostile texts, contrast, a small window.

`make test-ui` runs it (marker `ui`). DASD_SCREENSHOTS names a folder to keep pictures in.
"""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import polars as pl
import pytest
import uvicorn
from conftest import Project
from test_viewer import HOSTILE

from dasd_assets.viewer.access import Access
from dasd_assets.viewer.app import create_app
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.storage.lake import Lake

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.ui

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SMALL = {"width": 1000, "height": 700}
SLOW = 300_000  # milliseconds: two cores, busy with the other tests
ENOUGH = 4.5  # WCAG AA, of small text
FORMULAS = r"""<think>
We want $\sum_{k=1}^{n} k^2$, which \(n = 4\) makes $\frac{180}{6}$. The tickets are $5 and $7.
\[ A = \begin{pmatrix} 1 & 2 \\
3 & 4 \end{pmatrix} \]
No formula: $\frac{1$.
</think>
Thus $\boxed{30}$."""
# Of each element that has text of its own: the contrast of its colour with what lies behind it.
CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(linear);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = rgba(getComputedStyle(at).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    return [...document.querySelectorAll("body *")]
        .filter((e) => e.checkVisibility() && !e.closest("svg, option, script, meter") && e.getClientRects().length)
        .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
        .map((e) => {
            const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            return { what: `${e.tagName}.${e.className}: ${e.textContent.slice(0, 30)}`, ratio };
        });
}"""


@dataclass(frozen=True)
class Site:
    """A running viewer, and ids of rows that it has."""

    url: str
    ids: dict[str, str]
    hostile: tuple[str, ...]  # responses whose texts are those of HOSTILE
    formulas: str  # one whose text is FORMULAS

    @property
    def pages(self) -> dict[str, str]:
        ids = self.ids
        return {
            "explore": "/explore?sort=length",
            "response": f"/response/{ids['response']}",
            "question": f"/question/{ids['prompt']}",
            "mixed": "/mixed",
            "continuation": f"/continuation/{ids['continuation']}",
            "checkpoints": "/checkpoints",
            "side_by_side": f"/checkpoints/question/{ids['question']}",
            "answer": f"/answer/{ids['answer']}",
            "checkpoint": f"/checkpoint/{ids['checkpoint']}",
            "leaderboard": "/leaderboard",
            "experiments": "/experiments",
            "error": "/response/ffff",
        }


@pytest.fixture(scope="module")
def site(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A viewer over a copy of the finished home in which some responses say the worst that we could think of."""
    home = tmp_path_factory.mktemp("viewer") / "home"
    shutil.copytree(finished.home, home)
    lake = Lake(home=str(home))
    query = """SELECT * FROM responses WHERE response_id IN (SELECT response_id FROM sentence_probabilities)
        ORDER BY response_id LIMIT $count"""
    rows = lake.read(query.replace("$count", str(len(HOSTILE) + 1)))
    texts = [text.ljust(len(old)) for text, old in zip((*HOSTILE, FORMULAS), rows["text"], strict=True)]
    with lake.commit("hostile texts") as transaction:
        for identity, text in zip(rows["response_id"], texts, strict=True):
            row = rows.filter(pl.col("response_id") == identity).with_columns(text=pl.lit(text))
            transaction.replace("responses", {"response_id": identity}, row)
    viewer = Viewer(lake, finished.recipe)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(viewer, Access.to("127.0.0.1")), log_level="warning")
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield Site(
        f"http://127.0.0.1:{listening.getsockname()[1]}",
        _ids(lake),
        tuple(rows["response_id"][:-1]),
        rows["response_id"][-1],
    )
    server.should_exit = True
    thread.join(timeout=20)


def _ids(lake: Lake) -> dict[str, str]:
    found = lake.read("""SELECT
        (SELECT max(response_id) FROM sentence_probabilities) AS response,
        (SELECT max_by(prompt_id, response_id) FROM responses SEMI JOIN sentence_probabilities USING (response_id))
            AS prompt,
        (SELECT min(continuation_id) FROM teacher_continuations) AS continuation,
        (SELECT min(question_id) FROM benchmark_questions) AS question,
        (SELECT min(evaluation_id) FROM evaluations) AS answer,
        (SELECT min(checkpoint_id) FROM checkpoints WHERE dataset IS NOT NULL) AS checkpoint""")
    return dict(found.row(0, named=True))


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no Chromium found: install it (Debian: apt-get install chromium)"
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    """A page of 1000 × 700; whatever is wrong in it by its own account fails the test."""
    opened = browser.new_page(viewport=SMALL)
    opened.set_default_timeout(SLOW)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    yield opened
    opened.close()
    assert [error for error in errors if "404 (Not Found)" not in error] == []


def keep(page: "Page", name: str) -> None:
    """A picture of the page, if DASD_SCREENSHOTS names a folder."""
    if folder := os.environ.get("DASD_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"viewer_{name}.png", animations="disabled")


def test_from_all_responses_to_one_by_keys_alone(site: Site, page: "Page") -> None:
    page.goto(f"{site.url}/explore")
    page.locator("figure svg").first.wait_for()
    page.locator("select[name=verdict]").select_option("right")
    page.wait_for_url("**verdict=right**")
    page.locator(".facet a[aria-current=true]", has_text="right").wait_for()
    page.locator("#results figure svg").first.wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.locator("tr.here").count() == 1
    page.keyboard.press("Enter")
    page.wait_for_url("**/response/**")
    page.keyboard.press("u")
    page.wait_for_url("**/question/**")
    page.locator("article .selections").first.wait_for()
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_back_from_a_filter_is_the_whole_page_as_it_was(site: Site, page: "Page") -> None:
    page.goto(f"{site.url}/explore")
    page.locator("figure svg").first.wait_for()
    page.locator("select[name=verdict]").select_option("right")
    page.wait_for_url("**verdict=right**")
    page.locator(".facet a[aria-current=true]", has_text="right").wait_for()
    page.go_back()
    page.locator(".facet a[aria-current=true]").wait_for(state="detached")
    page.locator("#filters").wait_for()
    page.locator("#results figure svg").first.wait_for()
    assert page.locator("select[name=verdict]").input_value() == ""


def test_enter_on_what_has_no_link_does_nothing(site: Site, page: "Page") -> None:
    address = site.url + site.pages["continuation"]
    page.goto(address)
    page.keyboard.press("j")
    assert page.locator("section.here").count() == 1 and page.locator("section.here a").count() == 0
    page.keyboard.press("Enter")
    assert page.url == address


def test_sentences_are_typed_anew_and_show_their_tokens(site: Site, page: "Page") -> None:
    page.goto(site.url + site.pages["response"])
    page.locator("[data-chart=curve] svg").wait_for()
    sentences = page.locator("#text .sentence")
    kinds = sentences.evaluate_all("all => all.map(one => one.className)")
    page.locator("#threshold").fill("1")
    assert page.locator("#text .sentence.teacher, #text .sentence.student").count() == 0
    page.locator("#threshold-reset").click()
    assert sentences.evaluate_all("all => all.map(one => one.className)") == kinds
    sentences.first.hover()
    assert page.locator("#inspector").inner_text().startswith("Sentence 1")
    sentences.first.click()
    page.locator("#inspector ol.tokens li").first.wait_for()
    before = sentences.first.inner_text()
    page.keyboard.press("r")
    assert page.evaluate("document.body.classList.contains('raw')") and sentences.first.inner_text() == before
    keep(page, "response")


@pytest.mark.parametrize("threshold", ["0.0123", "7.0123"])
def test_a_threshold_of_the_recipe_is_neither_rounded_nor_clamped(site: Site, page: "Page", threshold: str) -> None:
    def with_threshold(route: "Route") -> None:
        text = route.fetch().text()
        assert '"threshold": 0.1' in text
        route.fulfill(body=text.replace('"threshold": 0.1', f'"threshold": {threshold}'), content_type="text/html")

    page.route("**/response/*", with_threshold)
    page.goto(site.url + site.pages["response"])
    page.locator("[data-chart=curve] svg").wait_for()
    assert page.locator("#threshold").input_value() == page.locator("#threshold-value").inner_text() == threshold


def test_no_hostile_text_does_anything(site: Site, browser: "Browser") -> None:
    page = browser.new_page(viewport=SMALL)
    page.set_default_timeout(SLOW)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for identity in site.hostile:
        page.goto(f"{site.url}/response/{identity}", wait_until="networkidle")
        page.mouse.move(300, 500)
        page.locator("#text").click()
        assert page.evaluate("window.hacked") is None
        assert (
            page.locator("#text").evaluate(
                "text => text.querySelectorAll('script, img, iframe, a, style, base').length"
            )
            == 0
        )
        assert page.locator("iframe, object, embed").count() == 0
    assert {re.match(r"\w+://[^/]+", url)[0] for url in asked} == {site.url}  # type: ignore[index]
    page.close()


def test_formulas_are_drawn_and_their_source_is_one_key_away(site: Site, page: "Page") -> None:
    page.goto(f"{site.url}/response/{site.formulas}")
    text = page.locator("#text")
    text.locator("math").last.wait_for()
    assert text.locator("math").count() == 5
    assert text.locator("math mfrac").count() == 1
    assert text.locator(".md-display math mtable").count() == 1  # across two lines
    assert text.locator("menclose").evaluate("box => getComputedStyle(box).borderTopStyle") == "solid"
    assert r"$\frac{1$" in text.inner_text()  # no formula: as it was written
    assert "$5 and $7" in text.inner_text()
    page.keyboard.press("r")
    assert text.inner_text().strip() == FORMULAS


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_in_a_small_window(site: Site, browser: "Browser", scheme: str) -> None:
    context = browser.new_context(viewport=SMALL, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(SLOW)
    faults = []
    for name, address in site.pages.items():
        page.goto(site.url + address, wait_until="networkidle")
        if page.evaluate("document.documentElement.scrollWidth") > SMALL["width"]:
            faults.append(f"{name} is wider than the window")
        pale = [found for found in page.evaluate(CONTRAST) if found["ratio"] < ENOUGH]
        faults += [f"{name}: {found['what']} has contrast {found['ratio']:.2f}" for found in pale]
        if scheme == "light":
            keep(page, name)
    assert faults == []
    context.close()


def test_the_policy_lets_the_charts_style_in(site: Site, page: "Page") -> None:
    """The hash in the policy is that of the style sheet that Plot adds: a new version of Plot needs a new one."""
    page.goto(f"{site.url}/explore")
    page.locator("figure svg").first.wait_for()
    assert page.locator("figure svg").first.evaluate("svg => getComputedStyle(svg).display") == "block"
