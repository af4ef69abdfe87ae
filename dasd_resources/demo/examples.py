"""What the demo's teacher and student learn from.

The teacher learns to work 3-6 term chain sums step by step, and to go on from a prefix that is cut anywhere or has
just slipped. The student learns single steps in the same wording, and bare guesses at longer sums: what distillation
has to teach it is the procedure.
"""

from pathlib import Path
from random import Random

from dasd_resources.demo.questions import SEED, chain_sum, split_of
from dasd_resources.demo.tiny_models import END_OF_TURN, STUDENT_SYSTEM_PROMPT, Example, TinyModel, render
from dasd_resources.demo.traces import QUESTION, canonical, steps_of, worked_body


def draw_expression(rng: Random) -> str:
    """A 3-6 term sum from the split that is reserved for the models."""
    while True:
        entry = chain_sum(3, 6, SEED + 2_000_000)[rng.randrange(1_000_000)]
        if split_of(entry["question"]) == "models":
            return str(entry["metadata"]["expression"])


def teacher_example(rng: Random) -> Example:
    """A worked answer; one in four starts inside it, at any character or just behind a slip."""
    expression = draw_expression(rng)
    slip_at = rng.randrange(len(steps_of(expression))) if rng.random() < 0.2 else None
    sentences, slipped, separator = worked_body(expression, rng, slip_at)
    response, cut = canonical(separator.join(sentences), steps_of(expression)[-1].c), 0
    if slipped and rng.random() < 0.75:
        cut = len("<think>\n") + len(separator.join(sentences[:slipped]))
    elif rng.random() < 0.1:
        cut = rng.randrange(len("<think>\n"), len(response))
    return Example(render(QUESTION.format(expression=expression)) + response[:cut], response[cut:] + END_OF_TURN)


def draw_short_expression(rng: Random) -> str:
    """One step from any running total, or two steps from a total of two digits: never a demo question."""
    num_steps = rng.choice((1, 1, 2))
    first = rng.choice([n for n in range(-40, 51) if num_steps == 1 or not 0 <= n <= 9])
    return str(first) + "".join(f" {rng.choice('+-')} {rng.randint(0, 9)}" for _ in range(num_steps))


def student_example(rng: Random) -> Example:
    """A short sum worked as the teacher would, or a bare guess, often wrong, at a longer one."""
    if rng.random() < 0.2:
        expression = draw_expression(rng)
        response = canonical("", steps_of(expression)[-1].c + rng.choice((0, rng.randint(-5, 5))))
    else:
        expression = draw_short_expression(rng)
        sentences, _, separator = worked_body(expression, rng)
        response = canonical(separator.join(sentences), steps_of(expression)[-1].c)
    return Example(render(QUESTION.format(expression=expression), STUDENT_SYSTEM_PROMPT), response + END_OF_TURN)


DEMO = Path(__file__).parent
DEMO_MODELS = (
    TinyModel(DEMO / "teacher", 448, (9000,), teacher_example),
    TinyModel(DEMO / "student", 384, (7000,), student_example),
)
