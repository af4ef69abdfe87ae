"""Makes the demo's teacher and student: two tokenizers and two tiny Qwen3 models, from a seed, in minutes on two cores.

The teacher learns to work 3-6 term chain sums step by step, and to go on from a prefix that is cut anywhere or has
just slipped. The student learns single steps in the same wording, and bare guesses at longer sums: what distillation
has to teach it is the procedure. Left out: packing, mixed precision, checkpoints, early stopping.
"""

import argparse
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from dasd_resources.demo.questions import SEED, chain_sum, split_of
from dasd_resources.demo.traces import QUESTION, canonical, steps_of, worked_body

STUDENT_SYSTEM_PROMPT = "You are a helpful assistant."
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINK_TOKENS = ("<think>", "</think>")  # single tokens that decoding keeps, as in Qwen3
SPLIT_PATTERN = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # Qwen's, but a digit takes the space before it
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
END_OF_TURN = "<|im_end|>"


@dataclass(frozen=True)
class Example:
    """A training text: no loss on the context, loss on the target."""

    context: str
    target: str


@dataclass(frozen=True)
class DemoModel:
    """How one of the two models is trained: vocabulary, steps, and `draw`, which returns one training example."""

    name: str
    vocab_size: int
    num_steps: int
    draw: Callable[[Random], Example]


def render(question: str, system_prompt: str | None = None) -> str:
    """The prompt up to the assistant's turn, as the chat template renders it."""
    system = f"<|im_start|>system\n{system_prompt}<|im_end|>\n" if system_prompt else ""
    return f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def draw_expression(rng: Random) -> str:
    """A 3-6 term sum from the split that is reserved for the models."""
    while True:
        entry = chain_sum(3, 6, SEED + 2_000_000)[rng.randrange(1_000_000)]
        if split_of(entry["question"]) == "models":
            return str(entry["metadata"]["expression"])


def teacher_example(rng: Random) -> Example:
    """A worked answer; one in four starts inside it, at any character or just behind a slip."""
    expression = draw_expression(rng)
    slip_at = rng.randrange(len(steps_of(expression))) if rng.random() < 0.2 else None
    sentences, slipped, separator = worked_body(expression, rng, slip_at)
    response, cut = canonical(separator.join(sentences), steps_of(expression)[-1].c), 0
    if slipped and rng.random() < 0.75:
        cut = len("<think>\n") + len(separator.join(sentences[:slipped]))
    elif rng.random() < 0.1:
        cut = rng.randrange(len("<think>\n"), len(response))
    return Example(render(QUESTION.format(expression=expression)) + response[:cut], response[cut:] + END_OF_TURN)


def draw_short_expression(rng: Random) -> str:
    """One step from any running total, or two steps from a total of two digits: never a demo question."""
    num_steps = rng.choice((1, 1, 2))
    first = rng.choice([n for n in range(-40, 51) if num_steps == 1 or not 0 <= n <= 9])
    return str(first) + "".join(f" {rng.choice('+-')} {rng.randint(0, 9)}" for _ in range(num_steps))


def student_example(rng: Random) -> Example:
    """A short sum worked as the teacher would, or a bare guess, often wrong, at a longer one."""
    if rng.random() < 0.2:
        expression = draw_expression(rng)
        response = canonical("", steps_of(expression)[-1].c + rng.choice((0, rng.randint(-5, 5))))
    else:
        expression = draw_short_expression(rng)
        sentences, _, separator = worked_body(expression, rng)
        response = canonical(separator.join(sentences), steps_of(expression)[-1].c)
    return Example(render(QUESTION.format(expression=expression), STUDENT_SYSTEM_PROMPT), response + END_OF_TURN)


def make_tokenizer(corpus: Iterator[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE over all 256 bytes, so that any text survives a round trip; digits stay apart."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    room = vocab_size - len(SPECIAL_TOKENS + THINK_TOKENS)
    trainer = trainers.BpeTrainer(vocab_size=room, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in THINK_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained two-layer Qwen3 of about 0.2M parameters."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )
    model = Qwen3ForCausalLM(config)
    eos = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=tokenizer.pad_token_id, do_sample=True)
    return model


Made = tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]
Encoded = tuple[list[int], list[int]]  # input ids and labels, (T,) each; -100 where there is no loss


def encode(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    """Ids and labels; context and target are tokenised apart, so the target starts on a token."""
    contexts = tokenizer([e.context for e in examples]).input_ids
    targets = tokenizer([e.target for e in examples]).input_ids
    return [(c + t, [-100] * len(c) + t) for c, t in zip(contexts, targets, strict=True)]


def collate(rows: list[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded (B, T) input ids and labels; causal attention needs no mask for padding on the right."""
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows])
    return input_ids, labels


def drawn_batches(
    demo_model: DemoModel, tokenizer: PreTrainedTokenizerFast, rng: Random, size: int
) -> Iterator[list[Encoded]]:
    """Endless batches of fresh examples, each of similar lengths."""
    while True:
        rows = sorted(encode([demo_model.draw(rng) for _ in range(64 * size)], tokenizer), key=lambda row: len(row[0]))
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        rng.shuffle(batches)
        yield from batches


def learning_rate(step: int, num_steps: int, peak: float, floor: float = 0.0) -> float:
    """Linear warm-up over a twentieth of the steps, then a cosine from peak to floor."""
    warmup = max(1, num_steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))


def fit(
    model: Qwen3ForCausalLM, batches: Iterable[list[Encoded]], num_steps: int, peak: float, floor: float = 0.0
) -> None:
    """Train in place with AdamW on `num_steps` batches."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    pad, began = int(model.config.pad_token_id), time.monotonic()
    model.train()
    for step, rows in enumerate(islice(batches, num_steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, num_steps, peak, floor)
        input_ids, labels = collate(rows, pad)
        loss = model(input_ids=input_ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 500 == 0 or step == num_steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)
    model.eval()


def make(demo_model: DemoModel, seed: int, batch_size: int = 16, peak: float = 4e-3) -> Made:
    """Tokenizer, then model."""
    rng = Random(f"{demo_model.name}-{seed}")
    torch.manual_seed(seed)
    corpus = (e.context + e.target for e in (demo_model.draw(rng) for _ in range(4000)))
    tokenizer = make_tokenizer(corpus, demo_model.vocab_size)
    model = make_model(tokenizer)
    fit(model, drawn_batches(demo_model, tokenizer, rng, batch_size), demo_model.num_steps, peak)
    return model, tokenizer


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a model folder under a temporary name and rename it into place."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    folder.mkdir(exist_ok=True)
    for file in temporary.iterdir():
        os.replace(file, folder / file.name)
    temporary.rmdir()


DEMO_MODELS = (
    DemoModel("teacher", 448, 9000, teacher_example),
    DemoModel("student", 384, 7000, student_example),
)


def main() -> None:
    """Make the models asked for."""
    parser = argparse.ArgumentParser(description="Make the demo's teacher and student.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", choices=[demo_model.name for demo_model in DEMO_MODELS])
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--num-steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for demo_model in DEMO_MODELS:
        if args.only in (None, demo_model.name):
            if args.num_steps:
                demo_model = DemoModel(demo_model.name, demo_model.vocab_size, args.num_steps, demo_model.draw)
            save(*make(demo_model, args.seed), args.out / demo_model.name)


if __name__ == "__main__":
    main()
