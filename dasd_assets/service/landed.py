"""Which landed files are new batches: those that are complete and whose content no batch has.

And which batches are of no file: Dagster's web UI adds a partition of any name. One of which nothing was made is
removed again, as a batch comes to be by a file alone; a file that lands later makes a new one. So is one whose file
lies in another recipe's landing folder: this recipe could not read it, and a run of that one registers it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from dasd_assets.records.dagster_internals import PARTITION_NAME_TAG
from dasd_assets.records.materializations import latest_materializations
from dasd_assets.records.wording import number_of, short
from dasd_assets.service.attempts import UNFINISHED
from dasd_resources.landing.landing_folder import LandedFile, LandingFolder, content_of, settled

NUM_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Landed:
    """new: keys of batches to register. growing: files to look at again. num_files: in the folder.

    num_copies: files whose content another of them has. without_file: batches whose content none of them has. url: of
    the folder. passed_over: what lies there and is not read, with what to do. unreadable: names of files that cannot be
    read at this look, whether at all or to tell if they are one batch or several.
    """

    new: list[str]
    growing: list[LandedFile]
    num_files: int
    num_copies: int
    without_file: list[str]
    url: str
    passed_over: dict[str, str]
    unreadable: Sequence[str] = ()

    @property
    def message(self) -> str:
        """How many files there are, and what keeps some from being batches."""
        waiting = f", {len(self.growing)} of them still being written" if self.growing else ""
        copies = f", {self.num_copies} with the content of another" if self.num_copies else ""
        unread = f"; {not_read(self.passed_over)}" if self.passed_over else ""
        later = f"; {read_later(self.unreadable)}" if self.unreadable else ""
        return f"{number_of(self.num_files, 'landed file')}{copies}{waiting}; {len(self.new)} new{later}{unread}"


def look(folder: LandingFolder, existing: Sequence[str], seen: Mapping[str, tuple[int, int]], now: float) -> Landed:
    """Compare the folder with the batches that exist; the same content under two names is one batch.

    A large file comes in parts, unless it is a batch as a whole from before it was to. One that cannot be read now is
    left for another look: taken as a whole, it would be a batch beside its parts.

    seen: name -> stamp of the files that were growing at an earlier look.
    """
    files = folder.files()
    growing = [file for file in files if not settled(file, seen, now)]
    contents = {content_of(batch) for batch in existing}
    new = []
    complete = [file for file in files if file not in growing]
    whole_batches = folder.batches(complete)
    keys = {batch: file for file, batch in whole_batches.items()}
    parts = {key: folder.parts(file) for key, file in keys.items() if content_of(key) not in contents}
    unreadable = [
        file.name for file in complete if file not in whole_batches or parts.get(whole_batches[file], {}) is None
    ]
    for key in (name for whole in keys if parts.get(whole, {}) is not None for name in (parts.get(whole) or [whole])):
        if content_of(key) not in contents:
            contents.add(content_of(key))
            new.append(key)
    landed = {content_of(key) for key in keys}
    of_parts = {content_of(key) for found in parts.values() for key in found or ()}
    # A file that is growing or was not read may be any batch's: then none is known to be without one.
    whole = folder.exists() and not growing and not unreadable
    without_file = [batch for batch in existing if content_of(batch) not in landed | of_parts] if whole else []
    num_copies = len(whole_batches) - len(landed)
    return Landed(new, growing, len(files), num_copies, without_file, folder.url, folder.passed_over(), unreadable)


def read_later(names: Sequence[str]) -> str:
    """The first files that could not be read, each quoted."""
    more = f" and {len(names) - NUM_SHOWN:,} more" if len(names) > NUM_SHOWN else ""
    shown = ", ".join(repr(short(name)) for name in names[:NUM_SHOWN])
    return f"cannot be read now, so left for the next look: {shown}{more}"


def not_read(passed_over: Mapping[str, str]) -> str:
    """The first things of the landing folder that are not read, each quoted, with what to do."""
    shown = [f"{short(name)!r}: {remedy}" for name, remedy in [*passed_over.items()][:NUM_SHOWN]]
    more = f"; and {len(passed_over) - NUM_SHOWN:,} more" if len(passed_over) > NUM_SHOWN else ""
    return f"{len(passed_over):,} not read ({'; '.join(shown)}{more})"


def never_begun(instance: dg.DagsterInstance, names: Sequence[str]) -> list[str]:
    """Of these batches, those of which nothing was ever made and no run is under way."""
    if not names:
        return []
    made = latest_materializations(instance, {"prompts": True})["prompts"]
    active = {run.tags.get(PARTITION_NAME_TAG) for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))}
    return [name for name in names if name not in made and name not in active]


def removed(names: Sequence[str], url: str) -> str:
    """What is said of batches without a file that were removed."""
    shown = ", ".join(repr(short(name)) for name in names[:NUM_SHOWN]) + (", …" if len(names) > NUM_SHOWN else "")
    return (
        f"removed {number_of(len(names), 'partition')} that no file in {url} has, and of which nothing was made "
        f"({shown}): a batch comes of a file dropped there; of one in another recipe's landing folder, a run of that "
        "recipe registers it again"
    )
