"""The folder of a release: Parquet files, card, figures and a manifest; it has its name only when it is complete."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from dasd_assets.published_dataset.card import card, figures
from dasd_assets.published_dataset.composition import Composition, Tally, compose
from dasd_assets.published_dataset.examples import Config, configs, examples
from dasd_assets.published_dataset.forms import FORMS, LOGPROBS
from dasd_assets.published_dataset.shards import Shards
from dasd_assets.records.plots import png
from dasd_assets.rules.rule import Rule
from dasd_resources.content_hash import content_hash, file_hash
from dasd_resources.errors import UserError
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Export, Recipe
from dasd_resources.storage.warehouse import Reading, Warehouse

RELEASE_VERSION = "3"
RELEASE = Rule("release", RELEASE_VERSION)
MANIFEST = "manifest.json"


class ExportError(UserError, RuntimeError):
    """A release that cannot be written; the message says what to do."""


@dataclass(frozen=True)
class Written:
    """A config of a release: its rows, and the files that hold them."""

    config: str
    num_rows: int
    num_files: int


@dataclass(frozen=True)
class Manifest:
    """What a release holds. files: path -> SHA-256. snapshot_id: of the warehouse it was written from."""

    recipe: str
    form: str
    snapshot_id: int
    configs: list[Written]
    files: Mapping[str, str]

    @property
    def content_hash(self) -> str:
        """Hash of the files, whichever snapshot they were written from."""
        return content_hash(dict(self.files))


def write_release(
    warehouse: Warehouse, engines: Engines, recipe: Recipe, settings: Export, folder: Path, at: int | None = None
) -> Manifest:
    """Write the training sets of a recipe, as of snapshot `at` (default: the newest), to a folder.

    A release that is there is replaced, when the new one is complete. Raises ExportError if the folder holds anything
    else, or if there is nothing to write, QuestionsGone if some of it must not be written.
    """
    _require_ours(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    snapshot = warehouse.snapshot_id() if at is None else at
    with warehouse.reading(at=snapshot) as reading:
        composition, written = _write_configs(reading, engines, recipe, settings, partial)
    _write_card(composition, settings, partial)
    manifest = Manifest(recipe.name, settings.form, snapshot, written, _hashes(partial))
    (partial / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n")
    _put(partial, folder)
    return manifest


def _require_ours(folder: Path) -> None:
    """An existing folder is overwritten only if it holds nothing but a release: a clone's history, say, would go."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file; name a folder that is not there yet")
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    if others := sorted(there - _files_of_release(folder)):
        raise ExportError(
            f"{folder} holds something else than a release, {others[0]}: move it away, or name another folder"
        )


def _files_of_release(folder: Path) -> set[str]:
    """What the folder's manifest lists, and that; nothing unless it is a release's: backups have one, too."""
    try:
        document = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return set()
    is_release = isinstance(document, dict) and document.keys() >= {"form", "configs", "files"}
    return {MANIFEST, *document["files"]} if is_release else set()


def _write_configs(
    reading: Reading, engines: Engines, recipe: Recipe, settings: Export, partial: Path
) -> tuple[Composition, list[Written]]:
    student = engines.fingerprint(recipe.student, "student.model")
    found = configs(reading, recipe, settings)
    if not found:
        raise ExportError(
            f"recipe {recipe.name} has no training set yet: `dasd run --recipe …` makes them, or set DASD_HOME to the "
            "home that has them"
        )
    tallies, written = dict[str, Tally](), list[Written]()
    for config in found:
        tallies[config.name], parts = _write_config(reading, recipe, settings, config, student, partial)
        written += parts
    return compose(reading, engines, recipe, found, tallies), written


def _write_config(
    reading: Reading, recipe: Recipe, settings: Export, config: Config, student: str, partial: Path
) -> tuple[Tally, list[Written]]:
    """Write the rows of one config and, if they are wanted, the log-probabilities of its responses beside them."""
    form, tally = FORMS[settings.form], Tally()
    num_rows, num_responses = _counts(reading, recipe, config)
    rows = Shards(partial / "data" / config.name, form.schema, num_rows, settings.rows_per_shard)
    logprobs = (
        Shards(partial / "logprobs" / config.name, LOGPROBS.schema, num_responses, settings.rows_per_shard)
        if settings.logprobs
        else None
    )
    for example in examples(reading, recipe, settings, config, student, partial.parent):
        rows.add(form.row(example))
        tally.add(example)
        if logprobs is not None and example["response_id"] is not None:
            logprobs.add(LOGPROBS.row(example))
    written = {config.name: rows} | ({f"{config.name}_logprobs": logprobs} if logprobs is not None else {})
    for shards in written.values():
        shards.close()
    return tally, [Written(name, shards.num_written, shards.num_files) for name, shards in written.items()]


def _counts(reading: Reading, recipe: Recipe, config: Config) -> tuple[int, int]:
    """Examples of a config, and how many of them are responses."""
    query = """SELECT count(*), count(response_id) FROM sft_examples
        WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy"""
    params = {"recipe": recipe.name, "dataset": config.dataset, "policy": config.policy}
    num_rows, num_responses = reading.read(query, params).row(0)
    return num_rows, num_responses


def _write_card(composition: Composition, settings: Export, partial: Path) -> None:
    (partial / "README.md").write_text(card(composition, settings), encoding="utf-8")
    (partial / "figures").mkdir()
    for name, figure in figures(composition).items():
        (partial / "figures" / f"{name}.png").write_bytes(png(figure))
    names = [config.name for config in composition.configs]
    for name, content in FORMS[settings.form].files(names).items():
        (partial / name).write_text(content, encoding="utf-8")


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_hash(path) for path in files}


def _put(partial: Path, folder: Path) -> None:
    """Give a complete release its name; what had it before goes. A kill between the two leaves the complete partial."""
    earlier = folder.with_name(f".{folder.name}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)
    if folder.exists():
        os.rename(folder, earlier)
    os.rename(partial, folder)
    shutil.rmtree(earlier, ignore_errors=True)
