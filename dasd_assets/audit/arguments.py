"""Arguments that several commands share; nothing slow is imported for them."""

import argparse

RECIPE_HELP = "a shipped recipe's name or a YAML file's path (default: $DASD_RECIPE or demo)"


def positive(text: str) -> int:
    """The type of an argument that is a positive integer."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def port(text: str) -> int:
    """The type of an argument that is a port to listen on."""
    if not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError("1 to 65535")
    return int(text)
