"""Measures a world's models with plain PyTorch: accuracy per domain before, between and after two SFT stages.

    python bench/check_models.py [demo | school]

Left out, because the pipeline is there for it: divergence-aware sampling, filters, mixed policy, provenance.
"""

import argparse
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from dasd_resources.chat.tokenizer_files import load_tokenizer
from dasd_resources.demo.examples import DEMO
from dasd_resources.demo.questions import NUM_PROMPTS, SEED, TEST_FILE, QuestionRow, questions, read_rows, score
from dasd_resources.demo.tiny_models import END_OF_TURN, STUDENT_SYSTEM_PROMPT, Encoded, Example, encode, fit, render
from dasd_resources.school.catalogue import FAMILY_OF_DOMAIN
from dasd_resources.school.questions import HELD_OUT_FILES, SCHOOL, first_rows
from dasd_resources.school.questions import NUM_PROMPTS as PROMPTS_PER_FAMILY


@dataclass(frozen=True)
class World:
    """A pair of models with the questions they are measured on.

    held_out: a file that no setting was chosen on, or, where choices are made with it, the validation questions.
    """

    folder: Path
    held_out: Path
    prompts: Callable[[], list[QuestionRow]]


WORLDS = {
    "demo": World(DEMO, TEST_FILE, lambda: list(islice(questions("prompts"), NUM_PROMPTS))),
    "school": World(SCHOOL, HELD_OUT_FILES["validation"], lambda: first_rows("prompts", PROMPTS_PER_FAMILY)),
}


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer and system prompt."""

    model: Qwen3ForCausalLM
    tokenizer: PreTrainedTokenizerFast
    system_prompt: str | None

    def prompt(self, row: QuestionRow) -> str:
        """The rendered prompt of a question."""
        return render(str(row["question"]), self.system_prompt)


def load(folder: Path, system_prompt: str | None) -> LoadedModel:
    """A saved model, ready to answer."""
    tokenizer = load_tokenizer(folder).tokenizer
    return LoadedModel(Qwen3ForCausalLM.from_pretrained(folder).eval(), tokenizer, system_prompt)


@torch.inference_mode()
def sample(speaker: LoadedModel, prompts: list[str], temperature: float, batch_size: int = 256) -> list[list[int]]:
    """One response per prompt as token ids without the end of turn; at most 256 tokens."""
    responses: list[list[int]] = []
    speaker.tokenizer.padding_side = "left"
    pad = speaker.tokenizer.pad_token_id
    eos = speaker.tokenizer.eos_token_id
    for start in range(0, len(prompts), batch_size):
        inputs = speaker.tokenizer(prompts[start : start + batch_size], return_tensors="pt", padding=True)
        out = speaker.model.generate(**inputs, temperature=temperature, top_k=0, top_p=1.0, max_new_tokens=256)
        new = out[:, inputs.input_ids.shape[1] :].tolist()
        responses += [[t for t in ids[: ids.index(eos) if eos in ids else None] if t != pad] for ids in new]
    return responses


def final_answer(text: str) -> str:
    """What is scored: the text after the last `answer is`, less its full stop, else the whole answer part."""
    answer = text.rpartition("</think>")[2].strip()
    return re.split(r"answer is|Answer:", answer)[-1].strip().removesuffix(".")


@dataclass(frozen=True)
class Answered:
    """Samples of every question: responses as texts, whether each is correct, and its length in tokens; (Q, S) each."""

    rows: list[QuestionRow]
    texts: list[list[str]]
    correct: torch.Tensor
    lengths: torch.Tensor

    def only(self, domain: str) -> "Answered":
        """The questions of one domain."""
        at = [index for index, row in enumerate(self.rows) if row["domain"] == domain]
        rows, texts = [self.rows[index] for index in at], [self.texts[index] for index in at]
        return Answered(rows, texts, self.correct[at], self.lengths[at])

    def accuracy(self) -> tuple[float, float]:
        """avg@S and its standard error clustered by question."""
        per_question = self.correct.mean(1)
        return per_question.mean().item(), per_question.std().item() / math.sqrt(len(self.rows))

    def procedures(self) -> str:
        """How often each procedure is gone and how often right, and how many of them a question sees; else empty."""
        found: dict[str, list[float]] = {}
        seen = []
        for row, texts, correct in zip(self.rows, self.texts, self.correct.tolist(), strict=True):
            family = FAMILY_OF_DOMAIN.get(str(row["domain"]))
            names = [family.procedure_of(text) if family else None for text in texts]
            seen.append(len(set(names) - {None}))
            for name, is_correct in zip(names, correct, strict=True):
                found.setdefault(name or "none", []).append(is_correct)
        total = sum(map(len, found.values()))
        shares = [f"{name} {len(c) / total:.2f} ({sum(c) / len(c):.2f} right)" for name, c in sorted(found.items())]
        return f"{sum(seen) / len(seen):.2f} procedures per question: {', '.join(shares)}" if any(seen) else ""


def answered(speaker: LoadedModel, rows: list[QuestionRow], temperature: float, samples: int) -> Answered:
    """`samples` responses to every question, scored."""
    repeated = [row for row in rows for _ in range(samples)]
    responses = sample(speaker, [speaker.prompt(row) for row in repeated], temperature)
    texts = speaker.tokenizer.batch_decode(responses)
    correct = [score(final_answer(text), row) == 1.0 for text, row in zip(texts, repeated, strict=True)]
    return Answered(
        rows,
        [texts[start : start + samples] for start in range(0, len(texts), samples)],
        torch.tensor(correct).view(-1, samples).float(),
        torch.tensor([len(ids) for ids in responses]).view(-1, samples).float(),
    )


def report(name: str, speaker: LoadedModel, rows: list[QuestionRow], temperature: float, samples: int) -> None:
    """Print a line of measurements, and one for each domain if there are several."""
    began = time.monotonic()
    everything = answered(speaker, rows, temperature, samples)
    domains = sorted({str(row["domain"]) for row in rows})
    parts = {domain: everything.only(domain) for domain in domains if len(domains) > 1}
    print(f"{name}, T={temperature}, {time.monotonic() - began:.0f} s", flush=True)
    for domain, part in {"all": everything, **parts}.items():
        mean, error = part.accuracy()
        lengths = f"{part.lengths.mean():.0f} tokens (longest {part.lengths.max():.0f})"
        print(f"  {domain}: {mean:.3f} ± {error:.3f}, {lengths}; {part.procedures() if parts else ''}", flush=True)


def epochs(rows: list[Encoded], num_epochs: int, batch_size: int, rng: Random) -> list[list[Encoded]]:
    """Shuffled batches of each epoch, similar lengths together."""
    batches = []
    for _ in range(num_epochs):
        order = sorted(rows, key=lambda row: len(row[0]) + rng.uniform(-8, 8))
        epoch = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        rng.shuffle(epoch)
        batches += epoch
    return batches


def train_stage(
    student: LoadedModel, teacher: LoadedModel, rows: list[QuestionRow], temperature: float, args: argparse.Namespace
) -> None:
    """SFT on one teacher response per question, end of turn included."""
    texts = teacher.tokenizer.batch_decode(sample(teacher, [teacher.prompt(row) for row in rows], temperature))
    examples = [Example(student.prompt(row), text + END_OF_TURN) for row, text in zip(rows, texts, strict=True)]
    batches = epochs(encode(examples, student.tokenizer), args.epochs, args.batch_size, Random(SEED))
    fit(student.model, batches, len(batches), args.lr, args.min_lr)


def cut_off_share(student: LoadedModel, teacher: LoadedModel, rows: list[QuestionRow], temperature: float) -> float:
    """Share of the student's rollouts (T=1) longer than 1.5 times a teacher's response, both in student tokens."""
    texts = teacher.tokenizer.batch_decode(sample(teacher, [teacher.prompt(row) for row in rows], temperature))
    references = [len(ids) for ids in student.tokenizer(texts).input_ids]
    rollouts = sample(student, [student.prompt(row) for row in rows], 1.0)
    return sum(len(ids) > math.ceil(1.5 * cap) for ids, cap in zip(rollouts, references, strict=True)) / len(rows)


def main() -> None:
    """Print every number of the model card."""
    parser = argparse.ArgumentParser(description="Measure the models of the demo or of the school.")
    parser.add_argument("world", choices=list(WORLDS), nargs="?", default="demo")
    parser.add_argument("--models", type=Path, help="folder of teacher and student; default: the shipped ones")
    parser.add_argument("--samples", type=int, default=4, help="of each question")
    parser.add_argument("--epochs", type=int, default=8, help="of each stage; 0: no stage")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--min-lr", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    world = WORLDS[args.world]
    folder, held_out, prompts = args.models or world.folder, read_rows(world.held_out), world.prompts()
    teacher, student = load(folder / "teacher", None), load(folder / "student", STUDENT_SYSTEM_PROMPT)
    for temperature in (0.6, 1.0):
        report("teacher", teacher, held_out, temperature, args.samples)
        report("student", student, held_out, temperature, args.samples)
    print(f"cut off before: {cut_off_share(student, teacher, prompts, 1.0):.3f}")
    for stage, temperature in ((1, 0.6), (2, 1.0)) if args.epochs else ():
        train_stage(student, teacher, prompts, temperature, args)
        report(f"stage {stage}", student, held_out, 1.0, args.samples)
        print(f"cut off after stage {stage}: {cut_off_share(student, teacher, prompts, temperature):.3f}", flush=True)


if __name__ == "__main__":
    main()
