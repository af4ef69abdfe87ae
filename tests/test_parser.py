"""The parser: what a mistyped word was meant to be, the version, completion; nothing slow is imported for it."""

import subprocess
from importlib.metadata import version

import pytest

from dasd_assets.cli import main
from dasd_assets.cli.parser import SHELLS, parser


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rnu"], "there is no 'rnu'; did you mean run?"),
        (["audit", "respons", "0"], "there is no 'respons'; did you mean response?"),
        (["run", "--recpie", "demo"], "unrecognized arguments: --recpie demo; did you mean --recipe?"),
        (["xyz"], "there is no 'xyz'; there are "),
    ],
)
def test_a_mistyped_word(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"dasd {version('dasd')}\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    (commands,) = (action.choices for action in parser()._actions if action.dest == "==SUPPRESS==" or action.choices)
    assert commands is not None
    assert all(name in script for name in commands)


def test_bash_takes_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    asked = 'COMP_WORDS=(dasd run --sel) COMP_CWORD=2; _shtab_dasd; echo "${COMPREPLY[@]}"'
    told = subprocess.run(["bash", "-c", capsys.readouterr().out + asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "--select"
