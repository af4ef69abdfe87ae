"""Experiments end to end on a deterministic engine: what is shared, what is recorded, and what a kill leaves."""

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dagster as dg
import polars as pl
import pytest
from conftest import Fake, Project, change, forkserver, nothing_drawn, silent_log
from reached import versions_reached
from test_declarations import rule_constants

from dasd_assets.audit.pages.takedown import takedown_page
from dasd_assets.audit.takedown import take_down
from dasd_assets.audit.verify import verify
from dasd_assets.cli import main
from dasd_assets.commands.experiment import (
    blocks,
    chosen_cells,
    listed,
    page,
    run_experiment,
    sound_experiments,
    to_do_first,
)
from dasd_assets.commands.run import RunFailed
from dasd_assets.commands.selected_assets import NoSuchAsset, chosen_assets
from dasd_assets.definitions import build_definitions
from dasd_assets.evaluation.leaderboard import leaderboard_page, standings
from dasd_assets.evaluation.traits import REPEATING
from dasd_assets.experiments import assets
from dasd_assets.experiments.by_difficulty import question_groups
from dasd_assets.experiments.cells import (
    answers,
    every_cell,
    failed_text,
    outdated_cells,
    partition_key,
    stage_rows,
    trained_cells,
)
from dasd_assets.experiments.claims import verdicts
from dasd_assets.experiments.dataset_differences import dataset_differences
from dasd_assets.experiments.dataset_traits import dataset_traits, traits_by_question
from dasd_assets.experiments.datasets import make_datasets
from dasd_assets.experiments.experiment_page import CAPTIONS, MARK, answers_hash
from dasd_assets.experiments.figure_data import loss_curves, losses, of_one_seed, rollouts
from dasd_assets.experiments.pages import OF_ANOTHER_HOME, write_pages
from dasd_assets.experiments.report_tables import trait_table
from dasd_assets.experiments.result_table import Results, compared_arms
from dasd_assets.experiments.sentences_by_work import sentences_by_work, shares_by_work
from dasd_assets.experiments.side_by_side import Places, places, side_by_side
from dasd_assets.experiments.ways import ways_answered, ways_shown
from dasd_assets.experiments.wording import stage_text
from dasd_assets.records.code_versions import MADE_WITH
from dasd_assets.records.tags import EXPERIMENTS
from dasd_assets.rules.arms import MULTIPLES, arm_dataset, compared_rule, declared_rule
from dasd_assets.rules.pool import create_pool_table
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.statistics.comparison import compare, comparisons
from dasd_assets.rules.statistics.pairing import paired_differences
from dasd_assets.service.attempts import Attempt, AttemptDecision
from dasd_assets.service.in_process import execute
from dasd_assets.service.planning import Plan
from dasd_assets.service.steps import Step
from dasd_assets.stage_training import identity, seen_examples
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.recipe.experiment import ArmStage, Experiment
from dasd_resources.sft.checkpoint import Progress, Trained
from dasd_resources.sft.trainer import SftJob
from dasd_resources.storage.data_files import data_files
from dasd_resources.storage.repair import drop_files, plan_repair
from dasd_resources.storage.upkeep import flush_small_commits
from dasd_resources.storage.warehouse import Warehouse

GRID = Experiment.model_validate(
    {
        "name": "grid",
        "title": "Every way to choose, in small",
        "report": "Nothing.",
        "recipe": "tiny",
        "seeds": [42, 7],
        "baseline": "own",
        "arms": {
            "student": [],
            "own": [{"dataset": "t060"}, {"dataset": "t100"}],
            "random_second": [{"dataset": "t060"}, {"dataset": "t100", "policy": "random"}],
            "shortest": [{"dataset": "t060", "policy": "shortest", "budget": {"times": 2}, "training": {"epochs": 2}}],
            "pooled": [{"dataset": ["t060", "t100"], "budget": {"times": 0.5}}],
            "masked": [{"dataset": "t060"}, {"dataset": "t100"}, {"dataset": "mixed", "loss_on_prefix": False}],
        },
        "pairs": [["masked", "random_second"]],
        "claims": [
            {"claim": "Training is worth it", "above": [["own", "student"], ["masked", "random_second"]]},
            {"claim": "A draw has more loss", "above": [["random_second", "own"]], "of": "training_loss"},
            {"claim": "A draw is more probable", "above": [["own", "random_second"]], "of": "probability"},
        ],
    }
)


def run(project: Project, arms: list[str] | None = None, seeds: list[int] | None = None) -> None:
    definitions = dg.Definitions.merge(
        build_definitions(project.recipe, project.home, project.engines, project.fake.train, compared=[GRID]),
        dg.Definitions(loggers={"console": silent_log}),
    )
    with project.instance() as instance, nothing_drawn():
        cells = chosen_cells(GRID, arms, seeds)
        run_experiment(
            instance, definitions, project.recipe, GRID, cells, project.engines, project.home, project.said.append
        )


@pytest.fixture(scope="module")
def compared(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished home on which the whole grid has run."""
    home = tmp_path_factory.mktemp("compared") / "home"
    shutil.copytree(finished.home, home)
    project = Project(home, finished.recipe)
    run(project)
    return project


def checkpoints_of(project: Project, arm: str, seed: int) -> list[str]:
    query = "SELECT checkpoint_id FROM experiment_cells WHERE arm = $arm AND seed = $seed ORDER BY stage"
    return project.read(query, arm=arm, seed=seed)["checkpoint_id"].to_list()


def test_every_cell_is_trained_and_has_answered(compared: Project) -> None:
    cells = trained_cells(compared.warehouse, compared.recipe, GRID)
    assert list(cells.select("arm", "seed").iter_rows()) == every_cell(GRID)
    found = answers(compared.warehouse, compared.recipe, GRID)
    assert set(found.group_by("arm", "seed").len()["len"]) == {5 * 2}
    assert set(found.select("arm", "seed").iter_rows()) == set(every_cell(GRID))


def test_every_arm_is_in_the_leaderboard(compared: Project) -> None:
    cells = trained_cells(compared.warehouse, compared.recipe, GRID)
    measured = compared.read("SELECT DISTINCT checkpoint_id, run_id FROM evaluation_metrics")
    assert set(cells["checkpoint_id"]) <= set(measured["checkpoint_id"])
    assert measured["run_id"].null_count() == 0  # of the asset's runs, whoever began them
    models = dict(standings(compared.warehouse).select("checkpoint_id", "model").iter_rows())
    assert len(set(models.values())) == len(models)
    assert models[checkpoints_of(compared, "own", 42)[-1]] == "tiny t100"
    assert models[checkpoints_of(compared, "shortest", 7)[-1]] == "tiny grid/shortest, seed 7"
    page = (compared.home / "reports" / "leaderboard.md").read_text(encoding="utf-8")
    assert page == leaderboard_page(standings(compared.warehouse))


def test_what_the_pipeline_has_trained_is_not_trained_again(compared: Project) -> None:
    own = compared.read("SELECT checkpoint_id FROM checkpoints WHERE name IN ('t060', 't100') ORDER BY name")
    assert checkpoints_of(compared, "own", 42) == own["checkpoint_id"].to_list()
    assert not set(own["checkpoint_id"]) & {job.checkpoint_id for job in compared.fake.trained}


def test_arms_that_begin_alike_are_trained_alike_and_once(compared: Project) -> None:
    trained = [job.checkpoint_id for job in compared.fake.trained]
    assert len(trained) == len(set(trained))
    for seed in GRID.seeds:
        own, drawn, masked = (checkpoints_of(compared, arm, seed) for arm in ("own", "random_second", "masked"))
        assert own[0] == drawn[0] == masked[0] and own[:2] == masked[:2] and own[1] != drawn[1]
    # Of seed 42: random, shortest, pooled, masked; of seed 7, whose first two stages the pipeline has not: all.
    assert len(trained) == 4 + 6


def test_seeds_differ_in_training_and_in_what_is_drawn_but_not_in_what_is_ranked(compared: Project) -> None:
    first, second = (checkpoints_of(compared, "own", seed) for seed in GRID.seeds)
    assert not set(first) & set(second)
    query = "SELECT DISTINCT policy FROM experiment_cells WHERE arm = $arm AND dataset = 't100' ORDER BY ALL"
    assert compared.read(query, arm="own")["policy"].to_list() == ["das"]
    drawn = compared.read(query, arm="random_second")["policy"].to_list()
    assert drawn[0] == "random" and drawn[1].startswith("random-")
    assert sorted(job.seed for job in compared.fake.trained if job.epochs == 2) == [7, 42]


def test_a_cell_says_what_it_was_trained_on(compared: Project) -> None:
    query = """SELECT arm, num_examples, num_tokens,
            (SELECT count(*) FROM sft_examples e WHERE e.dataset_id = c.dataset_id) AS found,
            (SELECT coalesce(sum(len(input_ids)), 0) FROM sft_examples e WHERE e.dataset_id = c.dataset_id) AS tokens
        FROM experiment_cells c"""
    rows = compared.read(query).to_dicts()
    assert {row["arm"] for row in rows} == set(GRID.arms)
    assert all((row["num_examples"], row["num_tokens"]) == (row["found"], row["tokens"]) for row in rows)
    assert [row["num_examples"] for row in rows if row["arm"] == "student"] == [0, 0]


def test_twice_the_data_is_two_responses_of_a_question(compared: Project) -> None:
    query = """SELECT count(*) AS num FROM selected_responses
        WHERE dataset = 't060' AND policy SIMILAR TO $policy GROUP BY prompt_id"""
    own, twice = (compared.read(query, policy=policy) for policy in ("das", "shortest-.*"))
    assert own["num"].max() == 1 and twice["num"].max() == 2
    assert own.height == twice.height and own["num"].sum() < twice["num"].sum()  # some have one accepted response


def test_only_responses_in_which_the_expression_is_found_compete(compared: Project) -> None:
    params = compared.pool_params(compared.recipe, "t060")
    pools = dict[str | None, set[str]]()
    for matching in (None, r"\d\d", "^nowhere"):
        with compared.warehouse.reading() as reading:
            create_pool_table(reading, params, matching=matching)
            rows = reading.read("SELECT response_id, text FROM pool JOIN responses USING (response_id)")
            pools[matching] = set(rows["response_id"])
            assert matching is None or rows["text"].str.contains(matching).all()
    assert pools["^nowhere"] == set() < pools[r"\d\d"] < pools[None]


def test_a_budget_of_a_domain_that_there_is_not_is_refused(compared: Project) -> None:
    stage = ArmStage.model_validate({"dataset": "t060", "budget": {"examples": {"leters": 3}}})
    data = arm_dataset(compared.recipe, stage, 42)
    told = r"t060 das-\w+: the budget names leters, but no question is of that domain; the domains are \w"
    with pytest.raises(dg.Failure, match=told):
        make_datasets(dg.build_asset_context(), compared.warehouse, compared.engines, compared.recipe, [data], ["a"])


def test_datasets_of_the_recipe_together_have_what_it_has_selected_for_each(compared_copy: Project) -> None:
    warehouse, recipe, selected = compared_copy.warehouse, compared_copy.recipe, "FROM selected_responses ORDER BY ALL"
    before = warehouse.read(selected)
    declared = GRID.model_dump(mode="json", exclude_unset=True)
    declared["arms"]["pooled"] = [{"dataset": ["t060", "t100"], "policy": "random"}]
    changed = Experiment.model_validate(declared)
    data = arm_dataset(recipe, changed.arms["pooled"][0], recipe.seed)
    run_of = {"asset_key": dg.AssetKey("grid"), "has_partition_key": False, "run": SimpleNamespace(run_id="r")}
    context = cast(dg.AssetExecutionContext, SimpleNamespace(**run_of))
    make_datasets(context, warehouse, compared_copy.engines, recipe, [data], ["another"])
    assert warehouse.read(selected).equals(before)
    # Trained on these, the cell is up to date until one of the recipe's own datasets is another.
    [student], [old] = checkpoints_of(compared_copy, "student", 42), checkpoints_of(compared_copy, "pooled", 42)
    seen = seen_examples(warehouse, recipe.name, data.name, "random")
    trained = identity(data.recipe, data.name, student, seen.example_ids)
    with warehouse.commit("test") as transaction:
        for table in ("checkpoints", "experiment_cells"):
            query = f"UPDATE {table} SET checkpoint_id = $new WHERE checkpoint_id = $old"
            transaction.read(query, {"new": trained, "old": old})
    assert outdated_cells(warehouse, recipe, changed) == {("pooled", 7)}
    with warehouse.commit("test") as transaction:
        transaction.read("DELETE FROM sft_examples WHERE dataset = 't100' AND policy = 'random'")
    assert ("pooled", 42) in outdated_cells(warehouse, recipe, changed)


def test_a_masked_stage_has_the_same_examples_with_loss_on_the_teachers_part_alone(compared: Project) -> None:
    query = """SELECT coalesce(response_id, continuation_id) AS source, input_ids, labels,
        list_count(list_filter(labels, lambda x: x <> -100)) AS losses, continuation_id IS NOT NULL AS continued
        FROM sft_examples WHERE dataset = 'mixed' AND policy = $policy ORDER BY source"""
    plain, masked = compared.read(query, policy="das"), compared.read(query, policy="das-masked")
    assert plain["input_ids"].equals(masked["input_ids"]) and plain["source"].equals(masked["source"])
    for with_loss, without in zip(plain.to_dicts(), masked.to_dicts(), strict=True):
        assert without["losses"] < with_loss["losses"] if with_loss["continued"] else without == with_loss


def test_the_home_verifies_and_the_pipeline_has_nothing_to_do(compared: Project) -> None:
    assert list(verify(compared.warehouse)) == []
    assert compared.run() == 0


def test_a_run_again_trains_and_asks_nothing(compared: Project) -> None:
    compared.fake.trained.clear()
    compared.fake.generated.clear()
    registered = "SELECT checkpoint_id, materialized_at, run_id FROM checkpoints ORDER BY ALL"
    before = compared.read(registered)
    run(compared, arms=["own", "masked"], seeds=[7])
    assert (compared.fake.trained, compared.fake.generated) == ([], [])
    assert compared.read(registered).equals(before)


def test_the_page_compares_each_arm_with_the_baseline(compared: Project) -> None:
    text = "\n".join(page(compared.warehouse, compared.recipe, GRID))
    assert "12 of 12 cells" in text and "baseline own" in text
    assert all(arm in text for arm in GRID.arms)
    pair = next(line for line in text.splitlines() if line.split()[:1] == ["masked"] and " random_second " in line)
    [header] = [line for line in text.splitlines() if "seeds compared" in line]
    assert pair[header.index("seeds compared") :].split()[0] == "2"  # those that both have
    stages = stage_rows(compared.warehouse, compared.recipe, GRID)
    given = answers(compared.warehouse, compared.recipe, GRID)
    judged = verdicts(compared.warehouse, compared.recipe, GRID, Results(given, compared_arms(given, GRID), stages, ()))
    assert [one.claim for one in judged] == [one.claim for one in GRID.claims]
    for one in judged:
        block = [f"  claim: {one.claim}", f"  verdict: {one.text}", *(f"    {line}" for line in one.comparisons)]
        assert "\n".join(block) in text
    assert all(figure for one in judged for figure in one.figures)


class KillsItself(Fake):
    """A trainer whose process is killed in its second training, once the first is registered; two threads call it."""

    calls = itertools.count()

    def train(self, job: SftJob, on_progress: Callable[[Progress], None]) -> Trained:
        if next(self.calls) == 0:
            return super().train(job, on_progress)
        registered = "SELECT count(*) FROM checkpoints WHERE contains(name, '/')"
        while not Warehouse(home=str(job.destination.parents[1])).read(registered).item():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it outlived a SIGKILL")


def run_and_die(home: Path, recipe: Recipe) -> None:
    run(Project(home, recipe, KillsItself()), arms=["own", "shortest"], seeds=[7])


def test_an_experiment_that_was_killed_goes_on(copy: Project) -> None:
    killed = forkserver().Process(target=run_and_die, args=(copy.home, copy.recipe))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    there = set(copy.read("SELECT checkpoint_id FROM checkpoints WHERE contains(name, '/')")["checkpoint_id"])
    assert len(there) == 1
    run(copy, arms=["own", "shortest"], seeds=[7])
    anew = [job.checkpoint_id for job in copy.fake.trained]
    assert len(anew) == 2 and not there & set(anew)
    assert {arm for arm, _ in answers(copy.warehouse, copy.recipe, GRID).select("arm", "seed").iter_rows()} == {
        "own",
        "shortest",
    }


def test_without_the_recipes_datasets_it_says_what_to_run(project: Project) -> None:
    with pytest.raises(RunFailed, match="recipe tiny is not up to date, and experiments start from its datasets"):
        run(project)


def test_what_is_being_made_or_stays_out_of_date_is_no_dataset_to_start_from() -> None:
    step = Step("selection", None, {"sft_dataset_t060": "code changed"}, "step0")
    given_up = AttemptDecision("exhausted", 4, "it is still out of date though it was made", still_stale=True)
    due, active = [Attempt(step, 1)], ["0123456789abcdef"]
    assert to_do_first(Plan()) == ""
    assert to_do_first(Plan(due=due, active_runs=active)).startswith("run `dasd run` first (sft_dataset_t060 (code")
    assert to_do_first(Plan(active_runs=active)) == "wait for the runs that make them (01234567)"
    told = "see `dasd audit staleness` (sft_dataset_t060 (code changed), after 3 attempts: it is still out of date"
    assert to_do_first(Plan(exhausted=[(step, given_up)])).startswith(told)


@dg.asset
def teacher_model() -> None: ...


def test_while_a_run_of_the_service_makes_what_they_start_from_it_says_what_to_wait_for(project: Project) -> None:
    with project.instance() as instance:
        job = dg.Definitions([teacher_model]).resolve_implicit_global_asset_job_def()
        started, made = dg.DagsterRunStatus.STARTED, frozenset({teacher_model.key})
        begun = instance.create_run_for_job(job, status=started, asset_selection=made)
    with pytest.raises(RunFailed, match=rf"its datasets: wait for the runs that make them \({begun.run_id[:8]}\)"):
        run(project)


def test_experiments_are_in_no_job_and_never_out_of_date(compared: Project) -> None:
    definitions = build_definitions(
        compared.recipe, compared.home, compared.engines, compared.fake.train, compared=[GRID]
    )
    graph = definitions.resolve_asset_graph()
    theirs = {key for key in graph.toposorted_asset_keys if graph.get(key).group_name == EXPERIMENTS}
    assert {key.to_user_string() for key in theirs} == {
        "experiment_checkpoints_grid",
        "experiment_evaluations_grid",
        "experiment_report_grid",
    }
    for job in ("everything", "train_only", "data_only", "ablation"):
        assert not theirs & set(definitions.resolve_job_def(job).asset_layer.executable_asset_keys)


def test_a_selection_leaves_experiments_to_their_own_command(project: Project) -> None:
    graph = build_definitions(project.recipe, project.home, project.engines, compared=[GRID]).resolve_asset_graph()
    trained = dg.AssetKey("experiment_checkpoints_grid")
    assert trained in dg.AssetSelection.from_string("response_scores+").resolve(graph)
    assert trained not in chosen_assets(graph, "response_scores+")
    assert chosen_assets(graph, "leaderboard, experiment_checkpoints_grid") == {dg.AssetKey("leaderboard")}
    with pytest.raises(NoSuchAsset, match="of experiments alone: `dasd experiment NAME` makes them"):
        chosen_assets(graph, "group:experiments")


def test_an_asset_declares_the_rules_that_its_code_reaches(compared: Project) -> None:
    modules = rule_constants()
    for asset in assets(compared.recipe, [GRID]):
        [spec] = asset.specs
        made_with = spec.metadata[MADE_WITH].data["code"]  # type: ignore[union-attr,call-overload,index]
        for constant in versions_reached(asset.op.compute_fn.decorated_fn):  # type: ignore[union-attr]
            of_module = vars(import_module(modules[constant]))
            rules = {r.name for r in of_module.values() if isinstance(r, Rule) and r.version == of_module[constant]}
            if constant == "FILTER_VERSION":  # what answers are looked at for is one filter, not all
                rules.add(REPEATING.name)
            assert not rules or rules & set(made_with), (spec.key, constant)


def test_cells_are_made_in_rectangles_and_unknown_ones_refused() -> None:
    assert list(blocks(chosen_cells(GRID, None, None), GRID)) == [(("student", 42), ("masked", 7))]
    some = chosen_cells(GRID, ["masked", "own", "random_second"], [7])
    assert list(blocks(some, GRID)) == [(("own", 7), ("random_second", 7)), (("masked", 7), ("masked", 7))]
    with pytest.raises(RecipeError, match="--arms: grid has no others; it has student, own"):
        chosen_cells(GRID, ["others"], None)
    with pytest.raises(RecipeError, match="--seeds: grid has no 1; it has 42, 7"):
        chosen_cells(GRID, None, [1])


def test_a_child_is_trained_after_its_parent_and_nothing_begins_after_a_failure() -> None:
    done: list[str] = []
    side_by_side({"c": "b", "b": "a", "x": "student", "a": "student"}, done.append, 2)
    assert sorted(done) == ["a", "b", "c", "x"] and done.index("a") < done.index("b") < done.index("c")
    begun: list[str] = []

    def fail(key: str) -> None:
        begun.append(key)
        raise ValueError(key)

    with pytest.raises(ValueError, match="a"):
        side_by_side({"a": "", "b": "a", "c": "b"}, fail, 2)
    assert begun == ["a"]


@pytest.mark.parametrize(
    ("num_weights", "free", "expected"),
    [
        (250_000, 24 * 10**9, Places(4, 1)),
        (10**9, 40 * 10**9, Places(2, 2)),
        (10**9, 10**9, Places(1, 4)),
    ],
)
def test_no_more_are_trained_at_once_than_the_memory_holds(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch, num_weights: int, free: int, expected: Places
) -> None:
    stubs = {"visible_gpus": [], "count_weights": num_weights, "free_memory": free, "num_cores": 4}
    for name, value in stubs.items():
        monkeypatch.setattr(f"dasd_assets.experiments.side_by_side.{name}", lambda *_, value=value: value)
    assert places(tiny) == expected


def test_the_longest_chain_begins_first() -> None:
    done: list[str] = []
    parents = {"x": "student", "y": "student", "a": "student", "b": "a", "d": "", "e": "d", "f": "e"}
    side_by_side(parents, done.append, 1)
    assert done == ["d", "a", "e", "x", "y", "b", "f"]


def test_the_report_writes_every_comparison_once(compared: Project) -> None:
    rows = compared.read("SELECT * EXCLUDE (recipe, experiment, run_id) FROM experiment_comparisons")
    found = answers(compared.warehouse, compared.recipe, GRID)
    expected = comparisons(found, GRID.compared).select(rows.columns)
    by = ["arm", "baseline", "benchmark", "temperature"]
    assert rows.sort(by).equals(expected.sort(by))
    assert rows.filter(baseline="random_second")["arm"].to_list() == ["masked"]
    assert compared.read("SELECT DISTINCT recipe, experiment FROM experiment_comparisons").rows() == [("tiny", "grid")]


def test_the_report_has_a_table_and_figures(compared: Project) -> None:
    with compared.instance() as instance:
        [event] = instance.fetch_materializations(dg.AssetKey("experiment_report_grid"), limit=1).records
    shown = event.asset_materialization
    assert shown is not None
    table = shown.metadata["result"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["arm"] for record in table.records] == [*GRID.arms, "masked"]
    drawn = {"differences", "training_loss", "loss_against_accuracy", "cut_off_rate", "response_probabilities"}
    drawn |= {"rollouts_cut_off"}
    assert all("data:image/png" in str(shown.metadata[name].value) for name in drawn)
    trained, differences = shown.metadata["trained_on"], shown.metadata["training_differences"]
    assert isinstance(trained, dg.TableMetadataValue) and isinstance(differences, dg.TableMetadataValue)
    assert {record.data["arm"] for record in trained.records} == {arm for arm, stages in GRID.arms.items() if stages}
    assert [record.data["arm"] for record in differences.records][-1] == "masked"
    claims = shown.metadata["claims"]
    assert isinstance(claims, dg.TableMetadataValue)
    assert [record.data["comparison"] for record in claims.records] == [
        " less ".join(pair) for claim in GRID.claims for pair in claim.above
    ]


def test_the_page_of_a_cell_says_what_it_was_trained_on_and_how_accurate_it_is(compared: Project) -> None:
    [last] = checkpoints_of(compared, "shortest", 7)
    pages = []
    with compared.instance() as instance:
        for asset in ("experiment_checkpoints_grid", "experiment_evaluations_grid"):
            records = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition_key(("shortest", 7))])
            [event, *_] = instance.fetch_materializations(records, limit=1).records
            assert event.asset_materialization is not None
            pages.append(event.asset_materialization.metadata)
    assert pages[0]["trained_on"].value == "t060, shortest, 2 times the recipe's own selection in examples, epochs 2"
    assert pages[0]["checkpoint_id"].value == pages[1]["checkpoint_id"].value == last
    [row] = compared.read(
        "SELECT avg(correct::INT) AS share FROM evaluations WHERE checkpoint_id = $id", id=last
    ).rows()
    assert str(pages[1]["accuracy/held_out/T=1"].value).startswith(f"{row[0]:.1%} ")


def test_arms_are_compared_by_name(
    compared: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(compared.home))
    assert main(["compare", "grid/own", "grid/shortest", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [of["seed"] for of in told["a"]["checkpoints"]] == sorted(GRID.seeds)
    found = answers(compared.warehouse, compared.recipe, GRID)
    expected = compare(paired_differences(found, "own", "shortest"))
    assert told["rows"][0]["difference"] == pytest.approx(expected.difference)
    assert main(["compare", "grid/own", "grid/student", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [of["seed"] for of in told["b"]["checkpoints"]] == [None] and told["rows"][0]["num_seeds"] == 2
    assert main(["compare", "grid/own", "grid/none"]) == 1
    assert "grid/shortest" in capsys.readouterr().err


def test_traits_of_what_an_arm_was_trained_on(compared: Project) -> None:
    stages = stage_rows(compared.warehouse, compared.recipe, GRID)
    by_question = traits_by_question(compared.warehouse, compared.recipe, stages)
    traits = dataset_traits(compared.warehouse, compared.recipe, stages, by_question)
    assert traits.select("arm", "stage").rows() == [
        ("own", 1), ("own", 2), ("random_second", 1), ("random_second", 2), ("shortest", 1), ("pooled", 1),
        ("masked", 1), ("masked", 2), ("masked", 3),
    ]  # fmt: skip
    lengths = compared.warehouse.read(
        """SELECT len(t.token_ids) AS length FROM selected_responses s JOIN student_tokens t USING (response_id)
        WHERE s.recipe = 'tiny' AND s.dataset = 't060' AND s.policy = 'das'"""
    )["length"]
    of_arm = {arm: row for arm, *row in traits.filter(pl.col("stage") == 1).select("arm", "tokens", "right").rows()}
    assert of_arm["own"][0] == pytest.approx(lengths.mean())
    assert of_arm["shortest"][0] <= of_arm["own"][0]
    assert of_arm["own"][1] == 1.0


def test_the_examples_of_compared_arms_are_held_against_each_other(compared: Project) -> None:
    stages = stage_rows(compared.warehouse, compared.recipe, GRID)
    by_question = traits_by_question(compared.warehouse, compared.recipe, stages)
    found = dataset_differences(compared.warehouse, compared.recipe, GRID, stages, by_question)
    query = """SELECT DISTINCT arm, seed, coalesce(response_id, continuation_id) AS example
        FROM experiment_cells JOIN sft_examples USING (recipe, dataset, policy)"""
    of_cells = compared.read(query).group_by("arm", "seed").agg("example").rows()
    examples = {(arm, seed): set(ids) for arm, seed, ids in of_cells}
    trained = {arm for arm, _ in examples}
    assert found.select("arm", "less").rows() == [pair for pair in GRID.compared if set(pair) <= trained]
    for arm, less, same in found.select("arm", "less", "same").iter_rows():
        seeds = [seed for name, seed in examples if name == arm and (less, seed) in examples]
        both = sum(len(examples[arm, seed] & examples[less, seed]) for seed in seeds)
        assert same == pytest.approx(both / sum(len(examples[arm, seed]) for seed in seeds))
    assert 0 < found["same"].min() < 1 and found["training_loss"].null_count() == 0


def test_teacher_sentences_are_counted_by_the_work_before_them(compared: Project) -> None:
    found = shares_by_work(compared.warehouse, compared.recipe, ["t060"])
    fewer = compared.recipe.model_copy(
        update={"generation": compared.recipe.generation.model_copy(update={"num_candidates": 1})}
    )
    assert 0 < shares_by_work(compared.warehouse, fewer, ["t060"])["responses"].sum() < found["responses"].sum()
    held_out = change(compared.recipe, "heldout.questions", 0.5)
    assert 0 < shares_by_work(compared.warehouse, held_out, ["t060"])["responses"].sum() < found["responses"].sum()
    query = """SELECT response_id, list(t.sentence_type = 'teacher' ORDER BY sentence_index) AS is_teacher
        FROM sentence_types t JOIN responses r USING (response_id)
        WHERE r.temperature = 0.6 AND response_id IN
            (SELECT response_id FROM response_verdicts WHERE filter = 'correctness' AND passed) GROUP BY ALL"""
    sentences = compared.read(query)["is_teacher"].to_list()
    assert found["responses"].sum() == len(sentences)
    number = pl.col("responses") / pl.col("responses").sum()
    assert found.select((pl.col("last") * number).sum()).item() == pytest.approx(
        sum(each[-1] for each in sentences) / len(sentences)
    )
    assert sentences_by_work(compared.warehouse, compared.recipe, GRID) == []
    required = ArmStage(dataset=("t060",), filters={"required": ["work"]})
    sound = GRID.model_copy(update={"arms": {**GRID.arms, "sound": (required,)}})
    assert "| the last sentence |" in "".join(sentences_by_work(compared.warehouse, compared.recipe, sound))


def test_ways_are_counted_in_what_an_arm_is_trained_on_and_in_what_it_answers(compared: Project) -> None:
    experiment = GRID.model_copy(update={"ways": {"nines": "9", "digits": r"\d"}})
    stages = stage_rows(compared.warehouse, compared.recipe, GRID)
    shown = ways_shown(compared.warehouse, compared.recipe, experiment, stages)
    query = """SELECT x.arm, coalesce(r.text, t.text) AS text FROM experiment_cells x
        JOIN sft_examples e USING (recipe, dataset, policy) LEFT JOIN responses r USING (response_id)
        LEFT JOIN teacher_continuations t ON t.continuation_id = e.continuation_id"""
    found = answers(compared.warehouse, compared.recipe, GRID)
    given = compared.read("SELECT evaluation_id, response_text AS text FROM evaluations")
    answered = ways_answered(compared.warehouse, experiment, found)
    assert answered.drop("way").equals(found)
    nines, digits = pl.col("text").str.contains("9"), pl.col("text").str.contains(r"\d")
    way = pl.when(nines).then(pl.lit("nines")).when(digits).then(pl.lit("digits")).otherwise(pl.lit("other"))
    by = ["arm", "way"]
    counted = answered.group_by(by).agg(number=pl.len().cast(pl.Int64))
    for counts, texts in ((shown, compared.read(query)), (counted, found.join(given, on="evaluation_id"))):
        expected = texts.with_columns(way=way).group_by(by).agg(number=pl.len().cast(pl.Int64))
        assert counts.drop_nulls("way").select(expected.columns).sort(by).equals(expected.sort(by))
    assert {"masked", "pooled"} < set(shown["arm"])


def test_an_answer_that_could_not_be_had_goes_no_way(compared: Project) -> None:
    experiment = GRID.model_copy(update={"ways": {"digits": r"\d"}})
    found = answers(compared.warehouse, compared.recipe, GRID).filter(pl.col("arm") == "own")
    lost = found.with_columns(evaluation_id=pl.lit(None, pl.String), correct=pl.lit(False))
    assert set(ways_answered(compared.warehouse, experiment, lost)["way"]) == {"failed"}


def test_of_a_mixed_stage_it_is_said_how_much_the_student_began_and_how_much_carries_loss(compared: Project) -> None:
    query = """SELECT continuation_id IS NOT NULL AS continued, len(input_ids) AS num_tokens,
        list_count(list_filter(labels, lambda label: label <> -100)) AS num_targets
        FROM sft_examples WHERE dataset = 'mixed' AND policy = 'das-masked'"""
    rows = compared.read(query)
    stages = stage_rows(compared.warehouse, compared.recipe, GRID)
    by_question = traits_by_question(compared.warehouse, compared.recipe, stages)
    traits = dataset_traits(compared.warehouse, compared.recipe, stages, by_question)
    [masked] = traits.filter(pl.col("dataset") == "mixed").to_dicts()
    assert 0 < rows["continued"].sum() < rows.height
    assert (masked["examples"], masked["continuations"]) == (rows.height, rows["continued"].sum())
    assert masked["with_loss"] == pytest.approx(rows["num_targets"].sum() / rows["num_tokens"].sum())
    [shown] = [row for row in trait_table(traits).rows if row["dataset"] == "mixed"]
    assert (shown["examples"], shown["continuations"]) == (f"{rows.height:,}", f"{rows['continued'].sum():,}")
    drawn = rollouts(compared.warehouse, compared.recipe, stages)
    assert drawn.height == compared.count("student_rollouts") and 0 < drawn["cut_off"].sum() < drawn.height
    assert rollouts(compared.warehouse, compared.recipe, stages.filter(pl.col("arm") != "masked")).is_empty()


def test_requests_that_failed_are_shown_beside_the_accuracy_that_they_lower() -> None:
    found = pl.DataFrame({"arm": ["a", "a", "b"], "status": ["failed", "answered", "answered"]})
    assert failed_text(found) == "requests that failed and count as wrong: a 1 of 2"
    assert failed_text(found.tail(2)) == ""


def test_the_loss_of_an_arm_goes_on_from_stage_to_stage(compared: Project) -> None:
    curves = loss_curves(compared.warehouse, stage_rows(compared.warehouse, compared.recipe, GRID))
    assert list(curves) == ["own", "random_second", "shortest", "pooled", "masked"]
    assert curves["shortest"] == [(1, 0.75), (2, 0.5)]
    assert curves["own"] == [*curves["shortest"], (3, 0.75), (4, 0.5)]


def test_an_accuracy_is_held_against_the_mean_loss_of_the_last_stage(compared: Project) -> None:
    stages = stage_rows(compared.warehouse, compared.recipe, GRID)
    found = losses(compared.warehouse, stages, answers(compared.warehouse, compared.recipe, GRID))
    assert found.select("arm", "seed").rows() == [cell for cell in every_cell(GRID) if cell[0] != "student"]
    assert set(found["loss"]) == {0.625} and found["accuracy"].null_count() == 0


def test_a_figure_of_one_seed_has_one_that_every_arm_has_or_names_it() -> None:
    cells = [("a", 2), ("a", 3), ("b", 1), ("b", 3)]  # in the order of the seeds 1, 2, 3
    stages = pl.DataFrame(cells, {"arm": pl.String, "seed": pl.Int64}, orient="row")
    assert of_one_seed(stages).rows() == [("a", 3), ("b", 3)]
    assert of_one_seed(stages.filter(pl.col("seed") < 3)).rows() == [("a (seed 2)", 2), ("b (seed 1)", 1)]
    assert of_one_seed(stages.clear()).is_empty()


def test_a_stage_tells_its_policy_from_that_of_its_selection() -> None:
    stage = ArmStage.model_validate({"dataset": "t060", "policy": "random", "selection": {"policy": "top_k"}})
    assert stage_text(stage) == "t060, random, selection policy top_k"


def test_pages_are_of_the_same_bytes_and_keep_what_was_written_by_hand(compared: Project, tmp_path: Path) -> None:
    meant = GRID.model_copy(
        update={
            "meaning": "Nothing follows. And so on.",
            "meaning_of": "0123456789ab",
            "declared_after": ("first",),
            "ways": {"with digits": r"\d", "otherwise": "x^"},
        }
    )
    assert declared_rule(meant) == declared_rule(GRID) and compared_rule(meant) == compared_rule(GRID)
    alone = GRID.model_copy(update={"pairs": ()})
    assert declared_rule(alone) == declared_rule(GRID) == compared_rule(alone) != compared_rule(GRID)
    plain = GRID.model_copy(update={"arms": {"own": GRID.arms["own"], "student": ()}})
    assert (declared_rule(GRID).uses, declared_rule(plain).uses) == ((MULTIPLES,), ())
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "figures").mkdir(parents=True)
    (first / "figures" / "gone_differences.svg").write_text("<svg/>")
    (first / "gone.md").write_text(
        f"{MARK}\n# An experiment that there is no more\n![](figures/gone_differences.svg)\n"
    )
    (first / "own_notes.md").write_bytes("# Von Hand, für uns\n![](figures/own.svg)\n".encode("latin-1"))
    (first / "figures" / "own.svg").write_text("<svg/>")
    by_hand = {"own_notes.md", "figures/own.svg"}
    changed = write_pages(compared.warehouse, compared.recipe, [meant], first)
    write_pages(compared.warehouse, compared.recipe, [meant], second)
    names = {path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()}
    assert names == {"grid.md", "results.md", *by_hand, *(f"figures/grid_{name}.svg" for name in CAPTIONS)}
    assert set(changed) == (names | {"gone.md", "figures/gone_differences.svg"}) - by_hand
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names - by_hand)
    assert write_pages(compared.warehouse, compared.recipe, [meant], first) == []
    page = (first / "grid.md").read_text()
    head = "| arm | with digits | otherwise | other | by ways alone | trained on | answers |"
    assert f"## Ways of reasoning\n\n### held_out, T=1\n\n{head}" in page and "| otherwise | `x^` |" in page
    after = "Declared after the results of `first` had been seen."
    assert "Nothing follows. And so on." in page and after in page
    assert page.index(after) < page.index("## What is claimed") < page.index("## What is compared")
    rows = [line.removesuffix(" |") for line in page.splitlines() if line.startswith("| Training is worth it |")]
    assert rows and f"{rows[0]} | [{GRID.title}](grid.md) |" in (first / "results.md").read_text()
    assert "| Nothing follows. *Written" in (first / "results.md").read_text()
    assert all(f"(figures/grid_{name}.svg)" in page for name in CAPTIONS)
    assert str(compared.home) not in page
    stale = "*Written about other answers (0123456789ab) than those here"
    now = answers_hash(answers(compared.warehouse, compared.recipe, GRID))
    assert stale in page and stale in (first / "results.md").read_text() and f"judged answers | {now} |" in page
    write_pages(compared.warehouse, compared.recipe, [meant.model_copy(update={"meaning_of": now})], first)
    assert f"| Nothing follows. {after} |" in (first / "results.md").read_text()
    assert "Written about other answers" not in (first / "grid.md").read_text() + (first / "results.md").read_text()


def test_pages_of_an_experiment_that_has_not_run_in_this_home_stay(compared: Project, tmp_path: Path) -> None:
    other = GRID.model_copy(update={"name": "other", "title": "Of another home", "meaning": "Nothing."})
    unknown = other.model_copy(update={"name": "unknown", "title": "Of no home"})
    (tmp_path / "figures").mkdir()
    files = {"other.md": f"{MARK}\n# As it was\n", "figures/other_differences.svg": "<svg/>"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    changed = write_pages(compared.warehouse, compared.recipe, [GRID, other, unknown], tmp_path)
    assert not files.keys() & set(changed)
    assert {name: (tmp_path / name).read_text() for name in files} == files
    listed_there = (tmp_path / "results.md").read_text()
    assert "| [Of another home](other.md) | 6 | 2 | 0 of 12 | – | Nothing. *Not run in this home: " in listed_there
    assert "| Of no home | 6 | 2 | 0 of 12 |" in listed_there


def test_rows_of_an_experiment_that_ran_in_another_home_stay_as_they_are(compared: Project, tmp_path: Path) -> None:
    there = GRID.model_copy(update={"title": "There | too", "meaning": "It did. And more."})
    write_pages(compared.warehouse, compared.recipe, [there], tmp_path)
    (tmp_path / "grid.md").rename(tmp_path / "other.md")  # a name that has not run in this home
    listed_there = tmp_path / "results.md"
    listed_there.write_text(listed_there.read_text().replace("](grid.md) |", "](other.md) |"))
    *claims, row = lines_of("other", listed_there)
    assert len(claims) == len(GRID.claims) and "| 12 of 12 |" in row
    for _ in range(2):  # that it is of another home is said once
        write_pages(compared.warehouse, compared.recipe, [there.model_copy(update={"name": "other"})], tmp_path)
        said = f"{row.removesuffix(' |')} {OF_ANOTHER_HOME} |"
        assert lines_of("other", listed_there) == [*claims, said]


def lines_of(name: str, path: Path) -> list[str]:
    """Rows of a table that link to an experiment's page."""
    return [line for line in path.read_text().splitlines() if f"]({name}.md) |" in line]


@pytest.fixture
def compared_copy(compared: Project, tmp_path: Path) -> Project:
    shutil.copytree(compared.home, tmp_path / "home")
    return Project(tmp_path / "home", compared.recipe)


def test_teacher_sentences_of_batches_that_are_gone_do_not_count(compared_copy: Project) -> None:
    with compared_copy.warehouse.commit("test") as transaction:
        transaction.read("UPDATE responses SET batch = 'gone'")
    assert shares_by_work(compared_copy.warehouse, compared_copy.recipe, ["t060"]).is_empty()


def test_an_answer_that_no_verifier_could_decide_is_neither_right_nor_wrong(compared_copy: Project) -> None:
    query = """UPDATE response_verdicts SET passed = FALSE, kind = 'not_comparable', reason = 'r'
        WHERE filter = 'correctness'"""
    with compared_copy.warehouse.commit("test") as transaction:
        transaction.read(query)
    stages = stage_rows(compared_copy.warehouse, compared_copy.recipe, GRID)
    by_question = traits_by_question(compared_copy.warehouse, compared_copy.recipe, stages)
    traits = dataset_traits(compared_copy.warehouse, compared_copy.recipe, stages, by_question)
    assert traits.height and traits["right"].null_count() == traits.height


def test_a_failed_request_is_on_the_page_of_the_report(compared_copy: Project) -> None:
    project, checkpoint = compared_copy, checkpoints_of(compared_copy, "shortest", 7)[-1]
    failure = {"asset": "evaluations", "kind": "engine_error", "reason": "r", "num_attempts": 3}
    query = "SELECT min(evaluation_id) FROM evaluations WHERE checkpoint_id = $id"
    with project.warehouse.commit("test") as transaction:
        key = transaction.read(query, {"id": checkpoint}).item()
        transaction.delete_keys("evaluations", {"checkpoint_id": checkpoint}, "evaluation_id", [key])
        row = {"request_id": key, **failure, "failed_at": datetime.now(UTC)}
        transaction.append_missing("failed_requests", pl.DataFrame([row]))
    built = build_definitions(project.recipe, project.home, project.engines, project.fake.train, compared=[GRID])
    definitions = dg.Definitions.merge(built, dg.Definitions(loggers={"console": silent_log}))
    with project.instance() as instance, nothing_drawn():
        execute(instance, definitions, ["experiment_report_grid"], None, project.home)
        [event] = instance.fetch_materializations(dg.AssetKey("experiment_report_grid"), limit=1).records
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata["failed"].value
    assert shown == "requests that failed and count as wrong: shortest 1 of 20"


def test_levels_are_those_that_the_metadata_of_questions_names(compared_copy: Project) -> None:
    warehouse = compared_copy.warehouse
    given = answers(warehouse, compared_copy.recipe, GRID)
    ids = given["question_id"].unique().sort().to_list()
    assert set(question_groups(warehouse, given)["group"]) == {"math"}
    with warehouse.commit("test") as transaction:
        for number, level in enumerate(["1", "1", "4"]):
            query = "UPDATE benchmark_questions SET metadata = $metadata WHERE question_id = $id"
            transaction.read(query, {"metadata": f'{{"level": {level}}}', "id": ids[number]})
        transaction.read(query, {"metadata": '{"level": 2.5}', "id": ids[3]})
    groups = question_groups(warehouse, given).group_by("group", maintain_order=True).len().rows()
    assert groups == [("math", len(ids)), ("math, level 1", 2), ("math, level 4", 1)]


def test_a_takedown_names_the_experiments_that_learned_from_it(compared_copy: Project) -> None:
    project = compared_copy
    assert outdated_cells(project.warehouse, project.recipe, GRID) == set()
    query = "SELECT prompt_id FROM selected_responses WHERE dataset = 't060' AND policy = 'das' ORDER BY ALL LIMIT 1"
    record = take_down(project.warehouse, [project.read(query).item()], [], "a claim", undo=False)
    assert record["experiments"] == [{"recipe": project.recipe.name, "experiment": "grid"}]
    assert "dasd experiment grid --recipe tiny" in takedown_page(record)
    outdated = len(outdated_cells(project.warehouse, project.recipe, GRID))
    assert 6 <= outdated <= 10  # own, random_second and masked under both seeds, at least; never the untrained student
    (project.home / "experiments").mkdir(exist_ok=True)
    (project.home / "experiments" / "grid.yaml").write_text(
        json.dumps(GRID.model_dump(mode="json", exclude_unset=True))
    )
    listing = "\n".join(listed(project.warehouse, project.recipe, project.home))
    assert f"({outdated} cells are of another declaration, recipe or data than there are now: run it again)" in listing


def test_what_a_stage_chose_itself_is_outdated_once_the_recipe_selects_from_other_batches(
    compared_copy: Project,
) -> None:
    selects = "UPDATE selection_rules SET rule = json_merge_patch(rule, $changed) WHERE dataset = 't060'"
    for changed in ({"seed": 9}, {"batches": ["landed"]}):
        assert outdated_cells(compared_copy.warehouse, compared_copy.recipe, GRID) == set()
        with compared_copy.warehouse.commit("test") as transaction:
            transaction.read(selects, {"changed": json.dumps(changed)})
    found = outdated_cells(compared_copy.warehouse, compared_copy.recipe, GRID)
    assert found == {(arm, seed) for arm in ("shortest", "pooled") for seed in GRID.seeds}


def test_a_cell_of_another_declaration_is_said_to_be_so(compared: Project, tmp_path: Path) -> None:
    declared = GRID.model_dump(mode="json", exclude_unset=True)
    declared["arms"]["own"][0]["training"] = {"epochs": 9}
    changed = Experiment.model_validate(declared)
    assert outdated_cells(compared.warehouse, compared.recipe, GRID) == set()
    assert outdated_cells(compared.warehouse, compared.recipe, changed) == {("own", seed) for seed in GRID.seeds}
    said = "2 cells are of another declaration, recipe or data than there are now: run it again"
    assert f"  {said}" in list(page(compared.warehouse, compared.recipe, changed))
    write_pages(compared.warehouse, compared.recipe, [changed], tmp_path)
    text = (tmp_path / "grid.md").read_text()
    assert f"*{said}.*" in text and f"{checkpoints_of(compared, 'own', 7)[-1]} (outdated)" in text
    _, learned = text.split("## What they were trained on")
    assert "| own |" not in learned.split("Means over the examples")[0]
    assert "run it again" not in "\n".join(page(compared.warehouse, compared.recipe, GRID))
    other = change(compared.recipe, "training.epochs", 9)
    assert len(outdated_cells(compared.warehouse, other, GRID)) > len(GRID.seeds)


def test_a_shipped_experiment_runs_on_any_recipe_that_names_it(
    compared_copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, home = compared_copy, compared_copy.home
    recipe = project.recipe.model_copy(update={"experiments": ("table_7",)})
    [table_7] = sound_experiments(recipe, home)
    built = build_definitions(recipe, home, project.engines, project.fake.train)
    definitions = dg.Definitions.merge(built, dg.Definitions(loggers={"console": silent_log}))
    theirs = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert "experiment_report_table_7" in theirs and "experiment_report_table_5" not in theirs
    with project.instance() as instance:
        cells = chosen_cells(table_7, None, [42])
        run_experiment(instance, definitions, recipe, table_7, cells, project.engines, home, project.said.append)
    assert project.fake.trained == []  # its stages are the recipe's own
    [row] = [line for line in listed(project.warehouse, recipe, home) if line.startswith("table_7")]
    assert "4 trained,   4 answered of  20" in row
    write_pages(project.warehouse, recipe, [table_7], tmp_path / "pages")
    text = (tmp_path / "pages" / "table_7.md").read_text()
    assert "Arms of the grid `table_7` of recipe `tiny`" in text and "questions of `held_out`" in text
    assert "## What it means" not in text and "school" not in text
    monkeypatch.setenv("DASD_HOME", str(home))
    cells_of_another = stage_rows(project.warehouse, recipe, table_7).drop("path").with_columns(recipe=pl.lit("other"))
    with project.warehouse.commit("test") as transaction:
        transaction.append_missing("experiment_cells", cells_of_another)
    assert main(["compare", "table_7/low", "table_7/student"]) == 1
    assert "several recipes: give other/table_7/low or tiny/table_7/low" in capsys.readouterr().err
    assert main(["compare", "tiny/table_7/low", "tiny/table_7/student", "--json"]) == 0
    [of] = json.loads(capsys.readouterr().out)["a"]["checkpoints"]
    assert (of["seed"], of["checkpoint_id"]) == (42, checkpoints_of(project, "own", 42)[0])
    assert main(["compare", "tiny/table_7/low", "tiny/t060"]) == 1
    assert "tiny/table_7/low and tiny/t060 are the same" in capsys.readouterr().err


@pytest.mark.drill
def test_after_a_takedown_the_affected_cells_are_trained_anew_without_it(compared_copy: Project) -> None:
    project, arms = compared_copy, ["student", "own", "random_second"]
    before = {(arm, seed): checkpoints_of(project, arm, seed) for arm in GRID.arms for seed in GRID.seeds}
    query = "SELECT prompt_id FROM selected_responses WHERE dataset = 't060' AND policy = 'das' ORDER BY ALL LIMIT 1"
    withdrawn = project.read(query).item()
    take_down(project.warehouse, [withdrawn], [], "a claim", undo=False)
    outdated = outdated_cells(project.warehouse, project.recipe, GRID)
    project.run()
    run(project, arms, [7])
    assert outdated_cells(project.warehouse, project.recipe, GRID) == outdated - {("own", 7), ("random_second", 7)}
    assert checkpoints_of(project, "student", 7) == before["student", 7]
    assert checkpoints_of(project, "masked", 7) == before["masked", 7]  # not run again: `listed` says so
    for arm in ("own", "random_second"):
        anew = checkpoints_of(project, arm, 7)
        assert not set(anew) & set(before[arm, 7])
        learned = "SELECT prompt_id FROM checkpoint_examples WHERE list_contains($ids, checkpoint_id)"
        assert withdrawn in project.read(learned, ids=before[arm, 7])["prompt_id"]
        found = project.read(learned, ids=anew)["prompt_id"]
        assert found.len() and withdrawn not in found
    chosen = "SELECT prompt_id FROM selected_responses WHERE policy = $policy OR policy = 'das'"
    policy = project.read("SELECT policy FROM experiment_cells WHERE arm = 'random_second' AND seed = 7 AND stage = 2")
    assert withdrawn not in project.read(chosen, policy=policy.item())["prompt_id"]


@pytest.mark.drill
def test_repair_says_what_makes_the_rows_of_experiments_again_and_it_does(compared_copy: Project) -> None:
    warehouse = compared_copy.warehouse
    rows = "SELECT example_id, policy, dataset_id FROM sft_examples WHERE list_contains($policies, policy) ORDER BY ALL"
    policies = compared_copy.read(
        "SELECT DISTINCT policy FROM experiment_cells WHERE seed = 7 AND arm IN ('own', 'shortest')"
    )
    before = compared_copy.read(rows, policies=policies["policy"].to_list())
    flush_small_commits(warehouse, "flush")  # tables of few rows are kept in the catalog
    for file in data_files(warehouse.catalog):
        if file.newest and file.table == "sft_examples":
            Path(warehouse.catalog.data.location(file.path)).unlink()
    plan = plan_repair(warehouse, [], [])
    assert {damage.file.table for damage in plan.drop} == {"sft_examples"}
    assert "sft_examples: after `dasd run`, `dasd experiment grid --recipe tiny` makes its rows again" in plan.notes
    with compared_copy.instance() as instance:
        drop_files(warehouse, plan, lambda: instance.event_log_storage.get_maximum_record_id() or 0)
    assert compared_copy.count("sft_examples") == 0
    compared_copy.run()
    compared_copy.fake.trained.clear()
    run(compared_copy, ["own"], [7])
    run(compared_copy, ["shortest"], [7])
    assert compared_copy.read(rows, policies=policies["policy"].to_list()).equals(before)
    assert compared_copy.fake.trained == []
