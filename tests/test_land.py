"""`dasd land`: whole files in the landing folder, and only such as have prompts; a dataset's data, and no script."""

import json
from pathlib import Path

import pytest

from dasd_assets.commands.land import Hub, NotLanded, hugging_face, land, land_datasets
from dasd_resources.landing.landing_folder import LandingFolder
from dasd_resources.recipe import Landing, Recipe, load_recipe

GOOD, BAD = (
    b'{"question": "a"}\n{"question": "b"}\n{"text": "c"}\n',
    b'{"messages": [{"role": "user", "content": "d"}]}\n',
)


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("demo")


def landed(home: Path) -> list[str]:
    folder = home / "prompts"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_and_folders_are_landed_with_a_word_on_their_first_rows(tmp_path: Path, recipe: Recipe) -> None:
    said: list[str] = []
    file, home = written(tmp_path / "a.jsonl", GOOD), tmp_path / "home"
    written(tmp_path / "set" / "data" / "b.json", b'[{"question": "e"}]')
    written(tmp_path / "set" / "README.md", b"about")
    land(recipe, home, [file, tmp_path / "set"], said.append)
    assert landed(home) == ["a.jsonl", "set/README.md", "set/data/b.json"]
    assert said[:2] == [
        "a.jsonl: the first 3 rows: prompts 2, missing_question 1",
        "set/data/b.json: the first 1 row: prompts 1",
    ]
    with pytest.raises(NotLanded, match=r"has a a.jsonl already; rename one"):
        land(recipe, home, [file], said.append)


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl/data.jsonl"], ids=["files", "folders"])
def test_two_sources_of_one_name_are_refused_before_any_is_there(tmp_path: Path, recipe: Recipe, name: str) -> None:
    for folder in ("math", "code"):
        written(tmp_path / folder / name, GOOD)
    first, second = tmp_path / "math" / "train.jsonl", tmp_path / "code" / "train.jsonl"
    with pytest.raises(NotLanded) as refused:
        land(recipe, tmp_path / "home", [first, second], print)
    assert str(refused.value) == f"{first} and {second} would both land as train.jsonl; rename one of them"
    same = first.parent / ".." / "math" / "train.jsonl"
    with pytest.raises(NotLanded, match=r"are the same; name it once"):
        land(recipe, tmp_path / "home", [first, same], print)
    assert landed(tmp_path / "home") == []


@pytest.mark.parametrize(
    ("source", "file", "why"),
    [
        (".a.jsonl", ".a.jsonl", "still being written, and not read; rename it"),
        ("a.jsonl.part", "a.jsonl.part", "still being written, and not read; rename it"),
        ("set.tmp", "set.tmp/a.jsonl", "still being written, and not read; rename it"),
        ("set", "set/README.md", r"1 not read \('README.md': only .jsonl, .* are read: convert it, or remove it\)"),
        ("set", "set/a.jsonl.tmp", "no file in it will be read .a name that .*ends in .tmp or .part is of what"),
        ("set", "set/a/b/c/d.jsonl", r"1 not read \('a/b/c': folders are read to a depth of 3: put its files higher"),
    ],
)
def test_what_would_not_be_read_is_refused_before_any_is_there(
    tmp_path: Path, recipe: Recipe, source: str, file: str, why: str
) -> None:
    good = written(tmp_path / "good" / "a" / "b" / "c.jsonl", GOOD)
    written(tmp_path / file, GOOD)
    with pytest.raises(NotLanded, match=why):
        land(recipe, tmp_path / "home", [tmp_path / "good", tmp_path / source], print)
    assert landed(tmp_path / "home") == []
    land(recipe, tmp_path / "home", [tmp_path / "good"], print)
    found = LandingFolder.of(None, tmp_path / "home").files()
    assert [one.name for one in found] == [good.relative_to(tmp_path).as_posix()]


def test_a_link_lands_under_its_own_name(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "a.jsonl").symlink_to(written(tmp_path / "blob", GOOD))
    land(recipe, tmp_path / "home", [tmp_path / "a.jsonl"], print)
    assert [one.name for one in LandingFolder.of(None, tmp_path / "home").files()] == ["a.jsonl"]


def test_where_a_recipe_imports_files_of_responses_and_of_their_logprobs_are_landed(tmp_path: Path) -> None:
    demo, said, home = load_recipe("demo").model_dump(), list[str](), tmp_path / "home"
    importing = Recipe.model_validate({**demo, "imports": {}, "teacher": {**demo["teacher"], "stands_for": "itself"}})
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    responses = written(tmp_path / "a.jsonl", json.dumps({"messages": talk, "uuid": "1"}).encode())
    row = b'{"sample_uuid": "1", "token_ids": [7], "logprobs": [%s]}\n'
    companion, bad = row % b"-0.5", row % b"5"
    land(importing, home, [responses, written(tmp_path / "b.jsonl", bad + companion)], said.append)
    assert landed(home) == ["a.jsonl", "b.jsonl"]
    assert said[:2] == [
        "a.jsonl: the first 1 row: prompts 1, responses 1",
        "b.jsonl: the first 2 rows: invalid_logprobs 1, logprobs 1",
    ]
    with pytest.raises(NotLanded, match=r"c.jsonl: none of the first 1 rows is a prompt: logprob 5 at token 0 is not"):
        land(importing, home, [written(tmp_path / "c.jsonl", bad)], said.append)


def test_a_file_without_prompts_is_not_landed_and_its_mapping_is_named(tmp_path: Path, recipe: Recipe) -> None:
    good, bad, home = written(tmp_path / "a.jsonl", GOOD), written(tmp_path / "b.jsonl", BAD), tmp_path / "home"
    with pytest.raises(
        NotLanded, match=r"b.jsonl: none of the first 1 rows is a prompt: .*`landing: {columns: messages}`"
    ):
        land(recipe, home, [good, bad], print)
    assert landed(home) == []
    mapped = recipe.model_copy(
        update={"landing": Landing.model_validate({"columns": {"where": "b*", "ready": "messages"}})}
    )
    land(mapped, home, [good, bad], print)
    assert landed(home) == ["a.jsonl", "b.jsonl"]
    with pytest.raises(NotLanded, match=r"only .jsonl, .json, .*are read; convert it"):
        land(recipe, home, [written(tmp_path / "c.txt", GOOD)], print)
    with pytest.raises(NotLanded, match="no such file"):
        land(recipe, home, [tmp_path / "none.jsonl"], print)


FILES = (
    *("README.md", "set.py", "data.pkl", "main/train-00000-of-00001.jsonl", "main/test-00000-of-00001.jsonl"),
    *("other/train-00000-of-00001.jsonl", "other/extra.jsonl"),
)


def hub(asked: list[str]) -> Hub:
    def download(path: str, folder: Path) -> Path:
        asked.append(path)
        return written(folder / path, json.dumps({"question": path}).encode())

    return Hub(lambda: FILES, download)


@pytest.mark.parametrize(
    ("config", "split", "wanted"),
    [
        (None, None, ["main/train-00000-of-00001.jsonl", "other/train-00000-of-00001.jsonl", "other/extra.jsonl"]),
        ("main", None, ["main/train-00000-of-00001.jsonl"]),
        ("main", "test", ["main/test-00000-of-00001.jsonl"]),
        (None, "extra", ["other/extra.jsonl"]),
    ],
)
def test_of_a_dataset_the_data_of_a_split_is_fetched_and_nothing_else(
    tmp_path: Path, recipe: Recipe, config: str | None, split: str | None, wanted: list[str]
) -> None:
    asked: list[str] = []
    land_datasets(recipe, tmp_path, [("us/set", hub(asked))], config, split, print)
    assert asked == wanted
    assert landed(tmp_path) == sorted(f"us__set/{path}" for path in wanted)


def test_where_one_dataset_is_refused_none_of_them_lands(tmp_path: Path, recipe: Recipe) -> None:
    no_prompts = Hub(lambda: FILES[3:4], lambda path, folder: written(folder / path, b'{"text": "no question"}'))
    for name, other in (("us/empty", Hub(list, written)), ("us/other", no_prompts), ("us/set", hub([]))):
        with pytest.raises(NotLanded, match=f"us(/|__){name[3:]}"):
            land_datasets(recipe, tmp_path, [("us/set", hub([])), (name, other)], None, None, print)
        assert landed(tmp_path) == []
    land_datasets(recipe, tmp_path, [("us/set", hub([])), ("us/other", hub([]))], "main", None, print)
    assert landed(tmp_path) == [f"us__{name}/main/train-00000-of-00001.jsonl" for name in ("other", "set")]


def test_what_a_dataset_does_not_have_and_no_network_are_one_sentence(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(NotLanded, match=r"us/set has no file of .parquet.* so named; it has \['README.md'"):
        land_datasets(recipe, tmp_path, [("us/set", hub([]))], "nope", None, print)

    def unreachable() -> list[str]:
        raise ConnectionError("name or service not known")

    with pytest.raises(NotLanded, match=r"us/set could not be downloaded: .*not known'; is there a network"):
        hubs = [("us/set", Hub(unreachable, lambda path, folder: folder))]
        land_datasets(recipe, tmp_path, hubs, None, None, print)
    with pytest.raises(NotLanded, match="--revision 'main' is not a commit: give the 40 digits"):
        hugging_face("us/set", "main")


def test_a_remote_folder_is_written_by_its_own_tools(tmp_path: Path, recipe: Recipe) -> None:
    automation = recipe.automation.model_copy(update={"landing": "memory://prompts"})
    remote = recipe.model_copy(update={"automation": automation})
    with pytest.raises(NotLanded, match="memory://prompts is no local folder"):
        land(remote, tmp_path, [written(tmp_path / "a.jsonl", GOOD)], print)
