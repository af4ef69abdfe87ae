"""Columns that several tables have, each with its meaning once; and the sources that several columns share."""

from dasd_resources.storage.tables.table import Column

TIME = "TIMESTAMP WITH TIME ZONE"

# Which row it is, and of what.
LANDED_ID = Column("landed_id", "VARCHAR", "Hash of a landed response: question, text, and what its row says of it.")
SAMPLE = Column(
    "sample",
    "VARCHAR",
    "What logprobs are found by: their response's `sample_uuid`, or its landed_id if they came with it.",
)
ITEM = Column("item", "INTEGER", "Which of the row's responses, from 0.")
PROMPT_ID = Column(
    "prompt_id", "VARCHAR", "Hash of question and system prompt; what earlier releases landed keeps the id it had."
)
RESPONSE_ID = Column(
    "response_id",
    "VARCHAR",
    "Hash of everything that decides the response: prompt, teacher, template, sampling, sample index.",
)
EXAMPLE_ID = Column("example_id", "VARCHAR", "Hash of the example's source and of its every token and label.")
CHECKPOINT_ID = Column(
    "checkpoint_id",
    "VARCHAR",
    "Hash of parent, training examples and settings; a model's fingerprint where it is untrained.",
)
ROLLOUT_ID = Column("rollout_id", "VARCHAR", "Hash of everything that decides the rollout.")
CONTINUATION_ID = Column("continuation_id", "VARCHAR", "Hash of everything that decides the continuation.")
QUESTION_ID = Column("question_id", "VARCHAR", "Hash of the held-out question and what judges it.")
BENCHMARK = Column("benchmark", "VARCHAR", "Name of the benchmark in the recipe.")
BATCH = Column("batch", "VARCHAR", "Prompt batch: name and content hash of the landed file.")
RECIPE = Column("recipe", "VARCHAR", "Name of the recipe; several can share one warehouse.")
DATASET = Column(
    "dataset", "VARCHAR", "`t060`, `t100`, … after the sampling temperature; `mixed` for the mixed-policy stage."
)
POLICY = Column("policy", "VARCHAR", "`das`: divergence-aware sampling; `random`: the control.")
DATASET_ID = Column("dataset_id", "VARCHAR", "Hash of the SFT dataset's examples, and of recipe, dataset and policy.")
RUN_ID = Column("run_id", "VARCHAR", "Dagster run that wrote the row.").optional()

# A question, and what judges an answer to it.
DOMAIN = Column("domain", "VARCHAR", "Domain of the question (`math`, `code`, …); selection has a budget for each.")
QUESTION = Column("question", "VARCHAR", "The question, as the user wrote it.")
SYSTEM_PROMPT = Column(
    "system_prompt", "VARCHAR", "System prompt of the question; NULL: the model's own.", nullable=True
)
REFERENCE_ANSWER = Column(
    "reference_answer", "VARCHAR", "What the verifier compares the final answer with.", nullable=True
)
VERIFIER = Column(
    "verifier",
    "VARCHAR",
    "Which [verifier](extending.md#a-verifier) judges a final answer.",
    nullable=True,
)
METADATA = Column("metadata", "VARCHAR", "The row's other fields as JSON; the verifier may need them.", nullable=True)
SOURCE_FILE = Column("source_file", "VARCHAR", "Landed file the row came from.")
SOURCE_LINE = Column("source_line", "BIGINT", "Line of that file, from 1; 0: the file as a whole.")

# Which model, and how it was asked.
TEACHER_FINGERPRINT = Column(
    "teacher_fingerprint", "VARCHAR", "Content hash of the teacher as the recipe prompts it."
).of("checkpoints.checkpoint_id")
STUDENT_FINGERPRINT = Column("student_fingerprint", "VARCHAR", "Content hash of the student as the recipe prompts it.")
ENGINE = Column("engine", "VARCHAR", "Inference engine that produced the log-probabilities.")
DTYPE = Column("dtype", "VARCHAR", "Precision the model ran in.")
TEMPLATE_VERSION = Column("template_version", "VARCHAR", "Hash of the chat template that rendered the prompt.")
TEMPERATURE = Column("temperature", "DOUBLE", "Sampling temperature; log-probabilities are never tempered.")
TOP_P = Column("top_p", "DOUBLE", "Nucleus of the sampling distribution; 1: all of it.")
MAX_TOKENS = Column("max_tokens", "INTEGER", "Token limit of the request.")
SAMPLE_INDEX = Column("sample_index", "INTEGER", "Which of the samples of one question, from 0; pages count from 1.")
SEED = Column("seed", "BIGINT", "Seed of the row's own noise, derived from its id.")

# What a model wrote; the three lists are of one length.
TEXT = Column("text", "VARCHAR", "Canonical text: `<think>`, body, `</think>`, answer; or an answer alone.")
TOKEN_IDS = Column("token_ids", "INTEGER[]", "Token ids as sampled.")
LOGPROBS = Column(
    "logprobs", "FLOAT[]", "Natural log-probability of each token at temperature 1, before any sampling transform."
)
OFFSETS = Column(
    "offsets", "INTEGER[]", "Code point at which each token starts in the canonical text; -1: not in the text."
)
NUM_TOKENS = Column(
    "num_tokens",
    "INTEGER",
    "Length of these lists; NULL in rows of earlier releases.",
    nullable=True,
    computed="len(token_ids::INTEGER[])",
)
TOOL_CALL = Column("tool_call", "BOOLEAN", "Whether the text calls a tool.")
FINISH_REASON = Column("finish_reason", "VARCHAR", "`stop` at the end of turn, `length` at the token limit.")

# What was found out about it.
FILTER = Column("filter", "VARCHAR", "Which [filter](extending.md#filters) judged it (report §6.2).")
PASSED = Column("passed", "BOOLEAN", "Whether the text passes the filter.")
KIND = Column(
    "kind", "VARCHAR", "[Code](kinds.md) of why it does not pass, or why nothing could be judged.", nullable=True
)
REASON = Column("reason", "VARCHAR", "The same for people, with all that is wrong.")
VALUE = Column(
    "value",
    "DOUBLE",
    "The number that the filter compares with its limit ([which](filters.md)); NULL where it compares none.",
    nullable=True,
)
FILTER_VERSION = Column(
    "filter_version", "VARCHAR", "Hash of the filter's code, its limits and the tokenizer that counts length."
).of("checkpoints.checkpoint_id")
SENTENCE_INDEX = Column(
    "sentence_index", "INTEGER", "Number of the sentence in its response, from 0; pages and figures count from 1."
)
THRESHOLD = Column("threshold", "DOUBLE", "How far apart the two models must be for a sentence to be one's own.")
THRESHOLD_VERSION = Column(
    "threshold_version",
    "VARCHAR",
    "Hash of segmenter, measure, threshold and code that typed sentences and scored responses.",
)
SCORE = Column("score", "DOUBLE", "The response's score; NULL where no sentence counts.", nullable=True)
SCORE_NAME = Column("score_name", "VARCHAR", "Which [score](extending.md#scores); the recipe picks the one that ranks.")

# Sources: what a model was asked, what it read, what it was trained on.
ASKED = ("prompts.question", "prompts.system_prompt")
JUDGED_BY = (*ASKED, "prompts.reference_answer", "prompts.verifier", "prompts.metadata")
SAMPLED = (*ASKED, "checkpoints.path")
PREFIX = ("student_rollouts.text", "prefix_cuts.cut_char")
CONTINUED = (*PREFIX, *SAMPLED)


def encoded(text: str) -> tuple[Column, ...]:
    """Columns of a text in the student's tokens, as it is scored and trained on, or of why there are none.

    text: the `table.column` it is in.
    """
    return (
        Column("num_prompt_tokens", "INTEGER", "How many of the tokens are the prompt's.", ASKED, nullable=True),
        TOKEN_IDS.here("The student's token ids: prompt, text, end of turn; NULL where it cannot be asked.")
        .optional()
        .of(*ASKED, text),
        OFFSETS.here("Code point at which each token after the prompt starts in the text; -1: not in the text.")
        .optional()
        .of(text),
        NUM_TOKENS.here("Length of `token_ids`; NULL in rows of earlier releases.").of(*ASKED, text),
        Column(
            "num_text_tokens",
            "INTEGER",
            "How many tokens are in the text: prompt and end of turn excluded; NULL in rows of earlier releases.",
            (text,),
            nullable=True,
            computed="len(list_filter(offsets::INTEGER[], lambda o: o >= 0))",
        ),
        KIND.here("[Code](kinds.md) of why there are no tokens.").of(*ASKED),
        REASON.here("The same for people: what the chat template reported.").optional().of(*ASKED),
    )
