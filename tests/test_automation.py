"""The service without Dagster's daemon: its ticks, their requests carried out here, engine calls counted."""

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, change, nothing_drawn, prompt_rows

from dasd_assets.records.dagster_internals import PARTITION_NAME_TAG
from dasd_assets.records.partitions import batches
from dasd_assets.records.quarantine import quarantine, quarantine_batch, release
from dasd_assets.service.attempts import step_error
from dasd_assets.service.automation import (
    RUNS_AT_A_TIME,
    batch_tick,
    landing_tick,
    requests,
    rounds_tick,
    training_tick,
)
from dasd_assets.service.in_process import execute
from dasd_assets.service.planning import MAX_FAILED_BATCHES, Planner
from dasd_resources.landing.landing_folder import LandingFolder
from dasd_resources.recipe import Recipe

GENERATIONS = {"teacher_generations_t060", "teacher_generations_t100"}


@dataclass
class Service:
    """Ticks as the daemon has them; requests are run one after another, each run key once."""

    project: Project
    instance: dg.DagsterInstance
    cursors: dict[str, str | None] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    made: list[tuple[str | None, list[str]]] = field(default_factory=list)
    _built: tuple[Recipe, dg.Definitions] | None = None

    @property
    def definitions(self) -> dg.Definitions:
        """Those of the project's recipe, built once while it stays the same."""
        if self._built is None or self._built[0] is not self.project.recipe:
            self._built = (self.project.recipe, self.project.definitions)
        return self._built[1]

    @property
    def planner(self) -> Planner:
        project = self.project
        return Planner(self.instance, self.definitions, project.recipe, project.engines, project.warehouse)

    @property
    def folder(self) -> LandingFolder:
        return LandingFolder.of(self.project.recipe.automation.landing, self.project.home)

    def landing(self) -> list[dg.RunRequest]:
        return self._apply("landing", landing_tick(self.planner, self.folder, self.cursors.get("landing")))

    def rebuild(self) -> list[dg.RunRequest]:
        return self._apply("batch", batch_tick(self.planner, self.cursors.get("batch")))

    def selection(self) -> list[dg.RunRequest]:
        return requests(self.planner.plan(["selection"]).due)

    def training(self) -> list[dg.RunRequest] | dg.SkipReason:
        return training_tick(self.planner)

    def run(self, requests: Iterable[dg.RunRequest], job: str = "data_only") -> None:
        for request in requests:
            assert request.run_key not in self.keys, "requested twice"
            self.keys.add(str(request.run_key))
            names = [key.to_user_string() for key in request.asset_selection or []]
            self.made.append((request.partition_key, names))
            self.definitions.resolve_job_def(job).execute_in_process(
                instance=self.instance,
                asset_selection=request.asset_selection,
                partition_key=request.partition_key,
                tags=dict(request.tags),
                raise_on_error=False,
                run_config={"loggers": {"console": {}}},
            )

    def settle(self) -> None:
        """Tick until nothing is requested twice running, training apart."""
        idle = 0
        for _ in range(30):
            requests = [*self.landing(), *self.rebuild(), *self.selection()]
            self.run(requests)
            idle = 0 if requests else idle + 1
            if idle == 2:
                return
        raise AssertionError(f"never settles: {self.made}")

    def _apply(self, name: str, result: dg.SensorResult) -> list[dg.RunRequest]:
        self.cursors[name] = result.cursor
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions("prompt_batch", list(request.partition_keys))
        return list(result.run_requests or [])


@pytest.fixture
def service(project: Project) -> Iterable[Service]:
    with project.instance() as instance, nothing_drawn():
        yield Service(project, instance)


@pytest.fixture
def standing(copy: Project) -> Iterable[Service]:
    """Over a home on which everything has run."""
    with copy.instance() as instance, nothing_drawn():
        yield Service(copy, instance)


def impatient(project: Project, max_attempts: int = 2) -> None:
    """Let failures be tried again at once."""
    project.recipe = change(project.recipe, "automation.retry_delay_seconds", 0.0)
    project.recipe = change(project.recipe, "automation.max_attempts", max_attempts)


def test_what_lands_first_is_made_with_the_models_in_one_run_and_what_lands_meanwhile_is_not_missed(
    service: Service,
) -> None:
    service.project.land("a.jsonl", prompt_rows(0, 3))
    [request] = service.landing()
    assert batches(service.instance) == [request.partition_key]
    service.project.land("b.jsonl", prompt_rows(3, 6))  # while the run of the first is about to begin
    service.run([request])
    assert set(service.made[0][1]) >= {"teacher_model", "student_model", "prompts", "response_scores", *GENERATIONS}
    service.settle()
    assert [made for made in service.made if made[0] == request.partition_key] == service.made[:1]
    scored = service.project.read("SELECT DISTINCT batch FROM response_scores")["batch"]
    assert sorted(scored) == sorted(batches(service.instance))
    assert len(scored) == 2
    assert service.project.count("sft_examples") > 0
    assert service.project.fake.trained == []


@pytest.mark.storage
def test_a_new_batch_runs_only_its_own_and_training_waits_for_its_hour_and_for_a_change(standing: Service) -> None:
    skipped = standing.training()
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "everything is up to date"
    standing.project.land("c.jsonl", prompt_rows(15, 18))
    standing.settle()
    new = standing.project.read("SELECT response_id FROM responses WHERE batch LIKE 'c-%'")["response_id"]
    assert len(new) == 3 * 2 * 2
    assert sorted(standing.project.fake.generated) == sorted(new)
    assert set(standing.project.fake.scored) <= set(new)
    assert {batch for batch, _ in standing.made if batch} == set(batches(standing.instance)[-1:])
    assert standing.project.fake.trained == []
    requested = standing.training()
    assert isinstance(requested, list)
    standing.run(requested, "train_only")
    assert len(standing.project.fake.trained) == 3
    assert isinstance(standing.training(), dg.SkipReason)


def test_a_lost_cursor_and_a_lost_request_cost_nothing(service: Service) -> None:
    """As when the service is killed between registering a batch and beginning its run."""
    service.project.land("a.jsonl", prompt_rows(0, 3))
    assert len(service.landing()) == 1  # and never run
    service.cursors.clear()
    assert service.landing() == []
    [models] = service.rebuild()
    assert models.partition_key is None
    service.run([models])
    [request] = service.rebuild()
    assert request.partition_key == batches(service.instance)[0]


def test_a_batch_is_left_to_the_landing_sensors_own_request_for_a_tick(standing: Service) -> None:
    standing.project.land("c.jsonl", prompt_rows(15, 16))
    [request] = standing.landing()
    assert standing.rebuild() == []
    [same] = standing.rebuild()  # the request was lost
    assert same.partition_key == request.partition_key


def test_the_same_content_twice_is_one_batch(service: Service) -> None:
    service.project.land("a.jsonl", prompt_rows(0, 2))
    service.project.land("z.jsonl", prompt_rows(0, 2))
    assert len(service.landing()) == 1
    service.project.land("later.jsonl", prompt_rows(0, 2))
    assert service.landing() == []
    [batch] = batches(service.instance)
    assert batch.startswith("a-")


def test_a_growing_file_is_skipped_until_it_has_stopped(service: Service) -> None:
    file = service.project.home / "prompts" / "a.jsonl"
    for number in range(3):
        with file.open("a") as lines:
            lines.write(f'{{"question": "{number} + 1 ="}}\n')
        result = landing_tick(service.planner, service.folder, service.cursors.get("landing"))
        service.cursors["landing"] = result.cursor
        assert not result.run_requests
        assert result.skip_reason is not None
        assert "still being written" in str(result.skip_reason.skip_message)
    assert len(service.landing()) == 1  # as it was at the look before
    (service.project.home / "prompts" / "b.jsonl.tmp").write_text("{}")
    assert service.landing() == []


def test_what_is_not_read_is_reported_once_and_until_it_is_gone(service: Service) -> None:
    file = service.project.home / "prompts" / "![x](http:" / "q.JSONL"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    result = landing_tick(service.planner, service.folder, None)
    assert "0 landed files; 0 new; 1 not read ('![x](http:/q.JSONL': its suffix must be in lower case" in str(
        result.skip_reason
    )
    [found] = result.asset_events
    assert isinstance(found, dg.AssetCheckEvaluation)
    assert not found.passed
    assert "![" not in str(found.description)
    assert list(found.metadata["not_read"].value) == ["'![x](http:/q.JSONL'"]  # type: ignore[call-overload, arg-type]
    assert landing_tick(service.planner, service.folder, result.cursor).asset_events == []
    file.unlink()
    file.parent.rmdir()
    [found] = landing_tick(service.planner, service.folder, result.cursor).asset_events
    assert isinstance(found, dg.AssetCheckEvaluation)
    assert found.passed


ADDED = ["anything at all", "a-000000000000", "![x](http://127.0.0.1/q.png)"]


def test_a_partition_of_no_file_fails_once_and_goes(standing: Service) -> None:
    """As *Add a partition* in the web UI makes one; materialized there at once, before the sensor looks."""
    before = batches(standing.instance)
    standing.instance.add_dynamic_partitions("prompt_batch", ADDED)
    job = standing.definitions.resolve_job_def("data_only")
    config = {"loggers": {"console": {}}}
    failed = job.execute_in_process(
        instance=standing.instance, partition_key=ADDED[0], raise_on_error=False, run_config=config
    )
    [step] = [event for event in failed.all_events if event.is_step_failure]
    assert "A batch comes to be by a file dropped there, not by adding a partition" in step_error(step)
    result = landing_tick(standing.planner, standing.folder, None)
    assert f"removed 3 partitions that no file in {standing.folder.url} has" in str(result.skip_reason)
    [deleted] = result.dynamic_partitions_requests or []
    assert isinstance(deleted, dg.DeleteDynamicPartitionsRequest)
    assert list(deleted.partition_keys) == ADDED
    for name in deleted.partition_keys:
        standing.instance.delete_dynamic_partition("prompt_batch", name)
    standing.settle()
    assert (standing.made, quarantine(standing.project.warehouse).now) == ([], {})
    assert batches(standing.instance) == before


def test_a_partition_of_no_file_gets_no_second_attempt_where_nobody_removes_it(standing: Service) -> None:
    standing.instance.add_dynamic_partitions("prompt_batch", ADDED[:1])
    for _ in range(4):
        standing.run(standing.rebuild())
    assert [batch for batch, _ in standing.made] == ADDED[:1]
    assert standing.selection() == []  # and is held up by nothing: all is made


def test_a_batch_whose_file_is_gone_stays_once_it_was_made(standing: Service) -> None:
    before = batches(standing.instance)
    (standing.project.home / "prompts" / "a.jsonl").unlink()
    assert landing_tick(standing.planner, standing.folder, None).dynamic_partitions_requests == []
    standing.project.run()
    assert batches(standing.instance) == before


def test_many_files_at_once_are_registered_at_once_and_run_a_few_at_a_time(service: Service) -> None:
    for number in range(RUNS_AT_A_TIME + 3):
        service.project.land(f"{number}.jsonl", prompt_rows(number, number + 1))
    assert len(service.landing()) == RUNS_AT_A_TIME
    assert len(batches(service.instance)) == RUNS_AT_A_TIME + 3


def test_prompts_land_in_any_store(service: Service, tmp_path: Path) -> None:
    import fsspec

    url = f"memory://{tmp_path.name}/landing"
    service.project.recipe = change(service.project.recipe, "automation.landing", url)
    rows = "".join(json.dumps(row) + "\n" for row in prompt_rows(0, 2))
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/landing/a.jsonl", rows.encode())
    [request] = [*service.landing(), *service.landing()]  # at the second look it has stopped growing
    for asset, batch in (("held_out_questions", None), ("prompts", request.partition_key)):
        execute(service.instance, service.definitions, [asset], batch, service.project.home)
    assert service.project.count("prompts") == 2


def test_a_new_threshold_costs_no_forward_pass(standing: Service) -> None:
    before = standing.project.count("sentence_probabilities")
    standing.project.recipe = change(standing.project.recipe, "selection.divergence.threshold", 0.3)
    standing.settle()
    assert (standing.project.fake.generated, standing.project.fake.scored) == ([], [])
    assert standing.project.count("sentence_probabilities") == before
    versions = standing.project.read("SELECT threshold_version, count(*) AS n FROM sentence_types GROUP BY ALL")
    assert versions["n"].to_list() == [before, before]
    per_batch = [names for batch, names in standing.made if batch]
    assert per_batch == [["sentence_types", "response_scores"]] * 2
    assert any("selected_responses_t060" in names for batch, names in standing.made if not batch)


def test_a_new_filter_never_regenerates(standing: Service) -> None:
    project = standing.project
    responses = project.read("SELECT response_id FROM responses ORDER BY ALL")
    limit = int(project.read("SELECT median(len(input_ids))::INT FROM sft_examples").item())
    project.recipe = change(project.recipe, "filters.max_student_tokens", limit)
    standing.settle()
    assert project.fake.generated == []
    assert project.read("SELECT response_id FROM responses ORDER BY ALL").equals(responses)
    judged = project.read("SELECT DISTINCT filter_version, passed FROM response_verdicts WHERE filter = 'length'")
    assert judged.height == 3  # all passed the old one; the new one passes some
    per_batch = [set(names) for batch, names in standing.made if batch]
    assert len(per_batch) == 2
    assert all("response_verdicts" in names and not GENERATIONS & names for names in per_batch)


def test_what_an_active_run_is_making_is_not_requested_again(standing: Service) -> None:
    standing.project.recipe = change(standing.project.recipe, "selection.divergence.threshold", 0.3)
    first, second = batches(standing.instance)
    standing.rebuild()
    job = standing.project.definitions.resolve_job_def("data_only")
    run = standing.instance.create_run_for_job(
        job, tags={PARTITION_NAME_TAG: first}, asset_selection=frozenset([dg.AssetKey("sentence_types")])
    )
    assert [request.partition_key for request in standing.rebuild()] == [second]
    standing.instance.delete_run(run.run_id)
    assert [request.partition_key for request in standing.rebuild()] == [first, second]


def fails_in(project: Project, batch: str) -> Callable[[str], bool]:
    """Whether a request is of that batch's prompts: no teacher answers them."""
    wanted: set[str] = set()

    def fails(request_id: str) -> bool:
        if not wanted:
            from dasd_assets.generations import wanted_responses

            teacher = project.engines.find(project.recipe.teacher, "teacher.model")
            prompts = project.read("SELECT prompt_id, domain FROM prompts WHERE batch LIKE $batch", batch=f"{batch}-%")
            for temperature in project.recipe.generation.temperatures:
                ids = wanted_responses(dict(prompts.iter_rows()), project.recipe, temperature, teacher)
                wanted.update(row.response_id for row in ids)
        return request_id in wanted

    return fails


def test_a_batch_that_keeps_failing_is_quarantined_and_released_by_hand_or_by_a_fixed_recipe(service: Service) -> None:
    project = service.project
    impatient(project)
    project.land("bad.jsonl", prompt_rows(0, 3))
    project.land("good.jsonl", prompt_rows(3, 9))
    project.fake.fails = fails_in(project, "bad")
    service.settle()
    bad, good = batches(service.instance)
    assert [batch for batch, _ in service.made].count(bad) == 3  # the first made its prompts: that was progress
    [row] = quarantine(project.warehouse).now.values()
    assert (row.batch, row.num_attempts) == (bad, 2)
    assert "the teacher answered none of 6 requests: told to fail" in row.reason
    assert set(project.read("SELECT DISTINCT batch FROM response_scores")["batch"]) == {good}
    assert project.count("sft_examples") > 0  # selection went on without it
    before = project.read("SELECT prompt_id FROM selected_responses")

    project.fake.fails = lambda request_id: False
    assert [*service.rebuild(), *service.selection()] == []  # it stays quarantined though the teacher answers again
    assert release(project.warehouse, [bad]) == [bad]
    assert [request.partition_key for request in service.rebuild()] == [bad]

    quarantine_batch(project.warehouse, bad, row.reason, row.step, row.num_attempts, row.failed_run_id)
    assert service.rebuild() == []
    recipe, project.recipe = project.recipe, change(project.recipe, "generation.max_tokens", 201)
    assert bad in {request.partition_key for request in service.rebuild()}
    assert quarantine(project.warehouse).now == {}

    project.recipe = recipe
    service.settle()
    assert quarantine(project.warehouse).now == {}
    assert project.read("SELECT prompt_id FROM selected_responses").height > before.height


@pytest.mark.parametrize("in_rounds", [False, True])
def test_a_quarantine_that_others_changed_is_reported_once(service: Service, in_rounds: bool) -> None:
    """As a run in rounds does, `dasd run`, `dasd quarantine --release`, or a tick of `selection_rebuilds`."""
    warehouse, instance = service.project.warehouse, service.instance
    instance.add_dynamic_partitions("prompt_batch", ["a", "b"])
    identities = {step.batch: step.identity for step in service.planner.outlook().steps}

    def reported() -> list[set[str]]:
        events = (rounds_tick(service.planner, ()) if in_rounds else batch_tick(service.planner, None)).asset_events
        assert all(isinstance(event, dg.AssetCheckEvaluation) for event in events)
        for event in events:
            instance.report_runless_asset_event(event)
        return [set(event.metadata) for event in events]

    def quarantined(batch: str, reason: str) -> None:
        quarantine_batch(warehouse, batch, reason, identities[batch], 3, "run")

    assert reported() == []  # nothing ever was
    quarantined("a", "told to fail")
    assert [reported(), reported()] == [[{"a"}], []]
    quarantined("b", "told to fail")
    assert [reported(), reported()] == [[{"a", "b"}], []]
    release(warehouse, ["a"])
    quarantined("a", "of something else")
    assert [reported(), reported()] == [[{"a", "b"}], []]
    release(warehouse, ["a", "b"])
    assert [reported(), reported()] == [[set()], []]


def test_a_check_that_fails_in_all_of_the_first_batches_holds_back_the_others(service: Service) -> None:
    project = service.project
    impatient(project, max_attempts=1)
    right = project.fake.misreport
    project.fake.misreport = lambda logprobs: [logprob - 3.0 for logprob in logprobs]
    for number in range(MAX_FAILED_BATCHES):
        project.land(f"{number}.jsonl", prompt_rows(3 * number, 3 * number + 3))
    service.settle()
    failed = list(quarantine(project.warehouse).now)
    project.land("later.jsonl", prompt_rows(100, 103))
    service.settle()
    [later] = set(batches(service.instance)) - set(failed)
    assert project.read("SELECT * FROM prompts WHERE batch = $batch", batch=later).is_empty()
    [why] = service.planner.plan(["models", "batch"]).waiting
    assert re.search(r"3 batches are quarantined for teacher_generations_t\d+, .*check prefill_parity failed", why)

    project.fake.misreport = right
    release(project.warehouse, failed[:1])  # two are left: the others go on, and it fails by its wrong rows again
    service.settle()
    assert set(project.read("SELECT DISTINCT batch FROM response_scores")["batch"]) == {later}


def test_rows_that_failed_are_tried_again_and_hold_nothing_up(service: Service) -> None:
    project = service.project
    impatient(project)
    project.land("a.jsonl", prompt_rows(0, 6))
    refused: list[str] = []
    project.fake.fails = lambda key: key in refused or (not refused and not refused.append(key))
    service.run(service.landing())
    plan = service.planner.plan(["batch", "selection"])
    assert {attempt.step.level for attempt in plan.due} == {"batch", "selection"}, (
        plan
    )  # it does not wait for the one that failed
    service.settle()
    assert project.fake.generated.count(refused[0]) == 3
    assert project.read("SELECT request_id, num_attempts FROM failed_requests").rows() == [(refused[0], 3)]
    assert quarantine(project.warehouse).now == {}


def with_context(recipe: Recipe, num_tokens: int) -> Recipe:
    teacher = {"engine": "vllm", "engine_options": {"max_model_len": num_tokens}}
    return change(recipe, "teacher", {**recipe.teacher.model_dump(), **teacher})


def test_a_request_that_can_never_succeed_is_asked_once_until_the_context_is_another(service: Service) -> None:
    project = service.project
    impatient(project)
    project.recipe = with_context(project.recipe, 300)
    project.land("a.jsonl", prompt_rows(0, 3))
    refused: list[str] = []
    project.fake.kind = "context_overflow"
    project.fake.fails = lambda key: key in refused or (not refused and not refused.append(key))
    service.run(service.landing())
    assert service.planner.plan(["batch"]).due == []
    assert project.read("SELECT kind, num_attempts FROM failed_requests").rows() == [("context_overflow", 1)]

    project.recipe = with_context(project.recipe, 400)
    [attempt] = service.planner.plan(["batch"]).due
    assert attempt.step.retry
    assert attempt.step.why.endswith("(requests exceeded a context that is another now)")
    project.fake.fails = lambda key: False
    service.run(requests([attempt]))
    assert project.count("failed_requests") == 0
    [attempt] = service.planner.plan(["batch"]).due
    assert not GENERATIONS & set(attempt.step.assets)


def test_a_response_too_long_to_score_is_asked_again_once_another_server_scores(service: Service) -> None:
    project = service.project
    impatient(project)
    served = {"base_urls": ["http://127.0.0.1:1/v1"], "model": "student", "revision": "1"}
    project.recipe = change(project.recipe, "student.scoring_server", served)
    project.land("a.jsonl", prompt_rows(0, 3))
    refused: list[str] = []
    project.fake.kind = "context_overflow"
    project.fake.fails = lambda key: (
        key in refused or (not refused and key in project.fake.scored and not refused.append(key))
    )
    service.run(service.landing())
    assert project.read("SELECT asset, request_id FROM failed_requests").rows() == [("student_logprobs", refused[0])]
    as_scored = project.recipe
    assert not any(attempt.step.retry for attempt in service.planner.plan(["batch"]).due)

    for other in ({**served, "base_urls": ["http://127.0.0.1:2/v1"]}, None):
        project.recipe = change(as_scored, "student.scoring_server", other)
        [attempt] = service.planner.plan(["batch"]).due
        assert attempt.step.retry and "student_logprobs" in attempt.step.assets
    project.fake.fails = lambda key: False
    service.run(requests([attempt]))
    assert project.count("failed_requests") == 0


def test_a_batch_none_of_whose_requests_can_succeed_gets_no_other_attempt(service: Service) -> None:
    project = service.project
    impatient(project, max_attempts=5)
    project.land("bad.jsonl", prompt_rows(0, 3))
    project.fake.kind, project.fake.fails = "context_overflow", lambda key: True
    for _ in range(4):
        service.run([*service.landing(), *service.rebuild()])
    [row] = quarantine(project.warehouse).now.values()
    assert [batch for batch, _ in service.made].count(row.batch) == 2  # the first made its prompts: that was progress
    assert "the teacher answered none of 6 requests: told to fail" in row.reason
    assert row.num_attempts == 1


def test_the_pause_between_attempts_grows(service: Service) -> None:
    project = service.project
    project.land("bad.jsonl", prompt_rows(0, 3))
    project.fake.fails = lambda request_id: True
    service.run(service.landing())
    now = time.time()
    assert service.planner.plan(["batch"], now).due == []
    [reason] = service.planner.plan(["batch"], now).waiting
    assert "next attempt in " in reason
    assert "told to fail" in reason
    for number, pause in ((1, 60), (2, 60), (3, 240)):  # the first run made the prompts, so it does not count
        [attempt] = service.planner.plan(["batch"], time.time() + pause).due
        assert attempt.number == number
        service.run(requests([attempt]))
        assert service.planner.plan(["batch"], time.time() + pause - 5).due == []


def test_training_follows_its_part_of_the_recipe_and_no_other(standing: Service) -> None:
    standing.project.recipe = change(standing.project.recipe, "automation.max_attempts", 9)
    assert isinstance(standing.training(), dg.SkipReason)
    standing.project.recipe = change(standing.project.recipe, "training.learning_rate", 1e-3)
    [request] = standing.training()
    assert {key.to_user_string() for key in request.asset_selection or []} >= {"checkpoint_t060", "evaluations"}


def test_the_same_selection_made_again_trains_nothing(standing: Service) -> None:
    standing.project.materialize("selected_responses_t060+")
    standing.project.fake.trained.clear()
    assert isinstance(standing.training(), dg.SkipReason)


def test_training_without_a_dataset_says_so(service: Service) -> None:
    skipped = service.training()
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "sft_dataset_t060 was never materialized"


def test_training_waits_for_what_a_new_release_has_added_to_the_data_path(standing: Service) -> None:
    standing.instance.wipe_assets([dg.AssetKey("student_tokens")])
    skipped = standing.training()
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "student_tokens was never materialized"


def test_a_manual_materialization_always_works(standing: Service) -> None:
    [batch, _] = batches(standing.instance)
    result = standing.project.definitions.resolve_job_def("everything").execute_in_process(
        instance=standing.instance, partition_key=batch, run_config={"loggers": {"console": {}}}
    )
    assert result.success
    assert (standing.project.fake.generated, standing.project.fake.trained) == ([], [])
    assert [*standing.landing(), *standing.rebuild(), *standing.rebuild(), *standing.selection()] == []
    assert isinstance(standing.training(), dg.SkipReason)
