"""Questions too much like others, to be rejected by `prompts`: held-out ones, and near duplicates of other prompts.

Of near duplicates the one that is a prompt already stays; of two new ones, the first. Each is compared with the
prompts of all other batches by `question_bands`, which a batch writes for its own; and for others where these have none
by the recipe's present settings, so that no prompt is overlooked until its batch is made again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from dasd_assets.prompt_lines import Line
from dasd_assets.rules.contamination import HeldOut, HeldOutIndex, Overlap
from dasd_assets.rules.near_duplicates import bands, bands_version, jaccard, shingles
from dasd_resources.landing.rejections import RejectionKind
from dasd_resources.recipe import NearDuplicates, Recipe
from dasd_resources.storage.warehouse import Reading, Row, Transaction


@dataclass(frozen=True)
class Question:
    """A question that is to be a prompt of this batch."""

    prompt_id: str
    source_line: int
    text: str


@dataclass(frozen=True)
class Alike:
    """Why a question is left out. twin: the prompt that it repeats, and its batch; both None for a held-out one."""

    kind: RejectionKind
    reason: str
    twin: str | None = None
    twin_batch: str | None = None
    overlap: Overlap | None = None


def has_held_out(reading: Reading, recipe: Recipe) -> bool:
    """Whether the recipe's held-out questions are there to be compared with."""
    query = "SELECT 1 FROM held_out_questions WHERE recipe = $recipe LIMIT 1"
    return not reading.read(query, {"recipe": recipe.name}).is_empty()


def alike_questions(
    transaction: Transaction, recipe: Recipe, lines: Sequence[Line], batch: str, existing: Sequence[str]
) -> dict[str, Alike]:
    """Prompt id -> why, for the questions of these lines of a batch that are too much like others.

    existing: all batches; prompts of others are no twins.
    """
    own = {line.prompt_id: line.prompt for line in reversed(lines) if line.owner is None}
    questions = [Question(key, prompt.source_line, prompt.question) for key, prompt in own.items()]
    held_out = _held_out_ones(transaction, recipe, questions)
    others = [one for one in questions if one.prompt_id not in held_out]
    return held_out | _near_duplicates(transaction, recipe, others, batch, existing)


def overlap_rows(lines: Iterable[Line], alike: Mapping[str, Alike], batch: str) -> list[Row]:
    """The `held_out_overlaps` rows of a batch's lines; near duplicates have none."""
    overlaps = {prompt_id: one.overlap for prompt_id, one in alike.items() if one.overlap is not None}
    return [_overlap_row(line, batch, overlaps[line.prompt_id]) for line in lines if line.prompt_id in overlaps]


def _overlap_row(line: Line, batch: str, found: Overlap) -> Row:
    return {
        "batch": batch,
        "source_file": line.prompt.source_file,
        "source_line": line.prompt.source_line,
        "prompt_id": line.prompt_id,
        "source": found.twin.source,
        "question_id": found.twin.question_id,
        "num_shared": found.num_shared,
        "num_ngrams": found.num_ngrams,
        "overlap": found.text,
    }


def _held_out_ones(reading: Reading, recipe: Recipe, questions: Iterable[Question]) -> dict[str, Alike]:
    """Prompt id -> why, for the questions that are held out, or overlap with one that is."""
    settings = recipe.decontamination
    if settings is None:
        return {}
    query = "SELECT source, question_id, question FROM held_out_questions WHERE recipe = $recipe ORDER BY ALL"
    held_out = [HeldOut(*row) for row in reading.read(query, {"recipe": recipe.name}).iter_rows()]
    index = HeldOutIndex(held_out, settings.ngram_size, settings.min_share)
    found = ((one.prompt_id, index.find(one.text)) for one in questions)
    return {prompt_id: _held_out(overlap) for prompt_id, overlap in found if overlap is not None}


def _held_out(overlap: Overlap) -> Alike:
    return Alike("held_out" if overlap.exact else "overlaps_held_out", overlap.reason, overlap=overlap)


def _near_duplicates(
    transaction: Transaction, recipe: Recipe, questions: Sequence[Question], batch: str, existing: Sequence[str]
) -> dict[str, Alike]:
    """Prompt id -> why, for the questions that are nearly another; and the bands of those that are not are stored."""
    settings = recipe.near_duplicates
    if settings is None:
        return {}
    grams = {one.prompt_id: shingles(one.text, settings.ngram_size) for one in questions}
    of = {prompt_id: bands(found, settings.threshold) for prompt_id, found in grams.items()}
    version = bands_version(settings.ngram_size, settings.threshold)
    _renew(transaction, settings, version, batch, existing)
    twin_of = _twin_finder(_others(transaction, of, batch, existing), settings)
    seated, found = _seated(transaction, batch), dict[str, Alike]()
    # Those that are prompts already come first, whatever the order of their lines: nothing made of them is lost.
    for one in sorted(questions, key=lambda question: (question.prompt_id not in seated, question.source_line)):
        if (alike := twin_of(one, grams[one.prompt_id], of[one.prompt_id], batch)) is not None:
            found[one.prompt_id] = alike
    _store(transaction, batch, version, {key: own for key, own in of.items() if key not in found})
    return found


def _store(transaction: Transaction, batch: str, version: str, of: Mapping[str, list[int]]) -> None:
    """Replace a batch's bands. of: by prompt id."""
    rows = [{"prompt_id": key, "batch": batch, "bands": own, "bands_version": version} for key, own in of.items()]
    transaction.replace("question_bands", {"batch": batch}, pl.DataFrame(rows, _BANDS))


def _renew(
    transaction: Transaction, settings: NearDuplicates, version: str, batch: str, existing: Sequence[str]
) -> None:
    """Make the bands of other existing batches that have prompts without any of this version; a batch at a time."""
    query = """SELECT DISTINCT batch FROM prompts ANTI JOIN (FROM question_bands WHERE bands_version = $version)
        USING (prompt_id, batch)
        WHERE batch <> $batch AND batch IN (SELECT unnest($existing::VARCHAR[])) ORDER BY batch"""
    params = {"version": version, "batch": batch, "existing": list(existing)}
    for other in transaction.read(query, params)["batch"].to_list():
        questions = transaction.read("SELECT prompt_id, question FROM prompts WHERE batch = $batch", {"batch": other})
        of = {
            key: bands(shingles(text, settings.ngram_size), settings.threshold) for key, text in questions.iter_rows()
        }
        _store(transaction, other, version, of)


_BANDS: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "batch": pl.String(),
    "bands": pl.List(pl.Int64),
    "bands_version": pl.String(),
}
Finder = Callable[[Question, frozenset[str], list[int], str], Alike | None]


def _twin_finder(others: Iterable[Row], settings: NearDuplicates) -> Finder:
    """A function that finds the twin of a question among others and those it was asked about before without finding."""
    texts: dict[str, tuple[str, frozenset[str]]] = {}
    having: dict[int, list[str]] = {}

    def keep(prompt_id: str, batch: str, grams: frozenset[str], own: Iterable[int]) -> None:
        texts[prompt_id] = batch, grams
        for band in own:
            having.setdefault(band, []).append(prompt_id)

    for row in others:
        keep(row["prompt_id"], row["batch"], shingles(row["question"], settings.ngram_size), row["bands"])

    def find(one: Question, grams: frozenset[str], own: list[int], batch: str) -> Alike | None:
        candidates = {key for band in own for key in having.get(band, ())}
        like = {key: jaccard(grams, texts[key][1]) for key in candidates - {one.prompt_id}}
        twin = max(like, key=lambda key: (like[key], key), default=None)
        if twin is None or like[twin] < settings.threshold:
            keep(one.prompt_id, batch, grams, own)
            return None
        reason = f"almost prompt {twin} in batch {texts[twin][0]}: {like[twin]:.0%} of their n-grams are shared"
        return Alike("near_duplicate", reason, twin, texts[twin][0])

    return find


def _others(transaction: Transaction, of: dict[str, list[int]], batch: str, existing: Sequence[str]) -> Sequence[Row]:
    """The prompts of other existing batches that share a band with one of these."""
    wanted = sorted({band for own in of.values() for band in own})
    query = """WITH wanted AS (SELECT unnest($bands::BIGINT[]) AS band),
        meeting AS (SELECT DISTINCT b.prompt_id, b.batch, b.bands
            FROM (SELECT prompt_id, batch, bands, unnest(bands) AS band FROM question_bands
                WHERE batch <> $batch AND batch IN (SELECT unnest($existing::VARCHAR[]))) b
            SEMI JOIN wanted USING (band))
        SELECT m.prompt_id, m.batch, m.bands, p.question FROM meeting m JOIN prompts p USING (prompt_id, batch)
        ORDER BY m.prompt_id"""
    params = {"bands": wanted, "batch": batch, "existing": list(existing)}
    return transaction.read(query, params).to_dicts()


def _seated(transaction: Transaction, batch: str) -> set[str]:
    """What are prompts of the batch already."""
    return set(transaction.read("SELECT prompt_id FROM prompts WHERE batch = $batch", {"batch": batch})["prompt_id"])
