"""What the student is asked to score, and the row of a score."""

import polars as pl
import pytest

from dasd_assets.student_logprobs import scoring_requests, slices_of_tokens, student_row
from dasd_resources.inference.engine import Failure, Score, ScoringRequest
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import load_recipe


def test_the_whole_sequence_is_scored_after_its_prompt_and_a_question_that_cannot_be_asked_fails() -> None:
    tokens = pl.DataFrame(
        [
            {
                "response_id": "r1",
                "num_prompt_tokens": 3,
                "token_ids": [1, 2, 3, 7, 8, 9],
                "kind": None,
                "reason": None,
            },
            {"response_id": "r2", "token_ids": None, "kind": "unsupported_question", "reason": "no system role"},
        ]
    )
    requests, refused = scoring_requests(tokens)
    assert requests == [ScoringRequest("r1", (1, 2, 3, 7, 8, 9), 3)]
    assert refused == [Failure("r2", "no system role", "unsupported_question")]


def test_slices_hold_so_many_tokens_or_one_row() -> None:
    tokens = pl.DataFrame({"response_id": list("abcdef"), "token_ids": [[1], [1, 2], None, [1] * 9, [], [1, 2, 3]]})
    slices = list(slices_of_tokens(tokens, 3))
    assert pl.concat(slices).equals(tokens)
    assert ["".join(part["response_id"]) for part in slices] == ["abc", "d", "ef"]
    assert list(slices_of_tokens(tokens.clear(), 3)) == []


def test_a_row_names_the_response_the_student_and_what_scored_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    recipe = load_recipe("demo")
    student = Engines(home=str(tmp_path_factory.mktemp("home"))).find(recipe.student, "student.model")
    assert student_row(Score("r1", [-0.5, -1.5, -2.5]), "b1", student) == {
        "response_id": "r1",
        "batch": "b1",
        "student_fingerprint": student.fingerprint,
        "engine": "transformers",
        "dtype": "float32",
        "logprobs": [-0.5, -1.5, -2.5],
    }
