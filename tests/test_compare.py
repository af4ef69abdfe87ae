"""`dasd compare`: any two checkpoints, on what both were asked in the same way; errors say what there is."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import Project

from dasd_assets.cli import main
from dasd_assets.commands.compare import page
from dasd_assets.commands.compared_answers import NothingInCommon, compared
from dasd_assets.commands.compared_models import Compared, find_model
from dasd_assets.rules.statistics.comparison import compare
from dasd_assets.rules.statistics.pairing import paired_differences
from dasd_resources.storage.lake import Lake


def rows(project: Project, a: Compared, b: Compared) -> list[dict[str, Any]]:
    with Lake(home=str(project.home)).reading() as reading:
        return compared(reading, a, b)


def checkpoint(project: Project, name: str) -> str:
    return str(project.read("SELECT checkpoint_id FROM checkpoints WHERE name = $name", name=name).item())


def answers(project: Project, checkpoint_id: str) -> pl.DataFrame:
    query = "SELECT question_id, correct, num_tokens, finish_reason FROM evaluations WHERE checkpoint_id = $id"
    return project.read(query, id=checkpoint_id)


def write(project: Project, evaluations: pl.DataFrame) -> None:
    with project.warehouse.commit("test") as transaction:
        transaction.append_missing("evaluations", evaluations)


def test_names_ids_and_prefixes_are_one_model(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    t060, student = checkpoint(home, "t060"), checkpoint(home, "student")
    found = []
    for words in (["tiny/t060", "tiny/student"], [t060, student], [t060[:8].upper(), "tiny/student"]):
        assert main(["compare", *words, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["rows"] == found[1]["rows"] == found[2]["rows"]
    assert [of["checkpoints"] for of in (found[0]["a"], found[0]["b"])] == [
        [{"seed": None, "checkpoint_id": t060}],
        [{"seed": None, "checkpoint_id": student}],
    ]


def test_every_figure_is_one_of_the_answers(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "tiny/t060", "tiny/teacher", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    of = {key: answers(home, checkpoint(home, name)) for key, name in (("a", "t060"), ("b", "teacher"))}
    expected = compare(
        paired_differences(
            pl.concat([frame.with_columns(arm=pl.lit(key), seed=pl.lit(None, pl.Int64)) for key, frame in of.items()]),
            "a",
            "b",
        )
    )
    assert (row["difference"], row["low"], row["high"], row["p"]) == pytest.approx(
        (expected.difference, expected.low, expected.high, expected.p)
    )
    assert row["p_holm"] == row["p"]
    assert row["domain"] is None
    assert row["num_questions_left_out"] == {"a": 0, "b": 0}
    for key, frame in of.items():
        assert row["accuracy"][key] == pytest.approx(frame["correct"].mean())
        assert row["mean_tokens"][key] == pytest.approx(frame["num_tokens"].mean())
        assert row["cut_off_rate"][key] == pytest.approx((frame["finish_reason"] == "length").mean())
        assert row["num_answers"][key] == frame.height
    of_questions = {
        key: dict(frame.group_by("question_id").agg(pl.col("num_tokens").mean()).iter_rows())
        for key, frame in of.items()
    }
    apart = [of_questions["a"][question] - length for question, length in of_questions["b"].items()]
    found = row["trait_differences"]["mean_tokens"]
    assert found["difference"] == pytest.approx(np.mean(apart))
    assert found["low"] < found["difference"] < found["high"]
    right = {key: set(frame.filter("correct")["question_id"]) for key, frame in of.items()}
    assert row["num_only_right"] == {"a": len(right["a"] - right["b"]), "b": len(right["b"] - right["a"])}


def test_the_page_names_both_and_says_what_the_interval_is_of(
    home: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "tiny/t060", "tiny/teacher"]) == 0
    said = capsys.readouterr().out
    assert f"A  tiny/t060  checkpoint {checkpoint(home, 't060')}" in said
    assert "held_out, T=1 (top-p 1, at most 200 tokens): 5 questions, A 10 · B 10 answers" in said
    assert "one seed" in said or "no interval" in said
    assert re.search(r"mean tokens +A [0-9,]+ · B [0-9,]+; [+-][0-9,]+ \[[+-][0-9,]+, [+-][0-9,]+\]", said)
    assert re.search(r"cut off +A [0-9.]+% · B [0-9.]+%; [+-][0-9.]+%", said)
    assert "corrected" not in said  # a single row
    assert "left out" not in said


def test_only_common_questions_count_and_the_others_are_counted(copy: Project) -> None:
    student, t060 = checkpoint(copy, "student"), checkpoint(copy, "t060")
    with copy.warehouse.commit("test") as transaction:
        gone = transaction.read("SELECT min(question_id) FROM evaluations").item()
        kept = transaction.read(
            "SELECT * EXCLUDE run_id FROM evaluations WHERE checkpoint_id = $id AND question_id <> $gone",
            {"id": student, "gone": gone},
        )
        transaction.replace("evaluations", {"checkpoint_id": student}, kept)
    [row] = rows(copy, Compared("a", {None: t060}), Compared("b", {None: student}))
    assert (row["num_questions"], row["num_questions_left_out"]) == (4, {"a": 1, "b": 0})


def test_settings_that_only_one_has_and_answers_judged_by_older_verifiers_do_not_count(copy: Project) -> None:
    student, t060 = checkpoint(copy, "student"), checkpoint(copy, "t060")
    before = rows(copy, Compared("a", {None: t060}), Compared("b", {None: student}))
    of_t060 = copy.read("SELECT * EXCLUDE run_id FROM evaluations WHERE checkpoint_id = $id", id=t060)
    wrong = of_t060.with_columns(correct=pl.lit(False), evaluation_id="x" + pl.col("evaluation_id"))
    write(copy, wrong.with_columns(temperature=pl.lit(0.3)))
    write(copy, wrong.with_columns(verifier_version=pl.lit("old"), evaluation_id="y" + pl.col("evaluation_id")))
    assert rows(copy, Compared("a", {None: t060}), Compared("b", {None: student})) == before


def test_of_two_verifiers_that_judged_both_the_last_counts(copy: Project) -> None:
    ids = [checkpoint(copy, name) for name in ("t060", "student")]
    query = "SELECT * EXCLUDE run_id FROM evaluations WHERE list_contains($ids, checkpoint_id)"
    again = copy.read(query, ids=ids).with_columns(
        verifier_version=pl.lit("new"), correct=pl.lit(True), evaluation_id="n" + pl.col("evaluation_id")
    )
    write(copy, again)
    [row] = rows(copy, Compared("a", {None: ids[0]}), Compared("b", {None: ids[1]}))
    assert (row["verifier_version"], row["accuracy"], row["p"]) == ("new", {"a": 1.0, "b": 1.0}, None)


def test_failed_requests_are_wrong_answers_until_they_are_answered(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, t060 = checkpoint(copy, "teacher"), checkpoint(copy, "t060")
    with copy.warehouse.commit("test") as transaction:
        asked = transaction.read(
            "SELECT * EXCLUDE run_id FROM evaluation_requests WHERE checkpoint_id = $id", {"id": t060}
        )
        stored = transaction.read("SELECT * EXCLUDE run_id FROM evaluations WHERE checkpoint_id = $id", {"id": t060})
        assert set(asked["evaluation_id"]) == set(stored["evaluation_id"])
        kept = stored.filter(pl.col("question_id") != stored["question_id"].min())
        transaction.replace("evaluations", {"checkpoint_id": t060}, kept)
        lost = stored.join(kept, on="evaluation_id", how="anti").select(request_id="evaluation_id")
        failures = lost.with_columns(
            asset=pl.lit("evaluations"),
            kind=pl.lit("engine_error"),
            reason=pl.lit("no"),
            num_attempts=pl.lit(1),
            failed_at=pl.lit(datetime.now(UTC)),
        )
        transaction.append_missing("failed_requests", failures)
    [row] = rows(copy, Compared("a", {None: t060}), Compared("b", {None: teacher}))
    assert (row["num_questions"], row["num_failed"], row["num_answers"]["a"]) == (5, {"a": 2, "b": 0}, 10)
    assert row["accuracy"]["a"] == pytest.approx(kept["correct"].sum() / 10)
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    assert main(["compare", "tiny/t060", "tiny/teacher"]) == 0
    assert "failed         A 2 · B 0 requests, which count as wrong answers" in capsys.readouterr().out
    write(copy, stored.join(kept, on="evaluation_id", how="anti"))
    assert rows(copy, Compared("a", {None: t060}), Compared("b", {None: teacher}))[0]["num_failed"] == {"a": 0, "b": 0}


def test_an_evaluation_that_was_not_finished_is_said_to_be_so(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, t060 = checkpoint(copy, "teacher"), checkpoint(copy, "t060")
    assert rows(copy, Compared("a", {None: t060}), Compared("b", {None: teacher}))[0]["num_missing"] == {"a": 0, "b": 0}
    stored = copy.read("SELECT * EXCLUDE run_id FROM evaluations WHERE checkpoint_id = $id", id=t060)
    with copy.warehouse.commit("test") as transaction:
        transaction.replace("evaluations", {"checkpoint_id": t060}, stored.sort("num_tokens").head(stored.height - 3))
    [row] = rows(copy, Compared("a", {None: t060}), Compared("b", {None: teacher}))
    assert (row["num_missing"], row["num_failed"]) == ({"a": 3, "b": 0}, {"a": 0, "b": 0})
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    assert main(["compare", "tiny/t060", "tiny/teacher"]) == 0
    assert "incomplete     A 3 · B 0 answers are missing. Those that take long" in capsys.readouterr().out


def test_domains_have_rows_of_their_own_where_there_are_several(copy: Project) -> None:
    with copy.warehouse.commit("test") as transaction:
        questions = transaction.read("SELECT * EXCLUDE run_id FROM benchmark_questions ORDER BY question_id")
        assert questions["domain"].n_unique() == 1
        halves = questions.with_columns(domain=pl.Series(["sums", "sums", "words", "words", "words"]))
        transaction.replace("benchmark_questions", {"benchmark": "held_out"}, halves)
    found = rows(copy, *(Compared(name, {None: checkpoint(copy, name)}) for name in ("t060", "teacher")))
    assert [(row["domain"], row["num_questions"]) for row in found] == [(None, 5), ("sums", 2), ("words", 3)]
    of_words = halves.filter(pl.col("domain") == "words")["question_id"]
    marks = answers(copy, checkpoint(copy, "t060")).filter(pl.col("question_id").is_in(of_words.implode()))["correct"]
    assert found[2]["accuracy"]["a"] == pytest.approx(marks.mean())


def test_arms_are_paired_by_common_seeds_and_a_checkpoint_with_all(home: Project) -> None:
    ids = {name: checkpoint(home, name) for name in ("student", "t060", "t100", "mixed", "teacher")}
    arm = Compared("a", {1: ids["t060"], 2: ids["t100"], 3: ids["mixed"]})
    other = Compared("b", {2: ids["student"], 3: ids["student"]})
    [row] = rows(home, arm, other)
    assert row["num_seeds"] == 2
    share = [answers(home, ids[name])["correct"].mean() for name in ("t100", "mixed")]
    assert row["accuracy"]["a"] == pytest.approx(sum(share) / 2)
    [single] = rows(home, arm, Compared("teacher", {None: ids["teacher"]}))
    assert single["num_seeds"] == 3
    with pytest.raises(NothingInCommon, match=r"no seed is common to the arms \(a: 1; b: 2\): train and evaluate"):
        rows(home, Compared("a", {1: ids["t060"]}), Compared("b", {2: ids["student"]}))


def test_a_seed_under_which_a_side_has_no_answer_is_left_out_and_said(home: Project) -> None:
    ids = {name: checkpoint(home, name) for name in ("student", "t060", "t100")}
    arm, unfinished = Compared("a", {1: ids["t060"], 2: ids["t100"]}), Compared("b", {1: ids["student"], 2: "trained"})
    [row] = found = rows(home, arm, unfinished)
    assert (row["num_seeds"], row["seeds_left_out"]) == (1, {"a": [], "b": [2]})
    assert row["accuracy"]["a"] == pytest.approx(answers(home, ids["t060"])["correct"].mean())
    assert "\nB  left out is seed 2, which has no answer: evaluate it\n" in page(arm, unfinished, found)
    with pytest.raises(NothingInCommon, match="b has answered no held-out question"):
        rows(home, arm, Compared("b", {1: "trained"}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny/t060", "tiny/t100x"], "there is no tiny/t100x: there are tiny/"),
        (["tiny/t060", "tiny/t060"], "are the same"),
        (["tiny/t060", "ffffffffffffffff"], "there is no checkpoint ffffffffffffffff"),
        (["tiny/t060", "what?"], "is no checkpoint id"),
    ],
)
def test_errors_say_what_there_is(
    home: Project, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *words]) == 1
    assert message in capsys.readouterr().err


def test_without_answers_in_common_each_side_is_named(copy: Project) -> None:
    student, t060 = (Compared(name, {None: checkpoint(copy, name)}) for name in ("student", "t060"))
    with copy.warehouse.commit("test") as transaction:
        rows_then = transaction.read(
            "SELECT * EXCLUDE run_id FROM evaluations WHERE checkpoint_id = $id", {"id": student.checkpoints[None]}
        )
        where = {"checkpoint_id": student.checkpoints[None]}
        transaction.replace("evaluations", where, rows_then.with_columns(temperature=pl.lit(0.6)))
    with pytest.raises(NothingInCommon, match=r"t060 has held_out at T=1, .* student has held_out at T=0\.6, "):
        rows(copy, t060, student)
    with copy.warehouse.commit("test") as transaction:
        transaction.replace("evaluations", where, [])
    with pytest.raises(NothingInCommon, match="student has answered no held-out question"):
        rows(copy, t060, student)


def test_a_folder_is_what_was_evaluated_of_it(
    copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its path, from wherever, and by the name under which it was entered; a trained checkpoint's by its path."""
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    monkeypatch.chdir(tmp_path)
    t060, folder = checkpoint(copy, "t060"), tmp_path / "elsewhere" / "model"

    def names_of(*words: str) -> list[str]:
        assert main(["compare", *words, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        return [found[key]["checkpoints"][0]["checkpoint_id"] for key in ("a", "b")]

    def enter(identity: str, name: str = "elsewhere/model") -> None:
        with copy.warehouse.commit("test") as transaction:
            for table in ("checkpoints", "evaluations"):
                query = f"SELECT * EXCLUDE run_id FROM {table} WHERE checkpoint_id = $id"
                rows = transaction.read(query, {"id": t060}).with_columns(checkpoint_id=pl.lit(identity))
                if table == "checkpoints":
                    none = pl.lit(None, pl.String)
                    entered = {"recipe": none, "dataset": none, "name": pl.lit(name)}
                    rows = rows.with_columns(**entered, path=pl.lit(str(folder)))
                else:
                    rows = rows.with_columns(evaluation_id=pl.lit(identity[:4]) + pl.col("evaluation_id"))
                transaction.append_missing(table, rows)

    enter("e" * 16)
    for name in (str(folder), "./elsewhere/../elsewhere/model", "elsewhere/model"):
        assert names_of(name, "tiny/t060") == ["e" * 16, t060]
    assert names_of(str(copy.home / "checkpoints" / t060), "tiny/student") == [t060, checkpoint(copy, "student")]
    enter("f" * 16)  # other weights there, or another system prompt
    assert main(["compare", "elsewhere/model", "tiny/t060"]) == 1
    assert f"give {'e' * 16} or {'f' * 16}" in capsys.readouterr().err
    enter("d" * 16, "tiny/t100")
    assert main(["compare", "tiny/t100", "tiny/t060"]) == 1
    assert f"give the id, {checkpoint(copy, 't100')} or {'d' * 16}" in capsys.readouterr().err
    assert main(["compare", "~nobody/model", "tiny/t060"]) == 1


def test_a_home_without_checkpoints_says_how_they_are_made(project: Project) -> None:
    with project.warehouse.commit("test"):
        pass
    with Lake(home=str(project.home)).reading() as reading, pytest.raises(LookupError, match="`dasd run` makes them"):
        find_model(reading, "demo/t060", "/nowhere/demo/t060")
