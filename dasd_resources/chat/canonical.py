"""Canonical text: one form for every response, and the place in it of every token that was sampled.

    <think>\\nBODY\\n</think>\\nANSWER      finished thinking (BODY and ANSWER may be empty)
    <think>\\nBODY                         unfinished thinking, trailing whitespace kept
    ANSWER                                no thinking, all whitespace kept

So a text either starts with `<think>`, newline, or has no thinking part; an empty one is kept where a model wrote it.

Whitespace goes only where BODY or ANSWER touches a delimiter. A response is first raw text (its tokens' bytes), then a
map from raw to canonical characters; a token's offset is where its first surviving character went. Left out: any
knowledge of tokenizers (`token_bytes.py`) and of who wrote the delimiters (`think_tags.py`, `harmony.py`).
"""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OPEN, CLOSE = "<think>", "</think>"
OPENING, CLOSING = f"{OPEN}\n", f"\n{CLOSE}\n"
TOOL_CALL_MARKERS = (
    "<tool_call>",
    "<function_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "<|tool_call",
    "<｜tool▁call",
)

Array = NDArray[np.int64]
Span = tuple[int, int]
Part = tuple[str, int | None]  # text to encode and its offset in the canonical text; None: markers that are not in it


@dataclass(frozen=True)
class Aligned:
    """A canonical text and a code-point offset into it per token, -1 if none of the token's characters is in it."""

    text: str
    offsets: list[int]
    tool_call: bool = False


@dataclass(frozen=True)
class Delimiters:
    """Raw spans of `<think>` and `</think>`: empty where the raw text lacks one it needs, None where there is none."""

    opening: Span | None
    closing: Span | None


@dataclass(frozen=True)
class Raw:
    """The text of a token sequence; first, last: (T,) index of the character holding a token's first and last byte.

    A token without bytes has last < first.
    """

    text: str
    first: Array
    last: Array

    def starts(self) -> list[int]:
        """(T,) index of the character a token starts with or within, -1 for a token without bytes."""
        starts: list[int] = np.where(self.first <= self.last, self.first, -1).tolist()
        return starts


def split_thinking(text: str) -> tuple[str | None, str | None]:
    """Thinking body and answer body of a canonical text; None for a part that is absent."""
    if not text.startswith(OPENING):
        return None, text
    body, closing, answer = text[len(OPENING) :].partition(CLOSING)
    return body, answer if closing else None


def without_empty_thinking(text: str) -> str:
    """The answer alone of a canonical text whose thinking is blank, finished or not; any other text as it is."""
    body, answer = split_thinking(text)
    return text if body is None or body.strip() else answer or ""


def cut_points(aligned: Aligned) -> list[int]:
    """Indices of the tokens before which a response may be cut: each is the first at a character outside a delimiter.

    The text before that character is the prefix. It is whole also where the token before has the character's first
    bytes, as byte-level vocabularies allow.
    """
    closing = aligned.text.find(CLOSING, len(OPENING)) if aligned.text.startswith(OPENING) else -1
    inside = set(range(1, len(OPENING))) if aligned.text.startswith(OPENING) else set()
    if closing >= 0:
        inside |= set(range(closing + 1, closing + len(CLOSING)))
    # Some offsets are -1, and tokens that split a character's bytes share its offset: only the first of these counts,
    # as the others would name the same prefix again.
    points, furthest = [], -1
    for index, offset in enumerate(aligned.offsets):
        if offset > furthest and offset not in inside:
            points.append(index)
        furthest = max(furthest, offset)
    return points


def has_tool_call(text: str) -> bool:
    """Whether the text holds the marker of a tool or function call, as instruct models write them."""
    return any(marker in text for marker in TOOL_CALL_MARKERS)


def decode(pieces: Sequence[bytes]) -> Raw:
    """Raw text of tokens given as bytes; invalid UTF-8 reads as bytes.decode(errors="replace") reads it."""
    data = b"".join(pieces)
    # 1. Per byte, the index of the character it belongs to; one more entry for tokens without bytes at the end.
    begins = _character_starts(data)
    character = np.append(np.cumsum(begins) - 1, np.count_nonzero(begins))
    # 2. Per token, the characters of its first and last byte: tokens and characters overlap in any way, as byte-level
    #    vocabularies split characters.
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    ends = np.cumsum(lengths)
    first = character[ends - lengths]
    last = np.where(lengths > 0, character[ends - 1], first - 1)
    return Raw(data.decode("utf-8", errors="replace"), first, last)


def canonical(raw: Raw, delimiters: Delimiters) -> tuple[str, list[int]]:
    """Canonical text, and per token the offset in it of its first raw character that is still there, or -1."""
    # 1. Where each raw character went, -1 if it is not in the canonical text.
    text, where = _rewrite(raw.text, delimiters)
    # 2. Per raw character, the next one that is still there (itself, if it is): a running minimum from the right, with
    #    `size` for "none follows", so that no loop over characters is needed.
    size = len(where)
    positions = np.where(where >= 0, np.arange(size), size)
    surviving = np.append(np.minimum.accumulate(positions[::-1])[::-1], size)[raw.first]
    # 3. A token has that character's place if the character lies within the token: one whose characters are all gone
    #    must not claim its successor's.
    offsets = np.where(surviving <= raw.last, np.append(where, -1)[surviving], -1)
    return text, offsets.tolist()


def _character_starts(data: bytes) -> NDArray[np.bool_]:
    """Per byte, whether it begins a character; a run of invalid bytes that becomes one U+FFFD begins one."""
    # In UTF-8, every byte that is not 10xxxxxx begins a character. Of an invalid run (a continuation byte by itself, a
    # sequence cut short) the codec makes one U+FFFD: only its first byte may count, and it may be 10xxxxxx.
    begins: NDArray[np.bool_] = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    for start in _invalid_utf8(data):
        begins[start] = True  # the rest of the run are continuation bytes, which begin none
    return begins


def _invalid_utf8(data: bytes) -> Iterator[int]:
    """Where each run of bytes begins that the codec replaces by one U+FFFD."""
    view, position = memoryview(data), 0
    while True:
        try:
            codecs.utf_8_decode(view[position:], "strict", True)
            return
        except UnicodeDecodeError as error:
            yield position + error.start
            position += error.end


def _rewrite(raw: str, delimiters: Delimiters) -> tuple[str, Array]:
    """Canonical text, and per raw character its place there or -1."""
    # Without thinking nothing is rewritten.
    if delimiters.opening is None:
        return raw, np.arange(len(raw))
    writer = _Writer(raw)
    body_end, answer_start = delimiters.closing or (len(raw), len(raw))
    body = _body(raw, delimiters.opening[1], body_end, delimiters.closing is not None)
    # <think>, newline, body; what stands before the opening is dropped.
    writer.tag(OPEN, delimiters.opening)
    writer.newline(delimiters.opening[1], body[0])
    writer.keep(*body)
    # Newline, </think>, newline, answer: each newline is a raw one where there is one, so that its token keeps a place.
    if delimiters.closing is not None:
        answer = _skip_whitespace(raw, answer_start, len(raw))
        writer.newline(body[1], body_end)
        writer.tag(CLOSE, delimiters.closing)
        writer.newline(answer_start, answer)
        writer.keep(answer, len(raw))
    return "".join(writer.written), writer.where


def _body(raw: str, start: int, end: int, closed: bool) -> Span:
    """Span of the body inside its whitespace; the run around an empty one is shared out, its first newline in front."""
    # A body with text: without its leading whitespace, and if it ended, its trailing whitespace. Unfinished thinking
    # keeps that: the model may go on from it.
    stripped = _skip_whitespace(raw, start, end)
    if stripped < end:
        return stripped, start + len(raw[start:end].rstrip()) if closed else end
    # An empty body: `<think>\n\n</think>` has a newline for each side, so the run is split behind its first newline.
    newline = raw.find("\n", start, end) if closed else -1
    middle = newline + 1 if newline >= 0 else end
    return middle, middle


def _skip_whitespace(raw: str, start: int, end: int) -> int:
    return end - len(raw[start:end].lstrip())


class _Writer:
    """Canonical text under construction, with the place of each raw character written so far."""

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.where = np.full(len(raw), -1, np.int64)
        self.written: list[str] = []
        self.length = 0

    def keep(self, start: int, end: int) -> None:
        self.where[start:end] = np.arange(self.length, self.length + end - start)
        self._write(self.raw[start:end])

    def tag(self, tag: str, span: Span) -> None:
        """Write a delimiter: the raw one, or where the raw text lacks it a new one that no token owns."""
        if span[0] < span[1]:
            self.keep(*span)
        else:
            self._write(tag)

    def newline(self, start: int, end: int) -> None:
        """Write the newline beside a delimiter: the first one of the raw whitespace there, else a new one."""
        found = self.raw.find("\n", start, end)
        if found >= 0:
            self.where[found] = self.length
        self._write("\n")

    def _write(self, text: str) -> None:
        self.written.append(text)
        self.length += len(text)
