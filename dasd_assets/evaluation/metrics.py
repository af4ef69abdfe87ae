"""Figures of an evaluation, each with its standard error clustered by question (docs/evaluation.md).

Every question weighs the same, and all its samples are one observation: the error of a figure is that of a mean over
questions. A single question has none, nor have questions that are all alike: of neither is known how others would fall.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from dasd_assets.rules.rule import Rule

METRICS_VERSION = "2"
METRICS = Rule("evaluation metrics", METRICS_VERSION)
QUANTILES = (0.1, 0.5, 0.9)  # of lengths


@dataclass(frozen=True)
class Estimate:
    """A mean over questions; value: None without any; standard_error: None of one, or where all are alike."""

    value: float | None
    standard_error: float | None
    num_questions: int

    def __str__(self) -> str:
        """`61.3% ± 2.1%`, `100.0% (no standard error)`."""
        return self.shown(".1%")

    def shown(self, style: str) -> str:
        """The value and its error in a format."""
        if self.value is None:
            return "–"
        if self.standard_error is None:
            return f"{self.value:{style}} ({'one question' if self.num_questions == 1 else 'no standard error'})"
        return f"{self.value:{style}} ± {self.standard_error:{style}}"


def over_questions(values: Sequence[float]) -> Estimate:
    """The mean of one value per question, and its standard error: standard deviation over the root of their number.

    Of values that are all alike it would be 0, as if no other question could fall otherwise: there is none then.
    """
    num = len(values)
    if not num:
        return Estimate(None, None, 0)
    mean = math.fsum(values) / num
    if len(set(values)) == 1:
        return Estimate(mean, None, num)
    return Estimate(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (num - 1) / num), num)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that k samples drawn without replacement have a right one: 1 - C(n-c, k) / C(n, k), unbiased.

    Chen et al. 2021 (arXiv 2107.03374), in integers. Raises ValueError unless 1 <= k <= num_samples.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} of {num_samples} samples: k is at least 1, and at most their number")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def ks(num_samples: int) -> list[int]:
    """1, 2, 4, … and num_samples."""
    return sorted({2**power for power in range(num_samples.bit_length())} | {num_samples})


def majority(votes: Sequence[tuple[bool, str | None]]) -> float:
    """Chance that the answer given most often is right, where a tie is broken by lot; 0 without a vote.

    votes: whether an answer is right, and its final answer in the form in which equal ones are counted; None, where it
    is wrong, is no vote. All right ones are one answer.
    """
    counts = Counter(
        (correct, None if correct else answer) for correct, answer in votes if correct or answer is not None
    )
    most = max(counts.values(), default=0)
    winners = [correct for (correct, _), count in counts.items() if count == most]
    return sum(winners) / len(winners) if winners else 0.0


def quantile(lengths: Sequence[Sequence[int]], share: float) -> Estimate:
    """The least length that at least this share of the answers has at most, each question weighing the same.

    lengths: of the answers of each question. Its standard error is Woodruff's (JASA 1952): half the distance between
    the quantiles one standard error of the share below and above.
    """
    known = [np.sort(np.asarray(of, dtype=np.float64)) for of in lengths if len(of)]
    if not known:
        return Estimate(None, None, 0)
    pooled = np.concatenate(known)
    order = np.argsort(pooled, kind="stable")
    weights = np.concatenate([np.full(len(of), 1 / len(of) / len(known)) for of in known])[order]
    ordered, up_to = pooled[order], np.cumsum(weights)

    def at(wanted: float) -> float:
        place = int(np.searchsorted(up_to, min(max(wanted, 0.0), 1.0) - 1e-9))
        return float(ordered[min(place, len(ordered) - 1)])

    found = at(share)
    of_share = over_questions([float(np.searchsorted(of, found, side="right")) / len(of) for of in known])
    if (error := of_share.standard_error) is None:
        return Estimate(found, None, len(known))
    return Estimate(found, (at(share + error) - at(share - error)) / 2, len(known))


def accuracy(answers: pl.DataFrame) -> Estimate:
    """avg@k of one evaluation. answers: question_id, correct; no value where a `correct` is None: it is incomplete."""
    return (
        Estimate(None, None, 0)
        if answers["correct"].null_count()
        else over_questions(_per_question(answers, "correct"))
    )


def metrics(answers: pl.DataFrame) -> dict[str, Estimate]:
    """Name -> figure, of one evaluation; no values where it is incomplete.

    answers: question_id, status, correct, cut_off, num_tokens, repetition, final_answer, votes (whether the question's
    answers can be counted): one row per wanted answer, as many of each question.
    """
    is_given = pl.col("status") == "answered"
    questions = answers.group_by("question_id", maintain_order=True).agg(
        num=pl.len(),
        num_correct=pl.col("correct").sum(),
        lengths=pl.col("num_tokens").drop_nulls(),
        counts=pl.col("votes").all(),
        judged=pl.col("correct").filter(is_given),
        said=pl.col("final_answer").filter(is_given),
    )
    k = questions["num"][0]
    given = answers.filter(is_given).with_columns(repeats=pl.col("repetition") > 1)
    lengths = questions["lengths"].to_list()
    counted = questions.filter("counts").select("judged", "said").iter_rows()
    incomplete = answers["correct"].null_count() > 0
    found = {
        f"avg@{k}": accuracy(answers),
        **{f"pass@{j}": _pass(questions, j) for j in ks(k)},
        f"maj@{k}": over_questions([majority(list(zip(*of, strict=True))) for of in counted]),
        "cut_off_rate": over_questions(_per_question(given, "cut_off")),
        "repetition_rate": over_questions(_per_question(given, "repeats")),
        "mean_tokens": over_questions(_per_question(given, "num_tokens")),
        **{f"tokens_p{100 * share:.0f}": quantile(lengths, share) for share in QUANTILES},
    }
    return {name: Estimate(None, None, 0) for name in found} if incomplete else found


def _per_question(answers: pl.DataFrame, column: str) -> list[float]:
    """The mean of a column over each question's answers, in the order of the questions."""
    means = answers.group_by("question_id").agg(pl.col(column).cast(pl.Float64).mean()).sort("question_id")
    return means[column].drop_nulls().to_list()


def _pass(questions: pl.DataFrame, k: int) -> Estimate:
    counts = questions.select("num", "num_correct").iter_rows()
    return over_questions([pass_at_k(num, num_correct, k) for num, num_correct in counts])
