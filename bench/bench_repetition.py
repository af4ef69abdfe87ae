"""The repetition filter against datatrove's Gopher repetition filter: milliseconds a text, by length.

CPU time of one process over sound texts, none of which either has seen before (datatrove keeps the words of the last
texts). Both do all their work: Gopher's limits are set out of reach, or it would stop at the first that a text exceeds.
datatrove cuts words by spaCy; where that is not installed, by a regular expression, which is several times as fast
(`pip install spacy` has it; `make bench` does not, so no bar is set then).
"""

import importlib.util
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from datatrove.utils.word_tokenizers import WordTokenizer, load_word_tokenizer
from results import against, table

from dasd_assets.rules.filters.repeats import repetition
from dasd_resources.recipe import load_recipe

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import passages_dev
import passages_heldout

LIMITS = load_recipe("dasd-4b").filters.repetition
LENGTHS = (1_000, 4_000, 16_000, 64_000)
NUM_TEXTS = 6
HAS_SPACY = importlib.util.find_spec("spacy") is not None
OUT_OF_REACH = 2.0  # a share of a text
BAR = 30  # times as fast as datatrove with spaCy


class RegexWords(WordTokenizer):
    """Words and signs; far less than spaCy does."""

    def word_tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s]", text)

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


def texts(num_tokens: int) -> list[str]:
    """Texts of about so many tokens, of the sentences of sound passages in another order each, with other numbers."""
    passages = [*passages_dev.SOUND.values(), *passages_heldout.SOUND.values()]
    pieces = [piece for passage in passages for piece in re.findall(r"[^.\n]+[.\n]+\s*", passage)]
    return [_text(pieces, num_tokens, random.Random(f"{num_tokens} {number}")) for number in range(NUM_TEXTS)]


def _text(pieces: Sequence[str], num_tokens: int, drawn: random.Random) -> str:
    found, length = [], 0
    while length < 4 * num_tokens:  # characters
        words = drawn.choice(pieces).split(" ")
        drawn.shuffle(words)  # or the same sentences would come again and again
        found.append(" ".join(words))
        length += len(found[-1])
    return " ".join(found)


def milliseconds(judge: Callable[[str], object], judged: Sequence[str]) -> float:
    """CPU time a text, the best of the texts: a busy machine blurs a mean."""
    best = float("inf")
    for text in judged:
        start = time.process_time()
        judge(text)
        best = min(best, time.process_time() - start)
    return 1000 * best


def gopher() -> Callable[[str], object]:
    words = load_word_tokenizer("en") if HAS_SPACY else RegexWords()
    found = GopherRepetitionFilter(
        *[OUT_OF_REACH] * 4,
        top_n_grams=tuple((size, OUT_OF_REACH) for size in (2, 3, 4)),
        dup_n_grams=tuple((size, OUT_OF_REACH) for size in range(5, 11)),
        language=words,
    )
    return lambda text: found.filter(Document(text=text, id="text"))


def main() -> None:
    print("## Repetition: loops, n-grams\n")
    words = "spaCy" if HAS_SPACY else "a regular expression (spaCy is not installed)"
    print(f"{NUM_TEXTS} sound texts of each length, CPU time of one process; datatrove's words are cut by {words}.\n")
    theirs = gopher()
    first = "A first text, for what is loaded at the first call. " * 20
    theirs(first), repetition(first, range(len(first) // 4), LIMITS)
    rows: list[list[object]] = []
    for length in LENGTHS:
        judged = texts(length)
        ours = milliseconds(partial(repetition, token_ids=range(length), limits=LIMITS), judged)
        other = milliseconds(theirs, judged)
        ratio = against(other / ours, BAR) if HAS_SPACY else f"{other / ours:.2f} ×"
        rows.append([length, ours, 1000 * ours / length, other, ratio])
    print(table(["tokens", "ours, ms", "ours, µs a token", "datatrove's Gopher, ms", "ratio"], rows))


if __name__ == "__main__":
    main()
