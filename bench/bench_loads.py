"""Several batches on vLLM: made one after another, each loading its models, and in rounds, with a model kept loaded.

    python bench/bench_loads.py [batches]    # by default 2
    python bench/bench_loads.py 9            # so many that the first is checked before the others are begun

Each way makes the batches' data as `dasd run` does, up to the first training. A load is one of vLLM or of transformers,
whatever it is for; vLLM loads a model anew to score with it. Of more than `automation.check_first_batch_above` batches
there is a third way: in rounds, and the first is not checked apart.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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

NUM_BATCHES, NUM_QUESTIONS = 2, 2  # one after another, each batch loads a model six times
KEPT, CHECK_FIRST = "automation.keep_loaded_seconds", "automation.check_first_batch_above"
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


def main(num_batches: int) -> None:
    ways: dict[str, dict[str, float | int]] = {
        "batch after batch": {KEPT: 0.0},
        "in rounds, kept loaded": {KEPT: 600.0},
    }
    check_first_above = load_recipe("demo").automation.check_first_batch_above
    if is_first_apart := num_batches > check_first_above:
        ways["in rounds, none checked apart"] = {KEPT: 600.0, CHECK_FIRST: num_batches}
    _time_loads()
    with tempfile.TemporaryDirectory() as folder:
        found = [made(Path(folder) / str(number), num_batches, ways[way]) for number, way in enumerate(ways)]
    print("## Loading models: several batches on vLLM\n")
    print(
        f"{num_batches} batches of {NUM_QUESTIONS} questions, the demo's models (0.8 MB) on vLLM, both parity checks; "
        "up to the first training.\n"
    )
    if is_first_apart:
        print(
            f"As these are more than `{CHECK_FIRST}` ({check_first_above}), in rounds the first is checked before the "
            f"others are begun; in the third way, where the key is {num_batches}, it is not.\n"
        )
    seconds, loads_of = zip(*found, strict=True)
    in_loads = [sum(each for _, each in of_way) for of_way in loads_of]
    saved, more = seconds[0] - seconds[1], len(loads_of[0]) - len(loads_of[1])
    rows: list[list[object]] = [
        ["loads", *map(len, loads_of), against(len(loads_of[0]) / len(loads_of[1]), 2.0)],
        ["seconds in loads", *in_loads, ""],
        ["seconds in all", *seconds, against(seconds[0] / seconds[1], 1.0)],
    ]
    print(table(["", *ways, "ratio of the first two"], rows))
    print(
        f"{saved:.0f} s saved by {more} loads less, {saved / more:.1f} s each; a load of a large model takes minutes.\n"
    )


def made(home: Path, num_batches: int, settings: Mapping[str, float | int]) -> tuple[float, list[tuple[str, float]]]:
    """Seconds to make the batches, and the loads in it. settings: of the recipe."""
    recipe = load_recipe("demo")
    for role in ("teacher", "student"):
        recipe = change(recipe, f"{role}.engine", "vllm")
        recipe = change(recipe, f"{role}.engine_options", {"max_model_len": 512, "kv_cache_memory_bytes": 2**28})
    for key, value in settings.items():
        recipe = change(recipe, key, value)
    project = Real(home, recipe, Untrained())
    for number in range(num_batches):
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("batches", nargs="?", type=int, default=NUM_BATCHES)
    main(parser.parse_args().batches)
