"""Responses that landed, in place of generated ones: `landed_responses`, `landed_logprobs` -> `responses`.

For a recipe with `imports`, these are its generation assets, one per temperature; all that follows is the same. Where
logprobs landed, the tokens they came with must say the text. Where not, the teacher scores the text by prefill, as a
proxy (`stands_for` another model) scores every text. A ledger: what is stored is not read or scored again.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import dagster as dg
import polars as pl

from dasd_assets.generations import PARITY_PARTS, length_figures, lengths_of, present_responses
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.partitions import batches
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import retry_tags
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.imports import (
    IMPORTING,
    NO_DATASET,
    ToScore,
    WantedImport,
    given_tokens,
    has_teacher,
    imported_row,
    landed_in,
    no_logprobs,
    sample_indices,
    to_score,
    wanted_imports,
    without_dataset,
)
from dasd_assets.rules.landed import ITS_PROMPT, LANDED, LANDED_ASSET, LANDED_LOGPROBS
from dasd_assets.student_logprobs import RESPONSES_PER_SCORING
from dasd_resources.chat import Aligned
from dasd_resources.inference.engine import Failure
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel, once_each
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse

RESPONSES_PER_READ = 4096  # of 8,192 tokens: 400 MB of texts and lists
_WANTED = "p.batch = $batch AND l.landed_id IN (SELECT unnest($ids::VARCHAR[]))"
_TEXTS = f"""SELECT DISTINCT ON (l.landed_id) l.landed_id, l.text, l.finish_reason, p.question, p.system_prompt
    FROM {LANDED} l {ITS_PROMPT} WHERE {_WANTED} ORDER BY l.landed_id"""
_WITH_LOGPROBS = f"""SELECT DISTINCT ON (l.landed_id) l.landed_id, l.text, l.finish_reason, g.token_ids, g.logprobs
    FROM {LANDED} l {ITS_PROMPT} JOIN {LANDED_LOGPROBS} g ON g.sample = l.sample WHERE {_WANTED}
    ORDER BY l.landed_id, g.place, g.source_line, g.item"""


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """One asset per temperature of a recipe that imports."""
    if recipe.imports is None:
        return []
    return [_imports(recipe, name, temperature) for name, temperature in recipe.datasets.items()]


def _imports(recipe: Recipe, dataset: str, temperature: float) -> dg.AssetsDefinition:
    landed = dict.fromkeys(("landed_responses", "landed_logprobs"), LANDED_ASSET)
    declared = declare(
        recipe,
        generation_asset(dataset),
        ["responses", "failed_requests"],
        reads={"prompts": "prompts", "withdrawn_prompts": (), **landed},
        models=["teacher_model"],
        rules=[IMPORTING],
        parts=[*PARITY_PARTS, "generation.num_candidates"],
        rows=f"temperature = {temperature:g}",
    )

    @declared.asset(
        group="responses",
        kinds={"ducklake", ENGINES[recipe.teacher.engine].ui_kind},
        loads_model=True,
        description=f"One row per landed response that was sampled at temperature {temperature}, with raw logprobs.",
    )
    def imported_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        teacher, batch = engines.find(recipe.teacher, "teacher.model"), context.partition_key
        existing = batches(context.instance)
        landed = landed_in(warehouse, batch, existing)
        wanted = wanted_imports(landed, recipe, dataset, teacher)
        todo = [wanted[key] for key in missing(wanted, present_responses(warehouse, batch, temperature, teacher))]
        # Those of no dataset are nobody's: the first asset reports them, and takes back what it reported before.
        is_first = dataset == next(iter(recipe.datasets))
        if is_first:
            _forget_failures(warehouse, origin(context), batch)
        with Ledger(warehouse, "responses", origin(context), batch) as ledger:
            for failure in without_dataset(landed, recipe) if is_first else ():
                ledger.fail(failure)
            rows = Importer(recipe, warehouse, teacher, batch, existing, todo).rows(engines)
            for row in logged(rows, len(todo), "responses imported", context.log.info):
                if isinstance(row, Failure):
                    ledger.fail(row)
                else:
                    ledger.add(row)
        if ledger.num_failed:
            context.log.warning(f"{ledger.num_failed:,} landed responses were not imported: see failed_requests")
        return _result(warehouse, recipe, batch, temperature, teacher, list(wanted), ledger, declared)

    return imported_responses


@dataclass
class Importer:
    """Makes the `responses` rows of landed responses, a part of them in memory at a time."""

    recipe: Recipe
    warehouse: Warehouse
    teacher: PromptedModel
    batch: str
    existing: Sequence[str]
    todo: Sequence[WantedImport]
    _indices: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._indices = sample_indices(self.todo, self._taken()) if self.todo else {}

    def rows(self, engines: Engines) -> Iterator[Row | Failure]:
        """The row of each, or why it has none; with nothing to score, no model is loaded."""
        yield from self._given([one for one in self.todo if one.given])
        left = [one for one in self.todo if not one.given]
        if not has_teacher(self.recipe):
            yield from (no_logprobs(one, self.recipe) for one in left)
        elif left:
            yield from self._scored(engines, left)

    def _given(self, todo: Sequence[WantedImport]) -> Iterator[Row | Failure]:
        for texts in self._read(_WITH_LOGPROBS, todo):
            for one, landed in texts:
                said = given_tokens(one, landed, self.teacher)
                if isinstance(said, Failure):
                    yield said
                else:
                    yield self._row(one, said, landed["token_ids"], landed["logprobs"], landed["finish_reason"])

    def _scored(self, engines: Engines, todo: Sequence[WantedImport]) -> Iterator[Row | Failure]:
        """Rows of texts that the teacher scores; the model is loaded once."""
        with engines.open(self.teacher) as engine:
            for texts in self._read(_TEXTS, todo):
                prepared = [to_score(one, landed, self.teacher) for one, landed in texts]
                yield from (one for one in prepared if isinstance(one, Failure))
                asked = {one.request.request_id: one for one in prepared if isinstance(one, ToScore)}
                requests = [one.request for one in asked.values()]
                for score in once_each(requests, engine.score(requests)):
                    if isinstance(score, Failure):
                        yield score
                    else:
                        one = asked[score.request_id]
                        yield self._row(one.wanted, one.said, one.token_ids, score.logprobs, one.finish_reason)

    def _row(
        self, one: WantedImport, said: Aligned, token_ids: list[int], logprobs: list[float], finish_reason: str
    ) -> Row:
        sampled = {"batch": self.batch, "sample_index": self._indices[one.response_id], "finish_reason": finish_reason}
        return {
            **imported_row(one, said, self.recipe, self.teacher),
            **sampled,
            "token_ids": token_ids,
            "logprobs": logprobs,
        }

    def _read(self, query: str, todo: Sequence[WantedImport]) -> Iterator[list[tuple[WantedImport, Row]]]:
        """Each with what landed of it, some at a time; no snapshot is held while these are scored."""
        for first in range(0, len(todo), RESPONSES_PER_READ):
            part = {one.landed_id: one for one in todo[first : first + RESPONSES_PER_READ]}
            params = {"batch": self.batch, "existing": list(self.existing), "ids": list(part)}
            found = self.warehouse.read(query, params)
            for rows in found.iter_slices(RESPONSES_PER_SCORING):
                yield [(part[row["landed_id"]], row) for row in rows.iter_rows(named=True)]

    def _taken(self) -> dict[str, list[int]]:
        """Prompt id -> places among the question's responses that are taken."""
        query = """SELECT prompt_id, list(sample_index) FROM responses
            WHERE batch = $batch AND temperature = $temperature AND teacher_fingerprint = $teacher
              AND top_p = $top_p AND max_tokens = $max_tokens GROUP BY prompt_id"""
        params = {
            "batch": self.batch,
            "temperature": self.todo[0].temperature,
            "teacher": self.teacher.fingerprint,
            "top_p": self.recipe.generation.top_p,
            "max_tokens": self.recipe.generation.max_tokens,
        }
        return dict(self.warehouse.read(query, params).iter_rows())


def _forget_failures(warehouse: Warehouse, origin: str, batch: str) -> None:
    """Remove earlier reports of responses without a dataset: the recipe may have it by now."""
    with warehouse.commit(origin) as transaction:
        transaction.replace(
            "failed_requests", {"asset": "responses", "batch": batch, "kind": NO_DATASET}, pl.DataFrame()
        )


def _result(
    warehouse: Warehouse,
    recipe: Recipe,
    batch: str,
    temperature: float,
    teacher: PromptedModel,
    wanted: list[str],
    ledger: Ledger,
    declared: Declaration,
) -> dg.MaterializeResult:
    """Unlike a generation, one of which nothing was imported is no error: its logprobs may land in a later file."""
    present = set(wanted) & set(present_responses(warehouse, batch, temperature, teacher))
    return dg.MaterializeResult(
        data_version=content_version(present),
        tags=retry_tags([(ledger, teacher.spec)]),
        metadata=declared.result(
            warehouse,
            len(present),
            {"batch": batch, "temperature": temperature, "teacher_fingerprint": teacher.fingerprint},
            num_new=ledger.num_added,
            num_failed=len(wanted) - len(present),
            **_origins(warehouse, batch, present),
            num_beyond_candidates=_num_beyond(warehouse, batch, present, recipe.generation.num_candidates),
            **length_figures(lengths_of(warehouse, batch, present), temperature),
        ),
    )


def _origins(warehouse: Warehouse, batch: str, present: Collection[str]) -> dict[str, int]:
    """How many logprobs were given, and how many are of a prefill."""
    query = """SELECT 'num_' || logprob_origin, count(*) FROM responses
        WHERE batch = $batch AND response_id IN (SELECT unnest($ids::VARCHAR[])) GROUP BY ALL ORDER BY ALL"""
    return dict(warehouse.read(query, {"batch": batch, "ids": list(present)}).iter_rows())


def _num_beyond(warehouse: Warehouse, batch: str, present: Collection[str], num_candidates: int) -> int:
    """How many are not used, as the recipe takes fewer responses of a question (generation.num_candidates)."""
    query = """SELECT count(*) FROM responses WHERE batch = $batch AND sample_index >= $num_candidates
        AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""
    params = {"batch": batch, "ids": list(present), "num_candidates": num_candidates}
    return int(warehouse.read(query, params).item())
