"""What the school's teacher and student learn from.

The teacher learns every family in all of its procedures, slips now and then, and goes on from a prefix cut anywhere.
The student learns single steps, the easiest questions in the first procedure alone, and bare guesses at the others.
"""

from functools import cache
from random import Random

from dasd_resources.demo.questions import ROWS_PER_SEED, SEED, QuestionRow
from dasd_resources.demo.tiny_models import END_OF_TURN, STUDENT_SYSTEM_PROMPT, Example, TinyModel, render
from dasd_resources.demo.traces import canonical
from dasd_resources.school.catalogue import FAMILIES
from dasd_resources.school.family import Exercise, Family, Pen, metadata_of
from dasd_resources.school.questions import SCHOOL, family_row, split_of

MODELS_SEED = SEED + 2_000_000
SLIP_RATE, DOUBT_SHARE = 0.05, 0.4  # of results, of slips: work of five results ends wrong by a slip in 14 %
CUT_SHARE = 0.1  # of the teacher's examples, begun inside the answer
CUT_SLIP_RATE = 0.2  # what is continued is more often wrong
DRILL_SHARE, EASY_SHARE = 0.65, 0.2  # of the student's examples; the others are guesses
EASY_LEVEL = 2
NUM_SEARCHED = 10_000  # questions, for easy ones


def draw_row(family: Family, rng: Random) -> QuestionRow:
    """A question from the split that is reserved for the models."""
    while True:
        row = models_row(family, rng.randrange(ROWS_PER_SEED))
        if row is not None:
            return row


def models_row(family: Family, index: int) -> QuestionRow | None:
    """The question at this index, if the family asks it and it is reserved for the models."""
    row = family_row(family, index, MODELS_SEED)
    return row if row is not None and split_of(str(row["question"])) == "models" else None


@cache
def easy_rows(family: Family) -> list[QuestionRow]:
    """The easiest of the first questions that are reserved for the models."""
    rows = (models_row(family, index) for index in range(NUM_SEARCHED))
    return [row for row in rows if row is not None and int(str(metadata_of(row)["level"])) <= EASY_LEVEL]


def response_of(exercise: Exercise, rng: Random) -> str:
    """The canonical text of a worked answer, its sentences in one line or one below the other."""
    return canonical(rng.choice((" ", " ", "\n")).join(exercise.sentences), exercise.answer)


def teacher_example(rng: Random) -> Example:
    """A worked answer, right or wrong; one in ten starts inside it, at any character."""
    cuts = rng.random() < CUT_SHARE
    pen = Pen(rng, CUT_SLIP_RATE if cuts else SLIP_RATE, DOUBT_SHARE)
    family = rng.choice(FAMILIES)
    exercise = family.worked(draw_row(family, rng), pen)
    response = response_of(exercise, rng)
    cut = rng.randrange(len("<think>\n"), len(response)) if cuts else 0
    return Example(render(exercise.question) + response[:cut], response[cut:] + END_OF_TURN)


def student_exercise(rng: Random) -> Exercise:
    """A single step, one of the easiest questions, or a guess."""
    family, kind = rng.choice(FAMILIES), rng.random()
    if kind < DRILL_SHARE:
        return family.drill(rng)
    if kind < DRILL_SHARE + EASY_SHARE:
        procedure, pen, row = family.procedures[0], Pen(rng), rng.choice(easy_rows(family))
        pen.say(procedure.opening)
        answer = procedure.work(row, pen)
        return Exercise(str(row["question"]), pen.sentences, answer)
    row = draw_row(family, rng)
    return Exercise(str(row["question"]), [], family.guess(row, rng))


def student_example(rng: Random) -> Example:
    """What the student knows before distillation."""
    exercise = student_exercise(rng)
    return Example(render(exercise.question, STUDENT_SYSTEM_PROMPT), response_of(exercise, rng) + END_OF_TURN)


SCHOOL_MODELS = (
    TinyModel(SCHOOL / "teacher", 512, (5000, 5000), teacher_example, num_layers=3),
    TinyModel(SCHOOL / "student", 416, (6000, 6000), student_example),
)
