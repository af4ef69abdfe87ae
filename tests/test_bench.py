"""The frame of the benches: what a script prints lands in the page, and one that fails is named there."""

import importlib
import runpy
from pathlib import Path

import pytest

BENCHES = sorted((Path(__file__).parents[1] / "bench").glob("bench_*.py"))
FRAME = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "run_all.py"))
RESULTS = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "results.py"))


def test_a_script_becomes_a_section(tmp_path: Path) -> None:
    script = tmp_path / "bench_x.py"
    script.write_text("import dasd_assets\nprint('## X')")
    text, succeeded = FRAME["section"](script)
    assert succeeded
    assert text.startswith("## X\n\n`bench_x.py`, ") and text.endswith(" cores\n")


def test_a_script_that_fails_is_named_beside_what_it_printed(tmp_path: Path) -> None:
    script = tmp_path / "bench_x.py"
    script.write_text("import sys\nprint('## X')\nsys.exit(3)")
    text, succeeded = FRAME["section"](script)
    assert not succeeded
    assert "## X" in text
    assert "bench_x.py" in text and "exit code 3" in text


def test_a_page_falls_apart_into_the_sections_it_was_made_of(tmp_path: Path) -> None:
    sections = {}
    for name, prints in (("bench_x.py", "## X\n\n`x.py`, 3 s"), ("bench_y.py", "## Y")):
        (tmp_path / name).write_text(f"print({prints!r})")
        sections[name], _ = FRAME["section"](tmp_path / name)
    page = "\n".join([FRAME["heading"](), *sections.values()])
    assert FRAME["sections_of"](page) == sections


def test_every_script_is_in_the_page() -> None:
    """By its section, or in the list at the end, which is as `run_all.py` writes it."""
    page = FRAME["PAGE"].read_text(encoding="utf-8")
    sections = FRAME["sections_of"](page)
    without = [script for script in BENCHES if script.name not in sections]
    assert page.endswith("\n".join(["", *FRAME["others"](without)]))
    assert {script.stem for script in without} == FRAME["ELSEWHERE"].keys()


def test_the_heading_names_versions() -> None:
    heading = FRAME["heading"]()
    assert all(part in heading for part in ("Python 3.", "torch 2", "duckdb 1.5.5", "dagster 1."))


def test_ratios_say_whether_they_meet_the_bar() -> None:
    assert RESULTS["against"](1.2, 0.9) == "1.20 × (bar 0.9 ×)"
    assert RESULTS["against"](0.8, 0.9) == "0.80 × (bar 0.9 ×, MISSED)"
    assert RESULTS["table"](["a", "b"], [["x", 1234.5]]) == "| a | b |\n| :-- | --: |\n| x | 1,234 |\n"


@pytest.mark.parametrize("name", ["bench_policies", "bench_selection"])
def test_a_bench_over_few_rows_ends_in_its_section(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their rows are written by SQL of their own, which no type checker compares with the tables."""
    monkeypatch.syspath_prepend(FRAME["ROOT"] / "bench")
    importlib.import_module(name).main(1600)
    assert capsys.readouterr().out.startswith("## ")
