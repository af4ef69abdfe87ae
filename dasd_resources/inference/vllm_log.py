"""Where vLLM's own output goes: a file, so that a terminal holds what a user has to read.

Its processes, and libraries below it that know no Python logging, write to the standard streams; those are sent to the
file while a model is loaded, and its processes keep them. Its loggers write there throughout.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dasd_resources.standard_streams import streams_to
from dasd_resources.whole_files import write_whole

LOG = "vllm.log"
CONFIGURATION = "vllm_logging.json"
MAX_BYTES = 10_000_000  # then the log is put aside, in place of the one before it
VARIABLE = "VLLM_LOGGING_CONFIG_PATH"


class VLLMFailed(RuntimeError):
    """vLLM did not load a model; the message names its log."""


@contextmanager
def output_in(folder: Path) -> Iterator[Path]:
    """Within, all that this process and those it starts print goes to the log in this folder, which is yielded."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    if log.is_file() and log.stat().st_size > MAX_BYTES:
        log.replace(log.with_name(f"{LOG}.1"))
    if VARIABLE not in os.environ:  # a user's own stays
        os.environ[VARIABLE] = str(_configuration(folder, log))
    try:
        with open(log, "ab") as file, streams_to(file.fileno(), file.fileno()):
            yield log
    except Exception as error:
        raise VLLMFailed(f"{error} (vLLM's log: {log})") from error


def _configuration(folder: Path, log: Path) -> Path:
    """The file that tells vLLM's loggers, in each of its processes, to write to the log."""
    handler = {"class": "logging.FileHandler", "filename": str(log), "formatter": "line", "encoding": "utf-8"}
    document = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"file": handler},
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }
    path = folder / CONFIGURATION
    write_whole(path, json.dumps(document).encode())
    return path
