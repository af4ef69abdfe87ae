"""DAS selection over 10 M scored responses of 8 domains on one core, against the plain `row_number` query.

    python bench/bench_selection.py [rows]

A DuckLake warehouse of the project's own tables is filled with 10 M responses of 1.25 M questions in 100 batches, five
verdicts and nine scores each. The bars are for choosing among the pool, which is what selection does; gathering the
pool, which joins tables of 1 to 90 M rows, is shown with it. CPU seconds of one thread: others may use the machine.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from math import ceil

import polars as pl
from results import against, table

from dasd_assets.rules.competition import Competition
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.rules.pool import create_pool_table, pool_params
from dasd_assets.rules.random_control import draw_control
from dasd_assets.rules.scores import SCORES, threshold_version
from dasd_assets.rules.selection import select
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.connections import attach
from dasd_resources.storage.warehouse import Reading, Warehouse

NUM_ROWS, ROWS_PER_BATCH, NUM_CANDIDATES = 10_000_000, 100_000, 8
DATASET = "t100"
DOMAINS = tuple(f"domain{number}" for number in range(8))
BARS = {"top_k": 2.0, "best_per_question": 4.0}
NAIVE = {
    "top_k": "SELECT * FROM pool WHERE score IS NOT NULL",
    "best_per_question": """SELECT * FROM pool WHERE score IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY score DESC, response_id) = 1""",
}
RANKED = """SELECT response_id, prompt_id, domain, score,
        row_number() OVER (PARTITION BY domain ORDER BY score DESC, response_id) AS rank
    FROM ({source}) QUALIFY rank <= {most} ORDER BY domain, rank"""


def params_of_pool(recipe: Recipe, engines: Engines, num_rows: int) -> dict[str, object]:
    teacher, student = (engines.find(model, "model").fingerprint for model in (recipe.teacher, recipe.student))
    batches = [f"batch{number}" for number in range(ceil(num_rows / ROWS_PER_BATCH))]
    return pool_params(recipe, teacher, student, DATASET, batches)


def fill(warehouse: Warehouse, recipe: Recipe, engines: Engines, num_rows: int) -> None:
    """Responses, prompts, verdicts and scores as the assets write them, their texts and token lists tiny."""
    params = params_of_pool(recipe, engines, num_rows)
    values = {
        "sampling": f"{recipe.datasets[DATASET]} AS temperature, {params['top_p']} AS top_p, "
        f"{params['max_tokens']} AS max_tokens, '{params['teacher']}' AS teacher_fingerprint",
        "filters": f"unnest({list(FILTERS)}) AS filter, '{params['filter_version']}' AS filter_version",
        "scoring": f"'{params['student']}' AS student_fingerprint, "
        f"'{threshold_version(recipe)}' AS threshold_version, 100 AS num_sentences",
    }
    ids = f"""SELECT i, md5(i::VARCHAR) AS response_id, md5('p' || i // {NUM_CANDIDATES}) AS prompt_id,
        'batch' || (i // {ROWS_PER_BATCH}) AS batch FROM range({num_rows}) AS t(i)"""
    queries = [
        ("prompts", f"""SELECT prompt_id, batch, 'domain' || (i // {NUM_CANDIDATES} % 8) AS domain, 'q' AS question,
            'f' AS source_file, i AS source_line FROM ids WHERE i % {NUM_CANDIDATES} = 0"""),
        ("responses", f"""SELECT response_id, prompt_id, batch, i % {NUM_CANDIDATES} AS sample_index, i AS seed,
            {values['sampling']}, 'v' AS template_version, 'transformers' AS engine, 'float32' AS dtype, 't' AS text,
            [1] AS token_ids, [-0.5::FLOAT] AS logprobs, [0] AS offsets, false AS tool_call, 'stop' AS finish_reason
            FROM ids"""),
        ("response_verdicts", f"""SELECT response_id, batch, hash(response_id, filter) % 20 > 0 AS passed, filter,
            filter_version FROM (SELECT *, {values['filters']} FROM ids)"""),
        *[("response_scores", f"""SELECT response_id, batch, '{name}' AS score_name, {values['scoring']},
            hash(response_id, '{name}') % 10_000_000 / 1e7 AS score FROM ids""") for name in sorted(SCORES)],
    ]  # fmt: skip
    warehouse.migrate()
    with attach(warehouse.catalog) as connection:
        connection.execute(f"CREATE TEMP TABLE ids AS {ids}")
        for name, query in queries:
            connection.execute(f"INSERT INTO {name} BY NAME {query}")
        connection.execute("DROP TABLE temp.ids")


def timed(work: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def chosen(reading: Reading, policy: str, most: int) -> tuple[pl.DataFrame, list[object]]:
    """What the project selects, after comparing it with the plain query, and the table's row."""
    ours, seconds = timed(lambda: select(reading, Competition(policy, None), dict.fromkeys(DOMAINS, most)))
    naive, naive_seconds = timed(lambda: reading.read(RANKED.format(source=NAIVE[policy], most=most)))
    assert ours.equals(naive.select(ours.columns)), "the two queries select different rows"
    assert ours.height == len(DOMAINS) * most or ours.height < len(DOMAINS) * most < 4000
    ratio = against(naive_seconds / seconds, 1)
    return ours, [
        policy,
        seconds,
        f"{BARS[policy]:g}{'' if seconds < BARS[policy] else ', MISSED'}",
        naive_seconds,
        ratio,
    ]


def gather(reading: Reading, params: dict[str, object]) -> float:
    def gathered() -> pl.DataFrame:
        create_pool_table(reading, params)
        return reading.read("SELECT count(*) FROM pool")

    return timed(gathered)[1]


def main(num_rows: int) -> None:
    recipe = load_recipe("demo")
    recipe = recipe.model_copy(
        update={"generation": recipe.generation.model_copy(update={"num_candidates": NUM_CANDIDATES})}
    )
    most = num_rows // 200
    with tempfile.TemporaryDirectory() as home:
        warehouse, engines = Warehouse(home=home), Engines(home=home)
        fill(warehouse, recipe, engines, num_rows)
        with warehouse.reading() as reading:
            assert reading.read("SELECT current_setting('threads')").item() == 1
            gathering = gather(reading, params_of_pool(recipe, engines, num_rows))
            size = reading.read("SELECT count(*), count(DISTINCT prompt_id) FROM pool").row(0)
            rows, whole = [], []
            for policy in BARS:
                ours, row = chosen(reading, policy, most)
                rule = Competition(policy, None)
                control, control_seconds = timed(partial(draw_control, reading, ours, rule, recipe.seed))
                of_control, of_ours = (drawn["domain"].value_counts().sort("domain") for drawn in (control, ours))
                assert of_control.equals(of_ours)
                rows.append(row)
                whole.append([policy, gathering, row[1], gathering + float(str(row[1])), control_seconds])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"## Selection over {num_rows:,} scored responses\n")
    print(
        f"Pool of {size[0]:,} accepted responses to {size[1]:,} questions in {len(DOMAINS)} domains, {most:,} kept of"
    )
    print("each; one thread, CPU seconds; rows identical.\n")
    print(table(["policy", "ours, s", "bar, s", "`row_number`, s", "ratio"], rows))
    print("The whole query of the asset, and of the random control, whose rows come from the same pool:\n")
    print(table(["policy", "gather the pool, s", "select, s", "both, s", "draw the control, s"], whole))
    print(f"Peak memory of the process, the plain query included: {memory:.1f} GB.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_ROWS)
