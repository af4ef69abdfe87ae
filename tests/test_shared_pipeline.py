"""Dagster on PostgreSQL, beside a warehouse that is there too; and what restarts of the database leave whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import dagster as dg
import pytest
import shared_stores
import yaml
from conftest import Project, prompt_rows
from reliability import record
from test_drill import (
    check_nothing_is_left,
    check_same,
    has_all,
    kill_a_worker,
    recipe_file,
    served,
    undisturbed_run,
    wait_until,
    wait_until_settled,
)
from test_service import check_one_service

from dasd_assets.service.instance import open_instance
from dasd_assets.service.one_service import ServiceRunning, hold
from dasd_resources.home import HISTORY_VARIABLE, HistoryConflict, keep_history, prepare_home
from dasd_resources.storage.data_files import damaged, data_files, lost_files
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Warehouse

SEED, NUM_FAULTS, NUM_WRITERS, NUM_ROWS, NUM_BATCHES = 7, 20, 2, 1500, 4
IDS = [str(number) for number in range(NUM_ROWS)]
PRESENT = "SELECT rollout_id FROM prefix_cuts"


@pytest.fixture
def shared(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty home whose tables and history are all on servers."""
    url = shared_stores.postgres().create().replace("postgresql", "postgresql+psycopg2").replace("@", ":sesame@")
    for name, value in {**shared_stores.object_store(), HISTORY_VARIABLE: url}.items():
        monkeypatch.setenv(name, value)
    shared_stores.share(project.home)
    keep_history(project.home, None, url)
    return project


def test_prompts_are_made_and_remembered_there(shared: Project) -> None:
    shared.land("a.jsonl", prompt_rows(0, 3))
    (shared.home / "dagster" / "owners").mkdir()  # so that no history in files is copied here
    assert shared.materialize("held_out_questions,prompts") == 2
    assert shared.count("prompts") == 3
    with open_instance(prepare_home(shared.home, None)) as instance:
        assert instance.get_runs_count() > 0
        assert instance.get_latest_materialization_event(dg.AssetKey("prompts")) is not None
    assert not [*shared.home.rglob("*.db"), *(shared.home / "dagster").rglob("*.sqlite")]
    assert not (shared.home / "data").exists()
    settings = (shared.home / "dagster" / "dagster.yaml").read_text()
    assert yaml.safe_load(settings)["storage"]["postgres"] == {"postgres_url": {"env": HISTORY_VARIABLE}}
    assert "sesame" not in settings
    keep_history(shared.home, None, os.environ[HISTORY_VARIABLE])  # again: as it is
    assert (shared.home / "dagster" / "dagster.yaml").read_text() == settings


def test_one_service_has_the_home_there_too(shared: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASD_SERVICE", raising=False)
    hold(shared.home, "dasd ui", "here")
    code = "import sys, pathlib, dasd_assets.service.one_service as s; s.hold(pathlib.Path(sys.argv[1]), 'x', '')"
    environment = {name: value for name, value in os.environ.items() if name != "DASD_SERVICE"}
    done = subprocess.run([sys.executable, "-c", code, shared.home], env=environment, capture_output=True, text=True)
    assert ServiceRunning.__name__ in done.stderr


def test_a_history_in_files_is_not_left_behind(project: Project) -> None:
    with project.instance():
        pass
    with pytest.raises(HistoryConflict, match="has Dagster's history in files"):
        keep_history(project.home, None, "postgresql+psycopg2://me@db/dagster")
    with pytest.raises(HistoryConflict, match="must be postgresql\\+psycopg2://"):
        keep_history(project.home, None, "postgresql://me:sesame@db/dagster")


def write_what_is_missing(home: str) -> None:
    """In a process that is killed: rows through the ledger, as an engine would finish them, until none is missing."""
    warehouse = Warehouse(home=home)
    while wanted := missing(IDS, warehouse.read(PRESENT)["rollout_id"]):
        with Ledger(warehouse, "prefix_cuts", "drill", max_rows=20) as ledger:
            for name in wanted:
                ledger.add({"rollout_id": name, "cut_token": 1, "seed": 0, "cut_version": "1"})


@pytest.mark.drill
def test_drill_restarts_of_the_database_and_kills(shared: Project) -> None:
    """Writers are killed and the database is cut off in the middle of commits; each row is there once at the end."""
    lake, rng, server = Lake(home=str(shared.home)), Random(SEED), shared_stores.postgres()
    lake.migrate()
    code = "import sys, test_shared_pipeline as t; t.write_what_is_missing(sys.argv[1])"
    command = [sys.executable, "-c", code, lake.home]

    def begin() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)

    writers, kills, restarts, failed = [begin() for _ in range(NUM_WRITERS)], 0, 0, 0
    for _ in range(NUM_FAULTS):
        time.sleep(rng.uniform(1, 4))
        if rng.random() < 0.5:
            writers[rng.randrange(NUM_WRITERS)].send_signal(signal.SIGKILL)
            kills += 1
        else:
            server.stop()
            time.sleep(rng.uniform(0, 2))
            server.start()
            restarts += 1
        for index, writer in enumerate(writers):
            if writer.poll() not in (None, 0):
                failed += 1
                writers[index] = begin()
    while codes := [writer.wait() for writer in writers if writer.wait()]:
        failed += len(codes)
        writers = [begin() for _ in codes]
    found = lake.read(f"SELECT count(*), count(DISTINCT rollout_id) FROM ({PRESENT})").row(0)
    assert found == (NUM_ROWS, NUM_ROWS)
    assert not lost_files(lake.catalog) and not list(damaged(lake.catalog, data_files(lake.catalog)))
    assert kills and restarts
    record(
        "shared storage",
        faults="SIGKILL of one of two writers, PostgreSQL stopped at once and started again under both",
        seed=SEED,
        tried=kills + restarts,
        survived=kills + restarts,
        detected=0,
        silent=0,
        command="pytest -m drill tests/test_shared_pipeline.py -k test_drill_restarts_of_the_database_and_kills",
        note=f"{kills} kills, {restarts} restarts; {failed} times a writer was begun again.",
    )


@pytest.mark.drill
def test_drill_a_batch_is_made_once(shared: Project) -> None:
    """The whole pipeline over a home on servers."""
    shared.land("a.jsonl", prompt_rows(0, 3))
    (shared.home / "dagster" / "owners").mkdir()
    assert shared.run() > 20
    assert shared.run() == 0
    assert lost_files(shared.warehouse.catalog) == []
    assert not (shared.home / "data").exists()
    shared.land("b.jsonl", prompt_rows(3, 5))
    assert shared.run() > 10


@pytest.mark.drill
def test_drill_the_service_and_its_database_are_killed(shared: Project, tmp_path: Path) -> None:
    """Run workers, the service, and the server that has both the tables and Dagster's history, while batches land."""
    rng, server = Random(SEED), shared_stores.postgres()
    landed = {f"b{number}.jsonl": prompt_rows(2 * number, 2 * number + 2) for number in range(NUM_BATCHES)}
    with served(shared, recipe_file(tmp_path, shared.recipe, None)) as service:
        for name, rows in landed.items():
            shared.land(name, rows)
            kill_a_worker(service, rng, 600)
            wait_until("a run worker", service.workers, service, 600)
            time.sleep(rng.uniform(0, 4))
            server.stop()
            time.sleep(rng.uniform(0, 3))
            server.start()
            print(f"{time.strftime('%H:%M:%S')} {name}: a worker killed, the database restarted", flush=True)
        wait_until("a run worker", service.workers, service, 600)
        service.kill()
        service.start()
        wait_until_settled(lambda: has_all(shared, NUM_BATCHES), service, 1200)
    undisturbed = undisturbed_run(tmp_path, shared.recipe, landed)
    shared.run()
    check_same(shared, undisturbed)
    check_nothing_is_left(shared)
    assert not (shared.home / "data").exists()
    record(
        "shared service",
        faults="SIGKILL of run workers and of the service, PostgreSQL stopped at once and started again under all",
        seed=SEED,
        tried=2 * NUM_BATCHES + 1,
        survived=2 * NUM_BATCHES + 1,
        detected=0,
        silent=0,
        command="pytest -m drill tests/test_shared_pipeline.py -k test_drill_the_service_and_its_database_are_killed",
        note=f"{NUM_BATCHES + 1} kills, {NUM_BATCHES} restarts; every table as in an undisturbed run in a folder",
    )


@pytest.mark.drill
def test_drill_dasd_ui_serves_such_a_home(shared: Project) -> None:
    check_one_service(shared.home)
    with shared.instance() as instance:
        assert {"SENSOR", "SCHEDULER"} <= instance.get_daemon_heartbeats().keys()
    assert not [*shared.home.rglob("*.db")]
