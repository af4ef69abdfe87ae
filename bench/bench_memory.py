"""Peak memory of every asset over batches of three sizes: it is not to grow with the batch.

    python bench/bench_memory.py [questions]    # of the smallest batch; the others have 4 and 16 times as many

One landed file, one batch, on the deterministic engine of the tests: long sums, worked out in about 2,000 tokens. Every
asset runs in a process of its own, in the order of the graph, over what those before it have left; its peak is VmHWM,
the most that the system ever kept in memory for that process. A process that has loaded the definitions and done
nothing is the first row.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "bench")]

from conftest import Fake, FakeEngine, Project, change  # noqa: E402
from results import table  # noqa: E402

from dasd_resources.demo.questions import QuestionRow  # noqa: E402
from dasd_resources.demo.traces import QUESTION, canonical, steps_of  # noqa: E402
from dasd_resources.inference.engine import GenerationRequest, InferenceEngine  # noqa: E402
from dasd_resources.inference.engines import Engines, PromptedModel  # noqa: E402
from dasd_resources.recipe import Recipe, load_recipe  # noqa: E402

NUM_QUESTIONS = 160  # x 4 candidates x 2 temperatures x 16 = 20,480 responses
SCALES = (1, 4, 16)
NUM_CANDIDATES = 4
NUM_TERMS = 205
MAX_GROWTH, MAX_BYTES = 1.2, 2_000_000_000
NOTHING = "nothing"
SETTINGS = {
    "generation.num_candidates": NUM_CANDIDATES,
    "generation.max_tokens": 4000,
    "training.max_length": 4000,  # first: the filter may not be above it
    "filters.max_student_tokens": 4000,
    "parity.num_responses": 4,
    "mixed_policy.num_questions": None,
    "decontamination": None,
    "provenance": None,
    "evaluation.samples_per_question": 1,
    "evaluation.temperatures": [1.0],
}


class LongEngine(FakeEngine):
    """The tests' engine with longer answers; a text follows from the question and the seed."""

    def _text(self, request: GenerationRequest) -> str:
        prompt = self._tokenizer.decode(list(request.prompt_token_ids), skip_special_tokens=False)
        question, _, begun = prompt.rpartition("<|im_start|>assistant\n")
        expression = question.rpartition("problem: ")[2].partition(" =")[0]
        worked = worked_answer(expression, Random(request.seed))
        return worked[len(begun) :] if begun else worked


class LongEngines(Engines):
    """Finds the demo's models, and answers for them."""

    @contextmanager
    def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
        yield LongEngine(model, Fake())


class LongProject(Project):
    """A home whose engine gives long answers."""

    @property
    def engines(self) -> Engines:
        return LongEngines(home=str(self.home))


def worked_answer(expression: str, rng: Random) -> str:
    """One sentence a term, worded by chance; one answer in five is wrong."""
    steps, wordings = steps_of(expression), ("{a} {op} {b} = {c}.", "Now {a} {op} {b} is {c}.", "That makes {c}.")
    said = [step.say(rng.choice(wordings)) for step in steps]
    return canonical(" ".join(said), steps[-1].c + (rng.random() < 0.2))


def long_sums(number: int) -> list[QuestionRow]:
    """Questions of the demo's wording, of NUM_TERMS terms."""
    rng, rows = Random(0), list[QuestionRow]()
    for _ in range(number):
        terms = " ".join(f"{rng.choice('+-')} {rng.randint(1, 99)}" for _ in range(NUM_TERMS))
        expression = f"{rng.randint(1, 99)} {terms}"
        question, answer = QUESTION.format(expression=expression), str(steps_of(expression)[-1].c)
        rows.append({"question": question, "domain": "math", "reference_answer": answer, "verifier": "math"})
    return rows


def recipe() -> Recipe:
    """The demo's, of more candidates and longer answers, without what this bench does not measure."""
    made = load_recipe("demo")
    for key, value in SETTINGS.items():
        made = change(made, key, value)
    return made


def main(num_questions: int) -> None:
    peaks: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    for scale in SCALES:
        with tempfile.TemporaryDirectory() as folder:
            project = LongProject(Path(folder) / "home", recipe())
            project.land("batch.jsonl", long_sums(scale * num_questions))
            for name in [NOTHING, *assets(project)]:
                peak, seconds[name] = measured(project.home, name)
                peaks.setdefault(name, []).append(peak)
                print(f"x {scale}: {name} {peak / 1e6:,.0f} MB, {seconds[name]:.0f} s", file=sys.stderr, flush=True)
            found = project.read("SELECT count(*) AS n, avg(len(token_ids)) AS mean FROM responses").row(0)
    print(page(num_questions, found, peaks, seconds))


def assets(project: Project) -> list[str]:
    """The assets in the order of the graph."""
    return [key.to_user_string() for key in project.definitions.resolve_asset_graph().toposorted_asset_keys]


def measured(home: Path, asset: str) -> tuple[int, float]:
    """Peak bytes and seconds of one asset, in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, __file__, str(home), asset]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1])), time.perf_counter() - started


def make(home: Path, asset: str) -> None:
    """Materialize one asset and print the peak of this process."""
    project = LongProject(home, recipe())
    if asset == NOTHING:
        project.definitions.resolve_implicit_global_asset_job_def()
    else:
        project.materialize(asset)
    status = Path("/proc/self/status").read_text()
    print(json.dumps(1024 * int(status.partition("VmHWM:")[2].split()[0])))


def page(num_questions: int, found: tuple[int, float], peaks: dict[str, list[int]], seconds: dict[str, float]) -> str:
    rows = [
        (name, *(peak / 1e6 for peak in found), found[-1] / found[0], missed(found), seconds[name])
        for name, found in peaks.items()
    ]
    sizes = [f"{scale * num_questions:,} questions, MB" for scale in SCALES]
    return f"""## Memory of each asset, against the size of a batch

One batch of {", ".join(f"{scale * num_questions:,}" for scale in SCALES)} questions; at the largest, {found[0]:,} \
responses of {found[1]:,.0f} tokens.
Peak resident memory of a process that makes one asset, on the deterministic engine; the bars are a growth of
{MAX_GROWTH} from the smallest batch to the largest, and 2,000 MB.

{table(["asset", *sizes, "growth", "missed", "s, the largest"], rows)}"""


def missed(peaks: list[int]) -> str:
    """Which bars these peaks miss."""
    bars = {"growth": peaks[-1] / peaks[0] > MAX_GROWTH, "2,000 MB": max(peaks) > MAX_BYTES}
    return ", ".join(name for name, is_missed in bars.items() if is_missed)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        make(Path(sys.argv[1]), sys.argv[2])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_QUESTIONS)
