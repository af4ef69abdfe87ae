"""The random control of a selection (report Table 3): from the same pool, at the same cost per domain."""

import polars as pl

from dasd_assets.rules.competition import Competition
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.selection import SELECTION, select
from dasd_resources.storage.lake import Reading

CONTROL_VERSION = "3"
CONTROL = Rule("control", CONTROL_VERSION, ("seed",), (SELECTION,))

DRAW = "md5_number_lower($seed || ' ' || response_id) / 2.0 ** 64"  # in SQL: a response's place in a draw, 0 to 1


def draw_control(reading: Reading, chosen: pl.DataFrame, rule: Competition, seed: int) -> pl.DataFrame:
    """Accepted responses of table `pool`, drawn by a hash of seed and response_id, for as much per domain as `chosen`.

    chosen: response_id, prompt_id, domain. Under the policy `best_per_question`, one response of each chosen question;
    otherwise the questions are drawn, too, with no more of one than the selection may have.
    """
    same = "prompt_id" if rule.policy == "best_per_question" else "domain"
    query = f"""SELECT * REPLACE ({DRAW} AS key)
        FROM pool WHERE accepted AND key IS NOT NULL AND {same} IN (SELECT unnest($same::VARCHAR[]))"""
    reading.create_temp_table("drawn", query, {"seed": str(seed), "same": chosen[same].unique().to_list()})
    return select(reading, rule, spent(reading, chosen), "drawn")


def spent(reading: Reading, chosen: pl.DataFrame) -> dict[str, int]:
    """Domain -> what these rows of table `pool` cost together."""
    query = (
        "SELECT domain, sum(cost)::BIGINT FROM pool WHERE response_id IN (SELECT unnest($ids::VARCHAR[])) GROUP BY ALL"
    )
    return dict(reading.read(query, {"ids": chosen["response_id"].to_list()}).iter_rows())
