"""Verdicts and evaluations again, by the filters and verifiers that gave them, where their rules are recorded.

Texts are judged on the student's tokens as they are stored; whether these are right, `tokens` finds out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.prompt import Record
from dasd_assets.audit.verify.chats import Chats
from dasd_assets.audit.verify.sampling import CHUNK, drawn, first_by_hash
from dasd_assets.records.wording import number_of
from dasd_assets.rules.filters.catalogue import (
    CORRECTNESS,
    FILTERS,
    Response,
    continuation_filter_version,
    correctness,
    filter_version,
)
from dasd_assets.rules.instructions import as_asked
from dasd_assets.rules.judging import judge_row
from dasd_assets.rules.stored_tokens import BY_STUDENT, TEXT_TOKENS
from dasd_assets.rules.verdict import Verdict, judge_answer, verifier_version
from dasd_resources.recipe import Recipe
from dasd_resources.sandbox import USUAL, Confinement, NoSandbox
from dasd_resources.storage.lake import Reading
from dasd_resources.verifiers.catalogue import VERIFIER_VERSION
from dasd_resources.verifiers.in_order import in_order
from dasd_resources.verifiers.judgement import GIVEN_UP

GAVE_UP = "their verifier gave up, then or now"
_OF_PROMPT = "p.prompt_id, p.question, p.system_prompt, p.reference_answer, p.verifier, p.metadata"


@dataclass(frozen=True)
class Judged:
    """A table of verdicts, the tables of what they judge, its key, the columns judged, and how rules are named.

    tokens: of the student. columns, instruction (below the question): in SQL; t is `table`, s its `tokens`.
    """

    verdicts: str
    table: str
    tokens: str
    key: str
    columns: str
    instruction: str
    version: Callable[[Recipe, str], str]


class NotJudged(LookupError):
    """A verdict cannot be given again; the message says why."""


JUDGED = (
    Judged(
        "response_verdicts",
        "responses",
        "student_tokens",
        "response_id",
        "response_id, t.batch, text, t.token_ids, finish_reason, tool_call",
        "t.instruction",
        filter_version,
    ),
    Judged(
        "continuation_verdicts",
        "teacher_continuations",
        "continuation_tokens",
        "continuation_id",
        f"continuation_id, text, {TEXT_TOKENS} AS token_ids, finish_reason, tool_call",
        """(SELECT a.instruction FROM student_rollouts s JOIN responses a ON a.response_id = s.reference_response_id
            WHERE s.rollout_id = t.rollout_id)""",
        continuation_filter_version,
    ),
)


def verdicts(
    reading: Reading, chats: Chats, judged: Judged, sample: int | None, say: Callable[[str], None]
) -> Iterator[Fault]:
    """Rows that the filters judge otherwise; those by filters, rules or models that are not here are counted."""
    rules, unjudged, removed = _rules(chats, judged), Counter[str](), Counter[str]()
    rows = _rows(reading, judged, {version: student for version, (_, student) in rules.items()}, sample)
    for row, stored, again, not_judged in in_order(rows, lambda row: _judged(row, rules)):
        if isinstance(again, ValueError):
            yield Fault("prompts", row["prompt_id"], f"nothing can be judged by it: {again}", AGAIN)
            continue
        unjudged.update([not_judged] if not_judged else [])
        removed.update(stored.keys() - FILTERS.keys())
        for name, found in stored.items():
            if name not in FILTERS or found == again.get(name):
                continue
            if _given_up(found, again.get(name)):
                unjudged[GAVE_UP] += 1
                continue
            what = _difference(found, again.get(name))
            yield Fault(judged.verdicts, f"{row[judged.key]} {name}", what, AGAIN)
    for why, number in unjudged.items():
        say(f"  the verdicts of {number:,} {judged.table} were not judged again: {why}")
    for name, number in sorted(removed.items()):
        say(f"  {number_of(number, 'verdict')} in {judged.verdicts} not given again: there is no filter {name!r}")


def _rules(chats: Chats, judged: Judged) -> dict[str, tuple[Recipe, str]]:
    """Filter version -> recipe and student, of every recipe that a model was registered or trained with."""
    return {
        judged.version(recipe, student): (recipe, student) for recipe in chats.recipes for student in chats.students
    }


def _judged(
    row: Record, rules: dict[str, tuple[Recipe, str]]
) -> tuple[Record, dict[str, Verdict], dict[str, Verdict] | ValueError, str]:
    """The row, its verdicts as they are stored and again, or the error of its question; and what was not judged, why.

    What cannot be found out here stays as it is stored.
    """
    stored = {v["filter"]: Verdict(v["passed"], v["kind"], v["reason"], v["value"]) for v in row["verdicts"]}
    try:
        try:
            return row, stored, _again(row, rules), ""
        except NotJudged as error:
            correctness = _correctness(row, stored, rules) if row["filter_version"] in rules else {}
            return row, stored, stored | correctness, str(error)
    except ValueError as error:
        return row, stored, error, ""


def _given_up(found: Verdict, again: Verdict | None) -> bool:
    """Whether a verifier gave up, then or now, which may depend on the machine."""
    return found.kind in GIVEN_UP or (again is not None and again.kind in GIVEN_UP)


def _again(row: Record, rules: dict[str, tuple[Recipe, str]]) -> dict[str, Verdict]:
    version = row["filter_version"]
    if version not in rules:
        raise NotJudged(f"the rules of filter version {version} are of no recorded recipe, or of older code")
    if row["num_student_tokens"] is None and row["token_kind"] is None:
        raise NotJudged("they have no tokens of their student (an earlier release judged them); `dasd run` makes them")
    recipe, _ = rules[version]
    try:
        return judge_row(
            {**row, "asked": as_asked(row["question"], row["instruction"])},
            recipe.filters,
            thinking=recipe.teacher.thinking,
            confinement=recipe.verification.confinement,
        )
    except NoSandbox as error:
        raise NotJudged(str(error)) from None


def _correctness(row: Record, stored: dict[str, Verdict], rules: dict[str, tuple[Recipe, str]]) -> dict[str, Verdict]:
    """The one verdict that needs no student's tokens; none where the student or the program could not even be tried."""
    if any(verdict.kind == "unsupported_question" for verdict in stored.values()):
        return {}
    confinement = rules[row["filter_version"]][0].verification.confinement
    asked: Record = {name: row.get(name) for name in Response.__annotations__} | {"confinement": confinement}
    try:
        return {CORRECTNESS: correctness(Response(**asked))}
    except NoSandbox:
        return {}


def _rows(reading: Reading, judged: Judged, students: Mapping[str, str], sample: int | None) -> Iterator[Record]:
    """What was judged, with its question and the list `verdicts` of one filter version, batch by batch.

    students: filter version -> the student whose tokens it judges.
    """
    columns = "unnest($versions::VARCHAR[]) AS filter_version, unnest($students::VARCHAR[]) AS student_fingerprint"
    params = {"versions": list(students), "students": list(students.values())}
    reading.create_temp_table("rules", f"SELECT {columns}", params)
    scope = "TRUE"
    if sample is not None:
        ids = f"SELECT DISTINCT {judged.key} FROM {judged.verdicts}"
        reading.create_temp_table("chosen", first_by_hash(ids, judged.key, sample))
        scope = f"{judged.key} IN (FROM chosen)"
    batches: list[str | None] = [None]
    if "batch" in judged.columns:
        known = f"SELECT DISTINCT batch FROM {judged.verdicts} WHERE {scope} ORDER BY batch"
        batches = reading.read(known)["batch"].to_list()
        scope += " AND batch = $batch"
    query = f"""SELECT {judged.columns}, {judged.instruction} AS instruction, filter_version, verdicts, {_OF_PROMPT},
            {BY_STUDENT}
        FROM (FROM {judged.table} WHERE {scope}) t JOIN prompts p USING (prompt_id) JOIN (
            SELECT {judged.key}, filter_version,
                list({{filter: filter, passed: passed, kind: kind, reason: reason, value: value}}) AS verdicts
            FROM {judged.verdicts} WHERE {scope} GROUP BY ALL) v USING ({judged.key})
            LEFT JOIN rules USING (filter_version)
            LEFT JOIN (FROM {judged.tokens} WHERE {scope}) s USING ({judged.key}, student_fingerprint)"""
    for batch in batches:
        for chunk in reading.stream(query, {} if batch is None else {"batch": batch}, CHUNK):
            yield from chunk.iter_rows(named=True)


def evaluations(
    reading: Reading, recipes: Iterable[Recipe], sample: int | None, say: Callable[[str], None]
) -> Iterator[Fault]:
    """Answers to held-out questions that the verifier judges otherwise."""
    confinements = {verifier_version(recipe): recipe.verification.confinement for recipe in recipes}
    query = f"""SELECT e.evaluation_id, e.benchmark, e.question_id, e.correct, e.kind, e.reason, e.response_text,
            e.verifier_version,
            q.question, q.reference_answer, q.verifier, q.metadata
        FROM {drawn("evaluations", "evaluation_id", sample)} e
            LEFT JOIN benchmark_questions q ON q.benchmark = e.benchmark AND q.question_id = e.question_id
                AND q.judged_by IS NOT DISTINCT FROM e.judged_by
                AND list_contains($verifiers, e.verifier_version)"""
    num_unjudged = num_given_up = 0
    chunks = reading.stream(query, {"verifiers": [VERIFIER_VERSION, *confinements]}, CHUNK)
    rows = (row for chunk in chunks for row in chunk.iter_rows(named=True))
    for row, again in in_order(rows, partial(_evaluated, confinements=confinements)):
        found = Verdict(row["correct"], row["kind"], row["reason"])
        if again is None:
            num_unjudged += 1
        elif isinstance(again, ValueError):
            name = f"{row['benchmark']} {row['question_id']}"
            yield Fault("benchmark_questions", name, f"nothing can be judged by it: {again}", AGAIN)
        elif found != again and _given_up(found, again):
            num_given_up += 1
        elif found != again:
            what = f"it is {_shown(found)}, its answer gives {_shown(again)}"
            yield Fault("evaluations", row["evaluation_id"], what, AGAIN)
    if num_given_up:
        say(f"  {num_given_up:,} evaluations were not judged again: {GAVE_UP}")
    if num_unjudged:
        why = "their question or verifier is another by now, or there is no sandbox for a program"
        say(f"  {num_unjudged:,} evaluations were not judged again: {why}")


def _evaluated(row: Record, confinements: Mapping[str, Confinement]) -> tuple[Record, Verdict | ValueError | None]:
    """The row and its verdict again, or the error of its question; None if that, the verifier or a sandbox is gone."""
    if row["verifier"] is None:
        return row, None
    try:
        return row, judge_answer(row["response_text"], row, confinements.get(row["verifier_version"], USUAL))
    except NoSandbox:
        return row, None
    except ValueError as error:
        return row, error


def _difference(stored: Verdict, again: Verdict | None) -> str:
    if again is not None and replace(again, value=stored.value) == stored:
        return f"its value is {stored.value}, its text gives {again.value}"
    return f"its verdict is {_shown(stored)}, its text gives {_shown(again)}"


def _shown(verdict: Verdict | None) -> str:
    if verdict is None:
        return "none"
    details = ": ".join(text for text in (verdict.kind, verdict.reason) if text)
    return ("passed" if verdict.passed else "failed") + (f" ({details})" if details else "")
