"""What `teacher.thinking` does to responses that think otherwise: the sentence that names the key where it drops most.

A response that is dropped for its thinking stays stored: with the key changed it is judged anew, not generated again.
"""

from collections.abc import Mapping

from dasd_assets.rules.candidates import AT_ANY_TEMPERATURE, OF_BATCHES, OF_RECIPE, Params
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.rules.verdict import VerdictKind
from dasd_resources.recipe import Thinking
from dasd_resources.storage.lake import Lake

STRUCTURE = "structure"  # the filter that looks at it
assert STRUCTURE in FILTERS, "its verdicts are counted by that name"
REMEDY: Mapping[Thinking, str] = {
    "required": "write teacher.thinking: none if the teacher is not to think, optional to keep both kinds",
    "none": "write teacher.thinking: required if the teacher is to think, optional to keep both kinds",
}
KEPT = "nothing is generated again"


def dropped_by_structure(lake: Lake, params: Params) -> dict[VerdictKind, int]:
    """Kind -> number of the responses that `structure` drops. params: as of `drop_counts`."""
    query = f"""SELECT v.kind, count(*) FROM responses r JOIN response_verdicts v USING (response_id)
        WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES} AND v.filter_version = $filter_version
          AND v.filter = $structure AND NOT v.passed GROUP BY ALL"""
    return dict(lake.read(query, {**params, "structure": STRUCTURE}).iter_rows())


def advice(dropped: Mapping[VerdictKind, int], thinking: Thinking) -> str:
    """What to write in the recipe, where most of what `structure` drops is dropped for its thinking; else empty.

    dropped: of `dropped_by_structure`. thinking: the recipe's.
    """
    kind: VerdictKind = "unexpected_thinking" if thinking == "none" else "no_thinking"
    number, total = dropped.get(kind, 0), sum(dropped.values())
    if 2 * number <= total:
        return ""
    found = "a thinking part" if thinking == "none" else "no thinking part"
    dropped_for = f"{number:,} of the {total:,} that structure dropped have {found}"
    return f"{dropped_for}, and teacher.thinking is {thinking}: {REMEDY[thinking]} ({KEPT})"
