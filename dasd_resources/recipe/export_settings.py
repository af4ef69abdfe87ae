"""The dataset that is given to others: its form, what of the landed rows goes with it, and under which licences."""

from typing import Literal

from pydantic import Field

from dasd_resources.recipe.parts import Part, Positive

Form = Literal["messages", "prompt_completion", "sharegpt", "report"]


class Export(Part):
    """How `published_dataset` and `dasd export` write the training sets of a recipe.

    form: of the rows. logprobs: whether the teacher's token logprobs go beside them. control: whether the random
    control does. metadata: the keys of a question's metadata that go with it; no other does. source_key: the one that
    names where a question comes from; without it, the landed file's name does. licenses: source -> its licence.
    license: of the whole. Licences are named as the hub names them (`apache-2.0`, `cc-by-4.0`).
    """

    form: Form = "messages"
    logprobs: bool = False
    control: bool = False
    metadata: tuple[str, ...] = Field(default=(), strict=False)
    source_key: str = "source"
    licenses: dict[str, str] = Field(default_factory=dict)
    license: str | None = None
    title: str | None = None
    rows_per_shard: Positive = 50_000
