"""Teacher responses that no stage was trained on: how each checkpoint scores them, and its loss on their sentences."""

from dasd_resources.storage.tables.recurring import (
    CHECKPOINT_ID,
    DATASET,
    DTYPE,
    ENGINE,
    LOGPROBS,
    RECIPE,
    RESPONSE_ID,
    RUN_ID,
    THRESHOLD_VERSION,
)
from dasd_resources.storage.tables.table import Column, Reference, Table

_SCORED = ("student_tokens.token_ids", "checkpoints.path")
HELDOUT_LOGPROBS = Table(
    name="heldout_logprobs",
    one_row_per="held-out response and checkpoint",
    notes="One log-probability per token of `student_tokens` after the prompt, end of turn included.",
    columns=(
        Column(
            "heldout_logprobs_id",
            "VARCHAR",
            "Hash of response and checkpoint.",
            ("responses.response_id", "checkpoints.checkpoint_id"),
        ),
        RESPONSE_ID.of("responses.response_id"),
        CHECKPOINT_ID.here("The checkpoint that scored it.").of("checkpoints.checkpoint_id"),
        ENGINE,
        DTYPE,
        LOGPROBS.of(*_SCORED),
        RUN_ID,
    ),
    key=("heldout_logprobs_id",),
    permanent=True,
    named_by=("response_id", "checkpoint_id"),
    references=(Reference(("checkpoint_id",), "checkpoints"),),
    shown=("response_id", "checkpoint_id", "engine", "logprobs"),
    in_summary=False,
)

_LOGPROBS = ("heldout_logprobs.logprobs", "student_logprobs.logprobs")
_TYPED = ("sentence_types.sentence_type", "student_tokens.offsets", "responses.text")
HELDOUT_LOSSES = Table(
    name="heldout_losses",
    one_row_per="checkpoint, dataset and type of sentence",
    notes="Over the same held-out teacher responses for every checkpoint of a recipe: made anew when the checkpoints "
    "change.",
    columns=(
        RECIPE,
        CHECKPOINT_ID.of("checkpoints.checkpoint_id"),
        DATASET.here("`t060`, `t100`, … after the temperature that the responses were sampled at."),
        Column(
            "question_seen",
            "BOOLEAN",
            "Whether a stage was trained on another response to the question.",
            ("checkpoint_examples.prompt_id",),
        ),
        Column(
            "sentence_type",
            "VARCHAR",
            "`teacher`, `student` or `close`, before training; `untyped`; `outside`: tokens of no sentence; `all`.",
            _TYPED,
        ),
        Column("num_responses", "BIGINT", "Responses with such a token.", _TYPED),
        Column("num_tokens", "BIGINT", "The student's tokens in them.", _TYPED),
        Column("loss", "DOUBLE", "Mean over these tokens of minus their log-probability, nats.", (*_LOGPROBS, *_TYPED)),
        Column("change", "DOUBLE", "The loss less that of the undistilled student.", (*_LOGPROBS, *_TYPED)),
        Column(
            "change_standard_error",
            "DOUBLE",
            "Of the change, clustered by question; NULL for a single question.",
            (*_LOGPROBS, *_TYPED),
            nullable=True,
        ),
        Column(
            "share_of_change",
            "DOUBLE",
            "How much of the change of all tokens' sum is that of these; NULL for the undistilled student.",
            (*_LOGPROBS, *_TYPED),
            nullable=True,
        ),
        THRESHOLD_VERSION,
        RUN_ID,
    ),
    key=("recipe", "checkpoint_id", "dataset", "question_seen", "sentence_type"),
    references=(Reference(("checkpoint_id",), "checkpoints"),),
    shown=("checkpoint_id", "dataset", "sentence_type", "num_tokens", "loss", "change"),
    in_summary=False,
)

TABLES = (HELDOUT_LOGPROBS, HELDOUT_LOSSES)
