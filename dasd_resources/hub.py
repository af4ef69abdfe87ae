"""Datasets of the Hugging Face hub as files: what a commit has, and one of them. No script of a dataset is ever run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EACCES, EDQUOT, ENOSPC, EROFS
from pathlib import Path
from typing import Protocol, TypeVar

from dasd_resources.errors import UserError

Answer = TypeVar("Answer")
NOT_OF_THE_HUB = (EACCES, EDQUOT, ENOSPC, EROFS)  # of the disk here


class HubError(UserError, ConnectionError):
    """The hub cannot be reached, or refuses; the message says what to do."""


@dataclass(frozen=True)
class DatasetCommit:
    """A dataset as of one commit. files: path -> SHA-256, None where the hub does not know it. license: of its card."""

    repository: str
    commit: str
    files: Mapping[str, str | None]
    license: str | None


class Hub(Protocol):
    """Where datasets are."""

    def look(self, repository: str, revision: str | None) -> DatasetCommit:
        """A dataset at a revision, the newest commit unless one is given. Raises HubError."""

    def download(self, dataset: DatasetCommit, path: str, folder: Path) -> Path:
        """Bring one file into a folder; returns where it is. Raises HubError."""


class HuggingFace:
    """The hub itself, by its own client."""

    def look(self, repository: str, revision: str | None) -> DatasetCommit:
        from huggingface_hub import HfApi

        ask = lambda: HfApi().dataset_info(repository, revision=revision, files_metadata=True)  # noqa: E731
        found = _asked(repository, ask)
        files = {one.rfilename: one.lfs.sha256 if one.lfs else None for one in found.siblings or ()}
        card = dict(found.card_data.to_dict()) if found.card_data else {}
        return DatasetCommit(repository, str(found.sha), files, card.get("license"))

    def download(self, dataset: DatasetCommit, path: str, folder: Path) -> Path:
        from huggingface_hub import hf_hub_download

        name = dataset.repository
        return Path(
            _asked(
                name,
                lambda: hf_hub_download(name, path, repo_type="dataset", revision=dataset.commit, local_dir=folder),
            )
        )


def _asked(repository: str, ask: Callable[[], Answer]) -> Answer:
    """The hub's answer. Its client raises whatever its HTTP library does, which is not always the same."""
    from huggingface_hub.errors import GatedRepoError

    try:
        return ask()
    except GatedRepoError as error:
        raise HubError(
            f"{repository} is given only to those who accept its terms: do so on its page of the hub, then "
            "`hf auth login` (or set HF_TOKEN) and try again"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NOT_OF_THE_HUB:
            raise
        reason = " ".join(str(error).split())[:200]
        raise HubError(f"{repository} cannot be had: {reason}; is there a network?") from error
