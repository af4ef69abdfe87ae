"""A text as a page shows it: runs of sentences, and within each the pieces of its markup.

A formula stands whole in the sentence in which it begins, as half of one cannot be drawn.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dasd_assets.viewer.markup import Piece, pieces
from dasd_resources.visible_text import visible

KEPT = re.compile(r"[^\n\t]+")
WHOLE = ("formula", "display")


@dataclass(frozen=True)
class Shown:
    """What a page writes of a piece: its text, in which nothing is hidden, and how it looks."""

    text: str
    kind: str


@dataclass(frozen=True)
class Run:
    """A sentence, or what lies between two: `sentence` is its row, None for what belongs to no sentence."""

    sentence: Mapping[str, object] | None
    pieces: tuple[Shown, ...]


def shown_text(text: str) -> str:
    """The text with its lines and tabs, and an escape for each character that nobody would see."""
    return KEPT.sub(lambda found: visible(found[0]), text)


def runs(text: str, sentences: Sequence[Mapping[str, object]] = ()) -> list[Run]:
    """The text in runs. sentences: with start and stop, in order, apart from one another."""
    parts = pieces(text)
    bounds: list[tuple[int, int, Mapping[str, object] | None]] = []
    end = 0
    for sentence in sentences:
        start, stop = int(str(sentence["start"])), int(str(sentence["stop"]))
        bounds += [(end, start, None), (start, stop, sentence)]
        end = stop
    bounds.append((end, len(text), None))
    cut = _cut_at(parts, [start for start, _, _ in bounds])
    found: list[Run] = []
    place = 0
    for _, stop, named in bounds:
        first = place
        while place < len(cut) and cut[place].start < stop:
            place += 1
        if first < place:
            found.append(Run(named, tuple(_shown(text, piece) for piece in cut[first:place])))
    return found


def _shown(text: str, piece: Piece) -> Shown:
    return Shown(shown_text(text[piece.start : piece.stop]), piece.kind)


def _cut_at(parts: Iterable[Piece], places: Sequence[int]) -> list[Piece]:
    """The pieces, those cut in which a sentence begins; not formulas."""
    cut: list[Piece] = []
    index = 0
    for piece in parts:
        start = piece.start
        while index < len(places) and places[index] < piece.stop:
            place = places[index]
            if start < place and piece.kind not in WHOLE:
                cut.append(Piece(start, place, piece.kind))
                start = place
            index += 1
        cut.append(Piece(start, piece.stop, piece.kind))
    return cut
