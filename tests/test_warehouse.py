import multiprocessing
from pathlib import Path

import duckdb
import polars as pl
import pytest

from dasd_resources.warehouse import Warehouse, attach


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(home=str(tmp_path / "home"))


def cuts(*ids: str, token: int = 1) -> pl.DataFrame:
    return pl.DataFrame(
        {"rollout_id": ids, "cut_token": [token] * len(ids), "seed": [0] * len(ids), "cut_version": ["1"] * len(ids)}
    )


def append(warehouse: Warehouse, *ids: str) -> int:
    with warehouse.commit("test") as transaction:
        return transaction.append_missing("prefix_cuts", ("rollout_id",), cuts(*ids))


def present(warehouse: Warehouse, at: int | None = None) -> list[str]:
    return warehouse.read("SELECT rollout_id FROM prefix_cuts ORDER BY ALL", at=at)["rollout_id"].to_list()


def test_only_missing_keys_are_appended(warehouse: Warehouse) -> None:
    assert append(warehouse, "a", "b", "a") == 2
    assert append(warehouse, "b", "c") == 1
    assert present(warehouse) == ["a", "b", "c"]


def test_an_error_leaves_nothing_behind(warehouse: Warehouse) -> None:
    append(warehouse, "a")
    with pytest.raises(KeyError), warehouse.commit("test") as transaction:
        transaction.replace("prefix_cuts", {"rollout_id": "a"}, cuts("b"))
        raise KeyError
    assert present(warehouse) == ["a"]


def test_a_snapshot_is_read_as_it_was_and_says_who_made_it(warehouse: Warehouse) -> None:
    append(warehouse, "a")
    then = warehouse.snapshot_id()
    with warehouse.commit("the replacement") as transaction:
        transaction.replace("prefix_cuts", {"cut_version": "1"}, cuts("b"))
    assert (present(warehouse, at=then), present(warehouse)) == (["a"], ["b"])
    messages = warehouse.read("SELECT commit_message FROM dasd.snapshots() ORDER BY snapshot_id DESC")
    assert messages["commit_message"][0] == "the replacement"


def test_a_reader_beside_an_open_commit_sees_the_old_state(warehouse: Warehouse) -> None:
    append(warehouse, "a")
    with warehouse.commit("test") as transaction:
        transaction.append_missing("prefix_cuts", ("rollout_id",), cuts("b"))
        assert present(warehouse) == ["a"]
    assert present(warehouse) == ["a", "b"]


def test_reads_cannot_write(warehouse: Warehouse) -> None:
    append(warehouse, "a")
    with pytest.raises(duckdb.Error, match="read-only"):
        warehouse.read("DELETE FROM prefix_cuts")
    assert present(warehouse) == ["a"]


def test_numbers_and_texts_come_back_exactly(warehouse: Warehouse) -> None:
    text, total = "a'b\"\n😀\\ \t和", -1 / 3
    row = {"response_id": "r", "batch": text, "filter": text, "passed": True, "filter_version": str(total)}
    score = {"response_id": "r", "batch": "b", "student_fingerprint": "s", "score_name": "n", "score": total}
    with warehouse.commit("test") as transaction:
        transaction.append_missing("response_verdicts", ("response_id",), pl.DataFrame([row]))
        scores = pl.DataFrame([{**score, "num_sentences": 1, "threshold_version": "v"}])
        transaction.append_missing("response_scores", ("response_id",), scores)
    assert warehouse.read("SELECT filter FROM response_verdicts").item() == text
    assert warehouse.read("SELECT score FROM response_scores").item() == total


def test_a_newer_schema_is_refused(warehouse: Warehouse) -> None:
    append(warehouse, "a")
    with attach(warehouse.catalog) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99)")
    moved = Path(warehouse.home).rename(Path(warehouse.home).with_name("moved"))
    with pytest.raises(RuntimeError, match="schema version 99; this release knows 1: upgrade"):
        Warehouse(home=str(moved)).migrate()


def test_a_home_can_be_moved(warehouse: Warehouse) -> None:
    append(warehouse, *[f"r{i:04d}" for i in range(2000)])
    moved = Path(warehouse.home).rename(Path(warehouse.home).with_name("moved"))
    assert len(present(Warehouse(home=str(moved)))) == 2000


def write_many(home: str, name: str) -> None:
    for number in range(5):
        append(Warehouse(home=home), f"{name}{number}", f"both{number}")


def test_processes_that_write_at_once_lose_and_double_nothing(warehouse: Warehouse) -> None:
    warehouse.migrate()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(warehouse.home, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert present(warehouse) == sorted(f"{name}{number}" for name in ("a", "b", "both") for number in range(5))


def die_inside_a_commit(home: str) -> None:
    import os
    import signal

    with Warehouse(home=home).commit("test") as transaction:
        transaction.append_missing("prefix_cuts", ("rollout_id",), cuts(*[f"r{i}" for i in range(3000)]))
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_inside_a_commit_leaves_the_table_whole(warehouse: Warehouse) -> None:
    append(warehouse, "a")
    process = multiprocessing.get_context("spawn").Process(target=die_inside_a_commit, args=(warehouse.home,))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert present(warehouse) == ["a"]
    assert append(warehouse, "b") == 1
