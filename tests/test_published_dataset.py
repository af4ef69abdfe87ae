"""A release of a finished home: what it holds, that others can read it, and that it is whole or not there."""

import json
import tempfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Project, change
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st

from dasd_assets.cli import main
from dasd_assets.published_dataset import examples as examples_module
from dasd_assets.published_dataset.card import card
from dasd_assets.published_dataset.composition import Composition
from dasd_assets.published_dataset.examples import LostTexts, QuestionsGone
from dasd_assets.published_dataset.forms import FORMS
from dasd_assets.published_dataset.hub import push
from dasd_assets.published_dataset.release import MANIFEST, ExportError, write_release
from dasd_assets.published_dataset.shards import Shards
from dasd_assets.withdrawals import undo_withdrawal, withdraw
from dasd_resources.content_hash import file_hash
from dasd_resources.recipe import Export, Recipe, load_recipe

CONFIGS = ["t060", "t100", "mixed"]


def release(project: Project, folder: Path, **settings: object) -> Path:
    write_release(project.warehouse, project.engines, project.recipe, Export.model_validate(settings), folder)
    return folder


@pytest.fixture(scope="session")
def messages(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the form `messages`, with logprobs and the control."""
    return release(finished, tmp_path_factory.mktemp("out") / "messages", logprobs=True, control=True)


def load(folder: Path, config: str, cache: Path) -> list[dict[str, object]]:
    return load_dataset(str(folder), config, split="train", cache_dir=str(cache)).to_list()


def test_it_loads_as_a_dataset_and_has_every_example_once(finished: Project, messages: Path, tmp_path: Path) -> None:
    for config in CONFIGS:
        rows = load(messages, config, tmp_path)
        query = "SELECT coalesce(response_id, continuation_id) FROM sft_examples WHERE dataset = $d AND policy = 'das'"
        assert [row["id"] for row in rows] == sorted(finished.read(query, d=config)[:, 0])
        assert rows
    assert {row["origin"] for row in rows} == {"response", "continuation"}
    assert load(messages, "t060_random", tmp_path)


def test_its_messages_are_tokenised_to_what_was_trained_on(finished: Project, messages: Path, tmp_path: Path) -> None:
    """By the student's own chat template, as any trainer would."""
    from dasd_resources.chat.tokenizer_files import load_tokenizer

    tokenizer = load_tokenizer(Path(finished.recipe.student.model)).tokenizer
    for config in CONFIGS:
        query = """SELECT coalesce(response_id, continuation_id) AS id, input_ids FROM sft_examples
            WHERE dataset = $d AND policy = 'das'"""
        trained = dict(finished.read(query, d=config).iter_rows())
        for row in load(messages, config, tmp_path):
            said = tokenizer.apply_chat_template(row["messages"], tokenize=False)
            ids = tokenizer(said, add_special_tokens=False)["input_ids"]
            assert ids[: len(trained[row["id"]])] == trained[row["id"]]


def test_logprobs_are_the_teachers_own(finished: Project, messages: Path, tmp_path: Path) -> None:
    rows = load(messages, "t100_logprobs", tmp_path)
    stored = {row["response_id"]: row for row in finished.read("SELECT * FROM responses").to_dicts()}
    assert [row["sample_uuid"] for row in rows] == [row["id"] for row in load(messages, "t100", tmp_path)]
    for row in rows:
        kept = stored[row["sample_uuid"]]
        assert (row["token_ids"], row["logprobs"]) == (kept["token_ids"], kept["logprobs"])
    # a continuation has no log-probabilities of its whole text
    mixed = load(messages, "mixed", tmp_path)
    assert len(load(messages, "mixed_logprobs", tmp_path)) == sum(row["origin"] == "response" for row in mixed)


def test_one_snapshot_gives_the_same_bytes(finished: Project, messages: Path, tmp_path: Path) -> None:
    again = release(finished, tmp_path / "again", logprobs=True, control=True)
    assert (again / MANIFEST).read_bytes() == (messages / MANIFEST).read_bytes()
    files = json.loads((messages / MANIFEST).read_text())["files"]
    assert files == {name: file_hash(messages / name) for name in files}
    there = {str(path.relative_to(messages)) for path in messages.rglob("*") if path.is_file()}
    assert there == {*files, MANIFEST}


def test_read_in_many_parts_it_is_the_same(
    finished: Project, messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples_module, "TEXTS_AT_ONCE", 2)
    monkeypatch.setattr(examples_module, "EXAMPLES_AT_ONCE", 4)
    monkeypatch.setattr(examples_module, "MAX_PASSES", 3)
    again = release(finished, tmp_path / "again", logprobs=True, control=True)
    assert (again / MANIFEST).read_bytes() == (messages / MANIFEST).read_bytes()


def test_an_example_without_its_response_makes_no_release(copy: Project, tmp_path: Path) -> None:
    query = "SELECT response_id, r.batch FROM sft_examples JOIN responses r USING (response_id) WHERE policy = 'das'"
    lost, batch = copy.read(query).row(0)
    with copy.warehouse.commit("a test") as transaction:
        transaction.delete_keys("responses", {"batch": batch}, "response_id", [lost])
    with pytest.raises(LostTexts, match=r"^1 of \d+ examples of t\w+ have no text; `dasd audit verify` says which"):
        release(copy, tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_a_question_that_is_withdrawn_or_no_prompt_any_more_is_not_published(copy: Project, tmp_path: Path) -> None:
    query = """SELECT p.prompt_id, p.batch FROM sft_examples JOIN responses USING (response_id)
        JOIN prompts p USING (prompt_id) WHERE policy = 'das' LIMIT 1"""
    prompt, batch = copy.read(query).row(0)
    withdraw(copy.warehouse, [prompt], [], "asked to")
    refused = r"^\d+ of \d+ examples of t\w+ are of questions that are withdrawn, or no longer prompts: `dasd run`"
    with pytest.raises(QuestionsGone, match=refused):
        release(copy, tmp_path / "release")
    undo_withdrawal(copy.warehouse, [prompt], [])
    with copy.warehouse.commit("a test") as transaction:
        transaction.delete_keys("prompts", {"batch": batch}, "prompt_id", [prompt])
    with pytest.raises(QuestionsGone, match=refused):
        release(copy, tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_every_form_has_the_same_texts(finished: Project, messages: Path, tmp_path: Path) -> None:
    wanted = {row["id"]: row["messages"] for row in load(messages, "t060", tmp_path)}
    for form in FORMS:
        folder = release(finished, tmp_path / "forms" / form, form=form)
        rows = load(folder, "stage1" if form == "report" else "t060", tmp_path)
        if form == "report":
            said = {row["uuid"]: (row["input"], row["output"]) for row in rows}
            assert said == {key: (turns[1]["content"], turns[2]["content"]) for key, turns in wanted.items()}
            assert all(json.loads(row["meta"])["id"] == row["uuid"] for row in rows)
        elif form == "prompt_completion":
            assert {row["id"]: row["prompt"] + row["completion"] for row in rows} == wanted
        elif form == "sharegpt":
            found = {row["id"]: [row["system"], *(turn["value"] for turn in row["conversations"])] for row in rows}
            assert found == {key: [turn["content"] for turn in turns] for key, turns in wanted.items()}
            assert [turn["from"] for turn in rows[0]["conversations"]] == ["human", "gpt"]
            info = json.loads((folder / "dataset_info.json").read_text())
            assert set(info) == set(CONFIGS)
            assert all(list((folder / entry["file_name"]).glob("*.parquet")) for entry in info.values())


def test_plain_trl_trains_on_it_in_the_very_tokens(finished: Project, tmp_path: Path) -> None:
    """Which a trainer of others makes of the texts: ids, and loss on the response alone."""
    from trl import SFTConfig, SFTTrainer

    folder = release(finished, tmp_path / "out", form="prompt_completion")
    rows = load_dataset(str(folder), "t060", split="train", cache_dir=str(tmp_path / "cache"))
    config = SFTConfig(output_dir=str(tmp_path / "trained"), max_steps=1, report_to=[], use_cpu=True, max_length=512)
    trainer = SFTTrainer(finished.recipe.student.model, config, train_dataset=rows)
    query = "SELECT response_id, input_ids, labels FROM sft_examples WHERE dataset = 't060' AND policy = 'das'"
    ours = {row["response_id"]: row for row in finished.read(query).to_dicts()}
    for row, said in zip(rows, trainer.train_dataset, strict=True):
        taught = ours[row["id"]]
        assert said["input_ids"][: len(taught["input_ids"])] == taught["input_ids"]
        assert said["labels"][: len(taught["labels"])] == taught["labels"]
    assert trainer.train().global_step == 1


def test_a_question_is_published_as_it_was_asked(copy: Project, tmp_path: Path) -> None:
    """With the instruction that the response, or the one that a rollout refers to, was asked with."""
    with copy.warehouse.commit("test") as transaction:
        rows = transaction.read("SELECT * FROM responses")
        for (batch,), part in rows.group_by("batch"):
            transaction.replace("responses", {"batch": str(batch)}, part.with_columns(instruction=pl.lit("Box it.")))
    for form, config in (("messages", "t060"), ("messages", "mixed"), ("report", "stage3")):
        for row in load(release(copy, tmp_path / form, form=form), config, tmp_path / "cache"):
            asked = row["input"] if form == "report" else row["messages"][-2]["content"]  # type: ignore[index]
            assert str(asked).endswith("\n\nBox it.")


def test_metadata_goes_out_only_where_it_is_allowed(finished: Project, messages: Path, tmp_path: Path) -> None:
    landed = json.loads(finished.read("SELECT metadata FROM prompts LIMIT 1").item())
    assert landed, "the questions have metadata to keep back"
    key = sorted(landed)[0]
    assert {row["metadata"] for row in load(messages, "t060", tmp_path)} == {"{}"}
    allowed = release(finished, tmp_path / "allowed", metadata=[key])
    assert {*json.loads(load(allowed, "t060", tmp_path)[0]["metadata"])} == {key}  # type: ignore[arg-type]


def test_the_card_counts_what_is_there(finished: Project, messages: Path) -> None:
    text = (messages / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    header = yaml.safe_load(front)
    assert [config["config_name"] for config in header["configs"]][:3] == CONFIGS
    number = finished.read("SELECT count(DISTINCT prompt_id) FROM responses").item()
    assert f"The teacher answered {number:,} questions." in body
    for config in CONFIGS:
        query = "SELECT count(*), sum(len(input_ids)) FROM sft_examples WHERE dataset = $d AND policy = 'das'"
        examples, tokens = finished.read(query, d=config).row(0)
        assert f"| `{config}` | {examples:,} | {tokens:,} |" in body
    assert str(finished.home) not in text
    assert "compared with the held-out questions of `held_out` (5)" in body
    assert "| `length` | 0.6 |" in body


def test_the_card_counts_what_the_datasets_were_selected_from(copy: Project, tmp_path: Path) -> None:
    """Not questions that nobody asked, as `questions_per_domain` leaves some, nor what a batch left that is gone."""
    before = (release(copy, tmp_path / "before") / "README.md").read_text()
    with copy.warehouse.commit("test") as transaction:
        for table in ("prompts", "responses", "response_verdicts"):
            rows = transaction.read(f"SELECT * FROM {table}")
            ids = [name for name in ("prompt_id", "response_id") if name in rows.columns]
            gone = {name: pl.lit("gone ") + pl.col(name) for name in ids}
            transaction.append_missing(table, rows.with_columns(**gone, batch=pl.lit("gone")))
        unasked = transaction.read("SELECT * FROM prompts WHERE batch <> 'gone' LIMIT 1")
        transaction.append_missing("prompts", unasked.with_columns(prompt_id=pl.lit("unasked")))
    assert (release(copy, tmp_path / "after") / "README.md").read_text() == before


def test_an_answer_that_no_verifier_could_decide_is_neither_right_nor_wrong(copy: Project, tmp_path: Path) -> None:
    with copy.warehouse.commit("test") as transaction:
        transaction.read(
            """UPDATE response_verdicts SET passed = FALSE, kind = 'verifier_failed', reason = 'r'
            WHERE filter = 'correctness'"""
        )
    card = (release(copy, tmp_path / "out") / "README.md").read_text()
    assert card.count("| nothing to verify |\n") == 2  # t060 and t100; of `mixed`, continuations are judged apart


@pytest.mark.parametrize(
    ("teacher", "written_by", "logprobs_by"),
    [
        ({}, "`Qwen3-32B (1a)`\n", "by the teacher, of responses alone, of the tokens as sampled:"),
        ({"stands_for": "itself"}, "`Qwen3-32B (1a)`\n", "by the teacher, of responses alone:"),
        (
            {"stands_for": "openai/gpt-oss-120b"},
            "`openai/gpt-oss-120b`, log-probabilities and any continuation by `Qwen3-32B (1a)`\n",
            "by `Qwen3-32B (1a)`, of responses alone:",
        ),
        (
            {"stands_for": "openai/gpt-oss-120b", "engine": "imported"},
            "`openai/gpt-oss-120b`, log-probabilities as landed\n",
            "by the teacher, of responses alone, of the tokens as sampled:",
        ),
    ],
)
def test_the_card_names_who_wrote_the_responses(teacher: dict[str, str], written_by: str, logprobs_by: str) -> None:
    demo = load_recipe("demo").model_dump()
    document = {**demo, "imports": {} if teacher else None, "teacher": {**demo["teacher"], **teacher}}
    composition = Composition(
        recipe=Recipe.model_validate(document),
        teacher="Qwen3-32B (1a)",
        student="student (2b)",
        tallies={},
        configs=[],
        drops=pl.DataFrame(),
        rejected={},
        held_out={},
        num_questions=0,
        rules={},
    )
    text = card(composition, Export(logprobs=True))
    assert f"- Teacher: {written_by}" in text
    assert f"hold token log-probabilities {logprobs_by}\n" in text


def test_the_card_says_which_filters_a_response_must_pass(finished: Project, tmp_path: Path) -> None:
    recipe = change(finished.recipe, "filters.required", ["refusal"])
    write_release(finished.warehouse, finished.engines, recipe, Export(), tmp_path / "out")
    rows = [line for line in (tmp_path / "out" / "README.md").read_text().splitlines() if "recorded only" in line]
    assert any("`box`" in row for row in rows)
    assert not any("`refusal`" in row for row in rows)


def test_the_licence_of_each_source_is_stated_or_said_not_to_be(finished: Project, tmp_path: Path) -> None:
    card = (release(finished, tmp_path / "out", licenses={"a": "mit"}, license="cc-by-4.0") / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "| `a` |" in card and "| `mit` |" in card
    assert "| not stated |" in card


def test_names_of_others_are_no_markup(copy: Project, tmp_path: Path) -> None:
    hostile = "![x](http://host/q.png)|</code><img src=x>`"
    with copy.warehouse.commit("test") as transaction:
        rows = transaction.read("SELECT * FROM prompts WHERE batch = (SELECT min(batch) FROM prompts)")
        transaction.replace("prompts", {"batch": rows["batch"][0]}, rows.with_columns(domain=pl.lit(hostile)))
    card = (release(copy, tmp_path / "out") / "README.md").read_text()
    [line] = [line for line in card.splitlines() if "q.png" in line]
    assert line.startswith("| `` ") and line.count("|") == 2 + len(CONFIGS)


def test_what_is_there_stays_unless_it_is_a_release(finished: Project, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="holds something else than a release"):
        release(finished, folder)
    assert (folder / "thesis.txt").read_text() == "years of work"
    (folder / "thesis.txt").unlink()
    for manifest in ('{"entries": {}, "files": []}', "half", "[]"):  # of a backup, say
        (folder / MANIFEST).write_text(manifest)
        with pytest.raises(ExportError, match="holds something else than a release"):
            release(finished, folder)
    (folder / MANIFEST).unlink()
    release(finished, folder)
    for name in ("LICENSE", ".git/HEAD"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
        with pytest.raises(ExportError, match=f"holds something else than a release, {name}: move it away"):
            release(finished, folder)
        (folder / name).unlink()
    release(finished, folder, form="report")
    assert json.loads((folder / MANIFEST).read_text())["form"] == "report"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_killed_export_leaves_no_folder_of_that_name(finished: Project, tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    (partial / "data").mkdir(parents=True)
    (partial / "data" / "half.parquet").write_bytes(b"PAR1")
    folder = release(finished, tmp_path / "out")
    assert not list(folder.rglob("half.parquet")) and not partial.exists()


def test_a_home_without_training_sets_says_what_to_run(project: Project, tmp_path: Path) -> None:
    project.warehouse.migrate()
    with pytest.raises(ExportError, match="has no training set yet: `dasd run"):
        release(project, tmp_path / "out")


def test_the_asset_follows_its_training_sets(copy: Project) -> None:
    assert copy.run() == 0
    assert load(copy.home / "exports" / "tiny", "t060", copy.home / "cache")
    copy.said.clear()
    copy.recipe = change(copy.recipe, "export", {"form": "report"})
    assert copy.run() == 1 and copy.materialized == {"published_dataset"}


def test_the_command(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(finished.home))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(finished.recipe.model_dump(mode="json")))
    call = ["export", str(tmp_path / "out"), "--recipe", str(recipe), "--form"]
    assert main([*call, "csv"]) == 1
    assert "unknown form 'csv'; known are messages" in capsys.readouterr().err
    assert main([*call, "sharegpt"]) == 0
    assert "form sharegpt, snapshot" in capsys.readouterr().out
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main([*call, "sharegpt", "--push", "me/mine"]) == 1
    assert "me/mine was not uploaded" in capsys.readouterr().err


class Hub:
    """A hub whose repositories are all there, and public or private."""

    def __init__(self, *, private: bool) -> None:
        self.private, self.uploaded, self.replaced = private, list[str](), list[str]()

    def create_repo(self, name: str, **settings: object) -> str:
        return f"hub/{name}"

    def repo_info(self, name: str, **settings: object) -> "Hub":
        return self

    def upload_folder(self, repo_id: str, delete_patterns: list[str], **settings: object) -> None:
        self.uploaded.append(repo_id)
        self.replaced += delete_patterns


def test_what_is_private_does_not_go_to_a_repository_that_is_public(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    there = Hub(private=False)
    with pytest.raises(ExportError, match=r"^me/mine is public already: add --public if that is meant$"):
        push(tmp_path, "me/mine", public=False, hub=there)  # type: ignore[arg-type]
    assert there.uploaded == []
    for hub, public in ((there, True), (Hub(private=True), False)):
        assert push(tmp_path, "me/mine", public=public, hub=hub) == "hub/me/mine"  # type: ignore[arg-type]
        assert hub.uploaded == ["me/mine"]
        # What this form does not have, and another form had, does not stay.
        assert {"data/*", "logprobs/*", *FORMS["sharegpt"].files([])} <= {*hub.replaced}


@given(st.integers(0, 40), st.integers(1, 12))
def test_shards_hold_all_rows_in_order(num_rows: int, rows_per_shard: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = Shards(Path(folder) / "s", pa.schema({"n": pa.int32()}), num_rows, rows_per_shard)
        for number in range(num_rows):
            shards.add({"n": number})
        shards.close()
        files = sorted((Path(folder) / "s").glob("*.parquet"))
        tables = [pq.read_table(file)["n"].to_pylist() for file in files]
    assert [number for table in tables for number in table] == list(range(num_rows))
    assert all(len(table) == rows_per_shard for table in tables[:-1])
    assert [file.name for file in files] == [
        f"train-{index:05d}-of-{len(files):05d}.parquet" for index in range(len(files))
    ]


def test_long_rows_are_written_few_at_a_time(tmp_path: Path) -> None:
    """A row group is in memory as a whole, where it is written and where it is read."""
    num_rows, row, before, held = 600, {"text": 40_000 * "a"}, pa.total_allocated_bytes(), list[int]()
    shards = Shards(tmp_path / "s", pa.schema({"text": pa.string()}), num_rows, num_rows)
    for _ in range(num_rows):
        shards.add(row)
        held.append(pa.total_allocated_bytes() - before)
    shards.close()
    assert max(held) < 200 * 40_000
    [file] = (tmp_path / "s").glob("*.parquet")
    assert pq.ParquetFile(file).metadata.row_group(0).num_rows == 128
