"""Ones of a binary number (`count_bits`): by halving, by taking away powers of two, or written in binary at once."""

from random import Random

from dasd_resources.demo.questions import QuestionRow
from dasd_resources.demo.traces import QUESTION
from dasd_resources.school.family import Exercise, Family, Pen, Procedure, metadata_of, slip_number

HALF = "Half is {result}."
LESS_POWER = "{n} - {power} = {result}."
MAX_POWERS = 12  # a slip may make the number larger again
NUMBERED = ("{ones}: {n} - {power} = {result}.", "Power {ones}: {n} - {power} = {result}.")


def number_of(row: QuestionRow) -> int:
    """The number whose ones are counted."""
    return int(str(metadata_of(row)["number"]))


def halving(row: QuestionRow, pen: Pen) -> str:
    """Half again and again, and the odd numbers counted: the longest, in the smallest steps."""
    n, ones = number_of(row), 0
    while n > 0:
        ones += n % 2
        pen.say("{n} is odd, that makes {ones}." if n % 2 else "{n} is even, still {ones}.", n=n, ones=ones)
        n = pen.result(n // 2, slip_half, HALF, "Its half is {result}.") if n > 1 else 0
    return str(ones)


def slip_half(right: int, rng: Random) -> int:
    """A half that is off; never more than twice the right one, so that the work ends."""
    return rng.choice([n for n in (right - 1, right + 1, right - 10, right + 10) if 0 < n <= 2 * right])


def powers(row: QuestionRow, pen: Pen) -> str:
    """The largest power of two taken away until nothing is left, each numbered."""
    n, ones = number_of(row), 0
    while n > 0 and ones < MAX_POWERS:
        ones, power = ones + 1, 1 << (n.bit_length() - 1)
        n = pen.result(n - power, slip_number, *NUMBERED, ones=ones, n=n, power=power)
    return str(ones)


def binary(row: QuestionRow, pen: Pen) -> str:
    """The number in binary at once, and its ones counted at once: the shortest, in two leaps."""
    digits = pen.slipped(f"{number_of(row):b}", slip_digit)
    ones = digits.count("1")
    pen.say("It is {digits}.", digits=digits)
    return str(ones)


def slip_digit(right: str, rng: Random) -> str:
    """The binary number with one digit changed, never the first."""
    at = rng.randrange(1, len(right))
    return right[:at] + ("1" if right[at] == "0" else "0") + right[at + 1 :]


def drill(rng: Random) -> Exercise:
    """A half, a power of two taken away, or the ones of a number too small to be asked about."""
    kind, n, pen = rng.randrange(3), rng.randint(2, 1023), Pen(rng)
    if kind == 0:
        pen.say("{n} is odd." if n % 2 else "{n} is even.", n=n)
        return Exercise(f"What is half of {n}, rounded down?", pen.sentences, str(pen.result(n // 2, slip_half, HALF)))
    if kind == 1:
        power = 1 << (n.bit_length() - 1)
        left = pen.result(n - power, slip_number, LESS_POWER, n=n, power=power)
        return Exercise(QUESTION.format(expression=f"{n} - {power}"), pen.sentences, str(left))
    n = rng.randint(1, 7)
    pen.say("It is {digits}.", digits=f"{n:b}")
    question = f"How many 1 bits are there in the binary representation of the number {n}?"
    return Exercise(question, pen.sentences, str(n.bit_count()))


def guess(row: QuestionRow, rng: Random) -> str:
    """The number of ones give or take two."""
    return str(max(1, int(str(row["reference_answer"])) + rng.randint(-2, 2)))


BITS = Family(
    dataset="count_bits",
    domain="bits",
    config={"min_n": 8, "max_n": 1023},
    accepts=lambda row: number_of(row) < 512 or number_of(row) % 3 == 0,  # or half of them had ten digits
    level=lambda row: number_of(row).bit_length() - 3,
    procedures=(
        Procedure("halving", 0.4, "We halve it.", halving),
        Procedure("powers", 0.4, "We take away powers of two.", powers),
        Procedure("binary", 0.2, "We write it in binary.", binary),
    ),
    drill=drill,
    guess=guess,
)
