"""The wheel, installed into an environment and a folder in which nothing is: every file is in it, and it works there.

The environment finds all other packages where the tests have theirs, so that nothing is downloaded.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in ROOT.glob("dasd*/__init__.py"))
LEFT_BY_WORK = {"__pycache__"}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and an empty folder to work in."""

    wheel: Path
    scripts: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Without what would lead to the source tree or to another home."""
        unwanted = ("DAGSTER", "DASD", "PYTHON", "VIRTUAL_ENV")
        return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}

    def dasd(self, *words: str) -> str:
        """What a command prints."""
        command, pipe = [self.scripts / "dasd", *words], subprocess.PIPE
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    @contextmanager
    def serving(self, *words: str) -> Iterator[None]:
        """A command that serves until it is ended."""
        process = subprocess.Popen([self.scripts / "dasd", *words], cwd=self.folder, env=self.environment)
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(timeout=60) in (0, 143)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("wheel")
    source, environment, folder = place / "source", place / "environment", place / "empty"
    folder.mkdir()
    for package in PACKAGES:  # a copy: a build leaves files beside its source
        shutil.copytree(package, source / package.name, ignore=shutil.ignore_patterns(*LEFT_BY_WORK))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    built = ("wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(place))
    subprocess.run([*pip, *built], check=True)
    [wheel] = place.glob("dasd-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    # Only the folder is added: what its own .pth files add, such as this source tree, is not.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return Installed(wheel, environment / "bin", folder)


def test_every_file_of_the_packages_is_in_it(installed: Installed) -> None:
    files = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and not LEFT_BY_WORK & set(path.parts)
    }
    with ZipFile(installed.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == files


def test_it_plans_the_demo_in_an_empty_folder(installed: Installed) -> None:
    said = installed.dasd("run", "--recipe", "demo", "--dry-run")
    assert "the questions that recipe demo brings" in said
    assert "recipe demo: would make" in said
    assert list(installed.folder.iterdir()) == [installed.folder / ".dasd"]


def test_an_extra_is_asked_of_what_is_installed_and_of_no_registry(installed: Installed) -> None:
    """As error messages have it (`pip_install`); what the extra names is where the tests have their packages."""
    pip = (sys.executable, "-m", "pip", "--python", installed.scripts / "python", "install", "--dry-run", "--no-index")
    said = subprocess.run([*pip, "dasd[cluster]"], env=installed.environment, stdout=subprocess.PIPE, text=True)
    assert said.returncode == 0 and "Requirement already satisfied: dasd[cluster]" in said.stdout


@pytest.mark.drill
def test_the_demo_runs_and_is_seen(installed: Installed) -> None:
    assert "materializations in" in installed.dasd("run", "--recipe", "demo")
    assert "0 materializations in" in installed.dasd("run", "--recipe", "demo")
    with installed.serving("view", "--port", "3917"):
        for page in ("/explore", "/static/viewer.css", "/static/vendor/katex.min.js", "/leaderboard", "/checkpoints"):
            assert fetched(f"http://127.0.0.1:3917{page}")
    with installed.serving("ui", "--port", "3918"):
        assert b"dagster_webserver_version" in fetched("http://127.0.0.1:3918/server_info")


def fetched(address: str) -> bytes:
    """The page, as soon as somebody serves it."""
    ends = time.monotonic() + 120.0
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return bytes(answer.read())
        except URLError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.5)
