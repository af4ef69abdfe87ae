"""What an engine may return: one finite log-probability per token, or an error that names the row."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasd_resources.inference.engine import Completion, Failure, Score, check_logprobs


@given(st.lists(st.floats(max_value=0, allow_nan=False, allow_infinity=False), max_size=20))
def test_every_list_of_finite_non_positive_values_passes(logprobs: list[float]) -> None:
    check_logprobs("r1", logprobs, len(logprobs))
    assert Score("r1", logprobs).logprobs == logprobs


def test_rounding_above_zero_passes() -> None:
    check_logprobs("r1", [1e-4, -0.0, 0.0], 3)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1.1e-4, 0.5])
def test_a_value_that_is_no_logprob_is_refused_with_its_row_and_position(wrong: float) -> None:
    message = rf"r1: logprob {wrong} at token 2 is not a log-probability"
    with pytest.raises(ValueError, match=message):
        Score("r1", [-1.0, -2.0, wrong])
    with pytest.raises(ValueError, match=message):
        Completion("r1", [7, 8, 9], [-1.0, -2.0, wrong], "stop")


@pytest.mark.parametrize("logprobs", [[], [-1.0], [-1.0, -1.0, -1.0]])
def test_a_wrong_number_of_logprobs_is_refused(logprobs: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"r1: 2 tokens but {len(logprobs)} logprobs"):
        Completion("r1", [7, 8], logprobs, "length")


def test_a_row_whose_logprobs_are_none_can_end_as_a_failure() -> None:
    scored, sampled = Score.of("r1", [math.nan]), Completion.of("r2", [7], [math.nan], "stop")
    for result, request_id in ((scored, "r1"), (sampled, "r2")):
        assert isinstance(result, Failure) and result.kind == "invalid_logprobs"
        assert result.request_id == request_id
        assert "logprob nan at token 0 is not a log-probability; where a model overflows" in result.reason
    assert Score.of("r1", [-1.0]) == Score("r1", [-1.0])
    assert Completion.of("r2", [7], [-1.0], "stop") == Completion("r2", [7], [-1.0], "stop")
