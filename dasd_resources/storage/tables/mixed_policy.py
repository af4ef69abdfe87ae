"""The mixed-policy stage: what the distilled student writes, where it is cut, how the teacher goes on."""

from dasd_resources.storage.tables.recurring import (
    CHECKPOINT_ID,
    CONTINUATION_ID,
    CONTINUED,
    FILTER,
    FILTER_VERSION,
    FINISH_REASON,
    JUDGED_BY,
    KIND,
    LOGPROBS,
    MAX_TOKENS,
    NUM_TOKENS,
    OFFSETS,
    PASSED,
    PREFIX,
    PROMPT_ID,
    REASON,
    ROLLOUT_ID,
    RUN_ID,
    SAMPLED,
    SEED,
    STUDENT_FINGERPRINT,
    TEACHER_FINGERPRINT,
    TEMPERATURE,
    TEXT,
    TOKEN_IDS,
    TOOL_CALL,
    TOP_P,
    VALUE,
    encoded,
)
from dasd_resources.storage.tables.table import Column, Reference, Table

STUDENT_ROLLOUTS = Table(
    name="student_rollouts",
    one_row_per="rollout of the distilled student",
    columns=(
        ROLLOUT_ID.of(
            "checkpoints.checkpoint_id",
            "selected_responses.prompt_id",
            "selected_responses.response_id",
            "student_tokens.offsets",
        ),
        CHECKPOINT_ID.here("The distilled student that answered.").of("checkpoints.checkpoint_id"),
        PROMPT_ID.of("selected_responses.prompt_id"),
        Column(
            "reference_response_id",
            "VARCHAR",
            "The selected teacher response to the same question.",
            ("selected_responses.response_id",),
        ),
        Column("reference_num_tokens", "INTEGER", "Its length in student tokens.", ("student_tokens.offsets",)),
        MAX_TOKENS.of("student_tokens.offsets"),
        TEMPERATURE,
        TOP_P,
        SEED,
        TEXT.of(*SAMPLED),
        TOKEN_IDS.of(*SAMPLED),
        LOGPROBS.of(*SAMPLED),
        OFFSETS.of(*SAMPLED),
        NUM_TOKENS.of(*SAMPLED),
        FINISH_REASON.of(*SAMPLED),
        Column("cut_off", "BOOLEAN", "Whether the rollout hit its token limit.", SAMPLED),
        RUN_ID,
    ),
    key=("rollout_id",),
    references=(
        Reference(("checkpoint_id",), "checkpoints"),
        Reference(("reference_response_id", "prompt_id"), "responses", ("response_id", "prompt_id")),
    ),
    shown=("rollout_id", "text", "cut_off"),
)

_CUT = ("student_rollouts.text", "student_rollouts.offsets")
PREFIX_CUTS = Table(
    name="prefix_cuts",
    one_row_per="rollout that was cut off",
    columns=(
        ROLLOUT_ID.of("student_rollouts.rollout_id"),
        Column(
            "cut_token",
            "INTEGER",
            "How many of the rollout's tokens are kept; NULL where it cannot be cut.",
            _CUT,
            nullable=True,
        ),
        Column("cut_char", "INTEGER", "How many code points of its text that is.", _CUT, nullable=True),
        SEED.of("student_rollouts.rollout_id"),
        REASON.here("Why it cannot be cut, for people.").optional().of(*_CUT),
        Column("cut_version", "VARCHAR", "Version of the rule that drew the cut."),
        RUN_ID,
    ),
    key=("rollout_id", "cut_version"),
    derived=True,
    named_by=("rollout_id",),
    references=(Reference(("rollout_id",), "student_rollouts"),),
    shown=("rollout_id", "cut_token", "cut_char", "reason"),
)

TEACHER_CONTINUATIONS = Table(
    name="teacher_continuations",
    one_row_per="prefix that the teacher continued",
    columns=(
        CONTINUATION_ID.of("student_rollouts.rollout_id", *PREFIX, "checkpoints.checkpoint_id"),
        ROLLOUT_ID.of("student_rollouts.rollout_id"),
        PROMPT_ID.of("student_rollouts.prompt_id"),
        Column("prefix_text", "VARCHAR", "The student's part.", PREFIX),
        Column("continuation_text", "VARCHAR", "The teacher's part.", CONTINUED),
        TEXT.here("Both together, canonical.").of(*CONTINUED),
        TEMPERATURE,
        TOP_P.optional(),
        MAX_TOKENS.of(*PREFIX),
        Column(
            "max_response_tokens",
            "INTEGER",
            "Token limit of prefix and continuation together; NULL in rows of earlier releases.",
            nullable=True,
        ),
        SEED,
        TEACHER_FINGERPRINT,
        TOKEN_IDS.here("Token ids of the continuation as sampled.").of(*CONTINUED),
        LOGPROBS.here("Natural log-probability of each token of the continuation at temperature 1.").of(*CONTINUED),
        OFFSETS.here("Code point at which each of its tokens starts in `text`; -1: not in the text.").of(*CONTINUED),
        NUM_TOKENS.of(*CONTINUED),
        TOOL_CALL.of(*CONTINUED),
        FINISH_REASON.of(*CONTINUED),
        RUN_ID,
    ),
    key=("continuation_id",),
    permanent=True,
    references=(
        Reference(("rollout_id", "prompt_id"), "student_rollouts"),
        Reference(("teacher_fingerprint",), "checkpoints", ("checkpoint_id",)),
    ),
    shown=("continuation_id", "prefix_text", "continuation_text"),
)

CONTINUATION_TOKENS = Table(
    name="continuation_tokens",
    one_row_per="continuation and student",
    notes="Prefix and continuation together, in the tokens that they are judged and trained on in.",
    columns=(
        CONTINUATION_ID.of("teacher_continuations.continuation_id"),
        STUDENT_FINGERPRINT.of("checkpoints.checkpoint_id"),
        *encoded("teacher_continuations.text"),
        RUN_ID,
    ),
    key=("continuation_id", "student_fingerprint"),
    derived=True,
    permanent=True,
    named_by=("continuation_id",),
    references=(
        Reference(("continuation_id",), "teacher_continuations"),
        Reference(("student_fingerprint",), "checkpoints", ("checkpoint_id",)),
    ),
    shown=("continuation_id", "num_prompt_tokens", "token_ids", "kind"),
)

_JUDGED = (
    *(f"teacher_continuations.{column}" for column in ("text", "finish_reason", "tool_call")),
    "continuation_tokens.token_ids",
    "continuation_tokens.kind",
    *JUDGED_BY,
)
CONTINUATION_VERDICTS = Table(
    name="continuation_verdicts",
    one_row_per="continuation and filter",
    columns=(
        CONTINUATION_ID.of("teacher_continuations.continuation_id"),
        FILTER,
        PASSED.of(*_JUDGED),
        KIND.of(*_JUDGED),
        REASON.optional().of(*_JUDGED),
        VALUE.of(*_JUDGED),
        FILTER_VERSION,
        RUN_ID,
    ),
    key=("continuation_id", "filter", "filter_version"),
    derived=True,
    named_by=("continuation_id", "filter"),
    references=(Reference(("continuation_id",), "teacher_continuations"),),
    shown=("continuation_id", "filter", "passed", "kind", "reason", "value"),
)

TABLES = (STUDENT_ROLLOUTS, PREFIX_CUTS, TEACHER_CONTINUATIONS, CONTINUATION_TOKENS, CONTINUATION_VERDICTS)
