"""Imports run one way, and the command line starts without Dagster: the contracts of pyproject.toml hold."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
SLOW = ("dagster", "matplotlib", "torch", "transformers")  # seconds to import


def test_imports_run_one_way(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    status = lint_imports("pyproject.toml", no_cache=True, no_logo=True)
    report = capsys.readouterr().out
    assert status == 0, report


def test_contracts_about_engines_name_every_engine() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    package = "dasd_resources.inference"
    files = (ROOT / "dasd_resources" / "inference").glob("*_engine.py")
    engines = {f"{package}.{path.stem}" for path in files}
    named = {
        contract["id"]: {name for name in contract["forbidden_modules"] if name.endswith("_engine")}
        for contract in contracts
        if f"{package}.engines" in contract.get("forbidden_modules", ())
    }
    assert named == dict.fromkeys(("storage-and-landing", "chat"), engines)


def test_stages_lie_between_the_service_and_the_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers of pyproject.toml with every flat module in them, whatever their names: a new stage needs no entry."""
    monkeypatch.chdir(ROOT)
    rooms = {"cli", "viewer", "definitions", "commands", "audit", "service", "records", "rules"}
    modules = {
        path.stem
        for path in (ROOT / "dasd_assets").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    stages = " : ".join(sorted(modules - rooms - {"__init__"}))
    layers = ["cli", "viewer", "commands | audit", "definitions", "service", stages, "records", "rules"]
    config = [
        "[importlinter]",
        "root_packages =",
        "    dasd_assets",
        "    dasd_resources",
        "",
        "[importlinter:contract:all]",
    ]
    config += ["name = layers", "type = layers", "containers =", "    dasd_assets", "exhaustive = true", "layers ="]
    (tmp_path / ".importlinter").write_text("\n".join([*config, *[f"    {layer}" for layer in layers]]))
    status = lint_imports(str(tmp_path / ".importlinter"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


def test_the_command_line_is_parsed_without_slow_libraries() -> None:
    code = (
        "import sys; from dasd_assets.cli.parser import parser; parser().parse_args(['audit', 'response', '0']); "
        f"print([name for name in {SLOW} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("imported", ["dasd", "dasd_assets.definitions", "dasd_resources"])
def test_arrow_gives_back_what_is_freed(imported: str) -> None:
    code = f"import {imported}, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    unset = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=unset, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "system"
