"""`maintenance`, `automation`, `checks`, `freshness`: what the service runs and when it warns; no row depends on it."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from dasd_resources.recipe.parts import AddedLater, Part, Positive, Share

CRON_WORDS = {"@hourly", "@daily", "@weekly", "@monthly", "@yearly"}
CRON_FIELDS = (  # least and greatest number, and the names that some may have
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    (0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
CRON_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?")
PASSWORD = re.compile(r"://[^/:]*:(?!\d+(?:/|$)).*@")  # after the user's name; digits alone are a port
QUERY = re.compile(r"^(?!file:)[^:/]+://.*\?")  # a signature, a token
Owner = Annotated[str, Field(pattern=r"^(team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]


def is_store(landing: str) -> bool:
    """Whether a landing place is an fsspec URL, chained ones and file:// too, rather than a path to resolve."""
    return "://" in landing or "::" in landing


def checked_cron(cron: str | None) -> str | None:
    """The expression: a word such as @daily, or five fields of numbers, ranges, lists and steps. Raises ValueError."""
    fields = (cron or "").split()
    if cron is None or cron in CRON_WORDS:
        return cron
    problem = f"it has {len(fields)} fields"
    if len(fields) == len(CRON_FIELDS):
        bad = [text for text, rule in zip(fields, CRON_FIELDS, strict=True) if not _is_cron_field(text, *rule)]
        if not bad:
            return cron
        problem = f"{bad[0]} is not a valid field"
    raise ValueError(
        f"is not a cron expression: {problem}; write five, such as '30 4 * * *' for half past four each night"
    )


def _is_cron_field(text: str, least: int, greatest: int, names: Sequence[str]) -> bool:
    for part in text.split(","):
        match = CRON_PART.fullmatch(part.lower())
        if match is None:
            return False
        ends = [names.index(end) + least if end in names else end for end in match.groups()[:2] if end is not None]
        if not all(str(end).isdigit() and least <= int(end) <= greatest for end in ends):
            return False
        if len(ends) == 2 and int(ends[0]) > int(ends[1]):
            return False
    return True


Cron = Annotated[str | None, AfterValidator(checked_cron)]


class Maintenance(Part):
    """Maintenance of the home: when it runs, how long snapshots, unreferenced files and killed trainings are kept."""

    cron: Cron = "30 4 * * *"
    """When it runs; null: never."""
    keep_snapshots_days: Annotated[float, Field(ge=1)] = 30
    """Older ones are expired, unless a checkpoint or another row names them."""
    grace_hours: Annotated[float, Field(ge=1)] = 24
    """For which a data file that no snapshot names is kept."""
    keep_unfinished_days: Annotated[float, Field(ge=1)] = 14
    """For which a killed training can be continued from its last saved step."""


class Automation(Part):
    """The service (`dasd ui`): where prompts land, when it trains, how often it tries what fails."""

    landing: str | None = None
    """A folder, or an fsspec URL such as s3://bucket/prompts, chained ones too; null: DASD_HOME/prompts."""
    training_cron: Cron = None
    """When it trains what changed; null: never."""
    max_attempts: Positive = 3
    """Of a batch that fails; then it is quarantined."""
    retry_delay_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Before the second attempt; four times as long before each later one, up to an hour."""
    keep_loaded_seconds: Annotated[float, Field(ge=0), AddedLater] = 600.0
    """For which a model stays loaded for the next step; 0: it is loaded for every step, and batch after batch made."""
    check_first_batch_above: Annotated[Positive, AddedLater] = 8
    """Of more new batches, the first is checked before the others are begun: each model is loaded twice more in all."""

    @field_validator("landing")
    @classmethod
    def _holds_no_secret(cls, url: str | None) -> str | None:
        if url is not None and any(PASSWORD.search(part) or QUERY.search(part) for part in url.split("::")):
            raise ValueError(
                "a password or query in a URL would be stored and shown; leave it out, and give user, password or "
                "token to fsspec in its configuration (~/.config/fsspec) or environment (such as FSSPEC_FTP_PASSWORD)"
            )
        return url


class Checks(Part):
    """Limits beyond which an asset check in the web UI warns; none of them stops a run. Shares are of 1."""

    max_duplicate_question_share: Share = 0.05
    """Of the lines of a landed file."""
    max_rejected_line_share: Share = 0.05
    """Of them, without duplicates and withdrawn questions."""
    max_duplicate_response_share: Share = 0.5
    """Of the candidates of a question."""
    max_failed_request_share: Share = 0.01
    """Of the requests of an asset."""
    max_drop_share: dict[str, Share] = Field(default_factory=dict)
    """Filter -> limit, where it is not to be the filter's own."""
    min_teacher_sentence_share: Share = 0.02
    """Of the sentences of a batch."""
    max_teacher_sentence_share: Share = 0.9
    """Of the sentences of a batch."""
    max_accuracy_drop: Annotated[float, Field(ge=0)] = 2.0
    """Standard errors of the difference to the stage before, paired by question: a significant drop of more warns."""


class Freshness(Part):
    """Days without a materialization after which the web UI warns of an asset; null: never."""

    prompts_days: Positive | None = None
    """Of prompts."""
    selection_days: Positive | None = None
    """Of selections and datasets."""
    training_days: Positive | None = None
    """Of checkpoints."""
