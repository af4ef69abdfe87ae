"""Tokenizers of a few hundred tokens, of the kinds that language models have."""

import json
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from dasd_resources.chat.tokenizer_probe import PLAIN

CORPUS = [
    "<think>\nLet me add the numbers. 12 + 30 is 42, so the answer is 42.\n\nCheck: yes.\n</think>\nThe answer is 42.",
    "First, note that the sum of the angles is 180. Hence x = 60.\n</think>\n\nx = 60",
    "让我们先计算一下。答案是四十二。",
] * 8
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
SPECIAL = ["<|im_start|>", "<|im_end|>"]


def byte_level(special: Sequence[str] = SPECIAL, tags: bool = True, size: int = 420) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in ("<think>", "</think>") if tags])
    return tokenizer


def sentencepiece_bpe(prefix: bool) -> Tokenizer:
    """As Llama's (a space in front, dropped by the decoder) or Gemma's (no such space)."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    replace, space = normalizers.Replace(" ", "▁"), decoders.Replace("▁", " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), *strip])
    special = ["<unk>", *SPECIAL, *BYTE_TOKENS]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    )
    return _bytes_not_special(tokenizer)


def llama_of_transformers_5() -> Tokenizer:
    tokenizer = sentencepiece_bpe(prefix=True)
    spec = json.loads(tokenizer.to_str())
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return Tokenizer.from_str(json.dumps({**spec, "normalizer": None, "pre_tokenizer": metaspace}))


def unigram(byte_fallback: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", *SPECIAL, *(BYTE_TOKENS if byte_fallback else [])]
    trainer = trainers.UnigramTrainer(vocab_size=460, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.Metaspace()
    if byte_fallback:
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return _bytes_not_special(tokenizer, byte_fallback)


def _bytes_not_special(tokenizer: Tokenizer, byte_fallback: bool | None = None) -> Tokenizer:
    """Byte tokens as plain pieces of the model, as in real tokenizers; trainers can only make them special ones."""
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] not in BYTE_TOKENS]
    if byte_fallback is not None:
        spec["model"]["byte_fallback"] = byte_fallback
    return Tokenizer.from_str(json.dumps(spec))


def tekken_like() -> Tokenizer:
    """Byte-level, with a split of its own: case ends a word, a sign before a word belongs to it, digits stay apart."""
    tokenizer = Tokenizer(models.BPE())
    word = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]+"
    split = Regex(word + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(split, "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=460, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator([*CORPUS, *PLAIN, *PLAIN], trainer)
    return tokenizer
