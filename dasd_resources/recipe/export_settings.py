"""The dataset that is given to others: its form, what of the landed rows goes with it, and under which licences."""

from typing import Literal

from pydantic import Field

from dasd_resources.recipe.parts import Part, Positive

Form = Literal["messages", "prompt_completion", "sharegpt", "report"]


class Export(Part):
    """How `published_dataset` and `dasd export` write the training sets of a recipe.

    Licences are named as the hub names them (`apache-2.0`, `cc-by-4.0`).
    """

    form: Form = "messages"
    """Of the rows."""
    logprobs: bool = False
    """Whether the teacher's token logprobs go beside them."""
    control: bool = False
    """Whether the random control does."""
    metadata: tuple[str, ...] = Field(default=(), strict=False)
    """The keys of a question's metadata that go with it; no other does."""
    source_key: str = "source"
    """The key that names where a question comes from; without it, the landed file's name does."""
    licenses: dict[str, str] = Field(default_factory=dict)
    """Source -> its licence."""
    license: str | None = None
    """Of the whole."""
    title: str | None = None
    """Of the dataset card."""
    rows_per_shard: Positive = 50_000
    """Of a file."""
