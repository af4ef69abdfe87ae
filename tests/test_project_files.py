"""What a contributor meets first says the same as the code: CI's workflow, pre-commit, the citation, the changelog."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_workflow_and_pre_commit_do_what_the_project_does() -> None:
    [job] = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    [source] = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert source["repo"] == "local", "hooks of others are fetched at a commit, and check with versions of their own"
    assert [hook["entry"] for hook in source["hooks"]] == ["make check"]


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_changelog_has_this_version() -> None:
    assert re.search(r"^## Unreleased$", read("CHANGELOG.md"), re.MULTILINE)
    assert PROJECT["version"] in read("CHANGELOG.md")


def test_contributing_names_targets_and_files_that_exist() -> None:
    text = read("CONTRIBUTING.md")
    targets = set(re.findall(r"make ([a-z-]+)", text + read(".github/pull_request_template.md")))
    assert {target for target in targets if f"\n{target}:" not in read("Makefile")} == set()
    links = re.findall(r"\]\(([^)#\s]+)", text)
    assert links
    assert [path for path in links if "://" not in path and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", [path for path in TEMPLATES if path.stem != "config"], ids=lambda path: path.stem)
def test_an_issue_template_has_what_the_forge_asks(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"].get("label") for field in form["body"])
