"""How exactly a mean over seeds and questions is known: two-way random effects, seeds crossed with questions.

A cell is x_sq = mean + seed_s + question_q + rest_sq; the rest is their interaction and the draw of samples. Both seeds
and questions are a sample of those there could be. The variance of the mean is then

    seed / S + question / Q + rest / (S Q)  =  (MS_seeds + MS_questions - MS_rest) / (S Q)

with the mean squares of the analysis of variance, each of which is an unbiased estimate (Searle, Casella, McCulloch,
Variance Components, 1992, ch. 4; as the two-way clustering of Cameron, Gelbach, Miller, JBES 2011). It is known as well
as its worst-known part: Satterthwaite's degrees of freedom (Biometrics Bulletin 1946), few where there are few seeds.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

LEAST = 1e-12  # a standard error below this is rounding


@dataclass(frozen=True)
class MeanSquares:
    """Of S seeds and Q questions; with one seed, `seeds` and `rest` are 0 and all variance is the questions'."""

    num_seeds: int
    num_questions: int
    seeds: float
    questions: float
    rest: float

    @classmethod
    def of(cls, cells: np.ndarray) -> Self:
        """cells: (S, Q), Q at least 2."""
        num_seeds, num_questions = cells.shape
        of_seeds, of_questions = cells.mean(axis=1), cells.mean(axis=0)
        questions = float(num_seeds * of_questions.var(ddof=1))
        if num_seeds == 1:
            return cls(1, num_questions, 0.0, questions, 0.0)
        rest = cells - of_seeds[:, None] - of_questions[None, :] + cells.mean()
        freedom = (num_seeds - 1) * (num_questions - 1)
        seeds = float(num_questions * of_seeds.var(ddof=1))
        return cls(num_seeds, num_questions, seeds, questions, float((rest**2).sum() / freedom))

    @property
    def of_seeds_alone(self) -> float:
        """What seeds add to the variance of the mean; 0 where they vary less than chance does."""
        return max(0.0, self.seeds - self.rest) / (self.num_seeds * self.num_questions)

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None where nothing varies, which does not say that nothing could."""
        variance = self.questions / (self.num_seeds * self.num_questions) + self.of_seeds_alone
        return variance**0.5 if variance**0.5 > LEAST else None

    @property
    def degrees_of_freedom(self) -> float:
        """Satterthwaite's, of the squared standard error; at least 1. Needs a standard error."""
        scale = self.num_seeds * self.num_questions
        whole = (self.questions / scale + self.of_seeds_alone) ** 2
        parts = (self.questions / scale) ** 2 / (self.num_questions - 1)
        if self.num_seeds > 1:
            parts += (self.seeds / scale) ** 2 / (self.num_seeds - 1)
            parts += (self.rest / scale) ** 2 / ((self.num_seeds - 1) * (self.num_questions - 1))
        return max(1.0, whole / parts)
