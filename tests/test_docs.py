"""The documentation: its commands, recipes, links and figures are true. `make docs` builds the site, strictly."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import yaml
from test_readme import README, ROOT

from dasd_assets.cli.parser import parser
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.recipe.keys import all_keys
from docs_build.links import WRITTEN_BY_EXPERIMENTS, dead_links
from docs_build.reference import PAGE, commands_page, recipe_page

DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
PAGES = {"README.md": README} | {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))
}


def blocks(page: str, *kinds: str) -> list[str]:
    """The blocks of code of these kinds."""
    return [
        block for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE) if kind in kinds
    ]


def commands(page: str) -> list[list[str]]:
    """The words of every `dasd …` line of its shell blocks, without what the shell takes (`|`, `>`, `#`)."""
    lines = "\n".join(blocks(page, "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    found = [re.match(r"(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?dasd (.*)", line.strip()) for line in lines]
    split = [shlex.split(match[1], comments=True) for match in found if match]
    return [words[: next((i for i, word in enumerate(words) if word in "|><&&"), None)] for words in split]


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if commands(text)])
def test_every_command_is_one_that_the_parser_knows(page: str) -> None:
    for words in commands(PAGES[page]):
        assert callable(parser().parse_args(words).command), words


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_linked_exists(page: str) -> None:
    found = re.findall(
        r"""\]\(([^)\s]+)\)|src="([^"]+)\"""", re.sub(r"^```.*?^```$|`[^`\n]+`", "", PAGES[page], flags=re.S | re.M)
    )
    paths = ["".join(pair).partition("#")[0] for pair in found if "://" not in "".join(pair)]
    missing = [path for path in paths if not ((ROOT / page).parent / path).exists()]
    assert [path for path in missing if not path.startswith(WRITTEN_BY_EXPERIMENTS)] == []


def test_the_sites_navigation_names_pages_that_there_are() -> None:
    named = re.findall(r"[\w/.-]+\.md", repr(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    made = [name for name in named if name in ("index.md", "example.md") or name.startswith("reference/")]
    assert [name for name in named if name not in made and not (DOCS / name).is_file()] == []
    assert {"python.md", "example.md", "chat.md"} <= set(named)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_its_recipe_is_short_and_whole(page: str, tmp_path: Path) -> None:
    [text] = blocks(PAGES[page], "yaml")
    assert len(text.splitlines()) <= 15
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert (recipe.teacher.engine, recipe.training.epochs) == ("openai", 6)


def test_the_tutorials_hours_are_what_its_formula_gives() -> None:
    [formula], printed = blocks(TUTORIAL, "python"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(formula, {})  # the page's own
    assert blocks(TUTORIAL, "text") == [printed.getvalue()]


def test_the_kept_reference_is_the_codes() -> None:
    assert PAGE.read_text(encoding="utf-8") == recipe_page(), "outdated: run `python -m docs_build.reference`"


def test_the_reference_has_every_key_and_command() -> None:
    keys, called = recipe_page(), commands_page(parser())
    assert [key for key in all_keys(Recipe) if f"| `{key.rpartition('.')[2]}` |" not in keys] == []
    assert "| `max_length` | integer ≥ 1 |" in keys
    assert all(f"## dasd {name}\n" in called for name in ("run", "audit", "audit verify", "takedown"))
    assert "| `--select " in called


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text('<h1 id="top">x</h1><a href="sub/a.html#here">a</a><img src="gone.png">')
    (tmp_path / "sub" / "a.html").write_text(
        '<a href="../index.html#top">up</a><a href="#there">b</a><a href="https://example.org/x">c</a><script src="https://example.org/x.js"></script>'
    )
    assert dead_links(tmp_path) == [
        "index.html: sub/a.html#here",
        "index.html: gone.png",
        "sub/a.html: #there",
        "sub/a.html: https://example.org/x.js",
    ]
