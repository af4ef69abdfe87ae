"""Greatest common divisors (`gcd`) of two numbers: by subtraction, by Euclid's divisions, or from a list."""

from random import Random

from dasd_resources.demo.questions import QuestionRow
from dasd_resources.demo.traces import QUESTION
from dasd_resources.school.family import Exercise, Family, Pen, Procedure, numbers_of, slip_number

DIVISION = "{a} = {q} × {b} + {result}."
SUBTRACTION = "{a} - {b} = {result}."
MAX_SUBTRACTIONS = 7  # more make a response too long for the world's small context


def pair_of(row: QuestionRow) -> tuple[int, int]:
    """The two numbers, the larger one first."""
    small, large = sorted(numbers_of(row, "numbers"))
    return large, small


def euclid(row: QuestionRow, pen: Pen) -> str:
    """Divide with remainder until nothing remains: few steps, each of them hard."""
    a, b = pair_of(row)
    while b > 0:
        divisor = b

        def slip(right: int, rng: Random, divisor: int = divisor) -> int:
            return rng.choice([n for n in (right - 1, right + 1, right - 2, right + 2) if 0 <= n < divisor] or [right])

        a, b = b, pen.result(a % b, slip, DIVISION, a=a, q=a // b, b=b)
    pen.say("", "{a} is left.", "So it is {a}.", a=a)
    return str(a)


def subtraction(row: QuestionRow, pen: Pen) -> str:
    """Subtract the smaller number from the larger one until both are equal: many easy steps."""
    a, b = pair_of(row)
    for _ in range(MAX_SUBTRACTIONS):
        if a == b or b == 0:
            break
        less = pen.result(a - b, slip_number, SUBTRACTION, a=a, b=b)
        a, b = max(b, less), min(b, less)
        pen.say("{a} and {b}.", "Now {a} and {b}.", a=a, b=b)
    return str(a)


def divisors(row: QuestionRow, pen: Pen) -> str:
    """The divisors of the smaller number, and the largest of them that divides the other one: two leaps."""
    a, b = pair_of(row)
    found = [n for n in range(1, b + 1) if b % n == 0]
    pen.say("{b} has {found}.", b=b, found=", ".join(map(str, found)))
    right = max(n for n in found if a % n == 0)
    return str(pen.result(right, lambda right, rng: rng.choice(found), "{result} divides {a}.", a=a))


def num_divisions(row: QuestionRow) -> int:
    """Steps that Euclid's way takes."""
    (a, b), steps = pair_of(row), 0
    while b > 0:
        a, b, steps = b, a % b, steps + 1
    return steps


def accepts(row: QuestionRow) -> bool:
    """Not the two most common divisors, which a guess would get right, and not too many subtractions."""
    (a, b), steps = pair_of(row), 0
    while a != b:
        a, b, steps = max(b, a - b), min(b, a - b), steps + 1
    return a >= 3 and 0 < steps <= MAX_SUBTRACTIONS


def drill(rng: Random) -> Exercise:
    """One division with remainder, or one subtraction."""
    pen, b = Pen(rng), rng.randint(3, 60)
    a = rng.randint(b, 99)
    if rng.random() < 0.5:
        left = pen.result(a % b, slip_number, DIVISION, a=a, q=a // b, b=b)
        return Exercise(f"What remains of {a} divided by {b}?", pen.sentences, str(left))
    left = pen.result(a - b, slip_number, SUBTRACTION, a=a, b=b)
    return Exercise(QUESTION.format(expression=f"{a} - {b}"), pen.sentences, str(left))


def guess(row: QuestionRow, rng: Random) -> str:
    """Some small number."""
    return str(rng.randint(2, 12))


DIVISORS = Family(
    dataset="gcd",
    domain="divisors",
    config={"min_value": 6, "max_value": 99},
    accepts=accepts,
    level=num_divisions,
    procedures=(
        Procedure("subtraction", 0.4, "We subtract the smaller one.", subtraction),
        Procedure("euclid", 0.4, "We divide with remainder.", euclid),
        Procedure("divisors", 0.2, "We list divisors.", divisors),
    ),
    drill=drill,
    guess=guess,
)
