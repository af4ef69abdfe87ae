"""`dasd chat`: questions from a pipe or a terminal, answers as they come, of models side by side; nothing is stored."""

import io
import os
import pty
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from conftest import Fake, FakeEngine, Project

from dasd_assets.commands.chat import (
    Sampling,
    Speaker,
    answer_all,
    find_model,
    questions,
    require_one_process,
    sampling_of,
)
from dasd_assets.commands.engine_slot import ENGINE_POOL
from dasd_assets.service.instance import open_instance
from dasd_resources.home import prepare_home
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import RecipeError
from dasd_resources.storage.warehouse import Warehouse

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=200, system_prompt=None)
QUESTION = "The problem: 3 + 4 = ?"


class Streaming(FakeEngine):
    """Gives its tokens one by one."""

    def stream(self, request: GenerationRequest) -> Iterator[int | Completion | Failure]:
        [result] = self.generate([request])
        yield from result.token_ids if isinstance(result, Completion) else ()
        yield result


def speakers(home: Path, recipe: object, *names: str, streams: bool = False, fake: Fake | None = None) -> list[Speaker]:
    engines, fake = Engines(home=str(home)), fake or Fake(steady=True)
    made = []
    for name in names:
        found = find_model(Warehouse(home=str(home)), engines, recipe, name)  # type: ignore[arg-type]
        model = engines.find(found.spec, name)
        made.append(Speaker(found.name, model, (Streaming if streams else FakeEngine)(model, fake)))
    return made


@pytest.mark.parametrize("streams", [True, False])
def test_each_model_answers_each_question(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    monkeypatch.setattr("dasd_assets.commands.chat.REDRAW_SECONDS", 0.0)
    models = speakers(project.home, project.recipe, "student", "teacher", streams=streams)
    assert answer_all(models, iter([QUESTION, "The problem: 2 + 2 = ?"]), SAMPLING) == 0
    out, err = capsys.readouterr()
    sections = out.split("── ")
    assert [section.partition("\n")[0] for section in sections[1:]] == ["student", "teacher"] * 2
    assert sections[1].startswith("student\n<think>\n") and "</think>\nThe answer is 7.\n" in sections[1]
    assert "The answer is 4." in sections[4] and out.startswith(f"> {QUESTION}\n")
    assert err.count(" tokens in ") == 4
    assert not (project.home / "catalog.sqlite").exists()


def test_a_question_asked_again_is_another_sample_and_a_chat_is_repeatable(project: Project) -> None:
    fake = Fake()
    models = speakers(project.home, project.recipe, "student", fake=fake)
    for _ in range(2):
        answer_all(models, iter([QUESTION, QUESTION]), SAMPLING)
    first, second = fake.generated[:2], fake.generated[2:]
    assert first == second and len(set(first)) == 2


def test_a_request_that_fails_says_why_and_the_others_go_on(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for streams in (True, False):
        models = speakers(project.home, project.recipe, "student", "teacher", streams=streams)
        failing = Fake(fails=lambda request_id: True)
        models[0] = replace(models[0], engine=type(models[0].engine)(models[0].model, failing))
        assert answer_all(models, iter([QUESTION]), SAMPLING) == 1
        out, err = capsys.readouterr()
        assert "student gave no answer: told to fail" in err and "The answer is 7." in out


def test_what_a_model_says_cannot_act_on_a_terminal(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conftest.response", lambda *_: "<think>\nx\x1b[31m\u202e\n</think>\n\x1b]0;title\x07 7")
    for streams in (True, False):
        answer_all(speakers(project.home, project.recipe, "student", streams=streams), iter([QUESTION]), SAMPLING)
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\u202e" not in out and "\\x1b" in out


def test_any_model_may_be_named(copy: Project) -> None:
    [checkpoint] = copy.read("SELECT checkpoint_id FROM checkpoints WHERE name = 't060'")["checkpoint_id"]
    before = copy.read("FROM checkpoints")
    for name in ("t060", checkpoint, "teacher", copy.recipe.student.model):
        assert find_model(copy.warehouse, copy.engines, copy.recipe, name).spec.model
    assert copy.read("FROM checkpoints").equals(before)
    with pytest.raises(RecipeError, match="no folder"):
        found = find_model(copy.warehouse, copy.engines, copy.recipe, "./nothing")
        copy.engines.find(found.spec, "./nothing")


def test_two_models_are_not_put_on_a_gpu_that_one_keeps(project: Project) -> None:
    [speaker] = speakers(project.home, project.recipe, "student")
    kept = replace(speaker.model, spec=speaker.model.spec.model_copy(update={"engine": "vllm"}))
    require_one_process([("student", kept)])
    with pytest.raises(RecipeError, match=r"^student: this engine keeps its GPU .* leave --beside out, or serve"):
        require_one_process([("student", kept), ("teacher", speaker.model)])


def test_a_sampling_that_no_recipe_may_have_is_refused(project: Project) -> None:
    given = Namespace(temperature=0.5, top_p=None, max_tokens=None, system=None)
    assert sampling_of(project.recipe, given).temperature == 0.5
    for name, value, told in (
        ("temperature", 0.0, r"temperatures.0: Input should be greater than 0 \(found 0.0\)"),
        ("temperature", 7.0, "temperatures.0: Input should be less than or equal to 2"),
        ("top_p", 1.5, "top_p: Input should be less than or equal to 1"),
    ):
        with pytest.raises(RecipeError, match=f"^dasd chat: {told}"):
            sampling_of(project.recipe, Namespace(**{**vars(given), name: value}))


def test_blank_lines_ask_nothing() -> None:
    assert list(questions(io.StringIO("one\n\n  \n two \nthree"))) == ["one", "two", "three"]


def test_a_person_may_type_and_end_with_ctrl_c(project: Project, tmp_path: Path) -> None:
    """The real student, in a terminal: an answer, then Ctrl-C as it waits for the next question; its slot is free."""
    prepare_home(tmp_path / "home", None)
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "dasd_assets.cli", "chat", "student", "--max-tokens", "8"]
    environment = {**os.environ, "DASD_HOME": str(tmp_path / "home"), "DASD_RECIPE": "demo", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True) as chat:
        os.close(theirs)
        os.write(mine, b"What is 3 + 4?\n")
        said = _until(mine, b"a second")
        chat.send_signal(signal.SIGINT)
        said += _until(mine, b"not stored")
        assert chat.wait(60) == 130
    os.close(mine)
    assert b"8 tokens in" in said and b"Traceback" not in said
    with open_instance(tmp_path / "home" / "dagster") as instance:
        assert [(run.job_name, run.status) for run in instance.get_runs()] == [("chat", dg.DagsterRunStatus.CANCELED)]
        assert not instance.event_log_storage.get_concurrency_info(ENGINE_POOL).claimed_slots
    kept = [*(tmp_path / "home" / "dagster" / "storage").rglob("*.err")]
    assert kept and not any(b"tokens in" in log.read_bytes() for log in kept)  # said to the person, not to the run


def _until(terminal: int, wanted: bytes) -> bytes:
    said, ends = b"", time.monotonic() + 300.0
    while wanted not in said and time.monotonic() < ends:
        said += os.read(terminal, 4096)
    return said
