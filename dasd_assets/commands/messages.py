"""Messages of a command to the user: with the time, on standard error, so that standard output holds results only."""

import sys
import time

from dasd_resources.visible_text import show_message


def echo(message: str) -> None:
    """Print a message at once."""
    show_message(timed(message), sys.stderr)


def timed(message: str) -> str:
    """A message with the time before it."""
    return f"{time.strftime('%H:%M:%S')} {message}"
