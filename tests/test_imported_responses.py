"""A home without a teacher goes the whole way from landed responses; and what their tokens must say."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean

import dagster as dg
import polars as pl
import pytest
from conftest import Project, RealProject, prompt_rows, refuse
from shared_stores import data_of

from dasd_assets.audit.pages.response import response_page
from dasd_assets.audit.response import audit_response
from dasd_assets.audit.verify import verify
from dasd_assets.audit.verify.imports import imports
from dasd_assets.commands.check import check
from dasd_assets.imported_responses import Importer
from dasd_assets.landed_responses import ROWS_PER_COMMIT, _store, landed_counts
from dasd_assets.rules.imports import landed_in, wanted_imports
from dasd_assets.rules.landed import landed_versions
from dasd_assets.rules.sampling import sampling_request
from dasd_assets.withdrawals import withdraw
from dasd_resources.inference.engine import Completion
from dasd_resources.inference.model_files import PROMPTING
from dasd_resources.landing.response_files import LandedResponse
from dasd_resources.recipe import Recipe
from dasd_resources.storage.data_files import data_files
from dasd_resources.storage.repair import drop_files, plan_repair
from dasd_resources.storage.upkeep import flush_small_commits

WRITER = "demo-teacher@1"
GENERATED = """SELECT p.question, p.reference_answer, p.verifier, p.domain, p.metadata::JSON AS metadata,
        r.response_id AS sample_uuid, r.text AS response, r.temperature, r.sample_index, r.finish_reason,
        r.token_ids, r.logprobs
    FROM responses r JOIN prompts p USING (prompt_id) ORDER BY r.temperature, r.response_id"""


def importing(recipe: Recipe, **teacher: object) -> Recipe:
    """The recipe with imports, and another teacher."""
    document = recipe.model_dump()
    document["teacher"] |= {"stands_for": WRITER, **teacher}
    return Recipe.model_validate({**document, "imports": {}})


def without_weights(recipe: Recipe, folder: Path) -> Path:
    """A folder with the teacher's tokenizer and template alone."""
    folder.mkdir(parents=True)
    for file in (file for pattern in PROMPTING for file in Path(recipe.teacher.model).glob(pattern)):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def rows(finished: Project) -> list[dict[str, object]]:
    """The responses of a home that generated them, as another may land them."""
    return [{**row, "metadata": json.loads(row["metadata"])} for row in finished.read(GENERATED).to_dicts()]


TOKENS = ("token_ids", "logprobs")


def texts_of(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key not in TOKENS} for row in rows]


def logprobs_of(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: row[key] for key in ("sample_uuid", *TOKENS)} for row in rows]


def absent(project: Project) -> None:
    """Give the project a recipe whose teacher is not here."""
    folder = without_weights(project.recipe, project.home / "tokenizer")
    project.recipe = importing(project.recipe, engine="imported", model=str(folder))


def land(project: Project, name: str, rows: list[dict[str, object]]) -> None:
    project.land(name, rows)  # type: ignore[arg-type]


def test_a_home_without_a_teacher_scores_and_selects_as_the_one_that_generated(
    project: Project, finished: Project, rows: list[dict[str, object]]
) -> None:
    # One file has the responses of one temperature with their logprobs, another the texts of the other, to questions
    # that the first has landed; their logprobs are in the last. The checks that warn can read them, too.
    absent(project)
    project.warns = True
    low, high = ([row for row in rows if row["temperature"] == t] for t in (0.6, 1.0))
    land(project, "a.jsonl", low)
    land(project, "b.jsonl", texts_of(high))
    land(project, "c.jsonl", logprobs_of(high))
    project.run()
    # 1. All is imported, nothing was asked of a teacher, and the sentences' sums are those of the generating home.
    assert project.count("responses") == finished.count("responses") == len(rows)
    assert project.count("failed_requests") == project.count("rejected_responses") == 0
    assert project.read("SELECT DISTINCT engine, logprob_origin FROM responses").rows() == [("imported", "given")]
    assert sentences(project).equals(sentences(finished))
    assert selected(project, "das").equals(selected(finished, "das"))
    # 2. Both stages are trained; the mixed-policy one is skipped, with its reason.
    assert project.read("SELECT name FROM checkpoints ORDER BY ALL")["name"].to_list() == [
        *("student", "t060", "t100", "teacher")
    ]
    assert project.read("SELECT dataset, kind FROM empty_datasets").rows() == [("mixed", "no_teacher")]
    assert project.count("student_rollouts") == 0
    answered = project.read("SELECT DISTINCT name FROM evaluations JOIN checkpoints USING (checkpoint_id)")
    assert set(answered["name"]) == {"student", "t060", "t100"}
    # 3. Another look finds nothing to do; the audits follow each response to its line, and find nothing wrong.
    assert project.run() == 0
    assert list(verify(project.warehouse)) == []
    [identity] = project.read("SELECT response_id FROM responses ORDER BY ALL LIMIT 1")["response_id"]
    with project.warehouse.reading() as reading:
        page = response_page(audit_response(reading, identity))
    assert "landed as     line " in page and "logprobs as they landed" in page
    assert "not compared" in parity(project)


def test_what_was_read_of_a_landed_file_is_read_again_where_it_was_lost(
    project: Project, rows: list[dict[str, object]]
) -> None:
    absent(project)
    land(project, "a.jsonl", rows[:4])
    project.materialize("student_model,held_out_questions,prompts,landed_responses")
    flush_small_commits(project.warehouse, "flush")
    tables = ("landed_responses", "landed_logprobs", "landed_files")
    before = {table: project.read(f"SELECT * EXCLUDE run_id FROM {table} ORDER BY ALL") for table in tables}
    assert before["landed_responses"].height == before["landed_logprobs"].height == 4
    lost = [file for file in data_files(project.warehouse.catalog) if file.table == "landed_responses"]
    for file in lost:
        data_of(project.warehouse).delete_file(file.path)
    batches = before["landed_files"]["batch"].to_list()
    gone = plan_repair(project.warehouse, batches, unlanded=batches)
    assert not gone.drop and "its rows come from a landed file that is gone" in gone.keep[0][1]
    drop_files(project.warehouse, plan_repair(project.warehouse, batches, unlanded=()), int)
    assert project.count("landed_responses") == 0
    project.materialize("landed_responses")
    for table, known in before.items():
        assert project.read(f"SELECT * EXCLUDE run_id FROM {table} ORDER BY ALL").equals(known), table


def test_logprobs_are_those_that_landed_first_with_any_landing_of_the_response(
    project: Project, rows: list[dict[str, object]]
) -> None:
    absent(project)
    teacher = project.engines.find(project.recipe.teacher, "teacher.model")
    companion = {**logprobs_of(rows[:1])[0], **{key: rows[1][key] for key in TOKENS}}  # of another response
    for name, landed in (("texts", texts_of(rows[:1])), ("whole", rows[:1]), ("wrong", [companion])):
        land(project, f"{name}.jsonl", landed)
    project.materialize("prompts,landed_responses")
    batch_of = dict(project.read("SELECT source_file, batch FROM landed_files").iter_rows())
    texts, whole, wrong = (batch_of[f"{name}.jsonl"] for name in ("texts", "whole", "wrong"))
    [batch] = project.read("SELECT batch FROM prompts")["batch"]

    def imported(*existing: str) -> object:
        wanted = wanted_imports(landed_in(project.warehouse, batch, existing), project.recipe, "t060", teacher)
        todo = list(wanted.values())
        [found] = Importer(project.recipe, project.warehouse, teacher, batch, existing, todo).rows(project.engines)
        return found["token_ids"] if isinstance(found, dict) else found.kind

    tokens = rows[0]["token_ids"]
    assert [imported(texts), imported(texts, wrong), imported(texts, wrong, whole)] == [
        *("no_logprobs", "tokens_differ", "tokens_differ")
    ]
    assert imported(texts, whole) == imported(whole, texts) == imported(whole) == tokens
    assert imported(texts, whole, wrong) == tokens
    versions = [landed_versions(project.warehouse, one)[batch] for one in ([texts], [texts, whole], [whole, texts])]
    assert versions[0] != versions[1] == versions[2]


@pytest.mark.drill
def test_logprobs_that_land_later_complete_a_set_and_a_withdrawn_question_leaves_it(
    project: Project, rows: list[dict[str, object]]
) -> None:
    absent(project)
    low, high = ([row for row in rows if row["temperature"] == t] for t in (0.6, 1.0))
    land(project, "a.jsonl", low)
    land(project, "b.jsonl", texts_of(high))
    project.run()
    assert project.read("SELECT DISTINCT temperature FROM responses")["temperature"].to_list() == [0.6]
    failed = project.read("SELECT kind, count(*) FROM failed_requests GROUP BY ALL").rows()
    assert failed == [("no_logprobs", len(high))]
    assert len(project.fake.trained) == 1
    land(project, "c.jsonl", logprobs_of(high))
    project.run()
    assert (project.count("responses"), project.count("failed_requests")) == (len(rows), 0)
    assert len(project.fake.trained) == 2
    [question] = project.read("SELECT prompt_id FROM prompts ORDER BY ALL LIMIT 1")["prompt_id"]
    withdraw(project.warehouse, [question], [], "asked to")
    project.run()
    left = project.read("FROM sft_examples JOIN responses USING (response_id) WHERE prompt_id = $id", id=question)
    assert left.is_empty()


def sentences(project: Project) -> pl.DataFrame:
    """Of every response, by question, temperature and text: the sums of both models over each sentence."""
    return project.read("""SELECT r.prompt_id, r.temperature, r.text, s.sentence_index, s.start, s.stop,
            s.teacher_sum_logprob, s.teacher_num_tokens, s.student_sum_logprob, s.student_num_tokens
        FROM sentence_probabilities s JOIN responses r USING (response_id) ORDER BY ALL""")


def selected(project: Project, policy: str) -> pl.DataFrame:
    """What each dataset of a temperature holds: questions and scores. Of equal scores the ids decide, which differ."""
    return project.read(
        """SELECT dataset, prompt_id, domain, score FROM selected_responses
            WHERE policy = $policy AND dataset <> 'mixed' ORDER BY ALL""",
        policy=policy,
    )


IMPORT = "teacher_model,prompts,landed_responses,teacher_generations_t060"


def test_what_the_teacher_scores_by_prefill_is_what_it_said_when_it_sampled(project: Project) -> None:
    teacher = (real := RealProject(project.home, project.recipe)).engines.find(project.recipe.teacher, "teacher.model")
    asked = prompt_rows(0, 4)
    requests = [
        sampling_request(teacher, str(n), teacher.chat.prompt_ids(str(row["question"])), 0.6, 1.0, 200)
        for n, row in enumerate(asked)
    ]
    sampled = {c.request_id: c for c in real.engines.generate(teacher, requests) if isinstance(c, Completion)}
    texts = [teacher.chat.read_response(sampled[str(n)].token_ids).text for n in range(len(asked))]
    reasons = [sampled[str(n)].finish_reason for n in range(len(asked))]
    real.land(
        "a.jsonl",
        [
            {**row, "response": text, "finish_reason": reason, "temperature": 0.6, "sample_uuid": str(n)}
            for n, (row, text, reason) in enumerate(zip(asked, texts, reasons, strict=True))
        ],
    )
    real.recipe = importing(project.recipe, stands_for="itself")
    real.materialize(IMPORT)
    query = """SELECT l.sample_uuid AS sample, r.text, r.token_ids, r.logprobs, r.engine, r.logprob_origin
        FROM responses r JOIN landed_responses l USING (landed_id) ORDER BY ALL"""
    stored = real.read(query).to_dicts()
    assert [row["text"] for row in stored] == texts
    assert {(row["engine"], row["logprob_origin"]) for row in stored} == {("transformers", "prefill")}
    limits = real.recipe.parity.teacher
    for row in stored:
        # A greedy tokenizer need not cut a text as it was sampled; where it does, the logprobs are the same.
        before = sampled[row["sample"]]
        if row["token_ids"] == before.token_ids:
            differences = [abs(a - b) for a, b in zip(row["logprobs"], before.logprobs, strict=True)]
            assert fmean(differences) <= limits.max_mean_difference
            assert max(differences) <= limits.max_difference
    assert sum(row["token_ids"] == sampled[row["sample"]].token_ids for row in stored) >= 3


def test_a_proxy_scores_every_text_once_and_goes_on_where_it_was_killed(
    project: Project, rows: list[dict[str, object]]
) -> None:
    project.recipe = importing(project.recipe)
    low = [row for row in rows if row["temperature"] == 0.6]
    wrong = {**low[0], "response": "<think>\nno\n</think>\nno", "sample_uuid": "other"}
    land(project, "a.jsonl", [*low, wrong, {**low[1], "temperature": 0.3, "sample_uuid": "cold"}])
    project.fake.crash_after = 7
    with pytest.raises(RuntimeError, match="crashed after 7 results"):
        project.materialize(IMPORT)
    assert project.count("responses") == 7
    project.fake.crash_after = None
    project.materialize(IMPORT)
    assert len(project.fake.scored) == len(set(project.fake.scored)) == len(low) + 1
    assert project.read("SELECT DISTINCT engine, logprob_origin FROM responses").rows() == [("transformers", "prefill")]
    failed = project.read("SELECT kind, reason FROM failed_requests").rows()
    assert failed == [("no_dataset", "it was sampled at 0.3; generation.temperatures has 0.6, 1")]
    # The places of a question's responses are those that the rows name, and a free one for the one more.
    places = project.read("SELECT prompt_id, sample_index FROM responses")
    assert places.is_unique().all()


def test_tokens_that_do_not_say_the_text_are_refused_with_the_first_difference(
    project: Project, rows: list[dict[str, object]]
) -> None:
    absent(project)
    first, second = rows[:2]
    land(project, "a.jsonl", [{**first, **{key: second[key] for key in TOKENS}}, second])
    project.materialize(IMPORT)
    [(kind, reason)] = project.read("SELECT kind, reason FROM failed_requests").rows()
    assert kind == "tokens_differ" and reason.startswith("the teacher's tokens of it read '")
    assert project.count("responses") == 1
    with project.warehouse.reading() as reading:
        assert list(imports(reading, None)) == []
    with project.warehouse.commit("by hand") as transaction:
        rows = transaction.read("SELECT * REPLACE ('other' AS text) FROM landed_responses")
        transaction.replace("landed_responses", {"source_file": "a.jsonl"}, rows)
        lists = transaction.read("SELECT * REPLACE (list_reverse(logprobs) AS logprobs) FROM landed_logprobs")
        transaction.replace("landed_logprobs", {"source_file": "a.jsonl"}, lists)
    with project.warehouse.reading() as reading:
        assert [fault.what for fault in imports(reading, None)] == [
            "its text is not the one that landed",
            "its logprobs are not those that landed",
        ]
    [found] = [r for r in check(project.recipe, project.home, project.engines, quick=True) if r.check == "responses"]
    assert found.status == "failed" and "a.jsonl:1 do not say its text" in found.message
    logprobs = [r for r in check(project.recipe, project.home, project.engines) if r.check == "teacher logprobs"]
    assert logprobs[0].status == "ok" and WRITER in logprobs[0].message


def test_a_response_whose_question_the_template_refuses_is_left_out_of_the_parity_check(
    project: Project, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    folder = shutil.copytree(project.recipe.teacher.model, tmp_path / "model")
    refuse(folder, "messages[0].content == 'Hm.'", "no such system prompt")
    project.recipe = importing(project.recipe, stands_for="itself", model=str(folder))
    refused, *others = {row["question"]: row for row in rows if row["temperature"] == 0.6}.values()
    land(project, "a.jsonl", [{**refused, "system_prompt": "Hm."}, *others[:2]])
    project.materialize(IMPORT)
    assert project.count("responses") == 3
    assert " tokens of 2 responses agree" in parity(project)


def parity(project: Project) -> str:
    key = dg.AssetCheckKey(dg.AssetKey("teacher_generations_t060"), "prefill_parity")
    with project.instance() as instance:
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    evaluation = record.event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
    assert evaluation.passed
    return str(evaluation.description)


def test_responses_to_a_rejected_question_are_counted(project: Project) -> None:
    row = {"landed_id": "l1", "sample": "s", "sample_uuid": None, "batch": "b", "source_file": "b.jsonl", "item": 0}
    said = {"text": "x", "temperature": 0.6, "sample_index": None, "finish_reason": "stop"}
    lines = [{**row, **said, "prompt_id": "held out", "source_line": line} for line in (1, 2)]
    project.warehouse.migrate()
    with project.warehouse.commit("test") as transaction:
        transaction.replace("landed_responses", {"batch": "b"}, pl.DataFrame(lines))
    counts = {"num_responses": 2, "num_logprobs": 0, "num_rejected": 0, "num_without_prompt": 2}
    assert landed_counts(project.warehouse, "b") == counts


def test_nothing_is_kept_of_a_killed_reading_as_it_may_have_been_by_another_mapping(project: Project) -> None:
    def read(text: str, num_rows: int) -> Iterator[LandedResponse]:
        for line in range(num_rows):
            yield LandedResponse(f"{text}{line}", "p", "s", None, "a.jsonl", line, 0, text, None, None, "stop")

    def killed() -> Iterator[LandedResponse]:
        yield from read("old", ROWS_PER_COMMIT)
        raise RuntimeError("killed")

    store = partial(_store, project.warehouse, "test", "b", "a.jsonl")
    with pytest.raises(RuntimeError, match="killed"):
        store("old mapping", killed())
    assert project.count("landed_responses") == ROWS_PER_COMMIT
    store("new mapping", read("new", 2))
    assert project.read("SELECT landed_id FROM landed_responses ORDER BY ALL").rows() == [("new0",), ("new1",)]
