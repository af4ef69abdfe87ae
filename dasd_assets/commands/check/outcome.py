"""How a check of `dasd check` ends if it is not well."""

NUM_REASONS = 3  # of rejected rows, in a message


class CheckWarning(Exception):
    """The run can start, but its result may not be what the user wants."""


class CheckUnknown(Exception):
    """What was to be checked cannot be known, for want of something that another check names."""


class CheckFailed(Exception):
    """The run would fail."""
