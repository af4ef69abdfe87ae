"""The checkpoints' own answers to held-out questions: their log-probabilities, and whose sentences they consist of."""

from dasd_resources.storage.tables.recurring import (
    CHECKPOINT_ID,
    DTYPE,
    ENGINE,
    LOGPROBS,
    OFFSETS,
    QUESTION_ID,
    RUN_ID,
    SENTENCE_INDEX,
    STUDENT_FINGERPRINT,
    TEACHER_FINGERPRINT,
    THRESHOLD,
    THRESHOLD_VERSION,
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

_GIVEN = CHECKPOINT_ID.here("The checkpoint that gave the answer.").of("checkpoints.checkpoint_id")
_MODELS = {"teacher": "the teacher", "student": "the undistilled student", "distilled": "the checkpoint itself"}
_SUMMED = (_TEXT, "answer_logprobs.logprobs", "answer_logprobs.offsets")


def _sums(name: str, model: str) -> tuple[Column, ...]:
    """Columns of a sentence under one of the three models."""
    return (
        Column(f"{name}_sum_logprob", "DOUBLE", f"Sum of the log-probabilities of its tokens under {model}.", _SUMMED),
        Column(f"{name}_num_tokens", "INTEGER", f"Number of tokens in it for {model}.", _SUMMED),
        Column(
            f"{name}_prob",
            "DOUBLE",
            f"exp(sum / tokens) under {model}: the geometric mean per token (report §4); NULL without a token.",
            _SUMMED,
            nullable=True,
        ),
    )


ANSWER_SENTENCES = Table(
    name="answer_sentences",
    one_row_per="sentence of a checkpoint's own answer",
    notes="Sums, counts and geometric means under teacher, undistilled student and the checkpoint that answered.",
    columns=(
        ANSWER_ID.of("answer_logprobs.answer_id"),
        _GIVEN,
        TEACHER_FINGERPRINT,
        STUDENT_FINGERPRINT.of("checkpoints.checkpoint_id"),
        SENTENCE_INDEX.of(_TEXT),
        Column("start", "INTEGER", "First code point of the sentence.", (_TEXT,)),
        Column("stop", "INTEGER", "Code point after its last.", (_TEXT,)),
        *(column for name, model in _MODELS.items() for column in _sums(name, model)),
        Column("segmenter_version", "VARCHAR", "Version of the rules that cut text into sentences."),
        RUN_ID,
    ),
    key=(
        "answer_id",
        "checkpoint_id",
        "teacher_fingerprint",
        "student_fingerprint",
        "segmenter_version",
        "sentence_index",
    ),
    derived=True,
    permanent=True,
    named_by=("answer_id", "checkpoint_id", "sentence_index"),
    references=(
        Reference(("answer_id", "checkpoint_id"), "answer_logprobs"),
        Reference(("answer_id", "teacher_fingerprint"), "answer_logprobs", ("answer_id", "checkpoint_id")),
        Reference(("answer_id", "student_fingerprint"), "answer_logprobs", ("answer_id", "checkpoint_id")),
    ),
    shown=("answer_id", "sentence_index", "teacher_prob", "student_prob", "distilled_prob"),
)

_GAPS = tuple(
    f"answer_sentences.{column}"
    for column in ("start", "stop", *(f"{m}_{part}" for m in _MODELS for part in ("sum_logprob", "num_tokens")))
)
ANSWER_SENTENCE_TYPES = Table(
    name="answer_sentence_types",
    one_row_per="sentence of a checkpoint's own answer and divergence rule",
    columns=(
        ANSWER_ID.of("answer_sentences.answer_id"),
        _GIVEN.of("answer_sentences.checkpoint_id"),
        TEACHER_FINGERPRINT.of("answer_sentences.teacher_fingerprint"),
        STUDENT_FINGERPRINT.of("answer_sentences.student_fingerprint"),
        SENTENCE_INDEX.of("answer_sentences.sentence_index"),
        Column(
            "sentence_type",
            "VARCHAR",
            "`teacher`, `student`, `shared` or `boosted` ([which is which](provenance.md)); NULL where a model owns no "
            "token.",
            _GAPS,
            nullable=True,
        ),
        THRESHOLD,
        THRESHOLD_VERSION.here("Hash of segmenter, measure, threshold and code that typed the sentences."),
        RUN_ID,
    ),
    key=(
        "answer_id",
        "checkpoint_id",
        "teacher_fingerprint",
        "student_fingerprint",
        "threshold_version",
        "sentence_index",
    ),
    derived=True,
    named_by=("answer_id", "checkpoint_id", "sentence_index"),
    references=(
        Reference(
            ("answer_id", "checkpoint_id", "teacher_fingerprint", "student_fingerprint", "sentence_index"),
            "answer_sentences",
        ),
    ),
    shown=("answer_id", "sentence_index", "sentence_type"),
)

TABLES = (ANSWER_LOGPROBS, ANSWER_SENTENCES, ANSWER_SENTENCE_TYPES)
