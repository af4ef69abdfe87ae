"""The cut of a rollout that hit its token limit (report §5): a random position in its second half.

Of L tokens a number drawn uniformly from [⌈L/2⌉, L-1] is kept. It is moved to the nearest token before it, else after
it, that starts a new character outside a delimiter, so that the prefix is whole text; never into the first half.
"""

import math
import random
from collections.abc import Sequence

from dasd_assets.rules.ids import seed_of
from dasd_assets.rules.rollouts import ROLLOUTS
from dasd_assets.rules.rule import Rule
from dasd_resources.chat import Aligned, cut_points
from dasd_resources.storage.lake import Row

CUT_VERSION = "2"
CUTS = Rule("cuts", CUT_VERSION, (), (ROLLOUTS,))


def draw_cut(num_tokens: int, admissible: Sequence[int], seed: int) -> int | None:
    """How many of a rollout's tokens to keep, or None if there is no admissible point beyond half.

    admissible: indices of the tokens before which the rollout may be cut.
    """
    half = math.ceil(num_tokens / 2)
    drawn = random.Random(seed).randint(half, max(num_tokens - 1, half))
    points = [point for point in admissible if max(half, 1) <= point < num_tokens]
    before = [point for point in points if point <= drawn]
    return max(before) if before else min(points, default=None)


def cut_row(rollout: Row) -> Row:
    """The `prefix_cuts` row of a rollout: the number of tokens and code points kept, or why it cannot be cut."""
    seed = seed_of(f"cut {rollout['rollout_id']}")
    text, offsets = rollout["text"], rollout["offsets"]
    cut = draw_cut(len(offsets), cut_points(Aligned(text, offsets, tool_call=False)), seed)
    return {
        "rollout_id": rollout["rollout_id"],
        "cut_token": cut,
        "cut_char": None if cut is None else offsets[cut],
        "seed": seed,
        "reason": None if cut is not None else "no token beyond half starts a character outside a delimiter",
        "cut_version": CUT_VERSION,
    }
