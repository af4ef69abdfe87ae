"""Ready mappings of well-known datasets, by name: `landing: {columns: gsm8k}`.

What others answered (solutions, thinking, critiques) is not kept, and no system prompt is taken: in these sets it is an
instruction to the model that answered. Add `system_prompt: {messages: messages, role: system}` to keep it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ReadyColumns:
    """columns: as the recipe has them. keys: of a row, by which the schema is recognised.

    without_question: what to do about a row that has none.
    """

    dataset: str
    keys: frozenset[str]
    columns: Mapping[str, object]
    without_question: str = ""


READY_COLUMNS: dict[str, ReadyColumns] = {
    "gsm8k": ReadyColumns(
        dataset="openai/gsm8k",
        keys=frozenset({"question", "answer"}),
        columns={
            "question": "question",
            "reference_answer": {"path": "answer", "after": "####"},
            "domain": {"constant": "math"},
            "verifier": {"constant": "math"},
            "metadata": [],
        },
    ),
}
