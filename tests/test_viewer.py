"""`dasd view` by plain requests: pages of a finished home, who may ask, and texts that are never HTML."""

import html
import math
import re
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest
from conftest import Project, change
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from dasd_assets.audit.pages.response import response_page
from dasd_assets.audit.response import audit_response, typed_sentences
from dasd_assets.experiments.cells import write_cell
from dasd_assets.rules.answers import ANSWER_ID
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_assets.viewer.access import Access
from dasd_assets.viewer.app import create_app
from dasd_assets.viewer.checkpoints import _chosen
from dasd_assets.viewer.coloured import runs, shown_text
from dasd_assets.viewer.command import CannotServe, _listen
from dasd_assets.viewer.explore import Condition, _histogram
from dasd_assets.viewer.explore_rows import _VERDICTS, FOUND, NUM_SEARCHES, ExploreRows
from dasd_assets.viewer.links import asked, linked
from dasd_assets.viewer.markup import pieces
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake

HOSTILE = (Path(__file__).parent / "data" / "hostile_texts.txt").read_text(encoding="utf-8").split("\n%%\n")


def client_of(project: Project, access: Access | None = None) -> TestClient:
    return client_to(Viewer(Lake(home=str(project.home)), project.recipe), access)


def client_to(viewer: Viewer, access: Access | None = None) -> TestClient:
    app = create_app(viewer, access or Access.to("127.0.0.1"))
    return TestClient(app, base_url="http://127.0.0.1:3001", follow_redirects=False)


@pytest.fixture(scope="module")
def client(finished: Project) -> TestClient:
    return client_of(finished)


@pytest.fixture(scope="module")
def ids(finished: Project) -> dict[str, str]:
    """Of one response that the student has scored, and its question."""
    query = """SELECT response_id, prompt_id, batch, text FROM responses
        WHERE response_id IN (SELECT response_id FROM sentence_probabilities) ORDER BY response_id LIMIT 1"""
    return dict(Lake(home=str(finished.home)).read(query).row(0, named=True))


def test_explore_shows_filters_and_pages_what_there_is(client: TestClient, finished: Project) -> None:
    lake = Lake(home=str(finished.home))
    total = lake.read("SELECT count(*) FROM responses").item()
    assert f"<strong>{total:,}</strong> responses" in client.get("/explore").text
    cold = lake.read("SELECT count(*) FROM responses WHERE temperature = 0.6").item()
    page = client.get("/explore?temperature=0.6&sort=length&order=asc").text
    assert f"<strong>{cold:,}</strong> responses" in page
    lengths = [int(cell.replace(",", "")) for cell in re.findall(r'<td class="num">([\d,]+)</td><td><span', page)]
    assert lengths == sorted(lengths) and lengths
    word = "The answer is"
    found = lake.read(f"SELECT count(*) FROM responses WHERE contains(text, '{word}')").item()
    assert f"<strong>{found:,}</strong> responses" in client.get(asked("/explore", q=word.upper())).text
    wrong = "SELECT count(DISTINCT response_id) FROM response_verdicts WHERE filter = 'correctness' AND NOT passed"
    assert f"<strong>{lake.read(wrong).item():,}</strong> responses" in client.get("/explore?verdict=wrong").text
    for name in ("t060", "mixed", "another"):  # mixed: Dagster's page of it links here
        assert client.get(f"/explore?chosen={name}").text.count(f"<option selected>{name}</option>") == 1
    assert client.get("/explore?temperature=0.6", headers={"HX-Request": "true"}).text.lstrip().startswith("<p")


def test_explore_refuses_what_is_no_column_and_passes_text_as_a_parameter(client: TestClient) -> None:
    assert client.get("/explore?sort=rowid").status_code == 400
    assert client.get("/explore?score_min=much").status_code == 400
    answer = client.get(asked("/explore", q="' OR 1=1 --", batch="x'; DROP TABLE rows; --"))
    assert answer.status_code == 200 and "<strong>0</strong> responses" in answer.text
    assert client.get("/explore?path=x&number=2&size=1").status_code == 200  # names of our own functions' parameters


def test_explore_reads_a_home_that_was_written_to(copy: Project) -> None:
    viewer = Viewer(Lake(home=str(copy.home)), copy.recipe)
    viewer.rows.refresh()
    before = viewer.rows.read("SELECT count(*) FROM rows", {}).item()
    with viewer.lake.commit("test") as transaction:
        transaction.delete_keys("responses", {"temperature": 0.6}, "response_id", _some_responses(viewer.lake))
    viewer.rows._not_before = math.inf
    states = f"as of snapshot {viewer.rows.snapshot}; the home is at snapshot {viewer.lake.snapshot_id()}"
    assert states in client_to(viewer).get("/explore").text
    viewer.rows._not_before = 0.0
    for _ in range(200):
        viewer.rows.refresh()
        if viewer.rows.read("SELECT count(*) FROM rows", {}).item() == before - 3:
            return
    pytest.fail("the rows are as they were")


def test_what_a_search_found_stays_while_a_page_asks_for_it(finished: Project) -> None:
    viewer = Viewer(Lake(home=str(finished.home)), finished.recipe)
    viewer.rows.refresh()
    found = viewer.rows.search("the")
    assert viewer.rows.search("the") is found  # remembered
    for number in range(NUM_SEARCHES + 1):
        assert viewer.rows.search(f"no text has {number} of this").is_empty()
    query = f"SELECT count(*) FROM rows WHERE response_id IN (SELECT response_id FROM {FOUND})"
    assert viewer.rows.read(query, {FOUND: found}).item() == found.height > 0


def test_passed_is_every_required_verdict_and_wrong_what_a_verifier_decided() -> None:
    verdicts = [
        ("right", "length", True, None),
        ("right", "correctness", True, None),
        ("wrong", "length", True, None),
        ("wrong", "correctness", False, "wrong_answer"),
        *((kind, "correctness", False, kind) for kind in ("not_comparable", "verifier_failed")),
        ("no verifier", "correctness", True, "no_verifier"),
        ("no verifier", "length", True, None),
    ]
    memory = duckdb.connect()
    rows = pl.DataFrame(verdicts, schema=["response_id", "filter", "passed", "kind"], orient="row")
    memory.register("response_verdicts", rows.with_columns(filter_version=pl.lit("1"), value=pl.lit(1)))
    params = {"filters": ["length", "correctness"], "filter_version": "1"}
    found = {row[0]: (row[1], row[3]) for row in memory.sql(_VERDICTS, params=params).fetchall()}
    assert found == {
        "right": (True, True),
        "wrong": (False, False),
        "not_comparable": (False, None),
        "verifier_failed": (False, None),
        "no verifier": (True, None),
    }
    memory.register(
        "response_verdicts", rows.filter(filter="length").with_columns(filter_version=pl.lit("1"), value=pl.lit(1))
    )
    assert [row[1] for row in memory.sql(_VERDICTS, params=params).fetchall()] == [None, None, None]


@pytest.mark.parametrize(
    ("values", "bars"), [([0.62, 0.62], [(0.62, 0.62, 2)]), ([1.0, 2.0, 31.0], [(1, 2, 1), (2, 3, 1), (30, 31, 1)])]
)
def test_a_histogram_names_the_values_that_there_are(
    tiny: Recipe, tmp_path: Path, values: list[float], bars: list[tuple[float, float, int]]
) -> None:
    rows = ExploreRows(Lake(home=str(tmp_path)), tiny)
    rows._memory.register("rows", pl.DataFrame({"score": values, "correct": True}))
    expected = [{"low": low, "high": high, "verdict": "right", "num": num} for low, high, num in bars]
    assert _histogram(rows, Condition("TRUE", {}), "score", "score") == {"name": "score", "bars": expected}


def _some_responses(lake: Lake) -> list[str]:
    query = "SELECT response_id FROM responses WHERE temperature = 0.6 ORDER BY response_id LIMIT 3"
    return lake.read(query)["response_id"].to_list()


def test_a_response_has_its_sentences_scores_and_the_audits_words(client: TestClient, ids: dict[str, str]) -> None:
    page = client.get(f"/response/{ids['response_id']}").text
    shown = re.findall(r'class="sentence (\w+)" data-index="(\d+)"', page)
    assert [int(index) for _, index in shown] == list(range(len(shown))) and shown
    assert {kind for kind, _ in shown} <= {"teacher", "student", "close", "untyped"}
    assert "teacher_share" in page and f"/question/{ids['prompt_id']}" in page
    [part] = re.findall(r'hx-get="(/response/[^"]+/reach)"', page)
    reach = client.get(part).text
    assert "Why chosen, or why not" in reach and "chosen" in reach and "What learned from it" in reach
    tokens = client.get(f"/response/{ids['response_id']}/sentence/0").text
    assert "teacher&#39;s tokens" in tokens or "teacher's tokens" in tokens
    assert "chosen" in client.get(f"/response/{ids['response_id']}/selection").text
    assert client.get(f"/response/{ids['response_id'][:12]}").status_code == 200
    assert client.get("/response/ffff").status_code == 404


def test_what_another_student_scored_is_said_to_be_its(
    client: TestClient, finished: Project, ids: dict[str, str]
) -> None:
    """On the page by a recipe whose student has scored nothing; `dasd audit` has no recipe, and names each student."""
    page, said = f"/response/{ids['response_id']}", "not by this recipe"
    assert said not in client.get(page).text
    other = client_of(replace(finished, recipe=change(finished.recipe, "name", "other"))).get(page).text
    student = finished.read("SELECT checkpoint_id FROM checkpoints WHERE name = 'student'").item()
    assert "Scored by student" in other.partition(said)[0] and f'title="{student}"' in other.partition(said)[0]
    assert f"{said}'s rule: student {student[:8]}" in html.unescape(other)
    with finished.warehouse.reading() as reading:
        audit = response_page(audit_response(reading, ids["response_id"]))
    assert f"sentences, under student {student}, rule" in audit


def test_the_slider_takes_any_threshold_of_a_recipe(finished: Project, ids: dict[str, str]) -> None:
    strict = change(finished.recipe, "selection.divergence", {"measure": "log", "threshold": 7.0123})
    page = client_of(replace(finished, recipe=strict)).get(f"/response/{ids['response_id']}").text
    assert 'min="0" max="7.0123" step="any" value="7.0123"' in page


def test_sentences_are_of_the_asked_student_first_then_of_todays_segmenter() -> None:
    def first(student: str) -> tuple[str, str]:
        keys = [("a", "0"), ("a", SEGMENTER_VERSION), ("b", "0")]
        rows = [{"student_fingerprint": s, "segmenter_version": v, "sentence_index": 0, "types": {}} for s, v in keys]
        [row] = typed_sentences(rows, student, None)
        return row["student_fingerprint"], row["segmenter_version"]

    assert [first("a"), first("b"), first("c")] == [("a", SEGMENTER_VERSION), ("b", "0"), ("a", SEGMENTER_VERSION)]
    assert typed_sentences([], "a", None) == []


def test_the_tokens_of_a_sentence_add_up_to_its_stored_sums(finished: Project) -> None:
    from dasd_assets.viewer.response_tokens import _SENTENCE, tokens_within

    lake = Lake(home=str(finished.home))
    some = lake.read("SELECT response_id, batch FROM sentence_probabilities GROUP BY ALL ORDER BY ALL LIMIT 5")
    for identity, batch in some.iter_rows():
        for index in range(3):
            params = {"id": identity, "batch": batch, "index": index, "student": "", "segmenter": ""}
            for row in lake.read(_SENTENCE, params).to_dicts():
                for model in ("teacher", "student"):
                    tokens = tokens_within(row, model)
                    assert len(tokens) == row[f"{model}_num_tokens"]
                    total = sum(token["logprob"] for token in tokens)
                    assert total == pytest.approx(row[f"{model}_sum_logprob"], abs=1e-4)


def test_a_question_has_all_candidates_and_what_it_touched(client: TestClient, ids: dict[str, str]) -> None:
    page = client.get(f"/question/{ids['prompt_id']}").text
    assert page.count("<article") >= 2 and ids["response_id"] in page and "✓ structure" in page
    assert ids["response_id"] in client.get(f"/question/{ids['prompt_id']}/reach").text


def test_a_question_says_what_keeps_it_out_of_training(copy: Project, ids: dict[str, str]) -> None:
    """As `dasd audit prompt` does: of one that is retired, held out by a recipe, and in a benchmark."""
    client, retired = client_of(copy), "e" * 32
    line = {"batch": ids["batch"], "source_file": "earlier.jsonl", "source_line": 7}
    known = {"prompt_id": ids["prompt_id"], "domain": "math", "says": "", "retired_id": retired}
    left_out = {"kind": "held_out", "reason": "question 1 of benchmark b", "prompt_id": retired}
    rule = {"recipe": "careful", "dataset": "t060", "rule": '{"held_out_share": 1.0}', "selected_at": datetime.now(UTC)}
    with copy.warehouse.commit("test") as transaction:
        transaction.append_missing("prompt_lines", pl.DataFrame([line | known]))
        transaction.append_missing("rejected_prompts", pl.DataFrame([line | left_out]))
        transaction.append_missing("selection_rules", pl.DataFrame([rule]))
    page = client.get(f"/question/{retired}").text
    named = re.search(r'retired</dt><dd>the same question is prompt <a class="id" href="([^"]+)"', page)
    assert named is not None and named[1] == f"/question/{ids['prompt_id']}"
    assert "<dt>held out</dt><dd>no stage of recipe careful is trained on it" in page
    assert "<dt>left out</dt><dd>earlier.jsonl, line 7: question 1 of benchmark b" in page


def test_any_id_leads_to_its_page_and_text_to_a_search(client: TestClient, ids: dict[str, str]) -> None:
    assert client.get(f"/find?id={ids['response_id'][:16]}").headers["location"] == f"/response/{ids['response_id']}"
    assert client.get(f"/find?id={ids['prompt_id']}").headers["location"] == f"/question/{ids['prompt_id']}"
    assert client.get("/find?id=some+words").headers["location"] == "/explore?q=some+words"
    assert client.get("/find?id=Decade").headers["location"] == "/explore?q=Decade"  # a word of hexadecimal digits
    assert client.get(f"/find?id={'f' * 16}").status_code == 404


def test_rollouts_and_continuations_show_both_authors(client: TestClient, finished: Project) -> None:
    lake = Lake(home=str(finished.home))
    row = lake.read("SELECT * FROM teacher_continuations ORDER BY continuation_id LIMIT 1").row(0, named=True)
    page = client.get(f"/continuation/{row['continuation_id']}").text
    assert "author-student" in page and "author-teacher" in page and row["rollout_id"] in page
    assert row["continuation_id"] in client.get("/mixed").text
    assert row["continuation_id"] in client.get(f"/rollout/{row['rollout_id']}").text
    assert client.get("/mixed?show=passed").status_code == 200 and client.get("/mixed?show=x").status_code == 400
    query = "SELECT example_id, continuation_id FROM sft_examples WHERE continuation_id IS NOT NULL LIMIT 1"
    for example, continuation in lake.read(query).iter_rows():
        assert client.get(f"/example/{example}").headers["location"] == f"/continuation/{continuation}"


def test_a_rollout_is_listed_once_with_the_verdict_that_training_goes_by(copy: Project) -> None:
    """Whatever filters that are only recorded, earlier filters and another continuation temperature have left."""
    client = client_of(copy)
    before = counts_of(client.get("/mixed").text)
    taught = "SELECT count(DISTINCT continuation_id) FROM sft_examples WHERE continuation_id IS NOT NULL"
    assert before["all rollouts"] == copy.count("student_rollouts")
    assert before["continued, passed all required filters"] == copy.read(taught).item() > 0
    with copy.warehouse.commit("test") as transaction:
        verdicts = transaction.read("SELECT * FROM continuation_verdicts")
        recorded = verdicts.with_columns(passed=pl.col("passed") & (pl.col("filter") != "box"))
        transaction.replace("continuation_verdicts", {"filter_version": verdicts["filter_version"][0]}, recorded)
        earlier = verdicts.with_columns(filter_version=pl.lit("earlier"), passed=pl.lit(False))
        transaction.append_missing("continuation_verdicts", earlier)
        hotter = transaction.read("SELECT * FROM teacher_continuations").with_columns(
            pl.col("temperature") + 0.1, continuation_id=pl.lit("hotter ") + pl.col("continuation_id")
        )
        transaction.append_missing("teacher_continuations", hotter)
    assert counts_of(client.get("/mixed").text) == before


def test_verdicts_of_earlier_filters_are_folded(copy: Project) -> None:
    """On the pages of a response and of a continuation."""
    client = client_of(copy)
    response = copy.read("SELECT min(response_id) FROM response_verdicts").item()
    continuation = copy.read("SELECT min(continuation_id) FROM continuation_verdicts").item()
    pages = [f"/response/{response}", f"/continuation/{continuation}"]
    before = [client.get(page).text for page in pages]
    assert not any("earlier versions" in page for page in before)
    with copy.warehouse.commit("test") as transaction:
        for table in ("response_verdicts", "continuation_verdicts"):
            verdicts = transaction.read(f"SELECT * FROM {table}")
            earlier = verdicts.with_columns(filter_version=pl.lit("0"), reason=pl.lit("as it was"))
            transaction.append_missing(table, earlier)
    for page, known in zip(pages, before, strict=True):
        shown, _, folded = client.get(page).text.partition("by earlier versions of the filters")
        assert "as it was" not in shown and folded.count("as it was") > 1
        assert known.startswith(shown.removesuffix("<details><summary>"))


def counts_of(page: str) -> dict[str, int]:
    """What a page counts, by the words of the link that shows it."""
    found = re.findall(r'>([^<]+)</a> <span class="num">([\d,]+)</span>', page)
    return {words: int(number.replace(",", "")) for words, number in found}


def test_checkpoints_are_compared_by_what_became_right(client: TestClient, finished: Project) -> None:
    lake = Lake(home=str(finished.home))
    names = dict(lake.read("SELECT name, checkpoint_id FROM checkpoints").iter_rows())
    setting = lake.read("SELECT benchmark, temperature FROM evaluations ORDER BY ALL LIMIT 1").row(0)
    shares = {
        name: dict(
            lake.read(
                """SELECT question_id, avg(correct::INT) FROM evaluations WHERE checkpoint_id = $id
                    AND benchmark = $benchmark AND temperature = $temperature GROUP BY ALL""",
                {"id": names[name], "benchmark": setting[0], "temperature": setting[1]},
            ).iter_rows()
        )
        for name in ("teacher", "student")
    }
    gained = {key for key, share in shares["teacher"].items() if share >= 0.5 > shares["student"][key]}
    address = asked(
        "/checkpoints",
        first=names["student"],
        second=names["teacher"],
        benchmark=setting[0],
        temperature=setting[1],
        change="gained",
    )
    page = client.get(address).text
    assert set(re.findall(r"/checkpoints/question/([0-9a-f]+)", page)) == gained
    question = min(shares["teacher"])
    beside = client.get(f"/checkpoints/question/{question}?temperature={setting[1]}").text
    assert all(names[name] in beside for name in ("teacher", "student")) and "/answer/" in beside
    answer = re.findall(r"/answer/([0-9a-f]+)", beside)[0]
    assert question in client.get(f"/answer/{answer}").text
    assert "everything agrees" in client.get(f"/checkpoint/{names['t060']}").text
    assert client.get("/checkpoints?first=ffff").status_code == 404


@pytest.mark.parametrize(
    ("evaluated", "compared"),
    [
        ("teacher student t060 t100", ("student", "t100")),
        ("student t060 t100", ("student", "t100")),
        ("teacher student", ("teacher", "student")),
        ("teacher t060", ("teacher", "t060")),
        ("student", ("student", "student")),
    ],
)
def test_the_student_and_the_last_checkpoint_are_compared(evaluated: str, compared: tuple[str, str]) -> None:
    models = [{"checkpoint_id": name, "model": name} for name in evaluated.split()]
    setting = {"benchmark": "b", "temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "models": evaluated.split()}
    of_recipe = [{"checkpoint_id": name, "name": name} for name in ("teacher", "student", "t060", "t100")]
    for current in (of_recipe, []):
        chosen = _chosen(current, {}.get, [setting], models)
        assert (chosen["first"], chosen["second"]) == compared


def test_models_are_compared_in_a_setting_in_which_they_were_asked() -> None:
    """Whatever other models of the home were asked; a benchmark that is asked for has a temperature of its own."""
    models = [{"checkpoint_id": name, "model": name} for name in ("student", "t100")]
    limits = {"top_p": 1.0, "max_tokens": 9}
    settings = [
        {"benchmark": "a", "temperature": 0.6, "models": ["guest"], **limits},
        {"benchmark": "b", "temperature": 1.0, "models": ["student", "t100"], **limits},
    ]

    def setting(**given: str) -> tuple[object, ...]:
        chosen = _chosen([], given.get, settings, models)
        return chosen["benchmark"], chosen["temperature"], chosen["max_tokens"]

    assert setting() == setting(benchmark="b") == ("b", 1.0, 9)
    assert setting(benchmark="a") == setting(temperature="0.6") == ("a", 0.6, 9)
    assert setting(benchmark="b", max_tokens="10") == ("b", 1.0, 9)
    assert setting(benchmark="b", temperature="0.6") == ("b", 0.6, None)  # nobody was asked so


def test_answers_of_another_token_limit_are_apart(copy: Project) -> None:
    """In a home that has asked in one way alone, no page speaks of limits."""
    client = client_of(copy)
    names = dict(copy.read("SELECT name, checkpoint_id FROM checkpoints").iter_rows())
    pages = [f"/checkpoint/{names['t060']}", f"/checkpoints?first={names['student']}&second={names['t060']}"]
    assert not any("at most" in client.get(page).text for page in pages)
    longer = copy.read(
        "SELECT * EXCLUDE run_id FROM evaluations WHERE list_contains($ids, checkpoint_id)",
        ids=[names["t060"], names["student"]],
    ).with_columns(
        max_tokens=pl.lit(3000, pl.Int32),
        correct=pl.col("checkpoint_id") == names["t060"],
        evaluation_id="x" + pl.col("evaluation_id"),
    )
    with copy.warehouse.commit("test") as transaction:
        transaction.append_missing("evaluations", longer)
    client = client_of(copy)
    assert "3,000 tokens" in client.get(pages[0]).text
    chosen = client.get(f"{pages[1]}&max_tokens=3000&top_p=1").text
    assert "<option selected>3000</option>" in chosen
    gained = re.search(r'was wrong, now right</a> <span class="num">(\d+)</span>', chosen)
    assert gained is not None and int(gained[1]) == copy.count("benchmark_questions")
    question = copy.read("SELECT min(question_id) FROM benchmark_questions").item()
    assert "at most 3,000" in client.get(f"/checkpoints/question/{question}").text


def test_a_question_in_two_benchmarks_has_the_answers_to_each(copy: Project) -> None:
    """As where one file is asked with another instruction; there, the student alone was asked, once."""
    client = client_of(copy)
    student = copy.read("SELECT checkpoint_id FROM checkpoints WHERE name = 'student'").item()
    question = copy.read("SELECT * FROM benchmark_questions ORDER BY question_id LIMIT 1")
    identity = question["question_id"][0]
    page = f"/checkpoints/question/{identity}"
    before = client.get(page).text
    answer = """SELECT * EXCLUDE run_id FROM evaluations WHERE question_id = $id AND checkpoint_id = $student
        ORDER BY sample_index LIMIT 1"""
    right = copy.read(answer, id=identity, student=student).with_columns(
        benchmark=pl.lit("shouted"),
        instruction=pl.lit("SHOUT"),
        correct=True,
        evaluation_id="x" + pl.col("evaluation_id"),
    )
    with copy.warehouse.commit("test") as transaction:
        again = question.with_columns(benchmark=pl.lit("shouted"), instruction=pl.lit("SHOUT"))
        transaction.append_missing("benchmark_questions", again)
        transaction.append_missing("evaluations", right)
    here, there = (client.get(asked(page, benchmark=name)).text for name in ("held_out", "shouted"))
    assert here.count("<article") == before.count("<article") > 1 and "of 2 right" in here
    assert there.count("<article") == 1 and "1 of 1 right" in there
    assert all(f"{page}?benchmark={name}" in text for text in (here, there) for name in ("held_out", "shouted"))
    assert f"{page}?benchmark=shouted" in client.get(f"/answer/{right['evaluation_id'][0]}").text
    listed = client.get(asked("/checkpoints", first=student, second=student, benchmark="shouted")).text
    assert re.findall(r"/checkpoints/question/[^?]+[?]benchmark=(\w+)", listed) == ["shouted"]
    assert client.get(asked(page, benchmark="another")).status_code == 404


def test_failed_requests_are_wrong_and_said_with_what_is_still_to_come(copy: Project) -> None:
    """Both answers of the student to a question that the teacher has right failed; one to another never came."""
    names = dict(copy.read("SELECT name, checkpoint_id FROM checkpoints").iter_rows())
    student, teacher = names["student"], names["teacher"]
    right = "SELECT question_id FROM evaluations WHERE checkpoint_id = $id AND correct ORDER BY question_id LIMIT 1"
    [failing] = copy.read(right, id=teacher)["question_id"]
    answers = copy.read("SELECT * EXCLUDE run_id FROM evaluations WHERE checkpoint_id = $id", id=student)
    failed, others = answers.filter(question_id=failing), answers.filter(pl.col("question_id") != failing)
    failure = {"asset": "evaluations", "kind": "engine_error", "reason": "r", "num_attempts": 3}
    with copy.warehouse.commit("test") as transaction:
        transaction.replace("evaluations", {"checkpoint_id": student}, others.tail(-1))
        rows = [{"request_id": key, **failure, "failed_at": datetime.now(UTC)} for key in failed["evaluation_id"]]
        transaction.append_missing("failed_requests", pl.DataFrame(rows))
    nothing = {"dataset": None, "policy": None, "dataset_id": None, "num_examples": 0, "num_tokens": 0, "num_steps": 0}
    stage = {"stage": 0, "checkpoint_id": student, **nothing}
    write_cell(copy.warehouse, "test", copy.recipe, "grid", ("student", 42), [stage])
    client = client_of(copy)
    experiments = client.get("/experiments").text
    assert "Answers of its checkpoints: 2 failed, 1 missing. What failed counts as wrong." in experiments
    assert re.search(r"held_out T=1: [0-9.]+ % \(2 failed, 1 missing\)", experiments)
    assert f"{others.height - 1}, 2 failed, 1 missing" in client.get(f"/checkpoint/{student}").text
    page = client.get(f"/checkpoints?first={student}&second={teacher}&change=gained").text
    assert "2 failed, 1 missing. What failed counts as wrong" in page and f"/question/{failing}" in page
    assert "missing" not in client.get(f"/checkpoints?first={names['t060']}&second={teacher}").text
    assert "0 of 2 right, 2 failed" in client.get(f"/checkpoints/question/{failing}").text


def test_an_answer_is_among_those_to_the_same_prompt(copy: Project) -> None:
    client = client_of(copy)
    some = "SELECT * EXCLUDE run_id FROM evaluations WHERE evaluation_id = (SELECT min(evaluation_id) FROM evaluations)"
    row = copy.read(some)
    of_question = """SELECT count(*) FROM evaluations SEMI JOIN (FROM evaluations WHERE evaluation_id = $id)
        USING (checkpoint_id, benchmark, question_id, temperature)"""
    total = copy.read(of_question, id=row["evaluation_id"][0]).item()
    page = f"/answer/{row['evaluation_id'][0]}"
    assert f"of {total} " in client.get(page).text
    identity = pl.col("evaluation_id")
    others = [
        row.with_columns(template_version=pl.lit("another system prompt"), evaluation_id="x" + identity),
        row.with_columns(max_tokens=pl.lit(3000, pl.Int32), evaluation_id="y" + identity),
        row.with_columns(verifier_version=pl.lit("another"), evaluation_id="z" + identity),
    ]
    with copy.warehouse.commit("test") as transaction:
        transaction.append_missing("evaluations", pl.concat(others))
    assert f"of {total} " in client.get(page).text
    assert "answer 1 of 1 " in client.get(f"/answer/{others[0]['evaluation_id'][0]}").text


def test_a_held_out_question_without_a_reference_answer_has_none_on_its_pages(copy: Project) -> None:
    client = client_of(copy)
    question, answer = copy.read("SELECT question_id, evaluation_id FROM evaluations ORDER BY ALL LIMIT 1").row(0)
    pages = [f"/checkpoints/question/{question}", f"/answer/{answer}"]
    assert all("reference answer" in client.get(page).text for page in pages)
    row = copy.read("SELECT * FROM benchmark_questions WHERE question_id = $id", id=question)
    with copy.warehouse.commit("test") as transaction:
        none = row.with_columns(reference_answer=pl.lit(None, pl.String))
        transaction.replace("benchmark_questions", {"question_id": question}, none)
    assert not any("reference answer" in client.get(page).text for page in pages)


def test_an_answers_sentences_are_those_under_the_recipes_models(copy: Project) -> None:
    """Whatever other students and teachers it was scored under, with fingerprints before theirs."""
    client = client_of(copy)
    scored = f"""SELECT evaluation_id FROM (SELECT *, {ANSWER_ID} AS answer_id FROM evaluations)
        SEMI JOIN answer_sentences USING (answer_id, checkpoint_id) ORDER BY evaluation_id LIMIT 1"""
    page = f"/answer/{copy.read(scored).item()}"
    before = client.get(page).text
    sentences = copy.read("SELECT * EXCLUDE run_id FROM answer_sentences")
    others = [sentences.with_columns(pl.lit("0").alias(f"{model}_fingerprint")) for model in ("student", "teacher")]
    with copy.warehouse.commit("test") as transaction:
        transaction.append_missing("answer_sentences", pl.concat(others))
    assert 'class="sentence' in before and client.get(page).text == before


def test_results_of_the_home_have_pages(client: TestClient) -> None:
    board = client.get("/leaderboard").text
    assert "avg@k" in board and '"name": "tiny teacher, k=2"' in board
    assert "No experiment" in client.get("/experiments").text


def test_only_names_of_this_machine_are_answered(client: TestClient) -> None:
    for host in ("127.0.0.1:3001", "localhost:3001", "[::1]:3001"):
        assert client.get("/nowhere", headers={"host": host}).status_code == 404
    for host in ("evil.example:3001", "127.0.0.1.evil.example", "", "192.168.1.7:3001"):
        assert client.get("/nowhere", headers={"host": host}).status_code == 400
    assert client.post("/explore").status_code == 405


def test_for_others_a_token_is_asked(finished: Project) -> None:
    access = Access.to("0.0.0.0", ["box.lan"])
    assert access.token is not None and access.token not in repr(access)
    client = client_of(finished, access)
    assert client.get("/explore").status_code == client.get("/static/keys.js").status_code == 403
    assert client.get("/explore?token=wrong").status_code == 403
    entered = client.get(f"/explore?token={access.token}&sort=length")
    assert entered.status_code == 303 and entered.headers["location"] == "/explore?sort=length"
    assert "HttpOnly" in entered.headers["set-cookie"] and "SameSite=strict" in entered.headers["set-cookie"]
    assert client.get("/explore").status_code == 200
    assert client.get("/explore", headers={"host": "box.lan:3001"}).status_code == 200
    assert client.get("/explore", headers={"host": "10.1.2.3:3001"}).status_code == 200
    assert client.get("/explore", headers={"host": "evil.example"}).status_code == 400
    beside = Access.to("0.0.0.0")
    other = client_of(finished, beside)  # at another port of this host, whose cookies a browser sends to both
    other.get(f"/explore?token={beside.token}", headers={"host": "127.0.0.1:3002"})
    client.cookies.update(other.cookies)
    assert client.get("/explore").status_code == 200
    elsewhere = client.get(f"//evil.example/?token={access.token}")
    assert not elsewhere.headers.get("location", "/x").startswith("//")


def test_every_answer_has_the_policy(client: TestClient) -> None:
    for path in ("/explore", "/nowhere", "/static/keys.js"):
        headers = client.get(path).headers
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_html(copy_with_text: "TestedText", text: str) -> None:
    page = copy_with_text.page(text)
    body = page.partition('id="text"')[2].partition("</div>")[0]
    tags = set(re.findall(r"</?([a-zA-Z]+)", body))
    assert tags <= {"span"}, tags
    assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", body))


class TestedText:
    """A page whose response says what a test wants, without a warehouse behind it."""

    __test__ = False

    def __init__(self, viewer: Viewer) -> None:
        self._template = viewer._templates.from_string(
            '{% import "parts.html" as p with context %}<div id="text">{{ p.written(runs) }}</div>'
        )

    def page(self, text: str) -> str:
        half = len(text) // 2
        sentence = {"sentence_index": 0, "kind": "teacher", "teacher_prob": 0.5, "student_prob": None}
        counts = {"teacher_num_tokens": 3, "student_num_tokens": 0}
        return self._template.render(runs=runs(text, [{**sentence, **counts, "start": 0, "stop": half}]))


@pytest.fixture(scope="module")
def copy_with_text(finished: Project) -> TestedText:
    return TestedText(Viewer(Lake(home=str(finished.home)), finished.recipe))


def test_messages_link_ids_and_are_escaped() -> None:
    told = str(linked(f"<b> response {'a1' * 16} has 0.5"))
    assert told.startswith("&lt;b&gt; response <a ") and f"/find?id={'a1' * 16}" in told


@given(st.text(alphabet="ab $*`#\\[]()\n_1", max_size=60))
def test_pieces_and_runs_tile_any_text(text: str) -> None:
    found = pieces(text)
    assert "".join(text[piece.start : piece.stop] for piece in found) == text
    third = len(text) // 3
    rows = [{"start": third, "stop": 2 * third}] if third else []
    assert "".join(piece.text for run in runs(text, rows) for piece in run.pieces) == shown_text(text)


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("so **bold** it is", "strong", "bold"),
        ("an *em* dash", "emphasis", "em"),
        ("call `f(x)` now", "code", "f(x)"),
        ("# Title\nrest", "heading", "Title"),
        ("```python\nx = '*a*'\n```", "block", "x = '*a*'\n"),
        (r"then \(x^2\) is", "formula", "x^2"),
        ("then $x_1$ is", "formula", "x_1"),
        ("so\n$$\na*b*c\n$$\n", "display", "\na*b*c\n"),
        (r"\[ \frac12 \]", "display", r" \frac12 "),
    ],
)
def test_markup_is_found(text: str, kind: str, part: str) -> None:
    assert [(p.kind, text[p.start : p.stop]) for p in pieces(text) if p.kind not in ("text", "mark")] == [(kind, part)]


@pytest.mark.parametrize("text", ["2 * 3 * 4 = 24", "it costs $5 and $6", "snake_case_name", "a ** b ** c", "5 * 4"])
def test_arithmetic_and_prices_are_no_markup(text: str) -> None:
    assert [piece.kind for piece in pieces(text)] == ["text"]


@pytest.mark.parametrize("unit", ["\\[", "$$", "\\(", "```\n", "**a", "$a ", "`", "*a ", "# \n", "```x\n", "\n \n"])
def test_hostile_markup_costs_little(unit: str) -> None:
    import time

    began = time.process_time()
    pieces(unit * (60_000 // len(unit)))
    assert time.process_time() - began < 2


def test_what_is_hidden_is_shown_and_lines_stay() -> None:
    assert shown_text("a\u202eb\n\tc\x1b") == "a\\u202eb\n\tc\\x1b"


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CannotServe, match="give another --port"):
            _listen("127.0.0.1", taken.getsockname()[1])


def test_the_address_that_is_printed_has_the_token_and_a_name_that_is_answered() -> None:
    assert Access.to("127.0.0.1").address(3001) == "http://127.0.0.1:3001/"
    published = Access.to("0.0.0.0", ["127.0.0.1", "dasd.example.org"])
    assert published.address(3001) == f"http://127.0.0.1:3001/?token={published.token}"
    everywhere = Access.to("::", ["::1"])
    assert everywhere.address(80) == f"http://[::1]:80/?token={everywhere.token}"


def test_an_access_keeps_its_token_to_itself() -> None:
    assert Access.to("localhost").token is None
    assert replace(Access.to("10.0.0.1"), token="abc").accepts_token("abc")
    assert not replace(Access.to("10.0.0.1"), token="abc").accepts_token(None)
