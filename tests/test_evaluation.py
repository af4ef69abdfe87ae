"""avg@k: which answers are asked for, how one is judged, and the standard error clustered by question."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from conftest import Project, change
from raised_rule import raise_version

from dasd_assets.audit.checkpoint import audit_checkpoint
from dasd_assets.audit.verify import verify
from dasd_assets.evaluation.accuracy import BY, accuracy
from dasd_assets.evaluation.accuracy_plots import shown_accuracy
from dasd_assets.evaluation.answers import answered, judged_row, wanted_answers
from dasd_assets.evaluation.evaluation_metrics import store_metrics, stored_accuracy
from dasd_assets.evaluation.leaderboard import leaderboard_page, leaderboard_plot, standings
from dasd_assets.evaluation.outcomes import checkpoint_outcomes
from dasd_assets.evaluation.questions import benchmark_rows, benchmark_version, question_rows
from dasd_assets.rules.ids import answer_seed, evaluation_id
from dasd_assets.rules.verdict import VERIFYING, Verdict, judge_answer
from dasd_resources.inference.engine import Completion
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.recipe import Benchmark, Recipe, RecipeError
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers.catalogue import VERIFIER_VERSION

NOTHING_ELSE = {"instruction": None, "judged_by": None}  # of a benchmark question
QUESTIONS = pl.DataFrame([{**NOTHING_ELSE, "benchmark": "held_out", "question_id": key} for key in ("q1", "q2", "q3")])
SUM = {"question": "What is 2 + 3?", "reference_answer": "5", "verifier": "math"}


def benchmark(folder: Path, *lines: str | dict[str, str]) -> Benchmark:
    """A benchmark file of these lines; a dict is dumped."""
    path = folder / "held_out.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return Benchmark(name="sums", path=str(path), max_tokens=50)


def checkpoint_accuracy(warehouse: Warehouse, recipe: Recipe) -> pl.DataFrame:
    """`accuracy` of every current checkpoint by its name, benchmark and temperature, in the order of training."""
    return accuracy(checkpoint_outcomes(warehouse, recipe), BY)


def question(**values: str) -> Row:
    return {"system_prompt": None, "metadata": "{}", **NOTHING_ELSE, **SUM, **values}


@pytest.fixture
def student(project: Project) -> PromptedModel:
    return project.engines.find(project.recipe.student, "student.model")


def test_question_rows(tmp_path: Path) -> None:
    [row, other] = question_rows(benchmark(tmp_path, {**SUM, "source": "book"}, {**SUM, "question": "2 + 3 = ?"}))
    assert (row["benchmark"], row["question"], row["source_line"]) == ("sums", "What is 2 + 3?", 1)
    assert (row["reference_answer"], row["verifier"], row["metadata"]) == ("5", "math", '{"source":"book"}')
    assert row["question_id"] != other["question_id"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not JSON"),
        ({"question": "What is 1 + 1?"}, "line 2: no verifier, so no answer could be judged; name one"),
        (SUM, "line 2: the same question as line 1; correct or remove the line"),
    ],
)
def test_a_line_that_cannot_be_judged_is_refused(tmp_path: Path, line: str | dict[str, str], told: str) -> None:
    with pytest.raises(RecipeError, match=f"evaluation.benchmarks sums: path .*{told}"):
        question_rows(benchmark(tmp_path, SUM, line))


def test_a_missing_file_names_key_value_and_remedy(tmp_path: Path) -> None:
    absent = Benchmark(name="sums", path=str(tmp_path / "none.jsonl"), max_tokens=50)
    with pytest.raises(RecipeError, match=r"benchmarks sums: path .*none\.jsonl: there is no such file; put one there"):
        question_rows(absent)


def test_a_benchmark_that_has_moved_makes_nothing_again(copy: Project, tmp_path: Path) -> None:
    [held_out] = copy.recipe.evaluation.benchmarks
    moved = Path(held_out.path).read_bytes()
    (tmp_path / "moved.jsonl").write_bytes(moved)
    values = {**held_out.model_dump(), "path": str(tmp_path / "moved.jsonl")}
    copy.recipe = change(copy.recipe, "evaluation.benchmarks", [values])
    assert copy.run() == 0


def test_benchmark_version_is_of_the_content(tmp_path: Path, tiny: Recipe) -> None:
    def version(*lines: str | dict[str, str]) -> str:
        recipe = change(tiny, "evaluation.benchmarks", [benchmark(tmp_path, *lines).model_dump()])
        return benchmark_version(benchmark_rows(recipe))

    assert version(SUM) == version("", SUM)
    assert len({version(SUM), version({**SUM, "reference_answer": "5.0"}), version({**SUM, "level": "1"})}) == 3


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<think>\n2 + 3 is 5.\n</think>\nThe answer is 5.", Verdict(True)),
        ("The answer is 5.", Verdict(True)),
        ("<think>\n5\n</think>\nThe answer is 6.", Verdict(False, "wrong_answer", "math: answer '6', expected '5'")),
        ("<think>\nThe answer is 5.", Verdict(False, "no_final_answer", "no final answer")),
        ("<think>\n5\n</think>\n", Verdict(False, "no_final_answer", "no final answer")),
        ("", Verdict(False, "no_final_answer", "no final answer")),
    ],
)
def test_only_the_final_answer_is_judged(text: str, verdict: Verdict) -> None:
    assert judge_answer(text, question()) == verdict


def test_wanted_answers_are_questions_times_temperatures_times_samples(tiny: Recipe, student: PromptedModel) -> None:
    recipe = change(tiny, "evaluation.temperatures", [0.6, 1.0])
    wanted = wanted_answers(QUESTIONS, "c1", student, recipe)
    asked = {(row["question_id"], row["temperature"], row["sample_index"]) for row in wanted.values()}
    assert len(wanted) == len(asked) == 3 * 2 * 2
    assert {row["max_tokens"] for row in wanted.values()} == {200}


def test_answer_ids_depend_on_what_is_asked_alone(tiny: Recipe, student: PromptedModel) -> None:
    tiny = change(tiny, "provenance", None)  # which names temperatures, too
    ids = set(wanted_answers(QUESTIONS, "c1", student, tiny))
    assert set(wanted_answers(QUESTIONS.reverse(), "c1", student, tiny)) == ids
    assert ids < set(wanted_answers(QUESTIONS, "c1", student, change(tiny, "evaluation.samples_per_question", 3)))
    for other in (
        wanted_answers(QUESTIONS, "c2", student, tiny),
        wanted_answers(QUESTIONS, "c1", student, change(tiny, "evaluation.top_p", 0.9)),
        wanted_answers(QUESTIONS, "c1", student, change(tiny, "evaluation.temperatures", [0.7])),
    ):
        assert not ids & set(other)


def test_whoever_judges_a_model_that_is_asked_anew_says_the_same(tiny: Recipe, student: PromptedModel) -> None:
    [*rows] = wanted_answers(QUESTIONS, "c1", student, tiny).values()
    assert len({answer_seed(row) for row in rows}) == len(rows)
    for row in rows:
        judged_otherwise = {**row, "verifier_version": "newer", "judged_by": "corrected tests"}
        assert evaluation_id(judged_otherwise) != evaluation_id(row)
        assert answer_seed(judged_otherwise) == answer_seed(row)


def test_answer_row(tiny: Recipe, student: PromptedModel) -> None:
    text = "<think>\n2 + 3 = 5.\n</think>\nThe answer is 5."
    encoded = student.chat.encode_response("", text)
    token_ids = encoded.token_ids[encoded.num_prompt_tokens :]
    [(key, wanted)] = wanted_answers(
        pl.DataFrame([{"benchmark": "held_out", "question_id": "q1", **question()}]),
        "c1",
        student,
        change(tiny, "evaluation.samples_per_question", 1),
    ).items()
    answer = answered(Completion(key, token_ids, [-0.5] * len(token_ids), "stop"), student)
    row = judged_row(key, wanted, answer)
    assert (row["evaluation_id"], row["checkpoint_id"], row["question_id"]) == (key, "c1", "q1")
    assert (row["correct"], row["reason"], row["response_text"]) == (True, None, text)
    assert row["num_tokens"] == len(token_ids)
    assert "asked" not in row


def answered_rows(rows: list[tuple[object, ...]], columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(status=pl.lit("answered"))


def test_accuracy_clusters_by_question() -> None:
    """Questions at 1, 1/2 and 0: mean 1/2, their standard deviation 1/2, over √3 questions 0.2887 (not √12 answers)."""
    answers = [("q1", [1, 1, 1, 1]), ("q2", [1, 1, 0, 0]), ("q3", [0, 0, 0, 0])]
    rows = [("t060", key, bool(mark)) for key, marks in answers for mark in marks]
    table = answered_rows(rows, ["checkpoint", "question_id", "correct"])
    [row] = accuracy(table, ["checkpoint"]).to_dicts()
    assert row == {
        "checkpoint": "t060",
        "accuracy": pytest.approx(0.5),
        "standard_error": pytest.approx(0.28867513),
        "num_questions": 3,
        "num_answers": 12,
        "num_failed": 0,
        "num_missing": 0,
    }


def test_accuracy_weighs_questions_not_answers() -> None:
    """q1 has one right answer, q2 three wrong ones: 1/2, although 1 of 4 answers is right."""
    rows = [("q1", True), ("q2", False), ("q2", False), ("q2", False)]
    table = answered_rows(rows, ["question_id", "correct"]).with_columns(checkpoint=pl.lit("s"))
    assert accuracy(table, ["checkpoint"])["accuracy"].item() == 0.5


def test_accuracy_keeps_groups_apart_and_one_question_has_no_error() -> None:
    rows = [("a", 0.6, "q1", True), ("a", 1.0, "q1", False), ("b", 0.6, "q1", False)]
    table = answered_rows(rows, ["checkpoint", "temperature", "question_id", "correct"])
    found = accuracy(table, ["checkpoint", "temperature"])
    assert found["accuracy"].to_list() == [1.0, 0.0, 0.0]
    assert found["standard_error"].to_list() == [None, None, None]


def test_checkpoint_accuracy_is_in_the_order_of_training(finished: Project) -> None:
    table = checkpoint_accuracy(finished.warehouse, finished.recipe)
    assert table["checkpoint"].to_list() == ["teacher", "student", "t060", "t100", "mixed"]
    assert set(table["num_questions"]) == {5}
    assert set(table["num_answers"]) == {10}
    for name, checkpoint in finished.read("SELECT name, checkpoint_id FROM checkpoints").iter_rows():
        marks = finished.read("SELECT correct FROM evaluations WHERE checkpoint_id = $id", id=checkpoint)["correct"]
        assert table.filter(pl.col("checkpoint") == name)["accuracy"].item() == pytest.approx(marks.mean())


def test_checkpoint_accuracy_is_of_the_samples_the_recipe_asks_for(finished: Project) -> None:
    fewer = change(finished.recipe, "evaluation.samples_per_question", 1)
    assert set(checkpoint_accuracy(finished.warehouse, fewer)["num_answers"]) == {5}


def test_answers_to_questions_that_are_no_longer_asked_do_not_count(copy: Project) -> None:
    with copy.warehouse.commit("test") as transaction:
        kept = transaction.read("SELECT * FROM benchmark_questions ORDER BY question_id LIMIT 3")
        transaction.replace("benchmark_questions", {"benchmark": "held_out"}, kept)
        longer = transaction.read("SELECT * FROM evaluations").with_columns(
            max_tokens=pl.lit(300, pl.Int32), correct=pl.lit(True), evaluation_id="x" + pl.col("evaluation_id")
        )
        transaction.append_missing("evaluations", longer)
    table = checkpoint_accuracy(copy.warehouse, copy.recipe)
    assert set(table["num_questions"]) == {3}
    assert set(table["num_answers"]) == {6}


def test_more_samples_ask_only_the_missing_ones_and_fewer_count_the_first(copy: Project, lean: Recipe) -> None:
    """2 -> 4 -> 2 samples: the rows there were stay as they were, and nothing is asked twice."""
    copy.recipe = lean
    before, first = copy.read("SELECT * FROM evaluations ORDER BY ALL"), copy.count("evaluations")
    accuracies = checkpoint_accuracy(copy.warehouse, copy.recipe)
    fewer, copy.recipe = copy.recipe, change(copy.recipe, "evaluation.samples_per_question", 4)
    assert set(checkpoint_accuracy(copy.warehouse, copy.recipe)["num_missing"]) == {10}
    assert checkpoint_accuracy(copy.warehouse, copy.recipe)["accuracy"].null_count() == 5  # none is finished
    copy.run()
    assert len(copy.fake.generated) == first == copy.count("evaluations") - first
    stored = copy.read("SELECT * FROM evaluations WHERE sample_index < 2 ORDER BY ALL")
    assert stored.equals(before) and copy.count("evaluation_requests") == 2 * first
    assert set(checkpoint_accuracy(copy.warehouse, copy.recipe)["num_answers"]) == {20}
    assert {"avg@2", "avg@4", "pass@4", "maj@4"} <= set(copy.read("SELECT metric FROM evaluation_metrics")["metric"])
    copy.recipe = fewer
    copy.run()
    assert checkpoint_accuracy(copy.warehouse, copy.recipe).equals(accuracies)
    assert stored_accuracy(copy.warehouse, copy.recipe).equals(accuracies)
    assert len(copy.fake.generated) == first


def test_failed_requests_count_as_wrong_until_they_are_answered(project: Project) -> None:
    """Half of the student's requests fail: as many of its answers are wrong, and a later run has them all."""
    project.fake.steady, project.fake.fails = True, lambda request_id: int(request_id, 16) % 2 == 0
    project.materialize("teacher_model,student_model,benchmark_questions,evaluations,evaluation_metrics,leaderboard")
    failed = project.count("failed_requests")
    rows = checkpoint_accuracy(project.warehouse, project.recipe)
    assert rows["num_failed"].sum() == failed > 0 == rows["num_missing"].sum()
    for row in rows.to_dicts():
        assert row["num_answers"] + row["num_failed"] == 10
        right = project.read(
            "SELECT sum(correct::INT) FROM evaluations JOIN checkpoints USING (checkpoint_id) WHERE name = $name",
            name=row["checkpoint"],
        ).item()
        assert row["accuracy"] == pytest.approx(float(right or 0) / 10)
    assert stored_accuracy(project.warehouse, project.recipe).equals(rows)
    shown = shown_accuracy(rows.row(0, named=True))
    assert re.fullmatch(r"[0-9.]+% (± [0-9.]+%|\(no standard error\)) \(\d+ failed\)", shown)

    project.fake.fails = lambda request_id: False
    project.materialize("evaluations,evaluation_metrics,leaderboard")
    again = stored_accuracy(project.warehouse, project.recipe)
    assert (again["num_failed"].sum(), project.count("failed_requests")) == (0, 0)
    assert set(again["num_answers"]) == {10}
    assert (again["accuracy"] >= rows["accuracy"]).all() and again["accuracy"].sum() > rows["accuracy"].sum()


def test_figures_of_questions_that_a_benchmark_has_no_more_are_of_the_past(copy: Project) -> None:
    assert stored_accuracy(copy.warehouse, copy.recipe).height > 0
    with copy.warehouse.commit("other questions") as transaction:
        transaction.read("UPDATE benchmark_questions SET question_id = 'another' || question_id")
    assert stored_accuracy(copy.warehouse, copy.recipe).is_empty()


def test_what_no_server_took_is_not_asked_yet(copy: Project) -> None:
    """Not an attempt: neither right nor wrong, and the evaluation says that it is incomplete."""
    with copy.warehouse.commit("test") as transaction:
        [student] = transaction.read("SELECT checkpoint_id FROM checkpoints WHERE name = 'student'")["checkpoint_id"]
        [key] = transaction.read(
            "SELECT min(evaluation_id) AS k FROM evaluations WHERE checkpoint_id = $id", {"id": student}
        )["k"]
        transaction.delete_keys("evaluations", {"checkpoint_id": student}, "evaluation_id", [key])
        row = {"request_id": key, "asset": "evaluations", "kind": "server_busy", "reason": "r", "num_attempts": 0}
        transaction.append_missing("failed_requests", pl.DataFrame([{**row, "failed_at": datetime.now(UTC)}]))
    [row] = checkpoint_accuracy(copy.warehouse, copy.recipe).filter(checkpoint="student").to_dicts()
    assert (row["accuracy"], row["num_answers"], row["num_failed"], row["num_missing"]) == (None, 9, 0, 1)
    assert shown_accuracy(row) == "incomplete: 9 of 10"
    store_metrics(copy.warehouse, copy.recipe, [student], origin="test", say=print)
    stored = copy.read("SELECT value, num_missing FROM evaluation_metrics WHERE checkpoint_id = $id", id=student)
    assert stored["value"].null_count() == stored.height and set(stored["num_missing"]) == {1}
    board = standings(copy.warehouse)
    assert board["rank"].to_list()[-1] is None and board["checkpoint_id"].to_list()[-1] == student
    assert "incomplete: 9 of 10" in leaderboard_page(board)


def test_the_leaderboard_ranks_every_model_of_the_home(finished: Project) -> None:
    board = standings(finished.warehouse)
    assert sorted(board["model"]) == sorted(f"tiny {name}" for name in ("teacher", "student", "t060", "t100", "mixed"))
    assert board["accuracy"].is_sorted(descending=True) and board["rank"][0] == 1
    assert board["rank"].to_list() == [1 + sum(a > b for a in board["accuracy"]) for b in board["accuracy"]]
    assert board["accuracy"].sort().equals(checkpoint_accuracy(finished.warehouse, finished.recipe)["accuracy"].sort())
    page = (finished.home / "reports" / "leaderboard.md").read_text()
    assert page == leaderboard_page(board) and "## held_out, T=1, top-p 1, 200 tokens" in page
    assert [line.split(" | ")[1] for line in page.splitlines() if " tiny " in line] == board["model"].to_list()
    assert leaderboard_plot(board).axes[0].get_legend() is not None
    assert leaderboard_page(pl.DataFrame()).startswith("# Leaderboard") and leaderboard_plot(pl.DataFrame()).axes


def test_models_of_one_name_are_lines_of_their_own_and_k_is_said(copy: Project) -> None:
    """The folder of the best model's name, entered from elsewhere and asked twice as often."""
    board = standings(copy.warehouse)
    best = board.row(0, named=True)
    with copy.warehouse.commit("test") as transaction:
        for table in ("checkpoints", "evaluation_metrics"):
            query = f"SELECT * EXCLUDE run_id FROM {table} WHERE checkpoint_id = $id"
            twin = transaction.read(query, {"id": best["checkpoint_id"]}).with_columns(checkpoint_id=pl.lit("other"))
            if table == "evaluation_metrics":
                again = pl.col("metric").str.replace("@2", "@4")
                twin = twin.with_columns(num_samples=pl.lit(4, pl.Int32), metric=again).unique("metric")
            transaction.append_missing(table, twin)
    found = standings(copy.warehouse)
    assert found.filter(model=best["model"])["checkpoint_id"].to_list() == [best["checkpoint_id"], "other"]
    axes = leaderboard_plot(found).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:2] == [f"{best['model']} {best['checkpoint_id'][:8]}", f"{best['model']} other"]
    assert len(set(names)) == found.height and names[2:] == found["model"].to_list()[2:]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text()[-5:] for text in legend.get_texts()] == [", k=2", ", k=4"]


def test_models_that_another_version_of_the_verifier_judged_have_no_rank(copy: Project) -> None:
    """Of one evaluation: two by an earlier version, one of them by other limits of the current one, too."""
    board = standings(copy.warehouse)
    best, second = board["checkpoint_id"].to_list()[:2]
    with copy.warehouse.commit("test") as transaction:
        for checkpoint, version in ((best, "0"), (second, f"{VERIFIER_VERSION}, limits 1a2b3c")):
            rows = transaction.read(
                "SELECT * EXCLUDE run_id FROM evaluation_metrics WHERE checkpoint_id = $id", {"id": checkpoint}
            ).with_columns(verifier_version=pl.lit(version))
            transaction.replace("evaluation_metrics", {"checkpoint_id": checkpoint}, rows)
    after = standings(copy.warehouse)
    assert set(after.filter(pl.col("rank").is_null())["checkpoint_id"]) == {best, second}
    ranked = after.drop_nulls("rank")
    assert ranked["checkpoint_id"].to_list() == board["checkpoint_id"].to_list()[2:] and ranked["rank"][0] == 1
    assert after["judged_alike"].to_list() == [True, True, True, False, False]
    assert leaderboard_page(after).count("(judged by another version of the verifier)") == 2
    drawn = leaderboard_plot(after).axes[0].get_yticklabels()
    assert len(drawn) == 3


def test_a_raised_verifier_judges_stored_answers_and_asks_no_model(
    copy: Project, lean: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.recipe = lean
    columns = "checkpoint_id, question_id, temperature, sample_index, response_text, num_tokens, finish_reason, correct"
    before = copy.read(f"SELECT {columns} FROM evaluations ORDER BY ALL")
    with copy.warehouse.commit("test") as transaction:
        transaction.read("UPDATE evaluations SET correct = NOT correct, kind = NULL")
    accuracies = audit_accuracies(copy)
    raise_version(monkeypatch, "VERIFIER_VERSION", VERIFYING, "raised")
    copy.run()
    assert "evaluations" in copy.materialized
    assert (copy.fake.generated, copy.fake.trained) == ([], [])
    after = copy.read(f"SELECT {columns} FROM evaluations WHERE verifier_version = 'raised' ORDER BY ALL")
    assert after.equals(before) and 0 < before["correct"].sum() < before.height
    assert audit_accuracies(copy) != accuracies
    faults = list(map(str, verify(copy.warehouse)))  # of the hand above, which changed rows
    assert [fault for fault in faults if not fault.startswith("evaluations ") or "its answer gives" in fault] == []
    assert copy.run() == 0


def audit_accuracies(project: Project) -> list[Row]:
    """Of the student, as `dasd audit checkpoint` shows them: of the newest verdicts alone."""
    [student] = project.read("SELECT checkpoint_id FROM checkpoints WHERE name = 'student'")["checkpoint_id"]
    with project.warehouse.reading() as reading:
        found = audit_checkpoint(project.warehouse, reading, student)["evaluations"]
    assert {row["num_answers"] for row in found} == {project.count("benchmark_questions") * 2}
    return list(found)
