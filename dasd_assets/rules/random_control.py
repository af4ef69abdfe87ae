"""The random control of a selection (report Table 3): from the same pool, as many responses per domain."""

import polars as pl

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.selection import SELECTION, best_of_each_question, rank
from dasd_resources.storage.lake import Reading

CONTROL_VERSION = "2"
CONTROL = Rule("control", CONTROL_VERSION, ("seed",), (SELECTION,))


def draw_control(reading: Reading, chosen: pl.DataFrame, policy: str, seed: int) -> pl.DataFrame:
    """As many accepted responses of table `pool` per domain as `chosen` has, drawn by a hash of seed and response_id.

    Under the policy `best_per_question`, one response of each chosen question; otherwise the questions are drawn, too.
    """
    same = "prompt_id" if policy == "best_per_question" else "domain"
    query = f"""SELECT *, md5_number_lower($seed || ' ' || response_id) / 2.0 ** 64 AS draw
        FROM pool WHERE accepted AND score IS NOT NULL AND {same} IN (SELECT unnest($same::VARCHAR[]))"""
    reading.create_temp_table("drawn", query, {"seed": str(seed), "same": chosen[same].unique().to_list()})
    budget = dict(chosen.group_by("domain").len().iter_rows())
    if policy == "best_per_question":
        reading.create_temp_table("best", best_of_each_question("drawn", "draw"))
        return rank(reading, "best", "key", budget)
    return rank(reading, "drawn", "draw", budget)
