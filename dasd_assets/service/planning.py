"""What should exist and does not, and what of it may be made now: the one plan of `dasd run` and of the service.

Level-triggered: every plan starts from what there is (event log, runs, tables), so nothing that happened in between is
missed, and two planners of one home do not conflict: neither requests what an active run of the other is making. A step
that fails is tried a bounded number of times, with growing pauses; then its batch is quarantined, or the reason is
reported.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import dagster as dg

from dasd_assets.evaluation.questions import EVALUATION_VERSION, benchmark_rows, benchmark_version
from dasd_assets.held_out_questions import HELD_OUT_VERSION, held_out_rows, held_out_version
from dasd_assets.prompts import outdated_prompts
from dasd_assets.records.dagster_internals import BaseAssetGraph
from dasd_assets.records.partitions import batches
from dasd_assets.records.quarantine import Quarantine, Quarantined, quarantine, quarantine_batch, release
from dasd_assets.records.tags import context_of
from dasd_assets.records.wording import number_of
from dasd_assets.rules.asset_names import DAS, SOURCE_ASSET, dataset_asset
from dasd_assets.rules.landed import landed_versions
from dasd_assets.rules.selection_source import source_version
from dasd_assets.service.attempts import (
    Attempt,
    AttemptDecision,
    active_run_for,
    assets_of,
    decide,
    runs_of,
    unfinished_runs,
)
from dasd_assets.service.lost_tables import require_tables
from dasd_assets.service.rounds import Round, in_order
from dasd_assets.service.staleness import Stale, comparison
from dasd_assets.service.steps import LEVELS, Level, Step, data_assets, marked_unproven, ready, steps_of
from dasd_resources.benchmarks.generated import generator_version
from dasd_resources.content_hash import content_hash
from dasd_resources.file_hashes import cached_hash
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.repair import RepairedFile, repaired_files
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.verifiers.catalogue import VERIFIER_VERSION

MAX_FAILED_BATCHES = 3  # different ones: the fault is then hardly the batches'
_WITHDRAWN = f"""SELECT count(DISTINCT prompt_id) FROM lineage_examples SEMI JOIN withdrawn_prompts USING (prompt_id)
    WHERE recipe = $recipe AND policy = '{DAS}' AND dataset IN (SELECT unnest($datasets::VARCHAR[]))"""
STEPS_PER_LOOK = 50  # of each kind, whose attempts are read; more may be due than are begun at a time


@dataclass(frozen=True)
class Plan:
    """due: what may run now, in order. waiting: why other steps do not. active_runs: ids of runs that make some.

    exhausted: steps without a batch that have no attempts left, with the reason. quarantined: by batch.
    changed: whether this plan has quarantined or released any.
    """

    due: list[Attempt] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    active_runs: list[str] = field(default_factory=list)
    exhausted: list[tuple[Step, AttemptDecision]] = field(default_factory=list)
    quarantined: Mapping[str, Quarantined] = field(default_factory=dict)
    changed: bool = False


@dataclass(frozen=True)
class Outlook:
    """All that is out of date, whether or not it may be made yet, and the steps that make it, in order.

    batches: all of them, those among them that are quarantined and left out.
    """

    batches: list[str]
    quarantined: list[str]
    stale: list[Stale]
    steps: list[Step]


@dataclass(frozen=True)
class Tables:
    """What a plan needs of the tables.

    withdrawn: batch -> why its prompts have to follow a withdrawal or deletion. repaired: damaged files that were
    dropped. landed: batch -> what has landed for its questions, of a recipe that imports.
    """

    quarantine: Quarantine
    withdrawn: dict[str, str]
    repaired: list[RepairedFile]
    landed: dict[str, str]


@dataclass(frozen=True)
class Planner:
    """Everything that a plan is made from. now: seconds since the epoch; the clock's by default."""

    instance: dg.DagsterInstance
    definitions: dg.Definitions
    recipe: Recipe
    engines: Engines
    warehouse: Warehouse

    def plan(
        self,
        levels: Collection[Level],
        now: float | None = None,
        patient: bool = True,
        of_recipe: Sequence[Round] = (),
    ) -> Plan:
        """What may run now on these levels; quarantines batches without attempts left, releases those that changed.

        patient: keep the pauses between attempts and the limits of steps without a batch, and begin no batch that would
        fail like those before it (`held_back`); else try all that could succeed. of_recipe: the rounds in which batches
        are made; the first of them come first.
        """
        # Compare everything with what it should be made from; a quarantined batch that would now be made from
        # something else is released first, and the plan is made again with it.
        known = batches(self.instance)
        tables = self._tables(known)
        quarantined = tables.quarantine
        marked = self._marked(known, tables)
        if self._release(marked, quarantined):
            return replace(self.plan(levels, now, patient, of_recipe), changed=True)
        # Only the first level that has steps may run: what is above it would be made from stale inputs.
        found = ready([step for step in marked if step.batch not in quarantined.now])
        first = [step for step in found if step.level not in levels and LEVELS.index(step.level) < _last(levels)]
        waiting = [f"first {number_of(len(first), 'step')} for models and batches"] if first else []
        plan = Plan(waiting=waiting, quarantined=quarantined.now)
        # In the order of rounds, before the first of them are taken: a batch that was left out would come next alone.
        many = sum(step.level == "batch" for step in marked) > self.recipe.automation.check_first_batch_above
        steps = in_order([step for step in found if step.level in levels], of_recipe, prove_first=many)
        if patient and (why := held_back(marked, quarantined.now)) and any(step.batch for step in steps):
            steps, plan = [step for step in steps if step.batch is None], replace(plan, waiting=[*waiting, why])
        plan = self._sorted(plan, steps, quarantined, now, patient)
        # Where it has quarantined a batch, it may be another plan for the others.
        return replace(self.plan(levels, now, patient, of_recipe), changed=True) if plan.changed else plan

    def outlook(self, new: Sequence[str] = ()) -> Outlook:
        """What there is to do, of these new batches too; nothing is changed."""
        known = [*batches(self.instance), *new]
        tables = self._tables(known)
        quarantined = [batch for batch in known if batch in tables.quarantine.now]
        stale = [one for one in self._stale(known, tables, quarantined) if one.batch not in quarantined]
        return Outlook(known, quarantined, stale, self._steps(stale))

    def training_plan(self) -> Plan:
        """The training that the current datasets call for, even where the data they were made from are out of date."""
        known, data = batches(self.instance), self._data()
        tables = self._tables(known)
        quarantined = tables.quarantine
        # All that is taken for current must have been made; so must what a new release has added, as training reads it.
        for name in (*map(dataset_asset, self.recipe.datasets), *sorted(data)):
            if self.instance.get_latest_materialization_event(dg.AssetKey(name)) is None:
                return Plan(waiting=[f"{name} was never materialized"])
        steps = self._steps(self._stale(known, tables, quarantined.now, assumed_current=data))
        if steps and (num_withdrawn := self._num_withdrawn()):
            withdrawn = number_of(num_withdrawn, "withdrawn question is", "withdrawn questions are")
            return Plan(waiting=[f"{withdrawn} in the datasets: first selection"])
        return self._sorted(Plan(), steps, quarantined, None)

    def _num_withdrawn(self) -> int:
        """How many withdrawn questions are in the datasets; not the mixed one, which a training makes again itself."""
        datasets = list(self.recipe.datasets)  # rows of others are made no more
        return int(self.warehouse.read(_WITHDRAWN, {"recipe": self.recipe.name, "datasets": datasets}).item())

    def plan_of(self, step: Step) -> Plan:
        """What its earlier runs allow of a step that is none of an asset."""
        return self._sorted(Plan(), [step], Quarantine({}, {}), None)

    def first_runs(self, new: Sequence[str]) -> list[Attempt]:
        """The first run of each new batch; it brings the models along if they are not registered yet.

        None where batches are held back: they are told so by the plan.
        """
        if len(quarantine(self.warehouse).now) >= MAX_FAILED_BATCHES:  # else it is not asked of all batches
            known = batches(self.instance)
            tables = self._tables(known)
            if held_back(self._marked(known, tables), tables.quarantine.now):
                return []
        steps = [s for s in self._steps(self._stale(new)) if s.level in ("models", "batch")]
        models = {asset: reason for step in steps if step.level == "models" for asset, reason in step.reasons.items()}
        first = [replace(step, reasons={**models, **step.reasons}) for step in steps if step.level == "batch"]
        return [Attempt(step, 1) for step in first]

    def _tables(self, known: Sequence[str]) -> "Tables":
        """What the tables say, from one snapshot. Raises DamagedFiles where not all of it can be read."""
        self.warehouse.require_files()
        with self.warehouse.reading() as reading:
            require_tables(self.instance, reading)
            landed = landed_versions(reading, known) if self.recipe.imports is not None else {}
            withdrawn = outdated_prompts(reading, self.recipe, known)
            return Tables(quarantine(reading), withdrawn, repaired_files(reading), landed)

    def _stale(
        self,
        known: Sequence[str],
        tables: "Tables | None" = None,
        quarantined: Collection[str] = (),
        assumed_current: Collection[str] = (),
    ) -> list[Stale]:
        roots, contexts = root_versions(self.engines, self.recipe, self.warehouse), model_contexts(self.recipe)
        withdrawn, repaired, landed = (tables.withdrawn, tables.repaired, tables.landed) if tables else ({}, [], {})
        return comparison(
            self.instance,
            self.definitions,
            known,
            roots,
            quarantined,
            assumed_current,
            withdrawn,
            repaired,
            contexts,
            landed,
        ).found

    def _marked(self, known: Sequence[str], tables: "Tables") -> list[Step]:
        """The steps of all batches, those that are quarantined among them."""
        return marked_unproven(self._steps(self._stale(known, tables, tables.quarantine.now)), known)

    def _steps(self, stale: Sequence[Stale]) -> list[Step]:
        roots = {key.to_user_string() for key in self._graph.root_materializable_asset_keys}
        return steps_of(stale, self._data(), roots)

    def _data(self) -> set[str]:
        return data_assets(self.recipe, self._graph)

    @property
    def _graph(self) -> BaseAssetGraph:
        return self.definitions.resolve_asset_graph()

    def _release(self, steps: Sequence[Step], quarantined: Quarantine) -> list[str]:
        """Release the quarantined batches that are up to date, or would be made from something else now."""
        now = {step.batch: step.identity for step in steps}
        changed = [batch for batch, row in quarantined.now.items() if now.get(batch) != row.step]
        return release(self.warehouse, changed) if changed else []

    def _sorted(
        self, plan: Plan, steps: Sequence[Step], quarantined: Quarantine, now: float | None, patient: bool = True
    ) -> Plan:
        """The plan with these steps sorted into due, active, waiting and exhausted ones."""
        now = time.time() if now is None else now
        unfinished = unfinished_runs(self.instance, Path(self.warehouse.home), now)
        runs = [(run, assets_of(self.instance, run)) for run in unfinished]
        # A step with an active run is left to it: two runs of one step would do the same work twice.
        active = {step.target: active_run_for(step, runs) for step in steps}
        # Retries that wait must not keep others from being looked at, wherever they are in the order.
        idle = [step for step in steps if active[step.target] is None]
        retries, others = ([step for step in idle if step.retry is retry] for retry in (True, False))
        idle = others[:STEPS_PER_LOOK] + retries[:STEPS_PER_LOOK]
        records = runs_of(self.instance, idle)
        for step in idle:
            # What its earlier runs allow; the newest of them is part of the attempt's key.
            released = quarantined.released.get(step.target, set())
            found = records[step.target]
            decision = decide(self.instance, step, found, self.recipe.automation, released, now)
            attempt = Attempt(step, decision.number, found[0].dagster_run.run_id if found else "", decision.died)
            plan = self._with(plan, attempt, decision, patient)
        active_runs = sorted({run_id for run_id in active.values() if run_id is not None})
        return replace(plan, due=sorted(plan.due, key=_order), active_runs=active_runs)

    def _with(self, plan: Plan, attempt: Attempt, decision: AttemptDecision, patient: bool) -> Plan:
        """The plan with one more step. An exhausted batch is quarantined, so that the others can go on without it."""
        step = attempt.step
        # `dasd run` (not patient) tries even an exhausted step without a batch once more: the user who starts it may
        # have fixed the cause. Not if its last attempt succeeded, for the next one would too, endlessly.
        ends = decision.kind == "exhausted" and (patient or decision.still_stale or step.batch is not None)
        if decision.kind == "wait" and patient:
            return replace(plan, waiting=[*plan.waiting, decision.why])
        if not ends:
            return replace(plan, due=[*plan.due, attempt])
        if step.batch is None:
            return replace(plan, exhausted=[*plan.exhausted, (step, decision)])
        num_attempts = decision.number - 1
        quarantine_batch(self.warehouse, step.batch, decision.why, step.identity, num_attempts, decision.run_id)
        return replace(plan, changed=True)


def held_back(steps: Sequence[Step], quarantined: Mapping[str, Quarantined]) -> str | None:
    """Why no further batch is begun: some were given up for the same check, and none has passed it. Else None.

    steps: of all batches, `marked_unproven`.
    """
    failed: dict[str, list[str]] = {}  # asset that is made, but has not passed -> its batches
    for step in steps:
        if step.batch is not None and step.batch in quarantined:
            for asset in sorted(step.only_checks & step.unproven):
                failed.setdefault(asset, []).append(step.batch)
    for asset, of_asset in failed.items():
        if len(of_asset) >= MAX_FAILED_BATCHES:
            return (
                f"{len(of_asset)} batches are quarantined for {asset}, which has passed its checks in none: no other is"
                " begun until what is wrong is changed, which releases them, or fewer are left"
                f" (`dasd quarantine --release BATCH`). {quarantined[of_asset[0]].reason}"
            )
    return None


def _order(attempt: Attempt) -> tuple[int, bool]:
    """By level; within it, steps whose last attempt died come last: they may kill this process, too."""
    return LEVELS.index(attempt.step.level), attempt.died


def _last(levels: Collection[Level]) -> int:
    return max(LEVELS.index(level) for level in levels)


def root_versions(engines: Engines, recipe: Recipe, lake: Lake) -> dict[str, str]:
    """Asset -> data version of what lies outside: models, benchmark files and another recipe's selection.

    Raises RecipeError if a model or file is missing.
    """
    return {
        "teacher_model": engines.fingerprint(recipe.teacher, "teacher.model"),
        "student_model": engines.fingerprint(recipe.student, "student.model"),
        "benchmark_questions": _benchmark_version(engines.cache, recipe),
        "held_out_questions": _held_out_version(engines.cache, recipe),
        **({} if recipe.selection_from is None else {SOURCE_ASSET: source_version(lake, recipe)}),
    }


def model_contexts(recipe: Recipe) -> set[str]:
    """The contexts that `staleness.comparison` takes for current."""
    return {context_of(recipe.teacher), context_of(recipe.student)}


def _benchmark_version(cache: Path, recipe: Recipe) -> str:
    return _version_of_files(cache, "benchmarks", recipe, (), lambda: benchmark_version(benchmark_rows(recipe)))


def _held_out_version(cache: Path, recipe: Recipe) -> str:
    settings = recipe.decontamination
    what = f"held-out questions {HELD_OUT_VERSION}" if settings else "no held-out questions"
    files = settings.files if settings else ()
    return _version_of_files(cache, what, recipe, files, lambda: held_out_version(held_out_rows(recipe)))


def _version_of_files(cache: Path, what: str, recipe: Recipe, files: Sequence[str], find: Callable[[], str]) -> str:
    """What `find` makes of the benchmarks and these files.

    Computed once while they stay unchanged: reading them loads the verifiers' library, which takes a second.
    """
    benchmarks = [benchmark.model_dump(mode="json") for benchmark in recipe.evaluation.benchmarks]
    paths = [benchmark.path for benchmark in recipe.evaluation.benchmarks if benchmark.path]
    stamps = [[path, *_stamp(Path(path))] for path in (*paths, *files)]
    name = f"{what} {content_hash([EVALUATION_VERSION, VERIFIER_VERSION, generator_version(), benchmarks, stamps])}"
    return cached_hash(cache, (name, 0, 0), find)


def _stamp(file: Path) -> tuple[int, int]:
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else (0, 0)
