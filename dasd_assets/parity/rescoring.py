"""Scoring a sample again: by which engine, unless the check has passed on the same rows, and with what outcome."""

from dataclasses import replace
from typing import Literal

import dagster as dg

from dasd_assets.parity.comparison import StoredLogprobs, compare
from dasd_assets.parity.outcome import outcome
from dasd_assets.records.earlier_checks import passed_on_these_rows
from dasd_assets.records.partitions import batch_of
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe, Rescoring

Role = Literal["teacher", "student"]


def passed_earlier(context: dg.AssetCheckExecutionContext, recipe: Recipe, role: Role) -> dg.AssetCheckResult | None:
    """The outcome of this check on the same rows, if it passed with the same settings: no model is loaded for it."""
    settings = recipe.parts("parity.num_responses", "parity.max_tokens", f"parity.{role}")
    (key,) = context.selected_asset_check_keys
    return passed_on_these_rows(context.instance, key, batch_of(context), settings)


def rescoring_model(model: PromptedModel, rescoring: Rescoring) -> PromptedModel:
    """The same model in the engine that re-scores it, one sequence at a time and unpadded if that engine can."""
    engine = rescoring.engine_for(model.spec.engine)
    plainly = ENGINES[engine].plain_scoring_options
    if engine == model.spec.engine and not plainly:
        return model
    other = {"engine": engine, "engine_options": dict(plainly), "server": None}
    return replace(model, spec=model.spec.model_copy(update=other))


def rescore(
    role: Role, recipe: Recipe, engines: Engines, model: PromptedModel, stored: list[StoredLogprobs], faults: list[str]
) -> dg.AssetCheckResult:
    """Score the sample again and compare; fails beyond the role's limits, and for any fault."""
    if not stored and not faults:
        return dg.AssetCheckResult(
            passed=True, description="nothing to compare: the batch has no response that this model could score again"
        )
    limits: Rescoring = getattr(recipe.parity, role)
    other = rescoring_model(model, limits)
    comparison = compare(stored, engines.score(other, [one.request for one in stored]))
    return outcome(replace(comparison, faults=[*faults, *comparison.faults]), limits, role, other)
