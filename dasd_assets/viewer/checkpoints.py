"""Models' answers to held-out questions: which became right or wrong, all of them side by side; and a model."""

from collections.abc import Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.audit.checkpoint import accuracies, audit_checkpoint, incomplete, several_limits
from dasd_assets.audit.prompt import Record
from dasd_assets.rules.answers import ANSWER_ID
from dasd_assets.rules.last_prompts import ANSWER, OF_CHECKPOINTS, failed_answers, last_prompts, newest_answers
from dasd_assets.rules.typed_ids import AuditError, find_id
from dasd_assets.viewer.answers import sentences_of, typed_by
from dasd_assets.viewer.coloured import runs
from dasd_assets.viewer.links import asked, page_number, paging, place
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.storage.lake import Reading

PAGE = 50
SETTING: dict[str, Callable[[str], object]] = {  # in which models are compared, as the address has it
    "benchmark": str,
    "temperature": float,
    "top_p": float,
    "max_tokens": float,
}
NUM_EXAMPLES = 200  # of a checkpoint's examples that are listed
CHANGES = {
    "all": "TRUE",
    "gained": "was < 0.5 AND now >= 0.5",
    "lost": "was >= 0.5 AND now < 0.5",
    "right": "was >= 0.5 AND now >= 0.5",
    "wrong": "was < 0.5 AND now < 0.5",
}
_SETTINGS = """SELECT benchmark, temperature, top_p, max_tokens, list(DISTINCT checkpoint_id) AS models
    FROM evaluations GROUP BY ALL ORDER BY ALL"""
_MODELS = """SELECT checkpoint_id, min_by(name, materialized_at) AS model, min_by(recipe, materialized_at) AS of_recipe
    FROM checkpoints SEMI JOIN evaluations USING (checkpoint_id)
    GROUP BY checkpoint_id ORDER BY of_recipe <> $recipe, of_recipe, min(coalesce(stage, -1)), 2"""
_CHANGED = f"""WITH asked_last AS ({last_prompts(OF_CHECKPOINTS)}),
    answers AS ({newest_answers(OF_CHECKPOINTS)}),
    failed AS ({failed_answers(OF_CHECKPOINTS)}),
    pairs AS (
        SELECT question_id, avg(correct::INT) FILTER (checkpoint_id = $first) AS was,
            avg(correct::INT) FILTER (checkpoint_id = $second) AS now
        FROM (SELECT {ANSWER}, correct FROM answers
            UNION ALL SELECT {ANSWER}, FALSE FROM failed ANTI JOIN answers USING ({ANSWER}))
        WHERE benchmark = $benchmark AND temperature = $temperature AND top_p = $top_p AND max_tokens = $max_tokens
        GROUP BY question_id HAVING was IS NOT NULL AND now IS NOT NULL)
    SELECT pairs.*, q.question, q.domain, count(*) OVER () AS total
    FROM pairs LEFT JOIN (FROM benchmark_questions WHERE benchmark = $benchmark) q USING (question_id)"""
_COUNTS = ", ".join(f"count(*) FILTER ({sql}) AS {name}" for name, sql in CHANGES.items())
_QUESTION = "SELECT * FROM benchmark_questions WHERE question_id = $id ORDER BY benchmark"
_TEMPERATURES = """SELECT DISTINCT temperature FROM evaluations
    WHERE benchmark = $benchmark AND question_id = $question ORDER BY temperature"""
_OF_QUESTION = "benchmark = $benchmark AND question_id = $question AND temperature = $temperature"
_FAILED = f"""WITH asked_last AS ({last_prompts(_OF_QUESTION)})
    SELECT checkpoint_id, count(*) AS num FROM ({failed_answers(_OF_QUESTION)})
        ANTI JOIN ({newest_answers(_OF_QUESTION)}) USING ({ANSWER}) GROUP BY ALL"""
_ANSWERS = f"""WITH asked_last AS ({last_prompts(_OF_QUESTION)})
    SELECT *, {ANSWER_ID} AS answer_id FROM ({newest_answers(_OF_QUESTION)}) AS evaluations
    ORDER BY top_p, max_tokens, sample_index, evaluation_id"""


def checkpoints(viewer: Viewer, request: Request) -> Response:
    """Held-out questions with the share of right answers of two models; right: at least half of its answers."""
    query = request.query_params
    with viewer.lake.reading() as reading:
        settings = reading.read(_SETTINGS).to_dicts()
        models = reading.read(_MODELS, {"recipe": viewer.recipe.name}).to_dicts()
        if not settings or not models:
            raise AuditError("no model has answered held-out questions yet: run `dasd run` or `dasd evaluate`")
        chosen = _chosen(viewer.models(), query.get, settings, models)
        change, number = query.get("change") or "all", page_number(query)
        if change not in CHANGES:
            raise ValueError(f"change {change!r} is none of {', '.join(CHANGES)}")
        [counts] = reading.read(f"SELECT {_COUNTS} FROM ({_CHANGED})", chosen).to_dicts()
        listed = f"""SELECT * FROM ({_CHANGED}) WHERE {CHANGES[change]}
            ORDER BY abs(now - was) DESC, question_id LIMIT {PAGE} OFFSET {PAGE * (number - 1)}"""
        rows = reading.read(listed, chosen).to_dicts()
        asked_of = accuracies(reading, [chosen["first"], chosen["second"]])
    given = {name: value for name, value in query.items() if name not in ("page", "change")}
    return viewer.page(
        request,
        "checkpoints.html",
        settings=settings,
        models=models,
        chosen=chosen,
        limits=_of_benchmark(settings, chosen),
        change=change,
        counts=counts,
        unfinished={name: text for name in asked_of if (text := _unfinished(asked_of[name], chosen))},
        changes={name: asked("/checkpoints", **given, change=name) for name in CHANGES},
        rows=rows,
        **paging(number, counts[change], PAGE, "/checkpoints", **given, change=change),
    )


def held_out_question(viewer: Viewer, request: Request) -> Response:
    """A held-out question of a benchmark: the answers of teacher, student and every checkpoint, side by side.

    Without `benchmark`, of the first that has it: another may ask it with another instruction.
    """
    identity = request.path_params["id"]
    with viewer.lake.reading() as reading:
        found = {row["benchmark"]: row for row in reading.read(_QUESTION, {"id": identity}).to_dicts()}
        benchmark = request.query_params.get("benchmark") or next(iter(found), "any benchmark")
        if benchmark not in found:
            raise AuditError(f"there is no held-out question {identity} in {benchmark}")
        key = {"benchmark": benchmark, "question": identity}
        temperatures = reading.read(_TEMPERATURES, key)["temperature"].to_list()
        wanted = request.query_params.get("temperature")
        temperature = float(wanted) if wanted else (temperatures[0] if temperatures else 0.0)
        models = _answers_of_models(viewer, reading, {**key, "temperature": temperature})
        previous, following = (_neighbour(reading, found[benchmark], sign, temperature) for sign in "<>")
    return viewer.page(
        request,
        "held_out_question.html",
        question=found[benchmark],
        benchmarks=list(found),
        models=models,
        several=several_limits([answer for model in models for answer in model["answers"]]),
        temperature=temperature,
        temperatures=temperatures,
        previous=previous,
        next=following,
    )


def checkpoint(viewer: Viewer, request: Request) -> Response:
    """A model: what it was trained on and by, what it descends from, its accuracy, and what of it does not agree."""
    with viewer.lake.reading() as reading:
        identity = find_id(reading, "checkpoint", request.path_params["id"])
        record = audit_checkpoint(viewer.lake, reading, identity)
        query = f"""SELECT example_id, prompt_id, response_id, continuation_id FROM checkpoint_examples
            WHERE checkpoint_id = $id ORDER BY example_id LIMIT {NUM_EXAMPLES}"""
        examples = reading.read(query, {"id": identity}).to_dicts()
    several = several_limits(record["evaluations"])
    return viewer.page(request, "checkpoint.html", model=record, several=several, examples=examples)


def _chosen(
    current: Sequence[Mapping[str, object]], given: object, settings: list[Record], models: list[Record]
) -> Record:
    """What is compared: by the address, else student and last checkpoint, in the first setting that both were asked in.

    The address's benchmark and temperature hold, whoever was asked so, and its limits where somebody was.
    current: the recipe's checkpoints. Without an evaluated student, or with nothing after it, it begins with the first.
    """
    assert callable(given)
    ids = {row["checkpoint_id"]: row["model"] for row in models}
    chain = {row["checkpoint_id"]: row["name"] for row in current if row["checkpoint_id"] in ids} or ids
    *before, last = chain
    first = given("first") or next((one for one in before if chain[one] == "student"), next(iter(chain)))
    second = given("second") or last
    for name in (first, second):
        if name not in ids:
            raise AuditError(f"checkpoint {name} has answered no held-out question")
    wanted = {name: read(given(name)) for name, read in SETTING.items() if given(name)}

    def fit(row: Record) -> tuple[int, int]:
        as_given = sum(row[name] == value for name, value in wanted.items())
        return as_given, len({first, second}.intersection(row["models"]))

    found = max(_of_benchmark(settings, wanted), key=fit, default={**dict.fromkeys(SETTING), **wanted})
    return {"first": first, "second": second, "ids": [first, second], **{name: found[name] for name in SETTING}}


def _of_benchmark(settings: list[Record], wanted: Record) -> list[Record]:
    """The settings of this benchmark and temperature, as far as `wanted` has them, whatever their top-p and limit."""
    names = wanted.keys() & {"benchmark", "temperature"}
    return [row for row in settings if all(row[name] == wanted[name] for name in names)]


def _unfinished(rows: list[Record], chosen: Record) -> str:
    """What failed and is missing in the chosen setting. rows: of `accuracies`."""
    return "".join(incomplete(row) for row in rows if all(row[name] == chosen[name] for name in SETTING))


def _answers_of_models(viewer: Viewer, reading: Reading, params: Mapping[str, object]) -> list[Record]:
    """Each model that has answered, in the order of training, with its answers; num_failed: of its requests.

    params: of `_OF_QUESTION`.
    """
    rows, failed = reading.read(_ANSWERS, params).to_dicts(), dict(reading.read(_FAILED, params).iter_rows())
    rule = typed_by(viewer)
    for row in rows:
        row["runs"] = runs(row["response_text"], sentences_of(reading, row, rule))
    return [
        {
            **model,
            "answers": answers,
            "num_right": sum(bool(row["correct"]) for row in answers),
            "num_failed": failed.get(model["checkpoint_id"], 0),
        }
        for model in reading.read(_MODELS, {"recipe": viewer.recipe.name}).to_dicts()
        if (answers := [row for row in rows if row["checkpoint_id"] == model["checkpoint_id"]])
        or model["checkpoint_id"] in failed
    ]


def _neighbour(reading: Reading, question: Record, sign: str, temperature: float) -> str | None:
    order = "DESC" if sign == "<" else "ASC"
    query = f"""SELECT question_id FROM benchmark_questions WHERE benchmark = $benchmark
        AND (source_line, question_id) {sign} ($line, $id)
        ORDER BY source_line {order}, question_id {order} LIMIT 1"""
    params = {"benchmark": question["benchmark"], "line": question["source_line"], "id": question["question_id"]}
    found = reading.read(query, params)["question_id"].to_list()
    address = {"benchmark": question["benchmark"], "temperature": temperature}
    return asked(place("held_out", found[0]), **address) if found else None
