"""Control tokens quoted in a question: they stay text, wherever the question is from.

A chat template pastes the question into a string, and tokenizers read control tokens (`<|im_end|>`) anywhere in one: a
question that quotes them could end its own turn, or speak as the system. So each quotation is hidden while the
template renders, and encoded on its own, spelled out, afterwards. Questions without one are encoded as ever.
Left out: templates whose control words are no tokens at all (`[INST]` of early Mistral models).
"""

import re
from collections.abc import Callable, Mapping

from tokenizers import Tokenizer

from dasd_resources.chat.token_bytes import Spec, continuing_encoder

PRIVATE_USE = range(0xE000, 0xF900)

Render = Callable[[str, str | None], str]
Encode = Callable[[str], list[int]]


class Quoting:
    """Encodes prompts so that only the template's own control tokens become tokens."""

    def __init__(self, spec: Spec, controls: Mapping[str, int]) -> None:
        """controls: id by text, of every token that structures a conversation."""
        self._ids = frozenset(controls.values())
        longest_first = sorted(controls, key=len, reverse=True)
        self._quoted = re.compile("|".join(map(re.escape, longest_first))) if controls else re.compile(r"(?!)")
        others = [token for token in spec["added_tokens"] if token["content"] not in controls]
        self._spelling = continuing_encoder({**spec, "added_tokens": others})
        self._continuing = Tokenizer.from_str(continuing_encoder(spec).to_str())

    def prompt_ids(self, question: str, system: str | None, render: Render, encode: Encode) -> list[int]:
        """Token ids of `render(question, system)` where `encode` reads control tokens but the quoted ones are text."""
        both = question + (system or "")
        if not self._quoted.search(both):
            return encode(render(question, system))
        mark = next(chr(point) for point in PRIVATE_USE if chr(point) not in both)
        quotes: list[str] = []

        def hide(found: re.Match[str]) -> str:
            quotes.append(found.group())
            return f"{mark}{len(quotes) - 1}{mark}"

        hidden = [None if text is None else self._quoted.sub(hide, text) for text in (question, system)]
        first, *rest = re.split(f"{mark}([0-9]+){mark}", render(hidden[0] or "", hidden[1]))
        ids = encode(first)
        for number, text in zip(rest[::2], rest[1::2], strict=True):
            ids += self._spelled(quotes[int(number)])
            ids += self._continuing.encode(text, add_special_tokens=False).ids
        return ids

    def _spelled(self, text: str) -> list[int]:
        """Ids of a control token's text, letter by letter where its pieces would still give the token."""
        ids: list[int] = self._spelling.encode(text, add_special_tokens=False).ids
        if self._ids.isdisjoint(ids):
            return ids
        return [id for letter in text for id in self._spelling.encode(letter, add_special_tokens=False).ids]
