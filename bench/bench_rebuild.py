"""A home with 1,000 batches: what one more costs, and what the service's ticks cost, on the fake engine.

    python bench/bench_rebuild.py [batches]

The home is one batch made by a run and multiplied: rows, landed files, and events of Dagster's log. Ticks are timed in
a process of their own, which has seen nothing before.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import dagster as dg

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from conftest import Project, prompt_rows
from results import against, table

from dasd_assets.records.partitions import batches
from dasd_assets.service.automation import batch_tick, landing_tick, requests, training_tick
from dasd_assets.service.planning import Planner, root_versions
from dasd_resources.landing.landing_folder import LandingFolder
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.catalogs import Catalog
from dasd_resources.storage.connections import attach

NUM_BATCHES = 1000
NUM_QUESTIONS = 4
IDS = {
    "prompts": ["prompt_id"],
    "responses": ["response_id", "prompt_id"],
    "student_tokens": ["response_id"],
    "response_verdicts": ["response_id"],
    "student_logprobs": ["response_id"],
    "sentence_probabilities": ["response_id"],
    "sentence_types": ["response_id"],
    "response_scores": ["response_id"],
}


@dataclass
class Costs:
    """Seconds of a new batch: landing tick, its run, rebuild tick; and of selection and datasets over all batches."""

    batch: float
    selection: float


def main(num_batches: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        warm = Project(Path(folder) / "warm", load_recipe("demo"))
        new_batch(warm, "warm.jsonl", 0)
        empty, full = (Project(Path(folder) / name, load_recipe("demo")) for name in ("empty", "full"))
        new_batch(full, "first.jsonl", 0)
        started = time.perf_counter()
        multiply(full, num_batches)
        print(f"{num_batches} batches in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        cold, fresh, again = fresh_ticks(full.home), fresh_ticks(full.home), ticks(full.home)
        alone, among = new_batch(empty, "new.jsonl", 100), new_batch(full, "new.jsonl", 100)
    print(page(num_batches, alone, among, cold, fresh, again))


def new_batch(project: Project, name: str, start: int) -> Costs:
    """Land a file and let the service do what it does."""
    project.land(name, prompt_rows(start, start + NUM_QUESTIONS))
    with project.instance() as instance:
        planner = planner_of(project, instance)
        started = time.perf_counter()
        landed = landing_tick(planner, LandingFolder.of(None, project.home), None)
        [added] = landed.dynamic_partitions_requests or []
        instance.add_dynamic_partitions("prompt_batch", list(added.partition_keys))
        carry_out(project, instance, landed.run_requests or [])
        batch_tick(planner, None)
        made = time.perf_counter()
        carry_out(project, instance, requests(planner.plan(["selection"]).due))
        return Costs(made - started, time.perf_counter() - made)


def carry_out(project: Project, instance: dg.DagsterInstance, wanted: Sequence[dg.RunRequest]) -> None:
    for request in wanted:
        result = project.definitions.resolve_job_def("data_only").execute_in_process(
            instance=instance,
            asset_selection=request.asset_selection,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            run_config={"loggers": {"console": {}}},
        )
        assert result.success


def planner_of(project: Project, instance: dg.DagsterInstance) -> Planner:
    return Planner(instance, project.definitions, project.recipe, project.engines, project.warehouse)


def fresh_ticks(home: Path) -> dict[str, float]:
    """`ticks` in a new process."""
    command = [sys.executable, __file__, "--ticks", str(home)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def ticks(home: Path) -> dict[str, float]:
    """Seconds of each tick."""
    project = Project(home, load_recipe("demo"))
    with project.instance() as instance:
        planner = planner_of(project, instance)
        folder = LandingFolder.of(None, home)
        looks: dict[str, Callable[[], object]] = {
            "landed_prompts": lambda: landing_tick(planner, folder, None),
            "batch_rebuilds": lambda: batch_tick(planner, None),
            "selection_rebuilds": lambda: planner.plan(["selection"]),
            "training": lambda: training_tick(planner),
        }
        planner.definitions.resolve_asset_graph()  # the code location, and what reads models, are loaded by then
        root_versions(project.engines, project.recipe, project.warehouse)
        return {name: seconds(look) for name, look in looks.items()}


def seconds(look: Callable[[], object]) -> float:
    started = time.perf_counter()
    look()
    return time.perf_counter() - started


def multiply(project: Project, number: int) -> None:
    """Copy the one batch there is `number` times."""
    with project.instance() as instance:
        [first] = batches(instance)
        keys = list(land_copies(project.home / "prompts", number))
        instance.add_dynamic_partitions("prompt_batch", keys)
    copy_rows(project.warehouse.catalog, first, keys)
    copy_events(project.home / "dagster" / "history" / "runs" / "index.db", first, keys)


def land_copies(folder: Path, number: int) -> Iterator[str]:
    """Files of one line each, and the batches that they are."""
    for index in range(number):
        content = json.dumps({"question": f"copy {index}"}).encode()
        (folder / f"copy{index}.jsonl").write_bytes(content)
        yield f"copy{index}-{sha256(content).hexdigest()[:12]}"


def copy_rows(catalog: Catalog, first: str, keys: list[str]) -> None:
    """A file per batch where the table is partitioned, few files elsewhere: as maintenance leaves them."""
    with attach(catalog) as connection:
        connection.execute("CREATE TEMP TABLE copies AS SELECT unnest($keys) AS key", {"keys": keys})
        for name, ids in IDS.items():
            changed = ", ".join(f"md5({column} || key) AS {column}" for column in ids)
            connection.execute(
                f"INSERT INTO {name} SELECT * EXCLUDE (key) REPLACE ({changed}, key AS batch) "
                f"FROM {name} CROSS JOIN copies WHERE batch = $first",
                {"first": first},
            )


def copy_events(index: Path, first: str, keys: list[str]) -> None:
    with closing(sqlite3.connect(index)) as log, log:
        events = log.execute("SELECT * FROM event_logs WHERE partition = ? ORDER BY id", (first,)).fetchall()
        [(free,)] = log.execute("SELECT max(id) + 1 FROM event_logs")
        checks = log.execute("SELECT * FROM asset_check_executions WHERE partition = ?", (first,)).fetchall()
        places = {event[0]: offset for offset, event in enumerate(events)}
        for number, key in enumerate(keys):
            base = free + number * len(events)
            rows = [(base + places[e[0]], e[1], e[2].replace(first, key), *e[3:7], key) for e in events]
            log.executemany("INSERT INTO event_logs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            for check in checks:
                moved = [base + places[i] if i in places else i for i in check[8:10]]
                row = (
                    None,
                    check[1],
                    check[2],
                    key,
                    check[4],
                    check[5],
                    check[6].replace(first, key),
                    check[7],
                    *moved,
                )
                log.execute("INSERT INTO asset_check_executions VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*row, check[10]))


def page(
    num_batches: int,
    alone: Costs,
    among: Costs,
    cold: dict[str, float],
    fresh: dict[str, float],
    again: dict[str, float],
) -> str:
    costs = [
        ("batch, with its ticks", among.batch, alone.batch, against(alone.batch / among.batch, 0.5)),
        (
            "selection and datasets over all",
            among.selection,
            alone.selection,
            f"{alone.selection / among.selection:.2f} ×",
        ),
    ]
    looks = [(name, cold[name], again[name], fresh[name], against(1 / fresh[name], 1)) for name in fresh]
    return f"""## Rebuilds

One new batch of {NUM_QUESTIONS} questions on the fake engine, seconds, beside {num_batches:,} batches and in an empty
project; the ratio is the latter over the former.

{table(["cost of", f"beside {num_batches:,}", "empty project", "ratio"], costs)}
A tick with {num_batches:,} batches present, seconds, in a new process and later in the same one; the ratio is one
second over the former. The first look of all hashes every landed file and fetches every event; both are kept on disk.

{table(["sensor or schedule", "first of all", "later", "new process", "ratio"], looks)}"""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ticks"]:
        print(json.dumps(ticks(Path(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_BATCHES)
