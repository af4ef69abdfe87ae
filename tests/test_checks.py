"""Every check passes on sound data, fails on planted data, and then says what to look at."""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import polars as pl
import pytest
from conftest import Project, change

from dasd_assets.checks import build
from dasd_assets.checks.findings import Check, Scope, share
from dasd_assets.checks.of_batches import batch_checks, teacher_sentence_share
from dasd_assets.checks.of_training import accuracy_change, later_checks
from dasd_assets.records.partitions import PROMPT_BATCH
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.service.gates import gates
from dasd_assets.withdrawals import withdraw
from dasd_resources.recipe import Checks, Recipe

LENIENT = {
    "max_duplicate_response_share": 1.0,
    "max_drop_share": dict.fromkeys(FILTERS, 1.0),
    "min_teacher_sentence_share": 0.0,
    "max_teacher_sentence_share": 1.0,
    "max_accuracy_drop": 9.0,
}
STRICT = {
    "max_duplicate_question_share": 0.0,
    "max_rejected_line_share": 0.0,
    "max_duplicate_response_share": 0.0,
    "max_failed_request_share": 0.0,
    "max_drop_share": dict.fromkeys(LENIENT["max_drop_share"], 0.0),  # type: ignore[call-overload]
    "min_teacher_sentence_share": 1.0,
    "max_accuracy_drop": 0.0,
}


def named(checks: list[Check], asset: str, name: str) -> Check:
    (found,) = [check for check in checks if (check.asset, check.name) == (asset, name)]
    return found


def limited(project: Project, limits: dict[str, object]) -> Recipe:
    recipe = project.recipe
    for key, value in limits.items():
        recipe = change(recipe, f"checks.{key}", value)
    return recipe


def scope(project: Project, recipe: Recipe) -> Scope:
    with project.instance() as instance:
        batch = sorted(instance.get_dynamic_partitions(str(PROMPT_BATCH.name)))[0]
    return Scope(project.warehouse, project.engines, recipe, batch)


def plant(project: Project, query: str) -> None:
    with project.warehouse.commit("planted") as transaction:
        transaction._connection.execute(query)


def test_a_share_above_its_limit_says_what_to_look_at() -> None:
    assert share(1, 10, 0.1, "rows are bad", "checks.x", "Look here").passed
    finding = share(2, 10, 0.1, "rows are bad", "checks.x", "Look here")
    assert not finding.passed
    assert finding.message == "2 of 10 rows are bad (20.0%; limit 10.0%, recipe key checks.x). Look here"
    nothing = share(0, 0, 0.0, "rows", "checks.x", "")
    assert nothing.passed and "share" not in nothing.figures


def test_teacher_sentences_may_be_too_few_or_too_many() -> None:
    limits = Checks(min_teacher_sentence_share=0.1, max_teacher_sentence_share=0.9)
    assert teacher_sentence_share(5, 10, limits).passed
    assert teacher_sentence_share(0, 0, limits).passed
    few, many = teacher_sentence_share(0, 10, limits), teacher_sentence_share(10, 10, limits)
    assert (few.passed, many.passed) == (False, False)
    assert "selection.divergence.threshold" in few.message
    assert "chat templates" in many.message


NAMES = ("t100", "t060")


def answers(*correct: tuple[str, list[bool]]) -> pl.DataFrame:
    rows = [("math", 1.0, question, right) for question, samples in correct for right in samples]
    return pl.DataFrame(rows, schema=["benchmark", "temperature", "question_id", "correct"], orient="row")


def test_accuracy_is_compared_question_by_question() -> None:
    """Changes of 0 twice and -0.5 six times: mean -0.375, over 8 questions an error of 0.0818, of which it is 4.6."""
    before = answers(*[(q, [True, True]) for q in "abcdefgh"])
    after = answers(*[(q, [True, True]) for q in "ab"], *[(q, [True, False]) for q in "cdefgh"])
    assert accuracy_change(before, after, "t100", "t060", limit=4.7).passed
    finding = accuracy_change(before, after, "t100", "t060", limit=4.5)
    assert not finding.passed
    assert finding.figures == {"math, T=1": "-37.5 ± 8.2 points (8 questions; could have seen 26.7)"}
    assert "checkpoint_t100's loss" in finding.message
    assert "significantly, by more than 4.5 standard errors" in finding.message
    assert accuracy_change(after, before, "t100", "t060", limit=0.0).passed  # better
    alike = accuracy_change(answers(("a", [True]), ("b", [True])), answers(("a", [False]), ("b", [False])), *NAMES, 2.0)
    assert not alike.passed and "t100 answers worse than t060 on math, T=1, on each question" in alike.message


def test_a_drop_that_chance_or_the_number_of_benchmarks_explains_does_not_warn() -> None:
    """3 questions at 2 standard errors: p = 0.18 by Student's t. And one benchmark of ten, the others unchanged."""
    few = (
        answers(*[(q, [True, True]) for q in "abc"]),
        answers(("a", [True, True]), ("b", [True, False]), ("c", [True, False])),
    )
    assert accuracy_change(*few, "t100", "t060", limit=1.9).passed  # 0.333 of 0.167
    before, after = (
        answers(*[(q, [True]) for q in "abcdefgh"]),
        answers(*[(q, [True]) for q in "abcd"], *[(q, [False]) for q in "efgh"]),
    )
    alone = accuracy_change(before, after, "t100", "t060", limit=2.0)
    others = [after.with_columns(benchmark=pl.lit(f"other{n}")) for n in range(9)]
    moved = [rows.with_columns(correct=pl.col("correct").reverse()) for rows in others]  # better at four, worse at four
    among = accuracy_change(pl.concat([before, *others]), pl.concat([after, *moved]), "t100", "t060", limit=2.0)
    assert (alone.passed, among.passed) == (False, True)


def test_nothing_evaluated_is_no_drop() -> None:
    assert accuracy_change(answers(), answers(), "t060", "student", 0.0).message == (
        "nothing to compare: t060 and student have answered no question in common yet"
    )


@pytest.fixture(scope="module")
def checks(finished: Project) -> list[Check]:
    return [*batch_checks(finished.recipe), *later_checks(finished.recipe)]


def test_all_pass_on_a_finished_home_with_lenient_limits(finished: Project, checks: list[Check]) -> None:
    look = scope(finished, limited(finished, LENIENT))
    failed = {f"{check.asset}:{check.name}": check.evaluate(look).message for check in checks}
    assert {key for key, check in zip(failed, checks, strict=True) if not check.evaluate(look).passed} == set()
    assert len(checks) == 2 + 2 * 2 + len(FILTERS) + 1 + 1 + 2 + 3


@pytest.fixture(scope="module")
def spoilt(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The finished home, copied, with something wrong in every table."""
    import shutil

    home = tmp_path_factory.mktemp("spoilt") / "home"
    shutil.copytree(finished.home, home)
    project = Project(home, finished.recipe)
    batch = scope(project, project.recipe).batch
    plant(
        project,
        f"""INSERT INTO rejected_prompts (batch, source_file, source_line, kind, reason)
            VALUES ('{batch}', 'a.jsonl', 2, 'duplicate', 'r'), ('{batch}', 'a.jsonl', 3, 'invalid_json', 'r');
        INSERT INTO failed_requests (request_id, asset, batch, reason, failed_at) VALUES
            ('x', 'responses', '{batch}', 'out of memory', now()), ('y', 'student_logprobs', '{batch}', 'oom', now());
        DELETE FROM responses WHERE response_id IN (SELECT min(response_id) FROM responses GROUP BY temperature, batch);
        UPDATE responses SET text = 'same';
        UPDATE response_verdicts SET passed = FALSE, kind = 'cut_off', reason = 'planted' WHERE response_id < '8';
        DELETE FROM student_logprobs WHERE response_id NOT IN (SELECT response_id FROM selected_responses);
        UPDATE sentence_types SET sentence_type = 'close';
        DELETE FROM student_rollouts WHERE rollout_id = (SELECT min(rollout_id) FROM student_rollouts);
        DELETE FROM teacher_continuations;
        UPDATE evaluations SET correct = FALSE WHERE checkpoint_id IN (
            SELECT checkpoint_id FROM checkpoints WHERE name IN ('t060', 'mixed'));
        UPDATE evaluations SET correct = TRUE WHERE checkpoint_id IN (
            SELECT checkpoint_id FROM checkpoints WHERE name IN ('student', 't100'))""",
    )
    yield project


def test_each_fails_on_planted_data_and_names_the_remedy(spoilt: Project, checks: list[Check]) -> None:
    look = scope(spoilt, limited(spoilt, STRICT))
    findings = {(check.asset, check.name): check.evaluate(look) for check in checks}
    passed = {key for key, finding in findings.items() if finding.passed}
    assert passed == {("evaluations", "accuracy_t100_not_below_t060")}  # it got better
    for key, finding in findings.items():
        assert key in passed or ". " in finding.message or ") " in finding.message, key
    assert "out of memory" in findings["teacher_generations_t060", "failed_requests"].message
    unscored = findings["student_logprobs", "failed_requests"]
    assert 0 < int(unscored.figures["count"]) < int(unscored.figures["total"]) == num_accepted(spoilt, look.batch)
    assert "oom" in unscored.message
    assert "FROM rejected_prompts" in findings["prompts", "duplicate_questions"].message


def test_what_is_asked_no_more_is_no_failed_request_and_hides_none(copy: Project) -> None:
    """One question is withdrawn, one beyond its quota; both were answered. Of a third one a response is missing."""
    recipe = change(limited(copy, STRICT), "generation.questions_per_domain", {"math": 1})
    look = scope(copy, recipe)
    prompts = copy.read("SELECT prompt_id FROM prompts WHERE batch = $batch ORDER BY ALL", batch=look.batch)
    withdrawn, beyond, failed, *others = prompts["prompt_id"]
    withdraw(copy.warehouse, [withdrawn], [], "a claim")
    plant(
        copy,
        f"""INSERT INTO asked_prompts BY NAME
            SELECT '{recipe.name}' AS recipe, prompt_id, batch, FALSE AS asked, 1 AS place
            FROM prompts WHERE prompt_id IN ('{withdrawn}', '{beyond}');
        DELETE FROM responses WHERE prompt_id = '{failed}' AND temperature = 0.6 AND sample_index = 0""",
    )
    check = named(batch_checks(recipe), "teacher_generations_t060", "failed_requests")
    found = [check.evaluate(look).figures]
    plant(copy, f"DELETE FROM prompts WHERE prompt_id = '{withdrawn}'")  # as when it is made again
    found.append(check.evaluate(look).figures)
    assert [(one["count"], one["total"]) for one in found] == [(1, 2 * len([failed, *others]))] * 2


def test_a_file_of_which_no_line_became_a_question_warns(spoilt: Project) -> None:
    """Whatever its lines were rejected for: here as repeats of earlier questions, which are no malformed lines."""
    look = replace(scope(spoilt, limited(spoilt, LENIENT)), batch="rejected-whole")
    plant(
        spoilt,
        """INSERT INTO rejected_prompts (batch, source_file, source_line, kind, reason)
            SELECT 'rejected-whole', 'a.jsonl', unnest([1, 2]), 'duplicate', 'r'""",
    )
    found = named(batch_checks(look.recipe), "prompts", "rejected_lines").evaluate(look)
    assert not found.passed
    assert found.message.startswith("no line of it became a question: `2 duplicate`. ")


def num_accepted(project: Project, batch: str) -> int:
    """Responses of a batch that no quality filter dropped: what the student is to score."""
    query = """SELECT count(*) FROM (SELECT response_id FROM response_verdicts JOIN responses USING (response_id)
        WHERE filter <> 'correctness' AND response_verdicts.batch = $batch GROUP BY ALL HAVING bool_and(passed))"""
    return int(project.read(query, batch=batch).item())


def test_checks_run_with_their_batch_and_warn(spoilt: Project) -> None:
    """One step evaluates the checks of what was materialized, for its batch, and no failed check fails the run."""
    with spoilt.instance() as instance:
        look = scope(spoilt, limited(spoilt, STRICT))
        definitions = replace(spoilt, recipe=look.recipe, warns=True).definitions
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("sentence_types"), dg.AssetKey("response_scores")],
            partition_key=look.batch,
        )
        (evaluation,) = result.get_asset_check_evaluations()
    assert result.success
    assert evaluation.asset_check_key == dg.AssetCheckKey(dg.AssetKey("sentence_types"), "teacher_sentence_share")
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert evaluation.partition == look.batch


def test_without_a_batch_they_say_what_to_do_and_no_gate_moves(copy: Project) -> None:
    """As by "Execute all" in the web UI, which names no batch."""
    copy.warns = True
    asset = dg.AssetKey("student_logprobs")
    with copy.instance() as instance:
        job = copy.definitions.resolve_implicit_global_asset_job_def()
        graph = copy.definitions.resolve_asset_graph()
        before = gates(instance, graph, [asset])
        selection = {dg.AssetCheckKey(asset, "failed_requests"), dg.AssetCheckKey(asset, "engine_parity")}
        part = job.get_subset(asset_check_selection=selection)
        result = part.execute_in_process(instance=instance, raise_on_error=False)
        after = gates(instance, graph, [asset])
    failures = [event.step_failure_data.error_display_string for event in result.get_step_failure_events()]
    assert len(failures) == 2
    assert all("choose batches in the asset's Materialize dialog" in told for told in failures)
    passed = after["student_logprobs"]["engine_parity"]
    assert {batch: done for batch, done in passed.items() if batch} == before["student_logprobs"]["engine_parity"]


def test_names_are_unique_and_described(finished: Project) -> None:
    specs = [spec for definition in build(finished.recipe) for spec in definition.check_specs]
    assert len({spec.key for spec in specs}) == len(specs)
    assert all(spec.description for spec in specs)
