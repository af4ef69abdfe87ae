"""The run log in a terminal: messages of the assets, one line each; Dagster's events stay in its event log.

Of the events, two tell the display which asset is being made.
"""

import logging

import dagster as dg

from dasd_assets.commands.display import shown
from dasd_assets.records.dagster_internals import (
    get_log_record_event,
    get_log_record_metadata,
    has_log_record_event,
    has_log_record_metadata,
)
from dasd_resources.visible_text import visible


@dg.logger(None, description="Messages of the assets, one line each.")
def console(init_context: dg.InitLoggerContext) -> logging.Logger:
    """The logger `dasd run` gives its runs."""
    logger = logging.Logger("dasd")
    handler = OfDisplay()
    handler.addFilter(_is_of_an_asset)
    handler.setFormatter(logging.Formatter("%(asctime)s   %(step)s: %(original)s", "%H:%M:%S"))
    logger.addHandler(handler)
    return logger


class OfDisplay(logging.StreamHandler):
    """Writes to the display of the run, or to standard error where there is none."""

    def emit(self, record: logging.LogRecord) -> None:
        display = shown()
        if display is None:
            super().emit(record)
        else:
            display.say(self.format(record))


def _is_of_an_asset(record: logging.LogRecord) -> bool:
    if has_log_record_event(record):
        _tell_display(get_log_record_event(record))
        return False
    if not has_log_record_metadata(record):
        return False
    metadata = get_log_record_metadata(record)
    record.__dict__.update(step=metadata.get("step_key"), original=visible(str(metadata.get("orig_message"))))
    return record.levelno >= logging.INFO and metadata.get("step_key") is not None


def _tell_display(event: dg.DagsterEvent) -> None:
    display = shown()
    if display is not None and event.event_type in (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED):
        display.begin(event.step_key)
    elif display is not None and (event.is_step_success or event.is_step_failure):
        display.begin(None)
