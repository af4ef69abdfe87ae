"""Policies: ways to choose a dataset from one pool: divergence-aware sampling, and the controls it is held against.

A control answers "could it be this instead?" (docs/selection.md). All take as much of each domain as DAS does of the
same pool, in examples or in tokens, and all depend on ids and seed alone: neither on row order nor on threads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import polars as pl

from dasd_assets.rules.asset_names import DAS, RANDOM
from dasd_assets.rules.competition import Competition
from dasd_assets.rules.random_control import CONTROL, DRAW, draw_control, spent
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.selection import select
from dasd_resources.storage.lake import Reading

POLICIES_VERSION = "1"
CHOICE = Rule("policies", POLICIES_VERSION, (), (CONTROL,))
LENGTH_MATCHED = "length_matched_random"
# Two responses are as long as each other where the longer has at most this share more tokens. Wider, the control would
# have lengths of its own; narrower, a question's few other candidates are rarely near enough.
TOLERANCE = 0.1
_ANY = Competition("top_k", None)


@dataclass(frozen=True)
class Policy:
    """What it chooses, and what a difference between it and DAS cannot come from; the rest is SQL over the pool.

    key: what ranks a row, the greatest first. taken: the condition of rows that it chooses from, besides accepted.
    columns: those of `pool.ON_REQUEST` that it needs.
    """

    meaning: str
    controls_for: str
    key: str = DRAW
    taken: str = "true"
    columns: tuple[str, ...] = ()


POLICIES: dict[str, Policy] = {
    DAS: Policy(
        "Divergence-aware sampling: the responses of the greatest score.", "nothing: it is what is tested", "key"
    ),
    RANDOM: Policy(
        "Responses drawn by a hash of seed and id.", "the pool: its filters, questions and number of examples"
    ),
    "random_correct": Policy(
        "Responses drawn as in `random`, of those whose answer passed verification, required or not; a question "
        "without a verifier passes unseen.",
        "correctness: whether DAS is only more often (or less often) right",
        taken="correct",
        columns=("correct",),
    ),
    "anti_das": Policy(
        "The responses of the lowest score.", "being sorted at all: a score that means something has two ends", "-key"
    ),
    LENGTH_MATCHED: Policy(
        "For each response that DAS chooses, another one as long in the student's tokens, within a tenth.",
        "length: whether DAS only chooses longer (or shorter) responses",
        columns=("num_tokens",),
    ),
    "longest": Policy(
        "The responses of the most student tokens.",
        "the cheapest rule that a score could be standing in for",
        "num_tokens",
        columns=("num_tokens",),
    ),
    "shortest": Policy(
        "The responses of the fewest student tokens.",
        "the same from the other end",
        "-num_tokens",
        columns=("num_tokens",),
    ),
    "most_probable": Policy(
        "The responses that the teacher finds most probable: the greatest mean logprob of a token.",
        "the teacher's own probability, which every score of DAS has in it, without the student's",
        "mean_logprob",
        "mean_logprob IS NOT NULL",
        ("mean_logprob",),
    ),
    "least_probable": Policy(
        "The responses that the teacher finds least probable.",
        "the same from the other end",
        "-mean_logprob",
        "mean_logprob IS NOT NULL",
        ("mean_logprob",),
    ),
}


def draw(
    reading: Reading,
    policy: str,
    rule: Competition,
    budget: Mapping[str, int],
    seed: int,
    times: float = 1.0,
    max_of_question: int | None = None,
) -> pl.DataFrame:
    """The rows of table `pool` that a policy chooses: response_id, prompt_id, domain, score, rank from 1 in its domain.

    rule, budget: of `select`, whose choice `das` is. The other policies take as much of each domain as that costs,
    and never more: at most one response less, where budgets are in tokens. times: for more or less data than that, each
    budget times this, as far as the pool has it; where there is none, the cost times this. Raises KeyError for an
    unknown policy.

    Under `best_per_question`, a policy's best response of each question that DAS chooses comes first; then, as far as
    the cost is not reached, that of other questions; then further ones of a question, up to max_of_question (`times`,
    rounded up). `random` stays with DAS's questions and one of each, as `draw_control`, unless told otherwise.
    """
    entry, most = POLICIES[policy], max_of_question or max(1, ceil(times))
    chosen = select(reading, rule, budget)
    limits = spent(reading, chosen)
    if times != 1:
        limits = {domain: int(round(much * times, 6)) for domain, much in {**limits, **budget}.items()}
        chosen = select(reading, rule, {**budget, **limits})
    if policy == DAS and most == 1:
        return chosen
    if policy == RANDOM and most == 1 and times == 1:
        return draw_control(reading, chosen, rule, seed)
    _list_chosen(reading, chosen)
    params: dict[str, object] = {"seed": str(seed), "domains": list(limits)}
    if policy == LENGTH_MATCHED:
        reading.create_temp_table("drawn", _AS_LONG if rule.is_plain else _AS_LONG_OF_QUESTION, params)
        return select(reading, _ANY, limits, "drawn")
    rows = f"""SELECT * REPLACE (({entry.key})::DOUBLE AS key) FROM pool
        WHERE accepted AND key IS NOT NULL AND {entry.taken} AND domain IN (SELECT unnest($domains::VARCHAR[]))"""
    if rule.policy == "top_k":
        reading.create_temp_table("drawn", rows, params)
        return select(reading, rule, limits, "drawn")
    reading.create_temp_table("drawn", _by_question(rows, most, only_chosen=policy == DAS), params)
    return select(reading, _ANY, limits, "drawn")


def _list_chosen(reading: Reading, chosen: pl.DataFrame) -> None:
    """Create the table `chosen` of DAS's choice: response_id, prompt_id."""
    columns = {name: chosen[name].to_list() for name in ("response_id", "prompt_id")}
    query = "SELECT unnest($response_id::VARCHAR[]) AS response_id, unnest($prompt_id::VARCHAR[]) AS prompt_id"
    reading.create_temp_table("chosen", query, columns)


def _by_question(rows: str, most: int, *, only_chosen: bool) -> str:
    """SQL for the rows of which questions compete, `most` of each; the key is their place, first the greatest.

    The order is that of `draw`: the best of DAS's questions, the best of others, the second of any, and so on.
    """
    of_chosen = "prompt_id IN (SELECT prompt_id FROM chosen)"
    scope = f"WHERE {of_chosen}" if only_chosen else ""
    place = "row_number() OVER (PARTITION BY prompt_id ORDER BY key DESC, response_id)"
    return f"""WITH taken AS (SELECT *, {place} AS place FROM ({rows}) {scope} QUALIFY place <= {most})
        SELECT * REPLACE (-row_number() OVER (
            ORDER BY CASE WHEN place = 1 AND {of_chosen} THEN 0 ELSE place END, key DESC, response_id)::DOUBLE AS key)
        FROM taken"""


_CANDIDATES = f"""SELECT * REPLACE ({DRAW} AS key), response_id IN (SELECT response_id FROM chosen) AS is_chosen
    FROM pool WHERE accepted AND key IS NOT NULL AND domain IN (SELECT unnest($domains::VARCHAR[]))"""
# Of all that a domain has: lengths in bins of one tolerance, and of each bin as many as DAS has there. Drawn among the
# others; DAS's own are taken where the bin has no other left, so that lengths agree whatever the pool holds.
_AS_LONG = f"""SELECT *, floor(ln(num_tokens) / ln(1 + {TOLERANCE})) AS bin FROM ({_CANDIDATES})
    QUALIFY row_number() OVER (PARTITION BY domain, bin ORDER BY is_chosen, key DESC, response_id)
        <= count(*) FILTER (is_chosen) OVER (PARTITION BY domain, bin)"""
# Of the same question, which has few: each response goes to the nearest of DAS's there, and each of DAS's takes the
# nearest that it was given, or itself where none is as long.
_AS_LONG_OF_QUESTION = f"""WITH candidates AS ({_CANDIDATES}),
    given AS (SELECT o.response_id, c.response_id AS matched, abs(o.num_tokens - c.num_tokens) AS apart, o.key
        FROM candidates o JOIN candidates c USING (prompt_id)
        WHERE c.is_chosen AND NOT o.is_chosen AND greatest(o.num_tokens, c.num_tokens)
            <= (1 + {TOLERANCE}) * least(o.num_tokens, c.num_tokens)
        QUALIFY row_number() OVER (PARTITION BY o.response_id ORDER BY apart, c.response_id) = 1),
    nearest AS (SELECT * FROM given
        QUALIFY row_number() OVER (PARTITION BY matched ORDER BY apart, key DESC, response_id) = 1)
    SELECT * FROM candidates WHERE response_id IN (SELECT response_id FROM nearest)
        OR (is_chosen AND response_id NOT IN (SELECT matched FROM nearest))"""
