"""Local and remote landing folders: what is landed, what it is called, what is read once, what cannot get out."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dasd_resources.landing.landing_folder import (
    ChangedWhileRead,
    LandedFile,
    LandingFolder,
    UnsupportedStore,
    content_of,
    seconds_until_settled,
    settled,
)
from dasd_resources.landing.prompt_files import Prompt, read_prompts

BRACES = "ca3d163bab05"  # sha256 of b"{}\n"
Write = Callable[[str, bytes], None]


@pytest.fixture(params=["local", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LandingFolder, Write]:
    """A folder of each kind, and how to put a file into it."""
    inside = tmp_path / "prompts"
    urls = {"local": str(inside), "file": f"file://{inside}", "memory": f"memory://{tmp_path.name}/prompts"}
    url = urls[request.param]
    store, root = fsspec.core.url_to_fs(url)

    def write(name: str, content: bytes) -> None:
        store.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        with store.open(f"{root}/{name}", "wb") as file:
            file.write(content)

    return LandingFolder(url, tmp_path / "hashes.sqlite"), write


def test_a_store_whose_package_is_not_here_says_which(tmp_path: Path) -> None:
    fsspec.register_implementation("away", "no_such_package.Store", errtxt="Install awayfs to access it", clobber=True)
    with pytest.raises(UnsupportedStore, match=r"^automation\.landing: what reads away:// is not here: Install awayfs"):
        LandingFolder("away://bucket/prompts", tmp_path / "hashes.sqlite").files()


def test_a_folder_that_is_not_there_is_empty(place: tuple[LandingFolder, Write]) -> None:
    folder, _ = place
    assert folder.files() == []
    assert folder.find(f"a-{BRACES}") is None


def test_complete_files_are_batches_by_stem_and_content(place: tuple[LandingFolder, Write]) -> None:
    folder, write = place
    for name in ("b.jsonl", "a.v2.jsonl.zst", "c.parquet", ".hidden.jsonl", "d.jsonl.tmp", "e.jsonl.part", "f.txt"):
        write(name, b"{}\n")
    assert [file.name for file in folder.files()] == ["a.v2.jsonl.zst", "b.jsonl", "c.parquet"]
    assert list(folder.keys(folder.files())) == [f"{stem}-{BRACES}" for stem in ("a.v2", "b", "c")]


def test_what_is_passed_over_is_named_with_what_to_do(place: tuple[LandingFolder, Write]) -> None:
    folder, write = place
    for name in ("a.jsonl", "b.JSONL", "c.txt", ".hidden.csv", "d.jsonl.tmp", "e.csv.part", "dataset_info.json"):
        write(name, b"{}\n")
    found = folder.passed_over()
    assert found.pop("c.txt").startswith("only .jsonl, .json, .csv, .tsv (each also with .gz or .zst), .parquet, ")
    assert found == {
        "b.JSONL": "its suffix must be in lower case: rename it to end in .jsonl",
        "dataset_info.json": "it describes a dataset and holds no rows: remove it",
    }


def test_links_out_and_what_is_no_file_are_passed_over_and_named(tmp_path: Path) -> None:
    folder, inside = LandingFolder(str(tmp_path / "prompts"), tmp_path / "hashes.sqlite"), tmp_path / "prompts"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.jsonl").write_text("{}")
    (inside / "sub" / "link.jsonl").symlink_to(tmp_path / "outside" / "x.jsonl")
    (inside / "broken.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    (inside / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(inside / "pipe.jsonl")
    told = {name: remedy.split(":")[0] for name, remedy in folder.passed_over().items()}
    assert folder.files() == []
    assert told == {
        "broken.jsonl": "a link that leads out of the folder, or nowhere, is not followed",
        "folder": "a link that leads out of the folder, or nowhere, is not followed",
        "pipe.jsonl": "it is no file",
        "sub/link.jsonl": "a link that leads out of the folder, or nowhere, is not followed",
    }


def test_each_file_of_a_subfolder_is_a_batch_under_its_folders_name(place: tuple[LandingFolder, Write]) -> None:
    folder, write = place
    for name in ("x.jsonl", "set/train-0.jsonl", "set/data/train-1.jsonl", "set/.git/y.jsonl", "copy.tmp/z.jsonl"):
        write(name, f'{{"question": "{name}"}}\n'.encode())
    write("set/README.md", b"?")
    write("1/2/3/4/deep.jsonl", b"{}\n")
    keys = folder.keys(folder.files())
    assert {key.rpartition("-")[0]: file.name for key, file in keys.items()} == {
        **{"x": "x.jsonl", "set_train-0": "set/train-0.jsonl", "set_data_train-1": "set/data/train-1.jsonl"},
    }
    assert {name: told.split(":")[0][:20] for name, told in folder.passed_over().items()} == {
        **{"1/2/3/4": "folders are read to ", "set/README.md": "only .jsonl, .json, "},
    }
    [batch] = [key for key in keys if key.startswith("set_data")]
    found = folder.find(batch)
    assert found is not None
    with folder.local_copy(found, batch) as path:
        [prompt] = read_prompts(path, found.name)
    assert isinstance(prompt, Prompt)
    assert (prompt.question, prompt.source_file) == ("set/data/train-1.jsonl",) * 2


def test_a_saved_dataset_is_its_arrow_files_without_held_out_splits(place: tuple[LandingFolder, Write]) -> None:
    folder, write = place
    for split in ("train", "code", "test", "validation_small"):
        for name in ("state.json", "dataset_info.json", "data-00000-of-00001.arrow", "cache-1f.arrow"):
            write(f"saved/{split}/{name}", f"{split} {name}".encode())
    write("saved/dataset_dict.json", b"{}")
    assert [file.name for file in folder.files()] == [
        *("saved/code/data-00000-of-00001.arrow", "saved/train/data-00000-of-00001.arrow"),
    ]
    assert {name: told.split(":")[0][-28:].strip() for name, told in folder.passed_over().items()} == {
        "saved/code/cache-1f.arrow": "` and no part of the dataset",
        "saved/train/cache-1f.arrow": "` and no part of the dataset",
        "saved/test": "a saved dataset is not read",
        "saved/validation_small": "a saved dataset is not read",
    }


def test_of_a_dataset_that_was_published_the_rows_are_landed(place: tuple[LandingFolder, Write]) -> None:
    folder, write = place
    rows = [f"{part}/t060/train-00000-of-00001.parquet" for part in ("data", "logprobs")]
    for name in (*rows, "manifest.json", "dataset_info.json", "README.md", "figures/scores.png"):
        write(f"mine/{name}", name.encode())
    write("other/manifest.json", b"[]")  # of somebody else, with rows
    assert [file.name for file in folder.files()] == [*(f"mine/{name}" for name in rows), "other/manifest.json"]
    assert {*folder.passed_over()} == {"mine/README.md", "mine/figures/scores.png"}


def test_a_batch_is_found_by_content_first_under_its_name(place: tuple[LandingFolder, Write]) -> None:
    folder, write = place
    for name in ("a.jsonl", "b.jsonl"):
        write(name, b"{}\n")
    write("c.jsonl", b"[]\n")
    for stem, name in (("b", "b.jsonl"), ("renamed", "a.jsonl")):
        found = folder.find(f"{stem}-{BRACES}")
        assert found is not None
        assert found.name == name
    write("b.jsonl", b"edited\n")
    assert folder.find("b-000000000000") is None


def test_a_files_rows_are_read_under_its_own_name(place: tuple[LandingFolder, Write]) -> None:
    folder, write = place
    write("été.jsonl", b'{"question": "1 + 1?"}\n')
    [(batch, file)] = folder.keys(folder.files()).items()
    with folder.local_copy(file, batch) as path:
        [prompt] = read_prompts(path, file.name)
    assert prompt.source_file == "été.jsonl"


def test_a_copy_that_is_not_the_batchs_is_refused(place: tuple[LandingFolder, Write]) -> None:
    folder, write = place
    write("a.jsonl", b"{}\n")
    [file] = folder.files()
    with (
        pytest.raises(ChangedWhileRead, match="batch a-000000000000 was changed"),
        folder.local_copy(file, "a-000000000000"),
    ):
        pass


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    folder = LandingFolder(str(tmp_path / "prompts"), tmp_path / "hashes.sqlite")
    path = tmp_path / "prompts" / "a.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"{}\n")
    [file] = folder.files()
    assert list(folder.keys([file])) == [f"a-{BRACES}"]
    path.write_bytes(b"[]\n")  # the same size, and by the next line the same time: nothing tells it from the old
    os.utime(path, ns=(0, round(file.modified * 1e9)))
    assert list(LandingFolder(folder.url, folder.cache).keys(folder.files())) == [f"a-{BRACES}"]
    os.utime(path, (0, 0))
    assert list(folder.keys(folder.files())) != [f"a-{BRACES}"]


def test_a_file_that_goes_away_while_it_is_looked_at_is_left_out(tmp_path: Path) -> None:
    folder = LandingFolder(str(tmp_path), tmp_path / "hashes.sqlite")
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    files = [*folder.files(), LandedFile("gone.jsonl", 3, 0.0)]
    assert list(folder.keys(files)) == [f"a-{BRACES}"]


def test_what_a_store_lists_cannot_leave_the_folder(tmp_path: Path) -> None:
    root = f"/{tmp_path.name}/prompts"
    store = fsspec.filesystem("memory")
    store.makedirs(root)
    for name in ("..\\up.jsonl", "line\nbreak.jsonl", "ok.jsonl"):
        store.pipe(f"{root}/{name}", b"{}\n")
    store.pipe(f"{root}/deeper/x.jsonl", b"{}\n")
    folder = LandingFolder(f"memory:/{root}", tmp_path / "hashes.sqlite")
    assert [file.name for file in folder.files()] == ["deeper/x.jsonl", "ok.jsonl"]


@pytest.mark.parametrize(
    ("age", "seen", "expected"),
    [
        (60.0, {}, True),
        (1.0, {}, False),
        (1.0, {"a.jsonl": (2, 0)}, False),  # grown since
        (1.0, {"a.jsonl": (3, 1_000_000_000_000)}, True),
        (-60.0, {}, False),  # its clock is ahead: it takes two looks
    ],
)
def test_a_file_is_settled_when_it_has_stopped_growing(
    age: float, seen: dict[str, tuple[int, int]], expected: bool
) -> None:
    assert settled(LandedFile("a.jsonl", 3, 1000.0), seen, 1000.0 + age) == expected


@pytest.mark.parametrize(("modified", "expected"), [(997.0, 2.0), (990.0, 0.0), (1200.0, 5.0), (0.0, 5.0)])
def test_a_second_look_comes_when_it_can_tell_whether_a_file_grows(modified: float, expected: float) -> None:
    """So a file that gets a line each second is not taken for complete; one without times, or of the future, may be."""
    assert seconds_until_settled(LandedFile("a.jsonl", 3, modified), now=1000.0) == expected


def test_without_times_a_file_is_settled_when_it_was_seen_before() -> None:
    file = LandedFile("a.jsonl", 3, 0.0)
    assert not settled(file, {}, 1e9)
    assert not settled(file, {"a.jsonl": (2, 0)}, 1e9)
    assert settled(file, {"a.jsonl": file.stamp}, 1e9)


def listing(tmp_path: Path, **details: object) -> LandingFolder:
    """A folder of one file, in a store that says this of it."""

    class Told(MemoryFileSystem):
        protocol = "told"
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return f"/{path.removeprefix('told://').strip('/')}"

        def ls(self, path: str, detail: bool = True, **kwargs: object) -> list[dict[str, object]]:
            return [{"name": f"{path}/a.jsonl", "type": "file", "size": 3, **details}]

    fsspec.register_implementation("told", Told, clobber=True)
    store = fsspec.filesystem("memory")
    store.makedirs(f"/{tmp_path.name}", exist_ok=True)
    store.pipe(f"/{tmp_path.name}/a.jsonl", b"{}\n")
    return LandingFolder(f"told://{tmp_path.name}", tmp_path / "hashes.sqlite")


@pytest.mark.parametrize(
    ("details", "modified"),
    [
        ({"modify": "20260102030405"}, 1767323045.0),
        ({"modify": "20260102030405.678"}, 1767323045.0),
        ({"modify": "Jan 02 03:04"}, 0.0),  # of a server without MLSD: no year, or no time of day
        ({"modificationTime": 1767323045678}, 1767323045.678),
        ({}, 0.0),
    ],
)
def test_times_of_every_kind_of_store(tmp_path: Path, details: dict[str, object], modified: float) -> None:
    assert [file.modified for file in listing(tmp_path, **details).files()] == [modified]


def test_without_times_an_edit_of_the_same_size_is_seen(tmp_path: Path) -> None:
    folder = listing(tmp_path)
    assert list(folder.keys(folder.files())) == [f"a-{BRACES}"]
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/a.jsonl", b"[]\n")
    assert list(folder.keys(folder.files())) != [f"a-{BRACES}"]


def test_a_store_without_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedStore, match=r"told://.* lists its files without sizes.*; land them in a folder"):
        listing(tmp_path, size=None).files()


def test_the_clock_is_the_systems_unless_given() -> None:
    assert not settled(LandedFile("a.jsonl", 3, time.time()), {})


def test_the_content_of_a_batch_is_the_end_of_its_key() -> None:
    assert content_of(f"a-b-{BRACES}") == BRACES
