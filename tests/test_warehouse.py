import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from threading import Event

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dasd_resources.storage import connections
from dasd_resources.storage.tables import TableError, measured
from dasd_resources.storage.warehouse import Warehouse

pytestmark = pytest.mark.storage


def cuts(*ids: str, token: int = 1) -> pl.DataFrame:
    return pl.DataFrame(
        {"rollout_id": ids, "cut_token": [token] * len(ids), "seed": [0] * len(ids), "cut_version": ["1"] * len(ids)}
    )


def append(warehouse: Warehouse, *ids: str) -> int:
    with warehouse.commit("test") as transaction:
        return transaction.append_missing("prefix_cuts", cuts(*ids))


def present(warehouse: Warehouse, at: int | None = None) -> list[str]:
    return warehouse.read("SELECT rollout_id FROM prefix_cuts ORDER BY ALL", at=at)["rollout_id"].to_list()


def test_only_missing_keys_are_appended(warehouse: Warehouse) -> None:
    assert append(warehouse, "a", "b", "a") == 2
    assert append(warehouse, "b", "c") == 1
    assert present(warehouse) == ["a", "b", "c"]


@pytest.mark.parametrize("num_bytes", [1, 100, 10**6])
def test_many_bytes_are_inserted_some_at_a_time_and_each_key_once(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    monkeypatch.setattr("dasd_resources.storage.lake.BYTES_PER_INSERT", num_bytes)
    append(warehouse, "k0")
    with warehouse.commit("test") as transaction:
        rows = pl.concat([cuts(*(f"k{number}" for number in range(9))), cuts("k4", "k0", "new", token=2)])
        assert transaction.append_missing("prefix_cuts", rows) == 9
        assert transaction.append_missing("prefix_cuts", rows) == 0
    assert present(warehouse) == [*(f"k{number}" for number in range(9)), "new"]
    second = warehouse.read("SELECT rollout_id FROM prefix_cuts WHERE cut_token = 2")["rollout_id"]
    assert second.to_list() == ["new"], "a later copy was inserted in place of the first"


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
        transaction.append_missing("prefix_cuts", cuts("b"))
        assert present(warehouse) == ["a"]
    assert present(warehouse) == ["a", "b"]


def test_rows_are_of_the_snapshot_that_is_named_with_them_whoever_writes(warehouse: Warehouse) -> None:
    append(warehouse, "0")
    found, enough = dict[int, list[str]](), Event()

    def write() -> None:
        for number in count(1):
            append(warehouse, str(number))
            if enough.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while len(found) < 4 and not writing.done():
            rows, snapshot = warehouse.read_latest("SELECT rollout_id FROM prefix_cuts ORDER BY ALL")
            found[snapshot] = rows["rollout_id"].to_list()
        enough.set()
        writing.result()
    assert len(found) == 4
    assert all(present(warehouse, at=snapshot) == rows for snapshot, rows in found.items())


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
        transaction.append_missing("response_verdicts", pl.DataFrame([row]))
        scores = pl.DataFrame([{**score, "num_sentences": 1, "threshold_version": "v"}])
        transaction.append_missing("response_scores", scores)
    assert warehouse.read("SELECT filter FROM response_verdicts").item() == text
    assert warehouse.read("SELECT score FROM response_scores").item() == total


def test_a_home_can_be_moved(warehouse: Warehouse) -> None:
    append(warehouse, *[f"r{i:04d}" for i in range(2000)])
    moved = Path(warehouse.home).rename(Path(warehouse.home).with_name("moved"))
    assert len(present(Warehouse(home=str(moved)))) == 2000


def write_many(home: str, name: str) -> None:
    for number in range(3):
        append(Warehouse(home=home), f"{name}{number}", f"both{number}")


def test_an_interruption_is_passed_on_as_it_came(warehouse: Warehouse) -> None:
    """DuckDB makes an error of it, which a step would fail of."""
    with pytest.raises(KeyboardInterrupt), warehouse.reading():
        raise RuntimeError("Query interrupted") from KeyboardInterrupt()


def test_processes_that_write_at_once_lose_and_double_nothing(warehouse: Warehouse) -> None:
    warehouse.migrate()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(warehouse.home, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert present(warehouse) == sorted(f"{name}{number}" for name in ("a", "b", "both") for number in range(3))


def die_inside_a_commit(home: str) -> None:
    import os
    import signal

    with Warehouse(home=home).commit("test") as transaction:
        transaction.append_missing("prefix_cuts", cuts(*[f"r{i}" for i in range(3000)]))
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_inside_a_commit_leaves_the_table_whole(warehouse: Warehouse) -> None:
    append(warehouse, "a")
    process = multiprocessing.get_context("spawn").Process(target=die_inside_a_commit, args=(warehouse.home,))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert present(warehouse) == ["a"]
    assert append(warehouse, "b") == 1


def test_a_home_with_odd_characters_in_its_name(tmp_path: Path) -> None:
    warehouse = Warehouse(home=str(tmp_path / "it's a home, 100% 漢字"))
    append(warehouse, *[f"r{i:03d}" for i in range(300)])  # enough for a file
    assert len(present(warehouse)) == 300


def failure(request: str, batch: str | None, asset: str = "x") -> dict[str, object]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return {"request_id": request, "asset": asset, "batch": batch, "reason": "r", "failed_at": now}


def keys(warehouse: Warehouse) -> list[tuple[str, str | None, str]]:
    return warehouse.read("SELECT request_id, batch, asset FROM failed_requests ORDER BY ALL NULLS FIRST").rows()


def test_a_batch_looks_for_its_keys_in_its_own_rows(warehouse: Warehouse) -> None:
    with warehouse.commit("test") as transaction:
        for batch in ("b1", "b2", "b1"):
            rows = pl.DataFrame([failure("a", batch)])
            transaction.append_missing("failed_requests", rows, batch)
    assert keys(warehouse) == [("a", "b1", "x"), ("a", "b2", "x")]


def test_what_exceeds_memory_is_spilled_under_the_home(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_idle", [])  # one that has spilled goes on to do so where it did
    append(warehouse, "a")
    home, seen = Path(warehouse.home), set[str]()
    with warehouse.reading() as reading, warehouse.reading() as other:
        folders = {r.read("SELECT current_setting('temp_directory')").item() for r in (reading, other)}
        assert {Path(folder).parent for folder in folders} == {home.resolve()}
        assert len(folders) == 2
        reading.read("SET memory_limit = '40MB'")
        query = "SELECT i, md5(i::VARCHAR) AS text FROM range(1_000_000) t(i) ORDER BY text"
        for _ in reading.stream(query, {}, 250_000):
            seen |= {path.name for path in home.glob(".spill-*")}
        reading.read("SET memory_limit = '4GB'")  # RESET would change what is said of it, and not what is held to
    assert len(seen) == 1


def question(key: str, batch: str) -> dict[str, object]:
    same = {"domain": "d", "question": "q", "source_file": "f", "source_line": 1}
    return {**same, "prompt_id": key, "batch": batch}


def verdicts(*ids: str, batch: str = "b1") -> pl.DataFrame:
    same = {"batch": batch, "filter": "length", "passed": True, "filter_version": "1"}
    return pl.DataFrame([{**same, "response_id": key} for key in ids])


def response(key: str, batch: str, prompt: str = "p") -> dict[str, object]:
    """A row of `responses` of which only ids and batch matter."""
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 1, "sample_index": 0, "seed": 0}
    model = {"teacher_fingerprint": "t", "template_version": "v", "engine": "e", "dtype": "d"}
    answer = {"text": "", "token_ids": [], "logprobs": [], "offsets": [], "tool_call": False, "finish_reason": "stop"}
    return {"response_id": key, "prompt_id": prompt, "batch": batch, **sampling, **model, **answer}


def test_lengths_and_means_are_stored_with_a_row_and_computed_for_older_ones(warehouse: Warehouse) -> None:
    draw = Random(7)
    rows = []
    for number in range(50):
        logprobs = [-draw.expovariate(2) for _ in range(number)]
        lists = {"token_ids": list(range(number)), "logprobs": logprobs, "offsets": [-1] * number}
        rows.append({**response(str(number), "b"), **lists})
    found = f"FROM {measured('responses', 'mean_logprob', 'response_id')} ORDER BY ALL"
    by_hand = "SELECT response_id, list_avg(logprobs) AS mean_logprob FROM responses ORDER BY ALL"
    with warehouse.commit("test") as transaction:
        transaction.append_missing("responses", pl.DataFrame(rows))
        assert transaction.read("SELECT num_tokens FROM responses").sum().item() == sum(range(50))
        stored = transaction.read(found)
        assert stored.equals(transaction.read(by_hand))
        transaction.read("UPDATE responses SET mean_logprob = NULL, num_tokens = NULL WHERE response_id < '3'")
        assert transaction.read("SELECT count(mean_logprob) FROM responses").item() < 49
        assert transaction.read(found).equals(stored)


def test_lengths_of_the_students_tokens_leave_out_prompt_and_end(warehouse: Warehouse) -> None:
    key = {"batch": "b", "student_fingerprint": "s"}
    asked = {**key, "response_id": "1", "num_prompt_tokens": 2, "token_ids": [5, 6, 7, 8, 9], "offsets": [0, 3, -1]}
    refused = {**key, "response_id": "2", "num_prompt_tokens": None, "token_ids": None, "offsets": None}
    with warehouse.commit("test") as transaction:
        transaction.replace("student_tokens", key, pl.DataFrame([asked, refused]))
    query = "SELECT num_tokens, num_text_tokens FROM student_tokens ORDER BY response_id"
    assert warehouse.read(query).rows() == [(5, 2), (None, None)]
    query = f"SELECT num_text_tokens FROM {measured('student_tokens', 'num_text_tokens', 'response_id')} ORDER BY ALL"
    assert warehouse.read(query)["num_text_tokens"].to_list() == [2, None]


def test_rows_whose_owner_has_passed_to_another_batch_go_there(warehouse: Warehouse) -> None:
    with warehouse.commit("test") as transaction:
        for key, batch in (("stayed", "b1"), ("moved", "b2")):
            transaction.replace("responses", {"response_id": key}, pl.DataFrame([response(key, batch)]))
        transaction.append_missing("response_verdicts", verdicts("moved", batch="b2"))
        assert transaction.append_missing("response_verdicts", verdicts("stayed", "moved", "gone"), "b1") == 2
        assert transaction.append_missing("response_verdicts", verdicts("stayed"), "b1") == 0
    found = warehouse.read("SELECT response_id, batch FROM response_verdicts ORDER BY ALL").rows()
    assert found == [("gone", "b1"), ("moved", "b2"), ("stayed", "b1")]


def test_a_question_takes_along_what_belongs_to_it(warehouse: Warehouse) -> None:
    with warehouse.commit("test") as transaction:
        transaction.append_missing("prompts", pl.DataFrame([question("p", "b1"), question("q", "b1")]))
        responses = [response("r", "b1", "p"), response("s", "b1", "q")]
        transaction.append_missing("responses", pl.DataFrame(responses))
        transaction.append_missing("response_verdicts", verdicts("r", "s"))
        transaction.move_to_batch("prompts", ["p"], "b2")
    for table, key in (("prompts", "prompt_id"), ("responses", "prompt_id"), ("response_verdicts", "response_id")):
        assert warehouse.read(f"SELECT batch FROM {table} ORDER BY {key}")["batch"].to_list() == ["b2", "b1"]


def test_a_table_that_nobody_declared_has_no_key(warehouse: Warehouse) -> None:
    with pytest.raises(TableError, match="the table 'nobody' is not declared"), warehouse.commit("test") as transaction:
        transaction.append_missing("nobody", cuts("a"))


def test_replace_takes_null_for_a_value_and_every_column_together(warehouse: Warehouse) -> None:
    with warehouse.commit("test") as transaction:
        rows = [failure("a", None), failure("b", "b1"), failure("c", None, "y")]
        transaction.append_missing("failed_requests", pl.DataFrame(rows))
        transaction.replace("failed_requests", {"batch": None, "asset": "x"}, pl.DataFrame([failure("d", None)]))
    assert keys(warehouse) == [("b", "b1", "x"), ("c", None, "y"), ("d", None, "x")]
    with warehouse.commit("test") as transaction:
        transaction.replace("failed_requests", {"batch": None, "asset": "x"}, pl.DataFrame())
    assert keys(warehouse) == [("b", "b1", "x"), ("c", None, "y")]


def test_of_many_parts_one_is_in_memory_until_the_commit(warehouse: Warehouse) -> None:
    """A frame that is registered with DuckDB, and no longer, would stay in memory as long as the transaction."""
    num_parts, num_bytes, before, held = 6, 1 << 20, pa.total_allocated_bytes(), list[int]()

    def parts() -> Iterator[pl.DataFrame]:
        for number in range(num_parts):
            held.append(pa.total_allocated_bytes() - before)
            tokens = pa.repeat(pa.scalar(7, pa.int32()), num_bytes // 4)
            row = pl.DataFrame([response(str(number), "b")])
            yield row.with_columns(token_ids=pl.from_arrow(pa.ListArray.from_arrays([0, len(tokens)], tokens)))

    with warehouse.commit("test") as transaction:
        transaction.replace("responses", {"batch": "b"}, parts())
    assert max(held) < 2 * num_bytes
    assert warehouse.read("SELECT count(*) FROM responses").item() == num_parts


def test_keys_are_deleted_where_all_else_is_equal(warehouse: Warehouse) -> None:
    with warehouse.commit("test") as transaction:
        rows = [failure("a", None), failure("b", None), failure("a", None, "y")]
        transaction.append_missing("failed_requests", pl.DataFrame(rows))
        transaction.delete_keys("failed_requests", {"asset": "x"}, "request_id", ["a", "nobody"])
        transaction.delete_keys("failed_requests", {"asset": "y"}, "request_id", [])
    assert keys(warehouse) == [("a", None, "y"), ("b", None, "x")]


floats32 = st.floats(max_value=0, width=32, allow_nan=False, allow_infinity=False)
floats64 = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(floats32, max_size=4), min_size=1, max_size=60),
    st.lists(floats64, min_size=1, max_size=60),
    st.lists(texts, min_size=1, max_size=60),
)
def test_any_numbers_and_texts_come_back_exactly(
    warehouse: Warehouse, lists: list[list[float]], doubles: list[float], words: list[str]
) -> None:
    words = ["a\0b", "👩‍🚀", "'\"$x;--", "", *words]
    scored = {"student_fingerprint": "s", "engine": "e", "dtype": "d"}
    by_id = {f"{i:03d}": {**scored, "batch": "b", "logprobs": values} for i, values in enumerate(lists)}
    scores = {"batch": "b", "student_fingerprint": "s", "num_sentences": 1, "threshold_version": "v"}
    with warehouse.commit("test") as transaction:
        logprobs = pl.DataFrame([{"response_id": key, **row} for key, row in by_id.items()])
        transaction.replace("student_logprobs", {"batch": "b"}, logprobs.cast({"logprobs": pl.List(pl.Float64)}))
        pairs = [{**scores, "response_id": f"{i:03d}", "score_name": "n", "score": v} for i, v in enumerate(doubles)]
        transaction.replace("response_scores", {"batch": "b"}, pl.DataFrame(pairs))
        reasons = [{**failure(f"{i:03d}", None), "reason": word} for i, word in enumerate(words)]
        transaction.replace("failed_requests", {"asset": "x"}, pl.DataFrame(reasons))
    for table, column, expected in (
        ("student_logprobs", "logprobs", lists),
        ("response_scores", "score", doubles),
        ("failed_requests", "reason", words),
    ):
        key = "request_id" if table == "failed_requests" else "response_id"
        found = warehouse.read(f"SELECT {column} FROM {table} ORDER BY {key}")[column].to_list()
        assert repr(found) == repr(expected)  # repr tells -0.0 from 0.0


ROWS_PER_COMMIT = 400


def write_until_killed(home: str) -> None:
    """Commits of equally many rows in two tables, a line for each."""
    warehouse = Warehouse(home=home)
    for number in count():
        ids = [f"{number:04d}-{i:03d}" for i in range(ROWS_PER_COMMIT)]
        failures = pl.DataFrame([failure(key, str(number)) for key in ids])
        with warehouse.commit("test") as transaction:
            transaction.append_missing("prefix_cuts", cuts(*ids))
            transaction.append_missing("failed_requests", failures)
        print(number, file=sys.stderr, flush=True)


def test_a_process_killed_anywhere_leaves_whole_commits(warehouse: Warehouse) -> None:
    warehouse.migrate()
    code = f"import test_warehouse; test_warehouse.write_until_killed({warehouse.home!r})"
    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=os.environ | path) as process:
        assert process.stderr is not None
        assert [process.stderr.readline() for _ in range(2)] == [b"0\n", b"1\n"]
        time.sleep(0.03)
        process.kill()
    tables = [
        warehouse.read("SELECT left(rollout_id, 4) AS number, count(*) FROM prefix_cuts GROUP BY ALL ORDER BY ALL"),
        warehouse.read("SELECT left(request_id, 4) AS number, count(*) FROM failed_requests GROUP BY ALL ORDER BY ALL"),
    ]
    assert tables[0].rows() == tables[1].rows()
    assert set(tables[0]["count_star()"]) == {ROWS_PER_COMMIT}
    assert tables[0].height >= 2
    assert append(warehouse, "after") == 1
