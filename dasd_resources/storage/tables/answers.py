"""The checkpoints' own answers to held-out questions: their log-probabilities, and whose sentences they consist of."""

from dasd_resources.storage.tables.recurring import (
    CHECKPOINT_ID,
    DTYPE,
    ENGINE,
    LOGPROBS,
    OFFSETS,
    QUESTION_ID,
    RUN_ID,
    TOKEN_IDS,
)
from dasd_resources.storage.tables.table import Column, Reference, Table

_TEXT = "evaluations.response_text"
_READ = ("benchmark_questions.question", "benchmark_questions.system_prompt", _TEXT)
ANSWER_ID = Column("answer_id", "VARCHAR", "Hash of held-out question, answer, and how the answer ended.").of(
    "evaluations.question_id", "evaluations.finish_reason", _TEXT
)
ANSWER_LOGPROBS = Table(
    name="answer_logprobs",
    one_row_per="answer to a held-out question and model that scored it",
    notes="The three lists are of one length: the answer's tokens, without the prompt's. Teacher and undistilled "
    "student score every answer of the sample (`provenance` in the recipe), a checkpoint its own.",
    columns=(
        Column(
            "answer_logprobs_id",
            "VARCHAR",
            "Hash of answer and model.",
            (*ANSWER_ID.sources, "checkpoints.checkpoint_id"),
        ),
        ANSWER_ID,
        QUESTION_ID.of("evaluations.question_id"),
        CHECKPOINT_ID.here("The model that scored the answer, which another may have given.").of(
            "checkpoints.checkpoint_id"
        ),
        ENGINE,
        DTYPE,
        TOKEN_IDS.here("Token ids of the answer's text for this model, and its end of turn if it ended by itself.").of(
            *_READ
        ),
        LOGPROBS.of(*_READ, "checkpoints.path"),
        OFFSETS.of(_TEXT),
        RUN_ID,
    ),
    key=("answer_logprobs_id",),
    permanent=True,
    named_by=("answer_id", "checkpoint_id"),
    references=(Reference(("checkpoint_id",), "checkpoints"),),
    shown=("answer_id", "checkpoint_id", "engine", "logprobs"),
)

TABLES = (ANSWER_LOGPROBS,)
