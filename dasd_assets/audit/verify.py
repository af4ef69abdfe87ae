"""Recompute what can be recomputed, and name every row, file or folder that disagrees.

Files first: a table with a damaged file is told and left out of the rest. Then keys and references (SQL), lists and
hashes (rows streamed, a few thousand at a time), sentences and scores (again from tokens and offsets, by the code
that made them), and checkpoints (weights, snapshots, the rows they saw). Rows of earlier releases that do not hold all
that their id is the hash of are only checked as keys, and counted. Memory is bounded by a chunk of rows, or by the
sentences of one batch.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import polars as pl

from dasd_assets.audit.checkpoint import audit_checkpoint, document
from dasd_assets.audit.files import Fault, file_faults, tables
from dasd_assets.audit.prompt import Record
from dasd_assets.dataset_ids import example_id, mixed_selection_id, selection_id, sft_dataset_id
from dasd_assets.divergence import response_scores
from dasd_assets.evaluation import DECISIVE as EVALUATION
from dasd_assets.evaluation import evaluation_id
from dasd_assets.generations import DECISIVE as RESPONSE
from dasd_assets.generations import response_id, seed_of
from dasd_assets.mixed_policy.continuations import DECISIVE as CONTINUATION
from dasd_assets.mixed_policy.continuations import continuation_id
from dasd_assets.probabilities import sentence_table
from dasd_assets.sentences import SEGMENTER_VERSION
from dasd_assets.training import MIXED
from dasd_resources.checkpoint import CheckpointError, published
from dasd_resources.content_hash import content_hash
from dasd_resources.lake import Lake, Reading
from dasd_resources.landing import prompt_id

TOLERANCE = 1e-6
CHUNK = 2000
NUM_TOLD = 20  # faults named of each check; the others are counted
AGAIN = "delete the row and run `dasd run`, or restore a backup"
KEYS = {
    "prompts": "prompt_id",
    "responses": "response_id",
    "response_verdicts": "response_id, filter, filter_version",
    "student_logprobs": "response_id, student_fingerprint",
    "sentence_probabilities": "response_id, student_fingerprint, segmenter_version, sentence_index",
    "sentence_types": "response_id, student_fingerprint, threshold_version, sentence_index",
    "response_scores": "response_id, student_fingerprint, threshold_version, score_name",
    "selected_responses": "recipe, dataset, policy, response_id",
    "sft_examples": "recipe, dataset, policy, example_id",
    "checkpoints": "checkpoint_id, recipe, stage",
    "checkpoint_examples": "checkpoint_id, example_id",
    "student_rollouts": "rollout_id",
    "prefix_cuts": "rollout_id, cut_version",
    "teacher_continuations": "continuation_id",
    "continuation_verdicts": "continuation_id, filter, filter_version",
    "evaluations": "evaluation_id",
    "withdrawn_prompts": "prompt_id",
}
REFERENCES = (  # table, column, the table it must be in; the column has the same name there unless given
    ("responses", "prompt_id", "prompts", "prompt_id"),
    ("response_verdicts", "response_id", "responses", "response_id"),
    ("student_logprobs", "response_id", "responses", "response_id"),
    ("sentence_probabilities", "response_id", "student_logprobs", "response_id"),
    ("sentence_types", "response_id", "sentence_probabilities", "response_id"),
    ("response_scores", "response_id", "sentence_types", "response_id"),
    ("selected_responses", "response_id", "responses", "response_id"),
    ("sft_examples", "response_id", "responses", "response_id"),
    ("sft_examples", "continuation_id", "teacher_continuations", "continuation_id"),
    ("checkpoints", "parent_checkpoint_id", "checkpoints", "checkpoint_id"),
    ("checkpoint_examples", "checkpoint_id", "checkpoints", "checkpoint_id"),
    ("student_rollouts", "checkpoint_id", "checkpoints", "checkpoint_id"),
    ("student_rollouts", "reference_response_id", "responses", "response_id"),
    ("prefix_cuts", "rollout_id", "student_rollouts", "rollout_id"),
    ("teacher_continuations", "rollout_id", "student_rollouts", "rollout_id"),
    ("continuation_verdicts", "continuation_id", "teacher_continuations", "continuation_id"),
    ("evaluations", "checkpoint_id", "checkpoints", "checkpoint_id"),
)
_TOKENS = "len(token_ids) <> len(logprobs) OR len(token_ids) <> len(offsets)"
_VALUES = "NOT coalesce(list_max(logprobs) <= 0 AND isfinite(list_min(logprobs)), len(logprobs) = 0)"
_OFFSETS = "coalesce(list_max(offsets) >= length(text) OR list_min(offsets) < -1, FALSE)"
CONDITIONS = (  # table, its id, what is wrong where the condition holds
    *[
        (table, key, what, condition)
        for table, key in (
            ("responses", "response_id"),
            ("student_logprobs", "response_id"),
            ("student_rollouts", "rollout_id"),
            ("teacher_continuations", "continuation_id"),
        )
        for what, condition in (
            ("its token ids, logprobs and offsets differ in number", _TOKENS),
            ("it has a logprob that is above 0 or not finite", _VALUES),
        )
    ],
    ("responses", "response_id", "an offset lies outside its text", _OFFSETS),
    ("student_rollouts", "rollout_id", "an offset lies outside its text", _OFFSETS),
    ("sft_examples", "example_id", "its token ids and labels differ in number", "len(input_ids) <> len(labels)"),
)


def verify(lake: Lake, sample: int | None = None, say: Callable[[str], None] = lambda line: None) -> Iterator[Fault]:
    """Everything that disagrees. sample: of the rows of a table that are recomputed, only this many."""
    with lake.reading() as reading:
        known = tables(reading)
    say(f"files of {len(known)} tables")
    damaged = set()
    for fault in file_faults(lake, known):
        damaged.add(fault.table)
        yield fault
    usable = set(known) - damaged
    with lake.reading(all_cores=True) as reading:
        for title, needs, check in _checks(lake, reading, sample, say):
            if needs <= usable:
                say(title)
                yield from _first(check())


def _first(faults: Iterator[Fault]) -> Iterator[Fault]:
    """So many of a check's faults, and the number of the others."""
    last = None
    for last in islice(faults, NUM_TOLD):
        yield last
    num_more = sum(1 for _ in faults)
    if last is not None and num_more:
        yield Fault(last.table, f"{num_more:,} more rows", "the same", last.cure)


def _checks(
    lake: Lake, reading: Reading, sample: int | None, say: Callable[[str], None]
) -> Iterator[tuple[str, set[str], Callable[[], Iterator[Fault]]]]:
    """Title, tables read, and the check."""
    for table, key in KEYS.items():
        yield f"keys of {table}", {table}, lambda t=table, k=key: _doubled(reading, t, k)  # type: ignore[misc]
    for reference in REFERENCES:
        needs = {reference[0], reference[2]}
        yield f"{reference[0]}.{reference[1]}", needs, lambda r=reference: _orphans(reading, *r)  # type: ignore[misc]
    for condition in CONDITIONS:
        yield f"lists of {condition[0]}", {condition[0]}, lambda c=condition: _wrong(reading, *c)  # type: ignore[misc]
    for table, columns, made in _HASHED:
        title = f"ids of {table}"
        yield title, {table}, lambda t=table, c=columns, m=made: _rehashed(reading, t, c, m, sample, say)  # type: ignore[misc]
    yield "ids of responses", {"responses", "checkpoints"}, lambda: _responses(reading, sample, say)
    yield "datasets", {"sft_examples"}, lambda: _datasets(reading)
    yield "selections", {"selected_responses"}, lambda: _selections(reading)
    yield "examples of checkpoints", {"checkpoints", "checkpoint_examples"}, lambda: _num_examples(reading)
    needs = {"responses", "student_logprobs", "sentence_probabilities"}
    yield "sentences", needs, lambda: _sentences(lake, reading, sample)
    yield "scores", {"sentence_probabilities", "sentence_types", "response_scores"}, lambda: _scores(reading, sample)
    yield "checkpoints", {"checkpoints", "sft_examples"}, lambda: _checkpoints(lake, reading)


def _doubled(reading: Reading, table: str, key: str) -> Iterator[Fault]:
    query = f"SELECT {key}, count(*) AS num FROM {table} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL"
    for row in reading.read(query).iter_rows(named=True):
        name = " ".join(str(value) for column, value in row.items() if column != "num")
        yield Fault(table, name, f"there are {row['num']} rows of this key", "delete all but one of them")


def _orphans(reading: Reading, table: str, column: str, parent: str, parent_column: str) -> Iterator[Fault]:
    """Rows whose parent is missing; a withdrawn question is no missing one."""
    withdrawn = "UNION ALL SELECT prompt_id FROM withdrawn_prompts" if parent == "prompts" else ""
    query = f"""SELECT DISTINCT {column} AS id FROM {table} WHERE {column} IS NOT NULL AND {column} NOT IN (
        SELECT {parent_column} FROM {parent} {withdrawn}) ORDER BY id"""
    for row in reading.read(query).iter_rows(named=True):
        yield Fault(table, f"{column} {row['id']}", f"{parent} has no such row", AGAIN)


def _wrong(reading: Reading, table: str, key: str, what: str, condition: str) -> Iterator[Fault]:
    query = f"SELECT {key} AS id FROM {table} WHERE {condition} ORDER BY id"
    for row in reading.read(query).iter_rows(named=True):
        yield Fault(table, row["id"], what, AGAIN)


def _rehashed(
    reading: Reading,
    table: str,
    columns: str,
    made: Callable[[Record], Mapping[str, object]],
    sample: int | None,
    say: Callable[[str], None],
) -> Iterator[Fault]:
    """Rows whose ids or seeds are not those that their content gives.

    made: row -> the values it should have; none for a row that does not hold what would be needed.
    """
    key, num_unknown = columns.split(", ")[0], 0
    some = "" if sample is None else f" ORDER BY md5({key}) LIMIT {sample}"
    for chunk in reading.stream(f"SELECT {columns} FROM {table}{some}", {}, CHUNK):
        for row in chunk.iter_rows(named=True):
            again = made(row)
            num_unknown += KEYS[table] == key and key not in again
            for name, value in again.items():
                if row[name] != value:
                    yield Fault(table, str(row[key]), f"its {name} is {row[name]}, its content gives {value}", AGAIN)
    if num_unknown:
        say(f"  {num_unknown:,} rows of {table} are of an earlier release, which did not record all that made their id")


def _responses(reading: Reading, sample: int | None, say: Callable[[str], None]) -> Iterator[Fault]:
    """Ids of responses; the teacher's system prompt is in the recipe that its model was registered with."""
    query = "SELECT checkpoint_id, recipe_document FROM checkpoints WHERE stage = 'teacher'"
    rows = reading.read(query).to_dicts()
    recipes = {row["checkpoint_id"]: document(row, "recipe_document", []) for row in rows}
    prompts = {
        key: recipe["teacher"]["system_prompt"] for key, recipe in recipes.items() if recipe and "teacher" in recipe
    }

    def made(row: Record) -> Mapping[str, object]:
        seed = {"seed": seed_of(row["response_id"])}
        if row["teacher_fingerprint"] not in prompts:
            return seed
        again = {**row, "system_prompt": prompts[row["teacher_fingerprint"]]}
        return {"response_id": response_id(again), **seed}

    columns = ", ".join(["response_id", "seed", *[name for name in RESPONSE if name != "system_prompt"]])
    yield from _rehashed(reading, "responses", columns, made, sample, say)


def _rollout(row: Record) -> Mapping[str, object]:
    parts = ("checkpoint_id", "prompt_id", "reference_response_id", "max_tokens", "temperature", "top_p")
    identity = content_hash([row[part] for part in parts])[:32]
    return {"rollout_id": identity, "seed": seed_of(identity)}


def _continuation(row: Record) -> Mapping[str, object]:
    seed = {"seed": seed_of(row["continuation_id"])}
    return seed if row["max_response_tokens"] is None else {"continuation_id": continuation_id(row), **seed}


def _evaluation(row: Record) -> Mapping[str, object]:
    return {} if row["template_version"] is None else {"evaluation_id": evaluation_id(row)}


_PROMPT = "prompt_id, question, system_prompt, domain, verifier, reference_answer"
_HASHED: tuple[tuple[str, str, Callable[[Record], Mapping[str, object]]], ...] = (
    ("prompts", _PROMPT, lambda r: {"prompt_id": prompt_id(*[r[c] for c in _PROMPT.split(", ")[1:]])}),
    (
        "student_rollouts",
        "rollout_id, checkpoint_id, prompt_id, reference_response_id, max_tokens, temperature, top_p, seed",
        _rollout,
    ),
    ("prefix_cuts", "rollout_id, seed", lambda r: {"seed": seed_of(f"cut {r['rollout_id']}")}),
    ("teacher_continuations", ", ".join(["continuation_id", "seed", *CONTINUATION]), _continuation),
    ("evaluations", ", ".join(["evaluation_id", "template_version", *EVALUATION]), _evaluation),
    (
        "sft_examples",
        "example_id, response_id, continuation_id, input_ids, labels",
        lambda r: {"example_id": example_id(r, r)},
    ),
)


def _datasets(reading: Reading) -> Iterator[Fault]:
    groups = reading.read(
        "SELECT DISTINCT recipe, dataset, policy, dataset_id FROM sft_examples ORDER BY ALL"
    ).to_dicts()
    for row in groups:
        key = {name: row[name] for name in ("recipe", "dataset", "policy")}
        query = """SELECT example_id FROM sft_examples
            WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy ORDER BY example_id"""
        found = sft_dataset_id(**key, example_ids=reading.read(query, key)["example_id"])
        if found != row["dataset_id"]:
            name, what = " ".join(key.values()), f"its dataset_id is {row['dataset_id']}, its examples give {found}"
            yield Fault("sft_examples", name, what, f"materialize sft_dataset_{row['dataset']} again")


def _selections(reading: Reading) -> Iterator[Fault]:
    """Ids of selected datasets, from the responses in them and the rule that chose these."""
    query = """SELECT recipe, dataset, policy, selection_version, dataset_id,
            list(response_id ORDER BY response_id) AS ids
        FROM selected_responses GROUP BY ALL ORDER BY ALL"""
    for row in reading.read(query).iter_rows(named=True):
        dataset, ids = row["dataset"], row["ids"]
        found = (
            mixed_selection_id(MIXED, row["recipe"], ids)
            if dataset == MIXED
            else selection_id(dataset, row["policy"], row["selection_version"], ids)
        )
        if found != row["dataset_id"]:
            name, asset = f"{row['recipe']} {row['dataset']} {row['policy']}", _selected_by(row)
            what = f"its dataset_id is {row['dataset_id']}, its {len(row['ids']):,} responses give {found}"
            yield Fault("selected_responses", name, what, f"materialize {asset} again")


def _selected_by(row: Record) -> str:
    """The asset that wrote a selection."""
    if row["dataset"] == MIXED:
        return "mixed_policy_dataset"
    return "random_responses" if row["policy"] == "random" else f"selected_responses_{row['dataset']}"


def _num_examples(reading: Reading) -> Iterator[Fault]:
    """Whether `checkpoint_examples`, which a takedown reads, has all that a checkpoint was trained on."""
    for row in reading.read(_NUM_EXAMPLES).iter_rows(named=True):
        what = f"checkpoint_examples has {row['found']:,} rows of it, the record says {row['num_examples']:,} examples"
        if not row["found"]:
            what = "checkpoint_examples has no row of it (an earlier release trained it): a takedown cannot name it"
        cure = f"materialize checkpoint_{row['stage']} again, which trains nothing as long as its dataset is the same"
        yield Fault("checkpoints", row["checkpoint_id"], what, cure)


_NUM_EXAMPLES = """SELECT c.checkpoint_id, c.stage, c.num_examples, count(e.example_id) AS found
    FROM (SELECT DISTINCT checkpoint_id, stage, num_examples FROM checkpoints WHERE dataset IS NOT NULL) c
        LEFT JOIN checkpoint_examples e USING (checkpoint_id)
    GROUP BY ALL HAVING count(e.example_id) <> c.num_examples ORDER BY ALL"""


def _sentences(lake: Lake, reading: Reading, sample: int | None) -> Iterator[Fault]:
    """Sentences split and summed again, for both models: spans, counts and sums must be the stored ones."""
    groups = reading.read("SELECT DISTINCT batch, student_fingerprint AS student FROM student_logprobs ORDER BY ALL")
    some = "" if sample is None else f" ORDER BY md5(response_id) LIMIT {_part(sample, groups)}"
    for key in groups.iter_rows(named=True):
        with lake.reading() as streaming:
            for chunk in streaming.stream(_TOKEN_LISTS + some, key, CHUNK):
                params = {**key, "ids": chunk["response_id"].to_list(), "segmenter": SEGMENTER_VERSION}
                for response in _changed_sentences(reading.read(_STORED, params), chunk):
                    what = "its sentences are not those that its text, tokens and logprobs give"
                    yield Fault("sentence_probabilities", f"response_id {response}", what, AGAIN)


def _changed_sentences(stored: pl.DataFrame, responses: pl.DataFrame) -> list[str]:
    """Of the responses that have sentences, those whose sentences come out otherwise."""
    again = sentence_table(responses.filter(pl.col("response_id").is_in(stored["response_id"].unique().implode())))
    both = stored.join(again, on=["response_id", "sentence_index"], how="full", coalesce=True, suffix="_again")
    same = [pl.col(c).eq_missing(pl.col(f"{c}_again")) for c in _COUNTS]
    same += [((pl.col(c) - pl.col(f"{c}_again")).abs() <= TOLERANCE).fill_null(False) for c in _SUMS]
    return both.filter(~pl.all_horizontal(same))["response_id"].unique().sort().to_list()


_COUNTS = ("start", "stop", "teacher_num_tokens", "student_num_tokens")
_SUMS = ("teacher_sum_logprob", "student_sum_logprob")
_TOKEN_LISTS = """SELECT r.response_id, r.text, r.logprobs AS teacher_logprobs,
        r.offsets AS teacher_offsets, s.logprobs AS student_logprobs, s.offsets AS student_offsets
    FROM responses r JOIN student_logprobs s USING (response_id) WHERE r.batch = $batch AND s.batch = $batch
        AND s.student_fingerprint = $student AND len(r.logprobs) = len(r.offsets) AND len(s.logprobs) = len(s.offsets)
        AND isfinite(coalesce(list_sum(r.logprobs) + list_sum(s.logprobs), 0))
        AND greatest(list_max(r.offsets), list_max(s.offsets)) < length(r.text)"""  # the others are told already
_STORED = """SELECT * FROM sentence_probabilities WHERE batch = $batch AND segmenter_version = $segmenter
    AND student_fingerprint = $student AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""


def _part(sample: int, groups: pl.DataFrame) -> int:
    """Of a sample, the rows that each group gets: together at least as many."""
    return -(-sample // max(groups.height, 1))


def _scores(reading: Reading, sample: int | None) -> Iterator[Fault]:
    """Scores again from their sentences and types, batch by batch."""
    groups = reading.read(
        "SELECT DISTINCT batch, student_fingerprint, threshold_version FROM response_scores ORDER BY ALL"
    )
    some = "" if sample is None else _SOME_SCORED.format(number=_part(sample, groups))
    for key in groups.iter_rows(named=True):
        sentences = reading.read(f"{_TYPED} {some}", {**key, "segmenter": SEGMENTER_VERSION})
        stored = reading.read(_SCORED, key)
        if sentences.is_empty():
            continue
        both = stored.join(response_scores(sentences), on=["response_id", "score_name"], suffix="_again")
        wrong = both.filter(
            ((pl.col("score") - pl.col("score_again")).abs() > TOLERANCE)
            | (pl.col("score").is_null() != pl.col("score_again").is_null())
        )
        for row in wrong.iter_rows(named=True):
            what = f"its {row['score_name']} is {row['score']}, its sentences give {row['score_again']}"
            yield Fault("response_scores", f"response_id {row['response_id']}", what, AGAIN)


_GROUP = "batch, student_fingerprint, threshold_version"
_KEYED = "batch = $batch AND student_fingerprint = $student_fingerprint"
_TYPED = f"""SELECT p.*, t.sentence_type FROM (FROM sentence_probabilities WHERE {_KEYED}
        AND segmenter_version = $segmenter) p JOIN (FROM sentence_types WHERE {_KEYED}
        AND threshold_version = $threshold_version) t USING (response_id, student_fingerprint, sentence_index)"""
_SOME_SCORED = f"""WHERE response_id IN (SELECT response_id FROM response_scores WHERE {_KEYED}
    GROUP BY response_id ORDER BY md5(response_id) LIMIT {{number}})"""
_SCORED = f"""SELECT response_id, score_name, score FROM response_scores WHERE {_KEYED}
    AND threshold_version = $threshold_version ORDER BY response_id, score_name"""


def _checkpoints(lake: Lake, reading: Reading) -> Iterator[Fault]:
    """Each trained checkpoint's weights, its record, and the rows it saw."""
    rows = reading.read("SELECT * FROM checkpoints ORDER BY checkpoint_id").to_dicts()
    for row in {row["checkpoint_id"]: row for row in rows}.values():
        for what in audit_checkpoint(lake, reading, row["checkpoint_id"], all_tokens=True)["faults"]:
            yield Fault("checkpoints", row["checkpoint_id"], what, "or delete its row, and run `dasd run`")
        if row["dataset"] is not None:
            yield from _weights(row)


def _weights(row: Record) -> Iterator[Fault]:
    try:
        trained = published(Path(row["path"]), row["checkpoint_id"])
    except (CheckpointError, ValueError, KeyError) as error:
        yield Fault("checkpoints", row["checkpoint_id"], str(error), "then run `dasd run`")
        return
    if trained is not None and trained.content_hash != row["content_hash"]:
        what = f"its weights hash to {trained.content_hash[:16]}…, the record says {row['content_hash'][:16]}…"
        yield Fault("checkpoints", row["checkpoint_id"], what, "restore a backup")


def as_record(faults: list[Fault]) -> Record:
    """The faults as plain values."""
    return {"faults": [asdict(fault) for fault in faults], "num_faults": len(faults)}
