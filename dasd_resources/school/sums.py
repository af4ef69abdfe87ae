"""Chain sums (`chain_sum`): terms of one digit, worked from left to right, by sign, or as running totals alone."""

from random import Random

from dasd_resources.demo.questions import QuestionRow
from dasd_resources.demo.traces import QUESTION, SumStep, steps_of
from dasd_resources.school.family import Exercise, Family, Pen, Procedure, metadata_of

STEPS = ("{a} {op} {b} = {result}.", "Now {a} {op} {b} = {result}.", "Next, {a} {op} {b} gives {result}.")


def slip_total(right: int, rng: Random) -> int:
    """A running total that is off by a little or by ten."""
    return right + rng.choice((-10, -2, -1, 1, 2, 10))


def step(pen: Pen, total: int, op: str, term: int) -> int:
    """Write one addition or subtraction; returns the new total."""
    right = total + term if op == "+" else total - term
    return pen.result(right, slip_total, *STEPS, a=total, op=op, b=term)


def steps_of_row(row: QuestionRow) -> list[SumStep]:
    """The left-to-right steps of a question."""
    return steps_of(str(metadata_of(row)["expression"]))


def left_to_right(row: QuestionRow, pen: Pen) -> str:
    """One sentence per term."""
    steps = steps_of_row(row)
    total = steps[0].a
    for one in steps:
        total = step(pen, total, one.op, one.b)
    pen.say("", "So the result is {total}.", total=total)
    return str(total)


def by_sign(row: QuestionRow, pen: Pen) -> str:
    """First all that is added, then all that is subtracted: longer, with totals of its own."""
    steps = steps_of_row(row)
    added = [one.b for one in steps if one.op == "+"]
    subtracted = [one.b for one in steps if one.op == "-"]
    total = steps[0].a
    pen.say("Added are {terms}.", terms=listed([total, *added]))
    for term in added:
        total = step(pen, total, "+", term)
    pen.say("Subtracted are {terms}.", terms=listed(subtracted))
    for term in subtracted:
        total = step(pen, total, "-", term)
    return str(total)


def totals(row: QuestionRow, pen: Pen) -> str:
    """Only the running totals: the shortest, in which each must be worked out unaided."""
    total, written = steps_of_row(row)[0].a, []
    for one in steps_of_row(row):
        total = pen.slipped(total + one.b if one.op == "+" else total - one.b, slip_total)
        written.append(total)
    pen.say("{totals}.", totals=listed(written))
    return str(total)


def listed(numbers: list[int]) -> str:
    """The numbers in words; `none` if there is none."""
    return ", ".join(map(str, numbers)) or "none"


def drill(_: QuestionRow, rng: Random) -> Exercise:
    """One step from any running total, or two from a total of two digits: never a question that is asked."""
    num_steps = rng.choice((1, 1, 2))
    total = rng.choice([n for n in range(-40, 61) if num_steps == 1 or not 0 <= n <= 9])
    terms = [(rng.choice("+-"), rng.randint(0, 9)) for _ in range(num_steps)]
    expression = " ".join([str(total), *(f"{op} {term}" for op, term in terms)])
    pen = Pen(rng)
    for op, term in terms:
        total = step(pen, total, op, term)
    return Exercise(QUESTION.format(expression=expression), pen.sentences, str(total))


def guess(row: QuestionRow, rng: Random) -> str:
    """The result give or take five."""
    return str(int(str(row["reference_answer"])) + rng.randint(-5, 5))


SUMS = Family(
    dataset="chain_sum",
    domain="sums",
    config={"min_terms": 3, "max_terms": 7, "min_digits": 1, "max_digits": 1},
    accepts=lambda row: True,
    level=lambda row: len(steps_of_row(row)) - 1,
    procedures=(
        Procedure("left to right", 0.5, "We go from left to right.", left_to_right),
        Procedure("by sign", 0.3, "We sort the terms by sign.", by_sign),
        Procedure("totals", 0.2, "The totals in turn:", totals),
    ),
    drill=drill,
    guess=guess,
)
