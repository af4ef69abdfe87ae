"""How a package that is missing is installed: into the environment that runs, whichever `pip` a shell would find."""

import shlex
import sys


def pip_install(*packages: str) -> str:
    """The command, for error messages. An extra of ours is `dasd[extra]`, from a clone and from a wheel alike.

    As dasd is installed there, pip takes the extra from what it says of itself, and asks no registry for a dasd.
    """
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
