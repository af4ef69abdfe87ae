"""The fault drill: run workers and the whole service are killed while batches land, and a disk runs full.

Afterwards every table is that of an undisturbed run of the same inputs, and nothing is stuck, orphaned or left behind.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from random import Random

import dagster as dg
import polars as pl
import pytest
import yaml
from conftest import Project, change, prompt_rows
from reliability import record

from dasd_assets.records.partitions import batches
from dasd_assets.service.planning import root_versions
from dasd_assets.service.recovery import BEGUN
from dasd_assets.service.staleness import comparison
from dasd_resources.demo.questions import QuestionRow
from dasd_resources.home import HISTORY_VARIABLE, prepare_home
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.leftovers import sweep_owner_locks
from dasd_resources.storage.upkeep import delete_unreferenced

UNFINISHED = [*BEGUN, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.CANCELING]
# What two undisturbed runs of the same inputs differ in, too; the recipe document tells of automation, which does.
INCIDENTAL = {"run_id", "snapshot_id", "path", "seconds", "recipe_document"}
SETTLED_SECONDS = 25.0
Landed = Mapping[str, Sequence[QuestionRow]]  # file name -> its lines
DEPENDENTS = {
    "student_tokens": "response_id",
    "response_verdicts": "response_id",
    "student_logprobs": "response_id",
    "sentence_probabilities": "response_id",
    "sentence_types": "response_id",
    "response_scores": "response_id",
    "selected_responses": "response_id",
}


@dataclass
class Service:
    """`dagster dev` with the drill's code location, in a process group of its own."""

    project: Project
    recipe_file: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        folder = prepare_home(self.project.home, None)
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        own = ("DAGSTER", "DASD")
        clean = {n: value for n, value in os.environ.items() if n == HISTORY_VARIABLE or not n.startswith(own)}
        environment = {
            **clean,
            "PYTHONPATH": path,
            "DASD_HOME": str(self.project.home),
            "DASD_RECIPE": str(self.recipe_file),
            "DAGSTER_HOME": str(folder),
        }
        with (self.project.home / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dagster", "dev", "-m", "drill_service", "--port", str(free_port())],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """The whole service, run workers included: whatever is of its session, until there is no more."""
        assert self.process is not None
        while members := session(self.process.pid):
            for pid in members:
                end(pid)
            self.process.wait()
            time.sleep(0.1)

    def workers(self) -> list[int]:
        """Processes that execute a run, or a step of it where steps have their own."""
        assert self.process is not None
        return [pid for pid in session(self.process.pid) if b"spawn_main" in command_line(pid)]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def session(leader: int) -> list[int]:
    """The living processes of a session that this test has started, its leader first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            state, _, _, sid, *_ = stat.read_text().rpartition(")")[2].split()
            if int(sid) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return sorted(found)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def open_ports(pids: Sequence[int]) -> set[str]:
    """The addresses (hexadecimal, as the kernel tells) on which any of the processes listens."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    lines = chain.from_iterable(Path(f"/proc/net/{kind}").read_text().splitlines()[1:] for kind in ("tcp", "tcp6"))
    rows = [line.split() for line in lines]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


@contextmanager
def served(project: Project, recipe_file: Path) -> Iterator[Service]:
    service = Service(project, recipe_file)
    try:
        service.start()
        yield service
    finally:
        service.stop()


def recipe_file(folder: Path, recipe: Recipe, training_cron: str | None) -> Path:
    """The recipe with quick retries and, if any, training at a time."""
    automation = {"training_cron": training_cron, "max_attempts": 99, "retry_delay_seconds": 1.0}
    file = folder / f"{recipe.name}-{'data' if training_cron is None else 'training'}.yaml"
    document = recipe.model_dump(mode="json")
    file.write_text(yaml.safe_dump({**document, "automation": {**document["automation"], **automation}}))
    return file


def wait_until(what: str, condition: Callable[[], object], service: Service, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        log = service.project.home / "service.log"
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s:\n{log.read_text()[-3000:]}"
        time.sleep(0.2)


def wait_until_settled(condition: Callable[[], bool], service: Service, seconds: float) -> None:
    """Until it holds and still does a while later: Dagster's own retries of killed runs come late."""
    while True:
        wait_until("the end", condition, service, seconds)
        time.sleep(SETTLED_SECONDS)
        if condition():
            return


def kill_a_worker(service: Service, rng: Random, seconds: float) -> None:
    """At a random moment of a run's life; of several, and of the processes of their steps, any."""
    wait_until("a run worker", service.workers, service, seconds)
    time.sleep(rng.uniform(0, 6))
    if workers := service.workers():
        end(rng.choice(workers))


def kill_while_landing(service: Service, landed: Landed, num_kills: int, rng: Random) -> None:
    """A batch before each kill, as long as there are any; every third kill is the whole service's."""
    waiting = list(landed)
    for number in range(num_kills):
        if waiting:
            service.project.land(waiting[0], landed[waiting.pop(0)])
        if number % 3 == 2:
            wait_until("a run worker", service.workers, service, 600)
            time.sleep(rng.uniform(0, 6))
            service.kill()
            service.start()
        else:
            kill_a_worker(service, rng, 600)
        print(f"{time.strftime('%H:%M:%S')} kill {number + 1}, {len(waiting)} batches to land", flush=True)
    assert waiting == []


def is_up_to_date(project: Project, assets: set[str] | None = None) -> bool:
    """Whether no run is unfinished and nothing (of `assets`) is out of date."""
    with project.instance() as instance:
        if instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)):
            return False
        roots = root_versions(project.engines, project.recipe, project.warehouse)
        stale = comparison(instance, project.definitions, batches(instance), roots).found
    return not [one for one in stale if assets is None or one.asset in assets]


def tables(home: Path) -> dict[str, pl.DataFrame]:
    """Every table's rows in order, without times and what else is incidental."""
    lake = Lake(home=str(home))
    names = lake.read("SELECT table_name FROM duckdb_tables() WHERE database_name = 'dasd'")["table_name"]
    found = {}
    for name in sorted(names):
        rows = lake.read(f"SELECT * FROM {name}")
        kept = rows.select(pl.selectors.all() - pl.selectors.temporal()).drop(INCIDENTAL, strict=False)
        found[name] = kept.sort(kept.columns) if kept.columns else kept
    return found


def check_nothing_is_left(project: Project) -> None:
    """No unfinished run, claimed slot, row without its parent, data file without a snapshot, or lock of the dead."""
    with project.instance() as instance:
        assert instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) == 0
        for pool in instance.event_log_storage.get_concurrency_keys():
            slots = instance.event_log_storage.get_concurrency_info(pool)
            assert (slots.claimed_slots, slots.pending_steps) == ([], [])
    for table, key in DEPENDENTS.items():
        orphans = f"SELECT count(*) FROM {table} ANTI JOIN responses USING ({key})"
        assert project.read(orphans).item() == 0
    delete_unreferenced(project.warehouse, "drill", datetime.now(UTC))
    listed = "SELECT * FROM ducklake_delete_orphaned_files('dasd', dry_run => true, cleanup_all => true)"
    with project.warehouse.commit("drill") as transaction:
        assert transaction.read(listed).is_empty()
    sweep_owner_locks(project.home, 0)
    assert list((project.home / "dagster" / "owners").iterdir()) == []
    assert not list((project.home / "checkpoints").glob("*.partial"))


def differences(ours: pl.DataFrame, theirs: pl.DataFrame) -> dict[str, tuple[list[object], list[object]]]:
    """Column -> values that only one side has, a few."""
    found = {}
    for name in ours.columns:
        left, right = (set(map(str, rows[name].to_list())) for rows in (ours, theirs))
        if left != right:
            found[name] = (sorted(left - right)[:3], sorted(right - left)[:3])
    return found or {"number of rows": ([ours.height], [theirs.height])}


def undisturbed_run(folder: Path, recipe: Recipe, landed: Landed) -> Project:
    """A home on which the same files landed at once, and one run made everything."""
    project = Project(folder / "undisturbed", recipe)
    for name, rows in landed.items():
        project.land(name, rows)
    project.run()
    return project


def check_same(project: Project, undisturbed: Project) -> None:
    assert project.run() == 0
    ours, theirs = tables(project.home), tables(undisturbed.home)
    assert ours.keys() == theirs.keys()
    assert {name: differences(ours[name], theirs[name]) for name in ours if not ours[name].equals(theirs[name])} == {}
    assert not ours["responses"].is_empty() and not ours["sft_examples"].is_empty()


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
DATA_ASSETS = {"sft_dataset_t060", "sft_dataset_t100", "response_scores", "selected_responses_t060"}


def has_all(project: Project, num_batches: int) -> bool:
    """Whether every landed file is a batch, and the datasets are made of them all."""
    with project.instance() as instance:
        if len(batches(instance)) < num_batches:
            return False
    return is_up_to_date(project, DATA_ASSETS)


@pytest.mark.drill
def test_killed_twice_and_restarted_once_nothing_is_lost(tmp_path: Path, tiny: Recipe) -> None:
    """The drill's short form."""
    project = Project(tmp_path / "home", tiny)
    landed = {f"b{number}.jsonl": prompt_rows(3 * number, 3 * number + 3) for number in range(2)}
    rng = Random(3)
    with served(project, recipe_file(tmp_path, tiny, None)) as service:
        project.land("b0.jsonl", landed["b0.jsonl"])
        kill_a_worker(service, rng, 300)
        assert service.process is not None
        assert open_ports(session(service.process.pid)) <= LOOPBACK
        project.land("b1.jsonl", landed["b1.jsonl"])
        kill_a_worker(service, rng, 300)
        wait_until("a run worker", service.workers, service, 300)
        service.kill()
        service.start()
        wait_until_settled(lambda: has_all(project, 2), service, 600)
    undisturbed = undisturbed_run(tmp_path, tiny, landed)
    project.run()
    check_same(project, undisturbed)
    check_nothing_is_left(project)


@pytest.mark.drill
def test_fifteen_kills_while_batches_land_change_nothing(tmp_path: Path, tiny: Recipe) -> None:
    rng, num_batches = Random(15), 8
    project = Project(tmp_path / "home", tiny)
    landed = {f"b{number}.jsonl": prompt_rows(2 * number, 2 * number + 2) for number in range(num_batches)}
    with served(project, recipe_file(tmp_path, tiny, None)) as service:
        kill_while_landing(service, landed, 12, rng)
        wait_until_settled(lambda: has_all(project, num_batches), service, 1200)
    training = recipe_file(tmp_path, tiny, "* * * * *")
    project.recipe = load_recipe(str(training))  # each checkpoint keeps the recipe that made it
    with served(project, training) as service:
        for number in range(12, 15):
            kill_a_worker(service, rng, 600)
            print(f"{time.strftime('%H:%M:%S')} kill {number + 1}, while training", flush=True)
        wait_until_settled(lambda: is_up_to_date(project), service, 1200)
    check_same(project, undisturbed_run(tmp_path, project.recipe, landed))
    check_nothing_is_left(project)
    num_rows = sum(rows.height for rows in tables(project.home).values())
    record_kills(
        "service killed",
        faults="SIGKILL of run workers and of the whole service, while batches land and stages train",
        seed=15,
        kills=15,
        test="test_fifteen_kills_while_batches_land_change_nothing",
        note=f"{num_rows:,} rows of {len(tables(project.home))} tables as in the undisturbed run",
    )


def record_kills(drill: str, *, faults: str, seed: int, kills: int, test: str, note: str = "") -> None:
    """Of a drill that has compared every table with the undisturbed run: all of the kills were survived."""
    command = f"pytest -m drill tests/test_drill.py -k {test}"
    record(
        drill, faults=faults, seed=seed, tried=kills, survived=kills, detected=0, silent=0, command=command, note=note
    )


def killed_nine_times(folder: Path, recipe: Recipe) -> None:
    """Where a model runs in vLLM: the run's worker, another of its processes, or all of the service dies."""
    project, num_batches = Project(folder / "home", change(recipe, "teacher.engine", "vllm")), 4
    landed = {f"b{number}.jsonl": prompt_rows(2 * number, 2 * number + 2) for number in range(num_batches)}
    with served(project, recipe_file(folder, project.recipe, None)) as service:
        kill_while_landing(service, landed, 9, Random(9))
        wait_until_settled(lambda: has_all(project, num_batches), service, 1200)
    undisturbed = undisturbed_run(folder, project.recipe, landed)
    project.run()
    check_same(project, undisturbed)
    check_nothing_is_left(project)


@pytest.mark.drill
def test_kills_where_each_step_is_a_process_change_nothing(tmp_path: Path, tiny: Recipe) -> None:
    killed_nine_times(tmp_path, change(tiny, "automation.keep_loaded_seconds", 0.0))
    record_kills(
        "steps killed",
        faults="SIGKILL of run workers, of steps that are processes of their own, and of the whole service",
        seed=9,
        kills=9,
        test="test_kills_where_each_step_is_a_process_change_nothing",
    )


@pytest.mark.drill
def test_kills_where_batches_are_made_in_rounds_change_nothing(tmp_path: Path, tiny: Recipe) -> None:
    killed_nine_times(tmp_path, tiny)
    record_kills(
        "rounds killed",
        faults="SIGKILL of the run that makes batches in rounds with a model kept loaded, and of the whole service",
        seed=9,
        kills=9,
        test="test_kills_where_batches_are_made_in_rounds_change_nothing",
    )


@pytest.mark.drill
def test_a_full_disk_fails_the_run_and_loses_nothing(tmp_path: Path, tiny: Recipe) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        landed = {"a.jsonl": prompt_rows(0, 6), "b.jsonl": prompt_rows(6, 12)}
        project, undisturbed = Project(disk / "home", tiny), undisturbed_run(tmp_path, tiny, landed)
        project.land("a.jsonl", landed["a.jsonl"])
        project.run()
        project.land("b.jsonl", landed["b.jsonl"])
        filler = disk / "filler"
        with pytest.raises(Exception, match=r"(?i)full|no space|disk"):
            fill(filler, leave=150_000)
            project.run()
        filler.unlink()
        print(f"the disk ran full with {project.count('responses')} responses; room again", flush=True)
        project.run()
        check_same_but_for_superseded(project, undisturbed)
        check_nothing_is_left(project)
        record(
            "full disk",
            faults="no space left on a tmpfs of 160 MB in the middle of a batch",
            seed=None,
            tried=1,
            survived=0,
            detected=1,
            silent=0,
            command="pytest -m drill tests/test_drill.py -k test_a_full_disk_fails_the_run_and_loses_nothing",
            note="the run fails with the reason; with room again, the next one ends as if there had been no fault",
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(file: Path, leave: int) -> None:
    """Take all of the disk but so many bytes."""
    status = os.statvfs(file.parent)
    with file.open("wb") as stream:
        for _ in range((status.f_bavail * status.f_frsize - leave) // 4096):
            stream.write(bytes(4096))


def check_same_but_for_superseded(project: Project, undisturbed: Project) -> None:
    """The first batch was trained on alone, too: only tables that no training precedes can be equal."""
    ours, theirs = tables(project.home), tables(undisturbed.home)
    for name in ("prompts", "rejected_prompts", "responses", "selected_responses", *DEPENDENTS):
        assert ours[name].equals(theirs[name]), name
    assert project.run() == 0
