"""Messages of a command to the user: with the time, on standard error, so that standard output holds results only."""

import sys
import time


def echo(message: str) -> None:
    """Print one line at once."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)
