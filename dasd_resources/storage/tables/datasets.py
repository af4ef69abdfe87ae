"""What is trained on: selected responses and the rule that selected them, examples, and which datasets there are."""

from dasd_resources.storage.tables.recurring import (
    CONTINUATION_ID,
    DATASET,
    DATASET_ID,
    DOMAIN,
    EXAMPLE_ID,
    POLICY,
    PROMPT_ID,
    REASON,
    RECIPE,
    RESPONSE_ID,
    RUN_ID,
    SCORE,
    SCORE_NAME,
    THRESHOLD,
    TIME,
)
from dasd_resources.storage.tables.table import Column, Reference, Table

SELECTED_RESPONSES = Table(
    name="selected_responses",
    one_row_per="response selected for a dataset",
    columns=(
        RECIPE,
        DATASET,
        POLICY,
        RESPONSE_ID.of("response_scores.response_id"),
        PROMPT_ID.of("responses.prompt_id"),
        DOMAIN.of("prompts.domain"),
        Column("rank", "BIGINT", "Place within the domain, from 1.", ("response_scores.score", "prompts.domain")),
        SCORE.of("response_scores.score"),
        SCORE_NAME.of("response_scores.score_name"),
        THRESHOLD,
        Column("selection_version", "VARCHAR", "Hash of the rule that selected it."),
        Column(
            "selection_id",
            "VARCHAR",
            "Hash of the selected responses and of the rule that selected them.",
            ("response_scores.response_id",),
        ),
        Column(
            "selected_by",
            "VARCHAR",
            "The recipe that selected it, where this one takes another's selection (`selection_from`); else NULL.",
            nullable=True,
        ),
        RUN_ID,
    ),
    key=("recipe", "dataset", "policy", "response_id"),
    derived=True,
    named_by=("response_id",),
    references=(Reference(("response_id", "prompt_id"), "responses"),),
    shown=("response_id", "domain", "rank", "score"),
)

SELECTION_RULES = Table(
    name="selection_rules",
    one_row_per="dataset of a recipe",
    notes="All that decided its selection, or the draw of `mixed`.",
    columns=(
        RECIPE,
        DATASET,
        Column("rule", "VARCHAR", "The rule that selected, as JSON."),
        Column("selected_at", TIME, "When the dataset was selected by it."),
        RUN_ID,
    ),
    key=("recipe", "dataset"),
    in_summary=False,
)

_TAUGHT = ("student_tokens.token_ids", "continuation_tokens.token_ids")
_LOSS = ("continuation_tokens.offsets", "teacher_continuations.text", "teacher_continuations.prefix_text")
_EXAMPLES = ("selected_responses.response_id", "teacher_continuations.continuation_id", *_TAUGHT)
SFT_EXAMPLES = Table(
    name="sft_examples",
    one_row_per="training example",
    columns=(
        RECIPE,
        DATASET,
        POLICY,
        EXAMPLE_ID.of(*_EXAMPLES),
        RESPONSE_ID.here("The response it teaches; NULL for a continuation.")
        .optional()
        .of("selected_responses.response_id"),
        CONTINUATION_ID.here("The continuation it teaches; NULL for a response.")
        .optional()
        .of("teacher_continuations.continuation_id"),
        Column("input_ids", "INTEGER[]", "The student's token ids: prompt, response, end of turn.", _TAUGHT),
        Column(
            "labels",
            "INTEGER[]",
            "The same ids where a token carries loss, -100 elsewhere.",
            (*_TAUGHT, *_LOSS),
        ),
        DATASET_ID.of(*_EXAMPLES),
        RUN_ID,
    ),
    key=("recipe", "dataset", "policy", "example_id"),
    derived=True,
    named_by=("example_id",),
    references=(
        Reference(("response_id",), "responses"),
        Reference(("continuation_id",), "teacher_continuations"),
    ),
    shown=("example_id", "response_id", "continuation_id", "input_ids"),
)

PUBLISHED_DATASETS = Table(
    name="published_datasets",
    one_row_per="dataset as it is now",
    columns=(
        RECIPE,
        DATASET,
        POLICY,
        DATASET_ID,
        Column("snapshot_id", "BIGINT", "Snapshot of the warehouse that holds its rows; maintenance keeps it."),
        Column("num_examples", "BIGINT", "Examples in it."),
        Column("published_at", TIME, "When its content became this."),
        RUN_ID,
    ),
    key=("recipe", "dataset", "policy"),
    in_summary=False,
)

EMPTY_DATASETS = Table(
    name="empty_datasets",
    one_row_per="dataset without any example",
    notes="The stage that would train on it is skipped.",
    columns=(
        RECIPE,
        DATASET,
        Column("kind", "VARCHAR", "[Code](kinds.md) of why it is empty."),
        REASON.here("The same for people, with the counts."),
        Column("num_responses", "BIGINT", "Responses of its temperature; NULL for `mixed`.", nullable=True),
        Column(
            "num_rolled_out", "BIGINT", "Rollouts that were made; this and what follows only for `mixed`."
        ).optional(),
        Column("num_cut_off", "BIGINT", "Of these, cut off at their token limit.", nullable=True),
        Column("num_continued", "BIGINT", "Of these, continued by the teacher.", nullable=True),
        Column("num_passed", "BIGINT", "Of these, passed by the required filters.", nullable=True),
        RUN_ID,
    ),
    key=("recipe", "dataset"),
    in_summary=False,
)

TABLES = (SELECTED_RESPONSES, SELECTION_RULES, SFT_EXAMPLES, PUBLISHED_DATASETS, EMPTY_DATASETS)
