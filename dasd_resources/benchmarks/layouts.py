r"""The ready layouts: `evaluation.benchmarks: [{name: aime25, layout: aime25, path: …}]`.

Data alone, so that recipes can be validated by it. Schemas change: `source` says whose rows a layout was written from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# How the report asks every benchmark (§7).
TEMPERATURE = 1.0
TOP_P = 1.0
SAMPLES_PER_QUESTION = 64
MAX_TOKENS_OF_AIME = 102_400
MAX_TOKENS = 81_920  # of LiveCodeBench and GPQA-Diamond

QUESTION = "{question}"  # in an instruction: where the question stands
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
LETTERED = 'End with a line "Answer: X", in which X is the letter of the right choice.'
PROGRAM = "Write the solution in Python, as one fenced block of code that begins with ```python."
_STANDARD_INPUT = "{question_content}\n\nThe program reads standard input and prints to standard output."
_STARTED = "{question_content}\n\nGo on from this code, and keep its names:\n\n```python\n{starter_code}\n```"


@dataclass(frozen=True)
class Layout:
    """A benchmark as its file is downloaded, and as it is asked.

    columns: our keys of its rows, as in a recipe. choices: paths of the right choice and of the wrong ones, for a set
    that leaves their order to whoever asks. max_row_bytes: more than a landed row may have, where rows hold tests.
    tests: keys of the metadata that hold them, stored compressed where they are long.
    source: the published set, and how its schema is known: `seen` in public code that reads it, or `remembered`.
    """

    columns: Mapping[str, object]
    verifier: str
    instruction: str
    max_tokens: int
    source: str
    choices: tuple[str, ...] = ()
    max_row_bytes: int = 1 << 20
    tests: tuple[str, ...] = ()


_AIME: Mapping[str, object] = {
    "question": ["problem", "question", "Problem"],
    # Some copies have no column for the answer, but a solution that is nothing else.
    "reference_answer": [
        "answer",
        "Answer",
        {"path": "solution", "boxed": True, "when": {"solution": r"\s*\\boxed\{\d+\}\s*"}},
    ],
    "domain": {"constant": "math"},
    "metadata": ["id", "ID", "url", "year"],
}
_TESTS = ("public_test_cases", "private_test_cases")
_LIVECODEBENCH: Mapping[str, object] = {
    "question": [
        {"template": _STARTED, "when": {"starter_code": r"(?s).*\S.*"}},
        {"template": _STANDARD_INPUT},
    ],
    "domain": {"constant": "code"},
    "metadata": {
        **{key: key for key in ("question_id", "platform", "contest_date", "difficulty", "starter_code")},
        **{key: key for key in _TESTS},
        "func_name": "metadata.func_name",
    },
}


def _livecodebench(source: str) -> Layout:
    return Layout(_LIVECODEBENCH, "code", PROGRAM, MAX_TOKENS, source, max_row_bytes=1 << 28, tests=_TESTS)


LAYOUTS: dict[str, Layout] = {
    "aime24": Layout(
        _AIME,
        "math",
        BOXED,
        MAX_TOKENS_OF_AIME,
        "HuggingFaceH4/aime_2024, Maxwell-Jia/AIME_2024 (seen), math-ai/aime24 (remembered)",
    ),
    "aime25": Layout(
        _AIME,
        "math",
        BOXED,
        MAX_TOKENS_OF_AIME,
        "math-ai/aime25, opencompass/AIME2025, yentinglin/aime_2025 (seen)",
    ),
    "math500": Layout({"ready": "math500"}, "math", BOXED, MAX_TOKENS, "HuggingFaceH4/MATH-500 (seen)"),
    "gpqa_diamond": Layout(
        {
            "question": {"template": "{Question}\n\n{choices}", "choices": "choices"},
            "reference_answer": "letter",
            "domain": {"constant": "science"},
            "metadata": {
                "choices": "choices",
                "shuffle_seed": "shuffle_seed",
                "record_id": "Record ID",
                "high_level_domain": "High-level domain",
                "subdomain": "Subdomain",
            },
        },
        "multiple_choice",
        LETTERED,
        MAX_TOKENS,
        "gpqa_diamond.csv of Idavidrein/gpqa (seen; the name Subdomain remembered)",
        choices=("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
    ),
    "livecodebench_v5": _livecodebench("test5.jsonl (167 questions) of livecodebench/code_generation_lite (seen)"),
    "livecodebench_v6": _livecodebench("test6.jsonl (175 questions) of livecodebench/code_generation_lite (seen)"),
}
