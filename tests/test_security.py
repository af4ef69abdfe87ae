"""What an unfriendly file name, a run's configuration or a key in the environment must not be able to do."""

import json
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path

import dagster as dg
import httpx
import polars as pl
import pytest
from conftest import Fake, FakeEngine, Project, change, prompt_rows
from stub_server import MODEL, Json, Stub, listening

from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.records.partitions import batches
from dasd_resources.chat import Chat
from dasd_resources.demo.questions import write_rows
from dasd_resources.inference.engine import InferenceEngine
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.landing.landing_folder import LandingFolder
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.storage.lake import Lake

KEY = "sk-planted-8f2e71c4"
OVERRIDES = {
    "warehouse": {"home": "/etc"},
    "engines": {"home": "/etc"},
    "train": {"command": "sh"},
    "io_manager": {"base_dir": "/etc"},
}


@pytest.mark.parametrize("resource", OVERRIDES)
def test_no_runs_configuration_can_point_a_resource_elsewhere(project: Project, resource: str) -> None:
    """What the UI's launchpad sends is checked against the job's configuration, whoever sends it."""
    definitions = project.definitions
    config = {"resources": {resource: {"config": OVERRIDES[resource]}}, "loggers": {"console": {}}}
    names = [job.name for job in definitions.jobs or []]
    assert names
    for job in (definitions.resolve_implicit_global_asset_job_def(), *map(definitions.resolve_job_def, names)):
        with pytest.raises(dg.DagsterInvalidConfigError):
            dg.validate_run_config(job, config)


def test_a_run_with_such_a_configuration_fails_before_its_first_step(project: Project) -> None:
    job = project.definitions.resolve_implicit_global_asset_job_def()
    config = {"resources": {"warehouse": {"config": {"home": "/etc"}}}}
    with project.instance() as instance, pytest.raises(dg.DagsterInvalidConfigError):
        job.execute_in_process(run_config=config, asset_selection=[dg.AssetKey("student_model")], instance=instance)
    assert not (project.home / "catalog.sqlite").exists()


NAMES = [
    "..jsonl",
    "...jsonl",
    "-rf ..jsonl",
    "~.jsonl",
    "$(touch pwned).jsonl",
    "a\\..\\b.jsonl",
    "%2e%2e%2fetc.jsonl",
    "line\nbreak.jsonl",
    "‮lnosj.jsonl",
    "名前ﷺ.jsonl",
    "n" * 240 + ".jsonl",
    "batch=x'; DROP TABLE prompts; --.jsonl",
    os.fsdecode(b"\xff\xfe.jsonl"),
]


def test_odd_names_become_plain_batches_inside_the_home(project: Project, tmp_path: Path) -> None:
    folder = project.home / "prompts"
    for index, name in enumerate(NAMES):
        write_rows(folder / "aside.tmp", prompt_rows(index, index + 1))
        (folder / "aside.tmp").rename(folder / name)
    secret = tmp_path / "secret.jsonl"
    write_rows(secret, prompt_rows(100, 101))
    (folder / "link.jsonl").symlink_to(secret)
    (folder / "relative.jsonl").symlink_to(Path("..", "..", "secret.jsonl"))
    os.mkfifo(folder / "pipe.jsonl")
    landed = LandingFolder.of(None, project.home)
    assert len(landed.files()) == len([name for name in NAMES if not name.startswith(".")])
    project.materialize("held_out_questions,prompts")
    with project.instance() as instance:
        keys = batches(instance)
    assert len(keys) == len(landed.files())
    assert all(len(key) <= 77 and not set(key) & set("/\\\n' $") and ".." not in key for key in keys)
    assert project.count("prompts") == len(keys)
    assert project.read("SELECT count(*) FROM prompts WHERE source_file LIKE '%link%'").item() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "secret.jsonl"]


class PartlyFakeEngines(EnvironmentEngines):
    """Served models are asked as they are in earnest, with the environment's keys; others are fake."""

    @contextmanager
    def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
        with super().open(model) if model.spec.server else nullcontext(FakeEngine(model, Fake())) as opened:
            yield opened


class ServedProject(Project):
    """A project whose teacher may be behind a server."""

    @property
    def engines(self) -> Engines:
        return PartlyFakeEngines(home=str(self.home))


def served_teacher(recipe: Recipe, url: str) -> Recipe:
    server = {"base_urls": [url], "model": MODEL, "revision": "1", "api_key_env": "TEACHER_KEY", "max_attempts": 1}
    return change(recipe, "teacher", {**recipe.teacher.model_dump(), "engine": "openai", "server": server})


def test_no_secret_of_the_environment_reaches_anything_that_is_kept(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs with keys in the environment, a server that repeats its key, a failed run: every file, cell and log."""
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "TEACHER_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    project.warns = True  # checks quote reasons
    project.land("a.jsonl", prompt_rows(0, 6))
    project.fake.fails = lambda request_id: request_id.startswith("0")
    project.materialize("*checkpoint_t060")
    project.land("b.jsonl", prompt_rows(6, 9))
    project.fake.crash_after = len(project.fake.generated) + len(project.fake.scored) + 2
    with pytest.raises(RuntimeError, match="crashed"):
        project.materialize("held_out_questions,prompts,teacher_generations_t060")
    stub = Stub(Chat.load(Path(project.recipe.teacher.model), project.recipe.teacher), refuse_some)
    with listening(stub) as url:
        served = ServedProject(project.home, served_teacher(project.recipe, url), warns=True)
        served.materialize("teacher_model,teacher_generations_t060")
    assert {request.headers["authorization"] for request in stub.requests} == {f"Bearer {KEY}"}
    assert served.read("SELECT count(*) FROM failed_requests WHERE contains(reason, '400')").item() > 0
    assert served.read("SELECT count(*) FROM responses WHERE engine = 'openai'").item() > 0
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(RecipeError, match="the environment variable TEACHER_KEY is not set"):
        served.materialize("teacher_generations_t060")
    assert len([path for path in project.home.rglob("*") if path.is_file()]) > 20
    assert holders(project.home) == []
    assert KEY not in "".join((*capfd.readouterr(), *project.said, *served.said))


def refuse_some(request: httpx.Request, reply: Json) -> httpx.Response | None:
    """A quarter of what is asked, with all that was sent."""
    refused = json.loads(request.content).get("seed", 1) % 4 == 0
    return httpx.Response(400, text=f"not with {request.headers}: {KEY}") if refused else None


def holders(home: Path) -> list[str]:
    """The files and tables in which the key is, whatever they are written in."""
    tables = [table for table, text in cells(home) if KEY in text]
    files = [path for path in sorted(home.rglob("*")) if path.is_file()]
    return tables + [str(path.relative_to(home)) for path in files if any(KEY.encode() in told for told in read(path))]


def cells(home: Path) -> Iterator[tuple[str, str]]:
    """Every table's rows as text."""
    lake = Lake(home=str(home))
    for table in lake.read("SELECT table_name FROM duckdb_tables() WHERE database_name = 'dasd'")["table_name"]:
        yield table, str(lake.read(f"SELECT * FROM {table}").rows())


def read(path: Path) -> Iterator[bytes]:
    """A file's bytes and, where these are packed or coded, what they stand for."""
    content = path.read_bytes()
    yield content
    if content.startswith(b"SQLite format 3"):
        yield from values(path)
    elif content.startswith(b"PAR1"):
        yield str(pl.read_parquet(path).rows()).encode()


def values(database: Path) -> Iterator[bytes]:
    """Every value of a database, read from a copy; Dagster deflates some."""
    with tempfile.TemporaryDirectory() as folder:
        for file in database.parent.glob(f"{database.name}*"):  # with its -wal
            shutil.copy(file, folder)
        with closing(sqlite3.connect(Path(folder, database.name))) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for value in chain.from_iterable(connection.execute(f'SELECT * FROM "{table}"')):
                    yield value if isinstance(value, bytes) else str(value).encode()
                    if isinstance(value, bytes):
                        with suppress(zlib.error):
                            yield zlib.decompress(value)


def test_the_search_finds_a_key_wherever_it_is(project: Project) -> None:
    project.land("a.jsonl", [{**prompt_rows(0, 1)[0], "metadata": {"key": KEY}}])
    project.materialize("held_out_questions,prompts")
    almost = [KEY[:cut] + "?" for cut in (12, 6)]  # of which the packed key is made
    pl.DataFrame({"key": [*almost, KEY]}).write_parquet(project.home / "x.parquet", statistics=False)
    with closing(sqlite3.connect(project.home / "x.db")) as connection, connection:
        connection.execute("CREATE TABLE t (packed BLOB)")
        connection.execute("INSERT INTO t VALUES (?)", [zlib.compress(KEY.encode())])
    found = holders(project.home)
    assert "prompts" in found
    assert {"x.parquet", "x.db", "prompts/a.jsonl"} <= set(found)
    for name in ("x.parquet", "x.db"):
        assert KEY.encode() not in (project.home / name).read_bytes()
