"""Where the benchmarks of the layouts are published, and what is asked of whoever fetches them.

Which commit is fetched is not in here: none is known for certain. The newest one is looked up, recorded beside the file
and from then on kept to.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A published set. files: which of its repository's, as a pattern; exactly one must be like it.

    file: its name in DASD_HOME/benchmarks, which the shipped recipes have. num_questions: in the whole set.
    terms: what its authors ask, beside the licence that its card names.
    """

    repository: str
    files: str
    file: str
    num_questions: int
    terms: str = ""


_PROBLEMS = "problems of the Mathematical Association of America; only for evaluation"
_LIVECODEBENCH = "livecodebench/code_generation_lite"
_CONTESTS = "problems of LeetCode, AtCoder and Codeforces; only for evaluation"
SOURCES: dict[str, Source] = {
    "aime24": Source("HuggingFaceH4/aime_2024", "*.parquet", "aime24.parquet", 30, _PROBLEMS),
    "aime25": Source("math-ai/aime25", "*.jsonl", "aime25.jsonl", 30, _PROBLEMS),
    "math500": Source("HuggingFaceH4/MATH-500", "*.jsonl", "math500.jsonl", 500),
    "gpqa_diamond": Source(
        "Idavidrein/gpqa",
        "gpqa_diamond.csv",
        "gpqa_diamond.csv",
        198,
        "its authors ask that no question appear in plain text anywhere online",
    ),
    "livecodebench_v5": Source(_LIVECODEBENCH, "test5.jsonl", "livecodebench_v5.jsonl", 167, _CONTESTS),
    "livecodebench_v6": Source(_LIVECODEBENCH, "test6.jsonl", "livecodebench_v6.jsonl", 175, _CONTESTS),
}
