"""What an unfriendly file name, a run's configuration or a key in the environment must not be able to do."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, prompt_rows

from dasd_assets.partitions import batches
from dasd_resources.demo.questions import write_rows
from dasd_resources.lake import Lake
from dasd_resources.landing_folder import LandingFolder

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
    project.materialize("prompts")
    with project.instance() as instance:
        keys = batches(instance)
    assert len(keys) == len(landed.files())
    assert all(len(key) <= 77 and not set(key) & set("/\\\n' $") and ".." not in key for key in keys)
    assert project.count("prompts") == len(keys)
    assert project.read("SELECT count(*) FROM prompts WHERE source_file LIKE '%link%'").item() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "secret.jsonl"]


def test_no_secret_of_the_environment_reaches_anything_that_is_kept(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs with keys in the environment, engine failures and a failed run: every file, every cell, every log."""
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "TEACHER_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    project.land("a.jsonl", prompt_rows(0, 6))
    project.fake.fails = lambda request_id: request_id.startswith("0")
    project.materialize("*checkpoint_stage1")
    project.land("b.jsonl", prompt_rows(6, 9))
    project.fake.crash_after = len(project.fake.generated) + len(project.fake.scored) + 2
    with pytest.raises(RuntimeError, match="crashed"):
        project.materialize("prompts,teacher_generations_t060")
    kept = [path for path in project.home.rglob("*") if path.is_file()]
    assert len(kept) > 20
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]
    assert not [table for table, text in cells(project.home) if KEY in text]
    assert KEY not in "".join((*capfd.readouterr(), *project.said))


def cells(home: Path) -> Iterator[tuple[str, str]]:
    """Every table's rows as text: Parquet files are compressed."""
    lake = Lake(home=str(home))
    for table in lake.read("SELECT table_name FROM duckdb_tables() WHERE database_name = 'dasd'")["table_name"]:
        yield table, str(lake.read(f"SELECT * FROM {table}").rows())


def test_the_search_finds_a_key_that_is_in_a_table(project: Project) -> None:
    project.land("a.jsonl", [{**prompt_rows(0, 1)[0], "metadata": {"key": KEY}}])
    project.materialize("prompts")
    assert [table for table, text in cells(project.home) if KEY in text] == ["prompts"]
