"""Peak memory of every asset over batches of three sizes: it is not to grow with the batch.

    python bench/bench_memory.py [questions]    # of the smallest batch; the others have 4 and 16 times as many
    python bench/bench_memory.py --assets published_dataset --sizes 1 16    # these, and what they are made from

One landed file, one batch, of the demo's questions; an engine that thinks for about 2,000 tokens and answers the sum.
Every asset runs in a process of its own, in the order of the graph, over what those before it have left: a fork of this
one, which has loaded the definitions and read nothing, so that none pays again for loading them. Its peak is the most
that the system ever kept in memory for it (`ru_maxrss`); the first row is of a fork that does nothing. DuckDB may take
the 4 GB that every connection of ours may: what it keeps although it need not would show as growth.

Left out: the processes that compare formulas, which have limits of their own, real engines, and of trainings all but
their rows: these are written, checked, loaded and packed. Nor are the web UI's pictures drawn. Assets and parts of them
that this recipe does not have: `held_out_questions`, and what compares prompts with these and with each other
(alike_questions.py); imported responses; another recipe's selection; experiments.
"""

import argparse
import gc
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import TypeVar

import dasd_resources  # first: it decides how Arrow, which the tests import, takes memory

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import dagster as dg
import trl  # noqa: F401  (the same of what a training loads)
from conftest import Fake, FakeEngine, Project, change, continuation
from results import table

import dasd_resources.inference.transformers_engine  # noqa: F401  (torch and transformers, before the forks)
from dasd_resources.demo.questions import questions
from dasd_resources.demo.traces import steps_of
from dasd_resources.inference.engine import Completion, GenerationRequest, InferenceEngine
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.sft.checkpoint import Progress, Trained
from dasd_resources.sft.packing import load_rows
from dasd_resources.sft.trainer import SftJob, check_rows

NUM_QUESTIONS = 160  # x 4 candidates x 2 temperatures x 16 = 20,480 responses
SCALES = (1, 4, 16)
NUM_CANDIDATES = 4
NUM_TOKENS, LONGEST = 2000, 4000
NUM_BODIES, TOKENS_PER_SENTENCE = 16, 13.5  # what is thought does not matter: it is made once, and answered often
MAX_GROWTH, MAX_BYTES = 1.2, 2_000_000_000
NOTHING = "nothing"
Result = TypeVar("Result")
SETTINGS = {
    "generation.num_candidates": NUM_CANDIDATES,
    "generation.max_tokens": LONGEST,
    "training.max_length": LONGEST,  # first: the filter may not be above it
    "filters.max_student_tokens": LONGEST,
    "decontamination": None,
    "evaluation.samples_per_question": 1,
    "evaluation.temperatures": [1.0],
}


class LongEngine(FakeEngine):
    """The tests' engine with longer answers, whose thinking one in NUM_BODIES answers shares."""

    def _completion(self, request: GenerationRequest) -> Completion:
        prompt = self._tokenizer.decode(list(request.prompt_token_ids), skip_special_tokens=False)
        question, _, begun = prompt.rpartition("<|im_start|>assistant\n")
        expression = question.rpartition("problem: ")[2].partition(" =")[0]
        rng, right = Random(request.seed), steps_of(expression)[-1].c
        if begun:  # the teacher goes on from what a student has written
            said = self._tokenizer.encode(continuation(expression, begun), add_special_tokens=False).ids
        else:
            # A limit below LONGEST is a rollout's: every other one does not end before it.
            twice = request.max_tokens < LONGEST and rng.random() < 0.5
            answer = f"The answer is {right + (rng.random() < 0.2)}."
            said = [*self._thinking(rng.randrange(NUM_BODIES), 2 if twice else 1)]
            said += self._tokenizer.encode(answer, add_special_tokens=False).ids
        token_ids = [*said, self._end_of_turn][: request.max_tokens]
        ended = token_ids[-1] == self._end_of_turn
        return Completion(request.request_id, token_ids, self._logprobs(token_ids), "stop" if ended else "length")

    @lru_cache(maxsize=2 * NUM_BODIES)  # noqa: B019  (an engine lives as long as its step)
    def _thinking(self, number: int, times: int) -> tuple[int, ...]:
        text = f"<think>\n{body(number, int(times * NUM_TOKENS / TOKENS_PER_SENTENCE))}\n</think>\n"
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


class LongEngines(Engines):
    """Finds the demo's models, and answers for them."""

    @contextmanager
    def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
        yield LongEngine(model, Fake())


class RowsAlone(Fake):
    """Prepares a training's rows, and trains nothing."""

    def train(self, job: SftJob, on_progress: Callable[[Progress], None]) -> Trained:
        check_rows(job.rows, job.training.max_length)
        with tempfile.TemporaryDirectory() as folder:
            load_rows(job.rows, job.training.model_copy(update={"packing": True}), Path(folder))
        return super().train(job, on_progress)


class LongProject(Project):
    """A home whose engine gives long answers; the definitions are built before the process forks."""

    @property
    def engines(self) -> Engines:
        return LongEngines(home=str(self.home))

    @cached_property
    def definitions(self) -> dg.Definitions:  # type: ignore[override]
        return super().definitions


def body(number: int, num_sentences: int) -> str:
    """So many sentences, worded by chance: hardly two are alike."""
    rng = Random(number)
    pairs = [(rng.randrange(1000), rng.randrange(1000)) for _ in range(num_sentences)]
    return " ".join(f"Now {a} + {b} is {a + b}." for a, b in pairs)


def recipe() -> Recipe:
    """The demo's, of more candidates and longer answers."""
    made = load_recipe("demo")
    for key, value in SETTINGS.items():
        made = change(made, key, value)
    return made


def main(num_questions: int, wanted: Sequence[str] = (), scales: Sequence[int] = SCALES) -> None:
    """wanted: assets that are measured, with those that they are made from; none: all."""
    peaks: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    for scale in scales:
        with tempfile.TemporaryDirectory() as folder:
            project = LongProject(Path(folder) / "home", recipe(), RowsAlone())
            project.land("batch.jsonl", list(islice(questions("prompts"), scale * num_questions)))
            for name in [NOTHING, *assets(project, wanted)]:
                peak, seconds[name] = measured(project, name)
                peaks.setdefault(name, []).append(peak)
                print(f"x {scale}: {name} {peak / 1e6:,.0f} MB, {seconds[name]:.0f} s", file=sys.stderr, flush=True)
            (num_responses, mean), _ = in_a_fork(size_of, project)
    print(page([scale * num_questions for scale in scales], num_responses, mean, peaks, seconds))


def assets(project: LongProject, wanted: Sequence[str] = ()) -> list[str]:
    """The assets in the order of the graph; the job of all of them is built here, for the forks."""
    graph = project.definitions.resolve_asset_graph()
    chosen = dg.AssetSelection.assets(*wanted).upstream() if wanted else dg.AssetSelection.all()
    keys = chosen.resolve(graph)
    project.definitions.resolve_implicit_global_asset_job_def()
    gc.collect()
    gc.freeze()  # a fork that looks for garbage would copy all that it looks at
    return [key.to_user_string() for key in graph.toposorted_asset_keys if key in keys]


def measured(project: LongProject, asset: str) -> tuple[int, float]:
    """Peak bytes and seconds of one asset, in a process of its own."""
    started = time.perf_counter()
    _, peak = in_a_fork(lambda project: asset == NOTHING or project.materialize(asset), project)
    return peak, time.perf_counter() - started


def in_a_fork(work: Callable[[LongProject], Result], project: LongProject) -> tuple[Result, int]:
    """What `work` returns in a fork of this process, and the fork's peak bytes."""
    ours, theirs = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        theirs.send((work(project), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    theirs.close()
    try:
        result: tuple[Result, int] = ours.recv()
    except EOFError:
        sys.exit("a process ended without a result; what it raised stands above")
    process.join()
    return result


def size_of(project: LongProject) -> tuple[int, float]:
    """The number of responses, and their mean length in tokens."""
    num_responses, mean = project.read("SELECT count(*), coalesce(avg(num_tokens), 0) FROM responses").row(0)
    return num_responses, mean


def page(
    sizes: list[int], num_responses: int, mean: float, peaks: dict[str, list[int]], seconds: dict[str, float]
) -> str:
    rows = [
        (name, *(peak / 1e6 for peak in found), found[-1] / found[0], missed(found), seconds[name])
        for name, found in peaks.items()
    ]
    columns = [f"{size:,} questions, MB" for size in sizes]
    within = sum(not missed(found) for found in peaks.values()) - 1
    return f"""## Memory of each asset, against the size of a batch

One batch of {", ".join(f"{size:,}" for size in sizes)} questions; at the largest, {num_responses:,}
responses of {mean:,.0f} tokens.
Peak resident memory of a process that makes one asset, on the deterministic engine; the bars are a growth of
{MAX_GROWTH} from the smallest batch to the largest, and 2,000 MB. {within} of {len(peaks) - 1} assets are within both.

{table(["asset", *columns, "growth", "missed", "s, the largest"], rows)}"""


def missed(peaks: list[int]) -> str:
    """Which bars these peaks miss."""
    bars = {"growth": peaks[-1] / peaks[0] > MAX_GROWTH, "2,000 MB": max(peaks) > MAX_BYTES}
    return ", ".join(name for name, is_missed in bars.items() if is_missed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="?", type=int, default=NUM_QUESTIONS)
    parser.add_argument("--assets", nargs="+", default=[], metavar="ASSET")
    parser.add_argument("--sizes", nargs="+", type=int, default=SCALES, metavar="TIMES")
    asked = parser.parse_args()
    main(asked.questions, asked.assets, asked.sizes)
