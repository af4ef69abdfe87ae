"""What a family of questions is: reasoning-gym's rows of one data set, and several ways of solving them.

A procedure writes its steps with a `Pen`, which slips now and then as a fallible teacher does: a slip is sometimes
noticed and put right, otherwise the work goes on from the wrong result and ends in a wrong answer.
Left out: any text that does not belong to one family.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from dasd_resources.chat import split_thinking
from dasd_resources.demo.questions import JsonValue, QuestionRow
from dasd_resources.demo.traces import DOUBTS

Result = TypeVar("Result", int, str)
ANY, _RESULT = "\0", re.compile(r"-?\w+")  # what stands for a result that is not known, and what it may be


@dataclass
class Pen:
    """Writes the sentences of one worked answer. slip_rate: of results; doubt_share: of slips, which are put right."""

    rng: Random
    slip_rate: float = 0.0
    doubt_share: float = 0.0
    sentences: list[str] = field(default_factory=list)

    def say(self, *wordings: str, **values: int | str) -> None:
        """Write one sentence in one of these wordings; an empty one is not written."""
        if sentence := self.rng.choice(wordings).format(**values):
            self.sentences.append(sentence)

    def slips(self) -> bool:
        """Whether the next result comes out wrong."""
        return self.rng.random() < self.slip_rate

    def slipped(self, right: Result, slip: Callable[[Result, Random], Result]) -> Result:
        """The result, or with the pen's rate a plausible wrong one."""
        return slip(right, self.rng) if self.slips() else right

    def result(
        self, right: Result, slip: Callable[[Result, Random], Result], *wordings: str, **values: int | str
    ) -> Result:
        """Write a step whose wordings name its `{result}`; returns the result with which the work goes on."""
        first = self.slipped(right, slip)
        self.say(*wordings, result=first, **values)
        if first == right or self.rng.random() >= self.doubt_share:
            return first
        self.say(*DOUBTS)
        self.say(*wordings, result=right, **values)
        return right


class Reader(Pen):
    """Follows a text through the sentences that it would write, in any wording, and past slips that are put right.

    at: how far it has come; -1 once the text says something else.
    """

    def __init__(self, text: str) -> None:
        super().__init__(Random(0))
        self.text, self.at = text, 0

    def say(self, *wordings: str, **values: int | str) -> None:
        """Go past the sentence and the white space after it; where an empty one will do, it may be missing."""
        past = self._past(self.at, (wording.format(**values) for wording in wordings if wording))
        self.at = self.at if past < 0 and "" in wordings else past

    def result(
        self, right: Result, slip: Callable[[Result, Random], Result], *wordings: str, **values: int | str
    ) -> Result:
        """Go past a step, and past the same with another result and a doubt if that stands before it."""
        slipped = self._past_slip(wording.format(result=ANY, **values) for wording in wordings)
        doubted = self._past(slipped, DOUBTS)
        self.at = self._past(max(self.at, doubted), (wording.format(result=right, **values) for wording in wordings))
        return right

    def _past_slip(self, steps: Iterable[str]) -> int:
        """Where the text goes on after one of these with any result, and white space; -1 if none stands here."""
        for before, _, after in (step.partition(ANY) for step in steps):
            if self.at >= 0 and self.text.startswith(before, self.at):
                result = _RESULT.match(self.text, self.at + len(before))
                if result and (past := self._past(result.end(), (after,))) >= 0:
                    return past
        return -1

    def _past(self, at: int, sentences: Iterable[str]) -> int:
        """Where the text goes on after one of these and white space; -1 if none stands at `at`, or that is -1."""
        for sentence in sentences:
            end = at + len(sentence)
            if at >= 0 and self.text.startswith(sentence, at) and self.text[end : end + 1].isspace():
                return end + 1
        return -1


@dataclass(frozen=True)
class Procedure:
    """One way of solving: `work` writes its steps and returns the answer to which they lead.

    share: how often the teacher goes this way. opening: the first sentence, by which a response is known to go it.
    """

    name: str
    share: float
    opening: str
    work: Callable[[QuestionRow, Pen], str]


@dataclass(frozen=True)
class Exercise:
    """A question with a worked answer, which may be wrong."""

    question: str
    sentences: list[str]
    answer: str


@dataclass(frozen=True, eq=False)
class Family:
    """One data set of reasoning-gym as a domain of questions.

    config: of the data set. accepts: which of its rows are asked. level: difficulty of a row, 1 and more.
    drill: one step of the work, as a question of its own, which the student knows before distillation; of the row, or
    of any other.
    guess: what the student answers to a whole question, mostly wrong.
    """

    dataset: str
    domain: str
    config: dict[str, int]
    accepts: Callable[[QuestionRow], bool]
    level: Callable[[QuestionRow], int]
    procedures: tuple[Procedure, ...]
    drill: Callable[[QuestionRow, Random], Exercise]
    guess: Callable[[QuestionRow, Random], str]

    @property
    def verifier(self) -> str:
        """The data set's own scorer."""
        return f"reasoning_gym:{self.dataset}"

    def worked(self, row: QuestionRow, pen: Pen) -> Exercise:
        """The question worked in one of the procedures."""
        [procedure] = pen.rng.choices(self.procedures, [procedure.share for procedure in self.procedures])
        pen.say(procedure.opening)
        answer = procedure.work(row, pen)
        return Exercise(str(row["question"]), pen.sentences, answer)

    def procedure_of(self, response: str) -> str | None:
        """Name of the procedure that a response goes, by its opening; None if it is none of them."""
        procedure = self._gone(response)
        return None if procedure is None else procedure.name

    def is_sound(self, row: QuestionRow, response: str) -> bool | None:
        """Whether a response's thinking is every step of its procedure, each right or put right; None if it goes none.

        The answer may be right where this is not: the teacher may know the result in spite of a slip.
        """
        procedure = self._gone(response)
        if procedure is None:
            return None
        body, _ = split_thinking(response)
        reader = Reader(f"{(body or '').strip()}\n")
        reader.say(procedure.opening)
        procedure.work(row, reader)
        return reader.at == len(reader.text)

    def _gone(self, response: str) -> Procedure | None:
        body = response.removeprefix("<think>\n")
        return next((procedure for procedure in self.procedures if body.startswith(procedure.opening)), None)


def metadata_of(row: QuestionRow) -> dict[str, JsonValue]:
    """The row's metadata. Raises TypeError if it has none."""
    metadata = row["metadata"]
    if not isinstance(metadata, dict):
        raise TypeError(f"question {json.dumps(row['question'])} has no metadata")
    return metadata
