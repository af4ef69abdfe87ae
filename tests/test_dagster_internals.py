"""What we rely on in Dagster's private modules: an upgrade of Dagster that changes it fails here first."""

import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from alembic.script import ScriptDirectory
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.sql import check_alembic_revision, get_alembic_config
from dagster._core.storage.tags import RETRY_NUMBER_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import retry_run
from test_recovery import ORIGIN

import dasd_assets
import dasd_resources
from dasd_assets.records.dagster_internals import (
    AUTO_RETRY_RUN_ID_TAG,
    MAX_RETRIES_TAG,
    PARTITION_NAME_TAG,
    RUN_FAILURE_REASON_TAG,
    WILL_RETRY_TAG,
    AssetCheckExecutionRecordStatus,
    BaseAssetGraph,
    BaseAssetNode,
    ConfigurableClassData,
    DagsterDaemonScheduler,
    ExecutionPlan,
    KeptScripts,
    PlanOrchestrationContext,
    RetryMode,
    RunFailureReason,
    StepDependencyConfig,
    UnresolvedAssetJobDefinition,
    get_log_record_metadata,
    has_log_record_event,
    has_log_record_metadata,
    in_code_location,
)
from dasd_assets.records.tags import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    INPUT_EVENT_TAG,
    INPUT_VERSION_TAG,
    recorded_versions,
)
from dasd_assets.service.instance import open_instance
from dasd_assets.service.one_service import OneService
from dasd_resources.home import WORKSPACE, prepare_home

BATCHES = dg.StaticPartitionsDefinition(["a", "b"])
UPSTREAM, DOWNSTREAM, BROKEN = dg.AssetKey("upstream"), dg.AssetKey("downstream"), dg.AssetKey("broken")


@dg.asset(partitions_def=BATCHES, code_version="1", group_name="data", metadata={"unit": "rows"})
def upstream(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    context.log.info("a message of ours")
    return dg.MaterializeResult(data_version=dg.DataVersion("content"))


@dg.asset(partitions_def=BATCHES, deps=[upstream])
def downstream() -> None: ...


@dg.asset(partitions_def=BATCHES)
def broken() -> None:
    raise ValueError("broken")


@dg.asset_check(asset=upstream, blocking=True, partitions_def=BATCHES)
def is_batch_a(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=context.partition_key == "a")


@dg.job
def some_job() -> None: ...


DEFINITIONS = dg.Definitions(assets=[upstream, downstream, broken], asset_checks=[is_batch_a])


def materialize(instance: dg.DagsterInstance, *keys: dg.AssetKey, batch: str = "a") -> dg.ExecuteInProcessResult:
    job = DEFINITIONS.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, asset_selection=list(keys), partition_key=batch, raise_on_error=False
    )


def test_no_other_module_imports_dagsters_private_ones() -> None:
    folders = [Path(module.__file__ or "").parent for module in (dasd_assets, dasd_resources)]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert [file.name for file in files if "dagster._" in file.read_text(encoding="utf-8")] == ["dagster_internals.py"]


def test_the_graph_knows_parents_batches_checks_and_code_versions() -> None:
    graph = DEFINITIONS.resolve_asset_graph()
    assert isinstance(graph, BaseAssetGraph)
    keys = list(graph.toposorted_asset_keys)
    assert keys.index(UPSTREAM) < keys.index(DOWNSTREAM)
    assert set(graph.root_materializable_asset_keys) == {UPSTREAM, BROKEN}
    node = graph.get(UPSTREAM)
    assert isinstance(node, BaseAssetNode)
    assert node.is_partitioned
    assert (node.code_version, node.group_name, dict(node.metadata)["unit"]) == ("1", "data", "rows")
    assert list(graph.get(DOWNSTREAM).parent_keys) == [UPSTREAM]
    [check] = [graph.get(key) for key in node.check_keys]
    assert (check.key.name, check.blocking, check.partitions_def) == ("is_batch_a", True, BATCHES)


def test_jobs_of_assets_are_of_their_type() -> None:
    assert isinstance(dg.define_asset_job("some", selection="*"), UnresolvedAssetJobDefinition)


def test_materializations_are_tagged_with_what_they_were_made_from() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(instance, UPSTREAM, DOWNSTREAM).success
        made, read = (instance.get_latest_materialization_event(key) for key in (UPSTREAM, DOWNSTREAM))
        [event] = instance.fetch_materializations(UPSTREAM, limit=1).records
    assert made is not None and made.asset_materialization is not None
    assert read is not None and read.asset_materialization is not None
    tags, of_reader = made.asset_materialization.tags or {}, read.asset_materialization.tags or {}
    assert (tags[DATA_VERSION_TAG], tags[CODE_VERSION_TAG]) == ("content", "1")
    assert of_reader[INPUT_VERSION_TAG + "upstream"] in recorded_versions("content")
    assert of_reader[INPUT_EVENT_TAG + "upstream"] == str(event.storage_id)


def test_a_run_is_tagged_with_its_batch() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = materialize(instance, UPSTREAM).dagster_run
    assert run.tags[PARTITION_NAME_TAG] == "a"


def test_one_query_tells_which_checks_passed_in_which_batches() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for batch in ("a", "b"):
            materialize(instance, UPSTREAM, batch=batch)
        found = instance.event_log_storage.get_asset_check_partition_info([is_batch_a.check_key])
        status = {info.partition_key: info.latest_execution_status for info in found}
        assert status == {"a": AssetCheckExecutionRecordStatus.SUCCEEDED, "b": AssetCheckExecutionRecordStatus.FAILED}
        assert all(info.is_current for info in found)


def test_a_failed_step_is_told_from_a_dead_process() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        failed = instance.get_run_by_id(materialize(instance, BROKEN).run_id)
        dead = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(dead, "its process was killed")
        reported = instance.get_run_by_id(dead.run_id)
    assert failed is not None and reported is not None
    assert failed.tags[RUN_FAILURE_REASON_TAG] == RunFailureReason.STEP_FAILURE.value
    assert reported.tags.get(RUN_FAILURE_REASON_TAG) in (None, RunFailureReason.UNKNOWN.value)
    names = {reason.name for reason in RunFailureReason}
    assert {"UNEXPECTED_TERMINATION", "RUN_WORKER_RESTART", "UNKNOWN"} <= names


@pytest.mark.parametrize(("tags", "expected"), [({}, "true"), ({MAX_RETRIES_TAG: "0"}, "false")])
def test_dagster_says_whether_it_will_start_a_dead_run_again(
    tmp_path: Path, tags: dict[str, str], expected: str
) -> None:
    """With our dagster.yaml; a run of `dasd run` forbids it."""
    with dg.DagsterInstance.from_config(str(prepare_home(tmp_path, None))) as instance:
        started = dg.DagsterRunStatus.STARTED
        run = instance.create_run_for_job(some_job, tags=tags, status=started, remote_job_origin=ORIGIN)
        instance.report_run_failed(run, "its process was killed")
        failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.tags[WILL_RETRY_TAG] == expected
    assert AUTO_RETRY_RUN_ID_TAG not in failed.tags


def test_a_run_in_this_process_is_of_the_services_code_location(tmp_path: Path) -> None:
    """The web UI's timeline leaves out a run that names none; our workspace names the location."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        with in_code_location(instance, some_job):
            inside = some_job.execute_in_process(instance=instance).run_id
        outside = some_job.execute_in_process(instance=instance).run_id
        within, without = instance.get_run_by_id(inside), instance.get_run_by_id(outside)
    assert within is not None and within.remote_job_origin is not None
    assert without is not None and without.remote_job_origin is None
    repository = within.remote_job_origin.repository_origin
    [location] = yaml.safe_load(WORKSPACE.read_text())["load_from"]
    assert within.remote_job_origin.location_name == location["python_module"]["location_name"]
    assert repository.repository_name == dg.Definitions(jobs=[some_job]).get_repository_def().name


def test_dagster_notes_the_run_that_it_started_again(tmp_path: Path) -> None:
    """The daemon's own function, over a code server, for a run that has been started again already."""
    code = tmp_path / "code.py"
    code.write_text("import dagster as dg\n\n@dg.job\ndef some_job(): ...\n\ndefs = dg.Definitions(jobs=[some_job])\n")
    target = PythonFileTarget(str(code), attribute=None, working_directory=None, location_name="code")
    with (
        dg.DagsterInstance.from_config(str(prepare_home(tmp_path, None))) as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        [repository] = workspace.create_request_context().get_code_location("code").get_repositories().values()
        origin = repository.get_full_job("some_job").get_remote_origin()
        failed, ended = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
        first = instance.create_run_for_job(some_job, status=failed, remote_job_origin=origin)
        parent = {"parent_run_id": first.run_id, "root_run_id": first.run_id}
        tags = {RETRY_NUMBER_TAG: "1", **{f"dagster/{name}": run_id for name, run_id in parent.items()}}
        again = instance.create_run_for_job(some_job, tags=tags, status=ended, **parent)
        retry_run(first, workspace)
        noted = instance.get_run_by_id(first.run_id)
    assert noted is not None
    assert noted.tags[AUTO_RETRY_RUN_ID_TAG] == again.run_id


class Wrapping(dg.Executor):
    """As OwnedExecutor wraps Dagster's executors."""

    def __init__(self, inner: dg.Executor) -> None:
        self.inner = inner
        self.runs: list[str] = []

    @property
    def retries(self) -> RetryMode:
        assert isinstance(self.inner.retries, RetryMode)
        return self.inner.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        assert isinstance(self.inner.step_dependency_config, StepDependencyConfig)
        return self.inner.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        assert isinstance(plan_context, PlanOrchestrationContext)
        assert isinstance(execution_plan, ExecutionPlan)
        assert plan_context.dagster_run.run_id == plan_context.run_id
        self.runs.append(plan_context.run_id)
        yield from self.inner.execute(plan_context, execution_plan)


def test_an_executor_may_wrap_dagsters() -> None:
    made: list[Wrapping] = []

    @dg.executor(name="wrapping", config_schema=dg.in_process_executor.config_schema)
    def wrapping(context: dg.InitExecutorContext) -> dg.Executor:
        assert dg.in_process_executor.executor_creation_fn is not None
        made.append(Wrapping(dg.in_process_executor.executor_creation_fn(context)))
        return made[-1]

    @dg.job(executor_def=wrapping)
    def wrapped() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(wrapped)
        list(execute_run_iterator(InMemoryJob(wrapped), run, instance))
        ended = instance.get_run_by_id(run.run_id)
    assert ended is not None and ended.is_success
    assert [one.runs for one in made] == [[run.run_id]]


def test_the_scheduler_of_our_settings_is_one_that_the_daemon_runs(tmp_path: Path) -> None:
    with open_instance(prepare_home(tmp_path, None)) as instance:
        scheduler = instance.scheduler
        assert type(scheduler) is OneService and isinstance(scheduler, DagsterDaemonScheduler)
        assert isinstance(scheduler.inst_data, ConfigurableClassData)
        assert scheduler.max_catchup_runs == DagsterDaemonScheduler().max_catchup_runs
        assert "SCHEDULER" in instance.get_required_daemon_types()


def test_a_run_whose_parts_are_ended_while_it_is_canceling_ends_as_canceled() -> None:
    """So an interrupted `dasd run` that sees its children die does not write that it failed."""

    @dg.op
    def fails(context: dg.OpExecutionContext) -> None:
        context.instance.report_run_canceling(context.run)
        raise RuntimeError("its child was killed")

    @dg.job
    def failing() -> None:
        fails()

    with dg.DagsterInstance.ephemeral() as instance:
        failing.execute_in_process(instance=instance, raise_on_error=False)
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.CANCELED]


def test_lines_of_the_run_log_carry_step_and_message() -> None:
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    @dg.logger
    def keeping(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("keeping")
        logger.addHandler(Keeping())
        return logger

    definitions = dg.Definitions(assets=[upstream], loggers={"keeping": keeping})
    definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        partition_key="a", run_config={"loggers": {"keeping": {"config": {}}}}
    )
    of_dagster = [record for record in records if has_log_record_event(record)]
    ours = [record for record in records if record not in of_dagster and has_log_record_metadata(record)]
    assert of_dagster
    found = [get_log_record_metadata(record) for record in ours]
    assert [(one["step_key"], one["orig_message"]) for one in found] == [("upstream", "a message of ours")]
    assert not has_log_record_metadata(logging.makeLogRecord({"msg": "of a library"}))


def test_databases_keep_their_engine_and_open_connections_anew(tmp_path: Path) -> None:
    """SQLAlchemy's engine holds the compiled statements."""
    with open_instance(prepare_home(tmp_path, None)) as instance:
        log, runs = instance.event_log_storage, instance.run_storage
        assert isinstance(log, SqliteEventLogStorage) and isinstance(runs, SqliteRunStorage)
        for connect in (log.index_connection, runs.connect, lambda: log.run_connection("a-run")):
            with connect() as first:
                pass
            with connect() as second:
                assert second.engine is first.engine and second is not first
                assert first.closed


def test_a_new_database_has_the_newest_migration_and_loads_none_again(tmp_path: Path) -> None:
    with open_instance(prepare_home(tmp_path, None)) as instance:
        log = instance.event_log_storage
        assert isinstance(log, SqliteEventLogStorage)
        loaded = KeptScripts.from_config.cache_info().misses
        for run_id in ("first", "second"):
            with log.run_connection(run_id) as connection:
                config = get_alembic_config(sqlite_event_log.__file__)
                found, newest = check_alembic_revision(config, connection)
                assert found == newest == ScriptDirectory.from_config(config).get_current_head()
        assert KeptScripts.from_config.cache_info().misses == loaded


def test_a_slot_that_was_freed_just_before_a_step_began_to_wait_is_given_to_it(tmp_path: Path) -> None:
    with open_instance(prepare_home(tmp_path, None)) as instance:
        log = instance.event_log_storage
        assert isinstance(log, SqliteEventLogStorage)
        log.set_concurrency_slots("engine", 1)
        assert log.claim_concurrency_slot("engine", "first", "step").is_claimed
        found_taken = not log.has_unassigned_slots("engine")
        log.free_concurrency_slots_for_run("first")  # by another process, before the next line of this one
        log.add_pending_step("engine", "second", "step", should_assign=not found_taken)
        assert log.claim_concurrency_slot("engine", "second", "step").is_claimed
        assert not log.claim_concurrency_slot("engine", "third", "step").is_claimed


def test_a_run_sleeps_while_it_waits_for_a_slot(tmp_path: Path) -> None:
    with open_instance(prepare_home(tmp_path, None)) as instance:
        instance.event_log_storage.set_concurrency_slots("engine", 1)
        assert instance.event_log_storage.claim_concurrency_slot("engine", "other", "step").is_claimed
        with InstanceConcurrencyContext(instance, dg.DagsterRun(job_name="job")) as context:
            assert not context.claim("engine", "step")
            assert 0 < context.interval_to_next_pending_claim_check() <= 1
