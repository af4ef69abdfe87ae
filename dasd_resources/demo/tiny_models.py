"""Makes tiny Qwen3 models with tokenizers of their own, from a seed, as a `TinyModel` describes them.

Left out: packing, mixed precision, checkpoints, early stopping.
"""

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
BATCH_SIZE, PEAK_LEARNING_RATE = 16, 4e-3


@dataclass(frozen=True)
class Example:
    """A training text: no loss on the context, loss on the target."""

    context: str
    target: str


@dataclass(frozen=True)
class TinyModel:
    """One model and how it is trained: on batches of what `draw` returns, one training example at a time.

    folder: where it ships, `<world>/<role>`. num_steps: batches of each cycle, at whose start the learning rate is back
    at its peak; more cycles go on from a model that is already of use.
    """

    folder: Path
    vocab_size: int
    num_steps: tuple[int, ...]
    draw: Callable[[Random], Example]
    hidden_size: int = 96
    num_layers: int = 2
    num_heads: int = 3
    num_key_value_heads: int = 1

    @property
    def name(self) -> str:
        """World and role, such as demo/teacher."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def render(question: str, system_prompt: str | None = None) -> str:
    """The prompt up to the assistant's turn, as the chat template renders it."""
    system = f"<|im_start|>system\n{system_prompt}<|im_end|>\n" if system_prompt else ""
    return f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


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


def untrained(tiny_model: TinyModel, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 of this size with random weights."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=tiny_model.hidden_size,
        intermediate_size=2 * tiny_model.hidden_size,
        num_hidden_layers=tiny_model.num_layers,
        num_attention_heads=tiny_model.num_heads,
        num_key_value_heads=tiny_model.num_key_value_heads,
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
    tiny_model: TinyModel, tokenizer: PreTrainedTokenizerFast, rng: Random, size: int
) -> Iterator[list[Encoded]]:
    """Endless batches of fresh examples, each of similar lengths."""
    while True:
        rows = sorted(encode([tiny_model.draw(rng) for _ in range(64 * size)], tokenizer), key=lambda row: len(row[0]))
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


def make(tiny_model: TinyModel, seed: int) -> Made:
    """Tokenizer, then model."""
    rng = Random(f"{tiny_model.folder.name}-{seed}")
    torch.manual_seed(seed)
    corpus = (e.context + e.target for e in (tiny_model.draw(rng) for _ in range(4000)))
    tokenizer = make_tokenizer(corpus, tiny_model.vocab_size)
    model = untrained(tiny_model, tokenizer)
    batches = drawn_batches(tiny_model, tokenizer, rng, BATCH_SIZE)
    for num_steps in tiny_model.num_steps:
        fit(model, batches, num_steps, PEAK_LEARNING_RATE)
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
