"""What `dasd ui` shows on a terminal: the steps under way with what they said last, and what the service prints."""

import io
import os
import pty
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import dagster as dg
import pytest

from dasd_assets.commands.service_terminal import LOG, Steps, service_output
from dasd_assets.records.progress import logged
from dasd_assets.service.instance import open_instance
from dasd_resources.home import prepare_home
from dasd_resources.inference.engines import LOG_FOLDER

halfway, go_on = Event(), Event()


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["b1"]))
def verdicts(context: dg.AssetExecutionContext) -> None:
    for number in logged(range(4), 4, "responses", context.log.info, interval=0.0):
        if number == 1:
            halfway.set()
            assert go_on.wait(60)


@pytest.fixture(scope="module")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_home(tmp_path_factory.mktemp("home"), None)


def test_a_step_is_shown_with_its_batch_and_what_it_said_last_until_it_ends(dagster_home: Path) -> None:
    with open_instance(dagster_home) as instance, open_instance(dagster_home) as other:
        steps = Steps(other)
        assert steps.look() == {}
        run = Thread(target=dg.materialize, args=([verdicts],), kwargs={"instance": instance, "partition_key": "b1"})
        run.start()
        assert halfway.wait(60)
        [step] = steps.look().values()
        assert step.name == "verdicts of b1" and step.since <= time.time()
        assert step.said.startswith("2/4 responses (50 %), ") and step.said.endswith(" left")
        assert [*steps.look().values()] == [step]
        go_on.set()
        run.join()
        assert steps.look() == {}


@pytest.fixture
def terminal() -> Iterator[tuple[bytearray, io.TextIOWrapper]]:
    """What was written to it so far, and its stream; it is read all the time, as it holds 4 KB."""
    reader, writer = pty.openpty()
    said = bytearray()

    def read() -> None:
        with suppress(OSError):  # its other end is closed
            while True:
                said.extend(os.read(reader, 4096))

    thread = Thread(target=read)
    thread.start()
    with os.fdopen(writer, "w") as stream:
        yield said, stream
    thread.join()
    os.close(reader)


def test_what_the_service_prints_is_kept_and_passed_on_above(
    dagster_home: Path, terminal: tuple[bytearray, io.TextIOWrapper]
) -> None:
    said, stream = terminal
    with service_output(stream, dagster_home.parent, dagster_home) as printed:
        assert printed is not None
        printed.write(b"\x1b[33ma warning\x1b[0m of \x1b]0;nobody\x07\n")
        printed.flush()
        ends = time.monotonic() + 60
        while b"nothing is under way" not in said and time.monotonic() < ends:
            time.sleep(0.05)
    text = said.decode().replace("\r\n", "")
    log = dagster_home.parent / LOG_FOLDER / LOG
    assert f"what the service prints is kept in {log}" in text
    assert "a warning of \\x1b]0;nobody\\x07" in text
    assert "nothing is under way" in text
    assert b"a warning" in log.read_bytes()


def test_elsewhere_the_service_prints_by_itself(dagster_home: Path) -> None:
    with service_output(io.StringIO(), dagster_home.parent, dagster_home) as printed:
        assert printed is None
