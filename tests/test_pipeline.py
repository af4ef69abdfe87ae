"""The whole graph on the fake engine: contract, incrementality counted in engine calls, crashes and bad input."""

import shutil
from math import ceil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Project, change, prompt_rows
from raised_rule import raise_version
from safetensors.torch import load_file, save_file

from dasd_assets.cli import main
from dasd_assets.commands.run import RunFailed
from dasd_assets.commands.summary import summary
from dasd_assets.records.materializations import latest_materializations, metadata_of
from dasd_assets.records.partitions import batches
from dasd_assets.rules import sentence_table
from dasd_assets.rules.checkpoints import current_checkpoints
from dasd_assets.rules.filters.catalogue import FILTERING
from dasd_assets.rules.sentences import SEGMENTER, edges, sentence_spans
from dasd_assets.service.lost_tables import LostTables
from dasd_assets.service.staleness import comparison
from dasd_resources.recipe import Recipe
from dasd_resources.storage.schema import migrate

CONTRACT = {
    "prompts": "prompt_id batch domain question reference_answer verifier source_file source_line",
    "rejected_prompts": "source_file source_line kind reason prompt_id owner_batch",
    "responses": "response_id prompt_id batch temperature sample_index seed teacher_fingerprint text token_ids "
    "logprobs offsets finish_reason",
    "response_verdicts": "response_id filter passed kind reason value filter_version",
    "student_tokens": "response_id student_fingerprint num_prompt_tokens token_ids offsets kind reason",
    "student_logprobs": "response_id student_fingerprint logprobs",
    "sentence_probabilities": "response_id student_fingerprint sentence_index start stop teacher_sum_logprob "
    "teacher_num_tokens student_sum_logprob student_num_tokens teacher_prob student_prob segmenter_version",
    "sentence_types": "response_id student_fingerprint sentence_index sentence_type threshold_version",
    "response_scores": "response_id student_fingerprint score_name score",
    "selected_responses": "dataset policy response_id rank score",
    "sft_examples": "dataset policy example_id response_id continuation_id input_ids labels",
    "checkpoints": "checkpoint_id name stage parent_checkpoint_id dataset snapshot_id path content_hash",
    "evaluations": "checkpoint_id benchmark temperature question_id sample_index correct response_text num_tokens",
    "student_rollouts": "rollout_id",
    "prefix_cuts": "rollout_id cut_token cut_char seed",
    "teacher_continuations": "continuation_id rollout_id prefix_text continuation_text",
    "continuation_tokens": "continuation_id student_fingerprint num_prompt_tokens token_ids offsets kind reason",
    "continuation_verdicts": "continuation_id",
}
KEYS = {
    "prompts": "prompt_id",
    "responses": "response_id",
    "response_verdicts": "response_id filter filter_version",
    "student_tokens": "response_id student_fingerprint",
    "student_logprobs": "response_id student_fingerprint",
    "sentence_probabilities": "response_id student_fingerprint sentence_index segmenter_version",
    "sentence_types": "response_id student_fingerprint sentence_index threshold_version",
    "response_scores": "response_id student_fingerprint score_name threshold_version",
    "selected_responses": "recipe dataset policy response_id",
    "sft_examples": "recipe dataset policy example_id",
    "student_rollouts": "rollout_id",
    "prefix_cuts": "rollout_id cut_version",
    "teacher_continuations": "continuation_id",
    "continuation_tokens": "continuation_id student_fingerprint",
    "continuation_verdicts": "continuation_id filter filter_version",
    "evaluations": "evaluation_id",
}
GENERATIONS = ("teacher_generations_t060", "teacher_generations_t100")


@pytest.mark.parametrize("table", CONTRACT)
def test_every_table_of_the_contract_has_its_columns(finished: Project, table: str) -> None:
    rows = finished.read(f"SELECT * FROM {table}")
    assert set(CONTRACT[table].split()) <= set(rows.columns)
    assert rows.height > 0 or table == "rejected_prompts"


@pytest.mark.parametrize("table", KEYS)
def test_every_key_occurs_once(finished: Project, table: str) -> None:
    assert not finished.read(f"SELECT {KEYS[table].replace(' ', ', ')} FROM {table}").is_duplicated().any()


def test_token_lists_are_aligned(finished: Project) -> None:
    of_student = """SELECT t.token_ids[t.num_prompt_tokens + 1 :], s.logprobs, t.offsets, r.text
        FROM student_logprobs s JOIN student_tokens t USING (response_id, student_fingerprint)
            JOIN responses r USING (response_id)"""
    for query in ("SELECT token_ids, logprobs, offsets, text FROM responses", of_student):
        assert finished.read(query).height > 0
        for token_ids, logprobs, offsets, text in finished.read(query).iter_rows():
            assert len(token_ids) == len(logprobs) == len(offsets)
            assert all(-1 <= offset < len(text) for offset in offsets)


def test_sentence_sums_and_the_unattributed_rest_are_the_responses_sum(finished: Project) -> None:
    query = """SELECT r.text, r.logprobs, r.offsets, s.logprobs AS student_logprobs, t.offsets AS student_offsets,
            sum(p.teacher_sum_logprob) AS teacher_sum, sum(p.student_sum_logprob) AS student_sum
        FROM responses r JOIN student_logprobs s USING (response_id) JOIN student_tokens t USING (response_id)
        JOIN sentence_probabilities p USING (response_id) GROUP BY ALL"""
    rows = finished.read(query)
    assert rows.height > 20
    for row in rows.iter_rows(named=True):
        where = edges(row["text"], sentence_spans(row["text"]))
        for total, logprobs, offsets in (
            (row["teacher_sum"], row["logprobs"], row["offsets"]),
            (row["student_sum"], row["student_logprobs"], row["student_offsets"]),
        ):
            owner = where.attribute(offsets)
            rest = np.asarray(logprobs, np.float64)[owner < 0].sum()
            assert total + rest == pytest.approx(np.asarray(logprobs, np.float64).sum(), abs=1e-6)


def test_the_control_has_the_selections_size_and_questions(finished: Project) -> None:
    chosen = finished.read("SELECT * FROM selected_responses WHERE dataset <> 'mixed'")
    assert chosen.height > 0
    for (_, _), part in chosen.group_by("dataset", "domain"):
        das, random = (part.filter(policy=policy) for policy in ("das", "random"))
        assert sorted(das["prompt_id"]) == sorted(random["prompt_id"])
        assert sorted(das["rank"]) == sorted(random["rank"]) == list(range(1, das.height + 1))


def test_labels_carry_loss_on_the_response_alone(finished: Project) -> None:
    query = """SELECT e.input_ids, e.labels, len(l.logprobs) FROM sft_examples e JOIN student_logprobs l
        USING (response_id) WHERE e.continuation_id IS NULL"""
    rows = finished.read(query)
    assert rows.height > 0
    for input_ids, labels, num_scored in rows.iter_rows():
        assert labels == [-100] * (len(input_ids) - num_scored) + input_ids[-num_scored:]


def test_stages_form_a_chain(finished: Project) -> None:
    rows = {row["name"]: row for row in finished.read("SELECT * FROM checkpoints").to_dicts()}
    for name, parent in (("t060", "student"), ("t100", "t060"), ("mixed", "t100")):
        assert rows[name]["parent_checkpoint_id"] == rows[parent]["checkpoint_id"]
        query = "SELECT count(*) AS n FROM sft_examples WHERE dataset = $dataset AND policy = 'das'"
        then = finished.warehouse.read(query, {"dataset": rows[name]["dataset"]}, at=rows[name]["snapshot_id"])
        assert then.item() == rows[name]["num_examples"]


def test_only_cut_off_rollouts_are_cut_beyond_half(finished: Project) -> None:
    query = "SELECT r.*, c.cut_token, c.cut_char FROM student_rollouts r LEFT JOIN prefix_cuts c USING (rollout_id)"
    rows = finished.read(query)
    assert rows["cut_off"].any()
    for row in rows.iter_rows(named=True):
        assert row["max_tokens"] == ceil(1.5 * row["reference_num_tokens"])
        if not row["cut_off"]:
            assert row["cut_token"] is None
        else:
            assert len(row["token_ids"]) == row["max_tokens"]
            assert len(row["token_ids"]) / 2 <= row["cut_token"] < len(row["token_ids"])
            assert row["cut_char"] == row["offsets"][row["cut_token"]]


def test_a_continuation_goes_on_from_its_prefix(finished: Project) -> None:
    for row in finished.read("SELECT * FROM teacher_continuations").iter_rows(named=True):
        assert row["text"].startswith(row["prefix_text"].rstrip())
        assert row["text"].endswith(row["continuation_text"])


def test_the_summary_tells_all_of_it(finished: Project) -> None:
    with finished.instance() as instance:
        page = summary(instance, finished.definitions, finished.warehouse, finished.engines, finished.recipe)
    assert all(
        title in page for title in ("Rows", "Responses dropped", "\n  mixed  ", "Time per stage", "checkpoint_t060")
    )


def test_a_second_run_does_nothing(copy: Project) -> None:
    assert copy.run() == 0
    assert (copy.fake.generated, copy.fake.scored, copy.fake.trained) == ([], [], [])


def test_a_new_segmenter_never_scores_again(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before, responses = copy.count("sentence_probabilities"), ids(copy, "responses", "response_id")
    raise_version(monkeypatch, "SEGMENTER_VERSION", SEGMENTER, "whole bodies")
    monkeypatch.setattr(sentence_table, "sentence_spans", whole_bodies)
    copy.run()
    assert copy.fake.scored == []
    assert not set(copy.fake.generated) & responses
    assert {"sentence_probabilities", "sentence_types", "response_scores"} <= copy.materialized
    assert not copy.materialized & {"student_logprobs", *GENERATIONS}
    counts = copy.read("SELECT segmenter_version, count(*) FROM sentence_probabilities GROUP BY ALL ORDER BY ALL")
    [(_, old), (version, new)] = counts.rows()
    assert (old, version) == (before, "whole bodies")
    assert new == 2 * copy.count("student_logprobs")


def test_changed_filters_judge_and_select_anew_and_the_mixed_dataset_keeps_its_rows(
    copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected = {"selected_responses_t060", "selected_responses_t100", "random_responses"}
    mixed, num_verdicts = copy.count("sft_examples WHERE dataset = 'mixed'"), copy.count("continuation_verdicts")
    assert mixed > 0
    raise_version(monkeypatch, "FILTER_VERSION", FILTERING, "raised")
    copy.run()
    assert copy.fake.generated == copy.fake.scored == copy.fake.trained == []
    assert {"response_verdicts", "continuation_verdicts", "mixed_policy_dataset", *selected} <= copy.materialized
    assert copy.count("continuation_verdicts") == 2 * num_verdicts
    assert copy.count("sft_examples WHERE dataset = 'mixed'") == mixed


def whole_bodies(text: str) -> list[tuple[int, int]]:
    """Spans of a segmenter to which the thinking is one sentence, and the answer another."""
    found: list[tuple[int, int]] = []
    for start, stop in sentence_spans(text):
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, stop))
    return found


@pytest.mark.drill
def test_another_name_is_another_recipe_of_the_same_home(copy: Project) -> None:
    """What is under the recipe's name is made anew from what is there: nothing is generated, scored or trained."""
    copy.recipe = change(copy.recipe, "name", "renamed")
    copy.run()
    assert (copy.fake.generated, copy.fake.scored, copy.fake.trained) == ([], [], [])
    for table in ("checkpoints", "selected_responses", "sft_examples"):
        counts = copy.read(f"SELECT count(*) AS n FROM {table} GROUP BY recipe")
        assert counts["n"].to_list() == [counts["n"][0]] * 2, table
    copy.recipe = change(copy.recipe, "training.epochs", copy.recipe.training.epochs + 1)
    copy.run()
    assert [job.record["dataset"] for job in copy.fake.trained] == ["t060", "t100", "mixed"]
    assert copy.run() == 0


def test_tables_that_are_gone_are_told(
    copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (copy.home / name).unlink(missing_ok=True)
    migrate.cache_clear()
    with pytest.raises(LostTables, match="restore a backup"):
        copy.run()
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    assert main(["backup", str(tmp_path / "backups")]) != 0
    assert "the tables are empty" in capsys.readouterr().err


def test_more_candidates_generate_exactly_the_other_half(copy: Project) -> None:
    before = ids(copy, "responses", "response_id")
    copy.recipe = change(copy.recipe, "generation.num_candidates", 4)
    with copy.instance() as instance:
        found = comparison(instance, copy.definitions, batches(instance), {}).found
    pools = {"student_logprobs", "selected_responses_t060", "selected_responses_t100", "random_responses"}
    changed = {s.asset for s in found if s.reason == "code or recipe changed"}
    assert changed == {*GENERATIONS, *pools, "heldout_losses", "published_dataset", "distillation_report"}
    copy.materialize(",".join(GENERATIONS))
    after = ids(copy, "responses", "response_id")
    assert before < after
    assert len(after) == 2 * len(before)
    assert sorted(copy.fake.generated) == sorted(after - before)


def test_a_new_temperature_is_a_new_set_and_a_new_stage(copy: Project, lean: Recipe) -> None:
    before = ids(copy, "responses", "response_id")
    copy.recipe = change(lean, "generation.temperatures", [0.6, 0.8, 1.0])
    copy.recipe = change(copy.recipe, "mixed_policy.length_cap", 1.0)  # or no rollout may be cut off
    copy.run()
    new = copy.read("SELECT response_id, temperature FROM responses").filter(~pl.col("response_id").is_in(list(before)))
    assert set(new["temperature"]) == {0.8}
    assert new.height == 15 * 2
    assert set(copy.fake.generated) & ids(copy, "responses", "response_id") == set(new["response_id"])
    assert [job.record["dataset"] for job in copy.fake.trained] == ["t080", "t100", "mixed"]  # not t060
    stages = current_checkpoints(copy.warehouse, copy.recipe).select("name", "stage").rows()
    assert stages == [("teacher", None), ("student", 0), ("t060", 1), ("t080", 2), ("t100", 3), ("mixed", 4)]
    assert {f"checkpoint_{name}" for name in ("t060", "t080", "t100", "mixed")} <= copy.materialized


def test_a_changed_teacher_starts_a_new_set_beside_the_old(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(project.recipe.teacher.model, folder)
    project.recipe = change(project.recipe, "teacher.model", str(folder))
    project.land("a.jsonl", prompt_rows(0, 2))
    project.materialize("teacher_model,held_out_questions,prompts,teacher_generations_t060")
    before = project.read("SELECT * FROM responses ORDER BY response_id")
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    project.materialize("teacher_model,teacher_generations_t060")
    after = project.read("SELECT * FROM responses ORDER BY response_id")
    assert after.filter(pl.col("response_id").is_in(before["response_id"].implode())).equals(before)
    assert after.height == 2 * before.height == 8
    assert after["teacher_fingerprint"].n_unique() == 2


def test_a_crash_loses_nothing_that_was_finished(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    selection = ",".join(["teacher_model", "prompts", *GENERATIONS])
    project.fake.crash_after = 25
    with pytest.raises(RunFailed, match=r"teacher_generations_t\d+: .*crashed after 25 results"):
        project.materialize(selection)
    kept = ids(project, "responses", "response_id")
    assert len(kept) == 25
    project.fake.crash_after = None
    project.fake.generated.clear()
    project.materialize(selection)
    responses = project.read("SELECT response_id FROM responses")["response_id"].to_list()
    assert len(responses) == len(set(responses)) == 9 * 2 * 2
    assert sorted(project.fake.generated) == sorted(set(responses) - kept)


def test_failed_rows_are_counted_and_exactly_they_are_tried_again(project: Project) -> None:
    """Once by materializing the asset again, and once by the next run, which knows that rows are missing."""
    project.land("a.jsonl", prompt_rows(15, 24))
    project.materialize("teacher_model,student_model,held_out_questions,prompts,teacher_generations_t100")
    generated = fails_until_one_is_left(project, "teacher_generations_t060", "responses", project.fake.generated)
    project.materialize("student_tokens,response_verdicts")
    scored = fails_until_one_is_left(project, "student_logprobs", "student_logprobs", project.fake.scored)
    project.fake.fails = lambda key: False
    project.fake.generated.clear()
    project.fake.scored.clear()
    project.make_batches()
    for asset, table, asked, failed in (
        ("teacher_generations_t060", "responses", project.fake.generated, generated),
        ("student_logprobs", "student_logprobs", project.fake.scored, scored),
    ):
        assert [key for key in asked if key in failed] == [min(failed)]
        assert num_failed(project, asset) == 0
        assert failed <= ids(project, table, "response_id")
    assert ids(project, "failed_requests", "request_id") == set()


def fails_until_one_is_left(project: Project, asset: str, table: str, asked: list[str]) -> set[str]:
    """Materialize an asset twice: some new rows fail, then the first of them alone; those that failed at first."""
    before, failed_before = ids(project, table, "response_id"), ids(project, "failed_requests", "request_id")
    project.fake.fails = lambda key: key not in before and key[0] in "01234567"
    asked.clear()
    project.materialize(asset)
    failed = {key for key in asked if key[0] in "01234567"}
    assert 0 < len(failed) < len(asked)
    assert num_failed(project, asset) == len(failed)
    assert ids(project, "failed_requests", "request_id") - failed_before == failed
    kinds = project.read("SELECT DISTINCT kind, reason FROM failed_requests").rows()
    assert kinds == [("engine_error", "told to fail")]
    assert not failed & ids(project, table, "response_id")
    project.fake.fails = lambda key: key == min(failed)
    asked.clear()
    project.materialize(asset)
    assert (sorted(asked), num_failed(project, asset)) == (sorted(failed), 1)
    return failed


def num_failed(project: Project, asset: str) -> int:
    """By the metadata of the asset's latest materializations."""
    with project.instance() as instance:
        return sum(
            int(str(metadata_of(instance, asset, made.storage_id)["num_failed"].value))
            for made in latest_materializations(instance, {asset: True})[asset].values()
        )


def test_the_same_responses_at_other_ranks_are_another_selection(copy: Project) -> None:
    """A rollout goes on from the best response to its question."""
    made, asset = list[tuple[pl.DataFrame, str]](), "selected_responses_t100"
    query = "SELECT response_id, rank FROM selected_responses WHERE dataset = 't100' AND policy = 'das' ORDER BY rank"
    for score in ("sum_probability_token", "teacher_share"):
        copy.recipe = change(change(copy.recipe, "selection.policy", "top_k"), "selection.score", score)
        copy.materialize(asset)
        with copy.instance() as instance:
            [latest] = latest_materializations(instance, {asset: False})[asset].values()
        made.append((copy.read(query), latest.tags["dagster/data_version"]))
    (first, one), (second, other) = made
    assert set(first["response_id"]) == set(second["response_id"]) and not first.equals(second)
    assert one != other


def test_a_teacher_that_never_answers_is_a_clear_failure(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 6))
    project.fake.silent = True
    with pytest.raises(RunFailed, match=r"^random_responses: no response .* t060: .*structure dropped 12 of 12"):
        project.run()
    tables = ("prompts", "responses", "student_logprobs", "response_scores", "selected_responses", "sft_examples")
    assert [project.count(table) for table in tables] == [6, 24, 0, 0, 0, 0]
    assert project.read("SELECT DISTINCT name FROM checkpoints ORDER BY 1")["name"].to_list() == [
        "student",
        "teacher",
    ]


@pytest.mark.drill
def test_without_a_cut_off_rollout_the_mixed_stage_is_skipped(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 6))
    project.fake.steady = True
    project.run()
    assert project.count("prefix_cuts") == 0
    assert ids(project, "checkpoints", "name") == {"teacher", "student", "t060", "t100"}
    with project.instance() as instance:
        page = summary(instance, project.definitions, project.warehouse, project.engines, project.recipe)
    assert "mixed    skipped: the mixed dataset is empty: no rollout was cut off: of 6 questions 6 were rolled" in page
    assert project.read("SELECT count(DISTINCT checkpoint_id) FROM evaluations").item() == 4


def names_and_parents(project: Project) -> list[tuple[str, str | None]]:
    """The current checkpoints, each with the name of the one it was trained from."""
    chain = current_checkpoints(project.warehouse, project.recipe)
    names = dict(chain.select("checkpoint_id", "name").iter_rows())
    return [(name, names.get(parent)) for name, parent in chain.select("name", "parent_checkpoint_id").iter_rows()]


def skips(project: Project) -> list[tuple[str, str]]:
    return project.read("SELECT dataset, kind FROM empty_datasets ORDER BY dataset DESC").rows()


@pytest.mark.drill
def test_an_empty_dataset_skips_its_own_stage_and_no_other(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.land("a.jsonl", prompt_rows(0, 6))
    project.warns = True
    project.fake.silent_at = 0.6  # where continuations are sampled, too
    project.run()
    assert names_and_parents(project) == [("teacher", None), ("student", None), ("t100", "student")]
    assert skips(project) == [("t060", "none_selectable"), ("mixed", "none_passed")]
    with project.instance() as instance:
        page = summary(instance, project.definitions, project.warehouse, project.engines, project.recipe)
    assert "t060     skipped: the t060 dataset is empty: none of 12 responses is left to select; " in page
    rolled, cut, continued, passed = project.read("""SELECT num_rolled_out, num_cut_off, num_continued, num_passed
        FROM empty_datasets WHERE dataset = 'mixed'""").row(0)
    assert rolled > cut > 0 == passed
    assert cut == continued == project.count("teacher_continuations")
    assert f"{rolled} were rolled out, {cut} cut off, {continued} continued by the teacher, and 0 passed" in page
    monkeypatch.setenv("DASD_HOME", str(project.home))
    assert main(["audit", "verify"]) == 0
    assert project.run() == 0

    # With a second batch neither is empty any more: all is made, and only the stages are trained anew.
    project.fake.silent_at = None
    project.land("b.jsonl", prompt_rows(6, 15))
    project.run()
    chain = [("teacher", None), ("student", None), ("t060", "student"), ("t100", "t060"), ("mixed", "t100")]
    assert (names_and_parents(project), skips(project)) == (chain, [])
    assert project.run() == 0


def test_where_the_last_dataset_is_empty_nothing_is_rolled_out(project: Project, lean: Recipe) -> None:
    project.recipe = lean
    project.warns = True
    project.land("a.jsonl", prompt_rows(0, 6))
    project.fake.silent_at = 1.0
    project.run()
    assert names_and_parents(project) == [("teacher", None), ("student", None), ("t060", "student")]
    assert skips(project) == [("t100", "none_selectable"), ("mixed", "no_question")]
    assert project.run() == 0


def test_when_no_rollout_is_cut_off_any_more_the_mixed_stage_is_of_the_past(copy: Project, lean: Recipe) -> None:
    copy.recipe = change(lean, "mixed_policy.length_cap", 8.0)
    copy.run()
    assert copy.count("checkpoints") == 5
    chain = current_checkpoints(copy.warehouse, copy.recipe)
    assert chain["name"].to_list() == ["teacher", "student", "t060", "t100"]


def test_bad_lines_never_stop_the_good_ones(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 6))
    landing = project.home / "prompts"
    twin = (landing / "a.jsonl").read_bytes().splitlines()[0]
    good = b'{"question": "State the final answer to the following arithmetic problem: 1 + 2 + 3 ="}'
    lines = [
        b"{broken",
        b'{"domain": "math"}',
        b'{"question": "' + b"x" * 10_000_000 + b'"}',
        b'{"question": "\xff"}',
        twin,
    ]
    (landing / "b.jsonl").write_bytes(b"\n".join([*lines, good]))
    (landing / "empty.jsonl").write_bytes(b"")
    project.materialize("held_out_questions,prompts")
    rejected = project.read("SELECT * FROM rejected_prompts ORDER BY source_file, source_line")
    assert rejected.select("source_file", "source_line").rows() == [
        *[("b.jsonl", line) for line in range(1, 6)],
        ("empty.jsonl", 0),
    ]
    told = (
        "not JSON",
        "question is missing",
        "has 10000016 bytes, at most",
        "not UTF-8",
        "duplicate of prompt",
        "file is empty",
    )
    for reason, words in zip(rejected["reason"], told, strict=True):
        assert words in reason
    [owner] = project.read("SELECT prompt_id FROM prompts WHERE source_file = 'a.jsonl' AND source_line = 1").row(0)
    assert owner in rejected["reason"][4]
    assert rejected["kind"].to_list() == [
        "invalid_json",
        "missing_question",
        "row_too_long",
        "invalid_encoding",
        "duplicate",
        "empty_file",
    ]
    assert rejected["prompt_id"].to_list() == [*[None] * 4, owner, None]
    [batch] = project.read("SELECT DISTINCT batch FROM prompts WHERE source_file = 'a.jsonl'").row(0)
    assert rejected["owner_batch"].to_list() == [*[None] * 4, batch, None]
    assert project.count("prompts") == 7


def test_an_edited_file_takes_over_what_its_removed_batch_made(copy: Project) -> None:
    responses = ids(copy, "responses", "response_id")
    old = copy.read("SELECT DISTINCT batch FROM prompts WHERE source_file = 'a.jsonl'")["batch"].item()
    copy.land("a.jsonl", prompt_rows(0, 10)[:9] + prompt_rows(15, 16))
    with copy.instance() as instance:
        instance.delete_dynamic_partition("prompt_batch", old)
    copy.make_batches()
    assert copy.count("prompts") == 16
    assert copy.count("rejected_prompts") == 0
    new = ids(copy, "responses", "response_id") - responses
    assert len(new) == 4
    assert set(copy.fake.generated) & ids(copy, "responses", "response_id") == new
    assert copy.read("SELECT response_id FROM responses")["response_id"].is_unique().all()
    assert old not in ids(copy, "sentence_probabilities", "batch")


def test_what_is_being_generated_follows_its_question_to_another_batch(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 3))
    moved: list[str] = []

    def take_over(_: str) -> bool:
        """An edited file's new batch takes the questions, while the old one's responses come in."""
        if not moved:
            moved.extend(ids(project, "prompts", "prompt_id"))
            with project.warehouse.commit("test") as transaction:
                transaction.move_to_batch("prompts", moved, "new")
        return False

    project.fake.fails = take_over
    with pytest.raises(RunFailed, match="answered none of 6 requests: their questions have moved to another batch"):
        project.materialize("teacher_model,held_out_questions,prompts,teacher_generations_t060")
    assert project.read("SELECT batch, count(*) FROM responses GROUP BY ALL").rows() == [("new", 6)]


def ids(project: Project, table: str, key: str) -> set[str]:
    return set(project.read(f"SELECT {key} FROM {table}")[key])
