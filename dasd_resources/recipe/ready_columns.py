"""Ready mappings of well-known datasets, by name: `landing: {columns: gsm8k}` (docs/landing.md).

What others answered (solutions, thinking, critiques) is not kept. No system prompt is taken: in these sets it instructs
the model that answered them. `math` and `multiple_choice` are set where there is a reference that they can compare.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MAX_REFERENCE = 200  # characters of a final answer; what is longer is an explanation, which nothing can compare
SHORT = rf"(?s).{{1,{MAX_REFERENCE}}}"
LETTER = r"\s*\(?[A-Z]\)?\.?\s*"
MATH = {"constant": "math"}
AM_INFO, MATH_SOURCE = "messages.0.info", r"(?i).*(math|numina|gsm8k|orca).*"
OF_PROBLEM_SETS = "join it from the set that `dataset`, `split` and `index` name (TACO, APPS, …), land it as `{key}`"


@dataclass(frozen=True)
class ReadyColumns:
    """columns: as the recipe has them. keys: of a row, or paths in it, by which the schema is recognised.

    without_question: what to do about a row that has none, where the dataset leaves questions out.
    """

    dataset: str
    keys: frozenset[str]
    columns: Mapping[str, object]
    without_question: str | None = None


def _ready(dataset: str, keys: str, without_question: str | None = None, **columns: object) -> ReadyColumns:
    return ReadyColumns(dataset, frozenset(keys.split()), columns, without_question)


def _short(path: str) -> dict[str, object]:
    """A reference that is short enough to be compared."""
    return {"path": path, "when": {path: SHORT}}


READY_COLUMNS: dict[str, ReadyColumns] = {
    "acereason_math": _ready(
        "nvidia/AceReason-Math",
        "problem answer",
        question="problem",
        reference_answer=_short("answer"),
        domain=MATH,
        verifier=MATH,
        metadata=[],
    ),
    "acereason_sft": _ready(
        "nvidia/AceReason-1.1-SFT",
        "category source input output",
        question="input",
        domain="category",
        metadata=["source"],
    ),
    "am_deepseek_r1": _ready(
        "a-m-team/AM-DeepSeek-R1-Distilled-1.4M",
        "messages messages.0.info",
        question={"messages": "messages"},
        reference_answer=_short(f"{AM_INFO}.reference_answer"),
        domain=[
            {"constant": "code", "when": {f"{AM_INFO}.test_case": "(?s).+"}},
            {**MATH, "when": {f"{AM_INFO}.source": MATH_SOURCE}},
        ],
        verifier={**MATH, "when": {f"{AM_INFO}.source": MATH_SOURCE}},
        metadata={"source": f"{AM_INFO}.source", "test_case": f"{AM_INFO}.test_case"},
    ),
    "dapo_math": _ready(
        "BytedTsinghua-SIA/DAPO-Math-17k and other sets in verl's layout",
        "prompt reward_model data_source",
        question={"messages": "prompt"},
        reference_answer=_short("reward_model.ground_truth"),
        domain=[{"path": "ability", "values": {"MATH": "math"}}, MATH],
        verifier={**MATH, "when": {"ability": "(?i)(math)?"}},
        metadata={"data_source": "data_source", "index": "extra_info.index"},
    ),
    "dasd": _ready(
        "Alibaba-Apsara/Superior-Reasoning-SFT-gpt-oss-120b",
        "uuid input output domain meta",
        question="input",
        domain="domain",
        metadata=["uuid", "meta"],
    ),
    "deepmath": _ready(
        "zwhe99/DeepMath-103K",
        "question final_answer difficulty topic",
        question="question",
        reference_answer=_short("final_answer"),
        domain=MATH,
        verifier=MATH,
        metadata=["difficulty", "topic"],
    ),
    "gsm8k": _ready(
        "openai/gsm8k",
        "question answer",
        question="question",
        reference_answer={"path": "answer", "after": "####"},
        domain=MATH,
        verifier=MATH,
        metadata=[],
    ),
    "math500": _ready(
        "HuggingFaceH4/MATH-500",
        "problem solution answer subject level unique_id",
        question="problem",
        reference_answer=_short("answer"),
        domain=MATH,
        verifier=MATH,
        metadata=["subject", "level", "unique_id"],
    ),
    "messages": _ready(
        "any set of `messages`, of role and content",
        "messages",
        question={"messages": "messages"},
        metadata=["id", "uuid", "source"],
    ),
    "nemotron_v1": _ready(
        "nvidia/Nemotron-Post-Training-Dataset-v1",
        "messages category generator version reasoning uuid",
        "the dataset leaves the questions of `code` and of some `chat` rows out: join them from the sets that the "
        "row's `metadata` names, and land them as a user message",
        question={"messages": "messages", "empty": ["-", ""]},
        reference_answer=_short("metadata.expected_answer"),
        domain={"path": "category", "values": {"stem": "science"}},
        verifier=[
            {**MATH, "when": {"category": "math"}},
            {"constant": "multiple_choice", "when": {"metadata.expected_answer": LETTER}},
        ],
        metadata=["uuid", "category", "license"],
    ),
    "numinamath_cot": _ready(
        "AI-MO/NuminaMath-CoT",
        "source problem solution messages",
        question="problem",
        reference_answer={"path": "solution", "boxed": True},
        domain=MATH,
        verifier=MATH,
        metadata=["source"],
    ),
    "opencodereasoning": _ready(
        "nvidia/OpenCodeReasoning",
        "id input output source dataset split difficulty solution",
        f"split_1 leaves its questions out: {OF_PROBLEM_SETS.format(key='input')}",
        question={"path": "input", "empty": ["-"]},
        domain={"constant": "code"},
        metadata=["id", "source", "license", "dataset", "split", "index", "difficulty"],
    ),
    "opencodereasoning2": _ready(
        "nvidia/OpenCodeReasoning-2",
        "id question_id question r1_generation qwq_critique dataset split index",
        f"the dataset leaves its questions out: {OF_PROBLEM_SETS.format(key='question')}",
        question={"path": "question", "empty": ["-"]},
        domain={"constant": "code"},
        metadata=["id", "question_id", "source", "license", "dataset", "split", "index", "difficulty"],
    ),
    "opensciencereasoning2": _ready(
        "nvidia/OpenScienceReasoning-2",
        "input output expected_answer",
        question="input",
        reference_answer=_short("expected_answer"),
        domain={"constant": "science"},
        verifier={"constant": "multiple_choice", "when": {"expected_answer": LETTER}},
        metadata=[],
    ),
    "openthoughts3": _ready(
        "open-thoughts/OpenThoughts3-1.2M",
        "difficulty source domain conversations",
        question={"messages": "conversations"},
        domain="domain",
        metadata=["source", "difficulty"],
    ),
    "sharegpt": _ready(
        "any set of `conversations`, of from and value",
        "conversations",
        question={"messages": "conversations"},
        metadata=["id", "uuid", "source"],
    ),
}
