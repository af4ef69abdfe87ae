"""The three guards of an asset's declaration: rules, parts of the recipe and tables are exactly what its code uses.

None of them names a rule, a part or a table: what there is, is found in the package, the recipe and the queries.
"""

import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import FunctionType

import dagster as dg
import pytest
from conftest import Fake, fake_engines, nothing_drawn, prompt_rows, silent_log
from noted import Notes, NotingWarehouse, leaves, noted
from pydantic import BaseModel
from reached import versions_of, versions_reached

import dasd_assets
import dasd_resources
from dasd_assets.commands.run import register_batches
from dasd_assets.definitions import STAGES, build_definitions
from dasd_assets.records.dagster_internals import BaseAssetGraph
from dasd_assets.records.declaration import DECLARED
from dasd_assets.records.partitions import batches
from dasd_assets.records.tags import UPKEEP
from dasd_assets.service.instance import open_instance
from dasd_resources.demo.questions import write_rows
from dasd_resources.home import prepare_home
from dasd_resources.recipe import Model, Recipe, load_recipe
from dasd_resources.storage.tables import TABLES

ROOT = Path(__file__).parents[1]
WHY_EMPTY = {"empty_datasets"}  # says why a dataset is, which changes only with what is declared anyway
NOT_YET = {"teacher_continuations"}  # that off-policy stages, of which there are none, look up
HOW_IT_RUNS = {  # not what comes out
    "verification.sandbox", "landing.questions_per_batch", "training.report_to", "training.save_every_steps",
}  # fmt: skip
NAMES = {"experiment_cells"}  # by which the leaderboard calls models that experiments, which stand beside it, have made
EARLIER_IDS = {"responses"}  # by which prompts of earlier releases are known, whatever became of their own rows
# No row depends on them; but for the last three, which decide which assets there are.
SERVICE_SECTIONS = {
    "maintenance", "automation", "checks", "freshness", "owners", "experiments", "imports", "selection_from",
}  # fmt: skip


def rule_constants() -> dict[str, str]:
    """Every `…_VERSION` of the package -> the module that defines it."""
    found: dict[str, str] = {}
    for package in (dasd_assets, dasd_resources):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            spec = info.module_finder.find_spec(info.name, None)  # type: ignore[call-arg]
            assert spec is not None and spec.origin is not None
            if "_VERSION = " not in Path(spec.origin).read_text(encoding="utf-8"):
                continue
            for constant in versions_of(import_module(info.name)):
                assert constant not in found, f"{constant} is defined in {found[constant]} and {info.name}"
                found[constant] = info.name
    return found


def compute_functions(recipe: Recipe) -> dict[str, FunctionType]:
    """Asset -> the function that makes it."""
    assets = [asset for stage in STAGES for asset in stage.build(recipe)]
    return {asset.key.to_user_string(): asset.op.compute_fn.decorated_fn for asset in assets}  # type: ignore[union-attr]


def test_raising_a_rules_version_makes_stale_exactly_the_assets_whose_code_reaches_it() -> None:
    constants = rule_constants()
    assert len(constants) > 12
    wrong, held = {}, versions_held(constants)
    for name, function in compute_functions(load_recipe("demo")).items():
        reached, declared = versions_reached(function) & set(constants), set(held[name])
        if reached != declared:
            missing, idle = sorted(reached - declared), sorted(declared - reached)
            wrong[name] = {"reached, not declared": missing, "declared, never reached": idle}
    assert wrong == {}


def versions_held(constants: dict[str, str]) -> dict[str, list[str]]:
    """Asset -> the constants that its code version is made of."""
    pairs = [f"{module}:{constant}" for constant, module in sorted(constants.items())]
    command = [sys.executable, str(Path(__file__).with_name("versions_raised.py")), "demo", *pairs]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory, tiny: Recipe) -> Notes:
    """What every asset of a small pipeline read and wrote, in two runs, as incremental work would."""
    home, found, fake = tmp_path_factory.mktemp("noted"), Notes(), Fake()
    write_rows(home / "prompts" / "a.jsonl", prompt_rows(0, 9))
    warehouse = NotingWarehouse(home=str(home)).attach_notes(found)
    recipe = noted(tiny, found)
    definitions = dg.Definitions.merge(
        build_definitions(recipe, home, fake_engines(home, fake), fake.train, warehouse),
        dg.Definitions(loggers={"console": silent_log}),
    )
    with open_instance(prepare_home(home, None)) as instance, nothing_drawn():
        register_batches(instance, tiny, home, lambda message: None)
        for _ in range(2):
            for job, batch in jobs(definitions, batches(instance)):
                config = {"loggers": {"console": {}}}
                assert job.execute_in_process(instance=instance, partition_key=batch, run_config=config).success
    return found


def jobs(definitions: dg.Definitions, existing: list[str]) -> Iterator[tuple[dg.JobDefinition, str | None]]:
    """Assets with their blocking checks, in order; those that follow each other and have batches, or none, at once."""
    job = definitions.resolve_implicit_global_asset_job_def()
    graph = definitions.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.toposorted_asset_keys]
    made = [node for node in nodes if node.group_name != UPKEEP]
    for is_partitioned, part in groupby(made, key=lambda node: node.is_partitioned):
        together = list(part)
        checks = {check for node in together for check in node.check_keys if graph.get(check).blocking}
        for batch in existing if is_partitioned else [None]:
            subset = job.get_subset(asset_selection={node.key for node in together}, asset_check_selection=checks)
            yield subset, batch


def declarations(recipe: Recipe) -> dict[str, dict[str, list[str]]]:
    """Asset -> names of the tables that it reads or looks up, and of those that it writes, as declared."""
    found = {}
    for spec in (spec for stage in STAGES for asset in stage.build(recipe) for spec in asset.specs):
        declared = spec.metadata.get(DECLARED)
        if isinstance(declared, dg.JsonMetadataValue) and isinstance(declared.data, dict):
            read = [*declared.data["reads"], *declared.data["looks_up"]]
            found[spec.key.to_user_string()] = {"reads": read, "writes": declared.data["writes"]}
    return found


def test_every_asset_is_declared(tiny: Recipe) -> None:
    assert set(compute_functions(tiny)) - set(declarations(tiny)) == {"maintenance"}  # never out of date


def sources(recipe: Recipe, kind: str) -> Iterator[tuple[str, str, list[str]]]:
    """(asset, table, the assets whose rows of it are read) of all declarations. kind: `reads` or `looks_up`."""
    for spec in (spec for stage in STAGES for asset in stage.build(recipe) for spec in asset.specs):
        declared = spec.metadata.get(DECLARED)
        if isinstance(declared, dg.JsonMetadataValue) and isinstance(declared.data, dict):
            yield from ((spec.key.to_user_string(), table, names) for table, names in declared.data[kind].items())


def test_only_permanent_rows_are_looked_up_and_only_of_assets_upstream(tiny: Recipe) -> None:
    """What is looked up makes nothing stale: its rows must never change, nor come later than what names them."""
    graph = build_definitions(tiny, Path("/nonexistent")).resolve_asset_graph()
    found = list(sources(tiny, "looks_up"))
    assert {table for _, table, _ in found if not TABLES[table].permanent} == set()
    late = [(asset, name) for asset, _, names in found for name in names if name not in ancestors(graph, asset)]
    assert late == []


def ancestors(graph: BaseAssetGraph, asset: str) -> set[str]:
    above, waiting = {asset}, [dg.AssetKey(asset)]
    while waiting:
        parents = {key for key in graph.get(waiting.pop()).parent_keys if key.to_user_string() not in above}
        above |= {key.to_user_string() for key in parents}
        waiting += parents
    return above


def test_rows_are_read_of_the_assets_that_write_them(tiny: Recipe) -> None:
    writers = {asset: set(declared["writes"]) for asset, declared in declarations(tiny).items()}
    named = [source for kind in ("reads", "looks_up") for source in sources(tiny, kind)]
    assert [(a, table, n) for a, table, names in named for n in names if table not in writers[n]] == []
    assert {table for _, table, names in named if not names} == {
        *{"withdrawn_prompts", "quarantined_batches"},
        *WHY_EMPTY,
        *NOT_YET,
        *EARLIER_IDS,
        *NAMES,
    }


def test_every_table_is_written_by_an_asset_or_a_command(tiny: Recipe) -> None:
    """One that is declared, and that no asset declares to write, is named where a command or the service writes it."""
    both = [declarations(recipe) for recipe in (tiny, importing(tiny))]
    by_assets = {table for found in both for declared in found.values() for table in declared["writes"]}
    write, found = re.compile(r'\.(?:append_missing|replace)\(\s*"(\w+)"'), set[str]()
    for package in (dasd_assets, dasd_resources):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            found |= set(write.findall(path.read_text(encoding="utf-8")))
    assert set(TABLES) - by_assets - found == set()


def importing(recipe: Recipe) -> Recipe:
    """The recipe with a teacher that imports."""
    document = recipe.model_dump()
    document["teacher"]["stands_for"] = "itself"
    return Recipe.model_validate({**document, "imports": {}})


def test_an_asset_touches_exactly_the_tables_that_it_declares(notes: Notes, tiny: Recipe) -> None:
    wrong = {}
    for name, declared in declarations(tiny).items():
        own = set(declared["writes"])
        read, wanted = notes.read.get(name, set()) & set(TABLES) - own, set(declared["reads"]) - own
        written = notes.written.get(name, set())
        found = {
            "reads, not declared": read - wanted,
            "declared, never read": wanted - read,
            "writes, not declared": written - own,
            # Where no request failed, and no dataset is empty.
            "declared, never written": own - written - {"failed_requests", *WHY_EMPTY},
        }
        if any(found.values()):
            wrong[name] = {what: sorted(tables) for what, tables in found.items() if tables}
    assert wrong == {}


def test_a_leaf_of_the_recipe_makes_stale_exactly_the_assets_that_read_it(notes: Notes, tiny: Recipe) -> None:
    before, wrong = code_versions(tiny), {}
    for leaf, value in leaves(tiny).items():
        if leaf in HOW_IT_RUNS or leaf.partition(".")[0] in SERVICE_SECTIONS or isinstance(value, Model):
            continue
        after = code_versions(replaced(tiny, leaf, another(value)))
        stale = {asset for asset in before if asset in after and before[asset] != after[asset]}
        readers = {asset for asset, read in notes.leaves.items() if leaf in read and asset in after}
        if stale != readers:
            wrong[leaf] = {
                "read, not declared": sorted(readers - stale),
                "declared, never read": sorted(stale - readers),
            }
    assert wrong == {}


def test_an_asset_that_reads_a_model_of_the_recipe_depends_on_it(notes: Notes, tiny: Recipe) -> None:
    """A model counts by its fingerprint, which its own asset carries as data version."""
    graph = build_definitions(tiny, Path("/nonexistent")).resolve_asset_graph()
    lacking = [
        (asset, role)
        for asset, read in notes.leaves.items()
        for role in {"teacher", "student"} & read
        if f"{role}_model" not in ancestors(graph, asset)
    ]
    assert lacking == []


def code_versions(recipe: Recipe) -> dict[str, str | None]:
    specs = [spec for stage in STAGES for asset in stage.build(recipe) for spec in asset.specs]
    return {spec.key.to_user_string(): spec.code_version for spec in specs}


def replaced(recipe: Recipe, path: str, value: object) -> Recipe:
    """The recipe with another value at a dotted path, valid or not: nothing is run by it."""
    name, _, below = path.partition(".")
    new = replaced(getattr(recipe, name), below, value) if below else value
    return recipe.model_copy(update={name: new})


def another(value: object) -> object:
    """A different value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, tuple):
        return (*value, another(value[-1])) if value else ("another",)
    if isinstance(value, dict):
        return {**value, "another": {}}
    if isinstance(value, BaseModel):
        return value.model_copy(update={"name": "another"})
    return 7 if value is None else f"{value}x"
