"""Questions that are almost the same: MinHash finds those that may be, their word n-grams decide.

A signature is cut into bands; two questions with an equal band are compared (locality-sensitive hashing). Bands are
stored, so that a new batch is compared with all others by one join. Left out: paraphrases, which share few words.
"""

import hashlib
import struct

from rensa import RMinHash  # type: ignore[import-untyped]

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.words import ngrams, words

NEAR_DUPLICATES_VERSION = "1"
NEAR_DUPLICATES = Rule("near duplicates", NEAR_DUPLICATES_VERSION, ("near_duplicates",))
NUM_PERMUTATIONS = 128
SEED = 42


def shingles(question: str, ngram_size: int) -> frozenset[str]:
    """The question's word n-grams."""
    return frozenset(ngrams(words(question), ngram_size))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared n-grams over all n-grams; 0 where there is none."""
    return len(first & second) / len(first | second) if first | second else 0.0


def band_rows(threshold: float) -> int:
    """Values per band: the most for which pairs a tenth below the threshold still meet in every second case."""
    fitting = [
        rows for rows in (1, 2, 4, 8, 16, 32) if (1 - 0.5 ** (rows / NUM_PERMUTATIONS)) ** (1 / rows) <= 0.9 * threshold
    ]
    return max(fitting, default=1)


def bands_version(ngram_size: int, threshold: float) -> str:
    """Identifies what bands are made of: only those of one version meet."""
    return f"{NEAR_DUPLICATES_VERSION}: {ngram_size} words, {NUM_PERMUTATIONS} in {band_rows(threshold)}"


def bands(grams: frozenset[str], threshold: float) -> list[int]:
    """One 63-bit hash per band of the signature; no band for a question without words."""
    if not grams:
        return []
    signature = RMinHash(num_perm=NUM_PERMUTATIONS, seed=SEED)
    signature.update(sorted(grams))
    values, rows = signature.digest(), band_rows(threshold)
    return [_hash(start, values[start : start + rows]) for start in range(0, NUM_PERMUTATIONS, rows)]


def _hash(band: int, values: list[int]) -> int:
    packed = struct.pack(f"<{len(values) + 1}Q", band, *values)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1
