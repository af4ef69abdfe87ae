"""MinHash bands meet where n-grams are alike, and hardly where they are not."""

from random import Random

import pytest

from dasd_assets.rules.near_duplicates import NUM_PERMUTATIONS, band_rows, bands, jaccard, shingles


def question(rng: Random, num_words: int) -> list[str]:
    return [f"w{rng.randrange(3000)}" for _ in range(num_words)]


def test_jaccard() -> None:
    assert jaccard(frozenset("ab"), frozenset("bc")) == pytest.approx(1 / 3)
    assert jaccard(frozenset(), frozenset()) == 0.0


def test_shingles_are_of_words_without_typography() -> None:
    assert shingles("Find $x$ + 1.", 3) == {"find x +", "x + 1"}


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_of_pairs_above_the_threshold_nearly_all_meet_in_a_band(threshold: float) -> None:
    rng, met, alike, strangers = Random(0), 0, 0, 0
    for _ in range(300):
        text = question(rng, 60)
        other = [word if rng.random() > 0.02 else "other" for word in text]
        first, second = shingles(" ".join(text), 3), shingles(" ".join(other), 3)
        own = set(bands(first, threshold))
        if jaccard(first, second) >= threshold:
            alike += 1
            met += bool(own & set(bands(second, threshold)))
        strangers += bool(own & set(bands(shingles(" ".join(question(rng, 60)), 3), threshold)))
    assert alike > 100
    assert met / alike > 0.95
    assert strangers == 0


def test_bands_are_the_same_in_every_process_and_fit_the_column() -> None:
    made = bands(shingles("What is the sum of all primes below one hundred?", 3), 0.8)
    assert len(made) == NUM_PERMUTATIONS // band_rows(0.8) == 16
    assert all(0 <= band < 2**63 for band in made)
    assert made[:2] == [7802381246617494490, 7674388480698620201]
    assert bands(frozenset(), 0.8) == []
