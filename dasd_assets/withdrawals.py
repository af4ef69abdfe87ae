"""Withdrawn questions: what a takedown keeps out of everything that is made from now on.

`withdrawn_prompts` is the one truth. The asset `prompts` keeps a withdrawn question's lines out of `prompts` (they are
in `rejected_prompts`, of kind `withdrawn`), and all later work starts from `prompts`. A withdrawal is of the question's
text, so a copy that lands later, under another domain or answer, stays out too. Level-triggered: a batch is out of
date as long as its prompts and the withdrawals differ. What was made before stays, for audits.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from dasd_resources.content_hash import content_hash
from dasd_resources.errors import UserError
from dasd_resources.landing.prompt_files import normalised
from dasd_resources.landing.rejections import RejectionKind
from dasd_resources.storage.lake import Lake, Reading, Row, Transaction

WITHDRAWN: RejectionKind = "withdrawn"


@dataclass(frozen=True)
class Taken:
    """What a takedown, or its undoing, changed: hashes of questions, and the prompts that have them.

    unlanded: questions that no prompt has yet; they are refused when they land.
    named: ids of every prompt of the questions named, also of those that were withdrawn, or brought back, before.
    """

    prompts: Sequence[Row]
    unlanded: list[str]
    num_already: int
    named: list[str]


class UnknownPrompts(UserError, LookupError):
    """Ids that no prompt has; nothing was changed."""


def question_hash(question: str) -> str:
    """Names a question by its text, up to Unicode composition and whitespace."""
    return content_hash(["question", normalised(question)])[:32]


def withdraw(lake: Lake, prompt_ids: Sequence[str], questions: Sequence[str], reason: str) -> Taken:
    """Withdraw questions, named by a prompt's id or by their text. Raises UnknownPrompts, and then changes nothing."""
    with lake.commit(json.dumps({"takedown": reason})) as transaction:
        hashes = _named(transaction, prompt_ids, questions)
        known = transaction.read("SELECT DISTINCT question_hash AS key FROM withdrawn_prompts")["key"].to_list()
        new = {key: text for key, text in hashes.items() if key not in known}
        prompts = _prompts_of(transaction, new)
        landed = {row["question_hash"] for row in prompts}
        unlanded = [key for key in new if key not in landed]
        ids = [(row["prompt_id"], row["question_hash"]) for row in prompts] + [(key, key) for key in unlanded]
        transaction.append_missing("withdrawn_prompts", _rows(ids, reason))
        named = transaction.read(_NAMED, {"hashes": list(hashes)})["prompt_id"].to_list()
    return Taken(prompts, [new[key] for key in unlanded], len(hashes) - len(new), named)


def restore(lake: Lake, prompt_ids: Sequence[str], questions: Sequence[str]) -> Taken:
    """Undo withdrawals; what was not withdrawn is counted as done already."""
    with lake.commit(json.dumps({"takedown": "undone"})) as transaction:
        hashes = _named(transaction, prompt_ids, questions)
        rows = transaction.read("SELECT * FROM withdrawn_prompts").to_dicts()
        back = [row for row in rows if row["question_hash"] in hashes]
        for key in {row["question_hash"] for row in back}:
            transaction.replace("withdrawn_prompts", {"question_hash": key}, pl.DataFrame())
        named = {row["prompt_id"] for row in [*back, *_prompts_of(transaction, hashes)]}
    return Taken(back, [], len(hashes) - len({row["question_hash"] for row in back}), sorted(named))


def without_withdrawn(transaction: Transaction, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of `prompts` that may stay, and rows of `rejected_prompts` for the withdrawn ones.

    A copy of a withdrawn question under another id is withdrawn with it.
    """
    known = transaction.read("SELECT question_hash, min(reason) FROM withdrawn_prompts GROUP BY ALL")
    reasons = dict(known.iter_rows())
    if not reasons:
        return list(rows), []
    hashes = [question_hash(row["question"]) for row in rows]
    kept = [row for row, key in zip(rows, hashes, strict=True) if key not in reasons]
    out = [(row, key) for row, key in zip(rows, hashes, strict=True) if key in reasons]
    for row, key in out:
        copy = _rows([(row["prompt_id"], key)], reasons[key])
        transaction.append_missing("withdrawn_prompts", copy)
    return kept, [
        {
            **{name: row[name] for name in ("batch", "source_file", "source_line", "prompt_id")},
            "kind": WITHDRAWN,
            "reason": f"withdrawn: {reasons[key]}",
        }
        for row, key in out
    ]


def outdated_batches(lake: Lake | Reading, existing: Sequence[str]) -> dict[str, str]:
    """Batch -> reason, for those whose `prompts` differ from the withdrawals; the reason names this difference.

    Also for those that left a question to a batch that does not exist any more: it is theirs, or another's, now.
    """
    rows = lake.read(_OUTDATED, {"existing": list(existing)})
    return {
        batch: f"{num} questions {what} ({version[:8]})"
        for batch, what, num, version in rows.sort("batch", "what").iter_rows()
    }


def _named(reading: Reading, prompt_ids: Sequence[str], questions: Sequence[str]) -> dict[str, str]:
    """Hash -> question (or id, where the text is gone with the withdrawal), for all that are named."""
    query = """SELECT prompt_id, question, NULL AS question_hash FROM prompts
        WHERE prompt_id IN (SELECT unnest($ids::VARCHAR[]))
        UNION ALL SELECT prompt_id, NULL, question_hash FROM withdrawn_prompts
        WHERE prompt_id IN (SELECT unnest($ids::VARCHAR[]))"""
    found = reading.read(query, {"ids": list(prompt_ids)}).to_dicts()
    if unknown := sorted(set(prompt_ids) - {row["prompt_id"] for row in found}):
        raise UnknownPrompts(f"nothing was changed: there is no prompt {', '.join(unknown)}")
    by_id = {
        row["question_hash"] or question_hash(row["question"]): row["question"] or row["prompt_id"] for row in found
    }
    return by_id | {question_hash(text): text for text in questions}


def _prompts_of(reading: Reading, hashes: Iterable[str]) -> list[Row]:
    """The prompts whose question has one of these hashes, each with it."""
    wanted = set(hashes)
    query = "SELECT prompt_id, question, batch, source_file, source_line FROM prompts ORDER BY prompt_id"
    rows = reading.read(query).iter_rows(named=True) if wanted else []
    hashed = ({**row, "question_hash": question_hash(row["question"])} for row in rows)
    return [row for row in hashed if row["question_hash"] in wanted]


def _rows(ids: Sequence[tuple[str, str]], reason: str) -> pl.DataFrame:
    now = datetime.now(UTC)
    return pl.DataFrame(
        [{"prompt_id": i, "question_hash": key, "reason": reason, "withdrawn_at": now} for i, key in ids],
    )


_NAMED = """SELECT prompt_id FROM withdrawn_prompts
    WHERE question_hash IN (SELECT unnest($hashes::VARCHAR[])) ORDER BY prompt_id"""
# Lines rejected because another batch had the prompt, where that batch does not exist any more.
LEFT = """SELECT batch, source_file, source_line, prompt_id, owner_batch FROM rejected_prompts
    WHERE kind = 'duplicate' AND owner_batch NOT IN (SELECT unnest($existing::VARCHAR[]))"""
# One row per batch and difference: how many questions differ, and a hash of which, so that a new difference is seen as
# one although the number is the same. `key` names a difference: it changes when the same question is withdrawn again
# (another time) or rejected again (another run).
_OUTDATED = f"""WITH differences AS (
        -- withdrawn since the batch was made: still in prompts
        SELECT p.batch, 'withdrawn' AS what, p.prompt_id || w.withdrawn_at::VARCHAR AS key
        FROM prompts p JOIN withdrawn_prompts w USING (prompt_id)
        -- brought back since the batch was made: still rejected
        UNION ALL SELECT batch, 'restored', prompt_id || coalesce(run_id, '') FROM rejected_prompts
        WHERE kind = '{WITHDRAWN}' AND prompt_id NOT IN (SELECT prompt_id FROM withdrawn_prompts)
        -- owned by nobody since the other batch went
        UNION ALL SELECT batch, 'left to batches that are gone', owner_batch || ' ' || source_line FROM ({LEFT}))
    SELECT batch, what, count(*) AS num, md5(string_agg(key, ' ' ORDER BY key)) AS version
    FROM differences GROUP BY batch, what"""
