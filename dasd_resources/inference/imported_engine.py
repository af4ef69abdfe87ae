"""The teacher that is not here: its responses and their log-probabilities are landed (`imports` in the recipe).

An InferenceEngine, as every entry of the catalogue is one, that can be asked for nothing: whoever asks did not look at
`EngineEntry.absent`.
"""

from collections.abc import Iterator, Sequence

from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, Score, ScoringRequest
from dasd_resources.recipe import Model, RecipeError


class ImportedEngine:
    """Refuses to generate and to score."""

    def __init__(self, spec: Model) -> None:
        self._spec = spec

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        """Raises RecipeError."""
        raise self._absent("generates")

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        """Raises RecipeError."""
        raise self._absent("scores")

    def close(self) -> None: ...

    def _absent(self, what: str) -> RecipeError:
        return RecipeError(
            f"teacher {self._spec.stands_for} is not here, so it {what} nothing: give the recipe a teacher with its "
            "weights, or behind a server"
        )
