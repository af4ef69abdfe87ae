"""A home that was moved or copied is the same home there; a base model that was moved is the same model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Project, change
from old_catalog import old_catalog
from starlette.testclient import TestClient

from dasd_assets.audit.files import file_faults
from dasd_assets.cli import main
from dasd_assets.evaluation.evaluations import chain
from dasd_assets.records.current_checkpoint import folder_of
from dasd_assets.viewer.access import Access
from dasd_assets.viewer.app import create_app
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.storage.connections import attach
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.migrations import MIGRATIONS

ELSEWHERE = "/old/checkout/dasd_resources/demo"


@pytest.fixture
def moved(copy: Project, tmp_path: Path) -> Project:
    """The finished home under another name; there is none where it was."""
    copy.home.rename(tmp_path / "moved")
    return Project(tmp_path / "moved", copy.recipe)


def folders(checkpoints: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[Path]:
    """As `dasd audit checkpoint` names them; none of them may be at fault."""
    found = []
    for checkpoint in checkpoints:
        assert main(["audit", "checkpoint", checkpoint, "--json"]) == 0
        found.append(Path(json.loads(capsys.readouterr().out)["path"]))
    return found


def trained(project: Project) -> list[str]:
    query = "SELECT checkpoint_id FROM checkpoints WHERE dataset IS NOT NULL ORDER BY stage"
    return project.read(query)["checkpoint_id"].to_list()


def test_a_moved_home_has_its_weights_and_nothing_to_do(
    moved: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(moved.home))
    checkpoints = trained(moved)
    assert len(checkpoints) == 3
    expected = [moved.home / "checkpoints" / checkpoint for checkpoint in checkpoints]
    assert folders(checkpoints, capsys) == expected
    assert moved.run() == 0 and moved.fake.trained == []
    assert list(file_faults(moved.warehouse)) == []
    assert moved.faults("checkpoints", "texts of responses", "texts of student_rollouts") == []
    viewer = create_app(Viewer(Lake(home=str(moved.home)), moved.recipe), Access.to("127.0.0.1"))
    page = TestClient(viewer, base_url="http://127.0.0.1:3001").get(f"/checkpoint/{checkpoints[-1]}").text
    assert str(expected[-1]) in page


def test_a_copy_names_its_own_weights_not_the_originals(
    copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Project(tmp_path / "other", copy.recipe)
    shutil.copytree(copy.home, other.home)
    for folder in (copy.home / "checkpoints").iterdir():
        (folder / "model.safetensors").write_bytes(b"changed")
    monkeypatch.setenv("DASD_HOME", str(other.home))
    assert all(folder.parent == other.home / "checkpoints" for folder in folders(trained(other), capsys))
    chained = chain(other.warehouse, other.engines, other.recipe)
    assert {Path(one.spec.model).parent for one in chained[2:]} == {other.home / "checkpoints"}
    assert other.run() == 0


def test_a_moved_base_model_is_found_where_the_recipe_names_it(copy: Project) -> None:
    here = {"teacher": copy.recipe.teacher.model, "student": copy.recipe.student.model}
    before = copy.read("SELECT * EXCLUDE path FROM checkpoints ORDER BY ALL")
    register_elsewhere(copy)
    named = {one.name: one.spec.model for one in chain(copy.warehouse, copy.engines, copy.recipe)}
    assert {role: named[role] for role in here} == here
    student = copy.read("SELECT * FROM checkpoints WHERE name = 'student'").row(0, named=True)
    other = change(copy.recipe, "student.system_prompt", "Another.")  # so it is another model
    assert str(folder_of(copy.warehouse, copy.engines, other, student)) == student["path"] == f"{ELSEWHERE}/student"

    assert copy.run() == 0
    entered = copy.read("SELECT DISTINCT name, path FROM checkpoints WHERE dataset IS NULL")
    assert dict(entered.rows()) == here
    assert copy.read("SELECT * EXCLUDE path FROM checkpoints ORDER BY ALL").equals(before)

    register_elsewhere(copy)
    retrained = Project(copy.home, change(copy.recipe, "training.warmup_ratio", 0.5))
    assert retrained.materialize("checkpoint_t060") == 1
    assert str(retrained.fake.trained[0].model) == here["student"]


def register_elsewhere(project: Project) -> None:
    """The base models as a checkout that is gone by now has registered them."""
    with project.warehouse.commit("registered from another checkout") as transaction:
        transaction.read(f"UPDATE checkpoints SET path = '{ELSEWHERE}/' || name WHERE dataset IS NULL")


def test_paths_of_an_earlier_release_become_relative(tmp_path: Path) -> None:
    old = old_catalog(tmp_path / "old", next(n for n, step in enumerate(MIGRATIONS) if "'checkpoints/' ||" in step))
    columns = "checkpoint_id, recipe, name, dataset, path, content_hash, materialized_at"
    rows = {
        "a": ("t060", "/home/of/before/checkpoints/a", "checkpoints/a"),
        "b": ("t100", "/home/of/before/checkpoints/other", "/home/of/before/checkpoints/other"),
        "S": (None, "/home/of/before/checkpoints/S", "/home/of/before/checkpoints/S"),
    }
    with attach(old.catalog) as connection:
        for checkpoint, (dataset, path, _) in rows.items():
            query = f"INSERT INTO checkpoints({columns}) VALUES ($1, 'r', 'n', $2, $3, 'h', now())"
            connection.execute(query, [checkpoint, dataset, path])
    found = old.read("SELECT checkpoint_id, path FROM checkpoints")
    assert dict(found.rows()) == {checkpoint: row[2] for checkpoint, row in rows.items()}


def test_only_what_lies_in_the_home_is_named_by_its_place_there() -> None:
    lake = Lake(home="/a/home")
    for folder, stored in (("/a/home/checkpoints/x", "checkpoints/x"), ("/a/home2/x", "/a/home2/x")):
        assert lake.stored_path(Path(folder)) == stored
        assert lake.folder(stored) == Path(folder)
