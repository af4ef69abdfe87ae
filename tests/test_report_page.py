"""The report's page: whole without anything loaded, what others wrote only as text, and findings in right sentences."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from conftest import change

from dasd_assets.report.captions import captions
from dasd_assets.report.figures import pictures
from dasd_assets.report.findings import ReportData, figures_over_time, gains
from dasd_assets.report.one_response import OneResponse
from dasd_assets.report.page import PAGE, page, parts, write
from dasd_assets.report.wording import Interval, accuracy_interval, cut_off_direction, headline, sawtooth, verdict
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.sft.checkpoint import Progress

HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(2)> & \u202eabc\x1b[31m $\\frac{1}{2}$. Second one."
NAMES = pl.Enum(["teacher", "student", "t060"])


def outcomes(*rows: tuple[str, str, bool | None]) -> pl.DataFrame:
    schema = {"checkpoint": NAMES, "question_id": pl.String, "correct": pl.Boolean}
    return pl.DataFrame(list(rows), schema=schema, orient="row").with_columns(
        benchmark=pl.lit("sums"), temperature=pl.lit(1.0)
    )


ANSWERED = outcomes(
    *[("student", f"q{n}", n == 0) for n in range(10)],
    *[("t060", f"q{n}", n != 9) for n in range(10)],
    *[("teacher", f"q{n}", True) for n in range(10)],
)


def response(text: str, stop: int) -> OneResponse:
    sentences = {
        "start": [3, stop],
        "stop": [stop, len(text)],
        "teacher_prob": [0.9, None],
        "student_prob": [0.1, 0.5],
        "sentence_type": ["teacher", None],
    }
    return OneResponse("id0", "t100", text, 1.0, "mean", text, text, pl.DataFrame(sentences))


def data(shown: OneResponse | None = None) -> ReportData:
    counts = {"num_questions": [10], "num_answers": [20], "num_failed": [0], "num_missing": [0]}
    models = {"name": ["t060"], "checkpoint_id": ["c1"], "num_examples": [5], "num_steps": [2], "final_loss": [0.5]}
    models |= {"parent_checkpoint_id": ["c0"]}
    return ReportData(
        drops=pl.DataFrame({"temperature": [1.0], "filter": ["length"], "num_dropped": [1], "num_judged": [4]}),
        shares=pl.DataFrame({"position": [0.5], "correct": [True], "teacher_share": [0.25]}),
        teacher_share=pl.DataFrame({"correct": [True], "num_responses": [3], "teacher_share": [0.25]}),
        accuracies=pl.DataFrame(
            {"checkpoint": ["t060"], "benchmark": ["sums"], "temperature": [1.0], "accuracy": [0.9]}
            | {"standard_error": [0.1], **counts}
        ),
        checkpoints=pl.DataFrame(models),
        num_questions=10,
        responses=pl.DataFrame({"temperature": [1.0], "num_responses": [4]}),
        datasets=pl.DataFrame({"dataset": ["t100"], "num_selected": [2], "num_examples": [2], "num_tokens": [99]}),
        gains=gains(ANSWERED),
        response_probs={"T=1": [0.5, 0.6]},
        rollouts=pl.DataFrame({"reference_num_tokens": [10, 20], "cut_off": [False, True]}),
        losses={"t060": [Progress(1, 2, 1.0, 0.1, 10), Progress(2, 2, 0.5, 0.1, 20)]},
        response=shown,
    )


class Seen(HTMLParser):
    """Tags and attributes of a page, and the text of the spans with a title."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes = set[str](), list[tuple[str, str | None]]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("demo")


@pytest.fixture(scope="module")
def hostile(recipe: Recipe) -> str:
    found = data(response(HOSTILE, HOSTILE.index("Second")))
    return page(found, pictures(found), recipe)


def test_nothing_is_loaded_and_nothing_of_others_is_markup(hostile: str) -> None:
    seen = Seen(hostile)
    assert not seen.tags & {"script", "img", "image", "iframe", "object", "link", "form", "foreignobject"}
    assert [name for name, _ in seen.attributes if name.startswith("on") or name in ("src", "srcset")] == []
    targets = [value or "" for name, value in seen.attributes if name in ("href", "xlink:href")]
    assert [target for target in targets if not target.startswith("#")] == []
    assert re.findall(r"url\((?!#)", hostile) == []
    assert "default-src 'none'" in hostile and "script-src" not in hostile
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile
    assert "\\u202e" in hostile and "\x1b" not in hostile


def test_no_id_is_given_twice_and_every_link_leads_somewhere(hostile: str) -> None:
    seen = Seen(hostile)
    ids = [value for name, value in seen.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {(value or "")[1:] for name, value in seen.attributes if name in ("href", "xlink:href")}
    assert links | set(re.findall(r"url\(#([^)]+)\)", hostile)) <= set(ids)


def test_a_page_of_the_same_findings_is_the_same(recipe: Recipe, hostile: str) -> None:
    found = data(response(HOSTILE, HOSTILE.index("Second")))
    assert page(found, pictures(found), recipe) == hostile


def test_every_figure_has_a_title_a_caption_and_its_counterpart(recipe: Recipe) -> None:
    found = data()
    about = captions(found, recipe)
    assert set(about) == set(pictures(found))
    for one in about.values():
        assert one.title and one.look and re.search(r"Figure \d|§\d", one.answers)


def test_a_curve_that_is_gone_is_named(recipe: Recipe) -> None:
    gone = replace(data(), losses={})
    assert "Without a line: t060," in captions(gone, recipe)["training_loss"].look
    assert "Without a line" not in captions(data(), recipe)["training_loss"].look
    assert "<b>1</b> trained checkpoints" in page(gone, pictures(gone), recipe)


def test_a_home_with_nothing_yet_has_a_page(recipe: Recipe, tmp_path: Path) -> None:
    full = data()
    empty = {name: value.clear() for name, value in vars(full).items() if isinstance(value, pl.DataFrame)}
    nothing = ReportData(**{**vars(full), **empty, "num_questions": 0, "losses": {}, "response_probs": {}})
    write(nothing, pictures(nothing), recipe, tmp_path)
    text = (tmp_path / PAGE).read_text()
    assert "Nothing is evaluated yet" in text and "No response is selected" in text
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".png"}  # no temporary file
    assert figures_over_time(nothing) == {}


def test_sentences_count_from_1_and_no_text_is_lost() -> None:
    shown = response("ab\nFirst. Second.", 10)
    found = list(parts(shown.text, shown.sentences.to_dicts()))
    assert [part.number for part in found] == [None, 1, 2]
    assert "".join(part.text for part in found) == shown.text
    assert found[1].tip == "sentence 1: teacher; teacher 0.900, student 0.100"
    assert found[2].tip == "sentence 2: no type; teacher not known, student 0.500"


def test_the_gain_is_told_with_its_interval() -> None:
    text = headline(data())
    assert text.startswith("The student answered 10.0% of sums at T = 1 before and 90.0% after t060: +80.0 points [+")
    assert text.endswith("a gain that chance does not explain.")


def test_an_incomplete_evaluation_is_not_compared() -> None:
    assert gains(pl.concat([ANSWERED, outcomes(("t060", "q10", None))])).is_empty()
    assert gains(ANSWERED)["arm"].to_list() == ["t060"]
    assert gains(ANSWERED.filter(pl.col("checkpoint") != "student")).is_empty()


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.3, "a gain"), (-0.3, -0.1, "a loss"), (-0.1, 0.1, "may be chance"), (None, None, "not known")],
)
def test_a_verdict_is_that_of_the_interval(low: float | None, high: float | None, said: str) -> None:
    assert said in verdict(Interval(0.0, low, high))


def test_an_interval_is_within_what_an_accuracy_can_be() -> None:
    """Student's t of three degrees of freedom is 3.182, of 9 it is 2.262."""
    few, more = ({"accuracy": 0.5, "standard_error": 0.1, "num_questions": num} for num in (4, 10))
    assert accuracy_interval(few) == Interval(0.5, pytest.approx(0.1818, abs=1e-4), pytest.approx(0.8182, abs=1e-4))
    expected = Interval(0.99, pytest.approx(0.7638, abs=1e-4), 1.0)
    assert accuracy_interval({**more, "accuracy": 0.99}) == expected
    assert accuracy_interval({"accuracy": None, "standard_error": None}) is None


@pytest.mark.parametrize(
    ("short", "long", "said"),
    [(0, 40, "grows too"), (40, 0, "falls, the other way"), (20, 20, "no clear difference")],
)
def test_the_direction_of_the_cut_off_rate(short: int, long: int, said: str) -> None:
    cut = [*[n < short for n in range(40)], *[n < long for n in range(40)]]
    assert said in cut_off_direction(pl.DataFrame({"reference_num_tokens": list(range(80)), "cut_off": cut}))


def test_two_rollouts_show_no_direction() -> None:
    assert "no clear difference" in cut_off_direction(data().rollouts)


def test_the_sawtooth_is_explained_by_the_order_of_the_recipe(recipe: Recipe) -> None:
    assert "steps come in random order" in sawtooth(recipe)
    descending = change(recipe, "training.group_order", "descending")
    assert "from its longest rows to its shortest" in sawtooth(descending)
    assert "chance" in sawtooth(change(descending, "training.group_by_length", False))
