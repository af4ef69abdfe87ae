"""A package whose docstring has a table of its modules names all of them, and none that there is not."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    path.parent
    for package in ("dasd", "dasd_assets", "dasd_resources", "docs_build")
    for path in sorted((ROOT / package).rglob("__init__.py"))
    if "| module |" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_is_named(package: Path) -> None:
    text = (package / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
    modules = {path.stem for path in package.glob("*.py")}
    modules |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert {name for name in modules - {"__init__"} if not re.search(rf"`{name}/?`", text)} == set()
    rows = re.findall(r"^\| ((?:`\w+/?`(?:, )?)+) \|", text, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)/?`", row)}
    assert named - modules == set()
    assert named


def test_there_are_such_packages() -> None:
    assert len(PACKAGES) > 2
