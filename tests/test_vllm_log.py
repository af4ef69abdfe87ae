"""What vLLM prints goes to a file: of this process, of those it starts, and of libraries that know no Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dasd_resources.inference.vllm_log import CONFIGURATION, LOG, MAX_BYTES, VARIABLE, VLLMFailed, output_in


@pytest.fixture(autouse=True)
def _own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)


def test_all_output_goes_to_the_log_and_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.write(1, b"before\n")
    with output_in(tmp_path / "logs") as log:
        os.write(1, b"of a library\n")
        subprocess.run([sys.executable, "-c", "import sys; print('of a child', file=sys.stderr)"], check=True)
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("before\n", "after\n")
    assert log == tmp_path / "logs" / LOG
    assert log.read_text() == "of a library\nof a child\n"
    written = json.loads((tmp_path / "logs" / CONFIGURATION).read_text())
    assert written["handlers"]["file"]["filename"] == str(log)
    assert os.environ[VARIABLE] == str(tmp_path / "logs" / CONFIGURATION)


def test_a_model_that_does_not_load_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(VLLMFailed, match=r"no room \(vLLM's log: .*vllm\.log\)"), output_in(tmp_path):
        raise ValueError("no room")


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b"x" * (MAX_BYTES + 1))
    with output_in(tmp_path):
        os.write(1, b"new\n")
    assert (tmp_path / LOG).read_text() == "new\n"
    assert (tmp_path / f"{LOG}.1").stat().st_size == MAX_BYTES + 1
