"""What `dasd audit verify` finds: nothing in a whole home, and each planted fault by its row or file."""

from pathlib import Path

import polars as pl
import pytest
from conftest import Project
from shared_stores import content, data_of, overwrite

from dasd_assets.audit.files import file_faults
from dasd_assets.audit.verify import NUM_REPORTED, verify
from dasd_assets.audit.verify.chats import Chats, NoChat
from dasd_assets.audit.verify.commits import by_hand
from dasd_assets.audit.verify.datasets import ranks, selected_scores
from dasd_assets.audit.verify.judgements import JUDGED, verdicts
from dasd_assets.audit.verify.texts import SAID, texts
from dasd_assets.audit.verify.tokens import TOKENISED, tokens
from dasd_assets.cli import main
from dasd_resources.chat import Chat
from dasd_resources.storage.connections import attach
from dasd_resources.storage.data_files import data_files


def edit(project: Project, statement: str) -> None:
    """A hand on the tables, past every rule."""
    with project.warehouse.commit("a hand") as transaction:
        transaction.read(statement)


def faults(project: Project, *titles: str) -> str:
    """Of these checks; without any, of all."""
    found = project.faults(*titles) if titles else verify(project.warehouse)
    return "\n".join(map(str, found))


def test_a_whole_home_agrees(
    finished: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(finished.home))
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out == "Everything agrees.\n"


@pytest.mark.storage
def test_planted_faults_are_named(copy: Project) -> None:
    first = "(SELECT min(response_id) FROM sentence_probabilities)"
    response = copy.read(f"SELECT {first} AS id").item()
    batch = copy.read("SELECT batch FROM responses WHERE response_id = $id", id=response).item()
    example = copy.read("SELECT min(example_id) FROM sft_examples").item()
    edit(copy, f"UPDATE sentence_probabilities SET student_sum_logprob = -9 WHERE response_id = '{response}'")
    edit(copy, f"UPDATE response_scores SET score = 0.123 WHERE response_id = '{response}'")
    edit(copy, f"UPDATE sft_examples SET labels = [1] WHERE example_id = '{example}'")
    edit(copy, "INSERT INTO student_rollouts SELECT * FROM student_rollouts ORDER BY rollout_id LIMIT 1")
    edit(copy, f"UPDATE response_verdicts SET response_id = 'nobody' WHERE response_id = '{response}'")
    edit(copy, "UPDATE prompts SET question = 'another' WHERE source_file = 'b.jsonl' AND source_line = 1")
    edit(
        copy,
        "UPDATE responses SET seed = 5, logprobs = [0.5] WHERE response_id = (SELECT max(response_id) FROM responses)",
    )
    found = faults(copy)
    assert f"sentence_probabilities response_id {response}: its sentences are not those" in found
    assert f"response_scores response_id {response}: its teacher_share is 0.123" in found
    assert f"sft_examples {example}: its token ids and labels differ in number" in found
    assert f"sft_examples {example}: its example_id is" in found
    assert "there are 2 rows of this key; restore a backup" in found
    assert f"response_verdicts response_id nobody batch {batch}: responses has no such row" in found
    assert "its prompt_id is" in found
    assert "its seed is 5" in found
    assert "it has a logprob that is above 0 or not finite" in found


TEXTS = {
    "responses": ("response_id", "text = replace(text, 'The', 'A')", "text"),
    "student_rollouts": ("rollout_id", "offsets = list_transform(offsets, o -> -1)", "offsets"),
    "teacher_continuations": ("continuation_id", "continuation_text = 'x' || continuation_text", "continuation_text"),
}


def test_texts_are_read_again_from_their_tokens(copy: Project) -> None:
    ids = {
        table: copy.read(f"SELECT min({key}) FROM {table} WHERE text LIKE '%The%'").item()
        for table, (key, _, _) in TEXTS.items()
    }
    for table, (key, hand, _) in TEXTS.items():
        edit(copy, f"UPDATE {table} SET {hand} WHERE {key} = '{ids[table]}'")
    found = faults(copy, *(f"texts of {table}" for table in TEXTS))
    for table, (_, _, column) in TEXTS.items():
        assert f"{table} {ids[table]}: its {column} is not what its tokens say" in found


def test_verdicts_and_evaluations_are_judged_again(copy: Project) -> None:
    first = "SELECT min({0}) FROM {1} WHERE filter = '{2}' AND passed"
    loop = copy.read(first.format("response_id", "response_verdicts", "repetition")).item()
    wrong = copy.read("SELECT min(response_id) FROM response_verdicts WHERE reason LIKE '%expected%'").item()
    long = copy.read(first.format("continuation_id", "continuation_verdicts", "length")).item()
    answer = copy.read("SELECT min(evaluation_id) FROM evaluations WHERE NOT correct").item()
    edit(
        copy,
        f"""UPDATE response_verdicts SET passed = FALSE, reason = 'a hand'
        WHERE response_id = '{loop}' AND filter = 'repetition'""",
    )
    edit(
        copy,
        f"""UPDATE response_verdicts SET passed = TRUE, kind = NULL, reason = NULL
        WHERE response_id = '{wrong}' AND filter = 'correctness'""",
    )
    edit(
        copy,
        f"""UPDATE continuation_verdicts SET reason = 'a hand'
        WHERE continuation_id = '{long}' AND filter = 'length'""",
    )
    edit(copy, f"UPDATE evaluations SET correct = TRUE, kind = NULL, reason = NULL WHERE evaluation_id = '{answer}'")
    edit(copy, f"UPDATE response_verdicts SET value = -1 WHERE response_id = '{loop}' AND filter = 'length'")
    found = faults(copy, *(judged.verdicts for judged in JUDGED), "rows of continuation_verdicts", "evaluations")
    assert f"response_verdicts {loop} length: its value is -1.0, its text gives " in found
    assert f"response_verdicts {loop} repetition: its verdict is failed (a hand), its text gives passed" in found
    assert f"response_verdicts {wrong} correctness: its verdict is passed, its text gives failed (" in found
    assert f"continuation_verdicts {long} length: it passes for a reason, or fails without one" in found
    assert f"continuation_verdicts {long} length: its verdict is passed (a hand), its text gives passed" in found
    assert f"evaluations {answer}: it is passed, its answer gives failed (" in found


def test_what_needs_a_model_that_is_not_here_is_counted_not_accused(copy: Project) -> None:
    """But for verdicts: they are given on stored tokens."""
    wrong = copy.read("SELECT min(response_id) FROM response_verdicts WHERE reason LIKE '%expected%'").item()
    edit(
        copy,
        f"""UPDATE response_verdicts SET passed = TRUE, kind = NULL, reason = NULL
        WHERE response_id = '{wrong}' AND filter = 'correctness'""",
    )
    with copy.warehouse.reading() as reading:
        chats = Chats(copy.warehouse, reading)
        chats.find = nobody  # type: ignore[method-assign]
        said: list[str] = []
        found = [*verdicts(reading, chats, JUDGED[0], None, said.append)]
        assert [fault.row for fault in found] == [f"{wrong} correctness"]
        assert [*texts(reading, chats, SAID[0], None, said.append)] == []
        assert [*tokens(reading, chats, TOKENISED[0], None, said.append)] == []
    number = f"{copy.count('responses'):,} responses"
    assert said == [
        f"  the text of {number} could not be compared with its tokens: it is elsewhere",
        f"  the tokens of {number} could not be compared with their text: it is elsewhere",
    ]


def test_without_tokens_of_an_earlier_release_only_correctness_is_judged_again(copy: Project) -> None:
    wrong = copy.read("SELECT min(response_id) FROM response_verdicts WHERE reason LIKE '%expected%'").item()
    edit(copy, "DELETE FROM student_tokens")
    edit(copy, f"UPDATE response_verdicts SET passed = TRUE, kind = NULL, reason = NULL WHERE response_id = '{wrong}'")
    with copy.warehouse.reading() as reading:
        said: list[str] = []
        found = [*verdicts(reading, Chats(copy.warehouse, reading), JUDGED[0], None, said.append)]
    assert [fault.row for fault in found] == [f"{wrong} correctness"]
    assert len(said) == 1 and "have no tokens of their student" in said[0]


def test_tokens_are_made_again_from_their_text(copy: Project) -> None:
    """Of an end of turn that is another, of offsets, of a number of prompt tokens; and a reason where there is none."""
    first, second, third = copy.read("SELECT response_id FROM student_logprobs ORDER BY ALL LIMIT 3")["response_id"]
    of_text = copy.read("SELECT min(continuation_id) FROM continuation_tokens").item()
    for table, key, value in (
        ("student_tokens", f"response_id = '{first}'", "token_ids = list_transform(token_ids, t -> t + 1)"),
        ("student_tokens", f"response_id = '{second}'", "offsets = offsets[2:]"),
        ("student_tokens", f"response_id = '{third}'", "kind = 'unsupported_question', reason = 'a hand'"),
        ("continuation_tokens", f"continuation_id = '{of_text}'", "num_prompt_tokens = num_prompt_tokens + 1"),
    ):
        edit(copy, f"UPDATE {table} SET {value} WHERE {key}")
    titles = (title for kept in TOKENISED for title in (kept.tokens, f"rows of {kept.tokens}"))
    found = faults(copy, *titles, "numbers of logprobs")
    assert f"student_tokens {first}: its token_ids is not what its text encodes to" in found
    assert f"student_tokens {second}: its offsets is not what its text encodes to" in found
    assert f"student_tokens {third}: its kind, reason are not what its text encodes to" in found
    assert f"continuation_tokens {of_text}: its num_prompt_tokens is not what its text encodes to" in found
    for row in (f"student_tokens {second}", f"student_tokens {third}", f"continuation_tokens {of_text}"):
        assert f"{row}: its tokens are missing without a reason, are there despite one, or do not match" in found
    assert f"student_logprobs {second}: its logprobs and student_tokens differ in number" in found


def nobody(checkpoint_id: str) -> Chat:
    raise NoChat("it is elsewhere")


def test_a_model_that_is_gone_or_another_by_now_is_no_judge(copy: Project, tmp_path: Path) -> None:
    ids = dict(copy.read("SELECT name, checkpoint_id FROM checkpoints").iter_rows())
    paths = dict(copy.read("SELECT name, path FROM checkpoints").iter_rows())
    edit(copy, f"UPDATE checkpoints SET path = '{tmp_path / 'gone'}' WHERE name = 'teacher'")
    edit(copy, f"UPDATE checkpoints SET path = '{paths['teacher']}' WHERE name = 'student'")
    with copy.warehouse.reading() as reading:
        chats = Chats(copy.warehouse, reading)
        with pytest.raises(NoChat, match=f"the folder of model {ids['teacher']}, .* is not here"):
            chats.find(ids["teacher"])
        with pytest.raises(NoChat, match=f"holds model .* now, not {ids['student']}"):
            chats.find(ids["student"])


def test_ranks_and_scores_of_a_selection(copy: Project) -> None:
    key = "recipe = 'tiny' AND dataset = '{}' AND policy = '{}' AND domain = 'math' AND rank = {}"
    scored = copy.read(f"SELECT response_id FROM selected_responses WHERE {key.format('t060', 'das', 1)}").item()
    edit(copy, f"UPDATE selected_responses SET rank = 77 WHERE {key.format('t060', 'random', 1)}")
    edit(copy, f"UPDATE selected_responses SET rank = 2 WHERE {key.format('t100', 'random', 1)}")
    edit(copy, f"UPDATE selected_responses SET score = -0.5 WHERE {key.format('t060', 'das', 1)}")
    with copy.warehouse.reading() as reading:
        found = "\n".join(map(str, [*ranks(reading), *selected_scores(reading, None)]))
    assert "selected_responses tiny t060 random math: its ranks go to 77, of" in found
    assert "selected_responses tiny t100 random math: a rank is below 1 or there twice" in found
    assert "selected_responses tiny t060 das math: the score rises with the rank 1 times" in found
    assert f"tiny t060 das response_id {scored}: its teacher_share is -0.5, at threshold 0.1" in found
    assert len(found.splitlines()) == 4


def test_a_checkpoint_without_its_folder_or_with_other_weights(copy: Project) -> None:
    rows = copy.read("SELECT checkpoint_id, path FROM checkpoints WHERE dataset IS NOT NULL ORDER BY stage")
    moved = copy.home / "moved"
    moved.mkdir()
    edit(copy, f"UPDATE checkpoints SET path = '{moved / 'gone'}' WHERE checkpoint_id = '{rows['checkpoint_id'][0]}'")
    edit(copy, f"UPDATE checkpoints SET content_hash = 'other' WHERE checkpoint_id = '{rows['checkpoint_id'][1]}'")
    found = faults(copy, "checkpoints")
    assert f"checkpoints {rows['checkpoint_id'][0]}: its folder {moved / 'gone'} is gone" in found
    assert f"checkpoints {rows['checkpoint_id'][1]}: its weights hash to" in found


IDS = {
    "responses": ("response_id", "sample_index = sample_index + 7"),
    "teacher_continuations": ("continuation_id", "top_p = 0.123"),
    "evaluations": ("evaluation_id", "template_version = 'another'"),
    "student_rollouts": ("rollout_id", "max_tokens = max_tokens + 1"),
}


def test_ids_are_recomputed_from_what_decides_them(copy: Project) -> None:
    ids = {table: copy.read(f"SELECT min({key}) FROM {table}").item() for table, (key, _) in IDS.items()}
    for table, (key, hand) in IDS.items():
        edit(copy, f"UPDATE {table} SET {hand} WHERE {key} = '{ids[table]}'")
    edit(copy, "DELETE FROM selected_responses WHERE dataset = 't060' AND policy = 'random' AND rank = 1")
    found = faults(copy, *(f"ids of {table}" for table in IDS), "selections")
    for table, (key, _) in IDS.items():
        assert f"{table} {ids[table]}: its {key} is {ids[table]}, its content gives" in found
    assert "selected_responses tiny t060 random: its selection_id is" in found
    assert "materialize random_responses again" in found


def test_rows_of_an_earlier_release_are_counted_not_accused(copy: Project) -> None:
    edit(copy, "UPDATE evaluations SET template_version = NULL")
    edit(copy, "UPDATE teacher_continuations SET top_p = NULL, max_response_tokens = NULL")
    edit(copy, "UPDATE checkpoints SET recipe_document = NULL WHERE name = 'teacher'")
    said: list[str] = []
    assert list(verify(copy.warehouse, say=said.append)) == []
    for table in ("evaluations", "teacher_continuations", "responses"):
        assert f"  {copy.count(table):,} rows of {table} are of an earlier release" in "\n".join(said)


def test_checkpoints_that_lack_their_examples_their_snapshot_or_their_parent(copy: Project) -> None:
    ids = dict(copy.read("SELECT name, checkpoint_id FROM checkpoints").iter_rows())
    edit(copy, f"DELETE FROM checkpoint_examples WHERE checkpoint_id = '{ids['t060']}'")
    edit(
        copy,
        f"""DELETE FROM checkpoint_examples WHERE checkpoint_id = '{ids["t100"]}'
        AND example_id = (SELECT min(example_id) FROM checkpoint_examples WHERE checkpoint_id = '{ids["t100"]}')""",
    )
    edit(copy, f"UPDATE checkpoints SET parent_checkpoint_id = 'nobody' WHERE checkpoint_id = '{ids['mixed']}'")
    edit(copy, "UPDATE checkpoints SET recipe_document = 'no JSON' WHERE name = 'mixed'")
    snapshot = copy.read("SELECT snapshot_id FROM checkpoints WHERE name = 't060'").item()
    edit(copy, f"CALL ducklake_expire_snapshots('dasd', versions => [{snapshot}])")
    found = faults(copy, "examples of checkpoints", "checkpoints")
    assert f"checkpoints {ids['t060']}: checkpoint_examples has no row of it" in found
    assert f"checkpoints {ids['t100']}: checkpoint_examples has" in found
    assert f"{ids['t060']}: the rows it was trained on cannot be shown: there is no snapshot {snapshot}" in found
    assert f"{ids['mixed']}: the table checkpoints lacks nobody, the parent of {ids['mixed']}" in found
    assert f"{ids['mixed']}: its recipe_document is no JSON object" in found


def test_what_was_changed_by_hand_is_named_until_it_is_made_again(copy: Project) -> None:
    """Whatever the column, and rows that are gone, too."""
    example = copy.read("SELECT min(example_id) FROM sft_examples WHERE dataset = 'mixed'").item()
    response = copy.read("SELECT min(response_id) FROM responses").item()
    evaluation = copy.read("SELECT min(evaluation_id) FROM evaluations").item()
    with attach(copy.warehouse.catalog) as connection:
        connection.execute(f"UPDATE responses SET engine = 'another' WHERE response_id = '{response}'")
        connection.execute(f"DELETE FROM sft_examples WHERE example_id = '{example}' AND dataset = 'mixed'")
        connection.execute(f"DELETE FROM evaluations WHERE evaluation_id = '{evaluation}'")
    with copy.warehouse.reading() as reading:
        found = [f"{fault.table} {fault.row}: {fault.what}" for fault in by_hand(reading)]
    assert [line.partition(" (")[0] for line in found] == [
        f"evaluations {evaluation}: it was deleted by hand",
        f"responses {response}: it was changed by hand",
        f"sft_examples tiny mixed das {example}: it was deleted by hand",
    ]
    copy.materialize("evaluations")
    with copy.warehouse.reading() as reading:
        assert "evaluations" not in {fault.table for fault in by_hand(reading)}


def test_rows_that_no_verifier_can_judge_are_faults_not_errors(copy: Project) -> None:
    prompt = copy.read("SELECT min(prompt_id) FROM responses").item()
    question = copy.read("SELECT min(question_id) FROM benchmark_questions").item()
    edit(copy, f"UPDATE prompts SET metadata = 'no JSON' WHERE prompt_id = '{prompt}'")
    edit(copy, f"UPDATE benchmark_questions SET verifier = 'nobody' WHERE question_id = '{question}'")
    found = faults(copy, *(judged.verdicts for judged in JUDGED), "evaluations")
    assert f"prompts {prompt}: nothing can be judged by it: " in found
    assert f"benchmark_questions held_out {question}: nothing can be judged by it: unknown verifier" in found


REST = {
    "prefix_cuts": ("rollout_id", "cut_token = cut_token + 1", "its cut_token is"),
    "published_datasets": ("dataset", "num_examples = num_examples + 1", "it says"),
    "checkpoint_examples": ("example_id", "prompt_id = 'another'", "has no such row"),
    "responses": ("response_id", "teacher_fingerprint = 'another'", "checkpoints has no such row"),
    "sentence_types": ("response_id", "batch = 'another'", "sentence_probabilities has no such row"),
    "sentence_probabilities": ("response_id", "teacher_prob = teacher_prob / 2", "its sentences are not those"),
    "response_scores": ("response_id", "num_sentences = num_sentences + 1", "its sentences give"),
    "selected_responses": ("response_id", "prompt_id = 'another'", "responses has no such row"),
    "checkpoints": ("checkpoint_id", "num_steps = num_steps + 1", "the record in its folder says"),
}
FOLLOWING = (
    "published datasets",
    "checkpoint_examples.response_id, prompt_id",
    "checkpoint_examples.continuation_id, prompt_id",
    "responses.teacher_fingerprint",
    "sentence_types.response_id, batch, student_fingerprint, sentence_index",
    "selected_responses.response_id, prompt_id",
    "types and scores",
    "cuts",
    "sentences",
    "checkpoints",
)


def test_columns_that_follow_from_others_are_followed_up(copy: Project) -> None:
    for table, (key, hand, _) in REST.items():
        one = "max" if table == "sentence_types" else "min"  # another response than the one whose scores are changed
        wanted = f"SELECT {one}({key}) FROM {table} WHERE {hand.partition(' =')[0]} IS NOT NULL"
        edit(copy, f"UPDATE {table} SET {hand} WHERE {key} = ({wanted})")
    found = [str(fault) for fault in copy.faults(*FOLLOWING)]
    for table, (_, _, told) in REST.items():
        assert any(line.startswith(table) and told in line for line in found), table


def test_many_faults_of_one_kind_are_counted(copy: Project) -> None:
    edit(copy, "UPDATE responses SET seed = 5")
    of_seeds = list(map(str, copy.faults("ids of responses")))
    assert len(of_seeds) == NUM_REPORTED + 1
    assert of_seeds[-1].startswith(f"responses {copy.count('responses') - NUM_REPORTED} more rows: the same; ")


SAMPLED = (
    "sentences",
    "types and scores",
    "texts of student_rollouts",
    "response_verdicts",
    "evaluations",
    "selected scores",
)


def test_a_sample_recomputes_so_many_rows(copy: Project) -> None:
    """Every response is wrong; of sentences and scores the sample has one of each batch."""
    edit(copy, "UPDATE sentence_probabilities SET student_sum_logprob = -9")
    edit(copy, "UPDATE response_scores SET score = 9 WHERE score_name = 'teacher_share'")
    num_batches = copy.read("SELECT count(DISTINCT batch) AS num FROM response_scores").item()
    edit(copy, "UPDATE student_rollouts SET offsets = list_transform(offsets, o -> -1)")
    edit(
        copy,
        "UPDATE response_verdicts SET passed = FALSE, kind = 'cut_off', reason = 'a hand' WHERE filter = 'truncation'",
    )
    edit(
        copy,
        """UPDATE evaluations SET correct = NOT correct, kind = CASE WHEN correct THEN 'wrong_answer' END,
            reason = CASE WHEN correct THEN 'a hand' END""",
    )
    faults = copy.faults(*SAMPLED, sample=1)
    found = [fault.table for fault in faults]
    assert found.count("sentence_probabilities") == num_batches
    scored = {f.row for f in faults if f.table == "response_scores" and f.row.startswith("response_id")}
    assert len(scored) == num_batches
    others = ("student_rollouts", "response_verdicts", "evaluations", "selected_responses")
    assert [found.count(table) for table in others] == [1, 1, 1, 1]


@pytest.mark.storage
def test_missing_and_damaged_files_are_named(copy: Project) -> None:
    wide = pl.DataFrame({"source_file": ["x"] * 5000, "source_line": range(5000)})
    wide = wide.with_columns(batch=pl.lit("x"), reason=pl.lit("a test"))
    for _ in range(2):
        with copy.warehouse.commit("rows enough for a file") as transaction:
            transaction.replace("rejected_prompts", {"batch": "y"}, wide)
    paths = [file.path for file in data_files(copy.warehouse.catalog) if file.table == "rejected_prompts"][-2:]
    data_of(copy.warehouse).delete_file(paths[0])
    written = content(copy.warehouse, paths[1])
    overwrite(copy.warehouse, paths[1], written[:4] + b"\xff" * 200 + written[204:])
    one, two = (Path(path).name for path in paths)
    found = {Path(file.path).name: str(fault) for file, fault in file_faults(copy.warehouse)}
    assert found == {
        one: f"rejected_prompts of batch x, data file {one}: it is gone; `dasd repair` has its rows made "
        "again; its rows cannot be read until then",
        two: f"rejected_prompts of batch x, data file {two}: its content is not what was written (SHA-256); "
        "`dasd repair` has its rows made again; its rows cannot be read until then",
    }
