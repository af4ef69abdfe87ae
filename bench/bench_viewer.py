"""Pages of `dasd view` over a million responses: Explore, filtered, sorted and searched, a response and its question.

    python bench/bench_viewer.py [HOME] [NUM_RESPONSES]

Rows are synthetic and of plausible size: a question has four responses of about 1,500 characters, each with nine
verdicts and the two scores that Explore shows. The other scores of a real home are not read, nor are its lists of
tokens, which are short here. Given a folder, the home is kept there and used again.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from results import table
from starlette.testclient import TestClient

from dasd_assets.rules.filters.catalogue import FILTERS, filter_version
from dasd_assets.rules.scores import threshold_version
from dasd_assets.viewer.access import Access
from dasd_assets.viewer.app import create_app
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.connections import attach
from dasd_resources.storage.lake import Lake

NUM_RESPONSES = 1_000_000
CANDIDATES = 4
NUM_BATCHES = 20
REPEATS = 5
BAR = 1.0  # seconds a page
STUDENT = "5" * 16
SAID = "So far we have {0}. Adding {1} makes the total {2}, which is what the next term needs. "
PAGES = {
    "Explore": "/explore",
    "of one batch": "/explore?batch=batch_07",
    "wrong answers, longest first": "/explore?verdict=wrong&sort=length",
    "a range of scores": "/explore?score_min=0.5&score_max=0.6&temperature=1.0",
    "the last page of all": "/explore?page={last}",
    "a text, searched before": "/explore?q=total+4711",
}


def main(home: Path, num: int) -> None:
    lake = Lake(home=str(home))
    if not lake.catalog.exists():
        fill(lake, num)
    recipe = load_recipe("demo", home)
    viewer = Viewer(lake, recipe)
    client = TestClient(create_app(viewer, Access.to("127.0.0.1")), base_url="http://127.0.0.1:3001")
    reading = seconds(viewer.rows.refresh)
    searching = seconds(lambda: client.get(PAGES["a text, searched before"]).raise_for_status())
    identity, question = lake.read("SELECT response_id, prompt_id FROM responses LIMIT 1").row(0)
    pages = PAGES | {"a response": f"/response/{identity}", "its question": f"/question/{question}"}
    rows = [[name, *timed(client, path.format(last=num // 50))] for name, path in pages.items()]
    slowest = max(float(str(row[1])) for row in rows)
    print(f"## `dasd view` over {num:,} responses\n")
    print(
        "Seconds, and in brackets the CPU's, which other work beside it does not change. At the start, or when a newer"
    )
    print(f"snapshot is read beside the pages: {shown(reading)}. The first search for a text, which reads all texts:")
    print(f"{shown(searching)}. Median of {REPEATS} requests:\n")
    print(table(["page", "median, s", "CPU, s"], rows))
    print(f"\nThe slowest median is {slowest:.2f} s (bar {BAR:g} s{'' if slowest <= BAR else ', MISSED'}).")


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Of the clock, and of all the process's threads on the CPU."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def shown(took: tuple[float, float]) -> str:
    return f"{took[0]:.1f} s ({took[1]:.1f})"


def timed(client: TestClient, path: str) -> tuple[float, float]:
    took = [seconds(lambda: client.get(path).raise_for_status()) for _ in range(REPEATS)]
    return round(median(wall for wall, _ in took), 2), round(median(cpu for _, cpu in took), 2)


def fill(lake: Lake, num: int) -> None:
    """A home with what the pages read; ids are hashes, numbers follow from the row's own."""
    recipe = load_recipe("demo")
    lake.migrate()
    params = {
        "filters": list(FILTERS),
        "filter_version": filter_version(recipe, STUDENT),
        "threshold_version": threshold_version(recipe),
        "temperatures": list(recipe.generation.temperatures),
    }
    with attach(lake.catalog) as connection:
        connection.execute("RESET threads")
        connection.execute(_STUDENT)
        for batch in range(NUM_BATCHES):
            first, last = num * batch // NUM_BATCHES, num * (batch + 1) // NUM_BATCHES
            print(f"rows of batch {batch + 1} of {NUM_BATCHES} …", file=sys.stderr, flush=True)
            connection.execute(_ROWS, {"first": first, "last": last, "temperatures": params["temperatures"]})
            for query in _INSERTS:
                named = {name: value for name, value in params.items() if f"${name}" in query}
                connection.execute(query, {**named, "batch": f"batch_{batch:02d}"})
            connection.execute("DROP TABLE memory.main.made")


_STUDENT = f"""INSERT INTO checkpoints BY NAME SELECT '{STUDENT}' AS checkpoint_id, 'demo' AS recipe, 'student' AS name,
    0 AS stage, '' AS path, '' AS content_hash, now() AS materialized_at"""
_ROWS = f"""CREATE TABLE memory.main.made AS SELECT
        md5('r' || i) AS response_id, md5('q' || i // {CANDIDATES}) AS prompt_id,
        (i % {CANDIDATES})::INTEGER AS sample_index, i, hash(i) % 1000 AS h,
        list_extract($temperatures, 1 + i % len($temperatures)) AS temperature
    FROM range($first, $last) t(i)"""
_INSERTS = (
    f"""INSERT INTO prompts BY NAME SELECT DISTINCT prompt_id, $batch AS batch,
        ['math', 'code', 'science'][1 + (i // {CANDIDATES}) % 3] AS domain,
        'What is the sum number ' || i // {CANDIDATES} || '?' AS question, '42' AS reference_answer,
        'exact' AS verifier, '{{}}' AS metadata, 'a.jsonl' AS source_file, i // {CANDIDATES} AS source_line,
        prompt_id AS question_key, 'en' AS language FROM memory.main.made""",
    f"""INSERT INTO responses BY NAME SELECT response_id, prompt_id, $batch AS batch, temperature, 1.0 AS top_p,
        256 AS max_tokens, sample_index, i AS seed, 'teacher' AS teacher_fingerprint, 'v' AS template_version,
        'vllm' AS engine, 'bfloat16' AS dtype, repeat(format('{SAID}', i, h, i + h), 17) AS text,
        range(30)::INTEGER[] AS token_ids, list_transform(range(30), lambda x: -x / 90.0)::FLOAT[] AS logprobs,
        list_transform(range(30), lambda x: 50 * x)::INTEGER[] AS offsets, FALSE AS tool_call, 'stop' AS finish_reason,
        'sampled' AS logprob_origin FROM memory.main.made""",
    """INSERT INTO response_verdicts BY NAME SELECT response_id, $batch AS batch, filter,
        NOT (filter = 'correctness' AND h % 4 = 0 OR filter = 'repetition' AND h % 50 = 0) AS passed,
        CASE WHEN filter = 'length' THEN (200 + h)::DOUBLE END AS value, $filter_version AS filter_version
        FROM memory.main.made, (SELECT unnest($filters::VARCHAR[]) AS filter)""",
    f"""INSERT INTO response_scores BY NAME SELECT response_id, $batch AS batch, '{STUDENT}' AS student_fingerprint,
        score_name, (h + 0.5 * (i % 7)) / 1004.0 AS score, 20 AS num_sentences, $threshold_version AS threshold_version
        FROM memory.main.made, (SELECT unnest(['teacher_share', 'mean_probability_token']) AS score_name)""",
)


if __name__ == "__main__":
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else NUM_RESPONSES
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve(), wanted)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder) / "home", wanted)
