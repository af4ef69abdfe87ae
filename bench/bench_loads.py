"""Several batches on vLLM: made one after another, each loading its models, and in rounds, with a model kept loaded.

    python bench/bench_loads.py

Both ways make the batches' data as `dasd run` does, up to the first training. A load is one of vLLM or of transformers,
whatever it is for; vLLM loads a model anew to score with it.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from conftest import Fake, Project, change, prompt_rows
from results import against, table

from dasd_assets.service.in_process import RunFailed
from dasd_resources.inference.engine import InferenceEngine
from dasd_resources.inference.engine_catalogue import ENGINES, ApiKey
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.inference.kept_loaded import free_kept_engine
from dasd_resources.inference.vllm_engine import Purpose, VLLMEngine
from dasd_resources.recipe import load_recipe
from dasd_resources.sft.checkpoint import Progress
from dasd_resources.sft.trainer import SftJob

if TYPE_CHECKING:
    from vllm import LLM

NUM_BATCHES, NUM_QUESTIONS = 2, 2  # one after another, each batch loads five models
loads: list[tuple[str, float]] = []  # what for, and seconds


class Real(Project):
    """A project on the engines of the catalogue."""

    @property
    def engines(self) -> Engines:
        return Engines(home=str(self.home), keep_loaded_seconds=self.recipe.automation.keep_loaded_seconds)


class Untrained(Fake):
    """Ends the run where a training would begin."""

    def train(self, job: SftJob, on_progress: Callable[[Progress], None]) -> NoReturn:
        raise RuntimeError("all batches are made")


class TimedVLLM(VLLMEngine):
    def _load(self, purpose: Purpose) -> "LLM":
        begun, before = time.perf_counter(), self.llm
        llm = super()._load(purpose)
        if llm is not before:
            loads.append((f"vllm, to {purpose}", time.perf_counter() - begun))
        return llm


def main() -> None:
    _time_loads()
    with tempfile.TemporaryDirectory() as folder:
        alone, alone_loads = made(Path(folder) / "alone", 0.0)
        rounds, rounds_loads = made(Path(folder) / "rounds", 600.0)
    print("## Loading models: several batches on vLLM\n")
    print(
        f"{NUM_BATCHES} batches of {NUM_QUESTIONS} questions, the demo's models (0.8 MB) on vLLM, both parity checks; "
        "up to the first training.\n"
    )
    saved, more = alone - rounds, len(alone_loads) - len(rounds_loads)
    rows: list[list[object]] = [
        ["loads", len(alone_loads), len(rounds_loads), against(len(alone_loads) / len(rounds_loads), 2.0)],
        ["seconds in loads", sum(s for _, s in alone_loads), sum(s for _, s in rounds_loads), ""],
        ["seconds in all", alone, rounds, against(alone / rounds, 1.0)],
    ]
    print(table(["", "batch after batch", "in rounds, kept loaded", "ratio"], rows))
    print(
        f"{saved:.0f} s saved by {more} loads less, {saved / more:.1f} s each; a load of a large model takes minutes.\n"
    )


def made(home: Path, keep_loaded_seconds: float) -> tuple[float, list[tuple[str, float]]]:
    """Seconds to make the batches, and the loads in it."""
    recipe = load_recipe("demo")
    for role in ("teacher", "student"):
        recipe = change(recipe, f"{role}.engine", "vllm")
        recipe = change(recipe, f"{role}.engine_options", {"max_model_len": 512, "kv_cache_memory_bytes": 2**28})
    recipe = change(recipe, "automation.keep_loaded_seconds", keep_loaded_seconds)
    project = Real(home, recipe, Untrained())
    for number in range(NUM_BATCHES):
        project.land(f"{number}.jsonl", prompt_rows(NUM_QUESTIONS * number, NUM_QUESTIONS * (number + 1)))
    loads.clear()
    begun = time.perf_counter()
    try:
        project.run()
    except RunFailed as error:
        assert "all batches are made" in str(error), error
    seconds = time.perf_counter() - begun
    free_kept_engine()
    return seconds, list(loads)


def _time_loads() -> None:
    """Have the catalogue's engines note their loads."""

    def load_vllm(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
        return TimedVLLM(model.path, model.spec.dtype, model.spec.engine_options, model.logs)

    load_plain = ENGINES["transformers"].load

    def load_transformers(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
        begun = time.perf_counter()
        engine = load_plain(model, api_key)
        loads.append(("transformers", time.perf_counter() - begun))
        return engine

    ENGINES["vllm"] = replace(ENGINES["vllm"], load=load_vllm)
    ENGINES["transformers"] = replace(ENGINES["transformers"], load=load_transformers)


if __name__ == "__main__":
    main()
