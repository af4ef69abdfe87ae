"""Errors that the user can fix."""


class UserError(Exception):
    """An error whose message says what is wrong and what to do: `dasd` prints only that, and exits with `exit_code`."""

    exit_code = 1  # a materialization, query or audit failed
