"""The whole graph on the fake engine: contract, incrementality counted in engine calls, crashes and bad input."""

from math import ceil

import numpy as np
import pytest
from conftest import Project, change, prompt_rows

from dasd_assets.run import RunFailed
from dasd_assets.sentences import edges, sentence_spans
from dasd_assets.summary import summary

CONTRACT = {
    "prompts": "prompt_id batch domain question reference_answer verifier source_file source_line",
    "rejected_prompts": "source_file source_line reason",
    "responses": "response_id prompt_id batch temperature sample_index seed teacher_fingerprint text token_ids "
    "logprobs offsets finish_reason",
    "response_verdicts": "response_id filter passed reason filter_version",
    "student_logprobs": "response_id student_fingerprint token_ids logprobs offsets",
    "sentence_probabilities": "response_id student_fingerprint sentence_index start stop teacher_sum_logprob "
    "teacher_num_tokens student_sum_logprob student_num_tokens teacher_prob student_prob segmenter_version",
    "sentence_types": "response_id student_fingerprint sentence_index sentence_type threshold_version",
    "response_scores": "response_id student_fingerprint score_name score",
    "selected_responses": "dataset policy response_id rank score",
    "sft_examples": "dataset policy example_id response_id continuation_id input_ids labels",
    "checkpoints": "checkpoint_id stage parent_checkpoint_id dataset snapshot_id path content_hash",
    "evaluations": "checkpoint_id benchmark temperature question_id sample_index correct response_text num_tokens",
    "student_rollouts": "rollout_id",
    "prefix_cuts": "rollout_id cut_token cut_char seed",
    "teacher_continuations": "continuation_id rollout_id prefix_text continuation_text",
    "continuation_verdicts": "continuation_id",
}
PER_ROW = (("responses", "response_id"), ("student_rollouts", "rollout_id"), ("evaluations", "evaluation_id"))


@pytest.mark.parametrize("table", CONTRACT)
def test_every_table_of_the_contract_has_its_columns(finished: Project, table: str) -> None:
    rows = finished.read(f"SELECT * FROM {table}")
    assert set(CONTRACT[table].split()) <= set(rows.columns)
    assert rows.height > 0 or table == "rejected_prompts"


def test_token_lists_are_aligned(finished: Project) -> None:
    for table in ("responses", "student_logprobs"):
        query = f"""SELECT t.token_ids, t.logprobs, t.offsets, r.text
            FROM {table} t JOIN responses r USING (response_id)"""
        for token_ids, logprobs, offsets, text in finished.read(query).iter_rows():
            assert len(token_ids) == len(logprobs) == len(offsets)
            assert all(-1 <= offset < len(text) for offset in offsets)


def test_sentence_sums_and_the_unattributed_rest_are_the_responses_sum(finished: Project) -> None:
    query = """SELECT r.text, r.logprobs, r.offsets, s.logprobs AS student_logprobs, s.offsets AS student_offsets,
            sum(p.teacher_sum_logprob) AS teacher_sum, sum(p.student_sum_logprob) AS student_sum
        FROM responses r JOIN student_logprobs s USING (response_id)
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
    query = """SELECT e.input_ids, e.labels, l.token_ids FROM sft_examples e JOIN student_logprobs l USING (response_id)
        WHERE e.continuation_id IS NULL"""
    rows = finished.read(query)
    assert rows.height > 0
    for input_ids, labels, response in rows.iter_rows():
        prompt = len(input_ids) - len(response)
        assert labels == [-100] * prompt + response
        assert input_ids[prompt:] == response


def test_stages_form_a_chain(finished: Project) -> None:
    rows = {row["stage"]: row for row in finished.read("SELECT * FROM checkpoints").to_dicts()}
    for stage, parent in (("stage1", "student"), ("stage2", "stage1"), ("stage3", "stage2")):
        assert rows[stage]["parent_checkpoint_id"] == rows[parent]["checkpoint_id"]
        query = "SELECT count(*) AS n FROM sft_examples WHERE dataset = $dataset AND policy = 'das'"
        then = finished.warehouse.read(query, {"dataset": rows[stage]["dataset"]}, at=rows[stage]["snapshot_id"])
        assert then.item() == rows[stage]["num_examples"]


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
            assert 0 < row["cut_token"] < len(row["token_ids"])
            assert row["cut_char"] == row["offsets"][row["cut_token"]]


def test_a_continuation_goes_on_from_its_prefix(finished: Project) -> None:
    for row in finished.read("SELECT * FROM teacher_continuations").iter_rows(named=True):
        assert row["text"].startswith(row["prefix_text"].rstrip())
        assert row["text"].endswith(row["continuation_text"])


def test_the_summary_tells_all_of_it(finished: Project) -> None:
    with finished.instance() as instance:
        page = summary(instance, finished.warehouse, finished.engines, finished.recipe)
    assert all(
        title in page for title in ("Rows", "Responses dropped", "stage3", "Time per stage", "checkpoint_stage1")
    )


def test_a_second_run_does_nothing(copy: Project) -> None:
    assert copy.run() == 0
    assert (copy.fake.generated, copy.fake.scored, copy.fake.trained) == ([], [], [])


def test_a_new_threshold_costs_no_forward_pass(copy: Project) -> None:
    before = copy.count("sentence_probabilities")
    copy.recipe = change(copy.recipe, "selection.divergence.threshold", 0.3)
    copy.run()
    assert not set(copy.fake.generated) & ids(copy, "responses", "response_id")
    assert copy.fake.scored == []
    assert copy.count("sentence_probabilities") == before
    versions = copy.read("SELECT threshold_version, count(*) FROM sentence_types GROUP BY ALL")
    assert versions.height == 2


def test_a_new_filter_never_regenerates(copy: Project) -> None:
    responses = ids(copy, "responses", "response_id")
    copy.recipe = change(copy.recipe, "filters.max_student_tokens", 150)
    copy.run()
    assert not set(copy.fake.generated) & responses
    assert ids(copy, "responses", "response_id") == responses


def test_more_candidates_generate_exactly_the_other_half(copy: Project) -> None:
    before = ids(copy, "responses", "response_id")
    copy.recipe = change(copy.recipe, "generation.num_candidates", 4)
    copy.run()
    after = ids(copy, "responses", "response_id")
    assert before < after
    assert len(after) == 2 * len(before)
    assert sorted(set(copy.fake.generated) & after) == sorted(after - before)


def test_a_new_batch_is_the_only_one_generated(copy: Project) -> None:
    before = ids(copy, "responses", "response_id")
    copy.land("c.jsonl", prompt_rows(15, 18))
    copy.run()
    new = ids(copy, "responses", "response_id") - before
    assert len(new) == 3 * 2 * 2
    assert set(copy.fake.generated) & ids(copy, "responses", "response_id") == new


def test_a_crash_loses_nothing_that_was_finished(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    project.fake.crash_after = 25
    with pytest.raises(RunFailed, match="crashed after 25 results"):
        project.run()
    kept = ids(project, "responses", "response_id")
    assert len(kept) == 25
    project.fake.crash_after = None
    project.fake.generated.clear()
    project.run()
    assert not kept & set(project.fake.generated)
    for table, key in PER_ROW:
        assert project.read(f"SELECT {key} FROM {table}")[key].is_unique().all()


def test_a_failed_request_is_stored_and_tried_again(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    refused: list[str] = []
    project.fake.fails = lambda key: not refused and not refused.append(key)
    project.run()
    assert project.read("SELECT request_id, reason FROM failed_requests").rows() == [(refused[0], "told to fail")]


def test_a_teacher_that_never_answers_is_a_clear_failure(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 6))
    project.fake.silent = True
    with pytest.raises(RunFailed, match=r"no response of t060 is left to select; .*structure dropped 12 of 12"):
        project.run()
    assert (project.count("responses"), project.count("selected_responses"), project.count("sft_examples")) == (
        24,
        0,
        0,
    )


def test_without_a_cut_off_rollout_stage_3_is_skipped(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 6))
    project.fake.steady = True
    project.run()
    assert project.count("prefix_cuts") == 0
    stages = set(project.read("SELECT stage FROM checkpoints")["stage"])
    assert stages == {"teacher", "student", "stage1", "stage2"}
    with project.instance() as instance:
        page = summary(instance, project.warehouse, project.engines, project.recipe)
    assert "stage3" in page
    assert "skipped: the mixed dataset is empty" in page
    assert project.read("SELECT count(DISTINCT checkpoint_id) FROM evaluations").item() == 4


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
    project.run()
    rejected = project.read("SELECT * FROM rejected_prompts ORDER BY source_file, source_line")
    assert rejected.select("source_file", "source_line").rows() == [
        *[("b.jsonl", line) for line in range(1, 6)],
        ("empty.jsonl", 0),
    ]
    assert rejected["reason"][4].startswith("duplicate of prompt ")
    assert project.count("prompts") == 7


def ids(project: Project, table: str, key: str) -> set[str]:
    return set(project.read(f"SELECT {key} FROM {table}")[key])
