"""`import dasd`: a home's tables in Python, read beside writers; a response in a notebook, its text never HTML."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from conftest import Project
from test_viewer import HOSTILE

import dasd
from dasd_assets.report.page import response_html
from dasd_assets.rules.typed_ids import AuditError
from docs_build.notebook import page, read, run


@pytest.fixture(scope="module")
def home(finished: Project) -> dasd.Home:
    return dasd.open(finished.home)


def test_a_frame_has_the_rows_of_its_table(home: dasd.Home, finished: Project) -> None:
    for table in ("prompts", "responses", "response_scores", "checkpoints", "lineage_examples", "withdrawn_prompts"):
        expected = finished.read(f"FROM {table}")
        assert home.table(table).collect().sort(pl.all().hash()).equals(expected.sort(pl.all().hash())), table
        assert home.relation(table).shape == expected.shape


def test_a_filter_may_name_a_column_of_a_table_that_is_referred_to(home: dasd.Home, finished: Project) -> None:
    in_sums = "FROM responses SEMI JOIN (FROM prompts WHERE domain = 'sums') USING (prompt_id)"
    expected = finished.read(f"SELECT response_id {in_sums} ORDER BY ALL")["response_id"].to_list()
    found = home.responses(domain="sums").select("response_id").collect()
    assert sorted(found["response_id"]) == expected != []
    assert home.relation("responses", domain="sums").shape[0] == len(expected)
    some = expected[:2]
    assert home.responses(response_id=some, temperature=[0.6, 1.0]).collect().height == 2
    assert home.responses(temperature=0.6, domain=("math", "sums")).collect()["temperature"].unique().to_list() == [0.6]
    query = f"SELECT count(*) AS n FROM sentence_types WHERE response_id IN (SELECT response_id {in_sums})"
    assert home.sentence_types(domain="sums").select(pl.len()).collect().item() == finished.read(query).item()
    untrained = home.checkpoints(parent_checkpoint_id=None).collect()
    assert set(untrained["name"]) == {"teacher", "student"}
    assert home.checkpoints(name="mixed").select("stage").collect().item() == 3
    assert home.checkpoints(name=[]).collect().is_empty()


def test_only_what_is_asked_for_is_read(home: dasd.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    queries: list[str] = []
    monkeypatch.setattr("dasd_resources.storage.lake.Reading.stream", _noted(queries))
    frame = home.responses(temperature=0.6)
    assert queries == []
    frame.filter(pl.col("sample_index") == 0).select("text").collect()
    frame.head(1).collect()
    assert re.match(r'SELECT "text", "sample_index" FROM|SELECT "sample_index", "text" FROM', queries[0])
    assert queries[1].endswith("LIMIT 1")


def test_a_cut_and_a_filter_are_done_in_the_order_in_which_they_are_asked(home: dasd.Home) -> None:
    frame, at = home.responses(), pl.col("temperature") == 0.6
    assert frame.head(5).filter(at | ~at).collect().height == 5
    assert frame.filter(at).head(5).collect()["temperature"].to_list() == [0.6] * 5
    assert frame.head(5).filter(pl.lit(False)).collect().is_empty()


def _noted(queries: list[str]) -> object:
    from dasd_resources.storage.lake import Reading

    stream = Reading.stream

    def noted(reading: Reading, query: str, params: dict[str, object], num_rows: int) -> object:
        queries.append(query)
        return stream(reading, query, params, num_rows)

    return noted


def test_a_frame_sees_what_is_written_and_a_snapshot_does_not(copy: Project) -> None:
    then, now = dasd.open(copy.home, at=copy.warehouse.snapshot_id()), dasd.open(copy.home)
    frames, relations = [
        [home.table("prefix_cuts") for home in (then, now)],
        [home.relation("prefix_cuts") for home in (then, now)],
    ]
    before = copy.count("prefix_cuts")
    row = {"rollout_id": ["r"], "cut_token": [1], "seed": [0], "cut_version": ["1"]}
    with copy.warehouse.commit("beside a reader") as transaction:
        assert now.prefix_cuts().collect().height == before
        transaction.append_missing("prefix_cuts", pl.DataFrame(row))
    assert [frame.collect().height for frame in frames] == [before, before + 1]
    assert [relation.shape[0] for relation in relations] == [before, before + 1]
    with pytest.raises(Exception, match="read-only"):
        now._connection.execute("DELETE FROM prefix_cuts")
    with now:
        assert now.sql("SELECT count(*) AS n FROM prefix_cuts")["n"].item() == before + 1
    then.close()


def test_errors_say_what_to_do(home: dasd.Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    with pytest.raises(dasd.NoHome, match=r"`dasd run` makes one; name another by dasd.open\(FOLDER\) or by DASD_HOME"):
        dasd.open()
    assert not list(tmp_path.iterdir())
    with pytest.raises(dasd.UnknownTable, match=r"no table 'respones'; there are prompts, .*did you mean responses\?"):
        home.respones()
    with pytest.raises(dasd.UnknownTable):
        home.table("; DROP TABLE prompts")
    with pytest.raises(dasd.UnknownColumn, match=r"a column 'domian'; responses has .*did you mean domain\?"):
        home.responses(domian="math")
    with pytest.raises(AuditError, match="response ids are 32 hexadecimal digits"):
        home.response("nothing")
    assert not hasattr(home, "respones") and hasattr(home, "responses") and "responses" in dir(home)


def test_a_response_is_coloured_by_its_types(home: dasd.Home, finished: Project) -> None:
    query = "SELECT min(response_id) AS id FROM sentence_types WHERE sentence_type = 'teacher'"
    identity = finished.read(query).item()
    response = home.response(identity[:8])
    assert response.response_id == identity and response.question in response._repr_html_().replace("&#39;", "'")
    types = finished.read(
        "SELECT sentence_type FROM sentence_types WHERE response_id = $id ORDER BY sentence_index", id=identity
    )
    assert response.sentences["sentence_type"].to_list() == types["sentence_type"].to_list()
    assert "".join(response.sentences["text"]) in response.text.replace("\n</think>\n", "") or response.sentences.height
    shown = response._repr_html_()
    assert shown.count('title="sentence ') == types.height
    assert f"{types.height} sentences" in repr(response)


class Elements(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, tuple[str, ...]]] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_a_model_wrote_is_never_html(hostile: str) -> None:
    probs = {"teacher_prob": 0.5, "student_prob": None}
    sentence = {"start": 0, "stop": len(hostile), "sentence_type": "teacher", **probs}
    plain = Elements(response_html("t", "q", "x", [{**sentence, "stop": 1}]))
    shown = Elements(response_html(hostile, hostile, hostile, [sentence]))
    assert shown.found == plain.found
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\u200b]", shown.text)


def test_the_notebook_runs_and_stores_what_it_shows(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = read()
    monkeypatch.setenv("DASD_HOME", str(finished.home))
    cells = [cell for cell in run(stored["cells"]) if cell["cell_type"] == "code"]
    before = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    for cell, old in zip(cells, before, strict=True):
        assert old["execution_count"] == cell["execution_count"]
        kinds = [sorted(output["data"]) for output in cell["outputs"]]
        assert kinds == [sorted(output["data"]) for output in old["outputs"]], cell["source"]
    assert cells[-1]["outputs"][0]["data"] == {"text/plain": ["True"]}
    shown = page(stored)
    assert shown.count("```python\n") == len(cells) and 'title="sentence 1: ' in shown


def test_it_starts_without_dagster() -> None:
    code = "import sys, dasd; print([name for name in ('dagster', 'torch', 'matplotlib') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
