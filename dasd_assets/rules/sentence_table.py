"""Sentences of many responses at once, with sum and number of token logprobs under each model."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.sentences import SEGMENTER, Edges, Floats, Ints, edges, mean_probs, sentence_spans

SENTENCE_SUMS_VERSION = "1"
SENTENCE_SUMS = Rule("sentence sums", SENTENCE_SUMS_VERSION, (), (SEGMENTER,))


def sentence_table(
    responses: pl.DataFrame, key: str = "response_id", models: Sequence[str] = ("teacher", "student")
) -> pl.DataFrame:
    """One row per sentence of each response: span, and sum and number of token logprobs under each model.

    responses: key, text, and logprobs and offsets of each model (`teacher_logprobs`, …).
    """
    # Spans by the scanner, one text at a time: a fifth of the stage's time, all of it Python.
    texts = responses["text"].to_list()
    spans = [sentence_spans(text) for text in texts]
    # Columns over all responses at once: a row is a place in an array, never a Python object.
    bounds = np.asarray([bound for found in spans for bound in found], np.int32).reshape(-1, 2)
    num_sentences = np.asarray([len(found) for found in spans], np.int64)
    text_edges = [edges(text, found) for text, found in zip(texts, spans, strict=True)]
    columns = {
        key: responses[key].gather(np.repeat(np.arange(len(texts)), num_sentences)),
        "sentence_index": np.arange(len(bounds), dtype=np.int32) - _firsts(num_sentences).astype(np.int32),
        "start": bounds[:, 0],
        "stop": bounds[:, 1],
    }
    for model in models:
        sums, counts = _sums(text_edges, responses[f"{model}_logprobs"], responses[f"{model}_offsets"])
        columns |= {f"{model}_sum_logprob": sums, f"{model}_num_tokens": counts.astype(np.int32)}
        columns[f"{model}_prob"] = mean_probs(sums, counts)
    return pl.DataFrame(columns).with_columns(pl.col(f"{model}_prob" for model in models).fill_nan(None))


def _firsts(num_sentences: Ints) -> Ints:
    """For every sentence, the number of sentences in the responses before its own."""
    return np.repeat(np.cumsum(num_sentences) - num_sentences, num_sentences)


def _sums(text_edges: Sequence[Edges], logprobs: pl.Series, offsets: pl.Series) -> tuple[Floats, Ints]:
    """Sum and number of token logprobs of every sentence, response after response."""
    pairs = zip(text_edges, _arrays(logprobs), _arrays(offsets), strict=True)
    found = [sentences.sums(values, starts) for sentences, values, starts in pairs]
    return (
        np.concatenate([sums for sums, _ in found] or [np.zeros(0)]),
        np.concatenate([counts for _, counts in found] or [np.zeros(0, np.int64)]),
    )


def _arrays(lists: pl.Series) -> Iterator[NDArray[np.generic]]:
    """Each row of a list column as a view of the column's one buffer; `to_list` would make a Python float per token."""
    lists = lists.rechunk()
    values = lists.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    stops = lists.list.len().to_numpy().astype(np.int64).cumsum()
    return (values[start:stop] for start, stop in pairwise([0, *stops.tolist()]))
