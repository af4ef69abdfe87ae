"""The README is true. Its commands, links and recipe are tested in test_docs, its queries in test_demo_run."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.verifiers.catalogue import VERIFIERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_make_target_it_names_exists() -> None:
    development = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([a-z-]+)", README + development, re.MULTILINE))
    assert {"demo", "test", "ui", "docs"} <= targets
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets)


def test_ci_tests_and_builds_the_site() -> None:
    lines = re.findall(r"^make (.*?)(?: #.*)?$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert {"check", "docs", "test", "test-ui"} <= set(" ".join(lines).split())


@pytest.mark.parametrize(
    ("given", "demo", "school"),
    [({}, ROOT / ".dasd", ROOT / ".dasd-school"), ({"DASD_HOME": "/mine"}, Path("/mine"), Path("/mine"))],
)
def test_demo_and_school_have_homes_apart_unless_one_is_given(
    given: dict[str, str], demo: Path, school: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name, shown in (("python", "${3%/prompts}"), ("dasd", "$DASD_HOME")):  # where questions land, what is run
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho "{shown}"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".torch").touch()
    (tmp_path / ".installed").touch()
    homes = {"demo": [demo] * 2, "school": [school] * 2, "experiments": [school] * 3, "experiments-all": [school] * 3}
    for target, expected in homes.items():
        command = ["make", "--silent", f"VENV={tmp_path}", target]
        environment = {"PATH": os.environ["PATH"], **given}
        made = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        assert [Path(line) for line in made.stdout.splitlines()] == expected, target


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
