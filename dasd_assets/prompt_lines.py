"""Landed lines -> rows of `prompts`, `prompt_lines` and `prompt_merges`: whose a question is, what is known of it.

The first batch to land a question owns its prompt; the lines of others are copies. What a copy says that the owner's
line does not is kept in `prompt_lines`; the owner's batch merges all of it (`rules/merging.py`), and is out of date as
long as lines and merges differ (`withdrawals.outdated_batches`). So a removed batch takes along what it brought.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from dasd_assets.rules.filters.catalogue import CORRECTNESS
from dasd_assets.rules.language import language
from dasd_assets.rules.merging import Known, Outcome, merge
from dasd_assets.rules.prompt_ids import StoredPrompt, find_prompts, id_fields, stored_prompts
from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.landing.question_identity import judged_question_id
from dasd_resources.landing.rejections import RejectedPrompt, RejectionKind
from dasd_resources.storage.warehouse import Reading, Row, Transaction


@dataclass(frozen=True)
class Line:
    """A sound landed line, and the prompt that its question is.

    id_fields: what else the id was hashed from, if an earlier release did. owner: the other batch that has the prompt,
    None where it is this one. earlier: the id of the line's own in earlier releases, if rows have it.
    """

    prompt: Prompt
    prompt_id: str
    id_fields: str | None
    owner: str | None
    earlier: str | None

    @property
    def known(self) -> Known:
        return known_of(asdict(self.prompt))

    @property
    def retired_id(self) -> str | None:
        """The id of its own that is out of use, because the question is another prompt."""
        return self.earlier if self.earlier != self.prompt_id else None

    def rejected(
        self, kind: RejectionKind, reason: str, prompt_id: str, owner_batch: str | None = None
    ) -> RejectedPrompt:
        """The line as one that is not in `prompts`."""
        return RejectedPrompt(self.prompt.source_file, self.prompt.source_line, kind, reason, prompt_id, owner_batch)


def known_of(row: Row) -> Known:
    """What a row with these columns knows of its question."""
    return Known(row["domain"], row["reference_answer"], row["verifier"], row["metadata"] or "{}")


def identified(transaction: Transaction, lines: Sequence[Prompt], batch: str, existing: Sequence[str]) -> list[Line]:
    """Each line with the id that its question has, or had, in this home; its key where it is new."""
    keys = list({line.prompt_id for line in lines})
    used, stored = find_prompts(transaction, keys, existing), stored_prompts(transaction, keys)
    earlier, found = _earlier_ids(transaction, lines), list[Line]()
    ids: dict[str, tuple[str, str | None]] = {}
    for line in lines:
        key, own = line.prompt_id, earlier.get(line.source_line)
        # A question of no existing batch is what it was in a removed one, or before a takedown; else it is new.
        if (one := used.get(key) or next(iter(stored.get(key, ())), None)) is not None:
            ids[key] = one.prompt_id, one.id_fields
        elif own is not None:
            ids.setdefault(key, (own, id_fields(line.domain, line.verifier, line.reference_answer)))
        found.append(Line(line, *ids.setdefault(key, (key, None)), _other_owner(used.get(key), batch), own))
    return found


def _other_owner(used: StoredPrompt | None, batch: str) -> str | None:
    return used.batch if used is not None and used.batch != batch else None


def _earlier_ids(reading: Reading, lines: Sequence[Prompt]) -> dict[int, str]:
    """Source line -> the id that an earlier release gave it, where rows have it."""
    made = {
        judged_question_id(p.question, p.system_prompt, p.domain, p.verifier, p.reference_answer): p.source_line
        for p in reversed(lines)  # the first of equal lines
    }
    found = reading.read(_IDS_IN_USE, {"ids": list(made)})["prompt_id"]
    return {made[key]: key for key in found}


# The table of prompts alone would not do: a takedown and a dropped data file take rows out of it.
_IDS_IN_USE = " UNION ".join(
    f"SELECT {column} AS prompt_id FROM {table} WHERE {column} IN (SELECT unnest($ids::VARCHAR[]))"
    for table, column in (
        ("prompts", "prompt_id"),
        ("responses", "prompt_id"),
        ("withdrawn_prompts", "prompt_id"),
        ("rejected_prompts", "prompt_id"),
        ("prompt_lines", "retired_id"),
    )
)


@dataclass(frozen=True)
class Sorted:
    """What becomes of a batch's lines: rows of `prompts`, `prompt_lines` and `prompt_merges`, and rejected lines."""

    prompts: list[Row]
    lines: list[Row]
    merges: list[Row]
    rejected: list[RejectedPrompt]


def sort_lines(transaction: Transaction, lines: Sequence[Line], batch: str, existing: Sequence[str]) -> Sorted:
    """Prompts of this batch with all that is known of them; and its copies, each with what it has to say."""
    # 1. The first line of a question that no other batch has is the prompt; the others are copies.
    first: dict[str, Line] = {}
    for line in lines:
        if line.owner is None:
            first.setdefault(line.prompt_id, line)
    copies = [line for line in lines if first.get(line.prompt_id) is not line]
    # 2. Copies that say more than the owner's line, or had an id of their own, are kept to be merged.
    owners = _own_lines(transaction, [line.prompt_id for line in copies if line.owner is not None])
    owners |= {key: line.known for key, line in first.items()}
    speaking = [line for line in copies if line.retired_id or line.known.adds_to(owners[line.prompt_id])]
    others = _lines_of_others(transaction, list(first), batch, existing)
    here, places = defaultdict[str, list[Line]](list), {one: place for place, one in enumerate(existing)}
    for line in speaking:
        here[line.prompt_id].append(line)
    prompts, kept, merges = list[Row](), [_line_row(line, batch) for line in speaking], list[Row]()
    # 3. A prompt that only one line knows is that line; else all lines are merged, in the order of their batches.
    for key, own in first.items():
        if not others[key] and not here[key]:
            prompts.append(prompt_row(own, batch, own.known))
            continue
        kept.append(_line_row(own, batch))
        rows = [*others[key], *(_line_row(line, batch) for line in (own, *here[key]))]
        rows.sort(key=lambda row: (places[row["batch"]], row["source_line"]))
        known, outcomes = merge(own.prompt.question, [known_of(row) for row in rows])
        prompts.append(prompt_row(own, batch, known))
        merges += [_merge_row(key, batch, row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]
    # 4. Every copy is accounted for.
    loud = {line.prompt.source_line for line in speaking}
    rejected = [_copy(line, first.get(line.prompt_id), line.prompt.source_line in loud) for line in copies]
    return Sorted(prompts, kept, merges, rejected)


def _own_lines(reading: Reading, prompt_ids: Collection[str]) -> dict[str, Known]:
    """What the owners' own lines of these prompts say."""
    query = f"{OWN_LINES} WHERE p.prompt_id IN (SELECT unnest($ids::VARCHAR[]))"
    rows = reading.read(query, {"ids": list(prompt_ids)}).iter_rows(named=True)
    return {row["prompt_id"]: known_of(row) for row in rows}


# The owner's line of each prompt: what it says by itself is in prompt_lines, where other lines were merged.
OWN_LINES = """SELECT p.prompt_id, p.batch, p.question, p.system_prompt, p.source_file, p.source_line,
        coalesce(l.domain, p.domain) AS domain, coalesce(l.metadata, p.metadata) AS metadata,
        CASE WHEN l.batch IS NULL THEN p.reference_answer ELSE l.reference_answer END AS reference_answer,
        CASE WHEN l.batch IS NULL THEN p.verifier ELSE l.verifier END AS verifier
    FROM prompts p LEFT JOIN prompt_lines l
        ON l.batch = p.batch AND l.source_line = p.source_line AND l.prompt_id = p.prompt_id"""


def _lines_of_others(
    reading: Reading, prompt_ids: Sequence[str], batch: str, existing: Sequence[str]
) -> defaultdict[str, list[Row]]:
    """The lines of other existing batches that have something to say of these prompts."""
    query = """SELECT * EXCLUDE (run_id) FROM prompt_lines WHERE prompt_id IN (SELECT unnest($ids::VARCHAR[]))
        AND batch <> $batch AND batch IN (SELECT unnest($existing::VARCHAR[]))"""
    params = {"ids": list(prompt_ids), "batch": batch, "existing": list(existing)}
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in reading.read(query, params).iter_rows(named=True):
        found[row["prompt_id"]].append(row)
    return found


def prompt_row(line: Line, batch: str, known: Known) -> Row:
    """The `prompts` row of the owner's line, with what is known by all lines."""
    prompt = line.prompt
    return {
        "prompt_id": line.prompt_id,
        "batch": batch,
        "question": prompt.question,
        "system_prompt": prompt.system_prompt,
        **asdict(known),
        "source_file": prompt.source_file,
        "source_line": prompt.source_line,
        "question_key": prompt.prompt_id,
        "id_fields": line.id_fields,
        "language": language(prompt.question),
    }


def _line_row(line: Line, batch: str) -> Row:
    return {
        "batch": batch,
        "source_file": line.prompt.source_file,
        "source_line": line.prompt.source_line,
        "prompt_id": line.prompt_id,
        **asdict(line.known),
        "says": line.known.says,
        "retired_id": line.retired_id,
    }


def _merge_row(prompt_id: str, batch: str, line: Row, outcome: Outcome) -> Row:
    return {
        "prompt_id": prompt_id,
        "batch": batch,
        "line_batch": line["batch"],
        "source_file": line["source_file"],
        "source_line": line["source_line"],
        "says": line["says"],
        **asdict(outcome),
        "brought": list(outcome.brought),
    }


def _copy(line: Line, twin: Line | None, speaks: bool) -> RejectedPrompt:
    """A copy as a rejected line. twin: the line of the same file that is the prompt, if one is."""
    where = f"in batch {line.owner}" if twin is None else f"(line {twin.prompt.source_line})"
    more = "; what it says besides is in prompt_lines" if speaks else ""
    kind: RejectionKind = "duplicate_merged" if speaks else "duplicate" if twin is None else "duplicate_line"
    return line.rejected(kind, f"duplicate of prompt {line.prompt_id} {where}{more}", line.prompt_id, line.owner)


def changed(transaction: Transaction, rows: Sequence[Row]) -> list[str]:
    """Ids of the prompts that are judged by something else now than they are stored with."""
    query = "SELECT * FROM prompts WHERE prompt_id IN (SELECT unnest($ids::VARCHAR[]))"
    stored = transaction.read(query, {"ids": [row["prompt_id"] for row in rows]}).iter_rows(named=True)
    before = {row["prompt_id"]: _judged_by(row) for row in stored}
    return [row["prompt_id"] for row in rows if before.get(row["prompt_id"], _judged_by(row)) != _judged_by(row)]


def _judged_by(row: Row) -> tuple[object, ...]:
    return row["reference_answer"], row["verifier"], row["metadata"]


def forget_verdicts(transaction: Transaction, prompt_ids: Sequence[str]) -> None:
    """Delete the correctness verdicts on these prompts' responses: they are judged again, by what is known now."""
    for table, verdicts, key in (
        ("responses", "response_verdicts", "response_id"),
        ("teacher_continuations", "continuation_verdicts", "continuation_id"),
    ):
        if prompt_ids:
            query = f"SELECT {key} FROM {table} WHERE prompt_id IN (SELECT unnest($ids::VARCHAR[]))"
            ids = transaction.read(query, {"ids": list(prompt_ids)})[key].to_list()
            transaction.delete_keys(verdicts, {"filter": CORRECTNESS}, key, ids)
