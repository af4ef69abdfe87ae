"""docs/threat-model.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_claim_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "threat-model.md").read_text()
    named = 0
    for row in page.splitlines():
        file = ""
        for quoted in re.findall(r"`([^`]*\btest_[^`]*)`", row):
            *before, name = quoted.split(": ")
            file = before[0] if before else file
            source = (ROOT / "tests" / (file or name)).read_text()
            assert name.endswith(".py") or f"\ndef {name}(" in source, quoted
            named += 1
    assert named > 20
