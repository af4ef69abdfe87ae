"""A home in which everything that others write is hostile: file name, questions, domains, answers, replies, reasons.

Each text tries what Markdown, HTML, autolinks and terminals offer for leaving its place: to load `BAIT`, to be a link
to it, to end its code span or table cell, to move the cursor or hide itself. `unfriendly_home` runs the whole pipeline.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import dagster as dg
from conftest import Fake, FakeEngine, Project, change, prompt_rows

from dasd_assets.records.markdown import code_value, codes
from dasd_assets.records.partitions import batches
from dasd_assets.records.quarantine import check_evaluation, quarantine, quarantine_batch
from dasd_assets.service.in_process import RunFailed, execute
from dasd_resources.demo.questions import QuestionRow, write_rows
from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe

HOST = "hostile.localhost"
BAIT = f"http://{HOST}:1"  # with the port of a server, where one listens
NAME = f"www.{HOST} ![x][y] <b> \\` `` me@{HOST} \x1b[31m\u202e.jsonl"  # of a landed file: no slash
TEMPLATES = [
    "a \\| ![x]({bait}/pipe.png)",
    "a | ![x]({bait}/bare-pipe.png) \\\\| [x]({bait}/)",
    "a ` ![x]({bait}/tick.png) `` [x]({bait}/) ```",
    "a \\` ![x]({bait}/escaped-tick.png) \\",
    "\n\n![x]({bait}/paragraph.png)\r\r[x]({bait}/)\u2028\u2029\x0b\x0c\x85![x]({bait}/separator.png)",
    '<img src="{bait}/html.png"><svg onload=alert(1)><a href="{bait}/">x</a><!-- --><script src="{bait}/x.js">',
    "{bait}/literal www.hostile.localhost/literal <{bait}/auto> me@hostile.localhost mailto:me@hostile.localhost",
    "[x]: {bait}/defined.png\n\n[y]: {bait}/\n![x] [y] ![x][] ![a][x]",
    "&#33;&#91;x&#93;&#40;{bait}/entity.png&#41; &lt;img src={bait}/entity.png&gt; &#96;",
    "\x1b]8;;{bait}/\x07link\x1b]8;;\x07 \x1b[2J\x1b[31m \x9b31m \u202e \u200b \ufeff \x7f \x08",
    "# {bait}/heading\n- ![x]({bait}/item.png)\n\n    code\n> ![x]({bait}/quote.png)\n|a|\n|-|\n|![x]({bait}/row.png)|",
    "![x][^1] ![a\\]({bait}/a.png)](  {bait}/nested.png 'title' ) $x$ ~~x~~ **x**",
    "a {bait}/ \\| ![x](/graphql?query=mutation%7BsetNuxSeen%7D) [x](/graphql?query=mutation%7BsetNuxSeen%7D)",
    "|" * 8 + "![x]({bait}/pipes.png)",
    "\\" * 9 + "![x]({bait}/slashes.png)",
    "x" * 8 + "\\| ![x]({bait}/late.png)" + "y" * 5000,
]


def hostile_texts(bait: str = BAIT) -> list[str]:
    """Every template, with what is to be loaded."""
    return [template.format(bait=bait) for template in TEMPLATES]


def hostile_rows(bait: str) -> list[QuestionRow]:
    """Solvable questions, so that all of the pipeline runs, around hostile texts; every field that takes a text."""
    rows = []
    for index, (text, row) in enumerate(zip(hostile_texts(bait), prompt_rows(0, len(TEMPLATES)), strict=True)):
        rows.append({**row, "question": f"{text} {row['question']}", "domain": text, "system_prompt": text})
        if index % 5 == 1:  # what the answer is to be is hostile as well
            rows[-1].update(reference_answer=text, verifier="exact", metadata={text: text})
    return rows


Result = TypeVar("Result", bound=Completion | Score | Failure)


class UnfriendlyEngine(FakeEngine):
    """Says hostile texts: in its responses, and as the reasons of its failures."""

    def __init__(self, model: PromptedModel, fake: Fake, bait: str) -> None:
        super().__init__(model, fake)
        self._texts = hostile_texts(bait)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        return map(self._hostile, super().generate(requests))

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        return map(self._hostile, super().score(requests))

    def _hostile(self, result: Result) -> Result | Failure:
        if isinstance(result, Failure):
            reason = self._texts[int(result.request_id[-2:], 16) % len(self._texts)]
            return Failure(result.request_id, reason, result.kind)
        return result

    def _text(self, request: GenerationRequest) -> str:
        said, hostile = super()._text(request), self._texts[request.seed % len(self._texts)][:110]
        said = said.replace("<think>\n", f"<think>\n{hostile} ", 1)
        return f"{said} The answer is: {hostile}" if request.seed % 3 == 0 else said


class UnfriendlyProject(Project):
    """A project whose models all say hostile texts."""

    bait: str = BAIT

    @property
    def engines(self) -> Engines:
        return unfriendly_engines(self.home, self.fake, self.bait)


def unfriendly_engines(home: Path, fake: Fake, bait: str) -> Engines:
    """Engines that find the real models and open unfriendly ones."""

    class Unfriendly(Engines):
        @contextmanager
        def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
            yield UnfriendlyEngine(model, fake, bait)

    return Unfriendly(home=str(home))


def unfriendly_home(folder: Path, recipe: Recipe, bait: str) -> UnfriendlyProject:
    """Everything made, held-out questions included; then a batch is quarantined and a parity check fails.

    The check `duplicate_questions` ends with every text, as the web UI is given texts in a description.
    """
    held_out = folder / "held_out.jsonl"
    write_rows(held_out, hostile_rows(bait)[:6])
    for path, value in {
        "generation.max_tokens": 900,
        "evaluation.benchmarks": [{"name": "held_out", "path": str(held_out), "max_tokens": 900}],
    }.items():
        recipe = change(recipe, path, value)
    project = UnfriendlyProject(folder / "home", recipe, warns=True)
    project.bait = bait
    project.land(NAME, [*hostile_rows(bait), *malformed_rows(bait)])
    fails = dict[str, bool]()  # some requests of each step, whatever their ids: these hold the bait's port
    project.fake.fails = lambda request_id: fails.setdefault(request_id, len(fails) % 4 == 1)
    project.materialize("*checkpoint_t100")
    fails.clear()  # there may be one rollout alone, and it is to be shown
    project.materialize("student_rollouts,benchmark_questions,evaluations")
    quarantine_batch(project.warehouse, "other-0123456789ab", "; ".join(hostile_texts(bait)), "a step", 3, "a run")
    with project.instance() as instance:
        instance.report_runless_asset_event(check_evaluation(quarantine(project.warehouse).now))
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("prompts"),
                check_name="duplicate_questions",
                passed=False,
                description=f"All of them: {codes(hostile_texts(bait))}",
                metadata={f"text {index}": code_value(text) for index, text in enumerate(hostile_texts(bait))},
                partition=batches(instance)[0],
            )
        )
    project.fake.fails = lambda request_id: True
    with project.instance() as instance, suppress(RunFailed):
        parity = ["teacher_generations_t060"]
        execute(instance, project.definitions, parity, batches(instance)[0], project.home, only_checks=True)
    return project


def malformed_rows(bait: str) -> list[QuestionRow]:
    """Lines that are rejected, each with a reason that quotes them."""
    texts = hostile_texts(bait)
    return [
        *[{"question": text, "verifier": text} for text in texts[:4]],
        *[{"question": [text]} for text in texts[4:8]],  # type: ignore[dict-item]
        *[{text: text} for text in texts[8:12]],
        *[{"question": "1 + 1?", "reference_answer": text, "verifier": "math"} for text in texts[12:]],
    ]
