"""What the school's teacher and student learn from.

The teacher learns every family in all of its procedures, slips now and then, and goes on from a prefix cut anywhere.
The student learns single steps, the same work done sloppily, so that it is mostly wrong, and bare guesses.
"""

from random import Random

from dasd_resources.demo.questions import ROWS_PER_SEED, SEED, QuestionRow
from dasd_resources.demo.tiny_models import END_OF_TURN, STUDENT_SYSTEM_PROMPT, Example, TinyModel, render
from dasd_resources.demo.traces import canonical
from dasd_resources.school.catalogue import FAMILIES
from dasd_resources.school.family import Exercise, Family, Pen
from dasd_resources.school.questions import SCHOOL, family_row, split_of

MODELS_SEED = SEED + 2_000_000
SLIP_RATE, DOUBT_SHARE = 0.05, 0.4  # of results, of slips: work of five results ends wrong by a slip in 14 %
CUT_SHARE = 0.1  # of the teacher's examples, begun inside the answer
CUT_SLIP_RATE = 0.2  # what is continued is more often wrong
DRILL_SHARE, SLOPPY_SHARE = 0.3, 0.6  # of the student's examples; the others are guesses
SLOPPY_SLIP_RATE = 0.35  # work of five results ends wrong in 88 %


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
    """A single step, a worked answer that is often wrong, or a guess."""
    family, kind = rng.choice(FAMILIES), rng.random()
    row = draw_row(family, rng)
    if kind < DRILL_SHARE:
        return family.drill(row, rng)
    if kind < DRILL_SHARE + SLOPPY_SHARE:
        return family.worked(row, Pen(rng, SLOPPY_SLIP_RATE))
    return Exercise(str(row["question"]), [], family.guess(row, rng))


def student_example(rng: Random) -> Example:
    """What the student knows before distillation."""
    exercise = student_exercise(rng)
    return Example(render(exercise.question, STUDENT_SYSTEM_PROMPT), response_of(exercise, rng) + END_OF_TURN)


SCHOOL_MODELS = (
    TinyModel(SCHOOL / "teacher", 512, (4000, 8000), teacher_example, num_layers=3),
    TinyModel(SCHOOL / "student", 416, (10_000, 10_000), student_example),
)
