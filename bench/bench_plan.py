"""`dasd plan --pilot` against the run it foretells: the demo on the real engines, predicted and real time and rows.

    python bench/bench_plan.py [questions of the pilot] [questions of the run] [--home HOME]

HOME: one in which `dasd run --recipe demo` has run once, on this machine; its questions are planned, and the times and
rows of that run are compared, which spares a run. As busy as the machine was then, it should be now.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import dagster as dg
from results import table

from dasd_assets.commands.pilot import NAME as PILOT
from dasd_assets.commands.pilot import step_seconds
from dasd_assets.plan.stages import BETWEEN
from dasd_assets.service.instance import open_instance
from dasd_resources.demo.questions import questions, write_rows
from dasd_resources.storage.warehouse import Warehouse

NUM_PILOT, NUM_QUESTIONS = 100, 1600
BAR = 0.3  # of what was real
SHOWN = 8  # stages


def main(num_pilot: int, num_questions: int, ran: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if ran is None:
            write_rows(home / "prompts" / "chain_sum.jsonl", list(islice(questions("prompts"), num_questions)))
        else:
            shutil.copytree(ran / "prompts", home / "prompts")
        for file in (home / "prompts").iterdir():
            os.utime(file, (time.time() - 60, time.time() - 60))
        began, load = time.monotonic(), os.getloadavg()[0]
        plan = json.loads(dasd(home, "plan", "demo", "--pilot", str(num_pilot), "--json"))
        piloted, then = time.monotonic() - began, os.getloadavg()[0]
        print(f"the pilot took {piloted:.0f} s and foretells {plan['seconds']}", file=sys.stderr, flush=True)
        if ran is None:
            dasd(home, "run", "--recipe", "demo")
        real = ran or home
        with open_instance(real / "dagster") as instance:
            seconds, wall = step_seconds(instance), wall_seconds(instance)
        seconds[BETWEEN] = wall - sum(seconds.values())
        warehouse = Warehouse(home=str(real))
        rows = {name: int(warehouse.read(f"SELECT count(*) FROM {name}").item()) for name in plan["rows"]}
    print(page(plan, seconds, rows, wall, num_pilot))
    at = f"the run's {then:.1f}" if ran is None else "the run was an earlier one"
    print(f"The pilot took {piloted:.0f} s, at a load of {load:.1f} when it began; {at}.")


def wall_seconds(instance: dg.DagsterInstance) -> float:
    """From the start of the first step to the end of the last, the pilot apart: without what Python takes to start."""
    records = [one for one in instance.get_run_records() if one.dagster_run.job_name != PILOT]
    return max(one.end_time or 0.0 for one in records) - min(one.start_time or math.inf for one in records)


def dasd(home: Path, *words: str) -> str:
    """What a command prints, in a home of its own."""
    environment = {**os.environ, "DASD_HOME": str(home), "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
    command = [sys.executable, "-m", "dasd_assets.cli", *words]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def page(plan: dict, seconds: dict[str, float], rows: dict[str, int], wall: float, num_pilot: int) -> str:
    """The section: in all, then the stages that took longest, then the tables that were foretold worst."""
    total, planned = plan["seconds"], {one["stage"]: one["seconds"] for one in plan["stages"]}
    lines = [
        "## Plans: a pilot against the run",
        "",
        f"The demo, {plan['num_questions']:,.0f} questions, by a pilot of {num_pilot}; intervals of 90 %.",
        "",
    ]
    of_all = [["in all", total["value"], interval(total), wall, ratio(total["value"], wall)]]
    longest = sorted(seconds, key=lambda name: -seconds[name])[:SHOWN]
    of_stages = [
        [
            name,
            planned[name]["value"],
            interval(planned[name]),
            seconds[name],
            ratio(planned[name]["value"], seconds[name]),
        ]
        for name in longest
        if name in planned
    ]
    lines += [table(["seconds", "foretold", "interval", "real", "foretold / real"], of_all + of_stages)]
    off = {name: plan["rows"][name]["value"] / max(num, 1) for name, num in rows.items()}
    missed = [name for name, share in off.items() if abs(share - 1) > BAR]
    worst = sorted(off, key=lambda name: -abs(off[name] - 1))[:5]
    shown = [[name, plan["rows"][name]["value"], interval(plan["rows"][name]), rows[name], off[name]] for name in worst]
    lines += [table(["rows", "foretold", "interval", "real", "foretold / real"], shown)]
    within = f"{len(off) - len(missed)} of {len(off)} tables have within {100 * BAR:.0f} % of the rows foretold"
    lines += [f"{within}{': not ' + ', '.join(missed) if missed else ''}."]
    return "\n".join(lines)


def ratio(foretold: float, real: float) -> str:
    share = foretold / real
    return f"{share:.2f} × (bar 1 ± {BAR}{'' if abs(share - 1) <= BAR else ', MISSED'})"


def interval(number: dict[str, float]) -> str:
    return f"{number['low']:,.3g} – {number['high']:,.3g}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pilot", type=int, nargs="?", default=NUM_PILOT)
    parser.add_argument("questions", type=int, nargs="?", default=NUM_QUESTIONS)
    parser.add_argument("--home", type=Path)
    given = parser.parse_args()
    main(given.pilot, given.questions, given.home)
