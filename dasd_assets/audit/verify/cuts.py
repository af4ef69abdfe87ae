"""Cuts of rollouts again, from their texts and offsets, drawn by the same seed."""

from collections.abc import Iterator

from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.verify.sampling import CHUNK, drawn
from dasd_assets.rules.cuts import CUT_VERSION, cut_row
from dasd_resources.storage.lake import Reading


def cuts(reading: Reading, sample: int | None) -> Iterator[Fault]:
    """Rows of this release's rule that are cut elsewhere now."""
    query = f"""SELECT c.rollout_id, c.cut_token, c.cut_char, c.reason, r.text, r.offsets
        FROM {drawn("prefix_cuts", "rollout_id", sample, "cut_version = $version")} c
            JOIN student_rollouts r USING (rollout_id)"""
    for chunk in reading.stream(query, {"version": CUT_VERSION}, CHUNK):
        for row in chunk.iter_rows(named=True):
            again = cut_row(row)
            for name in ("cut_token", "cut_char", "reason"):
                if row[name] != again[name]:
                    what = f"its {name} is {row[name]}, its rollout gives {again[name]}"
                    yield Fault("prefix_cuts", row["rollout_id"], what, AGAIN)
