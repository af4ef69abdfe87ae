"""The Recipe: every choice of a distillation, validated once, frozen, and hashed part by part.

A recipe is a YAML file, chosen by name (one of those shipped in `recipes/`) or by path. Its shape is checked here, at
load; whether its models exist and fit is checked when a run starts (`models.py`, `chat.py`).
"""

import hashlib
import json
import re
from collections.abc import Hashable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

CRON = re.compile(r"@(hourly|daily|weekly|monthly|yearly)|[\d*/,\-]+( [\d*/,\-A-Za-z]+){4}")
RECIPES = Path(__file__).parent / "recipes"
# Strict, so that nothing that reads as one host is taken for another, and no password hides in it.
BASE_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>(?:[a-z0-9-]{1,63}\.)*[a-z0-9-]{1,63}|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>\d{1,5}))?(?:/[\w.~-]+)*/?",
    re.ASCII | re.IGNORECASE,
)

Option = str | int | float | bool | None
Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Owner = Annotated[str, Field(pattern=r"^(team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]
FilterName = Literal["length", "truncation", "structure", "repetition", "correctness"]
Per = Literal["token", "character"]
Measure = Literal["probability", "log"]
ScoreName = Literal[
    "teacher_share",
    "mean_probability_token",
    "sum_probability_token",
    "mean_log_token",
    "sum_log_token",
    "mean_probability_character",
    "sum_probability_character",
    "mean_log_character",
    "sum_log_character",
]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names key, value and remedy."""


class Part(BaseModel):
    """A frozen section of the recipe; unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Server(Part):
    """Where a remote model is served, as what, and how hard it may be pressed; the key itself is never written here.

    Limits per minute hold for all base URLs together, `max_concurrency` for each.
    """

    base_urls: tuple[str, ...] = Field(strict=False, min_length=1)
    model: Annotated[str, Field(min_length=1)]  # its id in the server's /v1/models
    revision: Annotated[str, Field(min_length=1)]  # of its weights, which nobody can see from here
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    allow_key_over_http: bool = False
    max_concurrency: Positive = 256
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    connect_timeout_s: Seconds = 10.0
    request_timeout_s: Seconds = 3600.0  # of a whole response, its waiting in the server's queue included
    max_attempts: Positive = 5
    patience_s: Seconds = 600.0  # how long to wait for a server that is busy, or for any that lives

    @field_validator("base_urls")
    @classmethod
    def _plain_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            match = BASE_URL.fullmatch(url)
            if not match or not 0 < int(match["port"] or 1) < 2**16:
                raise ValueError(
                    "each must read http(s)://host[:port]/v1, without user, password or query; the key of a server "
                    "comes from the environment variable that api_key_env names"
                )
        plain = tuple(url.rstrip("/") for url in urls)
        if len(set(plain)) < len(plain):
            raise ValueError("two are the same; remove one")
        return plain

    @model_validator(mode="after")
    def _no_key_in_the_clear(self) -> Self:
        open_to_all = [url for url in self.base_urls if not _is_private(url)]
        if self.api_key_env and open_to_all and not self.allow_key_over_http:
            raise ValueError(
                f"the key in {self.api_key_env} would cross the network in the clear to {', '.join(open_to_all)}; "
                "use https, or set allow_key_over_http: true"
            )
        return self


class Model(Part):
    """A teacher or student: where its files are, which engine runs it, how it is prompted.

    Of a model behind a server (`engine: openai`) only tokenizer and chat template need be here.
    """

    model: str
    engine: Literal["transformers", "vllm", "openai"]
    dtype: Literal["float32", "bfloat16", "float16"]
    thinking_format: Literal["think_tags", "harmony"] = "think_tags"
    system_prompt: str | None = None
    chat_template_options: dict[str, Option] = {}
    engine_options: dict[str, Option] = {}
    server: Server | None = None

    @model_validator(mode="after")
    def _server_where_there_is_one(self) -> Self:
        if self.engine == "openai" and self.server is None:
            raise ValueError("engine: openai needs a server part; add server: {base_urls: …, model: …, revision: …}")
        if self.engine != "openai" and self.server is not None:
            raise ValueError(f"server is for engine: openai; this model runs on {self.engine}: remove one of the two")
        if self.engine == "openai" and self.engine_options:
            raise ValueError("engine_options mean nothing to a server; give them to it when it is started")
        return self

    @field_validator("engine_options")
    @classmethod
    def _no_remote_code(cls, options: dict[str, Option]) -> dict[str, Option]:
        if options.get("trust_remote_code"):
            raise ValueError("trust_remote_code is never allowed; convert the model to a supported architecture")
        return options


class Generation(Part):
    """Candidates sampled from the teacher for every question, at each temperature (report §3)."""

    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(min_length=1, strict=False)
    num_candidates: Positive
    top_p: Probability
    max_tokens: Positive

    @field_validator("temperatures")
    @classmethod
    def _ascending(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        names = [dataset_name(t) for t in temperatures]
        if list(temperatures) != sorted(temperatures) or len(set(names)) < len(names):
            raise ValueError("must ascend, at least 0.01 apart: training goes from the lowest to the highest")
        return temperatures


class Repetition(Part):
    """The shares of repeated n-grams and of a repeating tail above which a response is dropped (report §6.2)."""

    ngram_sizes: tuple[Positive, ...] = Field(strict=False)
    max_duplicate_share: Probability
    tail_tokens: Positive
    max_tail_share: Probability


class Filters(Part):
    """Quality filters (report §6.2), before or after selection; correctness is always recorded, seldom required."""

    max_student_tokens: Positive
    repetition: Repetition
    require_correct: bool
    apply: Literal["before_selection", "after_selection"]


class Divergence(Part):
    """A sentence is the teacher's (student's) where the two differ by more than `threshold` (report §4)."""

    measure: Measure
    threshold: Annotated[float, Field(gt=0)]
    per: Per


class Selection(Part):
    """Divergence-aware sampling (report §4): the score that ranks responses, and how many are kept per domain."""

    divergence: Divergence
    score: ScoreName
    policy: Literal["best_per_question", "top_k"]
    budgets: dict[str, dict[str, Positive]]


class Rescoring(Part):
    """How a model's stored logprobs are re-made, and by how many nats a token's may differ, on average and at most."""

    engine: Literal["own", "transformers", "vllm"]
    max_mean_difference: Annotated[float, Field(gt=0)]
    max_difference: Annotated[float, Field(gt=0)]


class Parity(Part):
    """The gate before anything is made from logprobs: a sample of them is re-made by prefill, and must agree.

    `own` is the engine that the model has anyway; transformers is one sequence at a time, unpadded. The defaults suit
    bfloat16, where decode and prefill round differently; float32 allows a thousandth of them.
    """

    num_responses: Positive = 16
    max_tokens: Positive = 4096
    teacher: Rescoring = Rescoring(engine="own", max_mean_difference=0.05, max_difference=1.0)
    student: Rescoring = Rescoring(engine="transformers", max_mean_difference=0.05, max_difference=1.0)


class Training(Part):
    """Full-parameter SFT, the same for every stage (report §6.4.1); stage 3 overrides the epochs."""

    launcher: tuple[str, ...] = Field(strict=False)
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    min_learning_rate: Annotated[float, Field(ge=0)]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    adam_beta1: Probability
    adam_beta2: Probability
    adam_epsilon: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    global_batch_size: Positive
    batch_counts: Literal["samples", "bins"]
    per_device_batch_size: Positive
    max_length: Positive
    packing: bool
    group_by_length: bool
    gradient_checkpointing: bool
    dtype: Literal["float32", "bfloat16"]
    attn_implementation: Literal["sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "eager"]
    use_kernels: bool
    save_every_steps: Positive | None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}; lower it"
            )
        if self.global_batch_size % self.per_device_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is no multiple of "
                f"per_device_batch_size {self.per_device_batch_size}; make it one"
            )
        if self.batch_counts == "bins" and not self.packing:
            raise ValueError("batch_counts is bins but packing is off; set batch_counts: samples")
        if self.packing and self.group_by_length:
            raise ValueError("packing makes bins of equal length; set group_by_length: false")
        return self


class MixedPolicy(Part):
    """Rollouts of the distilled student, cut off at `length_cap` and continued by the teacher (report §5)."""

    num_questions: Positive | None
    rollout_temperature: Annotated[float, Field(gt=0, le=2)]
    rollout_top_p: Probability
    length_cap: Annotated[float, Field(ge=1)]
    continuation_temperature: Annotated[float, Field(gt=0, le=2)]
    off_policy_ratio: Annotated[float, Field(ge=0)]
    require_correct: bool
    loss_on_prefix: bool
    epochs: Positive


class Benchmark(Part):
    """Held-out questions, in the format of the prompt files."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    path: str
    max_tokens: Positive


class Evaluation(Part):
    """avg@k: the mean accuracy over `samples_per_question` responses a question (report §7)."""

    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(strict=False, min_length=1)
    top_p: Probability
    samples_per_question: Positive
    benchmarks: tuple[Benchmark, ...] = Field(strict=False, min_length=1)

    @field_validator("temperatures")
    @classmethod
    def _distinct(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(temperatures)) < len(temperatures):
            raise ValueError("the same temperature twice would ask for the same answers twice; remove one")
        return temperatures

    @field_validator("benchmarks")
    @classmethod
    def _unique(cls, benchmarks: tuple[Benchmark, ...]) -> tuple[Benchmark, ...]:
        if len({b.name for b in benchmarks}) < len(benchmarks):
            raise ValueError("two benchmarks have the same name; rename one")
        return benchmarks


class Maintenance(Part):
    """Upkeep of the home: when, how old snapshots may grow, how long what nothing names is left alone."""

    cron: str | None = "30 4 * * *"
    keep_snapshots_days: Annotated[float, Field(ge=1)] = 30
    grace_hours: Annotated[float, Field(ge=1)] = 24
    keep_unfinished_days: Annotated[float, Field(ge=1)] = 14

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None and len(cron.split()) != 5:
            raise ValueError("is no cron expression; write five fields, such as '30 4 * * *' for half past four")
        return cron


class Automation(Part):
    """The service (`dasd ui`): where prompts land, when it trains, how often it tries what fails."""

    landing: str | None = None
    training_cron: str | None = None
    max_attempts: Positive = 3
    retry_delay_seconds: Annotated[float, Field(ge=0)] = 60.0

    @field_validator("training_cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None and not CRON.fullmatch(cron):
            raise ValueError("is no cron expression; write five fields, such as '0 2 * * *' for two o'clock each night")
        return cron


class Checks(Part):
    """Limits beyond which an asset check in the web UI warns; none of them stops a run."""

    max_duplicate_question_share: Share = 0.05
    max_duplicate_response_share: Share = 0.5
    max_failed_request_share: Share = 0.01
    max_drop_share: dict[FilterName, Share] = {
        "length": 0.1,
        "truncation": 0.2,
        "structure": 0.1,
        "repetition": 0.1,
        "correctness": 0.7,
    }
    min_teacher_sentence_share: Share = 0.02
    max_teacher_sentence_share: Share = 0.9
    max_accuracy_drop: Annotated[float, Field(ge=0)] = 2.0  # standard errors of the difference to the previous stage


class Freshness(Part):
    """Days without a materialization after which the web UI warns of an asset; null: never."""

    prompts_days: Positive | None = None
    selection_days: Positive | None = None
    training_days: Positive | None = None


class Recipe(Part):
    """One distillation. `version(…)` hashes the parts a stage depends on, so only what they touch is rebuilt."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # as large as the trainer's random generators take
    teacher: Model
    student: Model
    generation: Generation
    parity: Parity = Parity()
    filters: Filters
    selection: Selection
    training: Training
    mixed_policy: MixedPolicy
    evaluation: Evaluation
    maintenance: Maintenance = Maintenance()
    automation: Automation = Automation()
    checks: Checks = Checks()
    freshness: Freshness = Freshness()
    owners: tuple[Owner, ...] = Field(default=("team:distillation",), strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.student.thinking_format != "think_tags":
            raise ValueError("student.thinking_format must be think_tags: students are trained on canonical text")
        if self.student.engine == "openai":
            raise ValueError("student.engine must be vllm or transformers: its checkpoints are made here, not served")
        unknown = set(self.selection.budgets) - set(self.datasets)
        if unknown:
            raise ValueError(
                f"selection.budgets names {sorted(unknown)}; generation makes {list(self.datasets)}: name only these"
            )
        if self.filters.max_student_tokens > self.training.max_length:
            raise ValueError(
                f"filters.max_student_tokens {self.filters.max_student_tokens} is above training.max_length "
                f"{self.training.max_length}; lower it, such rows would be cut while training"
            )
        return self

    @property
    def datasets(self) -> dict[str, float]:
        """Dataset name (`t060`) to sampling temperature, ascending: the order of the training stages."""
        return {dataset_name(t): t for t in self.generation.temperatures}

    @property
    def last_dataset(self) -> str:
        """The highest temperature's dataset: the last off-policy stage, from which rollout questions are drawn."""
        return list(self.datasets)[-1]

    def version(self, *parts: str) -> str:
        """Hash of the named parts, each a dotted path such as `selection.divergence`; 12 hex digits."""
        return content_hash({part: self._part(part) for part in parts})[:12]

    def _part(self, path: str) -> object:
        value: object = self.model_dump(mode="json")
        for key in path.split("."):
            assert isinstance(value, Mapping), path
            value = value[key]
        return value


def dataset_name(temperature: float) -> str:
    """0.6 -> `t060`."""
    return f"t{round(temperature * 100):03d}"


def content_hash(value: object) -> str:
    """SHA-256 (hex) of a value's canonical JSON: the project's only way to make an id."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def load_recipe(name_or_path: str) -> Recipe:
    """The recipe of that shipped name or file; relative model and benchmark paths start at the file's folder.

    Raises RecipeError with one line per fault: the key, what is wrong with it, the value found.
    """
    path = _find(name_or_path)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys)
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError("\n".join(_fault(path, fault) for fault in error.errors())) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a YAML file: {error}") from None
    return _resolve_paths(recipe, path.parent)


class UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which no key is said twice; of two, YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set[Hashable]()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                continue  # SafeLoader refuses it
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name} is said twice; remove one", problem_mark=key.start_mark)
            seen.add(name)
        return dict(super().construct_mapping(node, deep))


def _is_private(url: str) -> bool:
    """Whether nobody can read on the way what is sent there: it goes by TLS, or stays on this machine."""
    match = BASE_URL.fullmatch(url)
    assert match
    scheme, host = match["scheme"], match["host"].strip("[]")
    if scheme == "https" or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _find(name_or_path: str) -> Path:
    shipped = RECIPES / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_path).expanduser().resolve()
    if path.is_file():
        return path
    names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
    raise RecipeError(f"no recipe {name_or_path!r}: give the path of a YAML file or one of the shipped names ({names})")


def _fault(path: Path, fault: Mapping[str, object]) -> str:
    location = fault["loc"]
    key = ".".join(str(part) for part in location) if isinstance(location, tuple) and location else "recipe"
    value = fault["input"]
    told = str(fault["msg"]).removeprefix("Value error, ") + _REMEDIES.get(str(fault["type"]), "")
    secret = isinstance(location, tuple) and "server" in location  # a key may have been put there by mistake
    shown = "" if secret or isinstance(value, Mapping) else f" (found {value!r})"
    return f"{path.name}: {key}: {told}{shown}"


_REMEDIES = {"extra_forbidden": "; remove the key or correct its spelling", "missing": "; add the key"}


def _resolve_paths(recipe: Recipe, folder: Path) -> Recipe:
    def resolve(path: str) -> str:
        return str((folder / path).resolve()) if path.startswith(".") else path

    landing = None if recipe.automation.landing is None else resolve(recipe.automation.landing)
    benchmarks = tuple(b.model_copy(update={"path": resolve(b.path)}) for b in recipe.evaluation.benchmarks)
    return recipe.model_copy(
        update={
            "teacher": recipe.teacher.model_copy(update={"model": resolve(recipe.teacher.model)}),
            "student": recipe.student.model_copy(update={"model": resolve(recipe.student.model)}),
            "evaluation": recipe.evaluation.model_copy(update={"benchmarks": benchmarks}),
            "automation": recipe.automation.model_copy(update={"landing": landing}),
        }
    )
