"""Models, what each was trained on, and how well each answers held-out questions."""

from dasd_resources.storage.tables.recurring import (
    BENCHMARK,
    CHECKPOINT_ID,
    CONTINUATION_ID,
    DATASET,
    DATASET_ID,
    DOMAIN,
    EXAMPLE_ID,
    FINISH_REASON,
    KIND,
    MAX_TOKENS,
    METADATA,
    POLICY,
    PROMPT_ID,
    QUESTION,
    QUESTION_ID,
    REASON,
    RECIPE,
    REFERENCE_ANSWER,
    RESPONSE_ID,
    RUN_ID,
    SAMPLE_INDEX,
    SOURCE_LINE,
    SYSTEM_PROMPT,
    TEMPERATURE,
    TEMPLATE_VERSION,
    TIME,
    TOP_P,
    VERIFIER,
)
from dasd_resources.storage.tables.table import Column, Reference, Table

EVALUATION_ID = Column("evaluation_id", "VARCHAR", "Hash of checkpoint, question, sampling and what judges it.")
VERIFIER_VERSION = Column("verifier_version", "VARCHAR", "Version of the verifiers' code, and of math-verify.")

_TRAINED = ("checkpoints.path", "sft_examples.input_ids", "sft_examples.labels")
CHECKPOINTS = Table(
    name="checkpoints",
    one_row_per="model",
    notes="The untrained teacher and student too.",
    columns=(
        CHECKPOINT_ID.of("checkpoints.checkpoint_id", "sft_examples.example_id"),
        RECIPE.optional(),
        Column(
            "name",
            "VARCHAR",
            "`teacher`, `student` (untrained), its dataset (`t060`, …, `mixed`), or what `dasd evaluate` was given.",
        ),
        Column(
            "stage",
            "INTEGER",
            "Its place in the order of training: 0 for the untrained student, 1, 2, …; NULL for the teacher.",
            nullable=True,
        ),
        Column(
            "parent_checkpoint_id",
            "VARCHAR",
            "The model training started from; NULL for an untrained one.",
            ("checkpoints.checkpoint_id",),
            nullable=True,
        ),
        DATASET.here("Dataset it was trained on; NULL for an untrained one.").optional().of("sft_examples.dataset"),
        POLICY.here("By what the dataset was chosen; NULL of an untrained one, and of earlier releases: `das`.")
        .optional()
        .of("sft_examples.policy"),
        DATASET_ID.optional().of("sft_examples.dataset_id"),
        Column(
            "snapshot_id", "BIGINT", "Snapshot of the warehouse that holds exactly the rows trained on.", nullable=True
        ),
        Column(
            "path",
            "VARCHAR",
            "Folder of weights, configuration and tokenizer; relative to the home if it lies there.",
            _TRAINED,
        ),
        Column("content_hash", "VARCHAR", "Hash of the files in it.", _TRAINED),
        Column("training_version", "VARCHAR", "Hash of code and settings of the training.", nullable=True),
        Column("num_examples", "BIGINT", "Examples trained on.", ("sft_examples.example_id",), nullable=True),
        Column("num_steps", "BIGINT", "Optimiser steps.", nullable=True),
        Column("seconds", "DOUBLE", "Time the training took, without steps that a kill undid.", nullable=True),
        Column("final_loss", "DOUBLE", "Training loss at the last step, nats per token.", _TRAINED, nullable=True),
        Column("materialized_at", TIME, "When it was registered."),
        Column("recipe_document", "VARCHAR", "The recipe it was trained by, as JSON.", nullable=True),
        Column("environment", "VARCHAR", "Versions of the packages it was trained with, as JSON.", nullable=True),
        RUN_ID,
    ),
    key=("checkpoint_id", "recipe", "name"),
    named_by=("checkpoint_id",),
    references=(Reference(("parent_checkpoint_id",), "checkpoints", ("checkpoint_id",)),),
    shown=("checkpoint_id", "name", "stage", "parent_checkpoint_id", "num_examples"),
)

INSTRUCTION = Column(
    "instruction",
    "VARCHAR",
    "How to answer, of the benchmark: around the question where it names `{question}`, else below it; NULL: nothing.",
    nullable=True,
)

JUDGE = Column(
    "judged_by",
    "VARCHAR",
    "Hash of the metadata, where the verifier reads it (tests, a schema, constraints); NULL: not, or not known.",
    nullable=True,
)

CHECKPOINT_EXAMPLES = Table(
    name="checkpoint_examples",
    one_row_per="example that a checkpoint was trained on",
    notes="Kept when the dataset changes.",
    columns=(
        CHECKPOINT_ID,
        EXAMPLE_ID,
        PROMPT_ID,
        RESPONSE_ID.optional(),
        CONTINUATION_ID.optional(),
        RUN_ID,
    ),
    key=("checkpoint_id", "example_id"),
    references=(
        Reference(("checkpoint_id",), "checkpoints"),
        Reference(("response_id", "prompt_id"), "responses"),
        Reference(("continuation_id", "prompt_id"), "teacher_continuations"),
    ),
    in_summary=False,
)

BENCHMARK_QUESTIONS = Table(
    name="benchmark_questions",
    one_row_per="held-out question",
    columns=(
        BENCHMARK,
        QUESTION_ID,
        DOMAIN.here("Domain of the question; NULL in rows of earlier releases.").optional(),
        QUESTION,
        SYSTEM_PROMPT,
        REFERENCE_ANSWER,
        VERIFIER,
        METADATA,
        JUDGE,
        SOURCE_LINE.here("Line of the benchmark's file, from 1; of a generated question, the number of its entry."),
        INSTRUCTION,
        RUN_ID,
    ),
    key=("benchmark", "question_id"),
    derived=True,
    shown=("benchmark", "question", "reference_answer"),
    in_summary=False,
)

_ANSWERED = (
    "benchmark_questions.question",
    "benchmark_questions.instruction",
    "benchmark_questions.system_prompt",
    "checkpoints.path",
)
_JUDGED = (
    *_ANSWERED,
    "benchmark_questions.reference_answer",
    "benchmark_questions.verifier",
    "benchmark_questions.metadata",
)
EVALUATIONS = Table(
    name="evaluations",
    one_row_per="answer to a held-out question",
    columns=(
        EVALUATION_ID.of(
            "checkpoints.checkpoint_id", "benchmark_questions.benchmark", "benchmark_questions.question_id"
        ),
        CHECKPOINT_ID.of("checkpoints.checkpoint_id"),
        BENCHMARK.of("benchmark_questions.benchmark"),
        TEMPERATURE,
        TOP_P,
        MAX_TOKENS,
        TEMPLATE_VERSION.optional(),
        QUESTION_ID.of("benchmark_questions.question_id"),
        SAMPLE_INDEX,
        INSTRUCTION.of("benchmark_questions.instruction"),
        JUDGE.of("benchmark_questions.judged_by"),
        Column("correct", "BOOLEAN", "Whether the final answer is right.", _JUDGED),
        KIND.here("[Code](kinds.md) of why it is not.").of(*_JUDGED),
        REASON.here("The same for people.").optional().of(*_JUDGED),
        Column("response_text", "VARCHAR", "Canonical text of the answer.", _ANSWERED),
        Column("num_tokens", "INTEGER", "Tokens of the answer.", _ANSWERED),
        FINISH_REASON.of(*_ANSWERED),
        VERIFIER_VERSION,
        RUN_ID,
    ),
    key=("evaluation_id",),
    references=(Reference(("checkpoint_id",), "checkpoints"),),
    shown=("benchmark", "response_text", "correct", "kind", "reason"),
)

EVALUATION_REQUESTS = Table(
    name="evaluation_requests",
    one_row_per="answer that a model was asked for",
    notes="Written before it is asked, and again where another prompt (`template_version`) was asked since: the last "
    "one counts. With `failed_requests` it says which question a failed request was of.",
    columns=(
        EVALUATION_ID.of("checkpoints.checkpoint_id", "benchmark_questions.question_id"),
        CHECKPOINT_ID.of("checkpoints.checkpoint_id"),
        BENCHMARK.of("benchmark_questions.benchmark"),
        TEMPERATURE,
        TOP_P,
        MAX_TOKENS,
        TEMPLATE_VERSION,
        QUESTION_ID.of("benchmark_questions.question_id"),
        SAMPLE_INDEX,
        VERIFIER_VERSION,
        INSTRUCTION.of("benchmark_questions.instruction"),
        JUDGE.of("benchmark_questions.judged_by"),
        RUN_ID,
    ),
    key=("evaluation_id",),
    references=(Reference(("checkpoint_id",), "checkpoints"),),
    in_summary=False,
)

ANSWER_TRAITS = Table(
    name="answer_traits",
    one_row_per="answer to a held-out question and version of the rule",
    columns=(
        EVALUATION_ID.of("evaluations.evaluation_id"),
        Column(
            "final_answer",
            "VARCHAR",
            "The final answer in the form in which answers are counted (maj@k); NULL: it has none that can be.",
            ("evaluations.response_text", "benchmark_questions.verifier"),
            nullable=True,
        ),
        Column(
            "repetition",
            "DOUBLE",
            "The greatest measure of the repetition filter, as a multiple of its limit.",
            ("evaluations.response_text", "evaluations.num_tokens"),
        ),
        Column("traits_version", "VARCHAR", "Hash of the code that found them and of the limits of `repetition`."),
        RUN_ID,
    ),
    key=("evaluation_id", "traits_version"),
    references=(Reference(("evaluation_id",), "evaluations"),),
    derived=True,
    in_summary=False,
)

_MEASURED = ("evaluations.correct", "evaluations.num_tokens", "evaluations.finish_reason", "answer_traits.final_answer")
EVALUATION_METRICS = Table(
    name="evaluation_metrics",
    one_row_per="figure of a model on a benchmark",
    notes="What each figure is: [evaluation](evaluation.md).",
    columns=(
        CHECKPOINT_ID.of("checkpoints.checkpoint_id"),
        BENCHMARK.of("benchmark_questions.benchmark"),
        TEMPERATURE,
        TOP_P,
        MAX_TOKENS,
        Column("num_samples", "INTEGER", "Answers that were wanted of each question: the k of avg@k."),
        VERIFIER_VERSION,
        Column(
            "metric",
            "VARCHAR",
            "`avg@64`, `pass@8`, `maj@64`, `cut_off_rate`, `repetition_rate`, `mean_tokens`, `tokens_p90`, …",
        ),
        Column(
            "value", "DOUBLE", "The figure; NULL: not known, or the evaluation is incomplete.", _MEASURED, nullable=True
        ),
        Column(
            "standard_error",
            "DOUBLE",
            "Its standard error, clustered by question; NULL: of one question, or where all are alike, there is none.",
            _MEASURED,
            nullable=True,
        ),
        Column("num_questions", "BIGINT", "Questions that the figure is of."),
        Column("num_answers", "BIGINT", "Answers there are.", ("evaluations.evaluation_id",)),
        Column("num_failed", "BIGINT", "Requests that failed, which count as wrong.", ("failed_requests.request_id",)),
        Column("num_missing", "BIGINT", "Answers that were not asked for yet: above 0, the evaluation is incomplete."),
        Column(
            "question_set",
            "VARCHAR",
            "Hash of the questions, their instructions and what judges them.",
            ("benchmark_questions.question_id", "benchmark_questions.judged_by"),
        ),
        Column("traits_version", "VARCHAR", "Of the `answer_traits` behind `maj@k` and `repetition_rate`."),
        RUN_ID,
    ),
    key=(
        "checkpoint_id",
        "benchmark",
        "temperature",
        "top_p",
        "max_tokens",
        "num_samples",
        "verifier_version",
        "metric",
    ),
    references=(Reference(("checkpoint_id",), "checkpoints"),),
    derived=True,
    shown=("benchmark", "temperature", "metric", "value", "standard_error", "num_failed"),
    in_summary=False,
)

TABLES = (
    CHECKPOINTS,
    CHECKPOINT_EXAMPLES,
    BENCHMARK_QUESTIONS,
    EVALUATIONS,
    EVALUATION_REQUESTS,
    ANSWER_TRAITS,
    EVALUATION_METRICS,
)
