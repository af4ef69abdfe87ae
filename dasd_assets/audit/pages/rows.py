"""Rows that several pages list: examples of datasets, rollouts, checkpoints that a question touched."""

from dasd_assets.audit.pages.layout import Rows


def dataset_lines(rows: Rows) -> list[str]:
    """A line for each example of a dataset as it is now."""
    return [
        f"{r['recipe']} {r['dataset']} {r['policy']:<7} example {r['example_id']}, dataset {r['dataset_id']}, "
        f"snapshot {r['snapshot_id']}"
        for r in rows
    ]


def rollout_lines(rows: Rows) -> list[str]:
    """A line for each rollout, by whom, and whether it was cut off."""
    return [f"{r['rollout_id']}  by checkpoint {r['checkpoint_id']}{', cut off' if r['cut_off'] else ''}" for r in rows]


def touched_lines(rows: Rows) -> list[str]:
    """A line for each checkpoint that a question touched: trained on it, or descended from one that was."""
    return [
        f"{r['checkpoint_id']}  {r['recipe']} {r['name']:<9} "
        + (
            f"trained on {r['num_examples']} of its examples"
            if r["num_examples"]
            else f"descends from {r['parent_checkpoint_id']}"
        )
        for r in rows
    ]
