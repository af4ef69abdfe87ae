"""Questions as they landed: those in use, those rejected, those withdrawn."""

from dasd_resources.storage.tables.recurring import (
    BATCH,
    DOMAIN,
    KIND,
    METADATA,
    PROMPT_ID,
    QUESTION,
    REASON,
    RECIPE,
    REFERENCE_ANSWER,
    RUN_ID,
    SOURCE_FILE,
    SOURCE_LINE,
    SYSTEM_PROMPT,
    TIME,
    VERIFIER,
)
from dasd_resources.storage.tables.table import Column, Table

PROMPTS = Table(
    name="prompts",
    one_row_per="question",
    notes="Owned by the first `batch` that brought it; what others say of it is merged ([questions](questions.md)).",
    columns=(
        PROMPT_ID,
        BATCH,
        DOMAIN,
        QUESTION,
        SYSTEM_PROMPT,
        REFERENCE_ANSWER,
        VERIFIER,
        METADATA,
        SOURCE_FILE,
        SOURCE_LINE,
        Column(
            "question_key", "VARCHAR", "Hash of question and system prompt, by which copies are found.", nullable=True
        ),
        Column(
            "id_fields",
            "VARCHAR",
            "What else an earlier release hashed into the id: domain, verifier and reference answer, as JSON.",
            nullable=True,
        ),
        Column(
            "language",
            "VARCHAR",
            "ISO 639-1 code of the question's language; NULL where maths, code or few words leave it open.",
            nullable=True,
        ),
        RUN_ID,
    ),
    key=("prompt_id",),
    derived=True,
    permanent=True,  # in what a model is asked; who reads what is known of it besides declares that as `reads`
    shown=("prompt_id", "domain", "question", "reference_answer"),
)

REJECTED_PROMPTS = Table(
    name="rejected_prompts",
    one_row_per="landed line that is not a prompt",
    notes="Line 0: the file as a whole.",
    columns=(
        BATCH,
        SOURCE_FILE,
        SOURCE_LINE,
        KIND.here("[Code](kinds.md) of why the line is not in `prompts`."),
        REASON.here("The same for people, with the offending value."),
        PROMPT_ID.here("Prompt it repeats, or the withdrawn one it is; NULL for a malformed line.").optional(),
        Column("owner_batch", "VARCHAR", "Batch that had the prompt it repeats; NULL for any other.", nullable=True),
        RUN_ID,
    ),
    key=("batch", "source_file", "source_line"),
    derived=True,
)

SAYS = Column("says", "VARCHAR", "Hash of what the line says of its question.")

PROMPT_LINES = Table(
    name="prompt_lines",
    one_row_per="landed line of a question that several lines have, where they do not all say the same",
    notes="What each says by itself, the owner's own line among them; `prompts` has it merged.",
    columns=(
        BATCH,
        SOURCE_FILE,
        SOURCE_LINE,
        PROMPT_ID.here("Prompt that the line's question is."),
        DOMAIN,
        REFERENCE_ANSWER,
        VERIFIER,
        METADATA,
        SAYS,
        Column(
            "retired_id",
            "VARCHAR",
            "Id under which an earlier release had the line as a prompt of its own; its responses are out of use.",
            nullable=True,
        ),
        RUN_ID,
    ),
    key=("batch", "source_file", "source_line"),
    derived=True,
)

PROMPT_MERGES = Table(
    name="prompt_merges",
    one_row_per="line that was merged into its prompt",
    notes="Which fields came from which line, and what was refused.",
    columns=(
        PROMPT_ID.of("prompts.prompt_id"),
        BATCH.of("prompts.batch"),
        Column("line_batch", "VARCHAR", "Batch of the line.", ("prompt_lines.batch",)),
        SOURCE_FILE.of("prompt_lines.source_file"),
        SOURCE_LINE.of("prompt_lines.source_line"),
        SAYS.of("prompt_lines.says"),
        Column("brought", "VARCHAR[]", "Fields of the prompt that are this line's."),
        KIND.here("[Code](kinds.md) of why others of its fields were refused."),
        REASON.here("The same for people, with both values.").optional(),
        RUN_ID,
    ),
    key=("prompt_id", "line_batch", "source_file", "source_line"),
    owner="prompts",
    derived=True,
)

ASKED_PROMPTS = Table(
    name="asked_prompts",
    one_row_per="recipe and question of a domain with a quota",
    notes="Which are asked, by `generation.questions_per_domain` ([questions](questions.md)).",
    columns=(
        RECIPE,
        PROMPT_ID.of("prompts.prompt_id"),
        BATCH.of("prompts.batch"),
        Column("asked", "BOOLEAN", "Whether the recipe asks it.", ("prompts.domain", "prompts.reference_answer")),
        Column("place", "BIGINT", "Its number among the questions of its domain, when the batch's prompts were made."),
        Column("quota", "BIGINT", "How many of them the recipe asks; NULL: all.", nullable=True),
        Column("position", "BIGINT", "Its number among all that were ever chosen; NULL: never was.", nullable=True),
        RUN_ID,
    ),
    key=("recipe", "prompt_id"),
    owner="prompts",
    in_summary=False,
)

HELD_OUT_QUESTIONS = Table(
    name="held_out_questions",
    one_row_per="recipe and question that nothing is trained on",
    notes="Of its benchmarks, and of `decontamination.files`.",
    columns=(
        RECIPE,
        Column("source", "VARCHAR", "Name of the benchmark, or of the file."),
        Column("question_id", "VARCHAR", "Its id there: as in `benchmark_questions`."),
        QUESTION,
        RUN_ID,
    ),
    key=("recipe", "source", "question_id"),
    derived=True,
    in_summary=False,
)

HELD_OUT_OVERLAPS = Table(
    name="held_out_overlaps",
    one_row_per="landed line that is like a held-out question",
    notes="Why a line is rejected as `held_out` or `overlaps_held_out`.",
    columns=(
        BATCH,
        SOURCE_FILE,
        SOURCE_LINE,
        PROMPT_ID.here("Id that the line's question has, or would have."),
        Column("source", "VARCHAR", "Benchmark or file of the held-out question."),
        Column("question_id", "VARCHAR", "Its id there."),
        Column("num_shared", "INTEGER", "Word n-grams in common; 0 where the two are the same."),
        Column("num_ngrams", "INTEGER", "N-grams by which the held-out question is known; 0 as above."),
        Column("overlap", "VARCHAR", "The longest run of words in common."),
        RUN_ID,
    ),
    key=("batch", "source_file", "source_line"),
    derived=True,
    in_summary=False,
)

QUESTION_BANDS = Table(
    name="question_bands",
    one_row_per="prompt that near duplicates are compared with",
    notes="Only where a recipe has `near_duplicates`.",
    columns=(
        PROMPT_ID.of("prompts.prompt_id"),
        BATCH.of("prompts.batch"),
        Column("bands", "BIGINT[]", "Hashes of the bands of its MinHash signature.", ("prompts.question",)),
        Column("bands_version", "VARCHAR", "Of n-grams, signature and bands: equal ones are compared.", nullable=True),
        RUN_ID,
    ),
    key=("prompt_id", "batch"),
    owner="prompts",
    derived=True,
    in_summary=False,
)

WITHDRAWN_PROMPTS = Table(
    name="withdrawn_prompts",
    one_row_per="prompt of a withdrawn question",
    notes="By `question_hash`, so that copies stay out ([takedown](audit.md)).",
    columns=(
        PROMPT_ID,
        Column("question_hash", "VARCHAR", "Hash of the question alone, by which later copies of it are known."),
        REASON.here("Why it was withdrawn."),
        Column("withdrawn_at", TIME, "When."),
        RUN_ID,
    ),
    key=("prompt_id",),
    in_summary=False,
)

TABLES = (
    PROMPTS,
    REJECTED_PROMPTS,
    PROMPT_LINES,
    PROMPT_MERGES,
    ASKED_PROMPTS,
    HELD_OUT_QUESTIONS,
    HELD_OUT_OVERLAPS,
    QUESTION_BANDS,
    WITHDRAWN_PROMPTS,
)
