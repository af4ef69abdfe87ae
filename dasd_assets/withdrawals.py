"""Withdrawn questions: kept out of everything that is made after a takedown.

`withdrawn_prompts` lists them. The asset `prompts` moves a withdrawn question's lines to `rejected_prompts` (kind
`withdrawn`), and all later work starts from `prompts`. A withdrawal applies to the question's text, so a copy that
lands later, with another system prompt, is rejected too. A batch is out of date as long as its prompts and the
withdrawals differ, so no event can be missed. Rows that were made before stay, for audits.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from dasd_resources.content_hash import content_hash
from dasd_resources.errors import UserError
from dasd_resources.landing.question_identity import normalised
from dasd_resources.landing.rejections import RejectionKind
from dasd_resources.storage.lake import Lake, Reading, Row, Transaction

WITHDRAWN: RejectionKind = "withdrawn"


@dataclass(frozen=True)
class TakedownResult:
    """What a takedown, or its undoing, changed.

    prompts: rows of the prompts whose questions are newly withdrawn, or restored. unlanded: questions that no prompt
    has yet; they will be rejected when they land. num_already: questions for which nothing had to be done. named: ids
    of the prompts of all questions in the request, changed now or before.
    """

    prompts: Sequence[Row]
    unlanded: list[str]
    num_already: int
    named: list[str]


class UnknownPrompts(UserError, LookupError):
    """Prompt ids that do not exist; nothing was changed."""


def question_hash(question: str) -> str:
    """Hash of a question's text, ignoring differences in Unicode composition and whitespace."""
    return content_hash(["question", normalised(question)])[:32]


def withdraw(lake: Lake, prompt_ids: Sequence[str], questions: Sequence[str], reason: str) -> TakedownResult:
    """Withdraw questions, given by prompt id or by text. Raises UnknownPrompts, and then changes nothing."""
    with lake.commit(json.dumps({"takedown": reason})) as transaction:
        hashes = _hashes(transaction, prompt_ids, questions)
        known = transaction.read("SELECT DISTINCT question_hash AS key FROM withdrawn_prompts")["key"].to_list()
        new = {key: text for key, text in hashes.items() if key not in known}
        prompts = _prompts_of(transaction, new)
        landed = {row["question_hash"] for row in prompts}
        unlanded = [key for key in new if key not in landed]
        ids = [(row["prompt_id"], row["question_hash"]) for row in prompts] + [(key, key) for key in unlanded]
        ids += _retired(transaction, dict(ids))
        transaction.append_missing("withdrawn_prompts", _withdrawal_rows(ids, dict.fromkeys(new, reason)))
        named = transaction.read(_IDS_OF_QUESTIONS, {"hashes": list(hashes)})["prompt_id"].to_list()
    return TakedownResult(prompts, [new[key] for key in unlanded], len(hashes) - len(new), named)


def undo_withdrawal(lake: Lake, prompt_ids: Sequence[str], questions: Sequence[str]) -> TakedownResult:
    """Undo withdrawals; questions that are not withdrawn count as `num_already`. Raises UnknownPrompts."""
    with lake.commit(json.dumps({"takedown": "undone"})) as transaction:
        hashes = _hashes(transaction, prompt_ids, questions)
        rows = transaction.read("SELECT * FROM withdrawn_prompts").to_dicts()
        restored = [row for row in rows if row["question_hash"] in hashes]
        for key in {row["question_hash"] for row in restored}:
            transaction.replace("withdrawn_prompts", {"question_hash": key}, pl.DataFrame())
        named = {row["prompt_id"]: row["question_hash"] for row in [*restored, *_prompts_of(transaction, hashes)]}
        named |= dict(_retired(transaction, named))
    return TakedownResult(restored, [], len(hashes) - len({row["question_hash"] for row in restored}), sorted(named))


def withdrawals_of(transaction: Transaction, questions: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Prompt id -> why its question is withdrawn, for those that are.

    questions: prompt id and text. A withdrawn question under another prompt id is added to `withdrawn_prompts`.
    """
    known = transaction.read("SELECT question_hash, min(reason) FROM withdrawn_prompts GROUP BY ALL")
    reasons = dict(known.iter_rows())
    if not reasons:
        return {}
    hashes = {prompt_id: question_hash(text) for prompt_id, text in questions}
    found = {prompt_id: reasons[key] for prompt_id, key in hashes.items() if key in reasons}
    ids = [(prompt_id, hashes[prompt_id]) for prompt_id in found]
    transaction.append_missing("withdrawn_prompts", _withdrawal_rows(ids, reasons))
    return found


def outdated_batches(lake: Lake | Reading, existing: Sequence[str]) -> dict[str, str]:
    """Batch -> reason, for the batches whose `prompts` must be made again; equal reasons mean the same difference.

    They hold a question that is withdrawn now, reject one that no longer is, or reject a copy of a prompt whose batch
    does not exist any more, so that one of them can take it over; or what lines of other batches say of their prompts
    is not what they have merged.
    """
    rows = lake.read(_OUTDATED, {"existing": list(existing)})
    return {
        batch: f"{num} questions {what} ({version[:8]})"
        for batch, what, num, version in rows.sort("batch", "what").iter_rows()
    }


def _hashes(reading: Reading, prompt_ids: Sequence[str], questions: Sequence[str]) -> dict[str, str]:
    """Hash -> question, for all that the request names; the prompt id where only the hash of the text is stored.

    A retired id names the prompt that its question is now.
    """
    found = reading.read(_NAMED, {"ids": list(prompt_ids)}).to_dicts()
    if unknown := sorted(set(prompt_ids) - {row["named"] for row in found}):
        raise UnknownPrompts(f"nothing was changed: there is no prompt {', '.join(unknown)}")
    by_id = {
        row["question_hash"] or question_hash(row["question"]): row["question"] or row["prompt_id"] for row in found
    }
    return by_id | {question_hash(text): text for text in questions}


def _prompts_of(reading: Reading, hashes: Iterable[str]) -> list[Row]:
    """The prompts whose questions have these hashes, with `question_hash` added."""
    wanted = set(hashes)
    query = "SELECT prompt_id, question, batch, source_file, source_line FROM prompts ORDER BY prompt_id"
    rows = reading.read(query).iter_rows(named=True) if wanted else []
    hashed = ({**row, "question_hash": question_hash(row["question"])} for row in rows)
    return [row for row in hashed if row["question_hash"] in wanted]


def _retired(reading: Reading, hashes: dict[str, str]) -> list[tuple[str, str]]:
    """Ids under which earlier releases had lines of these prompts, with the hash of their question.

    hashes: prompt id -> hash. What was trained on under such an id is named, too.
    """
    query = """SELECT DISTINCT retired_id, prompt_id FROM prompt_lines
        WHERE retired_id IS NOT NULL AND prompt_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY ALL"""
    return [(retired, hashes[key]) for retired, key in reading.read(query, {"ids": list(hashes)}).iter_rows()]


def _withdrawal_rows(ids: Sequence[tuple[str, str]], reasons: Mapping[str, str]) -> pl.DataFrame:
    """ids: of prompts, with the hash of their question. reasons: by that hash."""
    now = datetime.now(UTC)
    return pl.DataFrame(
        [{"prompt_id": i, "question_hash": key, "reason": reasons[key], "withdrawn_at": now} for i, key in ids],
    )


# The prompts that ids name; the hash of the text alone where a prompt is withdrawn.
_NAMED = """WITH ids AS (SELECT unnest($ids::VARCHAR[]) AS named),
    in_use AS (SELECT named, named AS prompt_id FROM ids
        UNION SELECT named, prompt_id FROM ids JOIN prompt_lines ON retired_id = named)
    SELECT named, prompt_id, question, NULL AS question_hash FROM in_use JOIN prompts USING (prompt_id)
    UNION ALL SELECT named, prompt_id, NULL, question_hash FROM in_use JOIN withdrawn_prompts USING (prompt_id)"""
_IDS_OF_QUESTIONS = """SELECT prompt_id FROM withdrawn_prompts
    WHERE question_hash IN (SELECT unnest($hashes::VARCHAR[])) ORDER BY prompt_id"""
# Lines that were rejected as duplicates of a prompt whose batch does not exist any more.
ORPHANED_LINES = """SELECT batch, source_file, source_line, prompt_id, owner_batch FROM rejected_prompts
    WHERE kind IN ('duplicate', 'duplicate_merged') AND owner_batch NOT IN (SELECT unnest($existing::VARCHAR[]))"""
# Lines that were rejected as nearly a prompt that there is no more: its batch was removed, or it was withdrawn.
TWINLESS_LINES = """SELECT r.batch, r.source_file, r.source_line, r.prompt_id, r.owner_batch
    FROM rejected_prompts r ANTI JOIN (FROM prompts WHERE batch IN (SELECT unnest($existing::VARCHAR[]))) p
        ON p.prompt_id = r.prompt_id
    WHERE r.kind = 'near_duplicate'"""
# One row per batch and kind of difference: how many lines differ, and a hash (`version`) of which. The reason holds
# both, so that a new difference is recognised even where the number is the same. So `key` has, besides the prompt,
# the time of its withdrawal or the run that rejected it: both change when the same question is withdrawn or rejected
# again.
_OUTDATED = f"""WITH lines AS (SELECT batch AS line_batch, * EXCLUDE (batch) FROM prompt_lines
        WHERE batch IN (SELECT unnest($existing::VARCHAR[]))),
    differences AS (
        -- 1. Withdrawn since the batch was made: still in prompts.
        SELECT p.batch, 'withdrawn' AS what, p.prompt_id || w.withdrawn_at::VARCHAR AS key
        FROM prompts p JOIN withdrawn_prompts w USING (prompt_id)
        -- 2. Restored since the batch was made: still rejected.
        UNION ALL SELECT batch, 'restored', prompt_id || coalesce(run_id, '') FROM rejected_prompts
        WHERE kind = '{WITHDRAWN}' AND prompt_id NOT IN (SELECT prompt_id FROM withdrawn_prompts)
        -- 3. Rejected as duplicates of prompts that no batch has since theirs was removed.
        UNION ALL SELECT batch, 'duplicated in removed batches', owner_batch || ' ' || source_line
        FROM ({ORPHANED_LINES})
        -- Rejected as nearly a prompt that there is no more.
        UNION ALL SELECT batch, 'that were nearly a prompt that is gone', prompt_id || ' ' || source_line
        FROM ({TWINLESS_LINES})
        -- 4. Said of a prompt by a line, and not merged yet.
        UNION ALL SELECT p.batch, 'with lines to merge', l.line_batch || l.source_line || l.says
        FROM (FROM lines ANTI JOIN prompt_merges USING (prompt_id, line_batch, source_line, says)) l
            JOIN prompts p USING (prompt_id)
        WHERE p.batch IN (SELECT unnest($existing::VARCHAR[]))
        -- 5. Merged, and said by no line any more.
        UNION ALL SELECT m.batch, 'merged with lines that are gone', m.line_batch || m.source_line || m.says
        FROM (FROM prompt_merges SEMI JOIN prompts USING (prompt_id, batch)) m
            ANTI JOIN lines USING (prompt_id, line_batch, source_line, says)
        WHERE m.batch IN (SELECT unnest($existing::VARCHAR[])))
    SELECT batch, what, count(*) AS num, md5(string_agg(key, ' ' ORDER BY key)) AS version
    FROM differences GROUP BY batch, what"""
