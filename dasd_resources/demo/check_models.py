"""Measures the demo models against their bars with plain PyTorch: accuracy before, between and after two SFT stages.

Left out, because the pipeline is there for it: divergence-aware sampling, filters, mixed policy, provenance.
"""

import argparse
import math
import re
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from dasd_resources.chat.tokenizer_files import load_tokenizer
from dasd_resources.demo.make_models import END_OF_TURN, STUDENT_SYSTEM_PROMPT, Encoded, Example, encode, fit, render
from dasd_resources.demo.questions import NUM_PROMPTS, SEED, TEST_FILE, QuestionRow, questions, read_rows, score

DEMO = Path(__file__).parent


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


def accuracy(
    speaker: LoadedModel, rows: list[QuestionRow], temperature: float, samples: int = 4
) -> tuple[float, float, list[int]]:
    """avg@samples, its standard error clustered by question, and the responses' lengths in tokens."""
    prompts = [speaker.prompt(row) for row in rows for _ in range(samples)]
    responses = sample(speaker, prompts, temperature)
    texts = speaker.tokenizer.batch_decode(responses)
    repeated = [row for row in rows for _ in range(samples)]
    correct = torch.tensor([score(final_answer(text), row) == 1.0 for text, row in zip(texts, repeated, strict=True)])
    per_question = correct.view(-1, samples).float().mean(1)
    return per_question.mean().item(), per_question.std().item() / math.sqrt(len(rows)), [len(ids) for ids in responses]


def report(name: str, speaker: LoadedModel, rows: list[QuestionRow], temperature: float) -> None:
    """Print one line of measurements."""
    began = time.monotonic()
    mean, error, lengths = accuracy(speaker, rows, temperature)
    print(
        f"{name} T={temperature}: {mean:.3f} ± {error:.3f}, {sum(lengths) / len(lengths):.0f} tokens "
        f"(longest {max(lengths)}), {time.monotonic() - began:.0f} s",
        flush=True,
    )


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
    parser = argparse.ArgumentParser(description="Measure the demo's models.")
    parser.add_argument("--models", type=Path, default=DEMO)
    parser.add_argument("--num-prompts", type=int, default=NUM_PROMPTS)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--min-lr", type=float, default=3e-4)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    test, prompts = read_rows(TEST_FILE), list(islice(questions("prompts"), args.num_prompts))
    teacher, student = load(args.models / "teacher", None), load(args.models / "student", STUDENT_SYSTEM_PROMPT)
    for temperature in (0.6, 1.0):
        report("teacher", teacher, test, temperature)
    report("student", student, test, 1.0)
    print(f"cut off before: {cut_off_share(student, teacher, prompts, 1.0):.3f}")
    for stage, temperature in ((1, 0.6), (2, 1.0)):
        train_stage(student, teacher, prompts, temperature, args)
        report(f"stage {stage}", student, test, 1.0)
        print(f"cut off after stage {stage}: {cut_off_share(student, teacher, prompts, temperature):.3f}", flush=True)


if __name__ == "__main__":
    main()
