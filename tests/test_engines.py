"""The demo's own models, found as the pipeline does it, and what is asked of an engine: in parts, each once."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Fake, fake_engines

from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine import (
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engines import Engines, PromptedModel, in_parts, once_each
from dasd_resources.inference.model_files import fingerprint
from dasd_resources.recipe import Model, RayCluster, RecipeError, Server, load_recipe

TEACHER = load_recipe("demo").teacher


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    return Engines(home=str(tmp_path))


def test_nothing_is_loaded_when_there_is_nothing_to_do(engines: Engines) -> None:
    model = engines.find(TEACHER, "teacher.model")
    nowhere = type(model)(Path("nowhere"), model.fingerprint, model.chat, model.spec)
    assert list(engines.generate(nowhere, [])) == list(engines.score(nowhere, [])) == []


def test_requests_are_made_and_answered_in_parts_by_one_loaded_model(tmp_path: Path) -> None:
    fake, opened, made = Fake(), list[str](), list[str]()
    few = fake_engines(tmp_path, fake)

    class Counting(type(few)):  # type: ignore[misc]
        @contextmanager
        def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
            opened.append(model.fingerprint)
            with super().open(model) as engine:
                yield engine

    def requests() -> Iterator[GenerationRequest | Failure]:
        for key in "abcdefg":
            made.append(key)
            yield Failure(key, "no prompt") if key in "af" else GenerationRequest(key, (5,), 1.0, 1.0, 4, 0, ())

    counting = Counting(home=str(tmp_path))
    results = counting.generate(counting.find(TEACHER, "teacher.model"), requests(), at_once=2)
    assert isinstance(next(results), Failure)
    assert (made, opened) == (["a", "b"], [])
    assert [r.request_id for r in results] == ["b", "d", "c", "f", "e", "g"]
    assert len(opened) == 1
    assert fake.generated == ["b", "d", "c", "e", "g"]


def test_a_part_ends_with_its_tokens_and_a_prompt_that_is_shared_counts_once() -> None:
    long, short = tuple(range(90)), (1, 2)
    prompts = [long, long, long, short, long, short]
    asked = [GenerationRequest(str(i), ids, 1.0, 1.0, 4, 0, ()) for i, ids in enumerate(prompts)]
    parts = [[r.request_id for r in part] for part, _ in in_parts(asked, at_once=100, num_tokens=100)]
    assert parts == [["0", "1", "2", "3", "4"], ["5"]]


def renamed(folder: Path, name: str) -> Model:
    """The demo's teacher, its folder naming another class of tokenizer."""
    shutil.copytree(TEACHER.model, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tokenizer_class": name}))
    return TEACHER.model_copy(update={"model": str(folder)})


def test_rows_of_the_wrong_class_are_not_those_of_the_file(tmp_path: Path, engines: Engines) -> None:
    """What was made with the wrong tokens must not count as done; a right class changes no fingerprint."""
    for name, mark in (("TokenizersBackend", []), ("LlamaTokenizer", ["tokenizer.json"])):
        spec = renamed(tmp_path / name, name)
        found = engines.find(spec, "teacher.model")
        files = fingerprint(tmp_path / name, engines.cache)
        assert found.fingerprint == content_hash([files, found.chat.template_version, *mark])[:16]
        assert engines.fingerprint(spec, "teacher.model") == found.fingerprint
        assert found.chat.origin.replaces_class == bool(mark)


def test_a_refused_tokenizer_is_named_by_its_key(tmp_path: Path, engines: Engines) -> None:
    spec = renamed(tmp_path / "student", "TokenizersBackend")
    file = tmp_path / "student" / "tokenizer.json"
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    file.write_text(json.dumps({**json.loads(file.read_text()), "decoder": decoder}))
    with pytest.raises(RecipeError, match=r"^student\.model: model .*/student: its tokenizer reads 'The answer is 42"):
        engines.find(spec, "student.model")


def test_every_request_ends_once() -> None:
    requests = [ScoringRequest(key, (1, 2), 1) for key in "abc"]
    said = list(once_each(requests, iter([Score("b", [-1.0]), Failure("a", "too long")])))
    assert said[:2] == [Score("b", [-1.0]), Failure("a", "too long")]
    assert said[2:] == [Failure("c", "the engine ended without a result for it", "no_result")]
    with pytest.raises(RuntimeError, match="a second or unrequested result for b"):
        list(once_each(requests, iter([Score("b", [-1.0]), Score("b", [-1.0])])))


def test_a_known_fingerprint_needs_no_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(TEACHER.model, folder)
    spec = TEACHER.model_copy(update={"model": str(folder)})
    code = f"""if True:
        import sys
        from dasd_resources.inference.engines import Engines
        from dasd_resources.recipe import Model
        spec = Model.model_validate_json({spec.model_dump_json()!r})
        print(Engines(home={str(tmp_path)!r}).fingerprint(spec, "teacher.model"), "transformers" in sys.modules)"""

    def found() -> list[str]:
        done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.split()

    engines = Engines(home=str(tmp_path))
    first = engines.fingerprint(spec, "teacher.model")
    assert first == engines.find(spec, "teacher.model").fingerprint
    assert found() == [first, "False"]
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{# otherwise #}")
    changed = engines.fingerprint(spec, "teacher.model")
    assert changed not in (first, "")
    spec = spec.model_copy(update={"replicas": 4, "ray": RayCluster()})
    assert found() == [changed, "False"]
    other = spec.model_copy(update={"system_prompt": "Be brief."})
    assert engines.fingerprint(other, "teacher.model") != changed


def test_a_fingerprint_follows_the_prompting_not_the_path_or_engine(engines: Engines) -> None:
    first = engines.find(TEACHER, "teacher.model").fingerprint
    assert engines.find(TEACHER.model_copy(update={"engine": "vllm"}), "teacher.model").fingerprint == first
    prompted = TEACHER.model_copy(update={"system_prompt": "Be brief."})
    assert engines.find(prompted, "teacher.model").fingerprint != first


def test_a_quantised_model_is_another_model(engines: Engines) -> None:
    def fingerprint(**options: object) -> str:
        spec = TEACHER.model_copy(update={"engine": "vllm", "engine_options": options})
        return engines.find(spec, "teacher.model").fingerprint

    same = fingerprint(max_num_seqs=8), fingerprint(quantization=None), fingerprint(kv_cache_dtype="auto")
    assert set(same) == {fingerprint()}
    assert len({fingerprint(), fingerprint(quantization="fp8"), fingerprint(kv_cache_dtype="fp8")}) == 3


def test_vllm_takes_the_original_context_of_a_longrope_model_until_it_is_told_more(
    engines: Engines, tmp_path: Path
) -> None:
    rope = {"original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope"}}
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 131072, **rope}))
    found = engines.find(TEACHER, "teacher.model")

    def context(engine: str, **options: object) -> int:
        spec = TEACHER.model_copy(update={"engine": engine, "engine_options": options})
        return replace(found, path=tmp_path, spec=spec).context

    assert context("vllm") == context("vllm", max_model_len=-1) == 4096
    assert context("vllm", max_model_len=8192) == 8192
    assert context("transformers") == 131072


def test_a_missing_model_names_the_recipes_key(engines: Engines) -> None:
    absent = TEACHER.model_copy(update={"model": "/no/such/model"})
    with pytest.raises(RecipeError, match=r"teacher\.model.*/no/such/model"):
        engines.find(absent, "teacher.model")


SERVED = Server.model_validate({"base_urls": ["http://127.0.0.1:1/v1"], "model": "t", "revision": "1"})


def served(**changes: object) -> Model:
    return TEACHER.model_copy(update={"engine": "openai", "server": SERVED.model_copy(update=changes)})


def test_a_served_model_needs_its_tokenizer_here_but_no_weights(engines: Engines, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(TEACHER.model, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    here = engines.find(served(), "teacher.model")
    assert engines.find(served().model_copy(update={"model": str(folder)}), "teacher.model").fingerprint == (
        here.fingerprint
    )
    assert here.fingerprint != engines.find(TEACHER, "teacher.model").fingerprint


def test_the_fingerprint_of_a_served_model_is_of_what_is_declared(engines: Engines) -> None:
    first = engines.find(served(), "teacher.model").fingerprint
    assert engines.find(served(base_urls=("http://other/v1",), max_attempts=9), "teacher.model").fingerprint == first
    assert engines.find(served(revision="2"), "teacher.model").fingerprint != first
    assert engines.find(served(model="u"), "teacher.model").fingerprint != first
    prompted = served().model_copy(update={"system_prompt": "Be brief."})
    assert engines.find(prompted, "teacher.model").fingerprint != first


def test_a_server_that_is_down_is_a_fault_of_the_recipe_and_only_when_it_is_needed(engines: Engines) -> None:
    model = engines.find(served(patience_s=0.01), "teacher.model")
    assert list(engines.generate(model, [])) == []
    with pytest.raises(RecipeError, match=r"http://127\.0\.0\.1:1/v1 cannot be reached"):
        list(engines.generate(model, [GenerationRequest("a", (5,), 1.0, 1.0, 1, 0, ())]))
