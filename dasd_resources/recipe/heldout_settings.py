"""Loss on teacher responses that no stage was trained on: how many of them every checkpoint scores."""

from dasd_resources.recipe.parts import Part, Positive


class HeldOut(Part):
    """Accepted responses that were not trained on, of each temperature: those whose ids, hashes, come first."""

    num_responses: Positive
    """At most so many to questions that were trained on with another response, and as many to others."""
