"""Recompute what can be recomputed, and name every row, file or folder that disagrees.

| module | checks |
| --- | --- |
| `commits` | rows that were changed by hand |
| `keys` | keys, references and lists, by queries |
| `row_ids` | ids and seeds, from the columns that decide them |
| `texts`, `chats` | texts and offsets, from token ids, where the model's tokenizer is here |
| `imports` | imported responses, from what landed |
| `tokens` | the student's tokens, from question and text, where its tokenizer is here |
| `judgements` | verdicts and evaluations, by filters and verifiers, where their rules are recorded |
| `scores` | sentences, types and scores, from logprobs and offsets |
| `answers` | the checkpoints' own answers: texts, sentences and their types |
| `cuts` | where rollouts were cut |
| `datasets` | datasets and selections: ids, ranks, scores, held-out questions |
| `checkpoints` | weights, snapshots, the rows they saw |

`sampling` says which rows of a table `--sample` takes, and how many are in memory at a time.

Files first, by the hash that was taken when each was written (`storage.data_files`): a table with a damaged file is
reported and left out of the rest. A check that cannot be made is reported, and does not stop the others. Rows are
streamed, a few thousand at a time, and compared with what the code that made them makes again. Rows of earlier
releases, of filters and scores that were removed, or whose model is not on this machine, are not accused of what cannot
be checked, but counted. Memory is bounded by a chunk of rows, of sentences or of tokens.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path

import duckdb

from dasd_assets.audit.files import Fault, file_faults, tables
from dasd_assets.audit.prompt import Record
from dasd_assets.audit.verify.answers import answer_sentences, answer_texts, answer_types
from dasd_assets.audit.verify.chats import Chats
from dasd_assets.audit.verify.checkpoints import checkpoints
from dasd_assets.audit.verify.commits import by_hand
from dasd_assets.audit.verify.cuts import cuts
from dasd_assets.audit.verify.datasets import (
    HOLDING,
    datasets,
    held_out,
    num_examples,
    published,
    ranks,
    selected_scores,
    selections,
)
from dasd_assets.audit.verify.imports import imports
from dasd_assets.audit.verify.judgements import JUDGED, evaluations, verdicts
from dasd_assets.audit.verify.keys import doubled, orphans, wrong
from dasd_assets.audit.verify.row_ids import HASHED, rehashed, responses
from dasd_assets.audit.verify.scores import scores, sentences
from dasd_assets.audit.verify.texts import SAID, texts
from dasd_assets.audit.verify.tokens import TOKENISED, lengths, tokens
from dasd_resources.recipe import Recipe
from dasd_resources.storage.data_files import DamagedFiles
from dasd_resources.storage.lake import Lake, Reading
from dasd_resources.storage.tables import TABLES
from dasd_resources.verifiers.verdict_cache import VERDICTS

NUM_REPORTED = 20  # faults named of each check; the others are counted
Check = tuple[str, set[str], Callable[[], Iterator[Fault]]]


def verify(lake: Lake, sample: int | None = None, say: Callable[[str], None] = lambda line: None) -> Iterator[Fault]:
    """Everything that disagrees. sample: of the rows of a table that are recomputed, only this many."""
    with lake.reading() as reading:
        known = tables(reading)
    say(f"files of {len(known)} tables")
    damaged = set()
    for file, fault in file_faults(lake):
        if file.newest:
            damaged.add(fault.table)
        yield fault
    if num_new := lake.hash_files():
        say(f"{num_new:,} files first seen: that they were whole before is not known")
    usable = set(known) - damaged
    start: int | None = 0
    with VERDICTS.kept_in(Path(lake.home)):
        while start is not None:
            start = yield from _checked(lake, sample, say, usable, start)


def _checked(
    lake: Lake, sample: int | None, say: Callable[[str], None], usable: set[str], start: int
) -> Generator[Fault, None, int | None]:
    """Faults of the checks from this number on; ends with the number to go on from after a check that failed."""
    title, number = "", start
    try:
        with lake.reading() as reading, reading.all_cores():
            for number, (title, needs, check) in enumerate(checks(lake, reading, usable, sample, say)):
                if number >= start and needs <= usable:
                    say(title)
                    yield from check()
    except (duckdb.Error, OSError, DamagedFiles) as error:  # of a damaged file of an old snapshot, or of the catalog
        yield Fault(title, "as a whole", f"it could not be checked: {error}", "see the damaged files above")
        return number + 1
    return None


def checks(
    lake: Lake, reading: Reading, usable: set[str], sample: int | None, say: Callable[[str], None]
) -> Iterator[Check]:
    """The checks of rows, none of them made yet, each with its first faults. usable: the tables that can be read."""
    for title, needs, check in chain(_queries(reading), _again(lake, reading, sample, say, usable)):
        yield title, needs, partial(_first, check)


def _first(check: Callable[[], Iterator[Fault]]) -> Iterator[Fault]:
    """So many of a check's faults, and the number of the others."""
    faults = check()
    last = None
    for last in islice(faults, NUM_REPORTED):
        yield last
    num_more = sum(1 for _ in faults)
    if last is not None and num_more:
        yield Fault(last.table, f"{num_more:,} more rows", "the same", last.remedy)


def _queries(reading: Reading) -> Iterator[Check]:
    """Title, tables read, and the check, of all that a query can tell."""
    yield "changes by hand", set(), lambda: by_hand(reading)
    for name, table in TABLES.items():
        yield f"keys of {name}", {name}, lambda t=table: doubled(reading, t)  # type: ignore[misc]
        yield f"rows of {name}", {name}, lambda t=table: wrong(reading, t)  # type: ignore[misc]
        for reference in table.references:
            title, needs = f"{name}.{', '.join(reference.columns)}", {name, reference.table}
            yield title, needs, lambda t=table, r=reference: orphans(reading, t, r)  # type: ignore[misc]
    yield "numbers of logprobs", {"student_logprobs", "student_tokens"}, lambda: lengths(reading)
    yield "datasets", {"sft_examples"}, lambda: datasets(reading)
    yield "published datasets", {"published_datasets", "sft_examples"}, lambda: published(reading)
    yield "selections", {"selected_responses"}, lambda: selections(reading)
    yield "ranks", {"selected_responses", "selection_rules"}, lambda: ranks(reading)
    for name in HOLDING:
        needs = {name, "selection_rules", "experiment_datasets", "responses", "teacher_continuations", "prompts"}
        yield f"held-out questions in {name}", needs, lambda t=name: held_out(reading, t)  # type: ignore[misc]
    yield "examples of checkpoints", {"checkpoints", "checkpoint_examples"}, lambda: num_examples(reading)


def _again(
    lake: Lake, reading: Reading, sample: int | None, say: Callable[[str], None], usable: set[str]
) -> Iterator[Check]:
    """The same, of all that is made again."""
    for table, columns, made in HASHED:
        title = f"ids of {table}"
        yield title, {table}, lambda t=table, c=columns, m=made: rehashed(reading, t, c, m, sample, say)  # type: ignore[misc]
    yield "ids of responses", {"responses", "checkpoints"}, lambda: responses(reading, sample, say)
    recipes: list[Recipe] = []
    if "checkpoints" in usable:
        chats = Chats(lake, reading)
        for said in SAID:
            yield f"texts of {said.table}", {said.table}, lambda s=said: texts(reading, chats, s, sample, say)  # type: ignore[misc]
        needs = {"answer_logprobs", "evaluations"}
        yield "texts of answer_logprobs", needs, lambda: answer_texts(reading, chats, sample, say)
        for kept in TOKENISED:
            needs = {kept.tokens, kept.table, "prompts"}
            yield kept.tokens, needs, lambda k=kept: tokens(reading, chats, k, sample, say)  # type: ignore[misc]
        for judged in JUDGED:
            needs = {judged.verdicts, judged.table, judged.tokens, "prompts"}
            yield judged.verdicts, needs, lambda j=judged: verdicts(reading, chats, j, sample, say)  # type: ignore[misc]
        needs = {"sentence_probabilities", "sentence_types", "response_scores"}
        yield "types and scores", needs, lambda: scores(reading, chats.recipes, sample, say)
        recipes = chats.recipes
    needs = {"responses", "landed_responses", "landed_logprobs"}
    yield "imported responses", needs, lambda: imports(reading, sample)
    yield "cuts", {"prefix_cuts", "student_rollouts"}, lambda: cuts(reading, sample)
    yield "evaluations", {"evaluations", "benchmark_questions"}, lambda: evaluations(reading, recipes, sample, say)
    needs = {"responses", "student_tokens", "student_logprobs", "sentence_probabilities"}
    yield "sentences", needs, lambda: sentences(lake, reading, sample)
    needs = {"evaluations", "answer_logprobs", "answer_sentences"}
    yield "sentences of answers", needs, lambda: answer_sentences(reading, sample)
    needs = {"answer_sentences", "answer_sentence_types"}
    yield "types of answers' sentences", needs, lambda: answer_types(reading, recipes, say)
    needs = {"selected_responses", "response_scores", "sentence_types"}
    yield "selected scores", needs, lambda: selected_scores(reading, sample)
    yield "checkpoints", {"checkpoints", "sft_examples"}, lambda: checkpoints(lake, reading)


def as_record(faults: list[Fault]) -> Record:
    """The faults as plain values."""
    return {"faults": [asdict(fault) for fault in faults], "num_faults": len(faults)}
