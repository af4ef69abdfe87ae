"""How far logprobs of one model lie apart when two computations make them: what the parity check's defaults follow.

Each model samples in bfloat16, batched and row by row, with transformers and vLLM; the sampled tokens are scored again
in every way that a recipe can name. The last row of each model is float32, for what is left when rounding is not.

    python bench/bench_parity.py [--folder FOLDER]

Figures are appended to FOLDER/parity.jsonl as they come; a run after a stop goes on there, by default if it is of the
same commit.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from measurements import Measurements, default_folder
from models import smollm2
from results import table

from dasd_assets.parity.comparison import ParityResult, StoredLogprobs, compare
from dasd_resources.chat import Chat
from dasd_resources.demo.questions import questions
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, InferenceEngine, Score
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.recipe import Model, load_recipe
from dasd_resources.school.questions import first_rows

Result = TypeVar("Result")

PLAIN = "one sequence at a time"
BATCHED, SINGLE = "batched", "row by row"
ONE_ROW = {"transformers": {"max_batch_size": 1}, "vllm": {"max_num_seqs": 1}}  # engine -> the options of SINGLE
NUM_QUESTIONS = 48
NUM_TOKENS = {"demo": 192, "school": 320, "SmolLM2-135M": 400}  # at most, of an answer


@dataclass(frozen=True)
class Case:
    """A model, how its tokens are sampled, or their logprobs first computed, and how again."""

    model: str
    dtype: str
    first: tuple[str, str]  # engine, way
    again: tuple[str, str]
    by_prefill: bool = False  # the stored logprobs are a forward pass's, as the student's are

    @property
    def label(self) -> str:
        """As a row's first cell."""
        made = "scored" if self.by_prefill else "sampled"
        return f"{self.model}, {self.dtype}: {made} by {' '.join(self.first)}, again by {' '.join(self.again)}"


def main(folder: Path) -> None:
    settings = {"questions": NUM_QUESTIONS, "tokens": NUM_TOKENS}
    kept = Measurements(folder / "parity.jsonl", settings)
    for case in cases():
        if (case.label,) not in kept.found:
            found = measured(case)
            if found.faults:
                sys.exit(f"{case.label}: " + "; ".join(found.faults))
            kept.add(case.label, tokens=found.num_tokens, **{name: getattr(found, FIGURES[name]) for name in FIGURES})
    print("## Parity: one model's logprobs, computed twice\n")
    print(f"Up to {NUM_QUESTIONS} answers of each model at temperature 1; nats.\n")
    print(table(["model, computations", "tokens", *FIGURES], [row(case, kept) for case in cases()]))


FIGURES = {
    "mean": "mean_difference",
    "p99": "p99_difference",
    "p99.9": "p999_difference",
    "max": "max_difference",
    "signed mean": "bias",
}


def row(case: Case, kept: Measurements) -> list[object]:
    figures = kept.found[case.label,]
    return [case.label, round(figures["tokens"]), *(f"{figures[name]:.2g}" for name in FIGURES)]


def cases() -> Iterator[Case]:
    """Every model in every pair of computations that a recipe can ask for; models that are not here are left out."""
    plain, own = ("transformers", PLAIN), ("vllm", BATCHED)
    for model in (*RECIPES, "SmolLM2-135M"):
        yield Case(model, "bfloat16", ("transformers", BATCHED), plain)
        yield Case(model, "bfloat16", ("transformers", SINGLE), plain)
        yield Case(model, "bfloat16", own, own)
        yield Case(model, "bfloat16", ("vllm", SINGLE), own)
        yield Case(model, "bfloat16", own, plain)
        yield Case(model, "bfloat16", ("transformers", BATCHED), plain, by_prefill=True)
        yield Case(model, "bfloat16", own, plain, by_prefill=True)
        yield Case(model, "float32", ("transformers", BATCHED), plain)


RECIPES = {f"{name} {role}": (name, role) for name in ("demo", "school") for role in ("teacher", "student")}


def measured(case: Case) -> ParityResult:
    """Each computation in a process of its own: vLLM keeps its state until its process ends."""
    sampled = in_process(partial(sample, case.model, case.dtype, *case.first))
    stored = [StoredLogprobs(c.request_id, ids, c.token_ids, c.logprobs, [""] * len(c.token_ids)) for ids, c in sampled]
    if case.by_prefill:
        first = in_process(partial(score, case.model, case.dtype, *case.first, stored))
        found = {s.request_id: s.logprobs for s in first if isinstance(s, Score)}
        stored = [replace(one, logprobs=found[one.response_id]) for one in stored]
    return compare(stored, in_process(partial(score, case.model, case.dtype, *case.again, stored)))


def in_process(work: Callable[[], Result]) -> Result:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work).result()


def sample(name: str, dtype: str, engine: str, way: str) -> list[tuple[list[int], Completion]]:
    """Answers, each with its prompt's ids."""
    model = prompted(name, dtype, engine, ONE_ROW[engine] if way == SINGLE else {})
    prompts = {f"q{i}": model.chat.prompt_ids(text) for i, text in enumerate(asked(name))}
    most = NUM_TOKENS[name.rpartition(" ")[0] or name]
    requests = [
        GenerationRequest(key, tuple(ids), 1.0, 1.0, most, seed, model.chat.stop_token_ids)
        for seed, (key, ids) in enumerate(prompts.items())
    ]
    with closing(loaded(model)) as opened:
        done = list(opened.generate(requests))
    return [(prompts[c.request_id], c) for c in done if isinstance(c, Completion)]


def score(name: str, dtype: str, engine: str, way: str, stored: Sequence[StoredLogprobs]) -> list[Score | Failure]:
    """The stored tokens, scored; in the order of no account."""
    options = dict(ENGINES[engine].plain_scoring_options) if way == PLAIN else {}
    with closing(loaded(prompted(name, dtype, engine, options))) as opened:
        return list(opened.score([one.request for one in stored]))


def loaded(model: PromptedModel) -> InferenceEngine:
    return ENGINES[model.spec.engine].load(model, lambda variable: None)


def prompted(name: str, dtype: str, engine: str, options: Mapping[str, object]) -> PromptedModel:
    if name in RECIPES:
        recipe, role = RECIPES[name]
        spec: Model = getattr(load_recipe(recipe), role)
    else:
        spec = Model(model=str(smollm2()), thinking="none")
    spec = spec.model_copy(update={"dtype": dtype, "engine": engine, "engine_options": options})
    path = Path(spec.model)
    return PromptedModel(path, "", Chat.load(path, spec), spec)


def asked(name: str) -> list[str]:
    """Questions of the kind that the model answers."""
    if name.startswith("demo"):
        return [str(entry["question"]) for entry in islice(questions("prompts"), NUM_QUESTIONS)]
    rows = first_rows("prompts", 8)
    return [str(entry["question"]) for entry in rows[:: max(1, len(rows) // NUM_QUESTIONS)]][:NUM_QUESTIONS]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=default_folder("parity"))
    main(parser.parse_args().folder)
