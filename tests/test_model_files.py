"""Model folders: found without a download, known by content, refused with the remedy."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest

from dasd_resources.inference.model_files import check_weights, context_length, find_model, fingerprint
from dasd_resources.recipe import RecipeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def make_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 4096}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def test_a_folder_is_found(folder: Path) -> None:
    assert find_model(str(folder), "teacher.model") == folder.resolve()


def test_a_hub_snapshot_on_this_machine_is_found(folder: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "models--org--name"
    shutil.copytree(folder, hub / "snapshots" / "abc")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    program = (
        "from dasd_resources.inference.model_files import find_model; print(find_model('org/name', 'teacher.model'))"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}  # read once, when huggingface_hub is imported
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == hub / "snapshots" / "abc"


def test_what_is_not_here_is_named_with_its_remedy(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"^teacher\.model: no-one/no-model .*`hf download no-one/no-model`"):
        find_model("no-one/no-model", "teacher.model")
    with pytest.raises(RecipeError, match=r"^student\.model: no folder \./missing; give the path"):
        find_model("./missing", "student.model")
    with pytest.raises(RecipeError, match=r"config\.json is a file; give the folder"):
        find_model(str(folder / "config.json"), "student.model")


def test_the_fingerprint_is_of_content_not_of_path(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    original = fingerprint(folder, cache)
    assert len(original) == 16 and int(original, 16)
    assert fingerprint(shutil.copytree(folder, tmp_path / "copy"), cache) == original
    assert fingerprint(folder, tmp_path / "other.sqlite") == original


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_the_fingerprint_follows_every_file_that_counts(folder: Path, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "cache.sqlite"
    original = fingerprint(folder, cache)
    (folder / name).write_text("{ }")
    assert fingerprint(folder, cache) != original


@pytest.mark.parametrize(
    "name",
    [
        "generation_config.json",
        "vocab.json",
        "tokenizer.model",
        "model-2.safetensors",
        "quantize_config.json",
        "hf_quant_config.json",
        "adapter_config.json",
    ],
)
def test_the_fingerprint_follows_added_files(folder: Path, tmp_path: Path, name: str) -> None:
    original = fingerprint(folder, tmp_path / "cache.sqlite")
    (folder / name).write_text("new")
    assert fingerprint(folder, tmp_path / "cache.sqlite") != original


def test_the_fingerprint_ignores_other_files(folder: Path, tmp_path: Path) -> None:
    original = fingerprint(folder, tmp_path / "cache.sqlite")
    (folder / "README.md").write_text("new")
    (folder / "optimizer.pt").write_text("new")
    assert fingerprint(folder, tmp_path / "cache.sqlite") == original


def test_unchanged_files_are_not_read_again(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    original, weights = fingerprint(folder, cache), folder / "model.safetensors"
    status = weights.stat()
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(folder, cache) == original  # size and mtime are the key: the price of not reading
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert fingerprint(folder, cache) != original


def test_processes_share_a_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "home" / "cache.sqlite"
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        found = [pool.submit(fingerprint, folder, cache) for _ in range(8)]
        assert {future.result() for future in found} == {fingerprint(folder, tmp_path / "own.sqlite")}
    with closing(sqlite3.connect(cache)) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (4,)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(RecipeError, match=r"pytorch_model\.bin: convert to safetensors, pickles are never loaded"):
        check_weights(folder)


def test_folders_that_are_no_whole_model_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no config\.json"):
        fingerprint(tmp_path, tmp_path / "cache.sqlite")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RecipeError, match=r"lacks model-00002\.safetensors, .* download the model again"):
        fingerprint(folder, tmp_path / "cache.sqlite")


def test_context_length(folder: Path) -> None:
    assert context_length(folder) == 4096
    (folder / "config.json").write_text('{"text_config": {"max_position_embeddings": 128}}')
    assert context_length(folder) == 128
    for kind, original in (("longrope", 32), ("su", 32), ("yarn", 128)):
        rope = {"original_max_position_embeddings": 32, "rope_scaling": {"type": kind}}
        (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 128, **rope}))
        assert (context_length(folder), context_length(folder, original=True)) == (128, original)
    (folder / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="set max_position_embeddings"):
        context_length(folder)
