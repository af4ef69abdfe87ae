"""`dasd fetch-benchmarks [NAME…]`: well-known benchmarks into DASD_HOME/benchmarks, as the ready layouts read them.

Data files alone are downloaded, of one commit, and read to their end before they are put in place: they then hold the
right number of questions, each of which can be judged. Beside a file lies where it came from, by which it is fetched
again: the same commit, the same bytes.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock

from dasd_assets.commands.messages import echo as print_message
from dasd_resources.benchmarks.private_tests import NotPlain, write_plain
from dasd_resources.benchmarks.questions import benchmark_prompts
from dasd_resources.benchmarks.sources import SOURCES, Source
from dasd_resources.content_hash import file_hash
from dasd_resources.errors import UserError
from dasd_resources.home import BENCHMARK_FOLDER
from dasd_resources.hub import DatasetCommit, Hub, HubError, HuggingFace
from dasd_resources.recipe import Benchmark, RecipeError
from dasd_resources.spelling import meant
from dasd_resources.visible_text import excerpt, show_message
from dasd_resources.whole_files import write_whole

RECORD = ".source.json"
LAYOUT_OF_PACKED = "livecodebench"
FAILED = 1
Echo = Callable[[str], None]


class NotFetched(UserError):
    """A benchmark that is not there now; the message says why, and what to do."""


@dataclass(frozen=True)
class Fetched:
    """Where a benchmark's file came from. downloaded_sha256: of the file there; sha256: of the one here."""

    repository: str
    commit: str
    path: str
    downloaded_sha256: str
    sha256: str
    num_questions: int
    license: str | None
    terms: str
    fetched_at: str


def command(args: argparse.Namespace) -> int:
    """Fetch those that are named, or all; what one fails of does not keep back the others."""
    names = args.names or list(SOURCES)
    for name in names:
        if name not in SOURCES:
            raise NotFetched(f"there is no benchmark {name!r}; there are {', '.join(SOURCES)}{meant(name, SOURCES)}")
    if args.revision and len(names) != 1:
        raise NotFetched("--revision is a commit of one repository: name one benchmark")
    failed = fetch_all(args.home, names, HuggingFace(), args.revision, args.replace, print_message)
    return FAILED if failed else 0


def fetch_all(home: Path, names: Sequence[str], hub: Hub, revision: str | None, replace: bool, echo: Echo) -> list[str]:
    """Returns the names of those that are not there now."""
    failed = []
    for name in names:
        try:
            fetch(home, name, hub, revision, replace, echo)
        except NotFetched as error:
            failed.append(name)
            show_message(f"{name}: {error}", sys.stderr)
        except HubError as error:
            failed.append(name)
            file = home / BENCHMARK_FOLDER / SOURCES[name].file
            show_message(f"{name}: {error}; a copy that you have may be put at {file}", sys.stderr)
    return failed


def fetch(home: Path, name: str, hub: Hub, revision: str | None, replace: bool, echo: Echo) -> None:
    """Bring one benchmark; nothing to do if its file is the one that was fetched. Raises NotFetched, HubError."""
    source, folder = SOURCES[name], home / BENCHMARK_FOLDER
    file, record = folder / source.file, folder / f"{source.file}{RECORD}"
    known = _recorded(record)
    if file.is_file() and not replace:
        _require_same(file, known, revision)
        echo(f"{name}: {file} is there")
        return
    dataset = hub.look(source.repository, revision or (known.commit if known and not replace else None))
    echo(f"{name}: {source.repository} at {dataset.commit}, licence {dataset.license or 'not named on its card'}")
    if source.terms:
        echo(f"{name}: {source.terms}")
    unfinished = folder / f".{name}.fetching"  # what a killed download left is gone on from
    unfinished.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        ready, fetched = _downloaded(name, source, hub, dataset, unfinished)
        if known and not replace and revision is None and known.sha256 != fetched.sha256:
            raise NotFetched(f"{dataset.commit} holds another file than it did: --replace takes it all the same")
        # The record first: a kill in between leaves a record without its file, which is fetched again by it.
        write_whole(record, json.dumps(asdict(fetched), indent=1, ensure_ascii=False).encode())
        ready.replace(file)
        shutil.rmtree(unfinished)
    echo(f"{name}: {fetched.num_questions} questions in {file}")


def _recorded(record: Path) -> Fetched | None:
    try:
        return Fetched(**json.loads(record.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise NotFetched(f"{record} cannot be read: delete it") from None


def _require_same(file: Path, known: Fetched | None, revision: str | None) -> None:
    """Raise NotFetched unless the file is the one that the record names, of the wanted commit."""
    if known is None:
        raise NotFetched(f"{file} is there, and nothing says where from: it is kept; --replace fetches it anew")
    if file_hash(file) != known.sha256:
        raise NotFetched(f"{file} is not the file that was fetched: --replace fetches it anew")
    if revision not in (None, known.commit):
        raise NotFetched(f"{file} is of commit {known.commit}: --replace takes the other")


def _downloaded(name: str, source: Source, hub: Hub, dataset: DatasetCommit, folder: Path) -> tuple[Path, Fetched]:
    """The file as the layout reads it, whole and checked, and where it came from."""
    path = _only(source, dataset)
    downloaded = hub.download(dataset, path, folder / "hub")
    sha256, expected = file_hash(downloaded), dataset.files[path]
    if expected not in (None, sha256):
        raise NotFetched(f"{path} arrived with SHA-256 {sha256}, the hub says {expected}: try again")
    ready = folder / source.file
    if name.startswith(LAYOUT_OF_PACKED):
        try:
            write_plain(downloaded, ready)
        except NotPlain as error:
            raise NotFetched(f"{path}: {error}") from None
    else:
        downloaded.replace(ready)
    num_questions = _num_questions(name, ready)
    if num_questions != source.num_questions:
        raise NotFetched(f"{path} has {num_questions} questions, and the benchmark has {source.num_questions}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    where = (dataset.repository, dataset.commit, path, sha256, file_hash(ready), num_questions)
    return ready, Fetched(*where, dataset.license, source.terms, now)


def _only(source: Source, dataset: DatasetCommit) -> str:
    """The one data file that is meant."""
    found = [path for path in dataset.files if fnmatch(path.rpartition("/")[2], source.files)]
    if len(found) != 1:
        has = excerpt(sorted(found or dataset.files), 300)
        raise NotFetched(f"{dataset.repository} should have one file {source.files}; it has {has}")
    return found[0]


def _num_questions(name: str, file: Path) -> int:
    try:
        return sum(
            1 for _ in benchmark_prompts(Benchmark.model_validate({"name": name, "layout": name, "path": str(file)}))
        )
    except RecipeError as error:
        raise NotFetched(f"it is not as the layout {name} reads it: {error}") from None
