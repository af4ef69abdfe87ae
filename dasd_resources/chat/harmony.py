"""Responses in gpt-oss's harmony format: parsed on ids of the teacher's own special tokens, read as `<think>` text.

Generation begins after `<|start|>assistant`:
    <|channel|>analysis<|message|>THINKING<|end|><|start|>assistant<|channel|>final<|message|>ANSWER<|return|>
Thinking is every message up to the last one of the analysis channel, the answer the final ones after it; messages of
one part are joined by a blank line that no token owns, so their text and order are kept. Commentary, other roles and
all headers are not in the text (offset -1); a tool call is reported. Left out: rendering conversations, which the chat
template does, and the openai-harmony package, which downloads its vocabulary.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dasd_resources.chat.canonical import (
    CLOSE,
    OPEN,
    OPENING,
    Aligned,
    Delimiters,
    Part,
    Raw,
    Span,
    canonical,
    decode,
    has_tool_call,
    split_thinking,
)

MARKERS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>")
PROMPT_END = "<|start|>assistant"
ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"
MARKER = re.compile(r"(<\|\w+\|>)")
ROLE = re.compile(r"<\|start\|>\s*(\w*)")
CHANNEL = re.compile(r"<\|channel\|>\s*(\w*)")
TOOL_HEADER = re.compile(r"\bto=|<\|channel\|>\s*commentary")
JOINT = b"\n\n"
PLAIN = -1  # the id of prefix text, which is not tokenised to be read back


@dataclass(frozen=True)
class Message:
    """A header's text, the index of the <|message|> that ends it, and the index after the last token of its content."""

    header: str
    marker: int
    end: int

    @property
    def part(self) -> str:
        """`analysis` or `final`, the parts of a response; `other` for tool calls and other roles."""
        role, channel = ROLE.search(self.header), CHANNEL.search(self.header)
        if TOOL_HEADER.search(self.header) or (role and role.group(1) != "assistant"):
            return "other"
        name = channel.group(1) if channel else "final"
        return name if name in ("analysis", "final") else "other"


@dataclass(frozen=True)
class Harmony:
    """The format, by the ids its markers have in the teacher's tokenizer; `stops` end a message as <|end|> does."""

    markers: dict[str, int]
    stops: frozenset[int]

    def parts(self, text: str) -> list[Part]:
        """What follows `<|start|>assistant` to say `text`: thinking in the analysis channel, the answer in final."""
        body, answer = split_thinking(text)
        parts: list[Part] = []
        if body is not None:
            parts += [(ANALYSIS, None), (body, len(OPENING))]
        if body is not None and answer is not None:
            parts += [(f"<|end|>{PROMPT_END}", None)]
        if answer is not None and text:
            parts += [(FINAL, None), (answer, len(text) - len(answer))]
        return parts

    def read_response(self, token_ids: Sequence[int], pieces: Sequence[bytes]) -> Aligned:
        """Canonical text of a whole response; pieces: the bytes of each of its tokens, a marker's being its name."""
        messages, tail = self._messages(token_ids, pieces)
        silent = {*self.markers.values(), *self.stops}
        contents = [b"" if id in silent else piece for id, piece in zip(token_ids, pieces, strict=True)]
        text, offsets = _read([m for m in messages if m.part != "other"], contents)
        called = self.markers["<|call|>"] in token_ids
        called = called or any(TOOL_HEADER.search(header) for header in (tail, *(m.header for m in messages)))
        return Aligned(text, offsets, called or has_tool_call(text))

    def read_continuation(self, prefix_text: str, token_ids: Sequence[int], pieces: Sequence[bytes]) -> Aligned:
        """Canonical text of prefix and continuation, offsets of the continuation."""
        prefix = [chunk for part in self.parts(prefix_text) for chunk in self._chunks(part)]
        read = self.read_response(
            [*(id for id, _ in prefix), *token_ids],
            [*(piece for _, piece in prefix), *pieces],
        )
        return Aligned(read.text, read.offsets[len(prefix) :], read.tool_call)

    def _chunks(self, part: Part) -> list[tuple[int, bytes]]:
        text, start = part
        if start is not None:
            return [(PLAIN, text.encode())]
        return [(self.markers.get(chunk, PLAIN), chunk.encode()) for chunk in MARKER.split(text)]

    def _messages(self, token_ids: Sequence[int], pieces: Sequence[bytes]) -> tuple[list[Message], str]:
        """The messages begun, and the header after them that no <|message|> ended."""
        ends = self.stops | {self.markers[name] for name in MARKERS if name not in ("<|message|>", "<|constrain|>")}
        messages: list[Message] = []
        header, marker = 0, -1
        for index, id in enumerate(token_ids):
            if marker >= 0 and id in ends:
                messages.append(Message(_text(pieces[header:marker]), marker, index))
                header, marker = index, -1
            elif marker < 0 and id == self.markers["<|message|>"]:
                marker = index
        if marker < 0:
            return messages, _text(pieces[header:])
        return [*messages, Message(_text(pieces[header:marker]), marker, len(token_ids))], ""


def _text(pieces: Sequence[bytes]) -> str:
    return b"".join(pieces).decode("utf-8", errors="replace")


def _read(messages: Sequence[Message], contents: Sequence[bytes]) -> tuple[str, list[int]]:
    """Canonical text and offsets of the messages, with delimiters and joints put in at their <|message|> tokens."""
    num_thinking = max((i + 1 for i, m in enumerate(messages) if m.part == "analysis"), default=0)
    shown = [b""] * len(contents)
    for position, message in enumerate(messages):
        shown[message.marker] = JOINT if position else b""
        shown[message.marker + 1 : message.end] = contents[message.marker + 1 : message.end]
    opening = messages[0].marker if num_thinking else None
    closing = messages[num_thinking].marker if 0 < num_thinking < len(messages) else None
    for marker, tag in ((opening, OPEN), (closing, CLOSE)):
        if marker is not None:
            shown[marker] = tag.encode()
    raw = decode(shown)
    text, offsets = canonical(raw, Delimiters(_span(raw, opening), _span(raw, closing)))
    markers = {message.marker for message in messages}
    return text, [-1 if index in markers else offset for index, offset in enumerate(offsets)]


def _span(raw: Raw, index: int | None) -> Span | None:
    return None if index is None else (int(raw.first[index]), int(raw.last[index]) + 1)
