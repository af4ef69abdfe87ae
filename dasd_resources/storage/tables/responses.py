"""The teacher's responses and all that is found out about each: verdicts, the student's view, sentences, scores."""

from dasd_resources.storage.tables.recurring import (
    BATCH,
    DTYPE,
    ENGINE,
    FILTER,
    FILTER_VERSION,
    FINISH_REASON,
    JUDGED_BY,
    KIND,
    LANDED_ID,
    LOGPROBS,
    MAX_TOKENS,
    NUM_TOKENS,
    OFFSETS,
    PASSED,
    PROMPT_ID,
    REASON,
    RESPONSE_ID,
    RUN_ID,
    SAMPLE_INDEX,
    SAMPLED,
    SCORE,
    SCORE_NAME,
    SEED,
    SENTENCE_INDEX,
    STUDENT_FINGERPRINT,
    TEACHER_FINGERPRINT,
    TEMPERATURE,
    TEMPLATE_VERSION,
    TEXT,
    THRESHOLD,
    THRESHOLD_VERSION,
    TIME,
    TOKEN_IDS,
    TOOL_CALL,
    TOP_P,
    VALUE,
    encoded,
)
from dasd_resources.storage.tables.table import Column, Reference, Table

RESPONSES = Table(
    name="responses",
    one_row_per="teacher response",
    notes="`token_ids`, `logprobs`, `offsets` of equal length.",
    columns=(
        RESPONSE_ID.of("prompts.prompt_id", "checkpoints.checkpoint_id"),
        PROMPT_ID.of("prompts.prompt_id"),
        BATCH.of("prompts.batch"),
        TEMPERATURE,
        TOP_P,
        MAX_TOKENS,
        SAMPLE_INDEX,
        SEED.of("prompts.prompt_id", "checkpoints.checkpoint_id"),
        TEACHER_FINGERPRINT,
        TEMPLATE_VERSION,
        ENGINE,
        DTYPE,
        TEXT.of(*SAMPLED),
        TOKEN_IDS.of(*SAMPLED),
        LOGPROBS.of(*SAMPLED),
        OFFSETS.of(*SAMPLED),
        NUM_TOKENS.of(*SAMPLED),
        Column(
            "mean_logprob",
            "DOUBLE",
            "Mean of `logprobs`, whose exponential is the response's probability; NULL in rows of earlier releases.",
            SAMPLED,
            nullable=True,
            computed="list_avg(logprobs::FLOAT[])",
        ),
        TOOL_CALL.of(*SAMPLED),
        FINISH_REASON.of(*SAMPLED),
        Column(
            "instruction",
            "VARCHAR",
            "What was written below the question, by `generation.instructions`; NULL: nothing.",
            ("prompts.domain",),
            nullable=True,
        ),
        LANDED_ID.here("The landed response that it is; NULL where the teacher was asked for it.")
        .optional()
        .of("landed_responses.landed_id"),
        Column(
            "logprob_origin",
            "VARCHAR",
            "Of a landed response: `given` with it, or by `prefill` of its text; NULL: sampled with it.",
            nullable=True,
        ),
        RUN_ID,
    ),
    key=("response_id",),
    permanent=True,
    references=(
        Reference(("prompt_id",), "prompts"),
        Reference(("teacher_fingerprint",), "checkpoints", ("checkpoint_id",)),
    ),
    owner="prompts",
    partitioned_by_batch=True,
    shown=("response_id", "text", "finish_reason"),
)

FAILED_REQUESTS = Table(
    name="failed_requests",
    one_row_per="request that ended without a row",
    notes="Gone when a later run succeeds.",
    columns=(
        Column("request_id", "VARCHAR", "Id of the row the request was for."),
        Column("asset", "VARCHAR", "Table the row would be in."),
        BATCH.here("Prompt batch of the request, if it has one.").optional(),
        KIND.here("[Code](kinds.md) of why it failed."),
        REASON.here("The same for people: what the engine reported."),
        Column("num_attempts", "INTEGER", "How often it has failed.", nullable=True),
        Column("failed_at", TIME, "When it failed last; the row goes when a later run succeeds."),
        RUN_ID,
    ),
    key=("asset", "request_id"),
)

STUDENT_TOKENS = Table(
    name="student_tokens",
    one_row_per="response and student",
    notes="The one place where a response is tokenised for the student: its length is counted, it is scored and "
    "trained on in these tokens.",
    columns=(
        RESPONSE_ID.of("responses.response_id"),
        BATCH.of("responses.batch"),
        STUDENT_FINGERPRINT.of("checkpoints.checkpoint_id"),
        *encoded("responses.text"),
        RUN_ID,
    ),
    key=("response_id", "student_fingerprint"),
    derived=True,
    permanent=True,
    named_by=("response_id",),
    references=(
        Reference(("response_id", "batch"), "responses"),
        Reference(("student_fingerprint",), "checkpoints", ("checkpoint_id",)),
    ),
    owner="responses",
    partitioned_by_batch=True,
    shown=("response_id", "num_prompt_tokens", "token_ids", "kind"),
)

_JUDGED = (
    *(f"responses.{column}" for column in ("text", "token_ids", "finish_reason", "tool_call")),
    "student_tokens.token_ids",
    "student_tokens.kind",
    *JUDGED_BY,
)
RESPONSE_VERDICTS = Table(
    name="response_verdicts",
    one_row_per="response and filter",
    columns=(
        RESPONSE_ID.of("responses.response_id"),
        BATCH.of("responses.batch"),
        FILTER,
        PASSED.of(*_JUDGED),
        KIND.of(*_JUDGED),
        REASON.optional().of(*_JUDGED),
        VALUE.of(*_JUDGED),
        FILTER_VERSION,
        RUN_ID,
    ),
    key=("response_id", "filter", "filter_version"),
    derived=True,
    named_by=("response_id", "filter"),
    references=(Reference(("response_id", "batch"), "responses"),),
    owner="responses",
    shown=("response_id", "filter", "passed", "kind", "reason", "value"),
)

STUDENT_LOGPROBS = Table(
    name="student_logprobs",
    one_row_per="scored response",
    notes="One log-probability per token of `student_tokens` after the prompt, end of turn included.",
    columns=(
        RESPONSE_ID.of("responses.response_id"),
        BATCH.of("responses.batch"),
        STUDENT_FINGERPRINT.of("checkpoints.checkpoint_id"),
        ENGINE,
        DTYPE,
        LOGPROBS.of("student_tokens.token_ids", "checkpoints.path"),
        RUN_ID,
    ),
    key=("response_id", "student_fingerprint"),
    permanent=True,
    named_by=("response_id",),
    references=(
        Reference(("response_id", "batch"), "responses"),
        Reference(("student_fingerprint",), "checkpoints", ("checkpoint_id",)),
    ),
    owner="responses",
    partitioned_by_batch=True,
    shown=("response_id", "engine", "logprobs"),
)

_TEACHER = ("responses.text", "responses.logprobs", "responses.offsets")
_STUDENT = ("responses.text", "student_logprobs.logprobs", "student_tokens.offsets")
SENTENCE_PROBABILITIES = Table(
    name="sentence_probabilities",
    one_row_per="sentence of a scored response",
    notes="Sums, counts and geometric means under both models.",
    columns=(
        RESPONSE_ID.of("student_logprobs.response_id"),
        BATCH.of("student_logprobs.batch"),
        STUDENT_FINGERPRINT.of("student_logprobs.student_fingerprint"),
        SENTENCE_INDEX.of("responses.text"),
        Column("start", "INTEGER", "First code point of the sentence.", ("responses.text",)),
        Column("stop", "INTEGER", "Code point after its last.", ("responses.text",)),
        Column(
            "teacher_sum_logprob", "DOUBLE", "Sum of the teacher's token log-probabilities in the sentence.", _TEACHER
        ),
        Column(
            "teacher_num_tokens",
            "INTEGER",
            "Number of the teacher's tokens in it.",
            ("responses.text", "responses.offsets"),
        ),
        Column("student_sum_logprob", "DOUBLE", "Sum of the student's token log-probabilities in it.", _STUDENT),
        Column(
            "student_num_tokens",
            "INTEGER",
            "Number of the student's tokens in it.",
            ("responses.text", "student_tokens.offsets"),
        ),
        Column(
            "teacher_prob",
            "DOUBLE",
            "exp(sum / tokens): the geometric mean per token (report §4); NULL without a token.",
            _TEACHER,
            nullable=True,
        ),
        Column("student_prob", "DOUBLE", "The same under the student.", _STUDENT, nullable=True),
        Column("segmenter_version", "VARCHAR", "Version of the rules that cut text into sentences."),
        RUN_ID,
    ),
    key=("response_id", "student_fingerprint", "segmenter_version", "sentence_index"),
    derived=True,
    permanent=True,
    named_by=("response_id", "sentence_index"),
    references=(Reference(("response_id", "batch", "student_fingerprint"), "student_logprobs"),),
    owner="responses",
    partitioned_by_batch=True,
    shown=("response_id", "sentence_index", "teacher_prob", "student_prob"),
)

_SUMS = ("teacher_sum_logprob", "teacher_num_tokens", "student_sum_logprob", "student_num_tokens", "start", "stop")
_GAPS = tuple(f"sentence_probabilities.{column}" for column in _SUMS)
SENTENCE_TYPES = Table(
    name="sentence_types",
    one_row_per="sentence and divergence rule",
    columns=(
        RESPONSE_ID.of("sentence_probabilities.response_id"),
        BATCH.of("sentence_probabilities.batch"),
        STUDENT_FINGERPRINT.of("sentence_probabilities.student_fingerprint"),
        SENTENCE_INDEX.of("sentence_probabilities.sentence_index"),
        Column(
            "sentence_type",
            "VARCHAR",
            "`teacher`, `student` or `close`; NULL where a side owns no token.",
            _GAPS,
            nullable=True,
        ),
        THRESHOLD,
        THRESHOLD_VERSION,
        RUN_ID,
    ),
    key=("response_id", "student_fingerprint", "threshold_version", "sentence_index"),
    derived=True,
    named_by=("response_id", "sentence_index"),
    references=(
        Reference(("response_id", "batch", "student_fingerprint", "sentence_index"), "sentence_probabilities"),
    ),
    owner="responses",
    shown=("response_id", "sentence_index", "sentence_type"),
)

RESPONSE_SCORES = Table(
    name="response_scores",
    one_row_per="response and score",
    notes="All scores; the recipe picks one.",
    columns=(
        RESPONSE_ID.of("sentence_probabilities.response_id"),
        BATCH.of("sentence_probabilities.batch"),
        STUDENT_FINGERPRINT.of("sentence_probabilities.student_fingerprint"),
        SCORE_NAME,
        SCORE.of("sentence_types.sentence_type", *_GAPS),
        Column(
            "num_sentences",
            "INTEGER",
            "Sentences with tokens on both sides, those a share or mean counts.",
            ("sentence_types.sentence_type",),
        ),
        THRESHOLD_VERSION.of("sentence_types.threshold_version"),
        RUN_ID,
    ),
    key=("response_id", "student_fingerprint", "threshold_version", "score_name"),
    derived=True,
    named_by=("response_id", "score_name"),
    references=(Reference(("response_id", "batch", "student_fingerprint", "threshold_version"), "sentence_types"),),
    owner="responses",
    shown=("response_id", "score_name", "score", "num_sentences"),
)

TABLES = (
    RESPONSES,
    FAILED_REQUESTS,
    STUDENT_TOKENS,
    RESPONSE_VERDICTS,
    STUDENT_LOGPROBS,
    SENTENCE_PROBABILITIES,
    SENTENCE_TYPES,
    RESPONSE_SCORES,
)
