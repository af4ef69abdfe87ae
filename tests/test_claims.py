"""What docs/experiments.md says was found stands on the pages that it links to, and so does what the README says.

The pages are written by `dasd experiment --write` from a home, what is said of them by hand.
"""

import re

import pytest
from test_docs import PAGES
from test_readme import README

FOUND, WHY = (
    PAGES["docs/experiments.md"].partition(f"## {heading}\n")[2].partition("\n## ")[0]
    for heading in ("Which claims of the report hold here", "Why divergence-aware sampling loses here")
)
LINK = re.compile(r"\[[^]]*\]\((experiments/\w+\.md)\)")
NUMBER = r"-?\d+(?:\.\d+)?"
INTERVAL = re.compile(rf"({NUMBER})[^\[\d]*(\[{NUMBER}, {NUMBER}\])")  # with words between: 13.7 below [-15.6, -11.7]
VALUE = re.compile(r"-?\d+\.\d+(?: ± \d+\.\d+)?|\d+ of the \d+|\d+ to \d+(?= tokens)|\d+ ·")


def plain(text: str) -> str:
    """Numbers as they can be compared: 0.859 for .859 and .859 %, -1.6 for −1.6, 0.5 for +0.5.

    A whole share, 31 %, is one of ways: `31 · …` in their table.
    """
    text = re.sub(r"(?<![.\d])(\d+) ?%", r"\1 ·", text)
    text = re.sub(r" ?%", "", text.replace("−", "-").replace("+", ""))
    return re.sub(r"(?<![\d\w])\.(?=\d)", "0.", text)


def blocks() -> list[tuple[str, str]]:
    """(text, pages) of each row, list item and paragraph of a section that has figures.

    Its pages are those that it links to; why it was found is said of the pages that the whole section links to.
    """
    found = [(part, linked(part)) for part in parts(FOUND)] + [(part, linked(WHY)) for part in parts(WHY)]
    texts = [(re.sub(r"T=[\d.]+", "", plain(LINK.sub("", part))), pages) for part, pages in found if pages]
    return [(text, pages) for text, pages in texts if VALUE.search(text)]


def parts(section: str) -> list[str]:
    """Its rows, list items and paragraphs."""
    return re.split(r"\n\n|\n(?=\| |- )", section)


def linked(text: str) -> str:
    """The pages that it links to."""
    return plain("\n".join(PAGES[f"docs/{name}"] for name in LINK.findall(text)))


def not_found(text: str, pages: str) -> list[str]:
    """The figures of a text that are not on the pages; one with an interval or error not in what is counted there."""
    counted = re.sub(r"## What it means.*?(?=\n## )", "", pages, flags=re.DOTALL)
    lacking = [f"{value} {found}" for value, found in INTERVAL.findall(text) if not stands(f"{value} {found}", counted)]
    rest = [value.lstrip("-") for value in VALUE.findall(INTERVAL.sub("", text))]
    return lacking + [value for value in rest if not stands(value, counted if "±" in value or "·" in value else pages)]


def stands(figure: str, page: str) -> bool:
    """Whether a page has it as a whole; with either sign where the text has none, and says `below` instead."""
    return re.search(rf"(?<![\d.]){'-?' if figure[0] != '-' else ''}{re.escape(figure)}(?!\d|\.\d)", page) is not None


@pytest.mark.parametrize(("text", "pages"), blocks())
def test_what_was_found_is_on_the_page_that_it_links_to(text: str, pages: str) -> None:
    assert INTERVAL.findall(text) + VALUE.findall(text)
    assert not_found(text, pages) == []


@pytest.mark.parametrize(("text", "pages"), blocks())
def test_another_number_is_on_no_page(text: str, pages: str) -> None:
    of_intervals_and_errors = r"\d(?=, -?\d)|\d(?=\])|\d(?= \[)|\d(?= ±)|(?<=± 0\.00)\d"
    for match in re.finditer(of_intervals_and_errors, text):
        changed = text[: match.start()] + str((int(match[0]) + 5) % 10) + text[match.end() :]
        assert not_found(changed, pages), changed


@pytest.mark.parametrize(
    ("said", "page", "arm", "less", "sign"),
    [
        ("the first stage does", "table_7", "low", "student", 1),
        ("divergence-aware sampling loses to a random choice", "tables_3_4", "high_das", "high_random", -1),
        ("the second stage takes some of the gain away", "table_7", "low_high", "low", -1),
    ],
)
def test_what_the_readme_says_is_sure_on_the_page(said: str, page: str, arm: str, less: str, sign: int) -> None:
    assert said in " ".join(README.split())
    row = rf"^\| {arm} \| [^|]+ \| {less} \| \S+ \[(\S+), (\S+)\] \| \d+ \| [<≤]?([\d.]+) \|"
    found = re.search(row, PAGES[f"docs/experiments/{page}.md"], re.MULTILINE)
    assert found and min(sign * float(found[1]), sign * float(found[2])) > 0 and float(found[3]) < 0.05
