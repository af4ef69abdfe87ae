"""A home of a share of the report's size: its recipe, its responses without a model, and the steps that make it."""

import json
import math
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from conftest import Fake, FakeEngine, Project, change

from dasd_assets.cli import main as dasd
from dasd_resources.demo.questions import questions
from dasd_resources.demo.traces import steps_of
from dasd_resources.inference.engine import Completion, GenerationRequest, InferenceEngine
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.upkeep import table_sizes

NUM_QUESTIONS, NUM_CANDIDATES = 105_000, 8  # at each of two temperatures
QUESTIONS_PER_BATCH = load_recipe("dasd-4b").landing.questions_per_batch
MEAN, DEVIATION, LONGEST = 15_700, 0.8, 65_000  # tokens; of their logarithm; tokens
LONG = 65_536
SAMPLE = 50  # rows of each table that `verify` recomputes
NUMBERS = 2_000  # that sentences are made of
TOKENS_PER_SENTENCE = 257_140_182 / 18_049_725  # counted at 1 %
NOTHING, AUDIT, VERIFY, MAINTENANCE = (
    "a process that does nothing",
    "audit response",
    "audit verify --sample",
    "maintenance",
)
SETTINGS = {
    "generation.num_candidates": NUM_CANDIDATES,
    "generation.max_tokens": LONG,
    "training.max_length": LONG,
    "filters.max_student_tokens": LONG,
    "filters.require_correct": False,
    "selection.policy": "top_k",
    "landing.questions_per_batch": QUESTIONS_PER_BATCH,
    "parity.num_responses": 4,
    "parity.max_tokens": 1024,
    "decontamination": None,
}
# Stage -> the assets of it, which are made in one process: starting one takes seconds.
STAGES = {
    "inputs": ("teacher_model", "student_model", "prompts"),
    "write responses": ("teacher_generations_t060", "teacher_generations_t100"),
    "student tokens": ("student_tokens",),
    "verdicts": ("response_verdicts",),
    "write student logprobs": ("student_logprobs",),
    "sentence table": ("sentence_probabilities",),
    "types and scores": ("sentence_types", "response_scores"),
    "selection and control": ("selected_responses_t060", "selected_responses_t100", "random_responses"),
    "datasets": ("sft_dataset_t060", "sft_dataset_t100"),
}
STEPS = (NOTHING, *STAGES, AUDIT, VERIFY, MAINTENANCE)
# Table -> what its bytes are divided by: tokens, or rows where it has none.
UNITS = {
    "responses": "SELECT sum(num_tokens) FROM responses",
    "student_tokens": "SELECT sum(len(token_ids)) FROM student_tokens",
    "student_logprobs": "SELECT sum(len(logprobs)) FROM student_logprobs",
    "sft_examples": "SELECT sum(len(input_ids)) FROM sft_examples",
    "sentence_probabilities": "SELECT count(*) FROM sentence_probabilities",
    "sentence_types": "SELECT count(*) FROM sentence_types",
}


class ScaleEngine(FakeEngine):
    """Responses as long as the report's, in tokens at hand; logprobs of token, place and model, as prefill gives."""

    def __init__(self, model: PromptedModel, fake: Fake) -> None:
        super().__init__(model, fake)
        # A sentence is joined from pieces that this tokenizer never joins: text is written some 100 times as fast.
        self._numbers = [self._ids(f" {number}") for number in range(NUMBERS)]
        self._now, self._plus, self._is, self._stop = map(self._ids, (" Now", " +", " is", "."))
        assert self._sentence(5, 995) == self._ids(" Now 5 + 995 is 1000."), "the pieces are those of the whole"

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _sentence(self, a: int, b: int) -> list[int]:
        numbers = self._numbers
        return [*self._now, *numbers[a], *self._plus, *numbers[b], *self._is, *numbers[a + b], *self._stop]

    def _completion(self, request: GenerationRequest) -> Completion:
        prompt = self._tokenizer.decode(list(request.prompt_token_ids), skip_special_tokens=False)
        expression = prompt.rpartition("problem: ")[2].partition(" =")[0]
        rng = Random(request.seed)
        length = min(rng.lognormvariate(math.log(MEAN) - DEVIATION**2 / 2, DEVIATION), LONGEST)
        right = steps_of(expression)[-1].c + (rng.random() < 0.2)
        said = self._ids("<think>\nLet us see.")
        while len(said) < length:
            said += self._sentence(rng.randrange(1000), rng.randrange(1000))
        said += [*self._ids(f"\n</think>\nThe answer is {right}."), self._end_of_turn]
        return Completion(request.request_id, said, self._logprobs(said), "stop")

    def _logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Most near 0, some far below; a sentence's worth of places is likelier or less likely under a model."""
        ids, places = np.asarray(token_ids, np.uint64), np.arange(len(token_ids), dtype=np.uint64)
        vocabulary = np.uint64(self._tokenizer.get_vocab_size())
        share = _hashed(ids * np.uint64(1_000_003) + places * np.uint64(7_919) + vocabulary)
        weight = 0.2 + 2 * _hashed(places // np.uint64(14) * np.uint64(104_729) + vocabulary)
        found: list[float] = (-weight * np.power(-np.log1p(-share), 2.5) * 0.1).astype(np.float32).tolist()
        return found


def _hashed(keys: np.ndarray) -> np.ndarray:
    """In [0, 1): the upper bits of a multiplicative hash."""
    mixed = keys * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    return ((mixed * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(11)).astype(np.float64) / 2**53


class ScaleEngines(Engines):
    """Finds the demo's models, and answers for them."""

    @contextmanager
    def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
        yield ScaleEngine(model, Fake())


class ScaleProject(Project):
    """A home whose engine gives long answers."""

    @property
    def engines(self) -> Engines:
        return ScaleEngines(home=str(self.home))


def project_of(home: Path, num_questions: int) -> ScaleProject:
    """The home of so many questions, which land in one file, of which batches are made as large as the report's are."""
    project = ScaleProject(home, recipe(num_questions))
    if not (home / "prompts" / "batch.jsonl").exists():
        project.land("batch.jsonl", list(islice(questions("prompts"), num_questions)))
    return project


def recipe(num_questions: int) -> Recipe:
    """The demo's with the report's numbers; 26 % of the candidates are kept, as 435K of 1.68 M."""
    made = load_recipe("demo")
    budget = {"math": max(int(num_questions * NUM_CANDIDATES * 0.26), 1)}
    for key, value in {**SETTINGS, "selection.budgets": {"t060": budget, "t100": budget}}.items():
        made = change(made, key, value)
    return made


def do(home: Path, num_questions: int, step: str) -> None:
    """One step in this process; then its CPU seconds, and the peak of its memory in bytes, are printed."""
    project = project_of(home, num_questions)
    if step == NOTHING:
        project.definitions.resolve_implicit_global_asset_job_def()
    elif step == AUDIT:
        longest = project.read("SELECT response_id FROM responses ORDER BY num_tokens DESC LIMIT 1").item()
        assert dasd(["audit", "response", longest]) == 0
    elif step == VERIFY:
        assert dasd(["audit", "verify", "--sample", str(SAMPLE)]) == 0
    else:
        project.materialize(",".join(STAGES.get(step, (step,))))
    status = Path("/proc/self/status").read_text()
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in spent)
    print(json.dumps({"cpu": cpu, "peak": 1024 * int(status.partition("VmHWM:")[2].split()[0])}))


def sizes(home: Path, num_questions: int) -> dict[str, float]:
    """Responses, their tokens, and of each table bytes of a unit and files."""
    project = ScaleProject(home, recipe(num_questions))
    stored = {row["table_name"]: row for row in table_sizes(project.warehouse).iter_rows(named=True)}
    num_responses, num_tokens = project.read("SELECT count(*), sum(num_tokens) FROM responses").row(0)
    found = {"responses": float(num_responses), "tokens": float(num_tokens)}
    for name, query in UNITS.items():
        found[f"bytes.{name}"] = stored[name]["num_bytes"] / max(int(project.read(query).item() or 0), 1)
        found[f"files.{name}"] = float(stored[name]["num_files"])
    return found
