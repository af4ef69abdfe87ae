"""Held-out questions to a model: which answers are wanted, and asking for those that are missing.

Any checkpoint can be asked, of a recipe, of an experiment or from elsewhere: `ask_missing` takes its id and its model.
`benchmark_questions` -> `evaluations`, a ledger with one row per sampled answer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import polars as pl

from dasd_assets.evaluation.questions import asked_questions
from dasd_assets.records.progress import logged
from dasd_assets.records.unsafe import confinement_of
from dasd_assets.rules.ids import answer_seed, evaluation_id
from dasd_assets.rules.instructions import asked_as
from dasd_assets.rules.last_prompts import OF_CHECKPOINTS, SAMPLING, last_prompts
from dasd_assets.rules.sampling import sampling_request
from dasd_assets.rules.stored_answers import stored_answers
from dasd_assets.rules.verdict import judge_answer, verifier_version
from dasd_resources.chat import UnsupportedQuestion
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Model, Recipe
from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers.in_order import in_order
from dasd_resources.verifiers.verdict_cache import VERDICTS

PATIENCE = 0.02  # seconds for a verdict before the engine is asked for the next answer, so that a crash loses few


@dataclass(frozen=True)
class Checkpoint:
    """A model to ask: the id of its rows, its name in messages, and its files with engine and prompting."""

    checkpoint_id: str
    name: str
    spec: Model


@dataclass(frozen=True)
class Asked:
    """Ids of all answers that were wanted, stored or not, and the closed ledger of each model that was asked."""

    ids: list[str] = field(default_factory=list)
    ledgers: list[tuple[Ledger, Model]] = field(default_factory=list)


def ask_missing(
    warehouse: Warehouse,
    engines: Engines,
    recipe: Recipe,
    checkpoints: Iterable[Checkpoint],
    *,
    origin: str,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Asked:
    """Have each model answer what is missing of the stored benchmarks, as the recipe's `evaluation` asks it.

    origin: the commit message of the rows. say, warn: take lines for the log. A model that is not here is passed over.
    """
    questions, confinement, asked = asked_questions(warehouse, recipe), confinement_of(recipe, warn), Asked()
    for checkpoint in checkpoints:
        if ENGINES[checkpoint.spec.engine].absent:
            say(f"{checkpoint.name} {checkpoint.spec.stands_for} is not here, so its accuracy is not known")
            continue
        model = engines.find(checkpoint.spec, f"checkpoint {checkpoint.checkpoint_id}")
        wanted = wanted_answers(questions, checkpoint.checkpoint_id, model, recipe)
        ledger = Ledger(warehouse, "evaluations", origin)
        _answer(warehouse, engines, checkpoint, model, wanted, ledger, confinement, say)
        asked.ledgers.append((ledger, checkpoint.spec))
        asked.ids.extend(wanted)
    return asked


def wanted_answers(questions: pl.DataFrame, checkpoint: str, model: PromptedModel, recipe: Recipe) -> dict[str, Row]:
    """evaluation_id -> question and sampling choices, for every answer avg@k asks of a checkpoint."""
    max_tokens = {benchmark.name: benchmark.max_tokens for benchmark in recipe.evaluation.benchmarks}
    verifiers = verifier_version(recipe)
    wanted: dict[str, Row] = {}
    for question in questions.iter_rows(named=True):
        for temperature in recipe.evaluation.temperatures:
            for index in range(recipe.evaluation.samples_per_question):
                row = {
                    "checkpoint_id": checkpoint,
                    "benchmark": question["benchmark"],
                    "temperature": temperature,
                    "top_p": recipe.evaluation.top_p,
                    "max_tokens": max_tokens[question["benchmark"]],
                    "question_id": question["question_id"],
                    "sample_index": index,
                    "verifier_version": verifiers,
                    "template_version": model.chat.template_version,
                    "instruction": question["instruction"],
                    "judged_by": question["judged_by"],
                }
                wanted[evaluation_id(row)] = {**row, "asked": question}
    return wanted


def answered(completion: Completion, model: PromptedModel) -> Row:
    """The columns of `evaluations` that the model decided."""
    return {
        "response_text": model.chat.read_response(completion.token_ids).text,
        "num_tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
    }


def judged_row(key: str, wanted: Row, answer: Row, confinement: Confinement = USUAL) -> Row:
    """The `evaluations` row of an answer; one without a final answer is wrong."""
    verdict = judge_answer(answer["response_text"], wanted["asked"], confinement)
    return {
        **_without_question(wanted),
        "evaluation_id": key,
        "correct": verdict.passed,
        "kind": verdict.kind,
        "reason": verdict.reason,
        **answer,
    }


def _answer(
    warehouse: Warehouse,
    engines: Engines,
    checkpoint: Checkpoint,
    model: PromptedModel,
    wanted: dict[str, Row],
    ledger: Ledger,
    confinement: Confinement,
    say: Callable[[str], None],
) -> None:
    """Have what is missing judged again, where the answer is stored, and else answered."""
    query = "SELECT evaluation_id FROM evaluations WHERE checkpoint_id = $checkpoint"
    present = warehouse.read(query, {"checkpoint": checkpoint.checkpoint_id})["evaluation_id"]
    lacking = {key: wanted[key] for key in missing(wanted, present)}

    with ledger, VERDICTS.kept_in(Path(warehouse.home)):
        stored = stored_answers(warehouse, checkpoint.checkpoint_id, lacking) if lacking else iter(())
        for row in in_order(stored, lambda found: judged_row(found[0], wanted[found[0]], found[1], confinement)):
            ledger.add(row)
            del lacking[row["evaluation_id"]]
        _note_requests(warehouse, checkpoint.checkpoint_id, wanted, lacking, ledger.origin)
        prompt_ids = lru_cache(1)(model.chat.prompt_ids)  # the samples of a question follow each other
        requests = [_request(key, row, model, prompt_ids) for key, row in lacking.items()]
        results = logged(engines.generate(model, requests), len(requests), f"answers of {checkpoint.name}", say)
        given = (r if isinstance(r, Failure) else (r.request_id, answered(r, model)) for r in results)
        ledger.collect(in_order(given, lambda result: _judged(result, wanted, confinement), PATIENCE), lambda row: row)


def _note_requests(
    warehouse: Warehouse, checkpoint: str, wanted: dict[str, Row], lacking: dict[str, Row], origin: str
) -> None:
    """Store what is about to be asked: of a request that fails, `failed_requests` has no more than the id.

    Where another prompt was asked last, all that is wanted is noted, answered or not: this one is now (`last_prompts`).
    """
    again = _asked_otherwise(warehouse, checkpoint, wanted)
    rows = [{"evaluation_id": key, **_without_question(row)} for key, row in {**lacking, **again}.items()]
    if rows:
        with warehouse.commit(origin) as transaction:
            transaction.delete_keys("evaluation_requests", {"checkpoint_id": checkpoint}, "evaluation_id", list(again))
            transaction.append_missing("evaluation_requests", pl.DataFrame(rows, infer_schema_length=None))


def _asked_otherwise(warehouse: Warehouse, checkpoint: str, wanted: dict[str, Row]) -> dict[str, Row]:
    """Those of the wanted answers whose questions were asked with another prompt last."""
    names = SAMPLING.split(", ")
    found = warehouse.read(f"SELECT {SAMPLING}, prompt FROM ({last_prompts(OF_CHECKPOINTS)})", {"ids": [checkpoint]})
    last = {row[:-1]: row[-1] for row in found.iter_rows() if row[-1] is not None}
    return {
        key: row
        for key, row in wanted.items()
        if last.get(tuple(row[name] for name in names), row["template_version"]) != row["template_version"]
    }


def _without_question(wanted: Row) -> Row:
    return {name: value for name, value in wanted.items() if name != "asked"}


def _judged(result: tuple[str, Row] | Failure, wanted: dict[str, Row], confinement: Confinement) -> Row | Failure:
    return result if isinstance(result, Failure) else judged_row(result[0], wanted[result[0]], result[1], confinement)


def _request(
    key: str, wanted: Row, model: PromptedModel, prompt_ids: Callable[[str, str | None], list[int]]
) -> GenerationRequest | Failure:
    asked = wanted["asked"]
    try:
        prompt = prompt_ids(asked_as(asked["question"], asked["instruction"]), asked["system_prompt"])
    except UnsupportedQuestion as error:
        return Failure(key, str(error), "unsupported_question")
    sampling = wanted["temperature"], wanted["top_p"], wanted["max_tokens"]
    return sampling_request(model, key, prompt, *sampling, seed=answer_seed(wanted))
