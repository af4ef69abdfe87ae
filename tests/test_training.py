"""Stages and checkpoint ids, and which checkpoints are of the current chain."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from conftest import Fake, Project, change

from dasd_assets.commands.run import RunFailed
from dasd_assets.records.current_checkpoint import registration_time
from dasd_assets.records.recipe_document import described
from dasd_assets.rules.checkpoints import current_checkpoints, stage, trained_names
from dasd_assets.rules.ids import checkpoint_id
from dasd_assets.stage_training import Seen, Stage, _write_rows, register, seen_examples, training_version
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.sft.checkpoint import Progress, Trained
from dasd_resources.sft.trainer import SftJob
from dasd_resources.storage.warehouse import Row, Warehouse

RECIPE = load_recipe("demo")


def changed(part: str, **values: object) -> Recipe:
    return RECIPE.model_copy(update={part: getattr(RECIPE, part).model_copy(update=values)})


def test_stages_go_from_the_lowest_temperature_to_the_mixed_policy() -> None:
    assert trained_names(RECIPE) == ("t060", "t100", "mixed")
    one = changed("generation", temperatures=(1.0,))
    assert trained_names(one) == ("t100", "mixed")
    names = ("teacher", "student", "t100", "mixed")
    assert [stage(RECIPE, name) for name in names] == [None, 0, 2, 3]
    assert [stage(one, name) for name in names] == [None, 0, 1, 2]


def test_the_mixed_policy_stage_has_its_own_epochs() -> None:
    assert [RECIPE.epochs(dataset) for dataset in ("t060", "t100", "mixed")] == [8, 8, 4]


def test_a_version_changes_with_the_settings_of_its_stage_alone() -> None:
    fewer = changed("mixed_policy", epochs=3)
    assert training_version(fewer, "t060") == training_version(RECIPE, "t060")
    assert training_version(fewer, "mixed") != training_version(RECIPE, "mixed")
    for same in (changed("selection", score="sum_log_token"), changed("evaluation", top_p=0.9)):
        assert training_version(same, "t060") == training_version(RECIPE, "t060")
    others = [
        changed("training", learning_rate=1e-3),
        changed("training", epochs=9),
        changed("student", dtype="bfloat16"),
        RECIPE.model_copy(update={"seed": 43}),
    ]
    versions = [training_version(recipe, "t060") for recipe in (RECIPE, *others)]
    assert len(set(versions)) == 5


def test_a_record_does_not_tell_where_prompts_land() -> None:
    document = described(changed("automation", landing="sftp://me@host/secret"))
    assert "secret" not in str(document)
    assert Recipe.model_validate_json(json.dumps(document)).automation == RECIPE.automation


def test_an_id_changes_with_parent_examples_and_settings_alone() -> None:
    first = checkpoint_id("c0", ["e1", "e2"], "v1")
    assert first == checkpoint_id("c0", ["e2", "e1"], "v1")
    others = [
        checkpoint_id("c1", ["e1", "e2"], "v1"),
        checkpoint_id("c0", ["e1"], "v1"),
        checkpoint_id("c0", ["e1", "e2", "e2"], "v1"),
        checkpoint_id("c0", ["e1", "e2"], "v2"),
    ]
    assert len({first, *others}) == 5
    assert len(first) == 16


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(home=str(tmp_path))


def row(checkpoint: str, name: str, parent: str | None = None, age: int = 0, recipe: str = "demo") -> Row:
    """A `checkpoints` row; age: hours since it was materialized."""
    return {
        "checkpoint_id": checkpoint,
        "recipe": recipe,
        "name": name,
        "parent_checkpoint_id": parent,
        "path": f"/{checkpoint}",
        "content_hash": checkpoint,
        "materialized_at": datetime(2026, 1, 2, tzinfo=UTC) - timedelta(hours=age),
    }


def chain(warehouse: Warehouse, *rows: Row) -> list[str]:
    with warehouse.commit("test") as transaction:
        table = pl.DataFrame(rows, infer_schema_length=None)
        transaction.append_missing("checkpoints", table)
    return current_checkpoints(warehouse, RECIPE)["checkpoint_id"].to_list()


MODELS = (row("T", "teacher"), row("S", "student"))


def test_the_chain_descends_from_the_student(warehouse: Warehouse) -> None:
    rows = [row("c3", "mixed", "c2"), row("c1", "t060", "S"), row("c2", "t100", "c1"), *MODELS]
    assert chain(warehouse, *rows) == ["T", "S", "c1", "c2", "c3"]


def test_the_newest_of_a_stage_counts_and_stages_of_its_forerunner_do_not(warehouse: Warehouse) -> None:
    rows = [row("old1", "t060", "S", age=2), row("c1", "t060", "S"), row("old2", "t100", "old1", age=1)]
    assert chain(warehouse, *MODELS, *rows) == ["T", "S", "c1"]


def test_a_stage_that_was_trained_again_replaces_the_one_before(warehouse: Warehouse) -> None:
    rows = [row("old1", "t060", "S", age=3), row("old2", "t100", "old1", age=2)]
    assert chain(warehouse, *MODELS, *rows) == ["T", "S", "old1", "old2"]
    again = [row("c1", "t060", "S", age=1), row("c2", "t100", "c1")]
    assert chain(warehouse, *again) == ["T", "S", "c1", "c2"]


def test_a_new_student_leaves_every_stage_behind(warehouse: Warehouse) -> None:
    assert chain(warehouse, *MODELS, row("c1", "t060", "S"), row("S2", "student", age=-1)) == ["T", "S2"]


def test_what_is_trained_after_the_clock_was_set_back_is_of_the_chain(warehouse: Warehouse, tmp_path: Path) -> None:
    """A day before the one that it replaces."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    old = {**row("old", "t060", "S"), "dataset": "t060", "materialized_at": tomorrow}
    sources = {"example_id": ["e"], "prompt_id": ["p"], "response_id": ["r"], "continuation_id": [None]}
    seen = Seen(pl.DataFrame({**sources, "dataset_id": ["d"]}, schema_overrides={"continuation_id": pl.String}), 1)
    example = {"recipe": "demo", "dataset": "t060", "policy": "das", "example_id": "e", "dataset_id": "d"}
    with warehouse.commit("test") as transaction:
        tokens = {"input_ids": [1, 2], "labels": [-100, 2]}
        transaction.append_missing("sft_examples", pl.DataFrame([{**example, **tokens}]))
    assert chain(warehouse, *MODELS, old) == ["T", "S", "old"]
    job = SftJob("new", tmp_path, tmp_path / "rows", RECIPE.training, 1, 42, tmp_path / "new", {"environment": {}})
    trained = Trained(tmp_path / "new", "h", [Progress(1, 1, 0.5, 0.1, 10)], 1.0, 1, 1, 1)
    register(warehouse, "test", Stage(RECIPE, "t060", 1, "t060", "das", "S", "/S"), job, trained, seen)
    assert current_checkpoints(warehouse, RECIPE)["checkpoint_id"].to_list() == ["T", "S", "new"]
    with warehouse.commit("test") as transaction:
        assert registration_time(transaction, "demo", "t060") == tomorrow + timedelta(microseconds=2)
        assert registration_time(transaction, "demo", "t100") < tomorrow


def test_two_runs_that_train_one_stage_may_write_its_rows_at_once(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = {"example_id": "e", "input_ids": [1, 2], "labels": [-100, 2]}
    key = {"recipe": "demo", "dataset": "t060", "policy": "das", "dataset_id": "d"}
    with warehouse.commit("test") as transaction:
        transaction.append_missing("sft_examples", pl.DataFrame([{**key, **example}]))
    seen, file = seen_examples(warehouse, "demo", "t060"), tmp_path / "rows" / "c.rows.parquet"
    file.parent.mkdir()
    write = partial(_write_rows, warehouse, Stage(RECIPE, "t060", 1, "t060", "das", "S", "/S"), seen, file)

    class Overtaken(pq.ParquetWriter):
        def __init__(self, *args: object, **settings: object) -> None:
            super().__init__(*args, **settings)
            monkeypatch.undo()
            write()

    monkeypatch.setattr(pq, "ParquetWriter", Overtaken)
    write()
    assert list(file.parent.iterdir()) == [file]
    assert pl.read_parquet(file).to_dicts() == [example]


def test_other_recipes_have_their_own_chains(warehouse: Warehouse) -> None:
    others = [row("O", "student", recipe="other"), row("c9", "t060", "O", recipe="other")]
    assert chain(warehouse, *MODELS, row("c1", "t060", "S", age=5), *others) == ["T", "S", "c1"]


def test_a_gap_ends_the_chain(warehouse: Warehouse) -> None:
    assert chain(warehouse, *MODELS, row("c2", "t100", "c1")) == ["T", "S"]


def test_an_empty_warehouse_has_an_empty_chain_with_its_columns(warehouse: Warehouse) -> None:
    found = current_checkpoints(warehouse, RECIPE)
    assert found.is_empty()
    assert {"checkpoint_id", "name", "stage", "path"} <= set(found.columns)


@pytest.mark.parametrize(
    ("asset", "told"),
    [
        ("checkpoint_t060", "no current checkpoint of student: materialize student_model first"),
        ("checkpoint_t100", "no current checkpoint of t060: materialize checkpoint_t060 first"),
        ("checkpoint_mixed", "no current checkpoint of t100: materialize checkpoint_t100 first"),
        ("student_rollouts", "no current checkpoint of t100: materialize checkpoint_t100 first"),
    ],
)
def test_a_stage_without_its_parent_says_what_to_make_first(project: Project, asset: str, told: str) -> None:
    with pytest.raises(RunFailed, match=told):
        project.materialize(asset)


class Dying(Fake):
    """A training that is killed at its first attempt, and remembers the rows of each."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[Path, bytes, int]] = []

    def train(self, job: SftJob, on_progress: Callable[[Progress], None]) -> Trained:
        self.rows.append((job.rows, job.rows.read_bytes(), job.rows.stat().st_ino))
        if len(self.rows) == 1:
            raise RuntimeError("killed")
        return super().train(job, on_progress)


def test_a_second_attempt_trains_on_the_very_file_of_the_first(copy: Project) -> None:
    copy.recipe, dying = change(copy.recipe, "training.epochs", 9), Dying()
    copy.fake = dying
    with pytest.raises(RunFailed, match="killed"):
        copy.materialize("checkpoint_t060")
    copy.materialize("checkpoint_t060")
    first, second = dying.rows
    assert first == second
    table = pl.read_parquet(BytesIO(first[1]))
    query = """SELECT example_id, input_ids, labels FROM sft_examples
        WHERE dataset = 't060' AND policy = 'das' ORDER BY example_id"""
    assert table.equals(copy.read(query))
    assert not first[0].exists()  # gone with the training
