"""Model folders: where a recipe's model lies on this machine, what it contains, how much context it takes.

A model is known by its content, never by its path, so a moved or re-downloaded checkpoint keeps its rows and a changed
one starts new ones. Left out: downloads (a run must not start one by surprise) and pickled weights (loading one runs
code).
"""

import hashlib
import json
import math
import os
import re
from pathlib import Path

from safetensors import safe_open

from dasd_resources.content_hash import content_hash, file_hash
from dasd_resources.file_hashes import FileIdentity, known_hashes, remember_hash
from dasd_resources.recipe import RecipeError

WEIGHTS = "*.safetensors"
INDEX = "*.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# What is computed: configuration, also of a quantisation or an adapter, which loaders read beside it, and weights.
COMPUTED = (WEIGHTS, INDEX, "config.json", "*quant*_config.json", "adapter_config.json")
# What decides how a model is prompted and where it stops: all that is here of a model behind a server.
PROMPTING = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates/*",
)
CONTENT = (*COMPUTED, *PROMPTING)  # all that decides what a model says
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
PIECES, PIECE_BYTES = 8, 2**16  # small files are read whole by them
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")
ORIGINAL_CONTEXT, LONGROPE = "original_max_position_embeddings", ("longrope", "su")


def find_model(name: str, key: str) -> Path:
    """The folder of a model given as a path or as the name of a hub model already on this machine.

    Raises RecipeError naming the recipe key (`teacher.model`), its value and what to do; it never downloads.
    """
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise RecipeError(f"{key}: {name} is a file; give the folder of a model in safetensors format")
    if not HUB_NAME.fullmatch(name) or name.startswith("."):
        raise RecipeError(f"{key}: no folder {name}; give the path of a model folder or the name of a hub model")
    return _hub_snapshot(name, key)


def _hub_snapshot(name: str, key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = snapshot_download(name, local_files_only=True, allow_patterns=list(CONTENT), ignore_patterns="*/*")
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise RecipeError(
            f"{key}: {name} is no folder and not (wholly) among this machine's hub models; "
            f"run `hf download {name}` or give the path of a model folder"
        ) from error
    return Path(path)


def fingerprint(path: Path, cache: Path) -> str:
    """Hash of the names and contents of everything that decides what a model says; 16 hex digits.

    cache: a SQLite file of content hashes by (real path, size, mtime), so that unchanged weights are read once; any
    number of processes may share it. Raises RecipeError for a folder without whole safetensors weights.
    """
    check_weights(path)
    return _hash_of_files(path, CONTENT, cache)


def prompting_fingerprint(path: Path, cache: Path) -> str:
    """Hash of tokenizer, chat template and stop tokens alone; no weights need to be there. 16 hex digits."""
    return _hash_of_files(path, PROMPTING, cache)


def sampled_fingerprint(path: Path) -> str:
    """Hash of the names and sizes of the same files, and of a few pieces of each; 16 hex digits.

    It is to find, within a second, that a machine has another model or a part of one: trainings change all weights.
    """
    files = sorted({file for pattern in CONTENT for file in path.glob(pattern) if file.is_file()})
    return content_hash({file.relative_to(path).as_posix(): _pieces(file) for file in files})[:16]


def _pieces(file: Path) -> list[object]:
    size, sha256 = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as opened:
        for start in sorted({max(0, size * part // PIECES - PIECE_BYTES) for part in range(PIECES + 1)}):
            opened.seek(start)
            sha256.update(opened.read(PIECE_BYTES))
    return [size, sha256.hexdigest()]


def check_weights(path: Path) -> None:
    """Raise RecipeError unless the folder holds a configuration and all its weights as safetensors."""
    if not (path / "config.json").is_file():
        raise RecipeError(f"no config.json in {path}; give the folder of a model in Hugging Face format")
    pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if not any(path.glob(WEIGHTS)):
        found = f" ({', '.join(pickles)}: convert to safetensors, pickles are never loaded)" if pickles else ""
        raise RecipeError(f"no *.safetensors weights in {path}{found}; give a folder that has them")
    missing = sorted(shard for shard in _shards(path) if not (path / shard).is_file())
    if missing:
        raise RecipeError(f"{path} lacks {', '.join(missing)}, named in its index; copy or download the model again")


def count_weights(path: Path) -> int:
    """Numbers in the model's safetensors files, by their headers."""
    num_weights = 0
    for file in path.glob(WEIGHTS):
        with safe_open(file, framework="numpy") as opened:
            num_weights += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    return num_weights


def context_length(path: Path, *, original: bool = False) -> int:
    """Most tokens the model takes, prompt included: max_position_embeddings of config.json, or of its text_config.

    original: before LongRoPE, where the model has that.
    """
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    for part in (config, config.get("text_config") or {}):
        keys = (ORIGINAL_CONTEXT, *CONTEXT_KEYS) if original and _has_longrope(part) else CONTEXT_KEYS
        for key in keys:
            if isinstance(part.get(key), int):
                return int(part[key])
    raise RecipeError(f"{path / 'config.json'} names no context length; set max_position_embeddings in it")


def _has_longrope(config: dict[str, object]) -> bool:
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    return isinstance(rope, dict) and (rope.get("rope_type") or rope.get("type")) in LONGROPE


def _shards(path: Path) -> set[str]:
    indexes = [json.loads(file.read_text(encoding="utf-8")) for file in path.glob(INDEX)]
    return {shard for index in indexes for shard in index["weight_map"].values()}


def _hash_of_files(path: Path, patterns: tuple[str, ...], cache: Path) -> str:
    files = sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})
    found = {file.relative_to(path).as_posix(): _identity(file.resolve()) for file in files}
    known = known_hashes(cache, list(found.values()))
    return content_hash({name: known.get(file) or _read_hash(file, cache) for name, file in found.items()})[:16]


def _identity(file: Path) -> FileIdentity:
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns


def _read_hash(file: FileIdentity, cache: Path) -> str:
    """The hash of a file that is not in the cache, and is from now on."""
    sha256 = file_hash(Path(file[0]))
    if _identity(Path(file[0])) != file:
        raise RecipeError(f"{file[0]} changed while it was read; run again when it is written")
    remember_hash(cache, file, sha256)
    return sha256
