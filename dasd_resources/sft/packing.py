"""Rows in bins: several samples in one row of the model, none of which may see another.

A model keeps packed samples apart by their position ids, which begin anew with each (attention), or by their sequence
numbers (recurrent layers). Not every model's code does, and one that does not still trains, on wrong losses: so whether
this one does is found out before the first step.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import torch
from accelerate.state import PartialState
from datasets import Dataset, concatenate_datasets
from trl import pack_dataset

from dasd_resources.recipe import Training

# Packed at once. TRL copies them several times: of 6,000 rows of 17,600 tokens in one batch the peak was 3.8 GB, in
# batches of 50 M tokens 2.9, of 16 M 2.0, with as many bins but for one.
ROWS_AT_ONCE, TOKENS_AT_ONCE = 10_000, 16_000_000
PROBE_TOKENS = 64  # of each of the two samples
# In nats, for the logprob of a token when other tokens of the same number come before its sample: the shapes are equal,
# so kernels give the same bits, but for experts, whose loads change with it.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}
COLUMNS = ["input_ids", "labels"]
Forward = Callable[[list[list[int]]], torch.Tensor]


def load_rows(rows: Path, training: Training, cache: Path) -> Dataset:
    """The rows, memory-mapped; with packing, bins of whole rows: no row is as long as a bin, so none is split."""
    if not training.packing:
        return _mapped(rows, COLUMNS, cache)
    # A column at a time: which rows share a bin depends on their lengths alone, and TRL copies whole columns.
    with PartialState().main_process_first():
        ids, labels = (_packed(_mapped(rows, [name], cache), training.max_length) for name in COLUMNS)
        return concatenate_datasets([ids, labels.remove_columns("seq_lengths")], axis=1)


def _mapped(rows: Path, columns: list[str], cache: Path) -> Dataset:
    return Dataset.from_parquet(str(rows), cache_dir=str(cache), columns=columns)


def _packed(column: Dataset, max_length: int) -> Dataset:
    return pack_dataset(column, max_length, "bfd_split", {"batch_size": rows_at_once(column)})


def rows_at_once(dataset: Dataset) -> int:
    """Rows that are packed together: fewer where they are long."""
    num_tokens: int = pc.sum(pc.list_value_length(dataset.data.column(0))).as_py()
    return min(ROWS_AT_ONCE, max(1, TOKENS_AT_ONCE * len(dataset) // num_tokens))


def num_rows(dataset: Dataset) -> int:
    """Rows in a dataset, packed or not."""
    if "seq_lengths" not in dataset.column_names:
        return len(dataset)
    return sum(len(lengths) for lengths in dataset["seq_lengths"])


def check_separation(forward: Forward, token_ids: list[int], training: Training) -> None:
    """Raise ValueError if what precedes a packed sample changes its logprobs.

    forward: the logprobs of the last of the given samples, packed into one row. token_ids: any that are trained on.
    """
    half = min(PROBE_TOKENS, len(token_ids) // 2)
    first, second = token_ids[:half], token_ids[half : 2 * half]
    if half < 2 or first == second:
        return
    change = (forward([first, second]) - forward([second, second])).abs().max().item()
    if not change <= TOLERANCE[training.dtype]:
        raise ValueError(
            f"training.packing: with attn_implementation {training.attn_implementation}, this model does not keep "
            f"packed samples apart: what comes before a sample changes its logprobs by {change:.2g} nats; set "
            "packing: false (and batch_counts: samples), or another attn_implementation"
        )
