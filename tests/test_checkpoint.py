"""Published checkpoints: complete or absent, known by their content, and refused when they are not what they claim."""

import json
from pathlib import Path

import pytest

from dasd_resources.content_hash import content_hash
from dasd_resources.sft.checkpoint import (
    CheckpointError,
    Progress,
    flush,
    publish,
    published,
    put_in_place,
    seconds_trained,
)

RECORD = {"checkpoint_id": "c1", "seconds": 1.5, "num_steps": 2, "num_samples": 3, "num_bins": 3, "parent": "c0"}
LOSSES = [Progress(1, 2, 0.5, 0.1, 10), Progress(2, 2, 0.25, 0.0, 20)]
HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # sha256 of "hello"


def weights(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_text("hello")
    return folder


def test_publishing_moves_weights_losses_and_record(tmp_path: Path) -> None:
    trained = publish(weights(tmp_path / "w"), tmp_path / "c1", RECORD, LOSSES)
    assert not (tmp_path / "w").exists()
    assert trained.content_hash == content_hash({"model.safetensors": HELLO})
    assert (trained.losses, trained.num_steps, trained.num_samples, trained.seconds) == (LOSSES, 2, 3, 1.5)
    assert json.loads((tmp_path / "c1" / "dasd.json").read_text())["parent"] == "c0"
    assert published(tmp_path / "c1", "c1") == trained


def test_seconds_are_those_of_steps_and_not_of_what_lay_between_attempts() -> None:
    night = Progress(2, 2, 0.25, 0.0, 40, tokens_per_second=15.0, time=50_000.0)
    points = [Progress(1, 2, 0.5, 0.1, 10, tokens_per_second=5.0, time=2.0), night]
    assert (seconds_trained(points), seconds_trained(points[1:], 10), seconds_trained(LOSSES)) == (4.0, 2.0, 0)


def test_pickles_are_not_published(tmp_path: Path) -> None:
    (weights(tmp_path / "w") / "training_args.bin").touch()
    with pytest.raises(AssertionError, match=r"training_args\.bin"):
        publish(tmp_path / "w", tmp_path / "c1", RECORD, LOSSES)


def test_a_state_in_folders_of_its_own_is_brought_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tmp_path / "optimizer_0" / "__0_0.distcp"
    shard.parent.mkdir()
    shard.touch()
    synced = list[Path]()
    monkeypatch.setattr("dasd_resources.sft.checkpoint._fsync", synced.append)
    flush(tmp_path)
    assert set(synced) == {shard, shard.parent, tmp_path}


def test_what_is_put_in_place_is_on_disk_before_and_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[tuple[str, bool]]()
    monkeypatch.setattr(
        "dasd_resources.sft.checkpoint._fsync", lambda path: synced.append((path.name, (tmp_path / "c1").exists()))
    )
    publish(weights(tmp_path / "w"), tmp_path / "c1", RECORD, LOSSES)
    assert ("model.safetensors", False) in synced
    assert synced[-2:] == [("w", False), (tmp_path.name, True)]
    synced.clear()
    (tmp_path / "rows").write_text("rows")
    put_in_place(tmp_path / "rows", tmp_path / "c1" / "rows")
    assert [name for name, _ in synced] == ["rows", "c1"]


def test_an_absent_checkpoint_is_none(tmp_path: Path) -> None:
    assert published(tmp_path / "c1", "c1") is None


def test_a_folder_that_is_not_the_checkpoint_is_an_error(tmp_path: Path) -> None:
    publish(weights(tmp_path / "w"), tmp_path / "c1", RECORD, LOSSES)
    with pytest.raises(CheckpointError, match="holds checkpoint c1, not c2; move or delete"):
        published(tmp_path / "c1", "c2")
    (tmp_path / "c1" / "model.safetensors").write_text("hullo")
    with pytest.raises(
        CheckpointError, match=r"are not those that were published \(model\.safetensors\); put them right"
    ):
        published(tmp_path / "c1", "c1")
    (tmp_path / "c1" / "dasd.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no dasd\.json"):
        published(tmp_path / "c1", "c1")


def test_what_others_put_beside_it_is_let_be(tmp_path: Path) -> None:
    trained = publish(weights(tmp_path / "w"), tmp_path / "c1", RECORD, LOSSES)
    (tmp_path / "c1" / "model.gguf").touch()
    (tmp_path / "c1" / ".ipynb_checkpoints").mkdir()
    assert published(tmp_path / "c1", "c1") == trained


@pytest.mark.parametrize("name", ["adapter_config.json", "model-00001-of-00002.safetensors"])
def test_what_could_be_a_part_of_the_model_is_not(tmp_path: Path, name: str) -> None:
    publish(weights(tmp_path / "w"), tmp_path / "c1", RECORD, LOSSES)
    (tmp_path / "c1" / name).touch()
    with pytest.raises(CheckpointError, match=f"not those that were published .{name}.; put them right"):
        published(tmp_path / "c1", "c1")
