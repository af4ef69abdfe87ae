"""The queries in docs/audit.md run."""

import re
import shlex
from pathlib import Path

from conftest import Project

TEXT = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^dasd .+$", TEXT, re.MULTILINE)]


def test_the_queries_have_rows(finished: Project) -> None:
    queries = [words[1] for words in COMMANDS if words[0] == "sql"]
    assert queries
    assert all(finished.read(query).height > 0 for query in queries)
