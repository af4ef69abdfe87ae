"""The soak: everything that may use a home at once, for ten minutes, while any of it is killed and started again.

Three `dasd run`, the service, readers, backups and maintenance; files land whole, and one is written all the time. At
the end the tables are those of an undisturbed run. DASD_SOAK_SECONDS sets how long it takes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import quantiles
from threading import Event, Thread

import polars as pl
import pytest
from conftest import Project, change, prompt_rows
from reliability import record
from soak_reader import EXPIRED
from test_drill import check_nothing_is_left, free_port, is_up_to_date, recipe_file, tables, undisturbed_run

from dasd_resources.demo.questions import QuestionRow, write_rows
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.backup import complete_backups

SECONDS = float(os.environ.get("DASD_SOAK_SECONDS", "600"))
TO_END = 20.0  # seconds within which what a process has started ends with it
SETTLING = 1200.0  # seconds that the end may take at most: a step that is a process takes ten of them to begin
SETTLED_SECONDS = 10.0
# Not killed, and yet not ended with 0: what a user is told to expect.
DOCUMENTED = ("a backup or another maintenance is running", "run `dasd run` first", "a home that `dasd run` has made")
# Rows of a checkpoint that a later dataset has superseded stay; tables without them are the same to the row.
OF_CHECKPOINTS = {
    "checkpoints": "checkpoint_id",
    "checkpoint_examples": "checkpoint_id",
    "student_rollouts": "checkpoint_id",
    "evaluations": "checkpoint_id",
    "prefix_cuts": "rollout_id",
    "teacher_continuations": "rollout_id",
    "continuation_tokens": "continuation_id",
    "continuation_verdicts": "continuation_id",
}
SERVICE, RUN = "service", "run"
MARK = "DASD_DRILL_ROLE"


@dataclass
class Role:
    """A command that is started again a while after each end.

    ends: exit code, seconds and output of those that were not killed.
    """

    name: str
    command: Callable[[], Sequence[str]]
    pause: float
    weight: int = 1  # in the choice of what to kill
    process: "subprocess.Popen[bytes] | None" = None
    killed: bool = False  # since it was started
    changed_at: float = 0.0  # when it was started, or its last process ended
    left_at: float | None = None  # when its first process ended; others of it may not have yet
    ends: list[tuple[int, float, str]] = field(default_factory=list)
    num_starts: int = 0

    @property
    def mark(self) -> str:
        return f"{self.name}-{self.num_starts}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass(frozen=True)
class Pace:
    """between_kills: the least and the most seconds."""

    seed: int
    num_runs: int
    between_kills: tuple[float, float]


@dataclass
class Soak:
    """The roles on one home, and what was done to them."""

    project: Project
    folder: Path
    recipe: Path
    pace: Pace
    roles: list[Role] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    left_behind: list[str] = field(default_factory=list)  # processes that outlived the one that started them

    def __post_init__(self) -> None:
        self.rng = Random(self.pace.seed)

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "DASD"))}
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        return {**clean, "PYTHONPATH": path, "DASD_HOME": str(self.project.home), "DASD_RECIPE": str(self.recipe)}

    def output(self, role: Role) -> Path:
        return self.folder / f"{role.name}-{role.num_starts}.log"

    def start(self, role: Role) -> None:
        role.num_starts, role.killed, role.left_at, role.changed_at = role.num_starts + 1, False, None, time.monotonic()
        with self.output(role).open("wb") as log:
            command = [sys.executable, *role.command()]
            role.process = subprocess.Popen(
                command, env={**self.environment, MARK: role.mark}, stdout=log, stderr=log, start_new_session=True
            )

    def look(self, may_start: bool) -> None:
        """Note which roles have ended, and start those that have paused."""
        for role in self.roles:
            if role.process is not None and role.process.poll() is not None:
                self.end(role)
            elif role.process is None and may_start and time.monotonic() - role.changed_at > role.pause:
                self.start(role)

    def end(self, role: Role) -> None:
        """Note how a role's first process ended, and what it has left that does not end by itself."""
        assert role.process is not None and role.process.returncode is not None
        code, now = role.process.returncode, time.monotonic()
        if role.left_at is None:
            role.left_at = now
            if not role.killed:
                role.ends.append((code, now - role.changed_at, self.output(role).read_text(errors="replace")))
        if code == -signal.SIGKILL and role.name == SERVICE:
            kill_marked(role)  # as who supervises it has to: no process can end others when it is killed itself
        left = marked(MARK, role.mark)
        if left and now - role.left_at > TO_END:
            self.left_behind += [f"{role.name} ({code}): {command_text(pid)}" for pid in left]
            kill_marked(role)
        elif not left:
            role.process, role.changed_at = None, now

    def kill(self) -> None:
        """A random process of a random role; of the service also all at once."""
        running = [role for role in self.roles if role.is_running]
        if not running:
            return
        [role] = self.rng.choices(running, [role.weight for role in running])
        assert role.process is not None
        leader, members = role.process.pid, marked(MARK, role.mark)
        sent = self.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        role.killed = True
        if sent == signal.SIGKILL and self.rng.random() < 0.3:
            kill_marked(role)
            self.kills[f"{role.name} whole"] += 1
            return
        victim = self.rng.choice(members or [leader])
        with suppress(ProcessLookupError):
            os.kill(victim, sent)
        part = "" if victim == leader else " part"
        self.kills[f"{role.name}{part} {sent.name}"] += 1

    def of(self, name: str) -> list[Role]:
        return [role for role in self.roles if role.name.startswith(name)]


def command_text(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return "ended"


def kill_marked(role: Role) -> None:
    """All of a role's processes, until there is no more: one may be starting another."""
    while members := marked(MARK, role.mark):
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def marked(name: str, value: str) -> list[int]:
    """Every living process that has this variable in its environment: what a process starts inherits it."""
    found, wanted = [], f"\0{name}={value}\0".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # of a process that has ended, there is nothing to read
            if wanted in b"\0" + environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


def roles(soak: Soak) -> list[Role]:
    """What uses the home, and how long each rests."""
    home, port = soak.project.home, free_port()
    backups, audits = soak.folder / "backups", iter_audits(soak)
    dasd = ("-m", "soak_cli")
    return [
        *[Role(f"{RUN}{number}", lambda: (*dasd, "run"), 1.0, weight=2) for number in range(soak.pace.num_runs)],
        Role(SERVICE, lambda: (*dasd, "ui", "--port", str(port)), 0.0, weight=4),
        Role("maintenance", lambda: (*dasd, "run", "--select", "maintenance"), 15.0),
        Role("backup", lambda: ("-m", "dasd_assets.cli", "backup", str(backups)), 15.0),
        Role("reader", lambda: ("-m", "soak_reader", str(home), str(soak.folder / "reads.jsonl")), 0.0),
        Role("audit", lambda: ("-m", "dasd_assets.cli", *next(audits)), 2.0),
    ]


def iter_audits(soak: Soak) -> Iterator[Sequence[str]]:
    """The commands that only read, in turn."""
    lake = soak.project.warehouse
    while True:
        yield ("sql", "SELECT count(*) AS n FROM responses", "--json")
        yield ("audit", "staleness")
        for kind, query in {
            "response": "SELECT min(response_id) FROM responses",
            "checkpoint": "SELECT max(checkpoint_id) FROM checkpoints WHERE stage > 0",
            "prompt": "SELECT min(prompt_id) FROM prompts",
        }.items():
            if identity := lake.read(query).item():
                yield ("audit", kind, identity)


def land(soak: Soak, name: str, rows: Sequence[QuestionRow]) -> None:
    """Whole at once, by a rename."""
    path = soak.project.home / "prompts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(soak.folder / name, list(rows))
    (soak.folder / name).rename(path)


@contextmanager
def writing(path: Path, rows: Sequence[QuestionRow], seconds: float) -> Iterator[None]:
    """A file that grows all the time, by less than a line at a time, and is whole at the end."""
    whole, ended = path.with_name(f".{path.name}"), Event()
    write_rows(whole, list(rows))
    content, steps = whole.read_bytes(), max(int(seconds), 1)
    whole.unlink()

    def write() -> None:
        with path.open("wb", buffering=0) as stream:
            for step in range(steps):
                stream.write(content[step * len(content) // steps : (step + 1) * len(content) // steps])
                ended.wait(1.0)

    assert len(content) > steps
    writer = Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def soak_for(soak: Soak, landed: Mapping[str, Sequence[QuestionRow]], slow: Sequence[QuestionRow]) -> None:
    """Everything at once: roles kept running, files landing, kills at random moments."""
    begun, waiting = time.monotonic(), list(landed)
    next_kill, every = begun + 15, SECONDS / len(landed)
    land(soak, waiting[0], landed[waiting.pop(0)])
    with writing(soak.project.home / "prompts" / "slow.jsonl", slow, SECONDS):
        while (elapsed := time.monotonic() - begun) < SECONDS:
            soak.look(may_start=True)
            if waiting and elapsed > every * (len(landed) - len(waiting)):
                land(soak, waiting[0], landed[waiting.pop(0)])
            if time.monotonic() > next_kill:
                soak.kill()
                next_kill = time.monotonic() + soak.rng.uniform(*soak.pace.between_kills)
            time.sleep(0.1)
    assert waiting == []


def settle(soak: Soak, last: Sequence[QuestionRow]) -> None:
    """All but the service are killed once more; it alone makes what is left, and a last batch."""
    [service] = soak.of(SERVICE)
    for role in soak.roles:
        if role is not service and role.process is not None:
            role.killed = True
            kill_marked(role)
    soak.look(may_start=False)
    soak.roles, deadline = [service], time.monotonic() + SETTLING
    land(soak, "then.jsonl", last)
    settled_since = time.monotonic()
    while time.monotonic() - settled_since < SETTLED_SECONDS:
        soak.look(may_start=True)
        time.sleep(1)
        if not has_landed(soak.project, "then") or not is_up_to_date(soak.project):
            settled_since = time.monotonic()
        assert time.monotonic() < deadline, f"the service does not finish: {soak.output(service).read_text()[-3000:]}"


def has_landed(project: Project, name: str) -> bool:
    return bool(project.read("SELECT count(*) FROM prompts WHERE starts_with(batch, $name)", name=name).item())


def stop_service(soak: Soak) -> None:
    """One SIGTERM ends all of it."""
    [service] = soak.roles
    assert service.process is not None
    service.killed = True
    service.process.terminate()
    while service.process is not None:
        soak.look(may_start=False)
        time.sleep(0.1)


def check_same_as_undisturbed(project: Project, undisturbed: Project) -> None:
    """Equal to the row, but for what belongs to checkpoints that later datasets have superseded."""
    ours, theirs = tables(project.home), tables(undisturbed.home)
    for name, column in OF_CHECKPOINTS.items():
        ours[name] = ours[name].join(theirs[name].select(column).unique(), on=column, how="semi")
        ours[name] = ours[name].sort(ours[name].columns)
    different = [name for name in theirs if not ours[name].equals(theirs[name])]
    assert {name: shown(ours[name], theirs[name]) for name in different} == {}
    assert not ours["responses"].is_empty() and not ours["sft_examples"].is_empty()


def shown(ours: pl.DataFrame, theirs: pl.DataFrame) -> tuple[int, int, str]:
    """The numbers of rows, and a few that only one side has."""
    plain = [rows.with_columns(pl.all().cast(pl.String, strict=False)) for rows in (ours, theirs)]
    only = [a.join(b, on=a.columns, how="anti", nulls_equal=True).head(2) for a, b in (plain, plain[::-1])]
    return ours.height, theirs.height, str([rows.to_dicts() for rows in only])[:2000]


def run_cli(soak: Soak, home: Path, *arguments: str) -> None:
    environment = {**soak.environment, "DASD_HOME": str(home)}
    command = [sys.executable, "-m", "dasd_assets.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def check_readers(soak: Soak) -> str:
    """No error but those documented, never too few rows; returns the latencies, as a phrase."""
    lines = [json.loads(line) for line in (soak.folder / "reads.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["fault"] not in ("", EXPIRED)] == []
    phrases = [f"{len(lines)} reads, {sum(line['fault'] == EXPIRED for line in lines)} of expired snapshots"]
    for name in sorted({line["read"] for line in lines}):
        phrases.append(f"{name} {spread([line['seconds'] for line in lines if line['read'] == name])}")
    return "; ".join(phrases)


def spread(seconds: Sequence[float]) -> str:
    cut = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [*seconds] * 99
    return f"p50 {cut[49]:.2f}, p99 {cut[98]:.2f}, max {max(seconds):.2f} s"


def surprises(roles: Sequence[Role]) -> list[str]:
    """Commands that were not killed and did not succeed, but for reasons that are documented."""
    return [
        f"{role.name} ended with {code} after {seconds:.0f} s: {output[-1500:]}"
        for role in roles
        for code, seconds, output in role.ends
        if role.name != SERVICE and code != 0 and not any(reason in output for reason in DOCUMENTED)
    ]


@pytest.mark.drill
def test_everything_at_once_under_kills_ends_as_if_undisturbed(tmp_path: Path, tiny: Recipe) -> None:
    soak = new_soak(tmp_path, change(tiny, "name", "soak"), Pace(14, num_runs=3, between_kills=(4.0, 12.0)))
    latency = soak_and_compare(soak, tmp_path)
    record_soak("soak", soak, "test_everything_at_once_under_kills_ends_as_if_undisturbed", latency)


@pytest.mark.drill
def test_where_each_step_is_a_process_too(tmp_path: Path, tiny: Recipe) -> None:
    """As under vLLM: a step takes seconds before it begins, so fewer of them are killed."""
    recipe = change(change(tiny, "name", "soak"), "teacher.engine", "vllm")
    soak = new_soak(tmp_path, recipe, Pace(15, num_runs=1, between_kills=(6.0, 24.0)))
    latency = soak_and_compare(soak, tmp_path)
    record_soak("soak, steps as processes", soak, "test_where_each_step_is_a_process_too", latency)


def new_soak(folder: Path, recipe: Recipe, pace: Pace) -> Soak:
    """An empty home, and everything that will use it."""
    file = recipe_file(folder, recipe, "* * * * *")
    soak = Soak(Project(folder / "home", load_recipe(str(file))), folder / "roles", file, pace)
    soak.folder.mkdir()
    (soak.project.home / "prompts").mkdir(parents=True)
    soak.roles = roles(soak)
    return soak


def soak_and_compare(soak: Soak, folder: Path) -> str:
    """All of it; returns the readers' latencies. The order of the names is that of landing, which selections keep."""
    landed = {f"b{n:02}.jsonl": prompt_rows(2 * n, 2 * n + 2) for n in range(max(3, round(SECONDS / 60)))}
    slow, last, everyone = prompt_rows(100, 103), prompt_rows(103, 105), soak.roles
    try:
        soak_for(soak, landed, slow)
        settle(soak, last)
        stop_service(soak)
        assert marked("DASD_HOME", str(soak.project.home)) == []
    finally:
        for role in everyone:
            if role.process is not None:
                kill_marked(role)
        report(soak, everyone)
    assert surprises(everyone) == []
    assert soak.left_behind == []
    latency = check_readers(soak)
    assert soak.project.run() == 0
    inputs = {**landed, "slow.jsonl": slow, "then.jsonl": last}
    check_same_as_undisturbed(soak.project, undisturbed_run(folder, soak.project.recipe, inputs))
    check_nothing_is_left(soak.project)
    check_backup(soak, folder / "restored")
    return latency


def check_backup(soak: Soak, home: Path) -> None:
    """The last one, made under kills, is restored, and agrees with itself."""
    run_cli(soak, home, "restore", str(complete_backups(soak.folder / "backups")[-1]))
    run_cli(soak, home, "audit", "verify")


def record_soak(drill: str, soak: Soak, test: str, latency: str) -> None:
    kills = sum(soak.kills.values())
    record(
        drill,
        faults="SIGKILL and SIGTERM of any process of runs, service, readers, backups, maintenance",
        seed=soak.pace.seed,
        tried=kills,
        survived=kills,
        detected=0,
        silent=0,
        command=f"pytest -m drill tests/test_soak.py -k {test}",
        note=f"{SECONDS:.0f} s of kills; {latency}",
    )


def report(soak: Soak, everyone: Sequence[Role]) -> None:
    print(f"\n{dict(sorted(soak.kills.items()))}")
    for role in everyone:
        seconds = [one for code, one, _ in role.ends if code == 0]
        print(f"{role.name}: {role.num_starts} starts, {len(role.ends)} ended by themselves", end="")
        print(f", well in {spread(seconds)}" if seconds else "")
    print(f"left behind: {soak.left_behind}", flush=True)
