"""Generation through the real Dagster asset on vLLM, ledger commits included, against bare LLM.generate; ratio last.

Both use one loaded model, so its loading is counted in neither; the prefix cache is emptied before each. They take
turns at going first, so that the machine's drift cancels.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
from models import smollm2
from results import against, table

from dasd_assets.commands.run import register_batches
from dasd_assets.definitions import build_definitions
from dasd_assets.generations import _questions, requests_for, wanted_responses
from dasd_assets.records.partitions import batches
from dasd_assets.service.in_process import execute
from dasd_resources.demo.questions import questions, write_rows
from dasd_resources.home import prepare_home
from dasd_resources.inference.engine import GenerationRequest, InferenceEngine
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.inference.vllm_engine import VLLMEngine, _sampling_params
from dasd_resources.recipe import Model, Option, Recipe, load_recipe
from dasd_resources.storage.warehouse import Warehouse

TASK = "Explain slowly, step by step, how to solve this, then write three similar problems with their solutions."
NUM_BATCHES, QUESTIONS_PER_BATCH, CANDIDATES, MAX_TOKENS = 2, 34, 3, 128
MIN_TOKENS = 20_000


class Side:
    """Tokens made and seconds spent by one of the two."""

    num_tokens = 0
    seconds = 0.0

    @property
    def rate(self) -> float:
        return self.num_tokens / self.seconds


class Bench:
    """A home with landed questions, and one loaded model."""

    def __init__(self, home: Path, recipe: Recipe) -> None:
        self.home, self.recipe = home, recipe
        self.warehouse = Warehouse(home=str(home))
        self.engine = VLLMEngine(Path(recipe.teacher.model), recipe.teacher.dtype, recipe.teacher.engine_options)
        self.llm = self.engine._load("generate")
        self.engines = keeping(self.engine, home)
        self.teacher = self.engines.find(recipe.teacher, "teacher.model")
        built = build_definitions(recipe, home, self.engines)
        self.definitions = dg.Definitions(  # without the parity checks, which would load the model anew
            assets=built.assets, resources=built.resources, loggers={"console": silent_log}
        )

    def requests(self, batch: str) -> list[GenerationRequest]:
        """What the asset will ask for."""
        asked = _questions(self.warehouse, batch, "")
        wanted = wanted_responses({key: row["domain"] for key, row in asked.items()}, self.recipe, 1.0, self.teacher)
        requests = list(requests_for(wanted, asked, self.recipe, 1.0, self.teacher))
        made = [request for request in requests if isinstance(request, GenerationRequest)]
        assert made == requests, "every question has a prompt"
        return made

    def through_the_asset(self, instance: dg.DagsterInstance, batch: str, side: Side) -> None:
        with self._timed(side):
            execute(instance, self.definitions, ["teacher_generations_t100"], batch, self.home)
        query = "SELECT coalesce(sum(len(token_ids)), 0) AS n FROM responses WHERE batch = $batch"
        side.num_tokens += int(self.warehouse.read(query, {"batch": batch}).item())

    def bare(self, requests: list[GenerationRequest], side: Side) -> None:
        prompts = [{"prompt_token_ids": list(r.prompt_token_ids)} for r in requests]
        params = [_sampling_params(r) for r in requests]
        with self._timed(side):
            outputs = self.llm.generate(prompts, params, use_tqdm=False)
        side.num_tokens += sum(len(output.outputs[0].token_ids) for output in outputs)

    @contextmanager
    def _timed(self, side: Side) -> Iterator[None]:
        self.llm.reset_prefix_cache()
        start = time.perf_counter()
        yield
        side.seconds += time.perf_counter() - start


def main() -> None:
    asset, bare = Side(), Side()
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), smollm2_recipe())
        with dg.DagsterInstance.from_config(str(prepare_home(bench.home, None))) as instance:
            land(bench, instance)
            for number, batch in enumerate(batches(instance)):
                requests = bench.requests(batch)
                if number == 0:
                    bench.bare(requests[:8], Side())  # warm-up
                if number % 2:
                    bench.bare(requests, bare)
                bench.through_the_asset(instance, batch, asset)
                if not number % 2:
                    bench.bare(requests, bare)
        bench.engine.close()
    report(asset, bare)


def land(bench: Bench, instance: dg.DagsterInstance) -> None:
    """Land the questions and materialize `prompts`."""
    rows = questions("prompts")
    for number in range(NUM_BATCHES):
        batch = [{**row, "question": f"{TASK} {row['question']}"} for row in islice(rows, QUESTIONS_PER_BATCH)]
        write_rows(bench.home / "prompts" / f"{number}.jsonl", batch)
    register_batches(instance, bench.recipe, bench.home, lambda _: None)
    for name in batches(instance):
        execute(instance, bench.definitions, ["prompts"], name, bench.home)


def report(asset: Side, bare: Side) -> None:
    print("## Generation: through the Dagster asset on vLLM\n")
    print(
        f"{NUM_BATCHES} batches of {QUESTIONS_PER_BATCH} questions, {CANDIDATES} candidates each, at most {MAX_TOKENS} "
        f"tokens; SmolLM2, float32. {asset.num_tokens:,} tokens through the asset (prompts rendered, ids read back "
        f"to text, rows committed), {bare.num_tokens:,} by LLM.generate; the model was loaded before.\n"
    )
    ratio = against(asset.rate / bare.rate, 0.95)
    print(table(["tokens/s", "the asset", "LLM.generate", "ratio"], [["generation", asset.rate, bare.rate, ratio]]))
    if asset.num_tokens < MIN_TOKENS:
        sys.exit(f"only {asset.num_tokens} tokens were generated; {MIN_TOKENS} are wanted")


def smollm2_recipe() -> Recipe:
    demo = load_recipe("demo")
    options: dict[str, Option] = {"max_model_len": 1024, "kv_cache_memory_bytes": 2 * 2**30}
    teacher = Model(model=str(smollm2()), engine="vllm", dtype="float32", engine_options=options)
    sizes = {"temperatures": (1.0,), "num_candidates": CANDIDATES, "max_tokens": MAX_TOKENS}
    return demo.model_copy(update={"teacher": teacher, "generation": demo.generation.model_copy(update=sizes)})


def keeping(engine: VLLMEngine, home: Path) -> Engines:
    """Engines that open one that is loaded, and leave it so."""

    class LoadedEngines(Engines):
        @contextmanager
        def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
            yield engine

    return LoadedEngines(home=str(home))


@dg.logger(None)
def silent_log(init_context: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    return logger


if __name__ == "__main__":
    main()
