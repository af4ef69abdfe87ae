"""Models as a recipe prompts them: what their fingerprint covers, and that nothing is loaded without need."""

from dataclasses import replace
from pathlib import Path

import pytest

from dasd_resources.engine import Completion, GenerationRequest, Score, ScoringRequest
from dasd_resources.engines import Engines
from dasd_resources.recipe import Model, RecipeError, load_recipe

RECIPE = load_recipe("demo")


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return Engines(home=str(tmp_path))


def changed(**values: object) -> Model:
    return Model.model_validate({**RECIPE.student.model_dump(), **values})


def test_a_fingerprint_covers_how_the_model_is_prompted(engines: Engines) -> None:
    specs = [
        RECIPE.student,
        RECIPE.teacher,
        changed(system_prompt=None),
        changed(system_prompt="You are terse."),
        changed(chat_template_options={"enable_thinking": True}),
    ]
    fingerprints = {engines.find(spec, "student.model").fingerprint for spec in specs}
    assert len(fingerprints) == len(specs)
    assert {len(fingerprint) for fingerprint in fingerprints} == {16}


def test_a_fingerprint_ignores_engine_and_dtype(engines: Engines) -> None:
    other = changed(engine="vllm", dtype="bfloat16", engine_options={"max_model_len": 64})
    assert engines.find(RECIPE.student, "k").fingerprint == engines.find(other, "k").fingerprint


def test_a_model_that_is_not_there_is_an_error_with_its_key(engines: Engines) -> None:
    with pytest.raises(RecipeError, match=r"teacher\.model: no folder \./nowhere; give the path"):
        engines.find(changed(model="./nowhere"), "teacher.model")


def test_without_requests_nothing_is_loaded(engines: Engines, tmp_path: Path) -> None:
    gone = replace(engines.find(RECIPE.student, "student.model"), path=tmp_path / "gone")
    assert list(engines.generate(gone, [])) == []
    assert list(engines.score(gone, [])) == []
    with pytest.raises(OSError):
        list(engines.score(gone, [ScoringRequest("r", (1, 2), 1)]))


def test_a_loaded_engine_generates_and_scores(engines: Engines) -> None:
    student = engines.find(RECIPE.student, "student.model")
    prompt = tuple(student.chat.prompt_ids("1 + 2 ="))
    [completion] = engines.generate(student, [GenerationRequest("g", prompt, 1.0, 1.0, 4, 7, ())])
    assert isinstance(completion, Completion)
    assert (completion.request_id, len(completion.token_ids), completion.finish_reason) == ("g", 4, "length")
    [score] = engines.score(student, [ScoringRequest("s", (*prompt, *completion.token_ids), len(prompt))])
    assert isinstance(score, Score)
    assert score.logprobs == pytest.approx(completion.logprobs, abs=1e-4)
