"""Every policy over 1 M scored responses of 8 domains: the time to draw, and how its lengths agree with DAS's.

    python bench/bench_policies.py [rows]

Eight responses a question; lengths are log-normal and the score follows them, so that DAS takes long ones. The distance
is Kolmogorov-Smirnov's between the numbers of student tokens of the two sets. CPU seconds of one thread.
"""

import sys
import time

import duckdb
import numpy as np
import polars as pl
from results import table

from dasd_assets.rules.asset_names import DAS
from dasd_assets.rules.competition import Competition
from dasd_assets.rules.policies import LENGTH_MATCHED, POLICIES, draw
from dasd_resources.storage.lake import Reading

NUM_ROWS, NUM_CANDIDATES, NUM_DOMAINS = 1_000_000, 8, 8
RULES = {
    "`top_k`": Competition("top_k", None),
    "`top_k`, 2 of a question": Competition("top_k", 2),
    "`best_per_question`": Competition("best_per_question", None),
}
MAX_SECONDS, MAX_DISTANCE = 5.0, 0.03
POOL = f"""SELECT md5(i::VARCHAR) AS response_id, md5('p' || i // {NUM_CANDIDATES}) AS prompt_id,
        'domain' || (i // {NUM_CANDIDATES} % {NUM_DOMAINS}) AS domain, true AS accepted, 1 AS cost,
        hash(i) % 3 > 0 AS correct, num_tokens, ln(num_tokens) + noise AS score, ln(num_tokens) + noise AS key,
        -exp(-noise) AS mean_logprob
    FROM lengths"""


def pool(reading: Reading, connection: duckdb.DuckDBPyConnection, num_rows: int) -> None:
    random = np.random.default_rng(0)
    lengths = (np.exp(random.normal(8, 0.6, num_rows)).astype(np.int64) + 1).tolist()
    rows = pl.DataFrame({"i": range(num_rows), "num_tokens": lengths, "noise": random.normal(0, 0.6, num_rows)})
    connection.register("lengths", rows)
    reading.create_temp_table("pool", POOL)


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The greatest difference between two distribution functions."""
    points = np.concatenate([found, expected])
    shares = [np.searchsorted(np.sort(side), points, side="right") / len(side) for side in (found, expected)]
    return float(np.abs(shares[0] - shares[1]).max())


def main(num_rows: int) -> None:
    lines: list[list[object]] = []
    with duckdb.connect(config={"threads": 1}) as connection:
        reading = Reading(connection)
        pool(reading, connection, num_rows)
        lengths = reading.read("SELECT response_id, num_tokens FROM pool")
        budget = {f"domain{number}": num_rows // 200 for number in range(NUM_DOMAINS)}
        for rule_name, rule in RULES.items():
            das = np.array([])
            for policy in POLICIES:
                start = time.process_time()
                drawn = draw(reading, policy, rule, budget, seed=42)
                seconds = time.process_time() - start
                assert drawn.height == sum(budget.values()), "another cost than that of das"
                found = drawn.join(lengths, on="response_id")["num_tokens"].to_numpy()
                das = found if policy == DAS else das
                apart = distance(found, das)
                missed = seconds > MAX_SECONDS or (policy == LENGTH_MATCHED and apart > MAX_DISTANCE)
                lines.append(
                    [f"{rule_name}: `{policy}`", seconds, apart, float(found.mean()), "MISSED" if missed else ""]
                )
    print(f"## Policies over {num_rows:,} scored responses\n")
    print(f"{num_rows // 200:,} kept of each of {NUM_DOMAINS} domains; bars: {MAX_SECONDS:g} s each, and a distance of")
    print(f"{MAX_DISTANCE:g} for `{LENGTH_MATCHED}`.\n")
    print(table(["rule and policy", "draw, s", "distance of lengths from DAS's", "mean tokens", "missed"], lines))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_ROWS)
