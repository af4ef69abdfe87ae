"""Rows in bins: several samples in one row of the model, none of which may see another.

A model keeps packed samples apart by their position ids, which begin anew with each (attention), or by their sequence
numbers (recurrent layers). Not every model's code does, and one that does not still trains, on wrong losses: so whether
this one does is found out before the first step.
"""

from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate.state import PartialState
from datasets import Dataset, concatenate_datasets

from dasd_resources.recipe import Training

# Rows that may share a bin: a training that an earlier release has begun goes on with the bins that it began with.
ROWS_AT_ONCE, TOKENS_AT_ONCE = 10_000, 16_000_000
TOKENS_IN_MEMORY = 1_000_000  # of bins that are filled at once
# Others wait for the first process so long, instead of NCCL's 10 minutes: the report's larger stage is 93 GB on disk.
# The processes are joined here, so any later wait is as long.
PACKING_TIME = timedelta(hours=4)
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
    # A column at a time, as what is mapped of the rows counts as memory, too.
    with PartialState(timeout=PACKING_TIME).main_process_first():
        bins = Dataset.from_dict({"rows": list(_bins(_mapped(rows, COLUMNS[:1], cache), training.max_length))})
        ids, labels = (
            bins.map(
                _filled,
                batched=True,
                batch_size=max(1, TOKENS_IN_MEMORY // training.max_length),
                fn_kwargs={"column": _mapped(rows, [name], cache).with_format("arrow")},
                cache_file_name=str(cache / f"packed-{name}.arrow"),
            )
            for name in COLUMNS
        )
        return concatenate_datasets([ids, labels.remove_columns("seq_lengths")], axis=1)


def _mapped(rows: Path, columns: list[str], cache: Path) -> Dataset:
    return Dataset.from_parquet(str(rows), cache_dir=str(cache), columns=columns)


def _bins(column: Dataset, max_length: int) -> Iterator[list[int]]:
    """The rows of each bin; those of one part share bins with no others."""
    lengths = pc.list_value_length(column.data.column(0)).to_pylist()
    for first in range(0, len(lengths), at_once := rows_at_once(lengths)):
        for rows in best_fit(lengths[first : first + at_once], max_length):
            yield [first + row for row in rows]


def best_fit(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """The rows of each bin: the longest first, each into the fullest bin that has room for it; as TRL packs them.

    TRL copies the rows several times meanwhile, but which rows share a bin depends on their lengths alone. Of several
    bins that are equally full the one that has been so the longest is taken. lengths: each at most max_length.
    """
    bins, spaces, bins_with = list[list[int]](), list[int](), defaultdict[int, deque[list[int]]](deque)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        place = bisect_left(spaces, lengths[row])
        if place == len(spaces):
            space, chosen = max_length, list[int]()
            bins.append(chosen)
        else:
            space = spaces[place]
            chosen = bins_with[space].popleft()
            if not bins_with[space]:
                del spaces[place]
        chosen.append(row)
        space -= lengths[row]
        if space and not bins_with[space]:
            insort(spaces, space)
        bins_with[space].append(chosen)
    return bins


def _filled(bins: dict[str, list[list[int]]], column: Dataset) -> pa.Table:
    """A row for each bin: the values of its rows one after the other, and the length of each. bins: `rows`."""
    found = column[list(chain.from_iterable(bins["rows"]))].column(0).combine_chunks()
    lengths = pc.list_value_length(found)
    ends = np.cumsum([0, *map(len, bins["rows"])], dtype=np.int32)
    values = pa.ListArray.from_arrays(np.asarray(found.offsets)[ends], found.values)
    return pa.table({column.column_names[0]: values, "seq_lengths": pa.ListArray.from_arrays(ends, lengths)})


def rows_at_once(lengths: Sequence[int]) -> int:
    """Rows that are packed together: fewer where they are long."""
    return min(ROWS_AT_ONCE, max(1, TOKENS_AT_ONCE * len(lengths) // sum(lengths)))


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
