"""What each choice of selection picks where there is nothing to pick: responses whose sentences all follow one law.

    python bench/bench_selection_noise.py

4,000 responses of 1,000 questions, of 4 to 400 sentences; every sentence draws its teacher and student
log-probabilities from the same distributions. Any difference between a selection and the pool is then noise, or length.
Also draws docs/figures/selection_noise.png: score against length, what is selected in colour.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from matplotlib.figure import Figure
from results import table

from dasd_assets.rules.competition import Competition
from dasd_assets.rules.pool import shrink
from dasd_assets.rules.scores import response_scores, sentence_type
from dasd_assets.rules.selection import select
from dasd_resources.recipe import Divergence
from dasd_resources.storage.lake import Reading

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "selection_noise.png"
NUM_RESPONSES, NUM_QUESTIONS, KEPT, SEED = 4_000, 1_000, 200, 0
SHORTEST, LONGEST = 4, 400  # sentences


@dataclass(frozen=True)
class Choice:
    """Settings of `selection`, and the name under which they are shown."""

    name: str
    score: str
    min_sentences: int = 0
    pseudo_count: float = 0.0
    max_per_question: int | None = None


CHOICES = (
    Choice("`teacher_share`, the default", "teacher_share"),
    Choice("… `min_sentences: 50`", "teacher_share", min_sentences=50),
    Choice("… `pseudo_count: 20`", "teacher_share", pseudo_count=20.0),
    Choice("… `pseudo_count: 100`", "teacher_share", pseudo_count=100.0),
    Choice("… `max_per_question: 1`", "teacher_share", max_per_question=1),
    Choice("`teacher_token_share`", "teacher_token_share"),
    Choice("`mean_probability_token`", "mean_probability_token"),
    Choice("`weighted_probability_token`", "weighted_probability_token"),
    Choice("`response_log_token`", "response_log_token"),
    Choice("`sum_probability_token`", "sum_probability_token"),
)
DRAWN = (CHOICES[0], CHOICES[2], CHOICES[3], CHOICES[-1])


def scored() -> pl.DataFrame:
    """(response_id, score_name, score, num_sentences) of all responses; their sentences are drawn independently."""
    random = np.random.default_rng(SEED)
    lengths = np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST), NUM_RESPONSES)).astype(int)
    total = int(lengths.sum())
    tokens = random.integers(5, 40, total)
    per_token = {"teacher": -random.gamma(2.0, 0.2, total), "student": -random.gamma(2.0, 0.3, total)}
    stops = 4 * tokens.cumsum()
    sentences = pl.DataFrame(
        {
            "response_id": np.repeat([f"r{i:04d}" for i in range(NUM_RESPONSES)], lengths),
            "start": stops - 4 * tokens,
            "stop": stops,
            **{f"{model}_sum_logprob": mean * tokens for model, mean in per_token.items()},
            **{f"{model}_num_tokens": tokens for model in per_token},
        }
    )
    divergence = Divergence(measure="probability", threshold=0.1, per="token")
    return response_scores(sentences.with_columns(sentence_type=sentence_type(divergence)))


def choose(scores: pl.DataFrame, choice: Choice) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The pool of a choice, and the KEPT responses that it selects, both with num_sentences."""
    pool = scores.filter(score_name=choice.score).select(
        "response_id",
        "score",
        "num_sentences",
        prompt_id=pl.format("q{}", pl.col("response_id").str.slice(1).cast(pl.Int32) % NUM_QUESTIONS),
        domain=pl.lit("all"),
        key="score",
        accepted=pl.lit(True),
        cost=pl.lit(1),
    )
    with duckdb.connect() as connection:
        connection.register("rows", pool.filter(pl.col("num_sentences") >= choice.min_sentences))
        reading = Reading(connection)
        reading.create_temp_table("pool", "FROM rows")
        if choice.pseudo_count:
            shrink(reading, choice.pseudo_count)
        selected = select(reading, Competition("top_k", choice.max_per_question), {"all": KEPT})
    return pool, selected.join(pool.select("response_id", "num_sentences"), on="response_id")


def row(scores: pl.DataFrame, choice: Choice) -> list[object]:
    pool, selected = choose(scores, choice)
    of_pool, of_selected = (rows["num_sentences"].to_numpy() for rows in (pool, selected))
    ratio = float(of_selected.mean() / of_pool.mean())
    return [choice.name, float(np.median(of_selected)), ratio, selected["prompt_id"].n_unique()]


def draw(scores: pl.DataFrame) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained")
    for axes, choice in zip(figure.subplots(2, 2).flat, DRAWN, strict=True):
        pool, selected = choose(scores, choice)
        for rows, style in ((pool, {"color": "#bbbbbb"}), (selected, {"color": "#c0392b"})):
            axes.scatter(rows["num_sentences"], rows["score"], s=2, **style)
        axes.set_xscale("log")
        axes.set_title(f"{choice.score}, pseudo_count {choice.pseudo_count:g}", fontsize=8)
        axes.set_xlabel("sentences", fontsize=7)
        axes.tick_params(labelsize=7)
    figure.suptitle("Where all sentences follow one law: the pool (grey) and the 5 % selected (red)", fontsize=9)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    scores = scored()
    draw(scores)
    one = scores.filter(score_name="teacher_share")["num_sentences"].to_numpy()
    print("## What selection picks where there is nothing to pick\n")
    print(
        f"{NUM_RESPONSES:,} responses of {NUM_QUESTIONS:,} questions, {SHORTEST} to {LONGEST} sentences (median "
        f"{np.median(one):.0f}), all of one law; `top_k` keeps {KEPT}. A\nratio of 1 is no preference for length.\n"
    )
    head = ["selection", "median sentences of the selected", "mean length, ratio to the pool's", "questions"]
    print(table(head, [row(scores, choice) for choice in CHOICES]))
    print("![score against length](figures/selection_noise.png)")


if __name__ == "__main__":
    main()
