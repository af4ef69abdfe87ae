"""Loss on teacher responses that no stage was trained on, stage by stage and by type of sentence (report §4).

Responses and `sentence_types`, `checkpoints` -> `heldout_logprobs`, a ledger: each checkpoint scores the same tokens;
-> `heldout_losses`: whether it is the teacher's sentences that a stage learns. Left out: the teacher's own loss, which
is in other tokens; and the mixed-policy dataset, whose texts are half a student's.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.evaluation.answers import Checkpoint
from dasd_assets.evaluation.evaluations import chain
from dasd_assets.records.declaration import declare
from dasd_assets.records.heldout_curves import loss_by_stage, loss_table, write_events
from dasd_assets.records.plots import inline
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.records.tags import retry_tags
from dasd_assets.rules.asset_names import ROLES, checkpoint_asset, generation_asset
from dasd_assets.rules.checkpoints import chain_reads, trained_names
from dasd_assets.rules.heldout_responses import (
    HELDOUT,
    heldout_logprobs_id,
    heldout_responses,
    losses_by_type,
    nothing_typed,
    sentence_sums,
)
from dasd_assets.rules.scores import threshold_version
from dasd_assets.rules.stored_tokens import stored_tokens
from dasd_assets.student_logprobs import RESPONSES_PER_SCORING, STUDENT_SCORING, scoring_requests
from dasd_resources.inference.engine import Failure
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel, once_each
from dasd_resources.recipe import Recipe
from dasd_resources.sft.trackers import FOLDER
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`heldout_losses`, for a recipe with `heldout`."""
    return [] if recipe.heldout is None else [_heldout_losses(recipe)]


def _heldout_losses(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "heldout_losses",
        ["heldout_losses", "heldout_logprobs", "failed_requests"],
        reads={
            "responses": list(map(generation_asset, recipe.datasets)),
            "prompts": "prompts",
            "response_verdicts": "response_verdicts",
            "sentence_types": "sentence_types",
            **chain_reads(recipe),
            "checkpoint_examples": [checkpoint_asset(name) for name in trained_names(recipe)],
            "quarantined_batches": (),
        },
        looks_up={"student_tokens": "student_tokens", "student_logprobs": "student_logprobs"},
        models=["teacher_model", "student_model"],
        rules=[HELDOUT, STUDENT_SCORING],
    )

    @declared.asset(
        group="training_results",
        kinds={"ducklake", ENGINES[recipe.student.engine].ui_kind},
        loads_model=True,
        description="One row per checkpoint, dataset and type of sentence: the mean loss on teacher responses that no "
        "stage was trained on, and what became of it since the undistilled student.",
    )
    def heldout_losses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        batches = usable_batches(context.instance, warehouse)
        read = declared.read_tags(context.instance, batches)
        teacher = engines.fingerprint(recipe.teacher, "teacher.model")
        student = engines.fingerprint(recipe.student, "student.model")
        trained = [one for one in chain(warehouse, engines, recipe) if one.name not in ROLES]
        ids = [one.checkpoint_id for one in trained]
        heldout = heldout_responses(warehouse, recipe, teacher, student, batches, ids)
        ledgers = [(_score(context, warehouse, engines, one, student, heldout), one.spec) for one in trained]
        losses = losses_of(warehouse, recipe, student, heldout, ids)
        with warehouse.commit(origin(context)) as transaction:
            transaction.replace("heldout_losses", {"recipe": recipe.name}, losses)
        named = losses.join(_names(student, trained), on="checkpoint_id", maintain_order="left")
        curves = Path(warehouse.home) / FOLDER / "heldout" / recipe.name
        write_events(curves, named)
        return dg.MaterializeResult(
            data_version=content_version([*heldout["response_id"], *ids, threshold_version(recipe)]),
            tags={**read, **retry_tags(ledgers)},
            metadata=declared.result(
                warehouse,
                losses.height,
                {"recipe": recipe.name},
                num_responses=heldout.height,
                empty=None if heldout.height else why_empty(warehouse, recipe, student),
                num_new=sum(ledger.num_added for ledger, _ in ledgers),
                num_failed=sum(ledger.num_failed for ledger, _ in ledgers),
                losses=loss_table(named),
                loss=inline(loss_by_stage(named)),
                tensorboard_runs=dg.MetadataValue.path(str(curves)),
            ),
        )

    return heldout_losses


def _score(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    engines: Engines,
    checkpoint: Checkpoint,
    student: str,
    heldout: pl.DataFrame,
) -> Ledger:
    """Have what is missing scored by one checkpoint; returns its closed ledger."""
    model = engines.find(checkpoint.spec, f"checkpoint {checkpoint.checkpoint_id}")
    with Ledger(warehouse, "heldout_logprobs", origin(context)) as ledger:
        todo = _todo(warehouse, heldout, checkpoint)
        rows = scored_rows(warehouse, engines, model, checkpoint, student, todo)
        unit = f"held-out responses scored by {checkpoint.name}"
        ledger.collect(logged(rows, len(todo), unit, context.log.info), lambda row: row)
    return ledger


def _todo(warehouse: Warehouse, heldout: pl.DataFrame, checkpoint: Checkpoint) -> dict[str, str]:
    """Id of the row that is missing -> the response."""
    query = "SELECT heldout_logprobs_id FROM heldout_logprobs WHERE checkpoint_id = $id"
    present = warehouse.read(query, {"id": checkpoint.checkpoint_id})["heldout_logprobs_id"]
    wanted = {heldout_logprobs_id(key, checkpoint.checkpoint_id): key for key in heldout["response_id"]}
    return {key: wanted[key] for key in missing(wanted, present)}


def scored_rows(
    warehouse: Warehouse,
    engines: Engines,
    model: PromptedModel,
    checkpoint: Checkpoint,
    student: str,
    todo: dict[str, str],
) -> Iterator[Row | Failure]:
    """The `heldout_logprobs` row of each response, or why it has none; with nothing to do, no model is loaded.

    student: the fingerprint of the undistilled one, whose tokens are scored. todo: the row's id -> the response.
    """
    if not todo:
        return
    key_of = {response: key for key, response in todo.items()}
    columns = "num_prompt_tokens, token_ids, kind, reason"
    with engines.open(model) as engine:
        for first in range(0, len(todo), RESPONSES_PER_SCORING):
            part = list(key_of)[first : first + RESPONSES_PER_SCORING]
            tokens = stored_tokens(warehouse, columns, student, part)
            keys = pl.col("response_id").replace_strict(key_of, return_dtype=pl.String)
            requests, refused = scoring_requests(tokens.with_columns(response_id=keys))
            yield from refused
            for result in once_each(requests, engine.score(requests)):
                if isinstance(result, Failure):
                    yield result
                else:
                    yield {
                        "heldout_logprobs_id": result.request_id,
                        "response_id": todo[result.request_id],
                        "checkpoint_id": checkpoint.checkpoint_id,
                        "engine": model.spec.engine,
                        "dtype": model.spec.dtype,
                        "logprobs": result.logprobs,
                    }


def why_empty(warehouse: Warehouse, recipe: Recipe, student: str) -> str:
    """Why no response is held out."""
    if nothing_typed(warehouse, recipe, student):
        return "the student has scored no response by whose sentences its losses could be told apart" + (
            ": with selection_from it scores none itself" if recipe.selection_from else ""
        )
    return "every accepted response was selected, or has the words of one that was"


def losses_of(
    warehouse: Warehouse, recipe: Recipe, student: str, heldout: pl.DataFrame, checkpoints: list[str]
) -> pl.DataFrame:
    """The rows of `heldout_losses`: of the undistilled student and of each checkpoint, over what all of them scored."""
    scored = [_scored(warehouse, student, heldout, checkpoint) for checkpoint in checkpoints]
    for one in scored:
        heldout = heldout.join(one, on="response_id", how="semi")
    types = _types(warehouse, recipe, student, heldout)
    undistilled = _scored(warehouse, student, heldout, None)
    losses = [
        losses_by_type(sentence_sums(one.join(heldout, on="response_id", how="semi")), types, heldout).with_columns(
            checkpoint_id=pl.lit(checkpoint)
        )
        for checkpoint, one in zip([student, *checkpoints], [undistilled, *scored], strict=True)
    ]
    version = {"recipe": pl.lit(recipe.name), "threshold_version": pl.lit(threshold_version(recipe))}
    return pl.concat(losses).with_columns(**version)


def _scored(warehouse: Warehouse, student: str, heldout: pl.DataFrame, checkpoint: str | None) -> pl.DataFrame:
    """(response_id, text, offsets, before, after), in order. checkpoint: None for the undistilled student itself."""
    after = "s.logprobs" if checkpoint is None else "h.logprobs"
    join = "" if checkpoint is None else "JOIN heldout_logprobs h ON h.response_id = s.response_id"
    query = f"""SELECT s.response_id, r.text, t.offsets, s.logprobs AS before, {after} AS after
        FROM student_logprobs s JOIN student_tokens t USING (response_id, student_fingerprint)
            JOIN responses r USING (response_id) {join}
        WHERE s.student_fingerprint = $student AND s.response_id IN (SELECT unnest($ids::VARCHAR[]))
          {"" if checkpoint is None else "AND h.checkpoint_id = $checkpoint"} ORDER BY s.response_id"""
    params = {"student": student, "ids": heldout["response_id"].to_list()}
    return warehouse.read(query, params if checkpoint is None else {**params, "checkpoint": checkpoint})


def _types(warehouse: Warehouse, recipe: Recipe, student: str, heldout: pl.DataFrame) -> pl.DataFrame:
    query = """SELECT response_id, sentence_index, sentence_type FROM sentence_types
        WHERE student_fingerprint = $student AND threshold_version = $version
          AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""
    params = {"student": student, "version": threshold_version(recipe), "ids": heldout["response_id"].to_list()}
    return warehouse.read(query, params)


def _names(student: str, trained: list[Checkpoint]) -> pl.DataFrame:
    """(checkpoint_id, checkpoint) in order of training."""
    pairs = [(student, "student"), *((one.checkpoint_id, one.name) for one in trained)]
    return pl.DataFrame(pairs, schema={"checkpoint_id": pl.String, "checkpoint": pl.String}, orient="row")
