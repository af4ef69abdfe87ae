"""Rows of the student's logprobs: the response's tokens alone, the prompt left out."""

import pytest

from dasd_assets.student_logprobs import student_row
from dasd_resources.chat import Encoded
from dasd_resources.inference.engine import Score
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import load_recipe


def test_a_student_row_leaves_out_the_prompt(tmp_path_factory: pytest.TempPathFactory) -> None:
    recipe = load_recipe("demo")
    student = Engines(home=str(tmp_path_factory.mktemp("home"))).find(recipe.student, "student.model")
    encoded = Encoded(token_ids=[1, 2, 3, 7, 8, 9], num_prompt_tokens=3, offsets=[0, 4, -1])
    assert student_row(Score("r1", [-0.5, -1.5, -2.5]), encoded, "b1", student) == {
        "response_id": "r1",
        "batch": "b1",
        "student_fingerprint": student.fingerprint,
        "engine": "transformers",
        "dtype": "float32",
        "token_ids": [7, 8, 9],
        "logprobs": [-0.5, -1.5, -2.5],
        "offsets": [0, 4, -1],
    }
