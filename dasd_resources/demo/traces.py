"""Worked answers to chain sums, in varied wording: what the demo's teacher learns to write.

A trace is a body of several sentences (one running total per step) and a short final answer; the canonical text is
`<think>`, body, `</think>`, answer. Left out: any claim of style; these are the fewest phrasings that make two
responses to one question differ in wording, length and layout.
"""

from dataclasses import dataclass
from random import Random

QUESTION = "State the final answer to the following arithmetic problem: {expression} ="  # chain_sum's own wording
OPENINGS = (
    "",
    "We start with {first}.",
    "Let us work from left to right.",
    "The problem is {expression}.",
    "We work through {expression} step by step.",
)
SHORT_STEPS = ("{a} {op} {b} = {c}.", "Now {a} {op} {b} = {c}.", "Then {a} {op} {b} = {c}.", "{a} {op} {b} is {c}.")
LONG_STEPS = (
    "Next, {a} {op} {b} gives {c}.",
    "The next term is {op} {b}. So {a} {op} {b} = {c}.",
    "{adding} gives {c}.",
    "{adding} makes the total {c}.",
)
REMARKS = ("So far we have {c}.", "The total is now {c}.", "That leaves {c}.")
DOUBTS = ("Wait, that is not right.", "Hmm, let me check that step.", "No, that step is wrong.")
ENDINGS = ("", "There are no more terms.", "So the result is {c}.", "That was the last term, so the total is {c}.")
LONG_SHARE = 0.4  # of responses, worded at length


@dataclass(frozen=True)
class SumStep:
    """One addition or subtraction: a op b = c."""

    a: int
    op: str
    b: int
    c: int

    def say(self, template: str) -> str:
        """Fill a template with this step's numbers."""
        adding = f"Adding {self.b} to {self.a}" if self.op == "+" else f"Subtracting {self.b} from {self.a}"
        return template.format(a=self.a, op=self.op, b=self.b, c=self.c, adding=adding)


def steps_of(expression: str) -> list[SumStep]:
    """The left-to-right steps of `a + b - c …`."""
    first, *rest = expression.split()
    total, steps = int(first), []
    for op, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(term) if op == "+" else total - int(term)
        steps.append(SumStep(total, op, int(term), result))
        total = result
    return steps


def slip(step: SumStep, rng: Random) -> SumStep:
    """The step with a plausible mistake in its result or its sign."""
    wrong_sign = 2 * step.a - step.c
    wrong = rng.choice([step.c - 1, step.c + 1, step.c + 2, step.c - 10, step.c + 10, -step.c, wrong_sign])
    return SumStep(step.a, step.op, step.b, wrong if wrong != step.c else step.c + 1)


def worked_step(step: SumStep, long: bool, rng: Random) -> list[str]:
    """The sentences of one correct step."""
    if not long:
        return [step.say(rng.choice(SHORT_STEPS))]
    remark = [step.say(rng.choice(REMARKS))] if rng.random() < 0.3 else []
    return [step.say(rng.choice(SHORT_STEPS + LONG_STEPS)), *remark]


def worked_body(expression: str, rng: Random, slip_at: int | None = None) -> tuple[list[str], int, str]:
    """Sentences of a body, how many of them end with the slip (0 without one), and the separator between them.

    slip_at: the step that first goes wrong, is then doubted and done again.
    """
    steps, long = steps_of(expression), rng.random() < LONG_SHARE
    opening = rng.choice(OPENINGS).format(first=steps[0].a, expression=expression)
    sentences, slipped = [opening] * bool(opening), 0
    for index, step in enumerate(steps):
        if index == slip_at:
            sentences += worked_step(slip(step, rng), False, rng)
            slipped = len(sentences)
            sentences.append(rng.choice(DOUBTS))
        sentences += worked_step(step, long, rng)
    ending = rng.choice(ENDINGS).format(c=steps[-1].c)
    return sentences + [ending] * bool(ending), slipped, rng.choice((" ", " ", "\n"))


def canonical(body: str, answer: int | str) -> str:
    """The canonical text of a response."""
    return f"<think>\n{body}\n</think>\nThe answer is {answer}."
