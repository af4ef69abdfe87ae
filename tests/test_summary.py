"""The page a run ends with: every number on it is one of the warehouse's."""

import re

import polars as pl
import pytest
from conftest import Project, change

from dasd_assets.commands.summary import seconds_of, summary
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_resources.storage.tables import TABLES


@pytest.fixture(scope="session")
def page(finished: Project) -> str:
    return page_of(finished)


def page_of(project: Project) -> str:
    with project.instance() as instance:
        return summary(instance, project.definitions, project.warehouse, project.engines, project.recipe)


def section(page: str, title: str) -> list[str]:
    [body] = re.findall(rf"^{title}\n((?:  .*\n?)+)", page, re.MULTILINE)
    return [line[2:] for line in body.splitlines()]


def test_row_counts(page: str, finished: Project) -> None:
    shown = {name: int(count.replace(",", "")) for name, count in (line.split() for line in section(page, "Rows"))}
    assert shown == {table: finished.count(table) for table, declared in TABLES.items() if declared.in_summary}
    assert shown["prompts"] == 15


def test_drops(page: str, finished: Project) -> None:
    query = """SELECT r.temperature, v.filter, sum((NOT v.passed)::INT) AS dropped, count(*) AS judged
        FROM responses r JOIN response_verdicts v USING (response_id) GROUP BY ALL ORDER BY ALL"""
    told = [f"T={t:g} {name} {dropped} of {judged}" for t, name, dropped, judged in finished.read(query).iter_rows()]
    assert [" ".join(line.split()) for line in section(page, "Responses dropped")] == told
    assert len(told) == len(finished.recipe.datasets) * len(FILTERS)


def test_teacher_shares_are_of_right_and_of_wrong_responses(page: str, finished: Project) -> None:
    query = """SELECT t.response_id, v.passed, t.sentence_type FROM sentence_types t
        JOIN response_verdicts v USING (response_id) WHERE v.filter = 'correctness' AND t.sentence_type IS NOT NULL"""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for (_, passed), part in finished.read(query).group_by("response_id", "passed"):
        shares[bool(passed)].append(part["sentence_type"].to_list().count("teacher") / part.height)
    told = [
        f"{name} {sum(values) / len(values):.3f} (n={len(values)})"
        for name, values in (("correct", shares[True]), ("incorrect", shares[False]))
    ]
    assert [" ".join(line.split()) for line in section(page, "Share of teacher sentences")] == told


def test_accuracies_of_every_stage(page: str, finished: Project) -> None:
    lines = section(page, "Accuracy on held-out questions")
    assert [line.split()[0] for line in lines] == ["teacher", "student", "t060", "t100", "mixed"]
    rows = finished.read("SELECT name, question_id, correct FROM evaluations JOIN checkpoints USING (checkpoint_id)")
    for line in lines:
        answers = rows.filter(name=line.split()[0])
        alike = answers.group_by("question_id").agg(pl.col("correct").mean())["correct"].n_unique() == 1
        assert f" {answers['correct'].mean():.3f} {'(no standard error)' if alike else '± '}" in line
        assert line.endswith("(5 questions, 10 answers)")


def test_times_name_every_asset_that_ran(page: str, finished: Project) -> None:
    lines = section(page, "Time per stage")
    with finished.instance() as instance:
        assert {line.split()[0] for line in lines} == {key.to_user_string() for key in instance.all_asset_keys()}
    seconds = [float(line.split()[1]) for line in lines]
    assert seconds == sorted(seconds, reverse=True)


def test_a_step_without_an_end_counts_nothing() -> None:
    assert seconds_of([(1.0, 3.5), (1_764_460_800.0, None), (None, None)]) == 2.5


def test_times_leave_out_assets_that_are_no_more(copy: Project) -> None:
    copy.recipe = change(copy.recipe, "generation.temperatures", [1.0])
    shown = {line.split()[0] for line in section(page_of(copy), "Time per stage")}
    assert "checkpoint_t100" in shown
    assert not shown & {"checkpoint_t060", "teacher_generations_t060"}


def test_places_exist(page: str, finished: Project) -> None:
    lines = section(page, "Where things lie")
    assert str(finished.warehouse.catalog) in lines[0]
    paths = dict(line.split(maxsplit=1) for line in lines if line.startswith(("t060", "t100", "mixed")))
    stored = dict(finished.read("SELECT name, path FROM checkpoints WHERE stage > 0").iter_rows())
    assert paths == {name: str(finished.warehouse.folder(path)) for name, path in stored.items()}


def test_a_home_where_little_has_run_has_a_page_too(project: Project) -> None:
    project.materialize("teacher_model,student_model")
    page = page_of(project)
    assert "  checkpoints                      2" in page
    assert "mixed    skipped" not in page
