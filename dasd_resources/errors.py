"""Errors that the user can fix."""


class UserError(Exception):
    """The message says what is wrong and what to do: `dasd` prints it alone, and ends with `exit_code`."""

    exit_code = 1  # a materialization, query or audit failed
