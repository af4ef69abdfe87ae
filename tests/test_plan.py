"""`dasd plan`: what a pilot on a few questions says of all of them; the arithmetic behind it, by hand."""

import json
import math
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Fake, Project, change, fake_engines, prompt_rows
from filelock import FileLock
from test_docs import PAGES

from dasd_assets.cli import main
from dasd_assets.commands.pilot import FOLDER, NAME, Pilot, key_of, pass_seconds, run_pilot, scaled_to, training_pace
from dasd_assets.commands.pilot_files import draw, smaller
from dasd_assets.commands.plan import landed_prompts, scope_of
from dasd_assets.plan.assumptions import assumed
from dasd_assets.plan.engine_time import decoding, idle, prefill, training
from dasd_assets.plan.estimate import LARGE, TOTAL, Plan, estimate
from dasd_assets.plan.figures import Figure, Figures, at_hand, exact, intervals, measured
from dasd_assets.plan.hardware import Machine, machine
from dasd_assets.plan.lengths import shorter
from dasd_assets.plan.measured import Pace, Pass, continued, figures_of, fit, time_figures
from dasd_assets.plan.model_size import Attention, ModelSize, size_of
from dasd_assets.plan.page import page
from dasd_assets.plan.savings import savings
from dasd_assets.plan.scope import Scope
from dasd_assets.plan.stages import BETWEEN, stages_of
from dasd_assets.plan.work import work_of
from dasd_assets.records.declaration import ENGINE_POOL
from dasd_assets.service.in_process import RunFailed
from dasd_resources.demo.questions import questions, write_rows
from dasd_resources.errors import UserError
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.kept_loaded import LOCK, WANTED
from dasd_resources.inference.model_files import find_model
from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.recipe import Model, Recipe, Training, load_recipe
from dasd_resources.sft.checkpoint import Progress
from dasd_resources.storage.upkeep import table_sizes

NUM_PILOT = 9  # of the 15 questions of `finished`
OF_CUT_OFF = {"prefix_cuts", "teacher_continuations", "continuation_tokens", "continuation_verdicts"}
CORE = machine("cpu", 1)
SMALL = ModelSize("s", 1e9, 1e9, 2e9, {Attention(window=0, kv_bytes=1e3, flops=1e3): 10})


@dataclass(frozen=True)
class Run:
    """A pilot that was run, and how to run it again."""

    prompts: list[Prompt]
    scope: Scope
    home: Path
    fake: Fake
    recipe: Recipe

    def __call__(self) -> Pilot:
        engines = fake_engines(self.home, self.fake)
        return run_pilot(self.recipe, self.prompts, self.scope, self.home, engines, lambda line: None, self.fake.train)


@pytest.fixture(scope="module")
def run(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Run:
    prompts = list(landed_prompts(finished.recipe, finished.home))
    scope, _ = scope_of(finished.recipe, prompts, CORE, None)
    return Run(draw(prompts, NUM_PILOT), scope, tmp_path_factory.mktemp("home"), Fake(), finished.recipe)


@pytest.fixture(scope="module")
def pilot(run: Run) -> Pilot:
    return run()


def planned_by(figures: Figures, finished: Project) -> Plan:
    """Of all questions of the finished home, with these figures in place of assumed ones."""
    scope, told = scope_of(finished.recipe, list(landed_prompts(finished.recipe, finished.home)), CORE, None)
    return estimate(finished.recipe, scope, {**told, **assumed(finished.recipe, CORE), **figures})


def assert_disk_adds_up(plan: Plan) -> None:
    """To the byte: what each stage leaves, and what there is while one trains; the lines of the page; the parts."""
    beside = plan.disk["training state"].value + plan.disk["rows being trained on"].value
    stages, lines = (sum(one.disk.value for one in every) for every in (plan.stages, plan.lines))
    parts = sum(size.value for part, size in plan.disk.items() if part != TOTAL)
    assert [stages + beside, lines, parts] == pytest.approx([plan.disk[TOTAL].value] * 3, abs=1)
    small = sum(num.value for table, num in plan.rows.items() if table not in LARGE)
    assert plan.disk["other rows"].value == pytest.approx(small * plan.figures["bytes.row"].value, abs=1)


def test_a_large_file_is_several_batches(finished: Project) -> None:
    prompts = list(landed_prompts(finished.recipe, finished.home))
    sizes = Counter(prompt.source_file for prompt in prompts).values()
    split = change(finished.recipe, "landing.questions_per_batch", 4)
    assert scope_of(finished.recipe, prompts, CORE, None)[0].num_batches == len(sizes)
    assert scope_of(split, prompts, CORE, None)[0].num_batches == sum(-(-size // 4) for size in sizes) > len(sizes)


def wrong_rows(plan: Plan, finished: Project) -> dict[str, tuple[float, int]]:
    """Tables of which a plan foretells 30 % more or fewer rows than there are: planned and real."""
    found = {table: (num.value, finished.count(table)) for table, num in plan.rows.items()}
    assert {"responses", "sentence_probabilities", "sft_examples", "student_rollouts"} <= found.keys()
    return {table: both for table, both in found.items() if abs(both[0] - both[1]) > 0.3 * both[1]}


def test_a_home_foretells_its_own_rows(finished: Project) -> None:
    """Every table's count follows from the recipe and the measured figures."""
    figures = figures_of(finished.warehouse, finished.recipe, 15)
    assert all(figure.is_measured for figure in figures.values())
    assert {"teacher_tokens.t060", "accepted_share.t100", "cut_off_share", "answer_tokens.mixed"} <= figures.keys()
    assert wrong_rows(planned_by(figures, finished), finished) == {}


def test_questions_that_a_quota_left_out_are_not_unanswered(copy: Project) -> None:
    with copy.warehouse.commit("none of sums") as transaction:
        transaction.read(
            """INSERT INTO asked_prompts BY NAME SELECT $recipe AS recipe, prompt_id, batch,
            false AS asked, 1 AS place, 0 AS quota FROM prompts WHERE domain = 'sums'""",
            {"recipe": copy.recipe.name},
        )
        transaction.read("DELETE FROM responses WHERE prompt_id IN (SELECT prompt_id FROM asked_prompts)")
    recipe = change(copy.recipe, "generation.questions_per_domain", {"sums": 0})
    assert "answered_share" not in figures_of(copy.warehouse, recipe, 15)


def test_responses_that_are_asked_no_more_stand_in_for_none_that_is_missing(copy: Project) -> None:
    with copy.warehouse.commit("one is missing") as transaction:
        transaction.read(
            """DELETE FROM responses WHERE response_id =
            (SELECT min(response_id) FROM responses WHERE temperature = 0.6 AND sample_index = 0)"""
        )
    fewer = change(copy.recipe, "generation.num_candidates", copy.recipe.generation.num_candidates - 1)
    assert figures_of(copy.warehouse, fewer, 15)["answered_share"].value < 1


def test_what_filters_before_scoring_leave_is_known_where_they_came_after(copy: Project) -> None:
    before = figures_of(copy.warehouse, copy.recipe, 15)["scored_share.t060"]
    with copy.warehouse.commit("all are scored") as transaction:
        transaction.read(
            """INSERT INTO student_logprobs BY NAME
            SELECT s.* REPLACE (r.response_id AS response_id) FROM responses r, (FROM student_logprobs LIMIT 1) s
            WHERE r.response_id NOT IN (SELECT response_id FROM student_logprobs)"""
        )
    after = change(copy.recipe, "filters.apply", "after_selection")
    assert before.value < 1
    assert figures_of(copy.warehouse, after, 15)["scored_share.t060"] == before


def test_the_bytes_of_a_sentence_are_those_of_its_type_too(finished: Project) -> None:
    sizes = {row["table_name"]: row["num_bytes"] for row in table_sizes(finished.warehouse).iter_rows(named=True)}
    each = figures_of(finished.warehouse, finished.recipe, 15)["bytes.sentence"].value
    both = sizes["sentence_probabilities"] + sizes["sentence_types"]
    assert each * finished.count("sentence_probabilities") == pytest.approx(both)


def test_answers_to_an_earlier_prompt_say_nothing_of_length(copy: Project) -> None:
    before = figures_of(copy.warehouse, copy.recipe, 15)
    answers = copy.read("SELECT * EXCLUDE run_id FROM evaluations")
    earlier = answers.with_columns(
        template_version=pl.lit("earlier"),
        num_tokens=pl.col("num_tokens") * 10,
        evaluation_id="x" + pl.col("evaluation_id"),
    )
    with copy.warehouse.commit("test") as transaction:
        transaction.append_missing("evaluations", earlier)
    assert figures_of(copy.warehouse, copy.recipe, 15)["answer_tokens.mixed"] == before["answer_tokens.mixed"]


def test_questions_held_out_are_asked_and_scored_and_not_trained_on(finished: Project) -> None:
    figures = figures_of(finished.warehouse, finished.recipe, 15)
    held = replace(finished, recipe=change(finished.recipe, "heldout.questions", 0.4))
    plans = [planned_by(figures, project) for project in (finished, held)]
    whole, less = (work_of(plan.recipe, plan.scope, at_hand(plan.figures)) for plan in plans)
    for table in ("responses", "student_logprobs", "response_scores"):
        assert less.rows[table] == whole.rows[table]
    for dataset in finished.recipe.datasets:
        assert less.selected[dataset] == pytest.approx(0.6 * whole.selected[dataset])
    assert less.rows["student_rollouts"] < whole.rows["student_rollouts"]
    assert less.rows["heldout_logprobs"] > whole.rows["heldout_logprobs"]


@pytest.mark.parametrize(("policy", "each"), [("best_per_question", 0.95), ("top_k", 8 * 0.85)])
def test_a_quota_limits_what_is_selected_of_its_domain_alone(policy: str, each: float) -> None:
    """Of a million questions in maths 1,000 are asked, and all of 500 in code: 8 responses each at a temperature."""
    recipe = change(load_recipe("dasd-4b"), "generation.questions_per_domain", {"math": 1000})
    recipe = change(change(recipe, "selection.policy", policy), "selection.budgets", {"t100": {"math": 10}})
    scope, _ = scope_of(recipe, [], machine("H100", 8), None)
    scope = replace(scope, questions={"math": 1e6, "code": 500})
    work = work_of(recipe, scope, at_hand(assumed(recipe, scope.machine)))
    assert work.rows["responses"] == 1500 * 8 * 2
    assert work.selected["t060"] == pytest.approx(1500 * each)
    assert work.selected["t100"] == pytest.approx(10 + 500 * each)


@pytest.mark.drill
def test_a_pilot_foretells_the_rows_of_the_whole(finished: Project, pilot: Pilot) -> None:
    """Within 30 %, but for what is made of few rollouts that are cut off, and for the difference of two numbers.

    What is left of 60 responses when the others are trained on is one. Of the rollouts, the interval holds.
    """
    plan = planned_by(pilot.figures, finished)
    wrong = wrong_rows(plan, finished)
    assert wrong.keys() <= {*OF_CUT_OFF, "heldout_logprobs"}
    for name in wrong.keys() & OF_CUT_OFF:
        assert plan.rows[name].low <= wrong[name][1] <= plan.rows[name].high


@pytest.mark.drill
def test_what_a_pilot_measured_is_said_to_be_measured(finished: Project, pilot: Pilot) -> None:
    planned = planned_by(pilot.figures, finished)
    assert {stage.stage.asset for stage in planned.stages if not stage.is_measured} == set()
    assert pilot.figures["teacher_tokens.t060"].origin == "pilot"
    text = page(planned, savings(planned))
    assert "assumed" not in text.partition("What it rests on")[0].replace("the others assumed", "")


@pytest.mark.drill
def test_a_pilot_that_is_complete_asks_nothing_again(run: Run, pilot: Pilot) -> None:
    asked = len(run.fake.generated)
    assert run() == pilot
    assert len(run.fake.generated) == asked
    assert len(list(run.home.glob(f"{FOLDER}/*/pass_*.json"))) == 2


def test_a_pilot_of_one_question_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2"):
        replace(run, prompts=run.prompts[:1], home=tmp_path)()


def test_questions_of_a_pilot_are_drawn_from_all_files(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 30))
    project.land("b.jsonl", prompt_rows(30, 60))
    drawn = draw(landed_prompts(project.recipe, project.home), 20)
    assert len({prompt.prompt_id for prompt in drawn}) == 20
    assert {prompt.source_file for prompt in drawn} == {"a.jsonl", "b.jsonl"}
    assert drawn == draw(landed_prompts(project.recipe, project.home), 20)


def test_a_pass_that_was_interrupted_has_the_seconds_of_all_stages_that_it_finished() -> None:
    first = pass_seconds({"prompts": 2.0, "training": 8.0}, {"prompts": 2.0}, [], wall=9.0)
    assert first == {"prompts": 2.0, "training": 8.0, BETWEEN: 1.0}
    before = {"prompts": 5.0, "training": 8.0}
    second = pass_seconds({**before, "report": 4.0}, before, [first], wall=6.0)
    assert second == {"prompts": 3.0, "report": 4.0, BETWEEN: 2.0}


def test_the_pace_of_a_training_that_was_interrupted_does_not_count_the_night() -> None:
    points = [Progress(1, 3, 0.5, 0.1, 100, tokens_per_second=1.0, time=100.0)]
    points += [Progress(2, 3, 0.5, 0.1, 300, tokens_per_second=100.0, time=102.0)]
    points += [Progress(3, 3, 0.5, 0.1, 800, tokens_per_second=125.0, time=50_000.0)]
    assert training_pace(points) == Pace(700, 6.0)
    assert training_pace(points[:1]) is None
    assert training_pace([*points[:2], replace(points[2], tokens_per_second=None)]) is None


def test_a_pilot_asks_each_question_a_few_times(tiny: Recipe, tmp_path: Path) -> None:
    """A model's answers fill a batching engine twice; of a question there are two at least."""
    recipe = of_held_out(tiny, tmp_path / "test.jsonl", 600)
    many = change(recipe, "evaluation.samples_per_question", 64)
    for num, samples in ((5, 64), (50, 11), (600, 2)):
        assert smaller(many, num, tmp_path).evaluation.samples_per_question == samples
    assert smaller(recipe, 5, tmp_path).evaluation.samples_per_question == 2  # the recipe's own


def of_held_out(recipe: Recipe, file: Path, num: int) -> Recipe:
    """With so many held-out questions in this file."""
    write_rows(file, list(islice(questions("test"), num)))
    benchmark = {"name": "held_out", "path": str(file), "max_tokens": 200}
    return change(recipe, "evaluation.benchmarks", [benchmark])


def test_a_pilot_is_run_anew_where_anything_that_it_rests_on_is_another(tiny: Recipe, tmp_path: Path) -> None:
    teacher, held_out = tmp_path / "teacher", tmp_path / "test.jsonl"
    shutil.copytree(find_model(tiny.teacher.model, "teacher.model"), teacher)
    recipe = of_held_out(change(tiny, "teacher.model", str(teacher)), held_out, 5)

    def key(on: Machine = CORE, answer: str = "2", **versions: str) -> str:
        lines = {"a question": [{"question": "1 + 1", "reference_answer": answer}]}
        return key_of(recipe, lines, on, fake_engines(tmp_path, Fake()), versions)

    keys = [key(), key(dasd="2"), key(machine("cpu", 2)), key(answer="3")]
    assert key() == keys[0]
    of_held_out(recipe, held_out, 6)
    keys.append(key())
    weights = next(teacher.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    keys.append(key())
    assert len(set(keys)) == 6


def test_a_pilot_has_the_engine_of_the_home_that_it_plans_for(project: Project) -> None:
    """Its slot in the pool; and a model that another process keeps loaded is freed before the first request."""
    project.land("a.jsonl", prompt_rows(0, 3))
    prompts = list(landed_prompts(project.recipe, project.home))
    scope, _ = scope_of(project.recipe, prompts, CORE, None)
    kept, seen = FileLock(project.home / LOCK, thread_local=False), list[tuple[list[str], bool]]()

    def free_when_asked() -> None:
        while not (project.home / WANTED).exists():
            time.sleep(0.05)
        kept.release()

    with project.instance() as instance, kept:
        threading.Thread(target=free_when_asked, daemon=True).start()

        def taken() -> list[str]:
            return [
                slot.step_key for slot in instance.event_log_storage.get_concurrency_info(ENGINE_POOL).claimed_slots
            ]

        def fail(request_id: str) -> bool:
            seen.append((taken(), kept.is_locked))
            raise RuntimeError("enough has been seen")

        fake = Fake(fails=fail)
        engines = fake_engines(project.home, fake)
        with pytest.raises(RunFailed, match="enough has been seen"):
            run_pilot(project.recipe, prompts, scope, project.home, engines, project.said.append, fake.train)
        assert seen[0] == ([NAME], False)
        assert taken() == []


def test_two_passes_tell_what_starts_from_what_works() -> None:
    factor, fixed = fit([(10.0, 2.0 + 3.0 * 10, 1.0), (50.0, 2.0 + 3.0 * 50, 1.0)])
    assert factor.value == pytest.approx(3.0)
    assert fixed.value == pytest.approx(2.0)
    assert factor.low < 3.0 < factor.high


def test_the_times_of_two_passes_are_found_again(tiny: Recipe) -> None:
    """Every stage of the recipe, each with one and a half seconds a start and twice the modelled work."""
    scope, _ = scope_of(tiny, [], CORE, 100)
    figures = assumed(tiny, CORE)
    values, passes = at_hand(figures), list[Pass]()
    for own, whole in ((200, 200), (800, 1000)):
        scopes = [replace(scope, questions={"general": num}, num_batches=1) for num in (own, whole)]
        small, large = (stages_of(tiny, one, work_of(tiny, one, values), values) for one in scopes)
        seconds = {one.asset: 1.5 * one.starts + 2 * one.seconds for one in small if one.per_batch}
        seconds |= {one.asset: 1.5 * one.starts + 2 * one.seconds for one in large if not one.per_batch}
        passes.append(Pass(*scopes, seconds))
    found = time_figures(tiny, passes, figures)
    assert set(found) >= {"factor.generation", "factor.training", "factor.student_logprobs", "fixed.evaluations"}
    assert found["factor.generation"].value == pytest.approx(2)
    assert found["fixed.checkpoint_t060"].value == pytest.approx(1.5)
    plan = estimate(tiny, scope, {**figures, **found})
    assert all(stage.is_measured for stage in plan.stages)
    assert_disk_adds_up(plan)
    # A recipe that asks each question 32 times as often as its pilot did.
    often = estimate(change(tiny, "evaluation.samples_per_question", 64), scope, {**figures, **found})
    few, many = (next(one for one in each.stages if one.stage.asset == "evaluations") for each in (plan, often))
    assert many.rows.value == pytest.approx(32 * few.rows.value)
    assert many.seconds.value == pytest.approx(1.5 * many.stage.starts + 2 * many.stage.seconds)


def test_a_trainings_own_pace_is_believed_more_than_two_short_times(tiny: Recipe) -> None:
    """Twice as slow as modelled, and 6 s for a start; the two times of the steps are noisy."""
    scope, _ = scope_of(tiny, [], CORE, 100)
    figures = assumed(tiny, CORE)
    values, passes, paces = at_hand(figures), list[Pass](), dict[str, Pace]()
    for num, noise in ((200, 0.5), (1000, -0.5)):
        whole = replace(scope, questions={"general": num}, num_batches=1)
        trained = [
            one for one in stages_of(tiny, whole, work_of(tiny, whole, values), values) if one.kind == "training"
        ]
        passes.append(Pass(whole, whole, {one.asset: 6 + noise + 2 * one.seconds for one in trained}))
        paces = {one.asset: Pace(one.tokens / 2, one.seconds) for one in trained}
    found = time_figures(tiny, passes, figures, paces)
    assert found["factor.training"].value == pytest.approx(2)
    assert found["fixed.checkpoint_t060"].value == pytest.approx(6)
    assert found["factor.training"].low < 2 < found["factor.training"].high


def test_starts_are_counted() -> None:
    factor, fixed = fit([(10.0, 3 * 2.0 + 10, 3.0), (50.0, 5 * 2.0 + 50, 5.0)])
    assert (factor.value, fixed.value) == (pytest.approx(1.0), pytest.approx(2.0))


def test_noise_makes_no_cost_negative() -> None:
    factor, fixed = fit([(10.0, 5.0, 1.0), (50.0, 4.9, 1.0)])
    assert 0 < factor.low < factor.value <= factor.high < 0.02
    assert fixed.value > 4
    factor, fixed = fit([(10.0, 0.1, 1.0), (50.0, 5.0, 1.0)])
    assert factor.value == pytest.approx(0.1)
    assert fixed.value == 0


def test_where_noise_leaves_a_pace_open_the_middle_is_taken() -> None:
    """2 s to start and 13.5 ms a question, whose 20 and 80 take 2.27 and 3.08 s: 1,600 take 23.6 s."""
    foretold = list[float]()
    for early, late in ((0.15, -0.15), (0, 0), (-0.15, 0.15)):
        factor, fixed = fit([(0.05, 2.27 + early, 1.0), (0.2, 3.08 + late, 1.0)])
        foretold.append(fixed.value + 4 * factor.value)
        assert fixed.low + 4 * factor.low < 23.6 < fixed.high + 4 * factor.high
        assert factor.origin == f"pilot, {3.08 + late:.2g} s"
    assert foretold == sorted(foretold)
    assert all(seconds == pytest.approx(23.6, rel=0.4) for seconds in foretold)


def test_the_shorter_a_pilots_time_the_wider_its_interval() -> None:
    long, short = (fit([(1.0, 2 * each, 1.0), (5.0, 10 * each, 1.0)])[0] for each in (10, 0.1))
    assert long.origin == "pilot"
    assert short.origin == "pilot, 1 s"
    assert (short.value - short.low) / short.value > 2 * (long.value - long.low) / long.value


def test_few_continuations_hardly_change_the_share_that_is_kept() -> None:
    """Of a student that has learnt little hardly one is kept: no sign of what a trained one's will be."""
    assert continued(Figure(0.1, 0.0, 0.2, "pilot", True), 10).value == pytest.approx((10 * 0.1 + 30 * 12.7 / 15) / 40)
    few, many = (continued(Figure(0.1, 0.0, 0.2, "pilot", True), num) for num in (10, 3000))
    assert few.low < 0.1 and few.high > 0.7
    assert many.value == pytest.approx(0.1, abs=0.01) and many.high < 0.22


def test_decoding_is_bound_by_reading_and_prefill_by_computing() -> None:
    device = replace(machine("H100", 1).device, flops=1e15, bytes_per_second=1e12, memory=100e9)
    one, values = Machine(device, 1, 1.0), {"utilisation.decode": 0.5, "parallel_efficiency": 0.9}
    spec = load_recipe("dasd-4b").student
    # 256 sequences of 1,000 + 500 tokens: 2 GB of weights and 256 · 1 kB · 10 layers · 1,500 = 3.84 GB a step.
    seconds = decoding(1e6, 1000, 1000, SMALL, spec, one, values)
    assert seconds == pytest.approx(1e6 / 256 * (2e9 + 256 * 1e3 * 10 * 1500) / 1e12 / 0.5)
    # Two operations a parameter, and 1 k for each of 500 tokens in each of 10 layers.
    assert prefill(1e6, 1000, SMALL, spec, one, 0.5) == pytest.approx(1e6 * (2e9 + 1e3 * 10 * 500) / 1e15 / 0.5)
    settings = load_recipe("dasd-4b").training
    trained, read = training(1e6, 1000, SMALL, settings, one, 0.5), prefill(1e6, 1000, SMALL, spec, one, 0.5)
    assert trained == pytest.approx(4 * read)
    # Few responses leave the copies of a model as empty as one that has its share of them: 10 each.
    shared, alone = (decoding(num * 1e4, 1000, 1000, SMALL, spec, replace(one, num=num), values) for num in (8, 1))
    assert shared == pytest.approx(alone)


EIGHT = machine("H100", 8)
RATES = {"utilisation.decode": 0.5, "parallel_efficiency": 0.9}
SERVED = {"model": "teacher", "server": {"base_urls": ["http://a/v1"], "model": "teacher", "revision": "1"}}


@pytest.mark.parametrize(
    ("asked", "num"),
    [
        ({}, 1),
        ({"replicas": 4}, 4),
        ({"replicas": 2, "engine_options": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}}, 8),
        ({"replicas": 16}, 8),
        ({"engine": "transformers", "replicas": 3}, 3),
        (SERVED, 8),
    ],
)
def test_a_model_is_as_fast_as_the_gpus_that_its_copies_are_on(asked: dict[str, object], num: int) -> None:
    """However many more there are; a server's are all."""
    spec, part = Model.model_validate({"model": "m", **asked}), replace(EIGHT, num=num)
    assert prefill(1e6, 1000, SMALL, spec, EIGHT, 0.5) == pytest.approx(prefill(1e6, 1000, SMALL, spec, part, 0.5))
    if not ENGINES[spec.engine].served:
        here, there = (decoding(1e8, 1000, 1000, SMALL, spec, some, RATES) for some in (EIGHT, part))
        assert here == pytest.approx(there)
    alone = prefill(1e6, 1000, SMALL, Model(model="m"), machine("H100", 1), 0.5)
    assert prefill(1e6, 1000, SMALL, spec, EIGHT, 0.5) == pytest.approx(alone / num)


@pytest.mark.parametrize(
    ("settings", "num"),
    [
        ({}, 1),
        ({"strategy": "fsdp2", "gpus_per_node": 4}, 4),
        ({"strategy": "fsdp2", "gpus_per_node": 16}, 8),
        ({"launcher": ["accelerate", "launch"]}, 8),
        ({"strategy": "ddp", "gpus_per_node": 2, "nodes": 2, "launcher": ["srun"]}, 4),
    ],
)
def test_a_training_is_as_fast_as_the_gpus_that_its_processes_are_on(settings: dict[str, object], num: int) -> None:
    of_one, shared = (
        training(1e6, 1000, SMALL, Training.model_validate(asked), some, 0.5)
        for asked, some in (({}, machine("H100", 1)), (settings, EIGHT))
    )
    assert shared == pytest.approx(of_one / num)


def test_what_a_recipe_leaves_idle_is_said_with_the_key_to_change() -> None:
    recipe = load_recipe("dasd-4b")

    def planned(num: int, changed: Recipe) -> tuple[Plan, str]:
        scope, _ = scope_of(changed, [], machine("H100", num), 1000)
        plan = estimate(changed, scope, assumed(changed, scope.machine))
        return plan, page(plan, savings(plan))

    one = change(change(recipe, "student.replicas", 1), "training.gpus_per_node", 1)
    (all_used, text), (some, said) = (planned(8, changed) for changed in (recipe, one))
    assert "idle" not in text
    assert "GPUs stay idle, and are paid for: 7 of 8 by student.replicas, 7 of 8 by training.gpus_per_node" in said
    assert some.seconds.value > 1.5 * all_used.seconds.value
    assert some.device_hours.value == pytest.approx(some.seconds.value * 8 / 3600)
    sixteen, said = planned(16, recipe)
    assert "8 of 16 by teacher.replicas, 8 of 16 by student.replicas, 8 of 16 by training.gpus_per_node" in said
    assert sixteen.seconds.value == pytest.approx(all_used.seconds.value)
    assert idle(recipe, machine("H100", 12))["teacher.engine_options"] == 4  # no whole copy more
    assert idle(load_recipe("demo"), EIGHT)["training.strategy"] == 7
    assert idle(recipe, machine("cpu", 12)) == {}


@pytest.mark.parametrize(
    ("num", "sizes", "proposed"),
    [
        (8, {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}, set()),
        (16, {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}, {"teacher: replicas 2"}),
        (8, {"tensor_parallel_size": 8}, {f"teacher: tensor_parallel_size {n}, replicas {8 // n}" for n in (2, 4)}),
        (
            12,
            {"tensor_parallel_size": 4},
            {"teacher: replicas 3", *(f"teacher: tensor_parallel_size {n}, replicas {12 // n}" for n in (1, 2))},
        ),
    ],
)
def test_more_copies_are_proposed_as_far_as_there_are_gpus(num: int, sizes: dict[str, int], proposed: set[str]) -> None:
    recipe = change(load_recipe("dasd-4b"), "teacher.engine_options", sizes)
    scope, _ = scope_of(recipe, [], machine("H100", num), None)
    plan = estimate(recipe, scope, assumed(recipe, scope.machine))
    assert {one.change for one in savings(plan) if one.change.startswith("teacher")} == proposed


def test_sizes_are_those_that_the_models_are_published_with() -> None:
    teacher = size_of("openai/gpt-oss-120b", None, "bfloat16")
    assert teacher.num_parameters == pytest.approx(116.8e9, rel=0.01)
    assert teacher.num_active == pytest.approx(5.1e9, rel=0.15)
    assert teacher.num_bytes == pytest.approx(63e9, rel=0.05)
    assert {layer.window: num for layer, num in teacher.layers.items()} == {0: 18, 128: 18}
    assert size_of("Qwen/Qwen3-4B-Instruct-2507", None, "bfloat16").num_parameters == pytest.approx(4.02e9, rel=0.01)
    with pytest.raises(UserError, match="hf download"):
        size_of("nobody/knows", None, "bfloat16")


Config = dict[str, object]
SHAPE: Config = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 64}
GROUPED: Config = {**SHAPE, "num_key_value_heads": 1, "head_dim": 8}
TEXT: Config = {**GROUPED, "model_type": "gemma3_text", "num_hidden_layers": 6}
OTHER_TEXT: Config = {**GROUPED, "model_type": "mistral", "num_hidden_layers": 2}
EXPERTS: Config = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT: Config = {
    **{**SHAPE, **EXPERTS, "model_type": "deepseek_v3", "num_hidden_layers": 2, "num_key_value_heads": 2},
    **{"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 8},
    **{"kv_lora_rank": 6, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8},
}
MIXED_HEADS: Config = {
    **{**GROUPED, "model_type": "gemma4_text", "num_hidden_layers": 6, "global_head_dim": 16, "sliding_window": 4},
    **{"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 4, "enable_moe_block": True},
    **{"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 8},
}
MAMBA: Config = {"model_type": "mamba2", "hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 64}
LINEAR: Config = {
    **{**GROUPED, **EXPERTS, "model_type": "qwen3_next", "num_hidden_layers": 4, "num_experts": 4},
    **{"shared_expert_intermediate_size": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2},
    **{"linear_key_head_dim": 4, "linear_value_head_dim": 4},
}


GROUPED_HEADS = {"kv_bytes": 2.0 * 2 * 1 * 8, "flops": 4.0 * 2 * 8}  # key and value in two bytes; two heads of 8


@pytest.mark.parametrize(
    ("config", "layers", "share"),
    [
        (
            {"model_type": "gemma3", "text_config": TEXT},
            {Attention(0, **GROUPED_HEADS): 1, Attention(4096, **GROUPED_HEADS): 5},
            1,
        ),
        ({"model_type": "mistral3", "text_config": OTHER_TEXT}, {Attention(0, **GROUPED_HEADS): 2}, 1),
        # Scores of 4 + 4 dimensions, values of 8.
        (LATENT, {Attention(0, kv_bytes=2 * (6 + 4), flops=2 * 2 * (4 + 4 + 8)): 2}, 0.5),
        (LINEAR, {Attention(0, **GROUPED_HEADS): 1}, 0.5),
        (
            MIXED_HEADS,
            {Attention(0, kv_bytes=2 * 2 * 1 * 16, flops=4 * 2 * 16): 1, Attention(4, **GROUPED_HEADS): 5},
            0.25,
        ),
        ({**MAMBA, "num_heads": 4, "head_dim": 8, "n_groups": 1}, {}, 1),
        (
            {**GROUPED, "model_type": "nemotron_h", "layers_block_type": ["mamba", "mlp", "attention", "mlp"]},
            {Attention(0, **GROUPED_HEADS): 1},
            1,
        ),
    ],
    ids=[
        "gemma3",
        "mistral3",
        "latent attention",
        "linear attention",
        "two sizes of heads",
        "no attention",
        "few layers of many",
    ],
)
def test_what_a_layer_and_a_token_take(
    tmp_path: Path, config: Config, layers: dict[Attention, int], share: float
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = size_of("tiny", tmp_path, "bfloat16")
    assert (size.layers, size.active_expert_share) == (layers, share)
    assert size.num_bytes == 2 * size.num_parameters


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "of_tomorrow"},
        {"model_type": "qwen3", "hidden_size": "many"},
        {},
        {**LATENT, "num_experts_per_tok": None},
        {"model_type": "rwkv", "hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 64},
    ],
)
def test_a_configuration_that_transformers_does_not_know_is_refused(tmp_path: Path, config: Config) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"tiny: its size is not known, .*: correct the file, or upgrade"):
        size_of("tiny", tmp_path, "bfloat16")


def test_intervals_hold_what_they_should() -> None:
    figures = {"a": Figure(10.0, 5.0, 20.0, "assumed"), "b": Figure(0.5, 0.4, 1.0, "assumed", is_share=True)}
    found = intervals(lambda values: {"a": values["a"], "sum": values["a"] + values["a"], "b": values["b"]}, figures)
    assert found["a"].value == 10
    assert found["a"].low == pytest.approx(5, rel=0.15)
    assert found["a"].high == pytest.approx(20, rel=0.15)
    assert found["sum"].high == pytest.approx(2 * found["a"].high)  # one figure twice is twice as uncertain
    assert found["b"].high <= 1


def test_answers_to_one_question_are_one_draw() -> None:
    values, groups = np.repeat([1.0, 3.0, 5.0, 7.0], 25), np.repeat(["a", "b", "c", "d"], 25)
    alone = measured(values[::25])
    assert measured(values, groups).high - 4 == pytest.approx(alone.high - 4, rel=0.01)
    assert measured(values).high < measured(values, groups).high
    assert measured(np.ones(20), is_share=True).low < 1  # that all of a few passed does not say that all do


def test_shorter_responses_are_fewer_tokens_and_fewer_accepted() -> None:
    recipe = load_recipe("dasd-4b")
    values = at_hand(assumed(recipe, machine("H100", 8)))
    same, half = shorter(recipe, values, 65_536), shorter(recipe, values, 16_384)
    assert all(math.isclose(same[name], values[name]) for name in values)
    assert half["teacher_tokens.t100"] < 0.9 * values["teacher_tokens.t100"]
    assert half["accepted_share.t100"] < 0.8 * values["accepted_share.t100"]


def test_fewer_candidates_leave_fewer_questions_with_an_accepted_one() -> None:
    """Of eight candidates each halves the questions without one: 0.4 after the first, 0.05 after four, 0.003125."""
    recipe = change(load_recipe("dasd-4b"), "selection", {"policy": "best_per_question", "budgets": {}})
    scope, _ = scope_of(recipe, [], machine("H100", 8), None)
    shares = {"accepted_share": 0.6, "covered_share": 1 - 0.4 / 2**7}
    told = {f"{name}.{dataset}": exact(at, "test", True) for name, at in shares.items() for dataset in recipe.datasets}
    plan = estimate(recipe, scope, {**assumed(recipe, scope.machine), **told})
    saved = {one.change: one.examples for one in savings(plan)}
    assert saved["generation.num_candidates: 4"] == pytest.approx(2 * 105_000 * (0.05 - 0.4 / 2**7))


def test_the_reports_recipe_is_planned_before_anything_is_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    assert main(["plan", "dasd-4b", "--gpu", "H100", "--gpus", "8", "--price", "2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["num_questions"] == 105_000
    assert plan["rows"]["responses"]["value"] == pytest.approx(1.68e6)
    # 105K and 330K examples with as many of the control's, and the mixed-policy ones.
    assert plan["rows"]["sft_examples"]["value"] == pytest.approx(2 * 434_700 + 32_700, rel=0.02)
    # While the largest stage trains: float32 weights and moments of three saves; its file, and both copies in Arrow.
    assert plan["disk"]["training state"]["value"] == pytest.approx(3 * 12 * 4.02e9, rel=0.01)
    assert plan["disk"]["checkpoints"]["value"] == pytest.approx(3 * 2 * 4.02e9, rel=0.01)
    assert plan["disk"]["rows being trained on"]["value"] == pytest.approx(329_800 * 17_776 * (2.9 + 2 * 8), rel=0.01)
    # 15,000 continuations of 0.8 · 17,576 tokens, as sampled and, after 1.125 · 17,576 of a rollout, as the student's.
    continued, prefixes = 15_000 * 0.8 * 17_576, 15_000 * (1.125 * 17_576 + 200)
    continuations = 10.5 * continued + 4.8 * (continued + prefixes)
    assert plan["disk"]["continuations"]["value"] == pytest.approx(continuations, rel=0.01)
    stages = {one["stage"]: one for one in plan["stages"]}
    left = sum(one["disk"]["value"] for one in stages.values())
    beside = plan["disk"]["training state"]["value"] + plan["disk"]["rows being trained on"]["value"]
    assert left + beside == pytest.approx(plan["disk"]["total"]["value"], abs=1)
    of_stage = {name: one["disk"]["value"] for name, one in stages.items()}
    assert of_stage["teacher_generations_t060"] == pytest.approx(840_000 * 10.5 * 1.45e9 / 105e3)
    assert of_stage["continuation_tokens"] == pytest.approx(4.8 * (continued + prefixes), rel=0.01)
    assert of_stage["mixed_policy_dataset"] > 2.9 * stages["checkpoint_mixed"]["tokens"]["value"]
    assert (of_stage["checkpoint_t060"], of_stage["evaluation_metrics"]) == (pytest.approx(2 * 4.02e9, rel=0.01), 0)
    for one in stages.values():
        for kind in ("rows", "tokens", "seconds", "device_hours", "money", "disk"):
            assert one[kind]["low"] <= one[kind]["value"] <= one[kind]["high"]
        for end in ("value", "low", "high"):
            assert one["device_hours"][end] == pytest.approx(8 * one["seconds"][end] / 3600)
            assert one["money"][end] == pytest.approx(2 * one["device_hours"][end])
    for kind in ("rows", "tokens", "seconds", "device_hours", "money", "disk"):
        assert stages["teacher_continuations"][kind]["low"] < stages["teacher_continuations"][kind]["high"]
    assert plan["money"]["value"] == pytest.approx(2 * plan["device_hours"]["value"])
    assert plan["device_hours"]["low"] < plan["device_hours"]["value"] < plan["device_hours"]["high"]
    assert plan["dominant"] == ["teacher_generations_t060", "teacher_generations_t100", "teacher_continuations"]
    saved = {one["change"]: one for one in plan["savings"]}
    assert saved["generation.num_candidates: 4"]["money"] > 0
    assert "--gpus 16" not in saved  # it uses 8
    assert plan["idle"] == {}
    assert {figure["origin"] for figure in plan["figures"].values()}.isdisjoint({"pilot"})


def test_the_documented_plan_is_what_its_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    text = PAGES["docs/planning.md"]
    command = text.partition("```sh\ndasd ")[2].partition("  #")[0]
    assert main(command.split()) == 0
    assert text.partition("```text\n")[2].partition("```")[0] in capsys.readouterr().out


def test_another_machine_keeps_lengths_and_no_times_of_another_kind() -> None:
    factor, length = Figure(2.0, 1.0, 3.0, "pilot"), Figure(50.0, 40.0, 60.0, "pilot")
    pilot = Pilot({"factor.training": factor, "fixed.prompts": factor, "teacher_tokens.t060": length}, CORE)
    assert scaled_to(pilot, machine("cpu", 2)) == pilot.figures
    assert scaled_to(pilot, machine("H100", 8)) == {"teacher_tokens.t060": length}
    wider = scaled_to(replace(pilot, machine=machine("A100", 8)), machine("H100", 8))
    assert (wider["factor.training"].low, wider["factor.training"].high) == (1 / 1.5, 3 * 1.5)
    assert wider["teacher_tokens.t060"] == length


def test_an_unknown_gpu_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UserError, match="A100, L40S, H100"):
        machine("H1000", 8)


def test_filters_before_scoring_save_the_students_passes(tiny: Recipe) -> None:
    after = change(change(tiny, "filters.apply", "after_selection"), "selection.policy", "top_k")
    scope, _ = scope_of(after, [], CORE, 1000)
    half = {f"scored_share.{dataset}": Figure(0.5, 0.5, 0.5, "assumed", True) for dataset in after.datasets}
    plan = estimate(after, scope, {**assumed(after, CORE), **half})
    assert any(one.change == "filters.apply: before_selection" and one.examples == 0 for one in savings(plan))


def test_filtered_after_selection_a_question_counts_if_its_best_response_was_accepted(tiny: Recipe) -> None:
    assert tiny.selection.policy == "best_per_question"
    scope, _ = scope_of(tiny, [], CORE, 1000)
    values = {**at_hand(assumed(tiny, CORE)), "accepted_share.t060": 0.57, "covered_share.t060": 0.95}
    before, after = (
        work_of(change(tiny, "filters.apply", when), scope, values).selected["t060"]
        for when in ("before_selection", "after_selection")
    )
    assert after == pytest.approx(0.6 * before)
