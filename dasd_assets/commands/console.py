"""The run log in a terminal: messages of the assets, one line each; Dagster's events stay in its event log."""

import logging

import dagster as dg

from dasd_assets.records.dagster_internals import get_log_record_metadata, has_log_record_event, has_log_record_metadata
from dasd_resources.visible_text import visible


@dg.logger(None, description="Messages of the assets, one line each.")
def console(init_context: dg.InitLoggerContext) -> logging.Logger:
    """The logger `dasd run` gives its runs."""
    logger = logging.Logger("dasd")
    handler = logging.StreamHandler()
    handler.addFilter(_is_of_an_asset)
    handler.setFormatter(logging.Formatter("%(asctime)s   %(step)s: %(original)s", "%H:%M:%S"))
    logger.addHandler(handler)
    return logger


def _is_of_an_asset(record: logging.LogRecord) -> bool:
    if has_log_record_event(record) or not has_log_record_metadata(record):
        return False
    metadata = get_log_record_metadata(record)
    record.__dict__.update(step=metadata.get("step_key"), original=visible(str(metadata.get("orig_message"))))
    return record.levelno >= logging.INFO and metadata.get("step_key") is not None
