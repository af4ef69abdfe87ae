"""`dasd audit verify` recomputes every table that it can: one left out of its lists is named here, with the reason."""

from dasd_assets.audit.verify import HASHED, JUDGED, SAID, TOKENISED
from dasd_resources.storage.tables import TABLES

IDS_ELSEWHERE = {
    ("responses", "response_id"): "by `row_ids.responses`: it needs the teacher's recipe",
    ("selected_responses", "selection_id"): "by `datasets.selections`",
    ("sft_examples", "dataset_id"): "by `datasets.datasets`",
    ("published_datasets", "dataset_id"): "by `datasets.published`: the examples must have it",
    ("checkpoints", "checkpoint_id"): "by `checkpoints.checkpoints`",
    ("checkpoints", "dataset_id"): "by `checkpoints.checkpoints`",
    ("checkpoint_examples", "example_id"): "by `checkpoints.checkpoints`: the snapshot must have it",
}
IDS_NOT_RECOMPUTED = {
    ("published_datasets", "snapshot_id"): "the catalogue gave it",
    ("checkpoints", "snapshot_id"): "the catalogue gave it",
    ("rejected_prompts", "prompt_id"): "of the same question elsewhere, if there is one",
    ("prompt_lines", "prompt_id"): "of the prompt that the line is merged into; `keys` looks for it",
    ("prompt_lines", "retired_id"): "given by an earlier release",
    ("prompt_merges", "prompt_id"): "of the prompt; made anew with it",
    ("asked_prompts", "prompt_id"): "of the prompt; made anew with it",
    ("held_out_questions", "question_id"): "of a benchmark, or of a file that is not kept",
    ("held_out_overlaps", "prompt_id"): "of a question that is no prompt",
    ("held_out_overlaps", "question_id"): "of a held-out question that may be gone",
    ("question_bands", "prompt_id"): "of the prompt; made anew with it",
    ("withdrawn_prompts", "prompt_id"): "the question is gone",
    ("experiment_cells", "dataset_id"): "of the checkpoint, by `checkpoints.checkpoints`",
    ("failed_requests", "request_id"): "of a row that was never made",
    ("benchmark_questions", "question_id"): "the hashed domain is not stored",
    ("answer_logprobs", "answer_id"): "of an answer in evaluations; `answers.answer_texts` looks for it",
    ("answer_logprobs", "question_id"): "of that answer",
    ("heldout_logprobs", "response_id"): "part of heldout_logprobs_id",
    ("evaluations", "question_id"): "part of evaluation_id, and of a question that may be gone",
    ("evaluation_requests", "question_id"): "part of evaluation_id, and of a question that may be gone",
    ("quarantined_batches", "failed_run_id"): "Dagster gave it",
    ("landed_responses", "prompt_id"): "part of landed_id; the line may be rejected as a question",
    ("responses", "landed_id"): "part of response_id",
}
LANDED = {"landed_responses", "landed_logprobs"}  # as they landed; `imports` compares them with what they became


def own_ids() -> set[tuple[str, str]]:
    """(table, column) of the ids that no reference finds in another table."""
    found = set[tuple[str, str]]()
    for name, table in TABLES.items():
        referring = {column for reference in table.references for column in reference.columns}
        ids = {column for column in table.column_names if column.endswith("_id")} - {"run_id"}
        found |= {(name, column) for column in ids - referring}
    return found


def tables_with(*columns: str) -> set[str]:
    return {name for name, table in TABLES.items() if all(table.has(column) for column in columns)}


def test_every_table_of_token_ids_is_compared_with_its_text() -> None:
    said, tokenised = {said.table for said in SAID}, {made.tokens for made in TOKENISED}
    answers = {"answer_logprobs"}  # by `answers.answer_texts`: their text is in evaluations
    assert said | tokenised | answers == tables_with("token_ids") - LANDED
    assert (
        said == tables_with("text") - LANDED == {made.table for made in TOKENISED} | {"student_rollouts"}
    )  # not trained on


def test_every_table_of_verdicts_is_judged_again() -> None:
    assert {judged.verdicts for judged in JUDGED} == tables_with("filter", "passed")
    assert tables_with("correct") == {"evaluations"}  # by `judgements.evaluations`


def test_every_id_that_a_table_makes_is_hashed_again() -> None:
    hashed = {(table, columns.split(", ")[0]) for table, columns, _ in HASHED} & own_ids()
    assert own_ids() == hashed | set(IDS_ELSEWHERE) | set(IDS_NOT_RECOMPUTED)
    assert not hashed & (set(IDS_ELSEWHERE) | set(IDS_NOT_RECOMPUTED))


def test_every_seed_is_hashed_again() -> None:
    seeded = {table for table, columns, _ in HASHED if "seed" in columns.split(", ")}
    declared = {"experiment_cells"}  # an experiment names its own seeds
    assert seeded | {"responses"} | declared == tables_with("seed")  # responses: by `row_ids.responses`
