"""docs/reliability.md and its figures."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from reliability import BEGIN, END, PAGE, ROOT, Figures, record, row, store, stored, with_table

DOCS = ROOT / "docs"
FIGURES = Figures("kills", "SIGKILL", 7, 5, 3, 2, 0, "pytest x", "p50 1 ms", 60, "2026-11-26", "abc1234")


def test_the_page_shows_the_stored_figures() -> None:
    page = (DOCS / PAGE).read_text()
    assert page == with_table(page, stored(DOCS))


def test_every_drill_names_tests_that_exist_and_silenced_nothing() -> None:
    for figures in stored(DOCS):
        [(file, test)] = re.findall(r"(tests/\w+\.py)(?: -k (\w+))?", figures.command)
        assert f"def {test}" in (ROOT / file).read_text(), figures.command
        assert figures.silent == 0, row(figures)


def test_a_drill_replaces_its_own_former_figures(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text(f"# Page\n{BEGIN}{END}\nrest\n")
    store(tmp_path, FIGURES)
    store(tmp_path, replace(FIGURES, drill="a disk", note=""))
    store(tmp_path, replace(FIGURES, tried=6, survived=4))
    assert [(one.drill, one.tried) for one in stored(tmp_path)] == [("a disk", 5), ("kills", 6)]
    page = (tmp_path / PAGE).read_text()
    assert page.startswith("# Page\n") and page.endswith("\nrest\n")
    assert page.count("| kills | SIGKILL | 7 | 6 | 4 | 2 | 0 | 60 | 2026-11-26, abc1234 | `pytest x` |") == 1
    assert page.count("- *kills*: p50 1 ms\n") == 1


def test_figures_are_only_stored_where_the_environment_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PAGE).write_text(f"{BEGIN}{END}")
    monkeypatch.delenv("DASD_RELIABILITY", raising=False)
    record("a", faults="none", seed=None, tried=1, survived=1, detected=0, silent=0, command="x")
    assert stored(tmp_path) == []
    monkeypatch.setenv("DASD_RELIABILITY", str(tmp_path))
    record("a", faults="none", seed=None, tried=1, survived=1, detected=0, silent=0, command="x")
    assert [one.drill for one in stored(tmp_path)] == ["a"]


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(AssertionError):
        record("a", faults="none", seed=1, tried=3, survived=1, detected=1, silent=0, command="x")
