"""The service's run that makes batches in rounds: its loads counted, a batch that fails, a kill, another recipe."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg
import pytest
from conftest import Project, change, prompt_rows
from test_automation import Service
from test_engine_catalogue import ChainSums, KeepingProject, on_engine, slow_to_load
from test_recovery import ORIGIN

from dasd_assets.records.dagster_internals import MAX_RETRIES_TAG
from dasd_assets.records.partitions import batches
from dasd_assets.records.quarantine import quarantine
from dasd_assets.service.attempts import MAX_DEATHS, decide
from dasd_assets.service.automation import landing_tick, rounds_tick
from dasd_assets.service.batches_run import JOB, may_go_on
from dasd_assets.service.recovery import MAKER, OWNER, fail_abandoned_runs, owners
from dasd_assets.service.rounds import Round, rounds
from dasd_resources.inference.engine import InferenceEngine
from dasd_resources.inference.engine_catalogue import ApiKey
from dasd_resources.inference.engines import PromptedModel

NUM_BATCHES = 3
SUCCESS, FAILURE, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED


@dataclass
class Loads:
    """An engine that takes long to load, or so its entry says, and how often each model was loaded."""

    of_model: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def load(self, model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
        self.of_model[model.path.name, bool(model.spec.engine_options)] += 1
        return ChainSums(model)


@pytest.fixture
def loads() -> Iterator[Loads]:
    found = Loads()
    with slow_to_load(found.load):
        yield found


@dataclass
class RoundsService(Service):
    """The same, with the ticks of a recipe that is made in rounds."""

    @property
    def of_recipe(self) -> list[Round]:
        return rounds(self.project.recipe, self.definitions.resolve_asset_graph())

    def landing(self) -> list[dg.RunRequest]:
        return self._apply("landing", landing_tick(self.planner, self.folder, self.cursors.get("landing"), 0))

    def rebuild(self) -> list[dg.RunRequest]:
        return self._apply("batch", rounds_tick(self.planner, self.of_recipe))


@pytest.fixture
def service(loads: Loads, project: Project) -> Iterator[RoundsService]:
    """Over a home in which NUM_BATCHES files have landed."""
    own = KeepingProject(project.home, on_engine(project.recipe))
    for path, value in (("automation.retry_delay_seconds", 0.0), ("automation.max_attempts", 2)):
        own.recipe = change(own.recipe, path, value)
    for number in range(NUM_BATCHES):
        own.land(f"{number}.jsonl", prompt_rows(3 * number, 3 * number + 3))
    with own.instance() as instance:
        made = RoundsService(own, instance)
        assert made.landing() == []
        yield made


@pytest.mark.drill
def test_each_model_is_loaded_once_to_work_and_once_to_be_checked(service: RoundsService, loads: Loads) -> None:
    """Of all batches, one of which fails alone, and is quarantined."""
    (service.project.home / "prompts" / "1.jsonl").unlink()
    [request] = service.rebuild()
    service.run([request], JOB)
    assert loads.of_model == {(role, checks): 1 for role in ("teacher", "student") for checks in (False, True)}
    assert service.rebuild() == []
    first, deleted, last = batches(service.instance)
    assert list(quarantine(service.project.warehouse).now) == [deleted]
    scored = service.project.read("SELECT DISTINCT batch FROM response_scores ORDER BY ALL")["batch"].to_list()
    assert scored == [first, last]
    [run] = service.instance.get_runs(dg.RunsFilter(job_name=JOB))
    within = Counter(one.status for one in service.instance.get_runs(dg.RunsFilter(tags={MAKER: run.run_id})))
    assert run.status == SUCCESS
    assert within == {SUCCESS: 1 + 7 * (NUM_BATCHES - 1), FAILURE: 1}  # the models; seven parts a batch
    assert service.selection() != []


def under_way(service: RoundsService, tags: Mapping[str, str]) -> dg.DagsterRun:
    """A run of the service that makes batches."""
    job = service.definitions.resolve_job_def(JOB)
    tags = {**job.run_tags, **tags}
    return service.instance.create_run_for_job(job, tags=tags, status=STARTED, remote_job_origin=ORIGIN)


def test_there_is_one_at_a_time_which_ends_when_its_recipe_or_itself_is_no_more(service: RoundsService) -> None:
    [request] = service.rebuild()
    run = under_way(service, request.tags)
    assert service.rebuild() == []
    assert may_go_on(service.instance, run.run_id)
    service.project.recipe = change(service.project.recipe, "generation.max_tokens", 190)
    assert service.rebuild() == []
    assert not may_go_on(service.instance, run.run_id)
    service.instance.report_run_failed(under_way(service, {}))
    assert not any(may_go_on(service.instance, one.run_id) for one in service.instance.get_runs())
    assert not may_go_on(service.instance, "deleted in the web UI")


def test_a_kill_counts_for_the_batch_unless_the_service_died(service: RoundsService) -> None:
    instance, home = service.instance, service.project.home
    step = service.planner.plan(["models"]).due[0].step
    job = service.definitions.resolve_implicit_global_asset_job_def()
    for with_service in (True, False):
        maker = under_way(service, {})
        tags = {**step.tags, MAKER: maker.run_id, OWNER: "0" * 32, MAX_RETRIES_TAG: "0"}
        within = instance.create_run_for_job(job, tags=tags, status=STARTED)
        if with_service:
            (owners(home) / maker.run_id).touch()  # what a killed worker leaves
        else:  # its code server sees that the worker has died
            instance.report_run_failed(maker)
        assert fail_abandoned_runs(instance, home) == 1 + with_service
        [record] = instance.get_run_records(dg.RunsFilter(run_ids=[within.run_id]))
        assert record.dagster_run.status == FAILURE
        found = decide(instance, step, [record], service.project.recipe.automation, (), time.time())
        assert (found.kind, found.died) == ("due", not with_service)
    [request] = service.rebuild()  # at once, and it is never given up
    for _ in range(MAX_DEATHS):
        instance.report_run_failed(under_way(service, request.tags))
    assert len(service.rebuild()) == 1
