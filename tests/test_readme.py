"""The README's commands exist and do what it says; the two long ones are what CI and test_demo_run do themselves."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.verifiers import VERIFIERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "ui"} <= targets
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets)


def test_ci_runs_the_test_command_it_names() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_pictures_are_small() -> None:
    folders = (ROOT / "docs" / "screenshots", ROOT / "docs" / "pictures")
    sizes = {picture.name: picture.stat().st_size for folder in folders for picture in folder.iterdir()}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > 150_000} == {}


def test_its_prompt_line_is_a_prompt(tmp_path: Path) -> None:
    line = re.search(r"```json\n\s*(\{.*\})", README)
    assert line
    (tmp_path / "questions.jsonl").write_text(line[1] + "\n")
    (prompt,) = read_prompts(tmp_path / "questions.jsonl")
    assert isinstance(prompt, Prompt)
    assert (prompt.question, prompt.verifier) == (json.loads(line[1])["question"], "math")


def test_the_verifiers_page_names_every_one() -> None:
    page = (ROOT / "docs" / "verifiers.md").read_text(encoding="utf-8")
    assert [name for name in VERIFIERS if f"`{name}" not in page] == []


@pytest.mark.parametrize("command", sorted(set(re.findall(r"\.venv/bin/dasd ([a-z]+)", README))))
def test_every_dasd_command_it_names_exists(command: str) -> None:
    told = subprocess.run([sys.executable, "-m", "dasd_assets.cli", command, "--help"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    options = set(re.findall(rf"dasd {command}.*?(--[a-z]+)", README))
    assert all(option in told.stdout for option in options)
