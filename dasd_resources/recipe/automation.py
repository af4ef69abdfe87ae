"""The service and its home: what runs by itself, when, and beyond which limits it warns. No row depends on it."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from dasd_resources.recipe.parts import Part, Positive, Share
from dasd_resources.recipe.selection import FilterName

CRON = re.compile(r"@(hourly|daily|weekly|monthly|yearly)|[\d*/,\-]+( [\d*/,\-A-Za-z]+){4}")
PASSWORD = re.compile(r"://[^/:]*:(?!\d+(?:/|$)).*@")  # after the user's name; digits alone are a port
QUERY = re.compile(r"^(?!file:)[^:/]+://.*\?")  # a signature, a token
Owner = Annotated[str, Field(pattern=r"^(team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]


class Maintenance(Part):
    """Upkeep of the home: when, how old snapshots may grow, how long what nothing names is left alone."""

    cron: str | None = "30 4 * * *"
    keep_snapshots_days: Annotated[float, Field(ge=1)] = 30
    grace_hours: Annotated[float, Field(ge=1)] = 24
    keep_unfinished_days: Annotated[float, Field(ge=1)] = 14

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None and len(cron.split()) != 5:
            raise ValueError("is no cron expression; write five fields, such as '30 4 * * *' for half past four")
        return cron


class Automation(Part):
    """The service (`dasd ui`): where prompts land, when it trains, how often it tries what fails.

    landing: a folder or an fsspec URL, chained ones (`simplecache::ftp://…`) too.
    """

    landing: str | None = None
    training_cron: str | None = None
    max_attempts: Positive = 3
    retry_delay_seconds: Annotated[float, Field(ge=0)] = 60.0

    @field_validator("landing")
    @classmethod
    def _holds_no_secret(cls, url: str | None) -> str | None:
        if url is not None and any(PASSWORD.search(part) or QUERY.search(part) for part in url.split("::")):
            raise ValueError(
                "a password or query in a URL would be stored and shown; leave it out, and give user, password or "
                "token to fsspec in its configuration (~/.config/fsspec) or environment (such as FSSPEC_FTP_PASSWORD)"
            )
        return url

    @field_validator("training_cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None and not CRON.fullmatch(cron):
            raise ValueError("is no cron expression; write five fields, such as '0 2 * * *' for two o'clock each night")
        return cron


class Checks(Part):
    """Limits beyond which an asset check in the web UI warns; none of them stops a run."""

    max_duplicate_question_share: Share = 0.05
    max_duplicate_response_share: Share = 0.5
    max_failed_request_share: Share = 0.01
    max_drop_share: dict[FilterName, Share] = Field(
        default={
            "length": 0.1,
            "truncation": 0.2,
            "structure": 0.1,
            "repetition": 0.1,
            "correctness": 0.7,
        }
    )
    min_teacher_sentence_share: Share = 0.02
    max_teacher_sentence_share: Share = 0.9
    max_accuracy_drop: Annotated[float, Field(ge=0)] = 2.0  # standard errors of the difference to the previous stage


class Freshness(Part):
    """Days without a materialization after which the web UI warns of an asset; null: never."""

    prompts_days: Positive | None = None
    selection_days: Positive | None = None
    training_days: Positive | None = None
