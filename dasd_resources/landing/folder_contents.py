"""What lies in the landing folder and its subfolders: files that are read, and everything else with what to do.

A subfolder's files are batches each by itself, named with their folder. A dataset that `datasets` saved
(`save_to_disk`) is such a folder: its Arrow files are read, its descriptions are known and hold no rows; so is one that
DASD has published. Of a saved dict of splits those that are held out (`test`, `validation`) are not read: nobody means
to train on them.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dasd_resources.landing.row_files.formats import FORMATS, SUFFIXES

MAX_FOLDERS = 3  # within each other
UNFINISHED_SUFFIXES = (".tmp", ".part")
SAVED = {"state.json", "dataset_dict.json"}  # in the folder of a saved dataset, or of its splits
DESCRIPTIONS = {*SAVED, "dataset_info.json", "dataset_infos.json"}
MANIFEST = "manifest.json"
PUBLISHED = {MANIFEST, "README.md", "data"}  # in the folder of a dataset that DASD has published
HELD_OUT = re.compile(r"(?i)(test|valid|validation|val|dev|eval)([-_.].*)?")
WHAT_TO_DO = {
    "link": "a link that leads out of the folder, or nowhere, is not followed: put the file itself here",
    "too_deep": f"folders are read to a depth of {MAX_FOLDERS}: put its files higher up",
    "closed": "the folder cannot be listed: let this user read it",
    "held_out": "a held-out split of a saved dataset is not read: land its folder by itself if it is meant to be",
    "description": "it describes a dataset and holds no rows: remove it",
    "cache": "it is a cache of `datasets` and no part of the dataset: remove it",
    "file": f"only {FORMATS} are read: convert it, or remove it",
}


@dataclass(frozen=True)
class Found:
    """Something in the folder. name: with its subfolder. kind: `file`, or a reason why it is not read."""

    name: str
    kind: str

    @property
    def is_landed(self) -> bool:
        """Whether it is a file that is read."""
        return self.kind == "file" and self.name.endswith(SUFFIXES)

    @property
    def what_to_do(self) -> str:
        """What to do about something that is not read."""
        if self.kind == "file" and not self.name.endswith(SUFFIXES) and self.name.lower().endswith(SUFFIXES):
            suffix = next(suffix for suffix in SUFFIXES if self.name.lower().endswith(suffix))
            return f"its suffix must be in lower case: rename it to end in {suffix}"
        if self.kind == "odd" and self.name.endswith(SUFFIXES):
            return "its name holds a slash, a backslash or a control character: rename it"
        return WHAT_TO_DO.get(self.kind, "it is no file: remove it")


def contents(list_folder: Callable[[str], Iterable[Found]], folder: str = "", depth: int = 0) -> Iterator[Found]:
    """Everything in a folder, but for what is being written there, and what describes a saved or published dataset.

    list_folder: a subfolder's name, "" for the folder itself -> what it holds, by plain names. Raises OSError.
    """
    try:
        children = sorted(list_folder(folder), key=lambda child: child.name)
    except OSError:
        if not folder:
            raise
        yield Found(folder, "closed")
        return
    names = {child.name for child in children}
    for child in children:
        name = f"{folder}/{child.name}" if folder else child.name
        kind = _kind(child, names, depth)
        if is_being_written(child.name) or kind == "known":
            continue
        if kind == "directory":
            yield from contents(list_folder, name, depth + 1)
        else:
            yield Found(name, kind)


def _kind(child: Found, names: set[str], depth: int) -> str:
    """The kind of something beside others of these names."""
    if child.kind == "directory":
        held_out = "dataset_dict.json" in names and HELD_OUT.fullmatch(child.name)
        return "held_out" if held_out else "too_deep" if depth == MAX_FOLDERS else "directory"
    is_published = names >= PUBLISHED
    if child.kind == "file" and (child.name in DESCRIPTIONS or (is_published and child.name == MANIFEST)):
        return "known" if is_published or SAVED & names else "description"
    if child.kind == "file" and "state.json" in names and child.name.startswith("cache-"):
        return "cache"
    return child.kind


def local_contents(root: Path, depth: int = 0) -> Iterator[Found]:
    """Everything in a local folder; nothing where there is none. depth: how deep in the landing folder it is to lie."""

    def list_folder(folder: str) -> Iterator[Found]:
        return (Found(path.name, _local_kind(path, root)) for path in (root / folder).iterdir())

    return contents(list_folder, depth=depth) if root.is_dir() else iter(())


def _local_kind(path: Path, root: Path) -> str:
    """`link` only where it leads out of the folder, to a folder, or nowhere."""
    if path.is_symlink():
        inside = path.is_file() and path.resolve().is_relative_to(root.resolve())
        return "file" if inside else "link"
    return "directory" if path.is_dir() else "file" if path.is_file() else "other"


def landed_files(root: Path) -> list[Path]:
    """Complete prompt files of a local folder by name: none hidden, partial (.tmp, .part) or linked from outside it."""
    return sorted(root / found.name for found in local_contents(root) if found.is_landed)


def is_being_written(name: str) -> bool:
    """Whether a name says that its file or folder is not complete yet."""
    return name.startswith(".") or name.endswith(UNFINISHED_SUFFIXES)
