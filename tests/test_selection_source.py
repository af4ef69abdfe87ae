"""One student's selection trains another: two recipes of one home, whose students have different tokenizers."""

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from conftest import Project, change
from test_check import findings

from dasd_assets.audit.outdated import explained
from dasd_assets.audit.response import audit_response
from dasd_assets.audit.verify import verify
from dasd_assets.commands.planned_pool import carried_figures
from dasd_assets.rules.arms import check_policies
from dasd_assets.rules.candidates import is_held_out
from dasd_assets.rules.filters.catalogue import filter_version
from dasd_assets.rules.instructions import instruction_params, stored_instructions
from dasd_assets.rules.selection_source import source_fault, source_version
from dasd_assets.selection_source import carried, kept_rows
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.recipe.experiment import Experiment

SOURCE, OTHER, LIMIT = "tiny", "larger", 110  # tokens, which some of what `tiny` selected exceeds for this student
KEPT = ("dataset", "policy", "response_id", "rank", "score", "score_name", "threshold", "selection_version")


def other(recipe: Recipe, **values: object) -> Recipe:
    """A recipe that trains another student, one with the teacher's tokenizer, on what `tiny` has selected."""
    found = recipe
    settings = {"name": OTHER, "student.model": recipe.teacher.model, "selection_from": SOURCE}
    for path, value in {**settings, "filters.max_student_tokens": LIMIT, **values}.items():
        found = change(found, path, value)
    return found


def selected(project: Project, recipe: str) -> pl.DataFrame:
    query = """SELECT * FROM selected_responses WHERE recipe = $recipe AND dataset <> 'mixed'
        ORDER BY dataset, policy, response_id"""
    return project.read(query, recipe=recipe)


def fingerprint(project: Project) -> str:
    return project.engines.fingerprint(project.recipe.student, "student.model")


@pytest.fixture(scope="module")
def trained(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The home of `tiny`, in which the other recipe has run too, as far as its training."""
    home = tmp_path_factory.mktemp("two_students") / "home"
    shutil.copytree(finished.home, home)
    project = Project(home, other(finished.recipe))
    project.materialize("*checkpoint_t100")
    return project


def test_the_other_recipes_rows_are_kept_but_for_what_is_too_long_for_this_student(trained: Project) -> None:
    ours, theirs = selected(trained, OTHER), selected(trained, SOURCE)
    tokens = trained.read(
        "SELECT response_id, len(token_ids) AS num_tokens FROM student_tokens WHERE student_fingerprint = $student",
        student=fingerprint(trained),
    )
    fitting = theirs.join(tokens, on="response_id", validate="m:1").filter(pl.col("num_tokens") <= LIMIT)
    assert 0 < fitting.height < theirs.height
    assert set(ours["policy"]) == {"das", "random"}
    assert ours.select(KEPT).rows() == fitting.sort("dataset", "policy", "response_id").select(KEPT).rows()
    assert set(ours["selected_by"]) == {SOURCE}
    assert set(theirs["selected_by"]) == {None}


def test_nothing_is_generated_or_scored_for_it(trained: Project, finished: Project) -> None:
    assert trained.fake.scored == []
    assert trained.count("responses") == finished.count("responses")
    params = {"student": fingerprint(trained)}
    assert trained.read("FROM student_logprobs WHERE student_fingerprint = $student", **params).is_empty()


def test_its_student_is_trained_on_its_own_tokens(trained: Project) -> None:
    query = """SELECT e.response_id, e.input_ids = t.token_ids FROM sft_examples e JOIN student_tokens t
            ON t.response_id = e.response_id AND t.student_fingerprint = $student
        WHERE e.recipe = $recipe AND e.policy = 'das' AND e.dataset <> 'mixed'"""
    rows = trained.read(query, student=fingerprint(trained), recipe=OTHER)
    assert rows.height == selected(trained, OTHER).filter(pl.col("policy") == "das").height
    assert all(rows.to_series(1))
    stages = trained.read(
        "SELECT name, num_examples FROM checkpoints WHERE recipe = $recipe AND stage > 0", recipe=OTHER
    )
    assert {"t060", "t100"} <= set(stages["name"])
    assert [job.training.max_length for job in trained.fake.trained]


def test_the_metadata_say_how_many_fall_out(trained: Project) -> None:
    shown = trained.metadata("selected_responses_t060")
    theirs = selected(trained, SOURCE).filter(dataset="t060", policy="das").height
    ours = selected(trained, OTHER).filter(dataset="t060", policy="das").height
    assert shown["selected_by"] == SOURCE
    assert (shown["num_selected_there"], shown["num_too_long"]) == (theirs, theirs - ours)
    assert (shown["num_absent"], shown["num_unjudged"]) == (0, 0)


def test_an_audit_says_who_selected_and_what_left_it_out(trained: Project) -> None:
    ours, theirs = (set(selected(trained, name).filter(policy="das")["response_id"]) for name in (OTHER, SOURCE))
    every = set(trained.read("SELECT response_id FROM responses")["response_id"])
    found = {
        name: _outcome(trained, min(ids))
        for name, ids in {"kept": ours, "too long": theirs - ours, "not selected": every - theirs}.items()
    }
    assert found["kept"]["kind"] == "chosen"
    assert found["kept"]["why"].startswith(f"selected by recipe {SOURCE}: rank ")
    assert found["too long"]["kind"] == "filtered"
    assert f"at most {LIMIT}" in found["too long"]["why"]
    assert found["not selected"]["kind"] == "not_selected_there"


def _outcome(project: Project, response: str) -> dict[str, str]:
    with project.warehouse.reading() as reading:
        rows = audit_response(reading, response)["selections"]
    [row] = [row for row in rows if (row["recipe"], row["policy"]) == (OTHER, "das") and row["dataset"] != "mixed"]
    return row


def test_what_this_recipe_holds_out_is_left_out(trained: Project) -> None:
    held = other(trained.recipe, **{"heldout.questions": 0.4})
    batches = trained.read("SELECT DISTINCT batch FROM prompts")["batch"].to_list()
    version = filter_version(held, fingerprint(trained))
    found = carried(trained.warehouse, held, "t060", "das", version, batches)
    with trained.warehouse.reading() as reading:
        out = {prompt: is_held_out(reading, 0.4, prompt) for prompt in found["prompt_id"].unique()}
    assert {True, False} == set(out.values())
    assert [row["outcome"] == "held_out" for row in found.to_dicts()] == [out[p] for p in found["prompt_id"]]
    assert not any(out[prompt] for prompt in kept_rows(found, held)["prompt_id"])
    whole, less = (carried_figures(trained.warehouse, r, trained.engines) for r in (trained.recipe, held))
    assert whole["carried.t060"].value == found.height
    assert less["carried.t060"].value == found.height - found.filter(outcome="held_out").height


def test_nothing_is_held_out_of_what_it_has_not_scored_and_that_is_said(trained: Project) -> None:
    results = findings(trained, quick=True)
    assert results["selection_from"].status == "warning"
    assert "heldout_losses will have no row: remove heldout" in results["selection_from"].message
    trained.materialize("heldout_losses")
    shown = trained.metadata("heldout_losses")
    assert shown["num_responses"] == 0
    assert str(shown["empty"]).endswith("with selection_from it scores none itself")


def test_a_verification_finds_no_fault_in_either(trained: Project) -> None:
    assert list(verify(trained.warehouse)) == []


def test_what_the_other_recipe_selects_anew_is_taken_over(trained: Project, finished: Project, tmp_path: Path) -> None:
    shutil.copytree(trained.home, tmp_path / "home")
    project = Project(tmp_path / "home", trained.recipe)
    assert "selection_source" not in _outdated(project)
    fewer = change(finished.recipe, "selection.budgets", {"t060": {"math": 2, "sums": 1}})
    Project(project.home, fewer).materialize("selected_responses_t060")
    found = _outdated(project)
    assert found["selection_source"].startswith("the other recipe selected anew: version ")
    assert {"selected_responses_t060", "random_responses", "sft_dataset_t060", "checkpoint_t060"} <= found.keys()
    project.materialize("selection_source, selected_responses_t060")
    assert "selection_source" not in _outdated(project)
    ours, theirs = (selected(project, name).filter(dataset="t060", policy="das") for name in (OTHER, SOURCE))
    assert theirs.height == 3
    assert set(ours["response_id"]) <= set(theirs["response_id"])


def test_a_selection_that_is_empty_there_is_empty_here_for_a_reason(trained: Project, tmp_path: Path) -> None:
    shutil.copytree(trained.home, tmp_path / "home")
    project = Project(tmp_path / "home", trained.recipe)
    with project.warehouse.commit("nothing was selected") as transaction:
        transaction.replace("selected_responses", {"recipe": SOURCE, "dataset": "t100"}, pl.DataFrame())
    project.materialize("selected_responses_t100")
    assert selected(project, OTHER).filter(dataset="t100", policy="das").is_empty()
    [reason] = project.read("SELECT reason FROM empty_datasets WHERE recipe = 'larger'")["reason"]
    assert reason.endswith("recipe tiny had selected: nothing")


def test_its_version_is_of_what_it_takes_alone(copy: Project) -> None:
    """Not of temperatures that it does not have, the mixed-policy dataset, and what experiments have chosen."""
    recipe = other(copy.recipe, **{"generation.temperatures": [0.6]})
    row = copy.read("SELECT * EXCLUDE (run_id) FROM selected_responses LIMIT 1")
    versions = [source_version(copy.warehouse, recipe)]
    others = (("t100", "das"), ("mixed", "das"), ("t060", "random-1a2b3c4d"))
    taken = (("t060", "das"), ("t060", "random"))
    for dataset, policy in (*others, *taken):
        key = {"recipe": SOURCE, "dataset": dataset, "policy": policy}
        with copy.warehouse.commit("{}") as transaction:
            values = [pl.lit(value).alias(name) for name, value in {**key, "selection_id": "another"}.items()]
            transaction.replace("selected_responses", key, row.with_columns(values))
        versions.append(source_version(copy.warehouse, recipe))
    assert len(set(versions[: 1 + len(others)])) == 1
    assert len(set(versions[len(others) :])) == 1 + len(taken)


def _outdated(project: Project) -> dict[str, str]:
    """Asset -> the first reason why it is out of date."""
    with project.instance() as instance:
        stale = explained(instance, project.definitions, project.recipe, project.engines, project.warehouse)["stale"]
    return {row["asset"]: row["causes"][0]["message"] for row in stale}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"selection_from": "unknown"},
            "recipe unknown has selected nothing in this home (there are selections of tiny)",
        ),
        ({"generation.temperatures": [0.6, 0.8]}, "recipe tiny has selected t060, t100 and not t080"),
        ({"generation.top_p": 0.9}, "recipe tiny has selected t060 from responses of generation.top_p 1.0"),
        ({"generation.num_candidates": 3}, "generation.num_candidates 2, and this recipe has 3"),
        ({"generation.questions_per_domain": {"math": 5}}, "per_domain {}, and this recipe has {'math': 5}; make them"),
        ({"generation.instructions": {"math": "Box it."}}, "instructions {}, and this recipe has {'math': 'Box it.'}"),
    ],
)
def test_a_selection_that_is_not_there_or_of_other_responses_is_refused(
    finished: Project, values: dict[str, object], fault: str
) -> None:
    recipe = other(finished.recipe, **values)
    found = source_fault(finished.warehouse, recipe, finished.engines.fingerprint(recipe.teacher, "teacher.model"))
    assert found is not None and fault in found and "\n" not in found
    results = findings(replace(finished, recipe=recipe), quick=True)
    assert (results["selection_from"].status, results["selection_from"].message) == ("failed", found)


def test_a_rule_of_before_there_were_instructions_has_none() -> None:
    assert stored_instructions({}) == {}
    assert stored_instructions(instruction_params({"math": "Box it."})) == {"math": "Box it."}


def test_another_teacher_is_refused_and_fewer_temperatures_are_not(finished: Project) -> None:
    recipe = other(finished.recipe)
    assert "of teacher" in str(source_fault(finished.warehouse, recipe, "another"))
    teacher = finished.engines.fingerprint(recipe.teacher, "teacher.model")
    assert (
        source_fault(finished.warehouse, other(finished.recipe, **{"generation.temperatures": [0.6]}), teacher) is None
    )
    results = findings(replace(finished, recipe=change(recipe, "heldout", None)), quick=True)
    assert results["selection_from"].status == "ok"


def test_an_experiment_that_would_choose_anew_is_refused_with_the_reason(tiny: Recipe) -> None:
    grid = {"name": "grid", "title": "x", "report": "x", "recipe": OTHER, "seeds": [42, 7], "baseline": "own"}
    arms: dict[str, object] = {"own": [{"dataset": "t060"}], "student": []}
    check_policies(Experiment.model_validate({**grid, "arms": arms}), other(tiny))
    arms["random"] = [{"dataset": "t060", "policy": "random"}]
    with pytest.raises(RecipeError, match=r"arms\.random\.0: recipe .* trains on the selection of recipe tiny"):
        check_policies(Experiment.model_validate({**grid, "arms": arms}), other(tiny))


def test_a_recipe_does_not_select_from_itself(tiny: Recipe) -> None:
    with pytest.raises((RecipeError, ValueError), match="this recipe itself"):
        change(tiny, "selection_from", "tiny")


def test_the_first_recipe_of_a_chain_is_named(tiny: Recipe) -> None:
    row = dict.fromkeys(("dataset", "policy", "response_id", "selection_version"), "x")
    judged = {"present": True, "held_out": False, "fits": True, "reason": None, "outcome": "kept"}
    found = pl.DataFrame([{**row, "selected_by": "first", **judged}])
    assert kept_rows(found, other(tiny))["selected_by"].to_list() == ["first"]
