"""The stages at shares of the report's size: seconds, peak memory and bytes, how they grow, and what all of it takes.

    python bench/bench_scale.py [share ...]    # in percent of 105,000 questions and 1.68 M candidates; or DASD_SCALE

Responses of log-normal length (mean 15,700 tokens, as the report's are; deviation 0.8, cut at 65,000) from an
engine that writes sums by chance, through the real assets, one landed file. Every step runs in a process of its own,
whose peak is VmHWM. Growth is the power law through the shares; a step's cost at 100 % is its last one times the ratio
to that power. What a process costs that does nothing is taken off the seconds first. Left out: engines, training.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "bench")]

import numpy as np  # noqa: E402
from conftest import Fake, FakeEngine, Project, change  # noqa: E402
from results import table  # noqa: E402

from dasd_assets.cli import main as dasd  # noqa: E402
from dasd_resources.demo.questions import questions  # noqa: E402
from dasd_resources.demo.traces import canonical, steps_of  # noqa: E402
from dasd_resources.inference.engine import GenerationRequest, InferenceEngine  # noqa: E402
from dasd_resources.inference.engines import Engines, PromptedModel  # noqa: E402
from dasd_resources.recipe import Recipe, load_recipe  # noqa: E402
from dasd_resources.storage.upkeep import table_sizes  # noqa: E402

NUM_QUESTIONS, NUM_CANDIDATES = 105_000, 8  # at each of two temperatures
SHARES = (0.01, 0.03, 0.1)  # percent
MEAN, DEVIATION, LONGEST = 15_700, 0.8, 65_000
TOKENS_PER_SENTENCE = 13.5  # of the demo's teacher for "Now 123 + 456 is 579."
BYTES_PER_TOKEN = 30.0  # of a whole home, measured below
SAMPLE = 50  # rows of each table that `verify` recomputes
MEMORY_BAR, HOURS_BAR = 64e9, 24.0  # of a step at 100 %: beyond, it has to change first
LONG = 65_536
NOTHING = "a process that does nothing"
SETTINGS = {
    "generation.num_candidates": NUM_CANDIDATES,
    "generation.max_tokens": LONG,
    "training.max_length": LONG,
    "filters.max_student_tokens": LONG,
    "filters.require_correct": False,
    "selection.policy": "top_k",
    "parity.num_responses": 4,
    "parity.max_tokens": 1024,
    "decontamination": None,
}
TOKENS = {
    "responses": "SELECT sum(len(token_ids)) FROM responses",
    "student_tokens": "SELECT sum(len(token_ids)) FROM student_tokens",
    "student_logprobs": "SELECT sum(len(logprobs)) FROM student_logprobs",
    "sft_examples": "SELECT sum(len(input_ids)) FROM sft_examples",
    "sentence_probabilities": "SELECT count(*) FROM sentence_probabilities",
    "sentence_types": "SELECT count(*) FROM sentence_types",
}


class ScaleEngine(FakeEngine):
    """Responses as long as the report's; logprobs of token, place and model, so prefill gives what decoding did."""

    def _text(self, request: GenerationRequest) -> str:
        prompt = self._tokenizer.decode(list(request.prompt_token_ids), skip_special_tokens=False)
        expression = prompt.rpartition("problem: ")[2].partition(" =")[0]
        rng = Random(request.seed)
        length = min(rng.lognormvariate(math.log(MEAN) - DEVIATION**2 / 2, DEVIATION), LONGEST)
        said = []
        for _ in range(max(int(length / TOKENS_PER_SENTENCE), 1)):
            a, b = rng.randrange(1000), rng.randrange(1000)
            said.append(f"Now {a} + {b} is {a + b}.")
        return canonical(" ".join(said), steps_of(expression)[-1].c + (rng.random() < 0.2))

    def _logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Most near 0, some far below; a sentence's worth of places is likelier or less likely under a model."""
        ids, places = np.asarray(token_ids, np.uint64), np.arange(len(token_ids), dtype=np.uint64)
        vocabulary = np.uint64(self._tokenizer.get_vocab_size())
        share = _hashed(ids * np.uint64(1_000_003) + places * np.uint64(7_919) + vocabulary)
        weight = 0.2 + 2 * _hashed(places // np.uint64(14) * np.uint64(104_729) + vocabulary)
        return (-weight * np.power(-np.log1p(-share), 2.5) * 0.1).astype(np.float32).tolist()


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


@dataclass(frozen=True)
class Measured:
    """A step at one share."""

    seconds: float
    peak: int


def recipe(num_questions: int) -> Recipe:
    """The demo's with the report's numbers; 26 % of the candidates are kept, as 435K of 1.68 M."""
    made = load_recipe("demo")
    budget = {"math": max(int(num_questions * NUM_CANDIDATES * 0.26), 1)}
    for key, value in {**SETTINGS, "selection.budgets": {"t060": budget, "t100": budget}}.items():
        made = change(made, key, value)
    return made


def steps_to_run(project: Project) -> list[str]:
    """Assets in the order of the graph, as far as the training sets."""
    order = [key.to_user_string() for key in project.definitions.resolve_asset_graph().toposorted_asset_keys]
    before = ("teacher_model", "student_model", "held_out_questions", "prompts")
    data = (
        "teacher_generations_t060",
        "teacher_generations_t100",
        "student_tokens",
        "response_verdicts",
        "student_logprobs",
        "sentence_probabilities",
        "sentence_types",
        "response_scores",
        "selected_responses_t060",
        "selected_responses_t100",
        "random_responses",
        "sft_dataset_t060",
        "sft_dataset_t100",
    )
    return [name for name in order if name in before] + [name for name in order if name in data]


def run_share(percent: float, folder: Path) -> tuple[dict[str, Measured], dict[str, tuple[float, int]], int, int]:
    """Step -> what it took; table -> (bytes of a token or row, files); responses, tokens."""
    num = max(round(NUM_QUESTIONS * percent / 100), 2)
    project = ScaleProject(folder / "home", recipe(num))
    project.land("batch.jsonl", list(islice(questions("prompts"), num)))
    found = {name: measured(project.home, num, name) for name in [NOTHING, *steps_to_run(project)]}
    response = project.read("SELECT response_id FROM responses ORDER BY len(token_ids) DESC LIMIT 1").item()
    before = sizes(project)
    found["audit response"] = measured(project.home, num, "audit", "response", response)
    found["audit verify --sample"] = measured(project.home, num, "audit", "verify", "--sample", str(SAMPLE))
    found["maintenance"] = measured(project.home, num, "maintenance")
    num_responses, num_tokens = project.read("SELECT count(*), sum(len(token_ids)) FROM responses").row(0)
    for name, (each, files) in sizes(project).items():
        before[name] = (each, before[name][1])
        print(f"{percent} %: {name} {each:.2f} B, {before[name][1]} files, {files} merged", file=sys.stderr)
    return found, before, num_responses, int(num_tokens)


def sizes(project: Project) -> dict[str, tuple[float, int]]:
    """Table -> bytes of a token, or of a row where it has none, and its files."""
    stored = {row["table_name"]: row for row in table_sizes(project.warehouse).iter_rows(named=True)}
    return {
        name: (stored[name]["num_bytes"] / max(int(project.read(query).item() or 0), 1), stored[name]["num_files"])
        for name, query in TOKENS.items()
    }


def measured(home: Path, num: int, *words: str) -> Measured:
    """Seconds and peak bytes of one step in a process of its own."""
    started = time.perf_counter()
    environment = {**os.environ, "DASD_HOME": str(home)}
    command = [sys.executable, __file__, "--step", str(home), str(num), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result = Measured(time.perf_counter() - started, int(json.loads(done.stdout.splitlines()[-1])))
    print(f"{words[0]} {result.seconds:.1f} s, {result.peak / 1e6:,.0f} MB", file=sys.stderr, flush=True)
    return result


def step(home: Path, num: int, words: list[str]) -> None:
    """One step here, then the peak of this process."""
    project = ScaleProject(home, recipe(num))
    if words[0] == NOTHING:
        project.definitions.resolve_implicit_global_asset_job_def()
    elif words[0] == "audit":
        assert dasd(words) == 0, words
    else:
        project.materialize(words[0])
    status = Path("/proc/self/status").read_text()
    print(json.dumps(1024 * int(status.partition("VmHWM:")[2].split()[0])))


def exponent(shares: Sequence[float], values: Sequence[float]) -> float:
    """Of the power law through them, by least squares of the logarithms."""
    slope: float = np.polyfit(np.log(shares), np.log(np.maximum(values, 1e-3)), 1)[0]
    return float(slope)


def whole(shares: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The exponent, and the value at 100 %."""
    power = exponent(shares, values)
    return power, values[-1] * (100 / shares[-1]) ** max(power, 0.0)


def main(wanted: Sequence[float]) -> None:
    found, stored, counts = [], [], []
    shares = [percent for percent in wanted if has_room(percent)]
    for percent in shares:
        with tempfile.TemporaryDirectory() as folder:
            steps, sizes_of, num_responses, num_tokens = run_share(percent, Path(folder))
        found.append(steps)
        stored.append(sizes_of)
        counts.append((num_responses, num_tokens))
    print(page(shares, found, stored, counts))
    if left := [percent for percent in wanted if percent not in shares]:
        print(f"Left out, as the disk had no room: {', '.join(f'{percent:g} %' for percent in left)}.")


def has_room(percent: float) -> bool:
    """Whether the disk holds a home of that share, whose training sets are written again while they are replaced."""
    needed = 2 * NUM_QUESTIONS * NUM_CANDIDATES * percent / 100 * MEAN * BYTES_PER_TOKEN
    return needed < shutil.disk_usage(tempfile.gettempdir()).free


def page(
    shares: Sequence[float],
    found: Sequence[dict[str, Measured]],
    stored: Sequence[dict[str, tuple[float, int]]],
    counts: Sequence[tuple[int, int]],
) -> str:
    names, idle = [name for name in found[0] if name != NOTHING], [one[NOTHING] for one in found]
    rows, first = list[list[object]](), list[tuple[str, str]]()
    for name in names:
        seconds = [max(one[name].seconds - zero.seconds, 0.01) for one, zero in zip(found, idle, strict=True)]
        peaks = [float(max(one[name].peak - zero.peak, 1e6)) for one, zero in zip(found, idle, strict=True)]
        (growth, all_seconds), (memory_growth, memory) = whole(shares, seconds), whole(shares, peaks)
        peak = found[-1][name].peak / 1e6
        rate, hours = counts[-1][1] / seconds[-1] / 1e6, all_seconds / 3600
        rows.append([name, *seconds, rate, growth, hours, peak, memory_growth, memory / 1e9])
        first += [(name, f"{memory / 1e9:,.0f} GB of memory")] if memory > MEMORY_BAR else []
        first += [(name, f"{all_seconds / 3600:,.0f} hours")] if all_seconds / 3600 > HOURS_BAR else []
    head = ["step", *(f"{percent:g} %, s" for percent in shares), "M tokens/s", "exponent"]
    head += ["100 %, h", "peak, MB", "its exponent", "100 %, GB"]
    sizes_of = [[name, *(one[name][0] for one in stored), stored[-1][name][1]] for name in TOKENS]
    measured_at = zip(shares, counts, strict=True)
    of_counts = "; ".join(f"{percent:g} %: {num:,} responses, {many:,} tokens" for percent, (num, many) in measured_at)
    total = sum(
        stored[-1][name][0] * (counts[-1][1] * 100 / shares[-1])
        for name in ("responses", "student_tokens", "student_logprobs")
    )
    changes = "; ".join(f"`{name}` ({why})" for name, why in first) or "none"
    return f"""## At the report's size: shares of it, and what all of it would take

{of_counts}. Nothing larger was run. One batch, one core; idle processes take {idle[-1].seconds:.1f} s and \
{idle[-1].peak / 1e6:,.0f} MB, which is off the seconds and off the memory that is extrapolated.

{table(head, rows)}
{table(["bytes of a token (a sentence)", *(f"{percent:g} %" for percent in shares), "files"], sizes_of)}
At 100 %, responses with the student's tokens and logprobs: {total / 1e9:,.0f} GB. Steps that would take more than \
{MEMORY_BAR / 1e9:.0f} GB or {HOURS_BAR:.0f} hours
in one batch, and so would have to change, or be given smaller files, first: {changes}."""


if __name__ == "__main__":
    run: Callable[[], None]
    if sys.argv[1:2] == ["--step"]:
        step(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    else:
        given = sys.argv[1:] or os.environ.get("DASD_SCALE", "").split()
        main([float(word) for word in given] or SHARES)
