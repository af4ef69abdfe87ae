"""Token ids to bytes and text to token ids, for byte-level BPE and for SentencePiece BPE and Unigram.

Both follow the tokenizer's own tokenizer.json: its decoder says which bytes a token stands for, and a copy of it made
to go on from earlier text (no space put in front, special tokens never read into plain text) encodes responses.
Left out: WordPiece, CTC and regular-expression decoders; no current language model has one, and a guess would move
offsets.
"""

import json
import re
from collections.abc import Sequence
from typing import TypedDict

from tokenizers import Tokenizer

from dasd_resources.chat.canonical import CLOSE, OPEN
from dasd_resources.recipe import RecipeError

BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")


class DecoderStep(TypedDict, total=False):
    """A decoder, normalizer or pre-tokenizer of tokenizer.json, or a sequence of them."""

    type: str
    decoders: list["DecoderStep"]
    normalizers: list["DecoderStep"]
    pretokenizers: list["DecoderStep"]
    pattern: dict[str, str]
    content: str
    replacement: str
    prepend_scheme: str
    add_prefix_space: bool
    start: int
    stop: int


class AddedToken(TypedDict):
    """An entry of tokenizer.json's added_tokens."""

    id: int
    content: str
    special: bool


class Spec(TypedDict):
    """The parts of tokenizer.json read here."""

    added_tokens: list[AddedToken]
    decoder: DecoderStep | None
    normalizer: DecoderStep | None
    pre_tokenizer: DecoderStep | None
    post_processor: DecoderStep | None
    truncation: dict[str, int] | None
    padding: dict[str, int] | None


def read_spec(tokenizer: Tokenizer) -> Spec:
    """tokenizer.json without what a caller may have switched on for one batch (truncation, padding)."""
    spec: Spec = json.loads(tokenizer.to_str())
    spec["truncation"] = spec["padding"] = None
    return spec


def continuing_encoder(spec: Spec) -> Tokenizer:
    """The tokenizer as it encodes text that goes on from a prompt: no space in front, special tokens spelled out.

    `<think>` stays one token where it is one, marked special or not. Offsets are untrimmed: a leading space counts.
    """
    tags = (OPEN, CLOSE)
    changed = {
        **spec,
        "added_tokens": [{**t, "special": t["special"] and t["content"] not in tags} for t in spec["added_tokens"]],
        "normalizer": _without_prefix(spec["normalizer"]),
        "pre_tokenizer": _without_prefix(spec["pre_tokenizer"]),
        "post_processor": None,
    }
    encoder = Tokenizer.from_str(json.dumps(changed))
    encoder.encode_special_tokens = True
    return encoder


def _without_prefix(step: DecoderStep | None) -> DecoderStep | None:
    """The step as it treats text that does not begin a text: nothing is put in front; None if that was all it did."""
    if step is None or step["type"] == "Prepend":
        return None
    match step["type"]:
        case "Sequence" if "normalizers" in step:
            return {**step, "normalizers": _all_without_prefix(step["normalizers"])}
        case "Sequence":
            return {**step, "pretokenizers": _all_without_prefix(step["pretokenizers"])}
        case "Metaspace":
            return {**step, "prepend_scheme": "never"}
        case "ByteLevel" if "add_prefix_space" in step:
            return {**step, "add_prefix_space": False}
    return step


def _all_without_prefix(steps: list[DecoderStep]) -> list[DecoderStep]:
    return [changed for step in steps if (changed := _without_prefix(step)) is not None]


class TokenBytes:
    """The bytes every token id stands for; ids without a token (a padded vocabulary) stand for none."""

    def __init__(self, tokenizer: Tokenizer, spec: Spec) -> None:
        steps = _flatten(spec["decoder"])
        check_decoder(steps)
        # Byte-level vocabularies write each byte as a stand-in character, but added tokens (`<think>`, `<|im_end|>`) as
        # they read. Decoded like the others, one with a letter of the byte alphabet would become other bytes.
        byte_level = any(step["type"] == "ByteLevel" for step in steps)
        literal = {t["id"] for t in spec["added_tokens"] if byte_level}
        self._table = {
            id: token.encode() if id in literal else _decode(token, steps)
            for token, id in tokenizer.get_vocab(with_added_tokens=True).items()
        }

    def pieces(self, token_ids: Sequence[int]) -> list[bytes]:
        """Bytes per token, of tokens that go on from earlier text, as a response does from its prompt.

        A space in front is text. The decoder of SentencePiece drops it where a text begins, but the model wrote it.
        """
        return [self._table.get(id, b"") for id in token_ids]


def check_decoder(steps: list[DecoderStep]) -> None:
    """Raise RecipeError unless every decoder is one whose bytes are known token by token."""
    # Before Fuse, Strip acts on every token; after it, on the joined text, at whose start there is nothing to strip in
    # a response: it goes on from its prompt.
    fused = False
    for step in steps:
        fused = fused or step["type"] == "Fuse"
        match step["type"]:
            case "ByteLevel" | "ByteFallback" | "Fuse" | "Metaspace":
                continue
            case "Replace" if "String" in step["pattern"]:
                continue
            case "Strip" if fused and step["stop"] == 0:
                continue
        raise RecipeError(
            f"the tokenizer's decoder {dict(step)} is not supported: use a model whose tokenizer.json decodes "
            "with ByteLevel, Metaspace, or Replace + ByteFallback + Fuse (+ Strip)"
        )


def _flatten(step: DecoderStep | None) -> list[DecoderStep]:
    if step is None:
        return [{"type": "none"}]
    if step["type"] == "Sequence":
        return [leaf for inner in step["decoders"] for leaf in _flatten(inner)]
    return [step]


def _decode(token: str, steps: list[DecoderStep]) -> bytes:
    for step in steps:
        match step["type"]:
            case "ByteLevel":
                return _byte_level(token)
            case "ByteFallback" if BYTE_TOKEN.fullmatch(token):
                return bytes([int(token[3:5], 16)])
            case "Replace":
                token = token.replace(step["pattern"]["String"], step["content"])
            case "Metaspace":
                token = token.replace(step["replacement"], " ")
    return token.encode()


def _byte_alphabet() -> dict[str, int]:
    """Byte by GPT-2's printable stand-in character: the byte's own where that prints, else one from U+0100 on."""
    # The three ranges that print in Latin-1: ! to ~, ¡ to ¬, ® to ÿ (0xAD, the soft hyphen, does not).
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printing]
    return {chr(b): b for b in printing} | {chr(256 + i): b for i, b in enumerate(hidden)}


BYTE_ALPHABET = _byte_alphabet()


def _byte_level(token: str) -> bytes:
    try:
        return bytes([BYTE_ALPHABET[character] for character in token])
    except KeyError:  # a character outside the alphabet: the token is written as it reads
        return token.encode()
