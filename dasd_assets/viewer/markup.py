"""A model's text in pieces: what is Markdown, LaTeX or code in it, each piece with its place in the text.

Pieces tile the text: nothing is removed or turned into HTML. The page hides the pieces of kind `mark` (asterisks,
fences) and gives the others a style, or, for formulas, draws them; raw text shows them all. Left out are links and
pictures, which would let a model's text name an address, tables and nested blocks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

PieceKind = Literal["text", "mark", "strong", "emphasis", "code", "block", "heading", "formula", "display"]


@dataclass(frozen=True)
class Piece:
    """text[start:stop], in code points."""

    start: int
    stop: int
    kind: PieceKind


# The first alternative that matches at a place counts. Each is bounded, and what it looks through ends at its own
# opening sign, so the time for a hostile text grows with its length alone.
_PARTS = re.compile(
    r"""
      ^(?P<block_open>```[^\n`]{0,40}\n)(?P<block>(?:(?!```)[^\n]*\n){0,2000})(?P<block_close>```[ ]*$)
    | (?P<heading_open>^\#{1,6}[ ]+)(?P<heading>[^\n]{1,300})$
    | (?P<display_open>\$\$|\\\[)(?P<display>(?:(?!\$\$|\\[\[\]]|\n[ \t]*\n).){1,2000})(?P<display_close>\$\$|\\\])
    | (?P<formula_open>\\\()(?P<formula>(?:(?!\\[()])[^\n]){1,500})(?P<formula_close>\\\))
    | (?P<dollar_open>(?<![\\\w$])\$(?=[^\s$]))(?P<dollar>[^\n$]{0,299}[^\s$\\])(?P<dollar_close>\$(?![\d\w$]))
    | (?P<code_open>(?<!`)`(?!`))(?P<code>[^\n`]{1,300})(?P<code_close>`(?!`))
    | (?P<strong_open>\*\*(?=\S))(?P<strong>[^\n*]{1,300})(?P<strong_close>(?<=\S)\*\*)
    | (?P<emphasis_open>(?<![\w*])\*(?=[^\s*]))(?P<emphasis>[^\n*]{1,300})(?P<emphasis_close>(?<=\S)\*(?![\w*]))
    """,
    re.MULTILINE | re.VERBOSE | re.DOTALL,
)
_KINDS: dict[str, PieceKind] = {
    "block": "block",
    "heading": "heading",
    "display": "display",
    "formula": "formula",
    "dollar": "formula",
    "code": "code",
    "strong": "strong",
    "emphasis": "emphasis",
}


def pieces(text: str) -> list[Piece]:
    """The pieces of a text, in order; they tile it."""
    return [piece for piece in _found(text) if piece.start < piece.stop]


def _found(text: str) -> Iterator[Piece]:
    end = 0
    for found in _PARTS.finditer(text):
        name = next(name for name in _KINDS if found[name] is not None)
        yield Piece(end, found.start(), "text")
        yield Piece(found.start(), found.start(name), "mark")
        yield Piece(found.start(name), found.end(name), _KINDS[name])
        yield Piece(found.end(name), found.end(), "mark")
        end = found.end()
    yield Piece(end, len(text), "text")
