"""Responses that write their thinking between `<think>` and `</think>`, as most reasoning models do.

What is trusted is the text, not the template: the first `</think>` ends the thinking, wherever it began. So a template
whose generation prompt opens `<think>` and a model or server that leaves the opening out give the same canonical text.
A prompt may also end the thinking itself (Qwen3's with `enable_thinking: false`): what follows is the answer.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dasd_resources.chat.canonical import (
    CLOSE,
    CLOSING,
    OPEN,
    OPENING,
    Aligned,
    Delimiters,
    Part,
    canonical,
    decode,
    has_tool_call,
    without_empty_thinking,
)
from dasd_resources.recipe import RecipeError, Thinking

LEADING_OPEN = re.compile(rf"(?:\s*{OPEN})+")
OPEN_IN_PROMPT = re.compile(rf"{OPEN}\s*$")
CLOSE_IN_PROMPT = re.compile(rf"{CLOSE}\s*$")


@dataclass(frozen=True)
class ThinkTags:
    """The format as one generation prompt leaves it.

    prompt_opening: the `<think>` and whitespace that end the prompt, empty if it opens no thinking.
    stops: ids that are no text where they end a response. prompt_closes: whether the prompt ends the thinking itself.
    """

    prompt_opening: str
    stops: frozenset[int]
    prompt_closes: bool = False

    @classmethod
    def after(cls, prompt: str, stops: frozenset[int], thinking: Thinking) -> "ThinkTags":
        """The format of what follows a rendered prompt; RecipeError if that rules out thinking which there is to be."""
        closes = CLOSE_IN_PROMPT.search(prompt) is not None
        if closes and thinking != "none":
            raise RecipeError(
                "chat_template_options: the generation prompt ends the thinking before it begins; let the template "
                "leave it open, for most models with {enable_thinking: true}, or, if the teacher is not to think, "
                "write teacher.thinking: none"
            )
        opening = OPEN_IN_PROMPT.search(prompt)
        return cls(opening.group() if opening else "", stops, closes)

    def parts(self, text: str) -> list[Part]:
        """What follows the prompt to say `text`, thinking present exactly once."""
        if self.prompt_closes:  # an empty thinking part is there already
            answer = without_empty_thinking(text)
            return [(answer, len(text) - len(answer))]
        if not self.prompt_opening or not text:
            return [(text, 0)]
        if not text.startswith(OPENING):  # an answer alone: the thinking that the prompt opened stays empty
            return [(f"{CLOSING}\n", None), (text, 0)]
        in_prompt = len(OPEN) if self.prompt_opening == OPEN else len(OPENING)
        return [(text[in_prompt:], in_prompt)]

    def read_response(self, token_ids: Sequence[int], pieces: Sequence[bytes]) -> Aligned:
        """Canonical text of a whole response; pieces: the bytes of each of its tokens."""
        find = find_opened if self.prompt_closes else find_tags
        return self._read(self.prompt_opening, find, token_ids, pieces)

    def read_continuation(self, prefix_text: str, token_ids: Sequence[int], pieces: Sequence[bytes]) -> Aligned:
        """Canonical text of prefix and continuation, offsets of the continuation; tags in an answer are only text."""
        find = find_tags if prefix_text.startswith(OPENING) else find_nothing
        return self._read(prefix_text, find, token_ids, pieces)

    def _read(
        self, before: str, find: Callable[[str], Delimiters], token_ids: Sequence[int], pieces: Sequence[bytes]
    ) -> Aligned:
        end = len(token_ids)
        while end and token_ids[end - 1] in self.stops:
            end -= 1
        raw = decode([before.encode(), *pieces[:end], *[b""] * (len(pieces) - end)])
        text, offsets = canonical(raw, find(raw.text))
        return Aligned(text, offsets[1:], has_tool_call(raw.text))


def find_tags(raw: str) -> Delimiters:
    """Where thinking opens (at the start, written once or more) and where its first `</think>` closes it."""
    leading = LEADING_OPEN.match(raw)
    start = leading.end() if leading else 0
    close = raw.find(CLOSE, start)
    if not leading and close < 0:
        return find_nothing(raw)
    opening = (start - len(OPEN), start) if leading else (0, 0)
    return Delimiters(opening, (close, close + len(CLOSE)) if close >= 0 else None)


def find_opened(raw: str) -> Delimiters:
    """As `find_tags`, where thinking that the response itself does not open is none: `</think>` is only text then."""
    return find_tags(raw) if LEADING_OPEN.match(raw) else find_nothing(raw)


def find_nothing(_raw: str) -> Delimiters:
    """No thinking."""
    return Delimiters(None, None)
