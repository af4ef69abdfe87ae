import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest
import yaml
from conftest import change
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dasd_resources.inference.model_files import find_model
from dasd_resources.recipe import RECIPES, RayCluster, Recipe, RecipeError, Server, dataset_name, load_recipe
from dasd_resources.recipe.faults import MAY_HOLD_SECRETS
from dasd_resources.recipe.parts import Part, deciding

DEMO = yaml.safe_load((RECIPES / "demo.yaml").read_text())

SERVER = {"base_urls": ["http://a.test/v1"], "model": "m", "revision": "1"}


def changed(folder: Path, path: str, value: object) -> str:
    document = yaml.safe_load(yaml.safe_dump(DEMO))
    *parents, last = path.split(".")
    part = document
    for parent in parents:
        part = part[parent]
    part[last] = value
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_loads(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nonsense", 1, "nonsense: Extra inputs are not permitted"),
        ("seed", "x", r"seed: .*integer.*\(found 'x'\)"),
        ("seed", 2**32, r"seed: Input should be less than 4294967296"),
        ("generation.temperatures", [1.0, 0.6], "generation.temperatures: .*must ascend"),
        ("generation.temperatures", [0.6, 0.601], "generation.temperatures: .*must ascend"),
        ("mixed_policy.length_cap", 0.9, "mixed_policy.length_cap: .*greater than or equal to 1.*0.9"),
        ("training.min_learning_rate", 1.0, "min_learning_rate 1.0 is above learning_rate 0.003"),
        ("training.adam_beta1", -0.1, "training.adam_beta1: .*greater than or equal to 0"),
        ("training.adam_beta2", 1.0, "training.adam_beta2: .*less than 1"),
        ("training.global_batch_size", 17, "global_batch_size 17 is no multiple"),
        ("training.batch_counts", "bins", "batch_counts is bins but packing is off; set batch_counts: samples"),
        ("selection.budgets", {"t070": {"math": 1}}, r"budgets names \['t070'\]; generation makes \['t060', 't100'\]"),
        ("filters.max_student_tokens", 4096, "max_student_tokens 4096 is above training.max_length 512"),
        ("teacher.engine_options", {"trust_remote_code": True}, "teacher.engine_options: .*never allowed"),
        (
            "student.engine_options",
            {"attn_implementation": "kernels-community/flash-attn"},
            "student: engine_options.attn_implementation: .* is not supported; must be one of sdpa, eager",
        ),
        (
            "teacher",
            {**DEMO["teacher"], "engine": "vllm", "engine_options": {"load_format": "pt"}},
            "engine_options.load_format: 'pt' is not supported; must be one of safetensors, fastsafetensors",
        ),
        (
            "teacher",
            {**DEMO["teacher"], "engine": "vllm", "engine_options": {"hf_config_path": "/elsewhere"}},
            "engine_options.hf_config_path: '/elsewhere' is not supported; remove it",
        ),
        ("student.replicas", 0, "student.replicas: Input should be greater than or equal to 1"),
        (
            "teacher",
            {**DEMO["teacher"], "engine": "openai", "replicas": 2, "server": SERVER},
            "teacher: replicas mean nothing to a server; start more of them and name all in server.base_urls",
        ),
        (
            "teacher",
            {**DEMO["teacher"], "engine": "openai", "ray": {}, "server": SERVER},
            "teacher: ray means nothing to engine: openai, which runs no model here; remove it",
        ),
        ("teacher.ray", {"address": "ray://head:10001"}, "teacher.ray.address: .*Ray's client cannot pass on results"),
        ("teacher.ray", {"address": "head"}, "teacher.ray.address: .*pattern"),
        ("automation.training_cron", "99 2 * * *", "not a cron expression: 99 is not a valid field; write five"),
        ("automation.training_cron", "0 2 * * mon-sun", "not a cron expression: mon-sun is not a valid field"),
        ("maintenance.cron", "a b c d e", "not a cron expression: a is not a valid field"),
        ("maintenance.cron", "0 2 * *", "not a cron expression: it has 4 fields"),
        ("evaluation.benchmarks", DEMO["evaluation"]["benchmarks"] * 2, "two benchmarks have the same name"),
        ("provenance.benchmarks", ["aime"], r"provenance.benchmarks names aime; evaluation.benchmarks has chain_sum"),
        ("provenance.temperatures", [0.7], r"provenance.temperatures names 0.7; evaluation.temperatures has 0.6, 1"),
    ],
)
def test_a_fault_is_one_clear_sentence(tmp_path: Path, path: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(changed(tmp_path, path, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "sftp://me:secret@host/prompts",
        "simplecache::ftp://me:secret@host:21/prompts",
        "filecache::zip://*.jsonl::https://:secret@host/prompts.zip",
        "ftp://me@corp:secret@host/prompts",
        "ftp://me:se/secret@host/prompts",
        "ftp://me:1234secret@host",
        "https://host/prompts?token=secret",
        "simplecache::abfs://container@account.dfs.core.windows.net/prompts?sig=secret",
    ],
)
def test_a_landing_urls_secret_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    told = r"automation.landing: a password or query .* configuration \(~/.config/fsspec\)"
    with pytest.raises(RecipeError, match=told) as error:
        load_recipe(changed(tmp_path, "automation.landing", url))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/prompts",
        "sftp://me@host:22/prompts@home",
        "sftp://host:22",
        "abfs://container@account.dfs.core.windows.net/prompts",
        "zip://*.jsonl::sftp://me@host/prompts.zip",
        "file:///data/a:b@c",
        "/data/a:b@c",
        "/data/what now?",
        "file:///data/what now?",
    ],
)
def test_a_landing_url_without_secret_is_taken(tmp_path: Path, url: str) -> None:
    assert load_recipe(changed(tmp_path, "automation.landing", url)).automation.landing == url


@pytest.mark.parametrize("cron", ["@daily", "*/5 0-23/2 1,15 jan-jun MON,fri", "30 4 * * 7", None])
def test_a_cron_expression_is_taken(tmp_path: Path, cron: str | None) -> None:
    assert load_recipe(changed(tmp_path, "automation.training_cron", cron)).automation.training_cron == cron


def test_adam_without_momentum_is_taken(tmp_path: Path) -> None:
    assert load_recipe(changed(tmp_path, "training.adam_beta1", 0.0)).training.adam_beta1 == 0


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'nope': .*dasd-4b, demo"):
        load_recipe("nope")


def test_a_version_changes_with_its_parts_alone(tmp_path: Path) -> None:
    demo = load_recipe("demo")
    other = load_recipe(changed(tmp_path, "selection.divergence.threshold", 0.2))
    assert demo.version("selection.divergence") != other.version("selection.divergence")
    assert demo.version("generation", "training") == other.version("generation", "training")


def test_relative_paths_start_at_the_recipes_folder(tmp_path: Path) -> None:
    recipe = load_recipe(changed(tmp_path, "teacher.model", "./models/teacher"))
    assert recipe.teacher.model == str(tmp_path / "models" / "teacher")
    (tmp_path / "models" / "student").mkdir(parents=True)
    for name, expected in (("models/student", str(tmp_path / "models" / "student")), ("models/none", "models/none")):
        assert load_recipe(changed(tmp_path, "student.model", name)).student.model == expected
    for path in ("held_out.jsonl", "./held_out.jsonl"):
        recipe = load_recipe(changed(tmp_path, "evaluation.benchmarks", [{"name": "b", "path": path, "max_tokens": 1}]))
        assert recipe.evaluation.benchmarks[0].path == str(tmp_path / "held_out.jsonl")


@pytest.mark.parametrize("url", ["s3://bucket/prompts", "simplecache::ftp://host/prompts", "/srv/prompts"])
def test_a_landing_path_starts_there_too_but_no_url(tmp_path: Path, url: str) -> None:
    for landing, expected in (("prompts", str(tmp_path / "prompts")), (url, url)):
        assert load_recipe(changed(tmp_path, "automation.landing", landing)).automation.landing == expected


def test_relative_paths_of_a_shipped_recipe_start_at_the_home_but_for_the_packages_own_files(tmp_path: Path) -> None:
    paths = [benchmark.path for benchmark in load_recipe("dasd-4b", tmp_path).evaluation.benchmarks]
    assert paths[0] == str(tmp_path / "benchmarks" / "aime24.parquet")
    assert all(path.startswith(str(tmp_path / "benchmarks")) for path in paths)
    demo = load_recipe("demo", tmp_path)
    assert Path(demo.evaluation.benchmarks[0].path).is_file()
    assert Path(demo.teacher.model).is_dir()


def test_where_a_benchmark_lies_is_part_of_no_version(tmp_path: Path) -> None:
    def recipe(name: str, path: str) -> Recipe:
        benchmark = {"name": name, "path": path, "max_tokens": 1}
        return load_recipe(changed(tmp_path, "evaluation.benchmarks", [benchmark]))

    here, moved, renamed = recipe("b", "b.jsonl"), recipe("b", "other/b.jsonl"), recipe("c", "b.jsonl")
    for part in ("evaluation", "evaluation.benchmarks"):
        assert here.version(part) == moved.version(part) != renamed.version(part)
    assert here.evaluation.benchmarks[0].model_dump()["path"] == str(tmp_path / "b.jsonl")


def test_a_recipe_is_frozen() -> None:
    recipe: Recipe = load_recipe("demo")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1


def test_a_student_thinks_as_its_teacher(tmp_path: Path) -> None:
    assert load_recipe("demo").teacher.thinking == load_recipe("demo").student.thinking == "required"
    recipe = load_recipe(changed(tmp_path, "teacher.thinking", "none"))
    assert (recipe.teacher.thinking, recipe.student.thinking) == ("none", "none")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    with pytest.raises(RecipeError, match=r"student.thinking is none and teacher.thinking required: .*; remove"):
        load_recipe(changed(tmp_path, "student.thinking", "none"))
    with pytest.raises(RecipeError, match=r"teacher.thinking: .*'required', 'optional' or 'none' \(found 'never'\)"):
        load_recipe(changed(tmp_path, "teacher.thinking", "never"))


def test_a_key_that_came_later_is_in_no_version_while_it_says_what_was_always_so(tmp_path: Path) -> None:
    demo = load_recipe("demo")
    assert demo.version("seed", "teacher.thinking") == demo.version("seed")
    other = load_recipe(changed(tmp_path, "teacher.thinking", "optional"))
    assert other.parts("seed", "teacher.thinking") == {"seed": 42, "teacher.thinking": "optional"}
    assert other.version("seed", "teacher.thinking") != demo.version("seed", "teacher.thinking")


def test_datasets_are_named_for_their_temperature() -> None:
    assert [dataset_name(t) for t in (0.6, 1.0, 0.05)] == ["t060", "t100", "t005"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("filters.typo", 1, "filters.typo: Extra inputs are not permitted; remove the key or correct its spelling"),
        ("seed", True, "seed: Input should be a valid integer (found True)"),
        ("generation.num_candidates", 2.0, "generation.num_candidates: Input should be a valid integer (found 2.0)"),
        ("generation.temperatures", [0.6, "1.0"], "generation.temperatures.1: Input should be a valid number"),
        ("generation.temperatures", [0.6, 0.6], "at least 0.01 apart: training goes from the lowest to the highest"),
        ("generation.temperatures", [], "generation.temperatures: Tuple should have at least 1 item"),
        ("selection.divergence.threshold", float("nan"), "threshold: Input should be a finite number (found nan)"),
        ("selection.divergence.threshold", 0.0, "threshold: Input should be greater than 0 (found 0.0)"),
        (
            "selection.divergence.threshold",
            1.0,
            "selection.divergence: threshold must be below 1 with measure probability",
        ),
        ("selection.budgets", {"t060": {"math": 0}}, "selection.budgets.t060.math: Input should be greater than"),
        ("evaluation.temperatures", [1.0, 0.6, 1.0], "evaluation.temperatures: the same temperature twice would ask"),
        (
            "training.group_by_length",
            False,
            "training: group_order is random but there are no groups; set group_by_length",
        ),
        ("training.packing", True, "training: packing makes bins of equal length; set group_by_length: false"),
        ("training.min_learning_rate", 0.1, "training: min_learning_rate 0.1 is above learning_rate 0.003; lower it"),
        ("student.thinking_format", "harmony", "student.thinking_format must be think_tags"),
        ("teacher", "x", "teacher: Input should be a valid dictionary or instance of Model (found 'x')"),
        ("name", "Ä", "name: String should match pattern"),
        ("name", 1234567, "name: Input should be a valid string; put it in quotes (found 1234567)"),
        (
            "training.learning_rate",
            "5e-5",
            "training.learning_rate: YAML reads 5e-5 as text: write 5.0e-5 (found '5e-5')",
        ),
        ("training.learning_rate", "1.5E3", "YAML reads 1.5E3 as text: write 1.5e+3"),
        ("training.learning_rate", "fast", "training.learning_rate: Input should be a valid number (found 'fast')"),
        ("generation.temperatures", 0.6, "generation.temperatures: must be a list: [a, b] (found 0.6)"),
    ],
)
def test_a_fault_names_key_value_and_remedy(tmp_path: Path, path: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=f"^mine.yaml: .*{re.escape(message)}"):
        load_recipe(changed(tmp_path, path, value))


def test_every_fault_has_its_line(tmp_path: Path) -> None:
    document = {key: value for key, value in DEMO.items() if key != "name"} | {"typo": 1}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(RecipeError) as error:
        load_recipe(str(tmp_path / "mine.yaml"))
    assert sorted(str(error.value).splitlines()) == [
        "mine.yaml: name: Field required; add the key",
        "mine.yaml: typo: Extra inputs are not permitted; remove the key or correct its spelling (found 1)",
    ]


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"a: [", b"\xff\xfe\x00", b"\x00", b"!!python/object:os.system {}", b"!!int x"]
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine\.yaml: (not a YAML file|recipe: Input should be a valid dictionary)"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_a_date_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for date in ("2025-02-03", "2025-02-30"):
        path.write_text((RECIPES / "demo.yaml").read_text().replace("name: demo", f"name: {date}"))
        assert load_recipe(str(path)).name == date


def test_a_user_that_there_is_not_has_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe '~nobody-here/mine.yaml': give the path of a YAML file"):
        load_recipe("~nobody-here/mine.yaml")
    folder = load_recipe(changed(tmp_path, "teacher.model", "~nobody-here/teacher")).teacher.model
    with pytest.raises(RecipeError, match=r"teacher.model: no folder ~nobody-here/teacher; give the path"):
        find_model(folder, "teacher.model")


def test_a_key_said_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((RECIPES / "demo.yaml").read_text() + "seed: 7\n")
    with pytest.raises(RecipeError, match=r"not a YAML file: seed occurs twice; remove one"):
        load_recipe(str(path))


def test_a_version_is_a_hash_of_the_named_values(tmp_path: Path) -> None:
    demo = load_recipe("demo")
    canonical = '{"generation.top_p":1.0,"seed":42}'
    assert demo.version("seed", "generation.top_p") == sha256(canonical.encode()).hexdigest()[:12]
    assert demo.version("generation.top_p", "seed") == demo.version("seed", "generation.top_p")


PARTS = [key for key in DEMO if key != "name"]
CHANGES = {
    "seed": 43,
    "teacher.dtype": "bfloat16",
    "student.system_prompt": None,
    "generation.num_candidates": 4,
    "filters.require_correct": False,
    "selection.policy": "top_k",
    "training.epochs": 9,
    "mixed_policy.length_cap": 2.0,
    "evaluation.top_p": 0.9,
}


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_moves_the_version_of_its_own_part_alone(path: str) -> None:
    document = yaml.safe_load(yaml.safe_dump(DEMO))
    part, _, key = path.partition(".")
    (document[part] if key else document)[key or part] = CHANGES[path]
    before, after = Recipe.model_validate(DEMO), Recipe.model_validate(document)
    assert [name for name in PARTS if before.version(name) != after.version(name)] == [part]


def test_paths_that_are_not_relative_are_kept(tmp_path: Path) -> None:
    assert load_recipe(changed(tmp_path, "teacher.model", "Qwen/Qwen3-4B")).teacher.model == "Qwen/Qwen3-4B"
    assert load_recipe(changed(tmp_path, "teacher.model", "/models/t")).teacher.model == "/models/t"
    benchmark = {"name": "b", "path": "../held_out.jsonl", "max_tokens": 1}
    recipe = load_recipe(changed(tmp_path, "evaluation.benchmarks", [benchmark]))
    assert recipe.evaluation.benchmarks[0].path == str(tmp_path.parent / "held_out.jsonl")


def test_a_section_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_recipe("demo").training.epochs = 1


@given(st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_temperatures_ascend_or_are_refused(hundredths: list[int]) -> None:
    document = {**DEMO, "generation": {**DEMO["generation"], "temperatures": [h / 100 for h in hundredths]}}
    if hundredths == sorted(set(hundredths)):
        assert list(Recipe.model_validate(document).datasets) == [f"t{h:03d}" for h in hundredths]
    else:
        with pytest.raises(ValidationError, match="must ascend"):
            Recipe.model_validate(document)


SERVER = {"base_urls": ["http://127.0.0.1:8000/v1/"], "model": "t", "revision": "1"}


def with_server(folder: Path, engine: str = "openai", role: str = "teacher", **server: object) -> str:
    model = {**DEMO[role], "engine": engine, "server": {**SERVER, **server}}
    return changed(folder, role, model)


def test_a_served_teacher(tmp_path: Path) -> None:
    teacher = load_recipe(with_server(tmp_path, api_key_env="TEACHER_KEY")).teacher
    assert teacher.server is not None
    assert teacher.server.base_urls == ("http://127.0.0.1:8000/v1",)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"base_urls": []}, "server.base_urls: Tuple should have at least 1 item"),
        ({"base_urls": ["http://a/v1", "http://a/v1/"]}, "base_urls: two are the same; remove one"),
        ({"base_urls": ["127.0.0.1:8000"]}, r"base_urls: each must read http(s)://host[:port]/v1"),
        (
            {"base_urls": ["http://me:sk-secret@a/v1"]},
            r"base_urls: each must read http(s)://host[:port]/v1, without user",
        ),
        (
            {"base_urls": ["https://a/v1?key=sk-secret"]},
            r"base_urls: each must read http(s)://host[:port]/v1, without user",
        ),
        ({"base_urls": ["http://127.0.0.1\\@sk-secret/v1"]}, "base_urls: each must read"),
        ({"base_urls": ["http://a:0/v1"]}, "base_urls: each must read"),
        ({"base_urls": ["http://a:65536/v1"]}, "base_urls: each must read"),
        ({"base_urls": ["ftp://a/v1"]}, "base_urls: each must read"),
        ({"revision": ""}, "server.revision: String should have at least 1 character"),
        ({"api_key": "sk-secret"}, "server.api_key: Extra inputs are not permitted; did you mean api_key_env?"),
        ({"api_key_env": "sk-secret"}, "server.api_key_env: String should match pattern"),
        (
            {"api_key_env": "K", "base_urls": ["http://10.0.0.9/v1"]},
            "the key in K would cross the network in the clear to ",
        ),
        ({"max_concurrency": 0}, "server.max_concurrency: Input should be greater than or equal to 1"),
        ({"request_timeout_s": 0.0}, "server.request_timeout_s: Input should be greater than 0"),
    ],
)
def test_a_fault_of_a_server_is_told_without_what_may_be_a_key(
    tmp_path: Path, server: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)) as error:
        load_recipe(with_server(tmp_path, **server))
    assert "sk-secret" not in str(error.value)


def test_what_stands_where_a_server_is_described_is_never_shown(tmp_path: Path) -> None:
    sections = {
        name
        for part in parts_of(Part)
        for name, field in part.model_fields.items()
        if Server in (field.annotation, *get_args(field.annotation))
    }
    assert {"server", "scoring_server"} == sections and sections <= MAY_HOLD_SECRETS
    with pytest.raises(RecipeError, match=r"student\.scoring_server\.api_key: Extra inputs") as error:
        load_recipe(changed(tmp_path, "student.scoring_server", {**SERVER, "api_key": "sk-secret"}))
    assert "sk-secret" not in str(error.value)


def parts_of(kind: type[Part]) -> Iterator[type[Part]]:
    for part in kind.__subclasses__():
        yield part
        yield from parts_of(part)


@pytest.mark.parametrize("url", ["https://a.b/v1", "http://localhost:1/v1", "http://127.8.0.1", "http://[::1]:8000/v1"])
def test_a_key_may_go_by_tls_or_stay_on_this_machine(tmp_path: Path, url: str) -> None:
    assert load_recipe(with_server(tmp_path, api_key_env="K", base_urls=[url]))


def test_a_key_goes_in_the_clear_only_if_told_to(tmp_path: Path) -> None:
    urls = ["http://10.0.0.9/v1"]
    assert load_recipe(with_server(tmp_path, base_urls=urls))
    assert load_recipe(with_server(tmp_path, api_key_env="K", base_urls=urls, allow_key_over_http=True))


def test_a_server_part_goes_with_its_engine(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="teacher: engine: openai needs a server part; add server"):
        load_recipe(changed(tmp_path, "teacher.engine", "openai"))
    with pytest.raises(RecipeError, match="server is for engine: openai; this model runs on vllm"):
        load_recipe(with_server(tmp_path, engine="vllm"))
    with pytest.raises(RecipeError, match=r"teacher\.server\.revision: Field required; add the key"):
        load_recipe(
            changed(
                tmp_path,
                "teacher",
                {**DEMO["teacher"], "engine": "openai", "server": {"base_urls": ["http://a/v1"], "model": "t"}},
            )
        )
    with pytest.raises(RecipeError, match=r"student\.engine must be vllm or transformers"):
        load_recipe(with_server(tmp_path, role="student"))
    served = {**DEMO["teacher"], "engine": "openai", "server": SERVER, "engine_options": {"max_model_len": 8}}
    with pytest.raises(RecipeError, match="engine_options mean nothing to a server"):
        load_recipe(changed(tmp_path, "teacher", served))


@pytest.mark.parametrize("of_asking", [{"instructions": {"math": "Box it."}}, {"questions_per_domain": {"math": 3}}])
def test_what_is_imported_is_not_asked(tmp_path: Path, of_asking: dict[str, object]) -> None:
    document = {**DEMO, "teacher": {**DEMO["teacher"], "stands_for": "itself"}, "imports": {}}
    assert Recipe.model_validate(document)
    document = {**document, "generation": {**DEMO["generation"], **of_asking}}
    with pytest.raises(ValueError, match=f"{next(iter(of_asking))} is about asking questions, and imports takes"):
        Recipe.model_validate(document)


def test_a_key_that_was_added_counts_only_where_it_is_not_the_default() -> None:
    recipe = load_recipe("demo")
    filters = recipe.parts("filters")["filters"]
    assert list(filters) == ["max_student_tokens", "repetition", "require_correct", "apply"]
    assert list(filters["repetition"]) == ["ngram_sizes", "max_duplicate_share", "tail_tokens", "max_tail_share"]
    other = change(change(recipe, "filters.required", ("box",)), "filters.repetition.window_tokens", 99)
    assert other.parts("filters")["filters"] == {
        **filters,
        "repetition": {**filters["repetition"], "window_tokens": 99},
        "required": ["box"],
    }
    assert recipe.model_dump()["filters"]["required"] == ()


def test_ray_says_where_a_model_runs_and_decides_no_row(tmp_path: Path) -> None:
    """`engine: ray` is the default engine on a cluster; what hashes are made of does not know of it."""
    on_ray, own = load_recipe(changed(tmp_path, "teacher.engine", "ray")), load_recipe(changed(tmp_path, "seed", 42))
    assert (on_ray.teacher.engine, on_ray.teacher.ray) == ("vllm", RayCluster())
    assert load_recipe(changed(tmp_path, "teacher", on_ray.teacher.model_dump())) == on_ray
    elsewhere = own.teacher.model_copy(update={"ray": RayCluster(address="auto", gpus=False, num_cpus=2)})
    assert elsewhere.engine == "transformers" and deciding(elsewhere) == deciding(own.teacher)
