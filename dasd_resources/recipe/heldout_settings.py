"""Loss on teacher responses that no stage was trained on: how many every checkpoint scores, and of which questions."""

from typing import Annotated

from dasd_resources.recipe.parts import AddedLater, BelowOne, Part, Positive


class HeldOut(Part):
    """Accepted responses that were not trained on, of each temperature: those whose ids, hashes, come first."""

    num_responses: Positive
    """At most so many to questions that were trained on with another response, and as many to others."""
    questions: Annotated[BelowOne, AddedLater] = 0.0
    """Share of the questions, by a hash of their ids, that no stage is trained on; then these alone are the others."""
