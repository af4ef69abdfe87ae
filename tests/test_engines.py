"""The demo's own models, found and loaded as the pipeline does it, under both engines."""

from pathlib import Path

import pytest

from dasd_resources.engine import Completion, GenerationRequest, Score, ScoringRequest
from dasd_resources.engines import Engines
from dasd_resources.recipe import Model, RecipeError, load_recipe

TEACHER = load_recipe("demo").teacher
QUESTION = "State the final answer to the following arithmetic problem: {} ="
OF_VLLM = {"max_model_len": 512}


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return Engines(home=str(tmp_path))


def test_nothing_is_loaded_when_there_is_nothing_to_do(engines: Engines) -> None:
    model = engines.find(TEACHER, "teacher.model")
    nowhere = type(model)(Path("nowhere"), model.fingerprint, model.chat, model.spec)
    assert list(engines.generate(nowhere, [])) == list(engines.score(nowhere, [])) == []


def test_a_fingerprint_follows_the_prompting_not_the_path_or_engine(engines: Engines) -> None:
    first = engines.find(TEACHER, "teacher.model").fingerprint
    assert engines.find(TEACHER.model_copy(update={"engine": "vllm"}), "teacher.model").fingerprint == first
    prompted = TEACHER.model_copy(update={"system_prompt": "Be brief."})
    assert engines.find(prompted, "teacher.model").fingerprint != first


def test_a_missing_model_names_the_recipes_key(engines: Engines) -> None:
    absent = TEACHER.model_copy(update={"model": "/no/such/model"})
    with pytest.raises(RecipeError, match=r"teacher\.model.*/no/such/model"):
        engines.find(absent, "teacher.model")


def test_the_demos_teacher_answers_alike_under_vllm_and_transformers(engines: Engines) -> None:
    spec: Model = TEACHER.model_copy(update={"engine": "vllm", "engine_options": OF_VLLM})
    vllm, transformers = engines.find(spec, "teacher.model"), engines.find(TEACHER, "teacher.model")
    prompts = [tuple(vllm.chat.prompt_ids(QUESTION.format(sum))) for sum in ("4 + 5 - 2", "9 - 8 + 7 + 1")]
    requests = [
        GenerationRequest(str(i), prompt, 0.6, 1.0, 200, seed, vllm.chat.stop_token_ids)
        for i, (prompt, seed) in enumerate(zip(prompts, (11, 12), strict=True))
    ]
    completions = {c.request_id: c for c in engines.generate(vllm, requests) if isinstance(c, Completion)}
    assert set(completions) == {"0", "1"}
    texts = [vllm.chat.read_response(c.token_ids).text for c in completions.values()]
    assert all(text.startswith("<think>\n") and "The answer is" in text for text in texts)
    to_score = [
        ScoringRequest(key, prompts[int(key)] + tuple(c.token_ids), len(prompts[int(key)]))
        for key, c in completions.items()
    ]
    for model in (vllm, transformers):
        scores = {s.request_id: s for s in engines.score(model, to_score) if isinstance(s, Score)}
        for key, completion in completions.items():
            assert scores[key].logprobs == pytest.approx(completion.logprobs, abs=1e-4)
