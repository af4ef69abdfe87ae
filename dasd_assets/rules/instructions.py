"""The question as it is asked: with the recipe's instruction for its domain below it, for teacher and student alike.

A response keeps the instruction that it was asked with: its tokens, its scores and what is trained on show the student
the same question as the teacher had. A recipe takes the responses that were asked as it asks now.
"""

from collections.abc import Mapping
from typing import Any

from dasd_resources.benchmarks.layouts import QUESTION

# In SQL, of a question p and the response a to it (or its rollout's reference).
AS_ASKED = "p.question || coalesce(chr(10) || chr(10) || a.instruction, '')"

# In SQL, of a continuation: the response a whose question it answers.
REFERENCE = """LEFT JOIN student_rollouts s ON s.rollout_id = {continuation}.rollout_id
    LEFT JOIN responses a ON a.response_id = s.reference_response_id"""

# In SQL, of a response r, with the parameters of `instruction_params`: whether it was asked as the recipe asks. Without
# instructions in the recipe, the sets are empty.
ASKED_AS_NOW = """CASE WHEN r.instruction IS NULL
        THEN r.prompt_id NOT IN (SELECT prompt_id FROM prompts WHERE list_contains($instructed::VARCHAR[], domain))
        ELSE (r.prompt_id, r.instruction) IN (SELECT (q.prompt_id, i.instruction) FROM prompts q JOIN (
            SELECT unnest($instructed::VARCHAR[]) AS domain, unnest($instructions::VARCHAR[]) AS instruction) i
            USING (domain)) END"""


def as_asked(question: str, instruction: str | None) -> str:
    """The text that a model is given; `AS_ASKED` in Python."""
    return question if instruction is None else f"{question}\n\n{instruction}"


def asked_as(question: str, instruction: str | None) -> str:
    """The same for a benchmark's instruction, a template: the question stands where it says so, else above it."""
    if instruction is None or QUESTION not in instruction:
        return as_asked(question, instruction)
    return instruction.replace(QUESTION, question)


def instruction_params(instructions: dict[str, str]) -> dict[str, object]:
    """The parameters of ASKED_AS_NOW. instructions: domain -> text, the recipe's."""
    return {"instructed": list(instructions), "instructions": list(instructions.values())}


def stored_instructions(rule: Mapping[str, Any]) -> dict[str, str]:
    """Domain -> text, of a stored rule with these parameters; none where it was stored before there were any."""
    return dict(zip(rule.get("instructed", ()), rule.get("instructions", ()), strict=True))
