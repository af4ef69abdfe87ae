"""A release to the Hugging Face hub: only a command asks for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from dasd_assets.published_dataset.release import MANIFEST, ExportError

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def push(folder: Path, name: str, *, public: bool, hub: "HfApi | None" = None) -> str:
    """Upload a release to the dataset repository `owner/name`, which is made if there is none; returns its address.

    The key is that of `hf auth login` or HF_TOKEN. Raises ExportError if the hub cannot be reached or refuses, or if
    the repository is public and that was not asked for: then nothing is uploaded.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The first is of whichever HTTP library the hub's client is made with.
    failures: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], HFValidationError, OSError)

    if not (folder / MANIFEST).is_file():
        raise ExportError(f"{folder} is no release: `dasd export {folder}` writes one")
    try:
        hub = hub or HfApi()
        repository = hub.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        if not public and not hub.repo_info(name, repo_type="dataset").private:
            raise ExportError(f"{name} is public already: add --public if that is meant")
        replaced = ["data/*", "logprobs/*", "dataset_info.json"]  # of an earlier release: more shards, another form
        hub.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder, delete_patterns=replaced)
    except failures as error:
        reason = " ".join(str(error).split())
        raise ExportError(
            f"{name} was not uploaded: {reason}; the release is complete in {folder}. `hf auth login` stores a key"
        ) from error
    return str(repository)
