"""Which landed files are new batches: those that are complete and whose content no batch has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dasd_assets.records.wording import number_of
from dasd_resources.landing.landing_folder import LandedFile, LandingFolder, content_of, settled


@dataclass(frozen=True)
class Landed:
    """new: keys of batches to register. growing: files to look at again. num_files: in the folder.

    num_copies: files whose content another of them has.
    """

    new: list[str]
    growing: list[LandedFile]
    num_files: int
    num_copies: int

    @property
    def message(self) -> str:
        """How many files there are, and what keeps some from being batches."""
        waiting = f", {len(self.growing)} of them still being written" if self.growing else ""
        copies = f", {self.num_copies} with the content of another" if self.num_copies else ""
        return f"{number_of(self.num_files, 'landed file')}{copies}{waiting}; {len(self.new)} new"


def look(folder: LandingFolder, existing: Sequence[str], seen: Mapping[str, tuple[int, int]], now: float) -> Landed:
    """Compare the folder with the batches that exist; the same content under two names is one batch.

    seen: name -> stamp of the files that were growing at an earlier look.
    """
    files = folder.files()
    growing = [file for file in files if not settled(file, seen, now)]
    contents = {content_of(batch) for batch in existing}
    new = []
    keys = folder.keys([file for file in files if file not in growing])
    for key in keys:
        if content_of(key) not in contents:
            contents.add(content_of(key))
            new.append(key)
    return Landed(new, growing, len(files), len(keys) - len({content_of(key) for key in keys}))
