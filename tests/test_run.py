"""`dasd run`: which step comes next, which files become batches, and what is said when something fails."""

from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, change, prompt_rows

from dasd_assets.commands.run import RunFailed, register_batches, root_versions
from dasd_assets.commands.selected_assets import NoSuchAsset
from dasd_assets.records.partitions import batches
from dasd_resources.demo.questions import write_rows
from dasd_resources.recipe import RecipeError
from dasd_resources.storage.ledger import MAX_ATTEMPTS


def test_a_landed_file_becomes_a_batch_once(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 1))
    (project.home / "prompts" / "b.jsonl.tmp").write_text("{}")
    said: list[str] = []
    with dg.DagsterInstance.ephemeral() as instance:
        register_batches(instance, project.recipe, project.home, said.append)
        register_batches(instance, project.recipe, project.home, said.append)
        [first] = batches(instance)
        assert said == [f"1 new prompt batches: {first}"]
        project.land("a.jsonl", prompt_rows(0, 2))
        register_batches(instance, project.recipe, project.home, said.append)
        [second] = batches(instance)  # other content, another batch; of the former one nothing was made
        assert second != first


def test_a_home_without_prompts_has_no_batches(project: Project) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
        assert batches(instance) == []
    assert project.said == []


def test_root_versions_are_those_the_assets_take(finished: Project) -> None:
    with finished.instance() as instance:
        for asset, version in root_versions(finished.engines, finished.recipe, finished.warehouse).items():
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            assert event is not None
            assert event.asset_materialization is not None
            assert event.asset_materialization.tags is not None
            assert event.asset_materialization.tags["dagster/data_version"] == version


def test_a_changed_mapping_of_a_benchmark_is_seen_while_its_file_stays(project: Project, tmp_path: Path) -> None:
    line = {"question": "What is 2 + 3?", "harder": "What is 3 + 4?", "reference_answer": "5", "verifier": "exact"}
    write_rows(tmp_path / "held_out.jsonl", [line])
    values = {"name": "held_out", "path": str(tmp_path / "held_out.jsonl"), "max_tokens": 50}

    def versions(column: str) -> tuple[str, str]:
        columns = {"question": column}
        recipe = change(project.recipe, "evaluation.benchmarks", [{**values, "columns": columns}])
        found = root_versions(project.engines, recipe, project.warehouse)
        return found["benchmark_questions"], found["held_out_questions"]

    first, second = versions("question"), versions("harder")
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_a_missing_model_is_told_before_anything_runs(project: Project) -> None:
    project.recipe = change(project.recipe, "teacher.model", "./no-such-folder")
    with pytest.raises(RecipeError, match=r"teacher\.model: no folder \./no-such-folder"):
        project.run()
    with project.instance() as instance:
        assert instance.get_runs_count() == 0


def test_selected_assets_are_made_in_every_batch_and_nothing_else(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 2))
    project.land("b.jsonl", prompt_rows(2, 5))
    assert project.materialize("held_out_questions,prompts") == 3
    assert project.count("prompts") == 5
    with project.instance() as instance:
        assert set(instance.all_asset_keys()) == {dg.AssetKey("held_out_questions"), dg.AssetKey("prompts")}


def test_selected_assets_are_made_though_nothing_has_changed(project: Project) -> None:
    project.materialize("teacher_model, student_model")
    project.materialize("teacher_model")
    with project.instance() as instance:
        for asset, times in (("teacher_model", 2), ("student_model", 1)):
            assert len(instance.fetch_materializations(dg.AssetKey(asset), limit=9).records) == times


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        ("nonsense", "'nonsense'"),
        ("prompts+ and (", "write names, 'a,b', or 'a\\+' for a and all below it"),
        ("key:nonsense*", "names no asset; there are: .*prompts"),
    ],
)
def test_a_selection_of_nothing_says_what_there_is(project: Project, selection: str, told: str) -> None:
    with pytest.raises(NoSuchAsset, match=rf"--select .*{told}"):
        project.materialize(selection)


def test_a_failed_asset_is_named_with_its_reason(project: Project) -> None:
    told = "random_responses: no response is left to select, at any temperature. t060: there are no responses"
    with pytest.raises(RunFailed, match=told):
        project.run()


def test_a_file_that_was_removed_after_landing_is_named(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 1))
    with project.instance() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
    (project.home / "prompts" / "a.jsonl").unlink()
    project.materialize("held_out_questions,prompts")
    assert any(f"removed 1 partition that no file in {project.home / 'prompts'} has" in line for line in project.said)


def test_a_recipe_with_another_landing_folder_leaves_what_has_not_begun_to_the_one_it_landed_for(
    project: Project, tmp_path: Path
) -> None:
    project.land("a.jsonl", prompt_rows(0, 1))
    (tmp_path / "other").mkdir()
    other = change(project.recipe, "automation.landing", str(tmp_path / "other"))
    with dg.DagsterInstance.ephemeral() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
        [batch] = batches(instance)
        register_batches(instance, other, project.home, project.said.append)
        assert batches(instance) == []
        assert (
            f"that no file in {tmp_path / 'other'} has, and of which nothing was made ('{batch}')" in project.said[-1]
        )
        assert project.said[-1].endswith("a run of that recipe registers it again")
        register_batches(instance, project.recipe, project.home, project.said.append)
        assert batches(instance) == [batch]


def test_rows_that_no_server_was_there_for_do_not_keep_a_run_from_ending(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 2))
    missed = set[str]()
    project.fake.away = project.fake.silent = True
    project.fake.fails = lambda key: key in missed or (len(missed) < 2 and not missed.add(key))
    with pytest.raises(RunFailed, match="no response is left to select, at any temperature"):
        project.run()
    assert sum(key in missed for key in project.fake.generated) == 2 * (1 + MAX_ATTEMPTS)
    assert any("requests failed" in line and line.endswith("(see failed_requests)") for line in project.said)
    assert set(project.read("SELECT request_id FROM failed_requests")["request_id"]) == missed
