"""`dasd fetch-benchmarks` against a hub in memory: nothing here has ever met the real one."""

import base64
import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import polars as pl
import pytest
from huggingface_hub.errors import GatedRepoError
from test_benchmarks import AIME24, AIME25, GPQA, LCB, MATH500, Rows

from dasd_assets.cli import main
from dasd_assets.commands.fetch_benchmarks import NotFetched, fetch, fetch_all
from dasd_resources.benchmarks.private_tests import NotPlain, unpacked
from dasd_resources.benchmarks.questions import benchmark_prompts
from dasd_resources.benchmarks.sources import SOURCES
from dasd_resources.content_hash import file_hash
from dasd_resources.hub import DatasetCommit, HubError, HuggingFace
from dasd_resources.recipe import Benchmark, load_recipe

FIRST, SECOND = "a" * 40, "b" * 40


def numbered(rows: Rows, key: str, count: int) -> Rows:
    return [{**rows[number % len(rows)], key: f"{number}: {rows[number % len(rows)][key]}"} for number in range(count)]


def packed(tests: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(tests))).decode()


def json_lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def livecodebench(count: int) -> bytes:
    rows = [{**row, "private_test_cases": packed(row["private_test_cases"])} for row in LCB]
    return json_lines(numbered(rows, "question_content", count))


def parquet(rows: Rows, folder: Path) -> bytes:
    pl.DataFrame(rows).write_parquet(folder / "rows.parquet")
    return (folder / "rows.parquet").read_bytes()


@dataclass
class FakeHub:
    """Repositories by name, their files by path; every commit has the same."""

    repositories: dict[str, dict[str, bytes]]
    newest: str = FIRST
    downloaded: list[str] = field(default_factory=list)
    sha256: Mapping[str, str] = field(default_factory=dict)

    def look(self, repository: str, revision: str | None) -> DatasetCommit:
        if repository not in self.repositories:
            raise HubError(f"{repository} cannot be had: name not known; is there a network?")
        files = {path: self.sha256.get(path) for path in self.repositories[repository]}
        return DatasetCommit(repository, revision or self.newest, files, "mit")

    def download(self, dataset: DatasetCommit, path: str, folder: Path) -> Path:
        self.downloaded.append(f"{dataset.repository}@{dataset.commit}/{path}")
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.repositories[dataset.repository][path])
        return file


@pytest.fixture
def hub(tmp_path: Path) -> FakeHub:
    code = {"code_generation_lite.py": b"import os", "test.jsonl": b"", "README.md": b""}
    return FakeHub(
        {
            "HuggingFaceH4/aime_2024": {
                "README.md": b"",
                "data/train-00000-of-00001.parquet": parquet(numbered(AIME24, "problem", 30), tmp_path),
            },
            "math-ai/aime25": {"test.jsonl": json_lines(numbered(AIME25, "problem", 30))},
            "HuggingFaceH4/MATH-500": {"test.jsonl": json_lines(numbered(MATH500, "problem", 500))},
            "Idavidrein/gpqa": {
                "gpqa_diamond.csv": pl.DataFrame(numbered(GPQA, "Question", 198)).write_csv().encode(),
                "gpqa_main.csv": b"",
            },
            "livecodebench/code_generation_lite": {
                **code,
                "test5.jsonl": livecodebench(167),
                "test6.jsonl": livecodebench(175),
            },
        }
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_all_are_written_where_and_as_the_recipes_read_them(tmp_path: Path, hub: FakeHub) -> None:
    said: list[str] = []
    home = tmp_path / "home"
    assert fetch_all(home, list(SOURCES), hub, None, False, said.append) == []
    for name, source in SOURCES.items():
        file = home / "benchmarks" / source.file
        found = list(benchmark_prompts(Benchmark.model_validate({"name": name, "layout": name, "path": str(file)})))
        assert len(found) == source.num_questions
        record = json.loads((file.parent / f"{source.file}.source.json").read_text())
        assert (record["commit"], record["license"], record["sha256"]) == (FIRST, "mit", file_hash(file))
        assert f"{name}: {source.repository} at {FIRST}, licence mit" in said
    assert len(names(home / "benchmarks")) == 2 * len(SOURCES)
    assert all(path.endswith((".parquet", ".jsonl", ".csv")) for path in hub.downloaded)
    needed = [Path(str(one.path)) for one in load_recipe("dasd-4b", home).evaluation.benchmarks]
    assert all(path.is_file() for path in needed)

    before = list(hub.downloaded)
    hub.newest = SECOND
    assert fetch_all(home, list(SOURCES), hub, None, False, said.append) == []
    assert hub.downloaded == before


def test_a_commit_is_kept_to_until_another_is_asked_for(tmp_path: Path, hub: FakeHub) -> None:
    file = tmp_path / "benchmarks" / "aime25.jsonl"
    fetch(tmp_path, "aime25", hub, None, False, print)
    first, hub.newest = file.read_bytes(), SECOND
    file.unlink()  # as a kill between record and file leaves it
    fetch(tmp_path, "aime25", hub, None, False, print)
    assert [asked.partition("@")[2][:40] for asked in hub.downloaded] == [FIRST, FIRST] and file.read_bytes() == first
    with pytest.raises(NotFetched, match=f"is of commit {FIRST}: --replace takes the other"):
        fetch(tmp_path, "aime25", hub, SECOND, False, print)
    hub.repositories["math-ai/aime25"]["test.jsonl"] = first + b"\n"
    file.unlink()
    with pytest.raises(NotFetched, match=f"{FIRST} holds another file than it did: --replace takes it all the same"):
        fetch(tmp_path, "aime25", hub, None, False, print)
    fetch(tmp_path, "aime25", hub, None, True, print)
    assert json.loads((tmp_path / "benchmarks" / "aime25.jsonl.source.json").read_text())["commit"] == SECOND
    file.write_bytes(b"edited")
    with pytest.raises(NotFetched, match="is not the file that was fetched: --replace fetches it anew"):
        fetch(tmp_path, "aime25", hub, None, False, print)


def test_a_file_of_ones_own_is_kept(tmp_path: Path, hub: FakeHub) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "aime25.jsonl").write_text("mine")
    with pytest.raises(NotFetched, match="nothing says where from: it is kept; --replace fetches it anew"):
        fetch(tmp_path, "aime25", hub, None, False, print)
    assert (tmp_path / "benchmarks" / "aime25.jsonl").read_text() == "mine" and hub.downloaded == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"test.jsonl": json_lines(numbered(AIME25, "problem", 29))}, "has 29 questions, and the benchmark has 30"),
        ({"test.jsonl": b'{"text": "x"}\n'}, r"not as the layout aime25 reads it: .*its keys are \['text'\]"),
        ({"a.jsonl": b"", "b.jsonl": b""}, r"should have one file \*.jsonl; it has \['a.jsonl', 'b.jsonl'\]"),
        ({"set.py": b""}, r"should have one file \*.jsonl; it has \['set.py'\]"),
    ],
)
def test_what_is_not_the_benchmark_is_not_put_in_place(
    tmp_path: Path, hub: FakeHub, files: dict[str, bytes], told: str
) -> None:
    hub.repositories["math-ai/aime25"] = files
    with pytest.raises(NotFetched, match=told):
        fetch(tmp_path, "aime25", hub, None, False, print)
    assert names(tmp_path / "benchmarks") == []


def test_a_file_that_arrives_damaged_is_not_put_in_place(tmp_path: Path, hub: FakeHub) -> None:
    hub.sha256 = {"test.jsonl": "0" * 64}
    with pytest.raises(NotFetched, match=r"arrived with SHA-256 .*, the hub says 0000"):
        fetch(tmp_path, "aime25", hub, None, False, print)
    assert names(tmp_path / "benchmarks") == []


def test_one_that_cannot_be_had_does_not_keep_back_the_others(
    tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    del hub.repositories["math-ai/aime25"]
    assert fetch_all(tmp_path, ["aime25", "aime24"], hub, None, False, print) == ["aime25"]
    assert names(tmp_path / "benchmarks") == ["aime24.parquet", "aime24.parquet.source.json"]
    err = capsys.readouterr().err
    assert "is there a network?; a copy that you have may be put at" in err


def test_a_gated_set_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise GatedRepoError("403", response=httpx.Response(403, request=httpx.Request("GET", "http://hub")))

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    with pytest.raises(
        HubError, match=r"Idavidrein/gpqa is given only to those who accept its terms: .*`hf auth login`"
    ):
        fetch(tmp_path, "gpqa_diamond", HuggingFace(), None, False, print)


def test_without_a_network_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise httpx.ConnectError("name or\nservice not known")

    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    assert main(["fetch-benchmarks", "aime24"]) == 1
    assert "cannot be had: name or service not known; is there a network?" in capsys.readouterr().err
    assert main(["fetch-benchmarks", "aime2024"]) == 1
    assert "there is no benchmark 'aime2024'; there are aime24, " in capsys.readouterr().err
    assert main(["fetch-benchmarks", "--revision", "x"]) == 1
    assert "name one benchmark" in capsys.readouterr().err


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


@pytest.mark.parametrize(
    ("tests", "told"),
    [
        (packed(Harmful()), "does more than hold a text"),
        (packed(["[]", "[]"]), "does more than hold a text"),
        (packed("{}"), "are JSON, but no list"),
        ("no base64!", "neither JSON nor base64"),
    ],
)
def test_tests_that_are_more_than_a_text_are_refused_and_never_run(
    tests: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotPlain, match=told):
        unpacked(tests)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_tests_packed_by_any_protocol_are_read(protocol: int) -> None:
    text = json.dumps([{"input": "é" * 300, "output": "1"}], ensure_ascii=False)
    assert unpacked(base64.b64encode(zlib.compress(pickle.dumps(text, protocol))).decode()) == text
