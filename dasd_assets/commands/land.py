"""`dasd land`: put files into the landing folder whole, after a look at their first rows (no table).

What is landed is a local file, a folder (a dataset that `datasets` saved, say), or the Parquet and JSON Lines files of
a dataset of the Hugging Face hub at one commit. Data alone is fetched: no script of a dataset is loaded or run.
"""

import argparse
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from dasd_assets.commands.messages import echo as print_message
from dasd_assets.records.wording import number_of
from dasd_assets.service.landed import not_read
from dasd_resources.errors import UserError
from dasd_resources.hub import HubError, HuggingFace
from dasd_resources.interruption import at_interruption, begin
from dasd_resources.landing.folder_contents import HELD_OUT, is_being_written, local_contents
from dasd_resources.landing.landing_folder import landing_folder
from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.response_files import Landed, LandedResponse, Logprobs, read_questions, read_responses
from dasd_resources.landing.response_rejections import RejectedResponse
from dasd_resources.landing.row_files.formats import FORMATS, SUFFIXES
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.visible_text import excerpt

NUM_LOOKED_AT = 100  # first rows of a file
HELD = {Prompt: "prompts", LandedResponse: "responses", Logprobs: "logprobs"}
Rejected = RejectedPrompt | RejectedResponse
OF_A_HUB = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
BEING_WRITTEN = "a name that begins with a dot or ends in .tmp or .part is of what is still being written, and not read"
COMMIT = re.compile(r"[0-9a-f]{40}")
Echo = Callable[[str], None]


class NotLanded(UserError, ValueError):
    """Something that was not put into the landing folder; the message says why and what to do."""

    exit_code = 2


@dataclass(frozen=True)
class Hub:
    """A dataset at a commit. list_files: () -> the paths of its files; download: (path, folder) -> the local file."""

    list_files: Callable[[], Sequence[str]]
    download: Callable[[str, Path], Path]


def command(args: argparse.Namespace) -> int:
    """Everything that was named, or an error before anything of it has landed."""
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    if args.revision is None:
        if args.config or args.split:
            raise NotLanded("--config and --split are of a dataset of the hub, which needs --revision COMMIT, too")
        land(recipe, args.home, [Path(source) for source in args.source], print_message)
    else:
        hubs = [(name, hugging_face(name, args.revision)) for name in args.source]
        land_datasets(recipe, args.home, hubs, args.config, args.split, print_message)
    return 0


def land(recipe: Recipe, home: Path, sources: Sequence[Path], echo: Echo) -> None:
    """Copy files and folders into the landing folder. Raises NotLanded before the first is there."""
    target = _target(recipe, home)
    _check_names(sources, target)
    for source in sources:
        for name, path in _files(source).items():
            echo(f"{name}: {_first_rows(recipe, path, name)}")
    for source in sources:
        _copied(source, target / _name(source))
        echo(f"landed {_name(source)} in {target}")


def land_datasets(
    recipe: Recipe, home: Path, hubs: Sequence[tuple[str, Hub]], config: str | None, split: str | None, echo: Echo
) -> None:
    """Download the files of data of each (name, hub) into a folder of its name, then land them: all of them or none.

    Raises NotLanded where one has no such files.
    """
    with tempfile.TemporaryDirectory() as folder, _removed_at_interruption(Path(folder)):
        roots = [Path(folder, name.replace("/", "__")) for name, _ in hubs]
        for (name, hub), root in zip(hubs, roots, strict=True):
            _download(name, hub, root, config, split, echo)
        land(recipe, home, roots, echo)


def _download(name: str, hub: Hub, root: Path, config: str | None, split: str | None, echo: Echo) -> None:
    try:
        paths = hub.list_files()
        wanted = [path for path in paths if _is_wanted(path, config, split)]
        if not wanted:
            raise NotLanded(
                f"{name} has no file of {', '.join(OF_A_HUB)} so named; it has {excerpt(sorted(paths), 300)}"
            )
        for path in wanted:
            begin()
            echo(f"downloading {path}")
            hub.download(path, root)
    except HubError as error:
        raise NotLanded(str(error)) from None
    except OSError as error:
        raise NotLanded(f"{name} could not be downloaded: {excerpt(str(error), 200)}; is there a network?") from None
    shutil.rmtree(root / ".cache", ignore_errors=True)  # the client's own notes


def hugging_face(name: str, revision: str) -> Hub:
    """A dataset of the hub. Raises NotLanded unless the revision is a commit: a branch is something else tomorrow."""
    if not COMMIT.fullmatch(revision):
        raise NotLanded(f"--revision {excerpt(revision)} is not a commit: give the 40 digits of the dataset's history")
    hub = HuggingFace()
    dataset = cache(lambda: hub.look(name, revision))
    return Hub(lambda: list(dataset().files), lambda path, folder: hub.download(dataset(), path, folder))


def _is_wanted(path: str, config: str | None, split: str | None) -> bool:
    """Whether a file is of the configuration and split, by its name or a folder's; by default of none held out."""
    folders = path.split("/")
    stems = [*folders[:-1], re.split(r"[-.]", folders[-1])[0]]
    of_split = split in stems if split is not None else not any(HELD_OUT.fullmatch(stem) for stem in stems)
    return path.endswith(OF_A_HUB) and of_split and (config is None or config in folders[:-1])


def _target(recipe: Recipe, home: Path) -> Path:
    """The landing folder. Raises NotLanded where it is no local one."""
    folder = landing_folder(recipe, home)
    if folder.local is None:
        raise NotLanded(f"automation.landing {folder.url} is no local folder: write there with the store's own tools")
    return folder.local


def _check_names(sources: Sequence[Path], target: Path) -> None:
    """Raise NotLanded for a source that is not there, or whose name another has: one that landed, or one of these.

    Nor may its name be that of something that is still being written.
    """
    named: dict[str, Path] = {}
    for source in sources:
        name = _name(source)
        if not source.exists():
            raise NotLanded(f"{source}: there is no such file")
        if is_being_written(name):
            raise NotLanded(f"{source}: {BEING_WRITTEN}; rename it")
        if (target / name).exists():
            raise NotLanded(f"{source}: {target} has a {name} already; rename one of them")
        if name in named:
            raise NotLanded(_clash(named[name], source))
        named[name] = source


def _clash(first: Path, second: Path) -> str:
    """Why not both of two sources of one name can land."""
    if first.resolve() == second.resolve():
        return f"{first} and {second} are the same; name it once"
    return f"{first} and {second} would both land as {_name(second)}; rename one of them"


def _name(source: Path) -> str:
    """Under which a source lands: a link under its own name, not under that of what it leads to."""
    return Path(os.path.abspath(source)).name


def _files(source: Path) -> dict[str, Path]:
    """Name in the landing folder -> file, of all that will be read. Raises NotLanded where that is nothing.

    Nor may a folder have others deeper than they are read once it lies in the landing folder.
    """
    if not source.is_dir():
        return {_name(source): source}
    found = list(local_contents(source, depth=1))
    unread = {one.name: one.what_to_do for one in found if not one.is_landed}
    too_deep = {one.name: one.what_to_do for one in found if one.kind == "too_deep"}
    if too_deep or len(unread) == len(found):
        why = not_read(too_deep or unread) if unread else f"no file in it will be read ({BEING_WRITTEN})"
        raise NotLanded(f"{source}: {why}")
    return {f"{_name(source)}/{one.name}": source / one.name for one in found if one.is_landed}


def _first_rows(recipe: Recipe, path: Path, name: str) -> str:
    """What became of the first rows. Raises NotLanded if nothing did."""
    if not name.endswith(SUFFIXES):
        raise NotLanded(f"{name}: only {FORMATS} are read; convert it")
    rows, columns = (0, NUM_LOOKED_AT), recipe.landing.columns
    if recipe.imports is None:
        records: list[Prompt | RejectedPrompt | Landed] = [*read_prompts(path, name, columns, rows=rows)]
    else:
        records = [*read_questions(path, name, columns, rows), *read_responses(path, name, columns, rows)]
    rejected = [one for one in records if isinstance(one, Rejected)]
    counts = Counter(one.kind if isinstance(one, Rejected) else HELD[type(one)] for one in records)
    num_rows = len({one.source_line for one in records})
    if len(rejected) == len(records):
        raise NotLanded(f"{name}: none of the first {num_rows} rows is a prompt: {rejected[0].reason}")
    shown = ", ".join(f"{what} {count}" for what, count in counts.items())
    return f"the first {number_of(num_rows, 'row')}: {shown}"


def _copied(source: Path, landed: Path) -> None:
    """Copied beside its place under a name that is not read, then renamed: it is there whole or not at all."""
    landed.parent.mkdir(parents=True, exist_ok=True)
    unfinished = landed.with_name(f"{landed.name}.{os.getpid()}.tmp")
    try:
        with _removed_at_interruption(unfinished):
            if source.is_dir():
                shutil.copytree(source, unfinished, copy_function=_copy)
            else:
                shutil.copyfile(source, unfinished)
        begin()  # of a folder whose removal has begun, nothing may land
        unfinished.rename(landed)
    finally:
        _remove(unfinished)


def _copy(source: str, target: str) -> str:
    begin()
    return shutil.copy2(source, target)


def _removed_at_interruption(path: Path) -> AbstractContextManager[None]:
    """Once at once, and once more at the end: a file that was being written meanwhile may have come after it."""
    remove = partial(_remove, path)
    return at_interruption(remove, remove)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
