"""`dasd evaluate`: models from anywhere, each answer once, beside the recipe's own stages and without touching them."""

import argparse
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, change, refuse
from test_evaluation import checkpoint_accuracy

from dasd_assets.audit.checkpoint import accuracies
from dasd_assets.audit.verify import verify
from dasd_assets.cli import main
from dasd_assets.commands.compared_answers import compared
from dasd_assets.commands.compared_models import Compared
from dasd_assets.commands.evaluate import evaluate, rank, shown
from dasd_assets.commands.evaluated_benchmarks import named_benchmark
from dasd_assets.evaluation.leaderboard import standings
from dasd_assets.evaluation.questions import question_rows
from dasd_assets.rules.answers import sampled_answers
from dasd_assets.rules.checkpoints import current_checkpoints
from dasd_assets.rules.ids import evaluation_id
from dasd_assets.rules.instructions import asked_as
from dasd_resources.recipe import RecipeError
from dasd_resources.storage.warehouse import Row

TASK = "reasoning_gym:chain_sum,num_questions=3,seed=9000000,min_terms=3,max_terms=4,min_digits=1,max_digits=1"
AIME = {"problem": "What is 2 + 3?", "answer": "5"}


def ask_of(project: Project, path: Path, *rows: Row) -> None:
    """Make these questions the recipe's one benchmark, named for its file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = {"name": path.stem, "path": str(path), "max_tokens": 200}
    project.recipe = change(project.recipe, "evaluation.benchmarks", [benchmark])


def asked(
    project: Project, model: str, *benchmarks: str, loaded_here: list[bool] | None = None, **values: object
) -> list[Row]:
    """The rows of `dasd evaluate`, with the project's fake engine. loaded_here: takes whether the model was to be."""

    def as_run(ask: Callable[[], list[Row]], loads_here: bool) -> list[Row]:
        if loaded_here is not None:
            loaded_here.append(loads_here)
        return ask()

    given = {"samples": None, "temperature": None, "top_p": None, "max_tokens": None, **values}
    args = argparse.Namespace(model=model, benchmark=list(benchmarks), **given)
    return evaluate(project.warehouse, project.engines, project.recipe, args, as_run)


@pytest.fixture
def folder(project: Project, tmp_path: Path) -> str:
    """A model from elsewhere: the demo's student with another configuration."""
    shutil.copytree(project.recipe.student.model, tmp_path / "elsewhere" / "model")
    config = tmp_path / "elsewhere" / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "elsewhere": True}))
    return str(config.parent)


def aime(folder: Path, *rows: dict[str, str]) -> str:
    path = folder / "aime.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or (AIME,)))
    return f"aime25={path}"


def test_a_folder_is_entered_and_asked_what_is_missing(project: Project, folder: str) -> None:
    loaded_here = list[bool]()
    [row] = asked(project, folder, TASK, loaded_here=loaded_here)
    assert (row["model"], row["num_questions"], row["num_answers"], row["num_failed"]) == ("elsewhere/model", 3, 6, 0)
    assert loaded_here == [True]
    assert re.fullmatch(r"chain_sum-[0-9a-f]{6}", row["benchmark"])
    answers = project.read("SELECT * FROM evaluations")
    assert answers["correct"].mean() == row["accuracy"] and answers["max_tokens"].unique().to_list() == [200]
    assert row["num_cut_off"] == (answers["finish_reason"] == "length").sum()

    assert asked(project, folder, TASK) == [row] and len(project.fake.generated) == 6
    asked(project, folder, TASK, samples=5)
    assert len(set(project.fake.generated)) == len(project.fake.generated) == 15
    assert asked(project, folder, TASK) == [row]  # of the first two samples, whatever else there is

    [entered] = project.read("SELECT * FROM checkpoints").to_dicts()
    assert (entered["checkpoint_id"], entered["recipe"], entered["stage"]) == (row["checkpoint_id"], None, None)
    assert asked(project, entered["checkpoint_id"], TASK) == [row]
    assert current_checkpoints(project.warehouse, project.recipe).is_empty()


def test_the_leaderboard_is_made_with_what_was_asked(project: Project, folder: str) -> None:
    [row] = asked(project, folder, TASK)
    with project.instance() as instance:
        rank(instance, project.recipe, project.home)
        [event] = instance.fetch_materializations(dg.AssetKey("leaderboard"), limit=2).records
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["num_models"].value == 1
    assert row["checkpoint_id"] in (project.home / "reports" / "leaderboard.md").read_text(encoding="utf-8")


def test_killed_it_goes_on(project: Project, folder: str) -> None:
    project.fake.crash_after = 4
    with pytest.raises(RuntimeError, match="crashed"):
        asked(project, folder, TASK)
    stored = set(project.read("SELECT evaluation_id FROM evaluations")["evaluation_id"])
    project.fake.crash_after = None
    [row] = asked(project, folder, TASK)
    assert row["num_answers"] == 6 and project.count("checkpoints") == 1
    assert stored and stored.isdisjoint(project.fake.generated[4:])


def test_a_failed_request_counts_as_wrong_and_is_asked_again(project: Project, folder: str) -> None:
    project.fake.steady, project.fake.fails = True, lambda request_id: int(request_id, 16) % 2 == 0
    [row] = asked(project, folder, TASK, samples=4)
    failed = sum(int(key, 16) % 2 == 0 for key in project.fake.generated)
    assert 0 < row["num_failed"] == failed < 12
    assert row["accuracy"] == pytest.approx((12 - failed) / 12)
    project.fake.fails = lambda request_id: False
    asked(project, folder, TASK, samples=2)  # and what it answers is no failure among four either
    left = project.count("failed_requests")
    [stored] = project.read("SELECT num_failed, value FROM evaluation_metrics WHERE metric = 'avg@4'").rows()
    assert left < failed and stored == (left, pytest.approx((12 - left) / 12))
    [row] = asked(project, folder, TASK, samples=4)
    assert (row["num_failed"], row["accuracy"], len(project.fake.generated)) == (0, 1.0, 12 + failed)


def test_a_question_that_the_template_refuses_fails_alone(project: Project, folder: str, tmp_path: Path) -> None:
    refuse(Path(folder), "messages[0].content == 'Hm.'", "no such system prompt")
    row = {"reference_answer": "5", "verifier": "math"}
    rows = [
        {**row, "question": "The problem, which is the longest: 2 + 3 = ?", "system_prompt": "Hm."},
        {**row, "question": "What is 2 + 3?"},
    ]
    ask_of(project, tmp_path / "sums.jsonl", *rows)
    [found] = asked(project, folder, "sums")
    assert (found["num_answers"], found["num_failed"], len(project.fake.generated)) == (2, 2, 2)
    failed = project.read("SELECT kind, reason FROM failed_requests")
    assert set(failed["kind"]) == {"unsupported_question"} and "no such system prompt" in failed["reason"][0]


def test_what_no_server_took_is_told_as_incomplete(project: Project, folder: str, tmp_path: Path) -> None:
    """Also where nothing of a benchmark was answered, or nothing at all: then no figure is stored."""
    project.fake.away, project.fake.fails = True, lambda request_id: True
    [nothing] = asked(project, folder, TASK)
    assert (nothing["num_answers"], nothing["num_failed"], nothing["num_missing"]) == (0, 0, 6)
    assert "is incomplete" in shown(nothing) and nothing["metrics"] == {}
    assert project.count("evaluation_metrics") == 0

    asked_before = len(project.fake.generated)
    project.fake.fails = lambda request_id: len(project.fake.generated) > asked_before + 6
    first, second = asked(project, folder, TASK, aime(tmp_path), samples=2, max_tokens=200)
    assert (first["num_answers"], first["num_missing"]) == (6, 0) and first["metrics"]
    assert (second["benchmark"], second["num_answers"], second["num_missing"]) == ("aime25", 0, 2)


def test_a_single_question_has_no_standard_error(project: Project, folder: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"aime25: max_tokens 102,400 and .* exceed the context of .*: --max-tokens"):
        asked(project, folder, aime(tmp_path), samples=3)
    assert not project.fake.generated
    [row] = asked(project, folder, aime(tmp_path), samples=3, max_tokens=200)
    assert row["standard_error"] is None
    first, others = shown(row).splitlines()
    assert re.search(r"avg@3 [0-9.]+% \(one question\)  \(1 questions, 3 answers", first)
    assert others.startswith("  pass@1 ") and "maj@3 " in others and "repetition rate " in others
    assert row["metrics"]["avg@3"] == {"value": row["accuracy"], "standard_error": None, "num_questions": 1}
    assert project.read("SELECT metric FROM evaluation_metrics")["metric"].sort().to_list() == sorted(row["metrics"])
    assert shown({**row, "num_missing": 1}).splitlines()[1:] == []
    assert (row["samples_per_question"], row["temperature"], row["top_p"]) == (3, 1.0, 1.0)


def test_stages_of_the_recipe_keep_their_answers_and_are_asked_no_more(copy: Project) -> None:
    before = copy.read("SELECT * FROM checkpoints ORDER BY ALL")
    questions = copy.read("SELECT * FROM benchmark_questions ORDER BY ALL")
    stages = [asked(copy, name, "held_out")[0] for name in ("teacher", "student", "t060", "mixed")]
    assert copy.fake.generated == []
    [path] = before.filter(name="t060")["path"]
    assert asked(copy, str(copy.warehouse.folder(path)), "held_out") == [stages[2]]
    asked(copy, str(copy.recipe.student.model), "held_out", TASK)
    assert len(copy.fake.generated) == 6
    assert copy.read("SELECT * FROM checkpoints ORDER BY ALL").equals(before)
    stored = copy.read("SELECT * FROM benchmark_questions WHERE benchmark = 'held_out' ORDER BY ALL")
    assert stored.equals(questions)
    assert copy.run() == 0


def test_other_questions_never_take_a_name(copy: Project, tmp_path: Path) -> None:
    """Of one layout, two files; the second is named for its content, and again when it is asked again."""
    other = tmp_path / "other"
    other.mkdir()
    first = asked(copy, "student", aime(tmp_path), samples=1, max_tokens=200)
    second = asked(
        copy, "student", aime(other, AIME, {"problem": "What is 3 + 3?", "answer": "6"}), samples=1, max_tokens=200
    )
    assert first[0]["benchmark"] == "aime25" and re.fullmatch(r"aime25-[0-9a-f]{6}", second[0]["benchmark"])
    assert (
        asked(
            copy, "student", aime(other, AIME, {"problem": "What is 3 + 3?", "answer": "6"}), samples=1, max_tokens=200
        )
        == second
    )
    assert asked(copy, "student", aime(tmp_path), samples=1, max_tokens=200) == first
    assert len(copy.fake.generated) == 3


def test_an_instruction_is_asked_stored_and_part_of_the_id(project: Project, folder: str, tmp_path: Path) -> None:
    asked(project, folder, aime(tmp_path), samples=1, max_tokens=200)
    [row] = project.read("SELECT instruction, evaluation_id FROM evaluations").to_dicts()
    [question] = project.read("SELECT question, instruction FROM benchmark_questions").to_dicts()
    assert row["instruction"] == question["instruction"] and r"\boxed{}" in row["instruction"]
    assert asked_as(**question) == f"What is 2 + 3?\n\n{row['instruction']}"
    assert asked_as("Q?", "Look at {question} and box it: {}") == "Look at Q? and box it: {}"
    assert asked_as("Q?", None) == "Q?"


def test_an_answer_without_instruction_has_the_id_that_it_always_had() -> None:
    row = {"checkpoint_id": "c1", "benchmark": "b", "temperature": 1.0, "top_p": 1.0, "max_tokens": 50}
    row |= {"question_id": "q1", "sample_index": 0, "verifier_version": "2", "template_version": "t"}
    assert evaluation_id(row) == evaluation_id({**row, "instruction": None}) == KNOWN
    assert evaluation_id({**row, "instruction": "Answer."}) != KNOWN


KNOWN = "a9293e640359c04e584ce02d1843344e"  # of the release before there were instructions


def test_a_model_that_is_served_comes_in_a_file(project: Project, tmp_path: Path) -> None:
    described = tmp_path / "served.yaml"
    server = "{base_urls: ['http://localhost:1/v1'], model: m, revision: r1}"
    text = f"model: {project.recipe.student.model}\nengine: openai\ndtype: bfloat16\nserver: {server}\n"
    described.write_text(text)
    loaded_here = list[bool]()
    [row] = asked(project, str(described), TASK, loaded_here=loaded_here)
    assert (row["model"], row["num_answers"], loaded_here) == ("served", 6, [False])
    assert asked(project, row["checkpoint_id"], TASK) == [row] and len(project.fake.generated) == 6
    described.write_text(text.replace("dtype", "dtipe"))
    with pytest.raises(RecipeError, match=r"served.yaml: dtipe: Extra inputs are not permitted; did you mean dtype"):
        asked(project, str(described), TASK)


def test_a_folder_that_holds_another_model_by_now_is_not_asked_as_the_first(project: Project, folder: str) -> None:
    [row] = asked(project, folder, TASK)
    config = Path(folder) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "elsewhere": 2}))
    with pytest.raises(RecipeError, match=f"{folder} holds model [0-9a-f]+ now; give that folder to evaluate it"):
        asked(project, str(row["checkpoint_id"]), TASK)
    assert asked(project, folder, TASK)[0]["checkpoint_id"] != row["checkpoint_id"]


@pytest.mark.parametrize(
    ("benchmark", "told"),
    [
        ("aime25", "no benchmark of recipe tiny (held_out), no layout with its file (aime24=FILE"),
        ("aime25=none.jsonl", "there is no such file; put one there, as downloaded (math-ai/aime25"),
        ("reasoning_gym:chain_sum,seed", "'seed' must be an option and its value, as in seed=1"),
        ("reasoning_gym:chain_sum,min_terms=[", "'min_terms=[': the value is no YAML"),
        ("reasoning_gym:chain_sum,num_questions=0", "num_questions: Input should be greater than or equal to 1"),
        ("reasoning_gym:nothing", "unknown verifier"),
    ],
)
def test_a_benchmark_that_there_is_not(project: Project, benchmark: str, told: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(told)):
        named_benchmark(project.recipe, benchmark, None)


def test_a_model_that_cannot_be_asked_says_what_to_do(
    project: Project, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(project.home))
    (Path(folder) / "chat_template.jinja").unlink()
    for model, told in (
        (folder, "it has no chat template; add its instruct version's chat_template.jinja"),
        ("nobody/nothing", "run `hf download nobody/nothing` or give the path of a model folder"),
        (f"{folder}/none", f"no folder {folder}/none; give the path of a model folder or the name of a hub model"),
    ):
        assert main(["evaluate", model, "--benchmark", TASK]) == 2
        assert told in capsys.readouterr().err
    assert project.count("checkpoints") == project.count("evaluations") == project.count("benchmark_questions") == 0


def test_a_benchmark_of_a_recipe_may_have_an_instruction(project: Project) -> None:
    [held_out] = project.recipe.evaluation.benchmarks
    values = {**held_out.model_dump(), "instruction": "Answer: {question}"}
    instructed = change(project.recipe, "evaluation.benchmarks", [values])
    assert instructed.version("evaluation") != project.recipe.version("evaluation")
    rows = question_rows(instructed.evaluation.benchmarks[0])
    assert {row["instruction"] for row in rows} == {"Answer: {question}"}
    assert [row["question_id"] for row in rows] == [row["question_id"] for row in question_rows(held_out)]


def test_an_instruction_that_a_recipe_adds_is_asked_anew_and_alone_counts(copy: Project) -> None:
    [held_out] = copy.recipe.evaluation.benchmarks
    before = sampled_answers(copy.warehouse, copy.recipe)
    values = {**held_out.model_dump(), "instruction": "Say: {question}"}
    copy.recipe = change(copy.recipe, "evaluation.benchmarks", [values])
    copy.materialize("benchmark_questions,evaluations")
    assert len(copy.fake.generated) == copy.read("SELECT * FROM evaluations WHERE instruction IS NOT NULL").height
    assert copy.count("evaluations") == 2 * len(copy.fake.generated)
    after = sampled_answers(copy.warehouse, copy.recipe)
    assert after.height == before.height and set(after["answer_id"]).isdisjoint(before["answer_id"])
    assert set(after["question"]) == {f"Say: {question}" for question in before["question"]}
    assert checkpoint_accuracy(copy.warehouse, copy.recipe)["num_answers"].unique().to_list() == [10]


def test_where_constraints_change_stored_answers_are_judged_again_and_no_model_is_asked(
    project: Project, folder: str, tmp_path: Path
) -> None:
    """A word that no answer has, demanded and then forbidden; back again, nothing is left to judge."""
    project.fake.steady = True  # every response has an answer
    rules = ("keywords:existence", {"keywords": ["zzz"]}), ("keywords:forbidden_words", {"forbidden_words": ["zzz"]})
    for (rule, given), accuracy, num_verdicts in ((rules[0], 0.0, 2), (rules[1], 1.0, 4), (rules[0], 0.0, 4)):
        judge = {"verifier": "constraint", "instruction_id_list": [rule], "kwargs": [given]}
        ask_of(project, tmp_path / "rules.jsonl", *({"question": f"Say {word}.", **judge} for word in ("a", "b")))
        [row] = asked(project, folder, "rules", samples=1)
        assert (row["num_answers"], row["accuracy"]) == (2, accuracy)
        assert set(figures(project, "elsewhere/model").values()) == {accuracy}
        assert (len(project.fake.generated), project.count("evaluations")) == (2, num_verdicts)
        assert project.faults("evaluations") == []
    assert list(verify(project.warehouse)) == []


def figures(project: Project, name: str) -> dict[str, float]:
    """A model's accuracy on `held_out` wherever it is shown."""
    [identity] = project.read("SELECT checkpoint_id FROM checkpoints WHERE name = $name", name=name)["checkpoint_id"]
    [stored] = project.read(
        """SELECT value FROM evaluation_metrics WHERE checkpoint_id = $id
            AND starts_with(metric, 'avg@') QUALIFY num_samples = max(num_samples) OVER ()""",
        id=identity,
    )["value"]
    with project.warehouse.reading() as reading:
        [audited] = accuracies(reading, [identity])[identity]
        [row] = compared(reading, Compared("a", {None: identity}), Compared("b", {None: identity}))
    [ranked] = standings(project.warehouse).filter(checkpoint_id=identity)["accuracy"]
    return {"metrics": stored, "audit": audited["accuracy"], "compare": row["accuracy"]["a"], "leaderboard": ranked}


def test_only_answers_to_the_last_prompt_count_and_the_first_prompt_can_be_had_again(copy: Project) -> None:
    [before] = asked(copy, "t100", "held_out")
    first, of_t100 = copy.recipe, f"checkpoint_id = '{before['checkpoint_id']}'"
    [template] = copy.read(f"SELECT DISTINCT template_version FROM evaluations WHERE {of_t100}")["template_version"]
    with copy.warehouse.commit("test") as transaction:
        transaction.read("UPDATE evaluations SET correct = FALSE")
    copy.recipe = change(first, "student.system_prompt", "Think.")
    copy.fake.crash_after = 4
    with pytest.raises(RuntimeError, match="crashed"):
        asked(copy, "t100", "held_out")
    assert checkpoint_accuracy(copy.warehouse, copy.recipe).filter(checkpoint="t100")["num_missing"].item() > 0

    copy.fake.crash_after = None
    asked(copy, "t100", "held_out")
    with copy.warehouse.commit("test") as transaction:
        transaction.read(f"UPDATE evaluations SET correct = TRUE WHERE template_version <> '{template}'")
    [after] = asked(copy, "t100", "held_out")
    assert (after["num_answers"], after["accuracy"]) == (before["num_answers"], 1.0)
    assert set(figures(copy, "t100").values()) == {1.0}

    num_asked = len(copy.fake.generated)
    copy.recipe = first
    [again] = asked(copy, "t100", "held_out")
    assert (again["num_answers"], again["accuracy"]) == (before["num_answers"], 0.0)
    assert set(figures(copy, "t100").values()) == {0.0} and len(copy.fake.generated) == num_asked


def test_figures_of_more_samples_to_an_earlier_prompt_are_withdrawn(copy: Project) -> None:
    query = "SELECT DISTINCT num_samples FROM evaluation_metrics JOIN checkpoints USING (checkpoint_id)"
    query += " WHERE name = 't100' ORDER BY num_samples"
    first = copy.recipe
    asked(copy, "t100", "held_out", samples=1)
    assert copy.read(query)["num_samples"].to_list() == [1, 2]
    copy.recipe = change(first, "student.system_prompt", "Think.")
    [row] = asked(copy, "t100", "held_out", samples=1)
    assert copy.read(query)["num_samples"].to_list() == [1]
    assert set(figures(copy, "t100").values()) == {row["accuracy"]}
    asked(copy, "t100", "held_out", samples=2)
    assert copy.read(query)["num_samples"].to_list() == [1, 2]
