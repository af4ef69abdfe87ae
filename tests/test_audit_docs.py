"""The queries in docs/audit.md run."""

from conftest import Project
from test_docs import PAGES, commands


def test_the_queries_have_rows(finished: Project) -> None:
    queries = [words[1] for words in commands(PAGES["docs/audit.md"]) if words[0] == "sql"]
    assert queries
    assert all(finished.read(query).height > 0 for query in queries)
