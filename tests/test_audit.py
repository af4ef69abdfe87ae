"""Audits of a finished home: every fact is there, in text and in JSON, and ids are forgiving but never ambiguous."""

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml
from conftest import Project, change

from dasd_assets.audit.checkpoint import accuracies
from dasd_assets.audit.ranking import selections
from dasd_assets.audit.response import audit_response
from dasd_assets.cli import main
from dasd_assets.records.selection_rules import selection_rule
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.rules.typed_ids import AuditError, find_id
from dasd_resources.storage.lake import Lake


def audit(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """The JSON of an audit, after its page was printed without complaint."""
    assert main(["audit", *words]) == code
    assert capsys.readouterr().out.strip()
    assert main(["audit", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def one(project: Project, query: str) -> Any:
    return project.read(query).item()


def test_a_chosen_response_from_line_to_checkpoint(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = one(home, "SELECT min(response_id) FROM selected_responses WHERE dataset = 't100' AND policy = 'das'")
    record = audit(capsys, "response", chosen)
    line = record["prompt"]["source_line"]
    landed = (home.home / "prompts" / record["prompt"]["source_file"]).read_text().splitlines()
    assert json.loads(landed[line - 1])["question"] == record["prompt"]["question"]
    assert {v["filter"] for v in record["verdicts"]} == set(FILTERS)
    assert " ".join(s["text"] for s in record["sentences"]).split() == [
        word for word in record["text"].split() if word not in ("<think>", "</think>")
    ]
    das = [s for s in record["selections"] if (s["dataset"], s["policy"]) == ("t100", "das")]
    assert das[0]["chosen"]
    assert {c["name"] for c in record["checkpoints"]} >= {"t100"}
    assert {e["dataset"] for e in record["examples"]} >= {"t100"}
    runs = {record["generation"]["run_id"], record["prompt"]["run_id"], das[0]["run_id"]}
    with home.instance() as instance:
        assert all(instance.get_run_by_id(run) is not None for run in runs)


def test_every_response_of_a_batch_is_explained_by_the_rules_of_selection(home: Project) -> None:
    """Chosen exactly where the table says so, and every other one with the reason that a look at the tables gives."""
    of_batch = "SELECT response_id FROM responses WHERE batch = (SELECT max(batch) FROM responses)"
    chosen = set(home.read("SELECT response_id FROM selected_responses WHERE policy = 'das'")["response_id"])
    failed = set(home.read("SELECT response_id FROM response_verdicts WHERE NOT passed")["response_id"])
    kinds = set()
    with Lake(str(home.home)).reading() as reading:
        for response in home.read(of_batch)["response_id"]:
            for found in audit_response(reading, response)["selections"]:
                if found["policy"] == "das" and found["dataset"] != "mixed":
                    assert found["chosen"] == (response in chosen)
                    assert (found["kind"] == "chosen") == found["chosen"]
                    assert (found["kind"] == "filtered") == ("filter" in found["why"]) == (response in failed)
                    kinds.add(found["kind"])
    assert "not_best_of_question" in kinds
    assert kinds <= {"chosen", "filtered", "not_best_of_question"}


def test_a_budget_is_named_with_the_rank(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pool under a smaller budget: ranks are counted as selection counts them."""
    recipe = change(copy.recipe, "selection.budgets", {"t100": {"math": 1}})
    rule = selection_rule(recipe, "t100", copy.pool_params(recipe, "t100"), {})
    ranked = copy.read(
        "SELECT response_id, rank FROM selected_responses WHERE dataset = 't100' AND policy = 'das' AND domain = 'math'"
    )
    with copy.warehouse.commit("a test") as transaction:
        key = {"recipe": recipe.name, "dataset": "t100"}
        row = transaction.read("SELECT * FROM selection_rules WHERE recipe = $recipe AND dataset = $dataset", key)
        transaction.replace(
            "selection_rules", key, row.with_columns(rule=row["rule"].clear(1).fill_null(json.dumps(rule)))
        )
        transaction.replace("selected_responses", {"dataset": "t100"}, ranked.clear())
    with Lake(str(copy.home)).reading() as reading:
        for response, rank in ranked.iter_rows():
            found = audit_response(reading, response)["selections"]
            (one,) = (s for s in found if (s["dataset"], s["policy"]) == ("t100", "das"))
            assert one["kind"] == ("beyond_budget" if rank > 1 else "pending")
            assert f"ranked {rank} " in one["why"] if rank > 1 else "should be chosen now" in one["why"]
    assert ranked["rank"].max() > 1


def test_each_rule_that_keeps_a_response_out_has_its_kind(copy: Project) -> None:
    """A selected response of t100, changed in one respect each; the control's rows say the same or what it lacks."""
    query = "SELECT min(response_id) FROM selected_responses WHERE dataset = 't100' AND policy = 'das'"
    chosen = copy.read(query).item()
    rows = [copy.read(f"SELECT * FROM {t} WHERE response_id = '{chosen}'") for t in ("responses", "response_verdicts")]
    response, verdicts = rows[0].row(0, named=True), rows[1].to_dicts()
    with copy.warehouse.commit("a test") as transaction:
        transaction.replace("selected_responses", {"response_id": chosen}, pl.DataFrame())

    def kinds(domain: str | None = "math", **change: object) -> list[str]:
        with copy.warehouse.reading() as reading:
            found = selections(reading, {**response, **change}, verdicts, domain)
        return [row["kind"] for row in found if row["dataset"] == "t100"]

    assert kinds() == ["pending", "question_not_selected"]
    assert kinds(domain=None) == ["question_withdrawn"] * 2
    assert kinds(top_p=0.5) == ["other_sampling"] * 2
    assert kinds(instruction="Use a box.") == ["other_instruction"] * 2
    assert kinds(sample_index=99) == ["beyond_candidates"] * 2
    assert kinds(batch="gone") == ["batch_absent"] * 2
    assert kinds(response_id="nobody") == ["not_scored"] * 2
    with copy.warehouse.commit("a test") as transaction:
        key = {"response_id": chosen}
        scores = transaction.read("SELECT * FROM response_scores WHERE response_id = $response_id", key)
        transaction.replace("response_scores", key, scores.with_columns(score=pl.lit(None, pl.Float64)))
    assert kinds() == ["no_score_value"] * 2


def test_examples_name_their_response_or_their_cut(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    plain = one(home, "SELECT min(example_id) FROM sft_examples WHERE response_id IS NOT NULL")
    assert audit(capsys, "example", plain)["response"]["prompt"]["source_line"] > 0
    mixed = one(home, "SELECT min(example_id) FROM sft_examples WHERE continuation_id IS NOT NULL")
    record = audit(capsys, "example", mixed)
    assert record["continuation"]["text"].startswith(record["continuation"]["prefix_text"])
    assert record["rollout"]["checkpoint_id"] == one(home, "SELECT checkpoint_id FROM checkpoints WHERE name = 't100'")
    assert record["cut"][0]["cut_char"] == len(record["continuation"]["prefix_text"])


def test_a_checkpoint_shows_the_rows_it_saw(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    last = one(home, "SELECT checkpoint_id FROM checkpoints WHERE name = 'mixed'")
    record = audit(capsys, "checkpoint", last)
    assert record["faults"] == []
    assert [link["name"] for link in record["chain"]] == ["mixed", "t100", "t060", "student"]
    rows = home.warehouse.read("SELECT example_id FROM sft_examples WHERE dataset = 'mixed'", at=record["snapshot_id"])
    assert record["trained_on"]["example_ids"] == sorted(rows["example_id"])
    assert record["environment"]["torch"]
    assert str(home.home) not in json.dumps([record["environment"], record["recipe_document"]])


def test_changed_rows_and_a_missing_folder_are_told(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    identity = one(copy, "SELECT checkpoint_id FROM checkpoints WHERE name = 't060'")
    folder = Path(one(copy, "SELECT path FROM checkpoints WHERE name = 't060'"))
    with copy.warehouse.commit("a hand") as transaction:
        row = transaction.read("SELECT * FROM checkpoints WHERE name = 't060'")
        missing = str(copy.home / "elsewhere" / folder.name)
        edited = row.with_columns(num_examples=row["num_examples"] + 1, path=row["path"].clear(1).fill_null(missing))
        transaction.replace("checkpoints", {"name": "t060"}, edited)
    faults = " ".join(audit(capsys, "checkpoint", identity, code=1)["faults"])
    assert "num_examples" in faults
    assert f"{missing} is gone" in faults


def test_an_expired_snapshot_is_told(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    identity, snapshot = copy.read("SELECT checkpoint_id, snapshot_id FROM checkpoints WHERE name = 't060'").row(0)
    with copy.warehouse.commit("a hand") as transaction:
        transaction.read(f"CALL ducklake_expire_snapshots('dasd', versions => [{snapshot}])")
    [fault] = audit(capsys, "checkpoint", identity, code=1)["faults"]
    assert f"there is no snapshot {snapshot}: it has been expired by maintenance" in fault


def test_a_damaged_record_is_told(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    identity = one(copy, "SELECT checkpoint_id FROM checkpoints WHERE name = 't100'")
    copied = copy.home / "checkpoints" / identity
    (copied / "dasd.json").write_text("{")
    with copy.warehouse.commit("a hand") as transaction:
        transaction.read(f"UPDATE checkpoints SET path = '{copied}', snapshot_id = NULL WHERE name = 't100'")
    faults = " ".join(audit(capsys, "checkpoint", identity, code=1)["faults"])
    assert "dasd.json cannot be read" in faults
    assert "its snapshot is not recorded" in faults


def test_failures_that_were_answered_under_another_verifier_do_not_count(copy: Project) -> None:
    """Ids of requests hold the verifier's version, and a failure of an earlier one is never cleared."""
    student = one(copy, "SELECT checkpoint_id FROM checkpoints WHERE name = 'student'")
    with copy.warehouse.reading() as reading:
        [before] = accuracies(reading, [student])[student]
    query = "SELECT * EXCLUDE run_id FROM evaluation_requests WHERE checkpoint_id = $id AND sample_index = 0"
    answered = copy.read(query, id=student).with_columns(
        verifier_version=pl.lit("old"), evaluation_id="old" + pl.col("evaluation_id")
    )
    never = answered.head(1).with_columns(sample_index=pl.lit(7, pl.Int32), evaluation_id=pl.lit("old never"))
    older = never.with_columns(verifier_version=pl.lit("older"), evaluation_id=pl.lit("older never"))
    asked = pl.concat([answered, never, older])
    failure = {"asset": "evaluations", "kind": "engine_error", "reason": "r", "num_attempts": 3}
    failed = asked.select(request_id="evaluation_id").with_columns(
        **{name: pl.lit(value) for name, value in failure.items()}, failed_at=pl.lit(datetime.now(UTC))
    )
    with copy.warehouse.commit("test") as transaction:
        transaction.append_missing("evaluation_requests", asked)
        transaction.append_missing("failed_requests", failed)
    with copy.warehouse.reading() as reading:
        [after] = accuracies(reading, [student])[student]
    assert after == {**before, "num_failed": 1, "accuracy": pytest.approx(before["accuracy"] * 10 / 11)}


def test_what_is_still_to_come_stands_beside_the_accuracy(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    student = one(copy, "SELECT checkpoint_id FROM checkpoints WHERE name = 'student'")
    answers = copy.read("SELECT * EXCLUDE run_id FROM evaluations WHERE checkpoint_id = $id", id=student)
    with copy.warehouse.commit("a kill") as transaction:
        transaction.replace("evaluations", {"checkpoint_id": student}, answers.head(7))
    [row] = audit(capsys, "checkpoint", student)["evaluations"]
    assert (row["num_answers"], row["num_failed"], row["num_missing"]) == (7, 0, answers.height - 7)
    assert row["accuracy"] == pytest.approx(answers.head(7)["correct"].mean())
    assert main(["audit", "checkpoint", student]) == 0
    assert f"7 answers, {answers.height - 7} missing" in capsys.readouterr().out
    with copy.warehouse.commit("a kill") as transaction:
        transaction.replace("evaluations", {"checkpoint_id": student}, [])
    assert main(["audit", "checkpoint", student]) == 0
    assert f"accuracy not known yet, 0 answers, {answers.height} missing" in capsys.readouterr().out


def test_answers_of_another_token_limit_are_another_accuracy(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    student = one(copy, "SELECT checkpoint_id FROM checkpoints WHERE name = 'student'")
    assert main(["audit", "checkpoint", student]) == 0
    assert "at most" not in capsys.readouterr().out
    [before] = audit(capsys, "checkpoint", student)["evaluations"]
    longer = copy.read("SELECT * EXCLUDE run_id FROM evaluations WHERE checkpoint_id = $id", id=student).with_columns(
        max_tokens=pl.lit(3000, pl.Int32), correct=pl.lit(True), evaluation_id="x" + pl.col("evaluation_id")
    )
    with copy.warehouse.commit("test") as transaction:
        transaction.append_missing("evaluations", longer)
    assert audit(capsys, "checkpoint", student)["evaluations"] == [
        before,
        {**before, "max_tokens": 3000, "accuracy": 1.0},
    ]
    assert main(["audit", "checkpoint", student]) == 0
    shown = capsys.readouterr().out
    assert "top-p 1, at most 200 tokens, accuracy" in shown
    assert "top-p 1, at most 3,000 tokens, accuracy 1.000, 10 answers" in shown


def test_what_the_mixed_dataset_did_not_draw_is_explained(copy: Project) -> None:
    """With fewer off-policy rows than there are, every row of the mixed pool is drawn or is told its place."""
    copy.recipe = change(copy.recipe, "mixed_policy.off_policy_ratio", 0.5)
    copy.materialize("mixed_policy_dataset")
    chosen = set(copy.read("SELECT response_id FROM selected_responses WHERE dataset = 'mixed'")["response_id"])
    pool = copy.read("SELECT response_id FROM selected_responses WHERE dataset = 't100' AND policy = 'das'")
    others = copy.read("SELECT r.*, p.domain FROM responses r JOIN prompts p USING (prompt_id) WHERE temperature = 1.0")
    places = []
    with Lake(str(copy.home)).reading() as reading:
        for row in others.to_dicts():
            response = row["response_id"]  # whose verdicts say nothing of the mixed dataset
            found = [s for s in selections(reading, row, [], row["domain"]) if s["dataset"] == "mixed"]
            assert [s["chosen"] for s in found] == [response in chosen]
            if response not in set(pool["response_id"]):
                assert found[0]["kind"] == "not_selected"
                assert found[0]["why"] == "not selected for t100, of which the mixed-policy dataset draws"
            elif response not in chosen:
                assert found[0]["kind"] == "not_drawn"
                places.append(re.search(r"not drawn: number (\d+) of (\d+) in the draw", found[0]["why"]).groups())
    assert sorted(int(place) for place, _ in places) == list(range(len(chosen) + 1, pool.height + 1))
    assert places


def test_materializations_lead_to_the_audit(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands in their metadata run, with a real id in place of the word."""
    assets = ("selected_responses_t060", "random_responses", "sft_dataset_t100", "mixed_policy_dataset")
    for asset in (*assets, "checkpoint_t100"):
        with home.instance() as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event is not None and event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        snapshot = metadata["snapshot_id"].value
        commands = [shlex.split(str(metadata[name].value).strip("`")) for name in ("audit", "lineage")]
        rows = "SELECT * FROM sft_examples" if asset.startswith("checkpoint") else commands[1][2]
        assert home.warehouse.read(rows, at=int(str(snapshot))).height > 0
        ids = {"RESPONSE_ID": "responses", "EXAMPLE_ID": "sft_examples"}
        words = [
            one(home, f"SELECT min({word.lower()}) FROM {ids[word]}") if word in ids else word for word in commands[0]
        ]
        assert main(words[1:]) == 0
        assert main(commands[1][1:]) == 0
    capsys.readouterr()


def test_staleness_names_the_recipes_part(home: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = change(home.recipe, "selection.budgets", {"t100": {"math": 1}})
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump(json.loads(changed.model_dump_json())))
    assert main(["audit", "staleness", "--recipe", str(file)]) == 0
    page = capsys.readouterr().out
    assert re.search(r"selected_responses_t100 +selection.budgets.t100.math unset → 1\n", page)
    assert re.search(
        r"sft_dataset_t100 +random_responses is out of date; selected_responses_t100 is out of date\n", page
    )
    assert "prompts  " not in page
    assert main(["audit", "staleness", "--recipe", str(file), "--json"]) == 0
    stale = {row["asset"]: row["causes"] for row in json.loads(capsys.readouterr().out)["stale"]}
    [cause] = stale["selected_responses_t100"]
    assert (cause["kind"], cause["what"], cause["before"], cause["now"]) == (
        *("recipe", "selection.budgets.t100.math"),
        *(None, 1),
    )


def test_a_question_names_all_it_touched(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = one(home, "SELECT min(prompt_id) FROM selected_responses WHERE dataset = 't060' AND policy = 'das'")
    below = audit(capsys, "prompt", prompt, "--downstream")["downstream"]
    assert len(below["responses"]) == 4
    assert {c["name"] for c in below["checkpoints"]} == {"t060", "t100", "mixed"}
    assert [c["num_examples"] for c in below["checkpoints"] if c["name"] == "t060"] == [1]
    assert {d["dataset"] for d in below["datasets"]} >= {"t060"}


def test_lineage_joins_in_sql(home: Project) -> None:
    examples = home.read("SELECT * FROM lineage_examples")
    assert examples.height == home.count("sft_examples")
    assert examples["source_line"].null_count() == 0
    chain = home.read("SELECT ancestor_name FROM lineage_checkpoints WHERE name = 'mixed' ORDER BY distance")
    assert chain["ancestor_name"].to_list() == ["mixed", "t100", "t060", "student"]
    assert home.read("SELECT count(*) AS n FROM lineage_runs WHERE run_id IS NULL").item() == 0


def test_a_prefix_does_where_one_row_has_it(home: Project) -> None:
    whole = one(home, "SELECT min(response_id) FROM responses")
    with Lake(str(home.home)).reading() as reading:
        assert find_id(reading, "response", whole[:12].upper()) == whole


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("xyz", "response ids are 32 hexadecimal digits"),
        ("ab", "the first 4 or more are enough"),
        ("0000000000000000", "there is no response 0000000000000000"),
    ],
)
def test_an_unknown_id_is_told_what_ids_look_like(home: Project, given: str, told: str) -> None:
    with Lake(str(home.home)).reading() as reading, pytest.raises(AuditError, match=told):
        find_id(reading, "response", given)


def test_an_id_of_another_kind_says_so(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = one(home, "SELECT min(prompt_id) FROM prompts")
    assert main(["audit", "response", prompt]) == 1
    assert f"but a prompt {prompt} (see: dasd audit prompt)" in capsys.readouterr().err


def test_an_empty_home_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    assert main(["audit", "response", "abcd"]) == 1
    assert "run `dasd run` first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
