"""The response that the report shows sentence by sentence (Figure 5): the best-ranked of the last dataset."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from dasd_assets.rules.asset_names import DAS
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


@dataclass(frozen=True)
class OneResponse:
    """A selected response. sentences: start, stop, teacher_prob, student_prob, sentence_type, in order of place."""

    response_id: str
    dataset: str
    domain: str
    score: float
    score_name: str
    question: str
    text: str
    sentences: pl.DataFrame

    @property
    def name(self) -> str:
        """Which one it is: `response 0123456789ab of dataset t100`."""
        return f"response {self.response_id} of dataset {self.dataset}"


def one_response(warehouse: Warehouse, params: Mapping[str, object], recipe: Recipe) -> OneResponse | None:
    """The first in rank of the last dataset, with its sentences; None if nothing is selected or typed yet.

    params: student, segmenter_version, threshold_version.
    """
    query = f"""SELECT s.response_id, s.domain, s.score, s.score_name, p.sentence_index, p.start, p.stop,
            p.teacher_prob, p.student_prob, t.sentence_type
        FROM selected_responses s SEMI JOIN responses USING (response_id)
        JOIN sentence_probabilities p USING (response_id)
        JOIN sentence_types t USING (response_id, student_fingerprint, sentence_index)
        WHERE s.recipe = $recipe AND s.dataset = $dataset AND s.policy = '{DAS}' AND s.rank = 1
          AND p.student_fingerprint = $student AND p.segmenter_version = $segmenter_version
          AND t.threshold_version = $threshold_version
        QUALIFY dense_rank() OVER (ORDER BY response_id) = 1 ORDER BY p.sentence_index"""
    with warehouse.reading() as reading:
        found = reading.read(query, {**params, "recipe": recipe.name, "dataset": recipe.last_dataset})
        if found.is_empty():
            return None
        first = found.row(0, named=True)
        said = reading.read(_SAID, {"id": first["response_id"]}).row(0, named=True)
    return OneResponse(
        first["response_id"],
        recipe.last_dataset,
        first["domain"],
        first["score"],
        first["score_name"],
        said["question"],
        said["text"],
        found.select("start", "stop", "teacher_prob", "student_prob", "sentence_type"),
    )


_SAID = """SELECT r.text, p.question FROM responses r JOIN prompts p USING (prompt_id)
    WHERE r.response_id = $id LIMIT 1"""
