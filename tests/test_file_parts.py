import json
import os
import time
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

import fsspec
import pytest
from conftest import Project, change, prompt_rows

from dasd_assets.commands.check.landed import prompts_landed
from dasd_assets.commands.check.outcome import CheckWarning
from dasd_assets.service.landed import look
from dasd_resources.demo.questions import write_rows
from dasd_resources.landing import file_parts, landing_folder
from dasd_resources.landing.file_parts import part_digests, rows_of
from dasd_resources.landing.landing_folder import ChangedWhileRead, LandedFile, LandingFolder
from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.row_files.formats import read_rows
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, FileRow
from dasd_resources.recipe import load_recipe


def written(path: Path, questions: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    os.utime(path, (time.time() - 60 + len(questions),) * 2)
    return path


def named(number: int) -> list[str]:
    return [f"question {index}" for index in range(number)]


def new(folder: LandingFolder, existing: list[str]) -> list[str]:
    return look(folder, existing, {}, time.time()).new


def test_a_file_without_more_rows_than_a_batch_may_have_is_one_as_ever(tmp_path: Path) -> None:
    written(tmp_path / "prompts" / "a.jsonl", named(3))
    [whole] = new(LandingFolder.of(None, tmp_path), [])
    assert new(LandingFolder.of(None, tmp_path, 3), []) == [whole]
    assert new(LandingFolder.of(None, tmp_path, 2), []) != [whole]
    assert new(LandingFolder.of(None, tmp_path, 2), [whole]) == [], "what is a batch already is not made anew"


def test_a_file_that_grows_keeps_its_earlier_parts(tmp_path: Path) -> None:
    path, folder = tmp_path / "prompts" / "a.jsonl", LandingFolder.of(None, tmp_path, 3)
    written(path, named(7))
    first = new(folder, [])
    assert [batch.rpartition("-")[0] for batch in first] == ["a.00001", "a.00002", "a.00003"]
    written(path, named(11))
    assert [batch.rpartition("-")[0] for batch in new(folder, first)] == ["a.00003", "a.00004"]
    written(path, [*named(3), "another", *named(11)[4:]])
    assert [batch.rpartition("-")[0] for batch in new(folder, first)] == ["a.00002", "a.00003", "a.00004"]


def test_a_file_that_cannot_be_read_now_is_left_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "prompts" / "a.jsonl", LandingFolder.of(None, tmp_path, 3)
    written(path, named(7))
    first = new(folder, [])
    written(path, named(11))
    written(tmp_path / "prompts" / "b.jsonl", ["another"])

    def unreadable(path: Path, num_rows: int) -> list[str]:
        if path.name == "a.jsonl":
            raise OSError("the store does not answer")
        return part_digests(path, num_rows)

    with monkeypatch.context() as patched:
        patched.setattr(landing_folder, "part_digests", unreadable)
        found = look(folder, first, {}, time.time())
    assert [batch.rpartition("-")[0] for batch in found.new] == ["b"] and found.without_file == []
    assert found.message == "2 landed files; 1 new; cannot be read now, so left for the next look: 'a.jsonl'"
    again = look(folder, [*first, *found.new], {}, time.time())
    assert [batch.rpartition("-")[0] for batch in again.new] == ["a.00003", "a.00004"]
    assert again.without_file == first[2:] and again.unreadable == []


def test_a_file_that_may_not_be_read_is_named_by_a_look_and_by_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        written(tmp_path / "prompts" / name, [name])
    readable = LandingFolder._open

    def of_another(folder: LandingFolder, file: LandedFile) -> BufferedIOBase:
        if file.name == "a.jsonl":
            raise PermissionError(13, "Permission denied")
        return readable(folder, file)

    monkeypatch.setattr(LandingFolder, "_open", of_another)
    found = look(LandingFolder.of(None, tmp_path), ["gone-000000000000"], {}, time.time())
    later = "cannot be read now, so left for the next look: 'a.jsonl'"
    assert found.message == f"2 landed files; 1 new; {later}" and found.without_file == []
    with pytest.raises(CheckWarning, match=rf"^1 in .*/prompts; {later}$"):
        prompts_landed(load_recipe("demo"), tmp_path, None, [])


def test_parts_are_all_rows_with_their_own_line_numbers(tmp_path: Path) -> None:
    path, folder = tmp_path / "prompts" / "a.jsonl", LandingFolder.of(None, tmp_path, 2)
    written(path, named(3))
    with path.open("a") as file:
        file.write('\nno JSON\n{"question": "the last"}\n')
    os.utime(path, (time.time() - 60,) * 2)
    whole = list(read_prompts(path))
    parts = []
    for batch in new(folder, []):
        found = folder.find(batch)
        assert found is not None
        with folder.local_copy(found, batch) as copy:
            parts += list(read_prompts(copy, found.name, rows=found.rows))
    assert parts == whole
    assert [record.source_line for record in parts] == [1, 2, 3, 5, 6]
    assert [type(record) for record in parts[-2:]] == [RejectedPrompt, Prompt]


@pytest.mark.parametrize(("store", "num_rows"), [("", 0), ("memory://", 3 + 6 + 7)])
def test_no_more_rows_are_read_for_a_part_than_tell_that_it_is_the_batchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, num_rows: int
) -> None:
    """None of a local file whose size and time have not changed, and up to the part's end of a copy."""
    path = written(tmp_path / "prompts" / "a.jsonl", named(7))
    fsspec.filesystem("memory").pipe(str(path), path.read_bytes())
    folder, read = LandingFolder(f"{store}{path.parent}", tmp_path / "hashes.sqlite", 3), list[FileRow]()

    def noted(path: Path, max_row_bytes: int) -> Iterator[FileRow]:
        for row in read_rows(path, max_row_bytes):
            read.append(row)
            yield row

    [file] = folder.files()
    parts = folder.parts(file)
    assert parts is not None and len(parts) == 3
    monkeypatch.setattr(file_parts, "read_rows", noted)
    for batch, part in parts.items():
        with folder.local_copy(part, batch):
            pass
    assert len(read) == num_rows


def test_damage_is_said_by_the_last_part_and_is_in_its_name(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", [])
    path.write_text('[{"question": "1"}, {"question": "2"}, {"question": "3"}')
    digests = part_digests(path, 2)
    assert len(digests) == 2
    said = [list(read_prompts(path, rows=rows_of(number, 2, 2))) for number in range(2)]
    assert [type(record) for record in said[0]] == [Prompt, Prompt]
    assert isinstance(said[1][-1], RejectedPrompt) and said[1][-1].kind == "damaged_file"
    assert said[1][-1].reason.startswith("file is damaged after line 2: ")
    path.write_text('[{"question": "1"}, {"question": "2"}, {"question": "3"}]')
    assert part_digests(path, 2)[0] == digests[0] and part_digests(path, 2)[1] != digests[1]


def test_a_long_quoted_record_is_one_row_of_its_part_and_no_other_is_moved(tmp_path: Path) -> None:
    """Longer than a prompt may be, and on several lines or on a line of its own; the file ends in damage."""
    long = "x" * MAX_ROW_BYTES
    records = ["question", "1", f'"2\n{long}"', '"3\nb"', f'"{long}\n4"', '"5\nb\nc"', "6", '"not closed']
    path = tmp_path / "a.csv"
    path.write_text("\n".join(records))
    num_parts = len(part_digests(path, 2))
    assert num_parts == 4
    parts = [list(read_prompts(path, rows=rows_of(number, num_parts, 2))) for number in range(num_parts)]
    assert [[(record.source_line, getattr(record, "kind", "")) for record in part] for part in parts] == [
        [(2, ""), (3, "row_too_long")],
        [(5, ""), (7, "row_too_long")],
        [(9, ""), (12, "")],
        [(0, "damaged_file")],
    ]
    assert parts[-1][0].reason == (
        "file is damaged after line 12: a cell's quote in the record at line 13 is not closed within 16777216 bytes"
    )


def test_a_part_that_was_edited_meanwhile_is_not_read(tmp_path: Path) -> None:
    path, folder = tmp_path / "prompts" / "a.jsonl", LandingFolder.of(None, tmp_path, 2)
    written(path, named(4))
    batch = new(folder, [])[1]
    found = folder.find(batch)
    assert found is not None
    written(path, [*named(3), "another"])
    with pytest.raises(ChangedWhileRead), folder.local_copy(found, batch):
        pass
    assert folder.find(batch) is None


def test_a_batch_for_every_part_with_the_rows_of_the_whole_file(project: Project) -> None:
    recipe = change(project.recipe, "landing.questions_per_batch", 4)
    split = Project(project.home, recipe)
    split.land("a.jsonl", prompt_rows(0, 9))
    split.materialize("prompts")
    rows = split.read("SELECT batch, source_line FROM prompts ORDER BY source_line")
    assert rows["source_line"].to_list() == list(range(1, 10))
    assert [part.height for part in rows.partition_by("batch", maintain_order=True)] == [4, 4, 1]
    write_rows(split.home / "prompts" / "a.jsonl", list(prompt_rows(0, 9)))
    split.materialize("prompts")
    assert split.read("SELECT batch, source_line FROM prompts ORDER BY source_line").equals(rows)
