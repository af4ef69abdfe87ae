"""Words spelled backward (`spell_backward`): letter by letter, with numbered letters, or in halves."""

from random import Random

from dasd_resources.demo.questions import QuestionRow
from dasd_resources.school.family import Exercise, Family, Pen, Procedure, metadata_of

SPELLED = "{word} is {result}."


def word_of(row: QuestionRow) -> str:
    """The word that is spelled backward."""
    return str(metadata_of(row)["word"])


def slip_letters(right: str, rng: Random) -> str:
    """The letters with two neighbours exchanged or one left out."""
    at = rng.randrange(len(right) - 1)
    if rng.random() < 0.5:
        return right[:at] + right[at + 1 :]
    return right[:at] + right[at + 1] + right[at] + right[at + 2 :]


def spell(row: QuestionRow, pen: Pen) -> str:
    """The letters in a row, and again from the last one."""
    word = word_of(row)
    pen.say("The letters are {letters}.", "Its letters: {letters}.", letters=apart(word))
    backward = pen.slipped(word[::-1], slip_letters)
    pen.say("From the end they are {letters}.", "Backward: {letters}.", letters=apart(backward))
    return backward


def numbered(row: QuestionRow, pen: Pen) -> str:
    """Each letter with its number, and again in falling order: the longest, in the smallest steps."""
    word = word_of(row)
    pen.say("{letters}.", letters=", ".join(f"{at} {letter}" for at, letter in enumerate(word, 1)))
    backward = [(at, letter) for at, letter in enumerate(word, 1)][::-1]
    if pen.slips():
        del backward[pen.rng.randrange(len(backward))]
    pen.say("{letters}.", letters=", ".join(f"{at} {letter}" for at, letter in backward))
    return "".join(letter for _, letter in backward)


def halves(row: QuestionRow, pen: Pen) -> str:
    """Both halves backward, the second one first: short, in leaps of two to four letters."""
    word = word_of(row)
    middle = len(word) // 2
    pen.say("{first} and {second}.", first=word[:middle], second=word[middle:])
    parts = [
        pen.result(part[::-1], slip_letters, SPELLED, word=part) if len(part) > 1 else part
        for part in (word[middle:], word[:middle])
    ]
    return "".join(parts)


def apart(word: str) -> str:
    """The letters with commas between them."""
    return ", ".join(word)


def drill(row: QuestionRow, rng: Random) -> Exercise:
    """The letters of a word, letters from the last to the first, letters joined to a word, or two of them exchanged."""
    pen, word, kind = Pen(rng), rng.choice((word_of(row), made_up(rng))), rng.randrange(4)
    if kind == 0:
        pen.say("The letters are {letters}.", letters=apart(word))
        return Exercise(f"Which letters has {word}?", pen.sentences, apart(word))
    if kind == 1:
        pen.say("From the end they are {letters}.", letters=apart(word[::-1]))
        return Exercise(f"Say {apart(word)} from the end.", pen.sentences, apart(word[::-1]))
    if kind == 2:
        return Exercise(f"Which word do {apart(word)} make?", ["They follow one another."], word)
    pen.say(SPELLED, word=word[:2], result=word[:2][::-1])
    return Exercise(f"Spell this word backward (example: sun -> nus): {word[:2]}", pen.sentences, word[:2][::-1])


def made_up(rng: Random) -> str:
    """A word of consonants and vowels in turn."""
    return "".join(rng.choice("bcdfghlmnprst" if at % 2 else "aeiouy") for at in range(rng.randint(2, 8)))


def guess(row: QuestionRow, rng: Random) -> str:
    """The word as it is, or backward with a slip."""
    word = word_of(row)
    return rng.choice((word, slip_letters(word[::-1], rng), word[::-1]))


LETTERS = Family(
    dataset="spell_backward",
    domain="letters",
    config={"min_word_len": 3, "max_word_len": 7},
    accepts=lambda row: word_of(row).islower() and word_of(row).isascii(),
    level=lambda row: len(word_of(row)) - 2,
    procedures=(
        Procedure("spell", 0.45, "We spell it.", spell),
        Procedure("numbered", 0.3, "We number the letters.", numbered),
        Procedure("halves", 0.25, "We cut it in two.", halves),
    ),
    drill=drill,
    guess=guess,
)
