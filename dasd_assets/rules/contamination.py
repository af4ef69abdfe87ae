"""Questions that benchmarks hold: exact copies, and overlap in word n-grams (13, as GPT-3's authors chose).

An n-gram that several held-out questions share is wording of their kind ("where m and n are relatively prime positive
integers …") and shows nothing; but where they share half of one's n-grams, they are variants of one question, and the
first of them has it. A held-out question of fewer words than an n-gram is found by exact copies alone.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.words import ngrams, words

CONTAMINATION_VERSION = "2"
CONTAMINATION = Rule(
    "contamination", CONTAMINATION_VERSION, ("decontamination.ngram_size", "decontamination.min_share")
)
EXCERPT_WORDS = 40


@dataclass(frozen=True)
class HeldOut:
    """A question that nothing may be trained on: of a benchmark, or of another file."""

    source: str
    question_id: str
    question: str


@dataclass(frozen=True)
class Overlap:
    """The held-out question that a text is most like. num_shared: of its `num_ngrams`. text: the longest common run."""

    twin: HeldOut
    exact: bool
    num_shared: int
    num_ngrams: int
    text: str

    @property
    def reason(self) -> str:
        """For people."""
        named = f"question {self.twin.question_id} of {self.twin.source}"
        if self.exact:
            return f"is {named}"
        return f"shares {self.num_shared} of {self.num_ngrams} n-grams with {named}: {self.text!r}"


class HeldOutIndex:
    """All held-out questions by their words and by their n-grams."""

    def __init__(self, questions: Iterable[HeldOut], ngram_size: int, min_share: float) -> None:
        self._size, self._min_share = ngram_size, min_share
        self._whole: dict[str, HeldOut] = {}
        for one in questions:
            self._whole.setdefault(" ".join(words(one.question)), one)
        # n-gram -> the first question that has it; None where one that is no variant of that has it, too.
        self._owner: dict[str, HeldOut | None] = {}
        first, num_of = dict[str, HeldOut](), dict[HeldOut, int]()
        for text, one in self._whole.items():
            grams = set(self._grams(text.split()))
            shared = Counter(first[gram] for gram in grams & first.keys())
            variants = {twin for twin, num in shared.items() if 2 * num >= min(len(grams), num_of[twin])}
            for gram in grams:
                if first.setdefault(gram, one) is one:
                    self._owner[gram] = one
                elif first[gram] not in variants:
                    self._owner[gram] = None
            num_of[one] = len(grams)
        self._num_grams = Counter(one for one in self._owner.values() if one is not None)

    def find(self, question: str) -> Overlap | None:
        """The held-out question that this one is, or shares most of its n-grams with; None if it is like none."""
        parts = words(question)
        if (same := self._whole.get(" ".join(parts))) is not None and parts:
            return Overlap(same, True, 0, 0, "")
        owners = [self._owner.get(gram) for gram in self._grams(parts)]
        shared = {one: len(places) for one, places in self._places(parts, owners).items()}
        if not shared:
            return None
        twin = max(shared, key=lambda one: (shared[one] / self._num_grams[one], one.source, one.question_id))
        if shared[twin] / self._num_grams[twin] < self._min_share:
            return None
        text = _longest_run(parts, [owner == twin for owner in owners], self._size)
        return Overlap(twin, False, shared[twin], self._num_grams[twin], text)

    def _places(self, parts: list[str], owners: list[HeldOut | None]) -> dict[HeldOut, set[str]]:
        """Held-out question -> which of its n-grams are here."""
        found: dict[HeldOut, set[str]] = {}
        for gram, owner in zip(self._grams(parts), owners, strict=True):
            if owner is not None:
                found.setdefault(owner, set()).add(gram)
        return found

    def _grams(self, parts: list[str]) -> list[str]:
        return ngrams(parts, self._size) if len(parts) >= self._size else []


def _longest_run(parts: list[str], shared: list[bool], size: int) -> str:
    """The words of the longest run of shared n-grams."""
    best, start = (0, 0), 0
    for place, is_shared in enumerate([*shared, False]):
        if not is_shared:
            best = max(best, (place - start, -start))
            start = place + 1
    length, start = best[0], -best[1]
    return " ".join(parts[start : start + length + size - 1][:EXCERPT_WORDS])
