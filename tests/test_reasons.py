"""Reasons are for people: code reads their kind. Every module is parsed for what compares or takes apart a sentence.

Only the migration that gave the rows of earlier releases their kind has read sentences; its every case is here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from old_catalog import old_catalog

import dasd_assets
import dasd_resources
from dasd_assets.audit.ranking import OUTCOME_KINDS, OutcomeKind
from dasd_assets.rules.empty_datasets import EMPTY_KINDS, EmptyKind
from dasd_assets.rules.merging import MERGE_KINDS, MergeKind
from dasd_assets.rules.verdict import VERDICT_KINDS, VerdictKind
from dasd_resources.inference.engine import FAILURE_KINDS, FailureKind
from dasd_resources.landing.rejections import REJECTION_KINDS, Excluded, Malformed
from dasd_resources.landing.response_rejections import RESPONSE_REJECTION_KINDS
from dasd_resources.storage.connections import attach
from dasd_resources.storage.migrations import MIGRATIONS

SENTENCES = {"reason", "why", "told", "message"}  # names of what is for people
READS = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "split", "find", "index", "replace"}
MATCHES = {"match", "search", "fullmatch", "findall", "finditer"}
MAY_READ = "storage/migrations.py"
# In SQL: a sentence compared with a text or parameter, or taken apart. `IS NULL` and equality of columns are allowed.
SQL = re.compile(
    r"""\b(?:reason|why|message)\s*(?:=|<>|!=|(?:NOT\s+)?I?LIKE|~|(?:NOT\s+)?IN|SIMILAR\s+TO|IS\s+(?:NOT\s+)?DISTINCT\s+FROM)
        \s*\(?\s*(?:'|\$)
    |\b(?:regexp_\w+|contains|starts_with|prefix|suffix|ends_with|position|strpos|substr\w*|left|right|split\w*)
        \(\s*(?:\w+\.)?(?:reason|why|message)\b
    |\bCASE\s+(?:\w+\.)?reason\s+WHEN\b""",
    re.IGNORECASE | re.VERBOSE,
)


def modules() -> Iterator[Path]:
    for package in (dasd_assets, dasd_resources):
        yield from sorted(Path(str(package.__file__)).parent.rglob("*.py"))


def reads(source: str) -> list[str]:
    """Where a module reads a sentence back, as `line: what`."""
    tree = ast.parse(source)
    return [f"{line}: {what}" for node in ast.walk(tree) for line, what in found_in(node)]


def found_in(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        if any(map(is_sentence, sides)) and any(map(is_text, sides)):
            yield node.lineno, ast.unparse(node)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        matched = node.func.attr in MATCHES and any(map(is_sentence, node.args))
        if matched or (node.func.attr in READS and is_sentence(node.func.value)):
            yield node.lineno, ast.unparse(node)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and node.slice.lower is not None:
        if is_sentence(node.value):  # its end; its start alone is shown, where it is too long
            yield node.lineno, ast.unparse(node)
    elif isinstance(node, ast.Match) and is_sentence(node.subject):
        yield node.lineno, ast.unparse(node.subject)
    elif isinstance(node, (ast.Constant, ast.JoinedStr)) and (match := SQL.search(text_of(node))):
        yield node.lineno, match[0]


def is_sentence(node: ast.expr) -> bool:
    """`x.reason`, `reason`, `row["reason"]`, a part of one, `(x.reason or "")`, `str(x.reason)`."""
    if isinstance(node, ast.BoolOp):
        return any(map(is_sentence, node.values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str":
        return any(map(is_sentence, node.args))
    if isinstance(node, ast.Subscript):
        named = isinstance(node.slice, ast.Constant) and node.slice.value in SENTENCES
        return named or (isinstance(node.slice, ast.Slice) and is_sentence(node.value))
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in SENTENCES


def is_text(node: ast.expr) -> bool:
    """A literal, or an upper-case constant, which may be one."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(map(is_text, node.elts))
    if isinstance(node, (ast.Name, ast.Attribute)):
        return (node.id if isinstance(node, ast.Name) else node.attr).isupper()
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def text_of(node: ast.Constant | ast.JoinedStr) -> str:
    """The text of a literal; what an f-string puts in stands as a parameter."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(part.value if isinstance(part, ast.Constant) else "$x" for part in node.values)


def test_no_module_reads_a_sentence_back() -> None:
    found = {str(path): reads(path.read_text()) for path in modules() if not str(path).endswith(MAY_READ)}
    assert {path: lines for path, lines in found.items() if lines} == {}


OLD_CODE = [  # as it was: each read a sentence, and the scan finds it
    """LEFT = '''SELECT regexp_extract(reason, '^duplicate of prompt ([0-9a-f]{32}) in batch', 1) AS prompt_id'''""",
    """_OUTDATED = '''SELECT 1 FROM rejected_prompts r WHERE r.reason LIKE $rejected AND TRUE'''""",
    """_REJECTED = '''SELECT CASE WHEN reason LIKE $withdrawn THEN 'x' ELSE reason END AS reason'''""",
    """query = '''SELECT count(*) FILTER (reason LIKE 'duplicate of prompt %') AS twins'''""",
    """query = '''SELECT count(*) FILTER (reason NOT LIKE 'duplicate of %' AND reason NOT LIKE $withdrawn) AS bad'''""",
    """query = f'''{X} AND v.filter_version = $filter_version AND v.reason IS DISTINCT FROM 'no verifier\\''''""",
    """query = '''WHERE prompt_id = $id OR reason LIKE 'duplicate of prompt ' || $id || '%\\''''""",
    """_UNREASONED = "passed = (reason IS NOT NULL AND NOT (filter = 'correctness' AND reason = 'no verifier'))" """,
    """any((verdict.reason or "").startswith(UNASKED) for verdict in stored.values())""",
    """if why is not None and why.startswith(("not in the pool", "dropped after", "its ")): pass""",
    """if row["reason"] == "no verifier": pass""",
    """if "withdrawn" in row["reason"]: pass""",
    """found = re.search(r"batch (.+)$", error.reason)""",
    """found = _TWIN.match(told)""",
    """known = record.reason[:10] == REJECTED""",
    """batch = reason[len("duplicate of prompt "):]""",
    """if REJECTED in row["reason"]: pass""",
]


@pytest.mark.parametrize("source", OLD_CODE)
def test_the_scan_finds_what_read_sentences_before(source: str) -> None:
    assert reads(source)


@pytest.mark.parametrize(
    "source",
    [
        """query = '''SELECT DISTINCT reason FROM failed_requests ORDER BY reason LIMIT 3'''""",
        """query = '''SELECT question_hash, min(reason) FROM withdrawn_prompts GROUP BY ALL'''""",
        """condition = "correct = (kind IS NOT NULL) OR (kind IS NULL) <> (reason IS NULL)" """,
        """if verdict.reason is None: pass""",
        """shown = f"({verdict.reason})" if verdict.reason else '' """,
        """if verdict.kind == "no_verifier": pass""",
        """finish_reason == "stop" """,
    ],
)
def test_a_sentence_may_be_passed_on_and_shown(source: str) -> None:
    assert reads(source) == []


@pytest.mark.parametrize(
    ("kinds", "meanings"),
    [
        (get_args(OutcomeKind), OUTCOME_KINDS),
        (get_args(EmptyKind), EMPTY_KINDS),
        (get_args(VerdictKind), VERDICT_KINDS),
        (get_args(FailureKind), FAILURE_KINDS),
        ((*get_args(Malformed), *get_args(Excluded)), REJECTION_KINDS),
        (get_args(MergeKind), MERGE_KINDS),
    ],
)
def test_every_kind_is_snake_case_and_has_one_sentence_of_meaning(
    kinds: tuple[str, ...], meanings: dict[str, str]
) -> None:
    assert list(kinds) == list(meanings)
    for kind, meaning in meanings.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind)
        assert meaning.endswith(".") and meaning.count(". ") == 0
    assert len(set(meanings.values())) == len(meanings)


OLD_REJECTIONS = [  # a sentence of the releases before the codes, and its kind
    ("withdrawn: duplicate of prompt", "withdrawn"),
    ("no more withdrawn, but this file is gone", "withdrawn_file_gone"),
    ("duplicate of a prompt whose batch is gone, as is this file", "duplicate_file_gone"),
    (f"duplicate of prompt {'a' * 32} in batch a b-1", "duplicate"),
    (f"duplicate of prompt {'b' * 32} (line 2)", "duplicate_line"),
    ("file is empty", "empty_file"),
    ("file is damaged after row 2: ZSTD", "damaged_file"),
    ("row has 2000000 bytes, at most 1048576 are accepted: 'x'", "row_too_long"),
    ("not UTF-8 at byte 14: '{'", "invalid_encoding"),
    ("not JSON: Expecting value at column 2: '{'", "invalid_json"),
    ("not a JSON object: '[1]'", "invalid_json"),
    ("duplicate key 'question': '{}'", "invalid_json"),
    ("NaN is not JSON: 'question is missing'", "invalid_json"),
    ("row is nested too deeply: '[['", "invalid_json"),
    ("row has no JSON form: Object of type bytes is not JSON serializable", "invalid_json"),
    ("question is missing; the row's keys are ['prompt']", "missing_question"),
    ("question must be a string, found 7", "invalid_field"),
    ("reference_answer is empty: ' '", "invalid_field"),
    ("question holds a NUL character: 'a'", "invalid_field"),
    ("metadata holds a lone surrogate at character 1: 'a'", "invalid_field"),
    ("metadata must be an object, found [1]", "invalid_field"),
    ("keys both in the row and in its metadata: ['id']", "invalid_field"),
    ("unknown verifier 'python'; known are constraint", "unknown_verifier"),
    ("verifier exact needs a reference_answer", "missing_reference"),
    ("reference_answer '42' fails its own verifier multiple_choice", "invalid_reference"),
    ("reference_answer has 10001 characters, at most 10000 are compared", "invalid_reference"),
]
OLD_FAILURES = [
    ("the model's chat template refuses the question (no system role)", "unsupported_question"),
    ("prompt of 100 tokens + max_tokens 29 exceed the model's context of 128; lower", "context_overflow"),
    ("sequence of 129 tokens exceeds the model's context of 128; lower", "context_overflow"),
    ("token ids 5 to 300 leave the model's vocabulary of 300: its tokenizer", "unknown_token"),
    ("the prefix alone fills generation.max_tokens 256; raise it", "no_budget"),
    ("r1: logprob nan at token 0 is not a log-probability; where", "invalid_logprobs"),
    ("r1: 3 tokens but 2 logprobs", "invalid_logprobs"),
    ("the engine ended without a result for it", "no_result"),
    ("http://a/v1 answered HTTP 429: slow down", "server_busy"),
    ("http://a/v1 is busy, and says to come back in 99 s; patience_s is 5", "server_unavailable"),
    ("http://a/v1 cannot be reached: no answer", "server_unavailable"),
    ("no server was to be had for 5 s (patience_s): http://a/v1 answered HTTP 500: oh", "server_unavailable"),
    ("http://a/v1 answered HTTP 401: no; is the key right?", "server_unavailable"),
    ("http://a/v1 answered HTTP 302: ; a redirect to b is not followed", "server_unavailable"),
    ("http://a/v1 answered HTTP 400: it exceeds the model's context of 9", "server_refused"),
    ("http://a/v1 answered HTTP 422: no", "server_refused"),
    ("http://a/v1 answered HTTP 408: no", "server_error"),
    ("http://a/v1 answered HTTP 500: no", "server_error"),
    ("http://a/v1 gave no whole answer within 9 s", "server_error"),
    ("http://a/v1 broke off its answer: ReadError", "server_error"),
    ("http://a/v1: it returned 3 tokens but 2 logprobs", "server_error"),
    ("vLLM ended the request with finish_reason 'abort'", "engine_error"),
]
OLD_VERDICTS: list[tuple[str, bool, str | None, str | None]] = [
    ("length", True, None, None),
    ("length", False, "513 student tokens, at most 512", "too_long"),
    ("length", False, "the student cannot be asked: the model's chat template refuses it", "unsupported_question"),
    ("truncation", False, "cut off: finish_reason is length", "cut_off"),
    ("structure", False, "calls a tool; no final answer", "tool_call"),
    ("structure", False, "no thinking part; no final answer", "no_thinking"),
    ("structure", False, "no final answer", "no_final_answer"),
    ("structure", False, "2 </think> delimiters, exactly 1 expected", "extra_delimiters"),
    ("repetition", False, "duplicate 20-grams make up 1.00, at most 0.3; repeated phrases make up", "repeated_ngrams"),
    ("repetition", False, "repeated paragraphs make up 0.90, at most 0.3", "repeated_paragraphs"),
    ("repetition", False, "repeated sentences make up 0.90, at most 0.3", "repeated_sentences"),
    ("repetition", False, "repeated phrases make up 0.90, at most 0.3", "repeated_phrases"),
    ("repetition", False, "a loop makes up 0.60 of the last tokens, at most 0.5", "looping_tail"),
    ("correctness", True, "no verifier", "no_verifier"),
    ("correctness", False, "no final answer", "no_final_answer"),
    ("correctness", False, "math: answer '6', expected '5'", "wrong_answer"),
]


def test_rows_of_earlier_releases_are_coded_from_their_sentences(tmp_path: Path) -> None:
    coded = next(number for number, step in enumerate(MIGRATIONS) if "ADD COLUMN owner_batch" in step)
    lake = old_catalog(tmp_path / "old", coded)
    with attach(lake.catalog) as connection:
        for line, (reason, _) in enumerate(OLD_REJECTIONS):
            row = ["b1", "a.jsonl", line, reason]
            connection.execute("INSERT INTO rejected_prompts VALUES ($1, $2, $3, $4, NULL, NULL)", row)
        for line, (reason, _) in enumerate(OLD_FAILURES):
            row = [f"{line:02}", reason]
            connection.execute("INSERT INTO failed_requests VALUES ($1, 'responses', 'b1', $2, now(), NULL, 1)", row)
        for line, (name, passed, why, _) in enumerate(OLD_VERDICTS):
            row = [f"{line:02}", name, passed, why]
            connection.execute("INSERT INTO response_verdicts VALUES ($1, 'b1', $2, $3, $4, 'v', NULL)", row)
            connection.execute("INSERT INTO continuation_verdicts VALUES ($1, $2, $3, $4, 'v', NULL)", row)
    rejected = lake.read("SELECT * FROM rejected_prompts ORDER BY source_line")
    assert rejected.select("reason", "kind").rows() == OLD_REJECTIONS
    twins = rejected.filter(rejected["prompt_id"].is_not_null() | rejected["owner_batch"].is_not_null())
    found = twins.select("kind", "prompt_id", "owner_batch").rows()
    assert found == [("duplicate", "a" * 32, "a b-1"), ("duplicate_line", "b" * 32, None)]
    failed = lake.read("SELECT reason, kind FROM failed_requests ORDER BY request_id").rows()
    assert failed == OLD_FAILURES
    for table, key in (("response_verdicts", "response_id"), ("continuation_verdicts", "continuation_id")):
        assert lake.read(f"SELECT filter, passed, reason, kind FROM {table} ORDER BY {key}").rows() == OLD_VERDICTS


KIND_SETS = (  # in the order of the docs
    REJECTION_KINDS,
    MERGE_KINDS,
    RESPONSE_REJECTION_KINDS,
    VERDICT_KINDS,
    FAILURE_KINDS,
    OUTCOME_KINDS,
    EMPTY_KINDS,
)


@pytest.mark.parametrize("meanings", KIND_SETS)
def test_every_kind_is_produced_by_a_test(meanings: dict[str, str]) -> None:
    here = Path(__file__)
    tests = "".join(path.read_text() for path in here.parent.glob("test_*.py") if path != here)
    assert [kind for kind in meanings if f'"{kind}"' not in tests] == []


def test_the_docs_list_every_kind_with_its_meaning() -> None:
    lines = (Path(__file__).parent.parent / "docs" / "kinds.md").read_text().splitlines()
    listed = [line for line in lines if line.startswith("| `") and not line.endswith("| |")]
    assert listed == [f"| `{kind}` | {meaning} |" for kinds in KIND_SETS for kind, meaning in kinds.items()]
