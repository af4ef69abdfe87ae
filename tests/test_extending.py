"""A filter, a score, a table with its stage, a verifier, an engine and a temperature more, through the whole pipeline.

No production file is touched: each is an entry of a catalogue, or a stage passed to `build_definitions`, as
docs/extending.md shows it. What the page prints is the code of `extensions.py` and `response_lengths.py`.
"""

import re
import shutil
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import response_lengths
from conftest import Project, RealProject, change, prompt_rows
from extensions import ADDED_FILTERS, ADDED_SCORES, RESPONSE_LENGTHS, Entry, extended
from reached import versions_reached
from test_declarations import code_versions, compute_functions
from test_engine_catalogue import on_engine

from dasd_assets.audit.verify import verify
from dasd_assets.commands.summary import summary
from dasd_assets.definitions import STAGES, Stage
from dasd_assets.mixed_policy.continuations import current_continuations
from dasd_assets.records.partitions import batches
from dasd_assets.rules.filters.catalogue import FILTERS, required_filters
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.rules.scores import SCORES
from dasd_assets.service.automation import batch_tick, training_tick
from dasd_assets.service.jobs import DATA_ONLY
from dasd_assets.service.planning import Planner
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.verifiers.catalogue import VERIFIERS, Verifier
from dasd_resources.verifiers.final_answer import compare_final_answer

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
JUDGED = ("response_verdicts", "continuation_verdicts")
EXTENDED: list[Stage] = [*STAGES, response_lengths]
FILTER, SCORE, TABLE, ENGINE = "brevity", "max_probability_token", "response_lengths", "chain_sums"


@dataclass(frozen=True)
class Run:
    """A home after a run with what was added, and what the run made."""

    project: Project
    made: set[str]


@pytest.fixture(scope="module")
def before(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A home that was finished without any of it; from then on, and for this module alone, it is in the catalogues."""
    copied = Project(tmp_path_factory.mktemp("before") / "home", finished.recipe)
    shutil.copytree(finished.home, copied.home)
    with extended():
        yield copied


@pytest.fixture(scope="module")
def added(before: Project, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of that home, brought up to date with it."""
    recipe = change(before.recipe, "selection.score", SCORE)
    project = Project(tmp_path_factory.mktemp("added") / "home", recipe, stages=EXTENDED, warns=True)
    shutil.copytree(before.home, project.home)
    project.run()
    return Run(project, project.materialized)


@pytest.fixture(scope="module")
def begun(before: Project, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An empty home, with all of it from the beginning: three temperatures, and every model on the added engine."""
    recipe = on_engine(change(before.recipe, "selection.score", SCORE))
    recipe = change(recipe, "generation.temperatures", [0.6, 0.8, 1.0])
    project = RealProject(tmp_path_factory.mktemp("begun"), recipe, stages=EXTENDED, warns=True)
    project.land("a.jsonl", [{**row, "verifier": "items"} for row in prompt_rows(0, 9)])
    project.run()
    return Run(project, project.materialized)


@pytest.fixture(params=["added", pytest.param("begun", marks=pytest.mark.drill)])
def run(request: pytest.FixtureRequest) -> Run:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Run)
    return found


def test_a_filter_judges_every_response_and_continuation(run: Run) -> None:
    project = run.project
    query = "SELECT count(*), count(*) FILTER (passed) FROM response_verdicts WHERE filter = $filter"
    num_judged, num_passed = project.read(query, filter=FILTER).row(0)
    assert num_judged == project.count("responses")
    assert 0 < num_passed < num_judged
    kinds = "SELECT DISTINCT kind FROM response_verdicts WHERE filter = $filter AND NOT passed"
    assert project.read(kinds, filter=FILTER)["kind"].to_list() == ["too_wordy"]
    continuations = current_continuations(project.warehouse, project.engines, project.recipe)["continuation_id"]
    query = "SELECT continuation_id FROM continuation_verdicts WHERE filter = $filter"
    assert set(project.read(query, filter=FILTER)["continuation_id"]) == set(continuations) != set()


def test_a_filter_decides_what_is_selected_and_trained_on(run: Run) -> None:
    assert FILTER in required_filters(require_correct=False)
    query = """SELECT max(length(text)) FROM responses
        WHERE response_id IN (SELECT response_id FROM {table} WHERE response_id IS NOT NULL)"""
    for table in ("selected_responses", "sft_examples"):
        assert run.project.read(query.format(table=table)).item() <= 200


def test_a_filter_has_its_check_and_its_figure(run: Run) -> None:
    key = dg.AssetCheckKey(dg.AssetKey("response_verdicts"), f"drop_rate_{FILTER}")
    spec = run.project.definitions.resolve_asset_graph().get_check_spec(key)
    assert spec.description == f"It drops few: {ADDED_FILTERS[FILTER].drops}."
    with run.project.instance() as instance:
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.event is not None and record.event.dagster_event is not None
    evaluation = record.event.dagster_event.asset_check_evaluation_data
    assert evaluation.metadata["limit"].value == 0.3
    assert evaluation.metadata["total"].value > 0
    assert f"failed_{FILTER}" in run.project.metadata("response_verdicts")
    assert f"- `{FILTER}`: {ADDED_FILTERS[FILTER].drops}" in description(run.project, "response_verdicts")


def test_a_score_is_of_every_response_and_ranks_them(run: Run) -> None:
    project = run.project
    assert project.read("SELECT DISTINCT score_name FROM selected_responses")["score_name"].to_list() == [SCORE]
    scored = project.read(f"SELECT count(*) FROM response_scores WHERE score_name = '{SCORE}'").item()
    assert scored == project.read("SELECT count(DISTINCT response_id) FROM response_scores").item() > 0
    highest = project.read(
        f"""SELECT s.score, (SELECT max(x.score) FROM response_scores x WHERE x.score_name = '{SCORE}'
            AND x.response_id IN (SELECT response_id FROM selected_responses WHERE dataset = 't100')) AS highest
        FROM selected_responses s WHERE s.dataset = 't100' AND s.policy = 'das' AND s.rank = 1"""
    )
    assert highest["score"].max() == pytest.approx(highest["highest"].max())
    assert f"- `{SCORE}`: {ADDED_SCORES[SCORE].meaning}" in description(project, "response_scores")


def description(project: Project, asset: str) -> str:
    return str(project.definitions.resolve_asset_graph().get(dg.AssetKey(asset)).description)


def test_a_table_is_filled_per_batch_described_and_counted(run: Run) -> None:
    project = run.project
    assert project.count(TABLE) == project.count("responses")
    node = project.definitions.resolve_asset_graph().get(dg.AssetKey(TABLE))
    assert node.is_partitioned
    columns = {column.name: column for column in node.metadata["dagster/column_schema"].columns}
    assert list(columns) == list(RESPONSE_LENGTHS.column_names)
    assert str(columns["num_tokens"].description).startswith("Tokens as sampled. ← [teacher_generations_t060]")
    with project.instance() as instance:
        known = batches(instance)
        assert instance.get_materialized_partitions(dg.AssetKey(TABLE)) == set(known)
        text = summary(instance, project.definitions, project.warehouse, project.engines, project.recipe)
    assert re.search(rf"^  {TABLE} +{project.count(TABLE)}$", text, re.MULTILINE)
    assert re.search(rf"^  T=1 +{FILTER} ", text, re.MULTILINE)
    figures = project.metadata(TABLE)
    assert figures["dagster/row_count"] == project.count(TABLE)
    assert float(str(figures["mean_num_tokens"])) > 0


def test_the_audit_finds_nothing_wrong_and_a_planted_fault(run: Run, tmp_path: Path) -> None:
    assert [str(fault) for fault in verify(run.project.warehouse)] == []
    copied = tmp_path / "home"
    shutil.copytree(run.project.home, copied)
    project = Project(copied, run.project.recipe)
    with project.warehouse.commit("a hand") as transaction:
        for statement in (
            f"UPDATE {TABLE} SET response_id = 'nobody' WHERE num_tokens = (SELECT max(num_tokens) FROM {TABLE})",
            f"UPDATE response_verdicts SET passed = TRUE, kind = NULL, reason = NULL WHERE filter = '{FILTER}'",
            f"UPDATE response_scores SET score = 9 WHERE score_name = '{SCORE}'",
            "INSERT INTO response_scores SELECT * REPLACE ('no_score' AS score_name) FROM response_scores LIMIT 1",
        ):
            transaction.read(statement)
    said: list[str] = []
    titles = (f"{TABLE}.response_id, batch", "response_verdicts", "types and scores")
    found = "\n".join(map(str, project.faults(*titles, say=said.append)))
    assert f"{TABLE} response_id nobody" in found
    assert f" {FILTER}: its verdict is passed, its text gives failed (too_wordy" in found
    assert f"its {SCORE} is 9.0 of" in found
    assert "  1 row of response_scores not made again: there is no score 'no_score'" in said


def test_what_a_removed_entry_left_is_counted_not_accused(added: Run) -> None:
    project, said = added.project, list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(FILTERS, FILTER)
        patch.delitem(SCORES, SCORE)
        titles = (*JUDGED, "types and scores", "selected scores")
        assert project.faults(*titles, say=said.append) == []
    counts = {table: project.read(f"SELECT count(*) FROM {table} WHERE filter = '{FILTER}'").item() for table in JUDGED}
    for table, number in counts.items():
        assert f"  {number} verdicts in {table} not given again: there is no filter '{FILTER}'" in said
    number = project.read(f"SELECT count(*) FROM response_scores WHERE score_name = '{SCORE}'").item()
    assert f"  {number} rows of response_scores not made again: there is no score '{SCORE}'" in said


def test_a_second_run_finds_nothing_to_do(run: Run) -> None:
    assert run.project.run() == 0


def test_what_was_finished_before_is_not_made_again(added: Run, before: Project) -> None:
    """Neither a generation nor a forward pass of a response, nor a verdict of the filters that there were."""
    fake = added.project.fake
    assert {"prompts", "response_verdicts", "response_scores", TABLE} <= added.made  # prompts, for the verifier
    for table in ("responses", "student_logprobs"):  # the steps after `prompts` run, and find nothing missing
        rows = f"SELECT response_id, run_id FROM {table} ORDER BY response_id"
        assert added.project.read(rows).equals(before.read(rows))
    responses = set(before.read("SELECT response_id FROM responses")["response_id"])
    assert not responses & {*fake.generated, *fake.scored}
    query = f"SELECT * FROM response_verdicts WHERE filter <> '{FILTER}' ORDER BY response_id, filter"
    assert added.project.read(query).equals(before.read(query))  # the runs that wrote them included
    scores = f"SELECT * FROM response_scores WHERE score_name <> '{SCORE}' ORDER BY ALL"
    assert added.project.read(scores).equals(before.read(scores))


def test_an_entry_makes_stale_exactly_what_applies_its_catalogue(tiny: Recipe) -> None:
    def made_stale(catalogue: MutableMapping[str, Entry]) -> set[str]:
        versions = code_versions(tiny)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(catalogue, "another", next(iter(catalogue.values())))
            return {asset for asset, version in code_versions(tiny).items() if version != versions[asset]}

    applying = {name for name, made in compute_functions(tiny).items() if "FILTER_VERSION" in versions_reached(made)}
    assert made_stale(FILTERS) == applying - {"evaluation_metrics"}  # which applies one of them, by its name
    assert {"response_verdicts", "selected_responses_t060", "continuation_verdicts"} <= applying
    assert made_stale(SCORES) == {"response_scores"}
    assert made_stale(VERIFIERS) == {"prompts"}


@pytest.mark.drill
def test_a_line_that_lacked_its_verifier_comes_in_when_it_is_added(project: Project) -> None:
    """And no line that was in is asked or judged again."""
    rows = prompt_rows(0, 9)
    project.land("a.jsonl", [*rows[:8], {**rows[8], "verifier": "numbers"}])
    project.run()
    assert project.read("SELECT kind FROM rejected_prompts")["kind"].to_list() == ["unknown_verifier"]
    before = project.read("SELECT response_id, filter, run_id FROM response_verdicts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VERIFIERS, "numbers", Verifier(lambda text, asked: compare_final_answer(text, asked, str.__eq__)))
        project.run()
        assert (project.count("prompts"), project.count("rejected_prompts")) == (9, 0)
        rows_now = project.read("SELECT response_id, filter, run_id FROM response_verdicts")
        assert rows_now.join(before, on=before.columns, how="semi").height == before.height < rows_now.height
        assert project.run() == 0


@pytest.mark.drill
def test_all_that_was_added_ran_from_an_empty_home(begun: Run) -> None:
    project = begun.project
    for table in ("responses", "student_logprobs"):
        assert project.read(f"SELECT DISTINCT engine FROM {table}")["engine"].to_list() == [ENGINE]
    assert project.count("evaluations") > 0
    assert project.read("SELECT DISTINCT verifier FROM prompts")["verifier"].to_list() == ["items"]
    assert project.count("rejected_prompts") == 0
    right = project.read("SELECT DISTINCT passed, kind FROM response_verdicts WHERE filter = 'correctness'").rows()
    assert {(True, None), (False, "wrong_answer")} <= set(right)
    assert {"teacher_generations_t080", "selected_responses_t080", "sft_dataset_t080"} <= begun.made
    temperatures = project.read("SELECT DISTINCT temperature FROM responses ORDER BY ALL")["temperature"]
    assert temperatures.to_list() == [0.6, 0.8, 1.0]
    datasets = set(project.read("SELECT DISTINCT dataset FROM sft_examples")["dataset"])
    assert datasets == {"t060", "t080", "t100", "mixed"}


def test_the_service_makes_an_added_table_with_its_batch(added: Run, tmp_path: Path) -> None:
    """What has batches is made by the data job, whether or not a dataset is made from it; training leaves it alone."""
    home = tmp_path / "home"
    shutil.copytree(added.project.home, home)
    project = Project(home, added.project.recipe, stages=added.project.stages)
    with project.instance() as instance:
        instance.wipe_assets([dg.AssetKey(TABLE)])
        planner = Planner(instance, project.definitions, project.recipe, project.engines, project.warehouse)
        requests = batch_tick(planner, batches(instance)[-1]).run_requests or []
        assert {(request.partition_key, tuple(request.asset_selection or ())) for request in requests} == {
            (batch, (dg.AssetKey(TABLE),)) for batch in batches(instance)
        }
        assert isinstance(training_tick(planner), dg.SkipReason)
    job = project.definitions.resolve_job_def(DATA_ONLY)
    assert dg.AssetKey(TABLE) in job.asset_layer.executable_asset_keys


def test_a_recipe_that_names_a_score_is_refused_without_its_entry(added: Run) -> None:
    recipe = added.project.recipe
    check_names(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(SCORES, SCORE)
        message = rf"^selection\.score: there is no score '{SCORE}'; there are teacher_share"
        with pytest.raises(RecipeError, match=message):
            check_names(recipe)


SOURCES = [(ROOT / "tests" / name).read_text(encoding="utf-8") for name in ("extensions.py", "response_lengths.py")]


def blocks(kind: str) -> list[str]:
    """The page's blocks of code of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_prints_the_code_that_ran_here() -> None:
    assert len(blocks("python")) > 5
    assert [block for block in blocks("python") if not any(block in source for source in SOURCES)] == []


@pytest.mark.parametrize("diff", blocks("diff"))
def test_a_diff_of_the_page_applies_to_the_file_it_names(diff: str) -> None:
    head, *lines = diff.splitlines()
    text = (ROOT / head.removeprefix("--- ")).read_text(encoding="utf-8")
    assert "\n".join(line[1:] for line in lines if line.startswith(" ")) + "\n" in text
    added = [line[1:] for line in lines if line.startswith("+")]
    assert added
    assert not set(added) & set(text.splitlines())


def test_every_filter_and_score_stands_on_the_page() -> None:
    filters = {name: entry.drops for name, entry in FILTERS.items() if name not in ADDED_FILTERS}
    scores = {name: entry.meaning for name, entry in SCORES.items() if name not in ADDED_SCORES}
    for name, meaning in {**filters, **scores}.items():
        assert f"| `{name}` | {meaning} |" in PAGE, f"docs/extending.md lists every filter and score; add {name}"


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:dasd_assets|dasd_resources|tests|docs)/[\w/.-]+\.(?:py|yaml|md))`", PAGE))
    assert len(named) > 10
    made_on_the_page = {"dasd_assets/response_lengths.py", "dasd_resources/inference/chain_sums_engine.py"}
    assert {name for name in named - made_on_the_page if not (ROOT / name).is_file()} == set()
