"""Does a teacher think as its recipe has it? For `dasd check`: a few of its answers are begun while it is loaded.

A thinking part shows in the first tokens, but for a server that leaves `<think>` out: so answers that are not whole
only warn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dasd_assets.rules.sampling import sampling_request
from dasd_assets.rules.thinking import REMEDY
from dasd_resources.chat import UnsupportedQuestion, split_thinking
from dasd_resources.inference.engine import Completion, GenerationRequest, InferenceEngine
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.recipe import Recipe, Thinking

NUM_BEGUN = 3
NUM_TOKENS = 32  # of each; an empty thinking part takes some 6
Asked = tuple[str, str | None]  # a question and its own system prompt
FIXED: Asked = ("What is 17 + 25?", None)


@dataclass(frozen=True)
class Begun:
    """The beginning of an answer: whether there is thinking in it, and whether it is the whole answer."""

    thinks: bool
    whole: bool


def begin_answers(
    recipe: Recipe, teacher: PromptedModel, prompts: Sequence[Prompt], engine: InferenceEngine
) -> Iterator[Begun]:
    """The beginnings of NUM_BEGUN answers, to these prompts or to a fixed question; those that failed are left out."""
    asked = [(p.question, p.system_prompt) for p in prompts if _takes(teacher, p)] or [FIXED]
    for found in engine.generate([_request(recipe, teacher, asked[n % len(asked)], n) for n in range(NUM_BEGUN)]):
        if isinstance(found, Completion):
            body, answer = split_thinking(teacher.chat.read_response(found.token_ids).text)
            thinks = body is not None and (answer is None or bool(body.strip()))
            yield Begun(thinks, whole=found.finish_reason == "stop")


def thinking_found(begun: Sequence[Begun], thinking: Thinking) -> tuple[Literal["ok", "warning", "failed"], str]:
    """Whether that is what the recipe says: failed if no response would be kept, a warning if some or none might be."""
    num_thinking, total = sum(answer.thinks for answer in begun), len(begun)
    found = f"{num_thinking or 'none'} of {total} answers {'have' if num_thinking > 1 else 'has'} a thinking part"
    num_dropped = {"required": total - num_thinking, "optional": 0, "none": num_thinking}[thinking]
    if not num_dropped:
        return "ok", found
    if num_dropped == total and all(answer.thinks or answer.whole for answer in begun):
        dropped = f"teacher.thinking is {thinking}: every response would be dropped"
        return "failed", f"{found}, but {dropped}; {REMEDY[thinking]}"
    dropped = f"responses {'with' if thinking == 'none' else 'without'} one are dropped (teacher.thinking: {thinking})"
    return "warning", f"{found} in its first {NUM_TOKENS} tokens, and {dropped}; {REMEDY[thinking]}"


def _takes(teacher: PromptedModel, prompt: Prompt) -> bool:
    """Whether the teacher's template takes the question, which it may refuse with some system prompts."""
    try:
        teacher.chat.prompt(prompt.question, prompt.system_prompt)
    except UnsupportedQuestion:
        return False
    return True


def _request(recipe: Recipe, teacher: PromptedModel, asked: Asked, number: int) -> GenerationRequest:
    sampling, ids = recipe.generation, teacher.chat.prompt_ids(*asked)
    num_tokens = min(NUM_TOKENS, sampling.max_tokens)
    return sampling_request(teacher, f"check {number}", ids, sampling.temperatures[0], sampling.top_p, num_tokens)
