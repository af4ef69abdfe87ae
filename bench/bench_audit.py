"""Audits over a million responses: each answer in a warm process, each command as a user types it, and a naive scan.

    python bench/bench_audit.py [HOME] [NUM_RESPONSES]

The home is one batch made by a run on the fake engine, multiplied with new questions and true ids, then selected from,
trained on and evaluated as any other; `dasd audit verify`, of a sample, must find nothing wrong with it. Given a
folder, the home is kept there and used again. The naive way looks for the same rows in every data file, by polars with
its predicates pushed down to them.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median

import polars as pl
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from bench_rebuild import copy_events, land_copies, seconds
from conftest import Project, change, prompt_rows
from results import against, table

from dasd_assets.audit.checkpoint import audit_checkpoint
from dasd_assets.audit.outdated import explained
from dasd_assets.audit.prompt import downstream, prompt_record
from dasd_assets.audit.response import audit_example, audit_response
from dasd_assets.audit.verify import verify
from dasd_assets.records.partitions import batches
from dasd_assets.rules.ids import RESPONSE_ID_FIELDS, response_id, seed_of
from dasd_resources.landing.question_identity import question_key
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.connections import AUTHOR, attach
from dasd_resources.storage.lake import Reading

ROOT = Path(__file__).resolve().parents[1]
NUM_RESPONSES = 1_000_000
NUM_BATCHES = 20
NUM_QUESTIONS = 50  # of the batch that is multiplied
BUDGET = 20_000  # responses a domain and temperature
VERIFIED = 2_000  # rows of each table that `verify` recomputes here: all of them would take hours
BAR = 2.0  # seconds, of the command as typed
SCORED = ("student_logprobs", "sentence_probabilities", "sentence_types", "response_scores")
COPIED = ("responses", *SCORED)
OF_STUDENT = ("student_tokens", "response_verdicts")  # they depend on the question's tokens
OF_RESPONSE = (*COPIED, *OF_STUDENT, "selected_responses", "sft_examples", "checkpoint_examples")


@dataclass
class Question:
    """An audit: its arguments, its answer in this process, and the naive way to the same rows."""

    words: list[str]
    answer: Callable[[], object]
    naive: Callable[[], object]


def main(folder: Path, num_responses: int) -> None:
    project = home(folder, num_responses)
    rows = [measured(project, name, asked) for name, asked in questions(project).items()]
    took = seconds(lambda: check(project))
    print(page(project, rows, took))


def check(project: Project) -> None:
    faults = [*map(str, verify(project.warehouse, VERIFIED))]
    assert faults == [], "\n".join(faults)


def home(folder: Path, num_responses: int) -> Project:
    """The multiplied home; a finished one is taken as it is."""
    project = Project(folder, recipe())
    if not (folder / "recipe.yaml").exists():
        project.land("first.jsonl", prompt_rows(0, NUM_QUESTIONS))
        project.run()
        reported(f"{num_responses:,} responses", lambda: multiply(project, num_responses))
        reported("selection, datasets, checkpoints", project.run)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(json.loads(project.recipe.model_dump_json())))
    return project


def reported(what: str, work: Callable[[], object]) -> None:
    print(f"{what} in {seconds(work):.0f} s", file=sys.stderr, flush=True)


def recipe() -> Recipe:
    """The demo's, with as many candidates as the multiplied home has, and few rollouts and held-out answers."""
    chosen = load_recipe("demo")
    budgets = {name: dict.fromkeys(("math", "sums"), BUDGET) for name in chosen.datasets}
    for path, value in {
        "name": "million",
        "generation.num_candidates": 2,
        "selection.budgets": budgets,
        "mixed_policy.num_questions": 500,
        "evaluation.samples_per_question": 1,
        "evaluation.temperatures": [1.0],
    }.items():
        chosen = change(chosen, path, value)
    return chosen


def multiply(project: Project, num_responses: int) -> None:
    """Copy the rows of the one batch there is, its events, and a landed line for each new batch."""
    with project.instance() as instance:
        [first] = batches(instance)
        keys = list(land_copies(project.home / "prompts", NUM_BATCHES - 1))
        instance.add_dynamic_partitions("prompt_batch", keys)
    prompts, responses = new_ids(project, keys, num_responses)
    with attach(project.warehouse.catalog) as connection:
        connection.register("new_prompts", prompts)
        connection.register("new_responses", responses)
        for batch in keys:
            connection.execute("BEGIN")
            for statement in copies():
                connection.execute(statement, {"batch": batch, "first": first})
            connection.execute("CALL dasd.set_commit_message($author, 'bench')", {"author": AUTHOR})
            connection.execute("COMMIT")
    copy_events(project.home / "dagster" / "history" / "runs" / "index.db", first, keys)


def copies() -> Iterator[str]:
    yield """INSERT INTO prompts SELECT p.* REPLACE (n.prompt_id AS prompt_id, n.question AS question, n.batch AS batch,
            n.prompt_id AS question_key)
        FROM prompts p JOIN new_prompts n ON n.old = p.prompt_id WHERE n.batch = $batch AND p.batch = $first"""
    changed = "n.response_id AS response_id, n.batch AS batch"
    for name in COPIED:
        more = ", n.prompt_id AS prompt_id, n.seed AS seed" if name == "responses" else ""
        yield f"""INSERT INTO {name} SELECT r.* REPLACE ({changed}{more})
            FROM {name} r JOIN new_responses n ON n.old = r.response_id WHERE n.batch = $batch AND r.batch = $first"""
    # The question is longer by its sheet's number, and so is what the student has of it and `length` has counted.
    of_new = "JOIN new_responses n ON n.old = t.response_id JOIN new_prompts q ON q.prompt_id = n.prompt_id"
    added = "len(q.prompt_ids) - t.num_prompt_tokens"
    yield f"""INSERT INTO student_tokens SELECT t.* REPLACE ({changed}, len(q.prompt_ids) AS num_prompt_tokens,
            q.prompt_ids || t.token_ids[t.num_prompt_tokens + 1 :] AS token_ids, t.num_tokens + {added} AS num_tokens)
        FROM student_tokens t {of_new} WHERE n.batch = $batch AND q.batch = $batch AND t.batch = $first"""
    yield f"""INSERT INTO response_verdicts SELECT r.* REPLACE ({changed},
            r.value + CASE filter WHEN 'length' THEN {added} ELSE 0 END AS value)
        FROM response_verdicts r JOIN student_tokens t USING (response_id) {of_new}
        WHERE n.batch = $batch AND q.batch = $batch AND t.batch = $first AND r.batch = $first"""


def new_ids(project: Project, keys: list[str], num_responses: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(old, batch, question, prompt_id, prompt_ids) and (old, batch, prompt_id, response_id, seed) of every copy.

    With true ids, and the tokens that the student has of the question.
    """
    student = project.engines.find(project.recipe.student, "student.model").chat
    system_prompt = project.recipe.teacher.system_prompt
    originals = project.read("SELECT * FROM prompts").to_dicts()
    made = project.read(
        "SELECT * EXCLUDE (text, token_ids, logprobs, offsets, num_tokens, mean_logprob) FROM responses"
    ).to_dicts()
    per_batch = ceil(num_responses / (len(keys) * len(made)))
    prompts, responses = [], []
    for batch_number, batch in enumerate(keys):
        for copy in range(per_batch):
            new = {}
            for row in originals:
                question = f"{row['question']} (Sheet {batch_number * per_batch + copy}.)"
                new[row["prompt_id"]] = question_key(question, row["system_prompt"])
                prompt_ids = student.prompt_ids(question, row["system_prompt"])
                prompts.append((row["prompt_id"], batch, question, new[row["prompt_id"]], prompt_ids))
            for row in made:
                key = {**row, "prompt_id": new[row["prompt_id"]], "system_prompt": system_prompt}
                identity = response_id({name: key[name] for name in RESPONSE_ID_FIELDS})
                responses.append((row["response_id"], batch, key["prompt_id"], identity, seed_of(identity)))
    return (
        pl.DataFrame(prompts, ["old", "batch", "question", "prompt_id", "prompt_ids"], orient="row"),
        pl.DataFrame(responses, ["old", "batch", "prompt_id", "response_id", "seed"], orient="row"),
    )


def questions(project: Project) -> dict[str, Question]:
    """Every audit, of rows for which it has the most to look up."""
    one = {name: project.read(query).item() for name, query in ROWS.items()}
    lake, files = project.warehouse, data_files(project)

    def ask(answer: Callable[[Reading], object]) -> Callable[[], object]:
        def answered() -> object:
            with lake.reading() as reading:
                return answer(reading)

        return answered

    def scan(column: str, value: str, tables: tuple[str, ...]) -> Callable[[], object]:
        return lambda: [pl.scan_parquet(files[t]).filter(pl.col(column) == value).collect() for t in tables]

    def response(identity: str, words: list[str]) -> Question:
        tables = OF_RESPONSE
        return Question(words, ask(lambda r: audit_response(r, identity)), scan("response_id", identity, tables))

    chosen, outranked, beaten = one["chosen"], one["outranked"], one["beaten"]
    example, checkpoint, prompt = one["example"], one["checkpoint"], one["prompt"]
    of_prompt = ("prompts", "responses", "student_rollouts", "selected_responses", "checkpoint_examples")
    found = {
        "response, chosen": response(chosen, ["response", chosen]),
        "response, beyond the budget": response(outranked, ["response", outranked]),
        "response, not the best": response(beaten, ["response", beaten]),
        "example": Question(
            ["example", example],
            ask(lambda r: audit_example(r, example)),
            scan("response_id", one["response of example"], OF_RESPONSE),
        ),
        "checkpoint": Question(
            ["checkpoint", checkpoint],
            ask(lambda r: audit_checkpoint(lake, r, checkpoint)),
            scan("checkpoint_id", checkpoint, ("checkpoint_examples",)),
        ),
        "prompt --downstream": Question(
            ["prompt", prompt, "--downstream"],
            ask(lambda r: (prompt_record(r, prompt), downstream(r, prompt))),
            scan("prompt_id", prompt, of_prompt),
        ),
        "staleness": Question(
            ["staleness", "--recipe", str(project.home / "recipe.yaml")],
            lambda: stale_by_us(project),
            lambda: stale_by_dagster(project),
        ),
    }
    return found


ROWS = {
    "chosen": "SELECT max(response_id) FROM selected_responses WHERE policy = 'das' AND dataset = 't100'",
    # the best of its question, and the last of all: every other one is above it
    "outranked": """SELECT response_id FROM (SELECT r.response_id, r.prompt_id, s.score
            FROM responses r JOIN response_scores s USING (response_id)
            WHERE r.temperature = 1.0 AND s.score_name = (SELECT any_value(score_name) FROM selected_responses)
            QUALIFY row_number() OVER (PARTITION BY r.prompt_id ORDER BY s.score DESC, r.response_id) = 1)
        ORDER BY score, response_id DESC LIMIT 1""",
    "beaten": """SELECT max(r.response_id) FROM responses r JOIN responses c USING (prompt_id, temperature)
            JOIN selected_responses s ON s.response_id = c.response_id
        WHERE s.policy = 'das' AND s.dataset = 't100' AND r.response_id <> c.response_id""",
    "example": "SELECT max(example_id) FROM sft_examples WHERE policy = 'das' AND dataset = 't060'",
    "response of example": """SELECT arg_max(response_id, example_id) FROM sft_examples
        WHERE policy = 'das' AND dataset = 't060'""",
    "checkpoint": "SELECT max(checkpoint_id) FROM checkpoints WHERE name = 't060'",
    "prompt": "SELECT max(prompt_id) FROM selected_responses WHERE policy = 'das'",
}


def data_files(project: Project) -> dict[str, list[str]]:
    """Table -> its data files, of the tables that have any."""
    names = {*OF_RESPONSE, "prompts", "student_rollouts"}
    query = "SELECT data_file FROM ducklake_list_files('dasd', '{}')"
    return {name: project.read(query.format(name))["data_file"].to_list() for name in names}


def stale_by_us(project: Project) -> None:
    with project.instance() as instance:
        found = explained(instance, project.definitions, project.recipe, project.engines, project.warehouse)
    assert found["stale"] == [], found["stale"][:3]


def stale_by_dagster(project: Project) -> None:
    """Dagster's own staleness, of every asset and batch."""
    with project.instance() as instance:
        graph = project.definitions.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        for key in graph.materializable_asset_keys:
            for batch in batches(instance) if graph.get(key).is_partitioned else [None]:
                resolver.get_status(key, batch)


def measured(project: Project, name: str, asked: Question) -> tuple[object, ...]:
    asked.answer()
    warm = median(seconds(asked.answer) for _ in range(3))
    typed = median(seconds(lambda: command(project, asked.words)) for _ in range(3))
    naive = median(seconds(asked.naive) for _ in range(3))
    return name, warm, typed, naive, naive / warm, against(BAR / typed, 1)


def command(project: Project, words: list[str]) -> None:
    """`dasd audit …` in a new process."""
    subprocess.run(
        [sys.executable, "-m", "dasd_assets.cli", "audit", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env={"DASD_HOME": str(project.home), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )


def page(project: Project, rows: list[tuple[object, ...]], verified: float) -> str:
    counts = {name: project.count(name) for name in ("responses", "sentence_probabilities", "sft_examples")}
    head = ["audit", "answer, s", "as typed, s", "naive, s", "naive / answer", f"{BAR:g} s / as typed"]
    return f"""## Audits

{counts["responses"]:,} responses with {counts["sentence_probabilities"]:,} sentences in {NUM_BATCHES} batches, and
{counts["sft_examples"]:,} training examples. *Answer*: in a warm process; *as typed*: the command in a new one, with
Python's start; *naive*: the same rows from every data file by polars; for staleness, Dagster's own.

{table(head, rows)}
`dasd audit verify --sample {VERIFIED}` read every data file, looked up every reference, recomputed {VERIFIED:,}
rows of each table, and found nothing wrong: {verified:.0f} s."""


if __name__ == "__main__":
    started = time.monotonic()
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else NUM_RESPONSES
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve(), wanted)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary) / "home", wanted)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
