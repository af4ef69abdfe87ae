"""Which prompt a question is: found by its key, in whatever batch and under whichever id it is stored."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from dasd_resources.content_hash import content_hash
from dasd_resources.landing.question_identity import question_key
from dasd_resources.storage.lake import Lake, Reading, Row, Transaction


@dataclass(frozen=True)
class StoredPrompt:
    """Where a question is in `prompts`.

    id_fields: of a prompt that an earlier release landed, what its id was hashed from besides (JSON).
    """

    prompt_id: str
    batch: str
    source_line: int
    id_fields: str | None


def find_prompts(reading: Reading, keys: Sequence[str], existing: Sequence[str]) -> dict[str, StoredPrompt]:
    """Key -> the prompt in use, for the questions that one of the existing batches has.

    keys: of `question_key(question, system_prompt)`. existing: the batches there are, in their order. Homes of earlier
    releases have keys once the `prompts` of any batch was made by this one (`fill_keys`).
    """
    places = {batch: place for place, batch in enumerate(existing)}
    found = {
        key: [one for one in stored if one.batch in places] for key, stored in stored_prompts(reading, keys).items()
    }
    return {key: min(some, key=lambda one: (places[one.batch], one.source_line)) for key, some in found.items() if some}


def stored_prompts(reading: Reading, keys: Sequence[str]) -> dict[str, list[StoredPrompt]]:
    """Key -> its rows of `prompts`, of existing and of removed batches."""
    query = """SELECT question_key, prompt_id, batch, source_line, id_fields FROM prompts
        WHERE question_key IN (SELECT unnest($keys::VARCHAR[])) ORDER BY batch, source_line"""
    found: dict[str, list[StoredPrompt]] = {}
    for key, *row in reading.read(query, {"keys": list(keys)}).iter_rows():
        found.setdefault(key, []).append(StoredPrompt(*row))
    return found


def fill_keys(transaction: Transaction) -> None:
    """Give the prompts of an earlier release their key, and note what their ids were hashed from; once in a home."""
    unkeyed = "FROM prompts WHERE question_key IS NULL"
    for batch in transaction.read(f"SELECT DISTINCT batch {unkeyed} ORDER BY batch")["batch"].to_list():
        rows = transaction.read(f"SELECT * {unkeyed} AND batch = $batch", {"batch": batch})
        transaction.replace("prompts", {"batch": batch, "question_key": None}, _keyed(rows))


def _keyed(rows: pl.DataFrame) -> pl.DataFrame:
    keys, fields = [], []
    for row in rows.iter_rows(named=True):
        keys.append(question_key(row["question"], row["system_prompt"]))
        fields.append(id_fields(row["domain"], row["verifier"], row["reference_answer"]))
    return rows.with_columns(
        question_key=pl.Series(keys, dtype=pl.String), id_fields=pl.Series(fields, dtype=pl.String)
    )


def id_fields(domain: str, verifier: str | None, reference_answer: str | None) -> str:
    """What an id of an earlier release was hashed from, besides question and system prompt."""
    return json.dumps([domain, verifier, reference_answer], ensure_ascii=False)


def version_of(row: Row) -> str:
    """Of a `prompts` row: its id, with what is known besides where the id does not hold that already."""
    known = [row["domain"], row["verifier"], row["reference_answer"]]
    if row["id_fields"] is not None and json.loads(row["id_fields"]) == known:
        return str(row["prompt_id"])
    return content_hash([row["prompt_id"], *known, row["metadata"]])[:32]


def known_versions(reading: Reading | Lake, prompt_ids: Sequence[str]) -> list[str]:
    """Versions of what these prompts are judged by, for the data version of verdicts; those that ids hold left out."""
    query = "SELECT * FROM prompts WHERE prompt_id IN (SELECT unnest($ids::VARCHAR[])) AND question_key IS NOT NULL"
    rows = reading.read(query, {"ids": list(prompt_ids)}).iter_rows(named=True)
    return [version for row in rows if (version := version_of(row)) != row["prompt_id"]]
