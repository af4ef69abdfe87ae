"""Every command in docs/audit.md is one that the parser knows, and its queries run."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import Project

from dasd_assets.cli.parser import parser

TEXT = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^dasd .+$", TEXT, re.MULTILINE)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_parser_knows_it(words: list[str]) -> None:
    assert callable(parser().parse_args(words).command)


def test_the_queries_have_rows(finished: Project) -> None:
    queries = [words[1] for words in COMMANDS if words[0] == "sql"]
    assert queries
    assert all(finished.read(query).height > 0 for query in queries)
