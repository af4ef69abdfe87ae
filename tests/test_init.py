"""`dasd init`: a short recipe of flags and of what is found here, which loads; what is not said is asked for."""

import io
import json
from pathlib import Path

import pytest
import yaml
from stub_server import MODEL, Stub, listening

from dasd_assets.cli import main
from dasd_assets.cli.parser import parse
from dasd_assets.commands import init
from dasd_assets.commands.found_models import base_url, cached_models, context_of
from dasd_resources.chat import Chat
from dasd_resources.recipe import RECIPES, load_recipe

DEMO = RECIPES.parent / "demo"
TEACHER, STUDENT = str(DEMO / "teacher"), str(DEMO / "student")
TASK = "reasoning_gym:chain_sum"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DASD_HOME", str(tmp_path / ".dasd"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_of_flags_is_short_and_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "mine.yaml", "--teacher", TEACHER, "--student", STUDENT, "--benchmark", TASK]) == 0
    out = capsys.readouterr().out
    assert "ok      teacher " in out
    assert "dasd run --recipe" in out
    lines = (folder / "mine.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=.dasd/recipe.schema.json"
    assert json.loads((folder / ".dasd" / "recipe.schema.json").read_text())["title"] == "Recipe"
    assert len(lines) <= 22
    recipe = load_recipe("mine.yaml")
    assert recipe.training.max_length == context_of(STUDENT) == 1024
    assert recipe.student.system_prompt == "You are a helpful assistant."


def test_a_file_that_is_there_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.yaml").write_text("mine")
    words = ["init", "mine.yaml", "--teacher", TEACHER, "--student", STUDENT, "--benchmark", TASK]
    assert main(words) == 2
    assert "add --force to replace it" in capsys.readouterr().err
    assert (folder / "mine.yaml").read_text() == "mine"


def test_a_server_says_what_it_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub = Stub(Chat.load(DEMO / "teacher", load_recipe("demo").teacher))
    with listening(stub) as url:
        words = ["--teacher", url.removesuffix("/v1"), "--student", STUDENT, "--benchmark", TASK]
        main(["init", "a.yaml", *words, "--teacher-tokenizer", TEACHER, "--teacher-revision", "v1"])
        written = yaml.safe_load((folder / "a.yaml").read_text())
        assert written["teacher"]["server"] == {"base_urls": [url], "model": MODEL, "revision": "v1"}
        assert written["generation"] == {"max_tokens": 384}  # three quarters of what it takes
        assert load_recipe("a.yaml").teacher.engine == "openai"
        stub.models["data"].append({"id": "another"})
        assert main(["init", "b.yaml", *words]) == 2
        assert f"--served-model is missing. The server has several models at {url}. Found here: {MODEL}, another" in (
            capsys.readouterr().err
        )
    assert main(["init", "b.yaml", *words]) == 2
    assert "start the server, or correct the address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "key", "told"),
    [
        (
            "http://10.0.0.9:8000",
            "sk-secret",
            "the key in TEACHER_KEY would cross the network in the clear to http://10.",
        ),
        ("http://127.0.0.1:9", "sk-secret\nmore", "the value of TEACHER_KEY is not a key; set it to the key alone"),
        ("http://127.0.0.1:9", "", "the environment variable TEACHER_KEY is not set"),
        ("http://127.0.0.1:9", "sk-secret", "start the server, or correct the address"),
        ("http://me:sk-secret@10.0.0.9", "", "--teacher: server.base_urls: each must read http(s)://host[:port]/v1"),
        ("http://[::1", "", "each must read http(s)://host[:port]/v1"),
    ],
)
def test_a_key_is_sent_nowhere_in_the_clear_and_never_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, key: str, told: str
) -> None:
    monkeypatch.setenv("TEACHER_KEY", key)
    words = ["--teacher", url, "--student", STUDENT, "--benchmark", TASK, "--api-key-env", "TEACHER_KEY"]
    assert main(["init", "mine.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert told in error and "sk-secret" not in error


class Terminal(io.StringIO):
    """What somebody types, and then nothing."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_that_ends_says_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    assert main(["init", "mine.yaml"]) == 2
    assert "--teacher is missing; answer the question, or give the flag" in capsys.readouterr().err


def test_what_was_not_said_is_asked_in_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"\n{TEACHER}\n{STUDENT}\n{TASK}\n"))
    assert main(["init", "mine.yaml"]) == 0
    assert load_recipe("mine.yaml").teacher.model == TEACHER


def test_without_a_terminal_the_flag_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "mine.yaml"]) == 2
    assert "--teacher is missing" in capsys.readouterr().err
    assert main(["init", "mine.yaml", "--teacher", TEACHER, "--student", STUDENT, "--benchmark", "amie25=x"]) == 2
    assert "--benchmark amie25=x: no layout with its file (aime24=FILE" in capsys.readouterr().err
    assert not (folder / "mine.yaml").exists()


@pytest.mark.parametrize(
    ("landing", "written"),
    [("s3://bucket/prompts", "s3://bucket/prompts"), ("zip://*.jsonl::s3://b/p.zip",) * 2, ("prompts", "./prompts")],
)
def test_questions_may_land_in_a_store(folder: Path, landing: str, written: str) -> None:
    words = ["init", "mine.yaml", "--teacher", TEACHER, "--student", STUDENT, "--benchmark", TASK, "--landing", landing]
    args = parse(words)
    args.home = folder / ".dasd"
    assert init.drafted(args, folder / "mine.yaml")["automation"] == {"landing": written}


def test_models_of_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "none"))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(folder / "none"), raising=False)
    assert cached_models() == []


def test_more_gpus_share_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "visible_gpus", lambda: ["0", "1"])
    found = init.training_here(None)
    assert (found["strategy"], found["gpus_per_node"]) == ("fsdp2", 2)
    assert "dtype" not in found


@pytest.mark.parametrize(
    ("url", "base"), [("http://h:8000", "http://h:8000/v1"), ("https://h/api/v1/", "https://h/api/v1")]
)
def test_the_address_of_an_api(url: str, base: str) -> None:
    assert base_url(url) == base
