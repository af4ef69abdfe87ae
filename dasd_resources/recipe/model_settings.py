"""The teacher and the student: where their files are, which engine runs them, how they are prompted."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from dasd_resources.inference.engine_catalogue import DEFAULT_ENGINE, ENGINES, SERVED_BY_DEFAULT, served_engines
from dasd_resources.recipe.parts import AddedLater, DecidesNothing, Option, Part, Positive
from dasd_resources.recipe.ray_settings import RayCluster
from dasd_resources.recipe.server_settings import Server

Thinking = Literal["required", "optional", "none"]
ITSELF = "itself"
ON_RAY = "ray"  # as an engine: the default one, in `replicas` on a cluster


def _known(engine: str) -> str:
    if engine not in ENGINES:
        raise ValueError(f"no such engine; must be one of {', '.join(ENGINES)}, {ON_RAY}")
    return engine


class Model(Part):
    """A teacher or student: where its files are, which engine runs it, how it is prompted.

    Of a model behind a server (`server`) only tokenizer and chat template need be here, as of a teacher that is absent:
    one whose responses are imported with their logprobs. A teacher that is here and `stands_for` another is its proxy:
    it scores what that one wrote. One that wrote the responses `stands_for: itself`: it scores those that landed
    without logprobs. Either way the fingerprint is not the one under which it samples.
    """

    model: str
    """A folder, or a model of the Hugging Face hub that has been downloaded."""
    engine: Annotated[str, AfterValidator(_known)] = DEFAULT_ENGINE  # a key of ENGINES
    """What runs it; where a server is named and no engine, the one that asks servers; `ray`: vllm, and `ray: {}`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """In which it is run."""
    thinking_format: Literal["think_tags", "harmony"] = "think_tags"
    """How its thinking is marked; harmony is rewritten to think tags (report §6.2)."""
    thinking: Annotated[Thinking, AddedLater] = "required"
    """Whether a response must have a thinking part, may have one, or must have none; a student's is its teacher's."""
    system_prompt: str | None = None
    """Where a question has none of its own; the report's student has `You are a helpful assistant.` (§6.4.1)."""
    chat_template_options: dict[str, Option] = Field(default={})
    """Given to its chat template, such as {reasoning_effort: high}."""
    engine_options: dict[str, Option] = Field(default={})
    """Given to its engine, such as {tensor_parallel_size: 8}."""
    replicas: Positive = 1
    """Processes with the model, each on GPUs of its own; no row depends on how many."""
    ray: Annotated[RayCluster | None, DecidesNothing] = None
    """The cluster of machines that the replicas run on; null: on this machine alone."""
    server: Server | None = None
    """Where it is served, if it is."""
    scoring_server: Annotated[Server | None, AddedLater] = None
    """Of a student: where it is served to score the responses; all else, its checkpoints too, runs on `engine`."""
    stands_for: Annotated[str, Field(min_length=1)] | None = None
    """Of responses that land: the model that wrote them, or `itself`."""

    @model_validator(mode="before")
    @classmethod
    def _served_by_default(cls, document: object) -> object:
        """A model with a server and no engine runs on that server."""
        if isinstance(document, Mapping) and document.get("server") is not None and "engine" not in document:
            return {**document, "engine": SERVED_BY_DEFAULT}
        return document

    @model_validator(mode="before")
    @classmethod
    def _default_engine_on_ray(cls, document: object) -> object:
        """`engine: ray` says where, not what computes: its rows are those of the default engine."""
        if isinstance(document, Mapping) and document.get("engine") == ON_RAY:
            return {**document, "engine": DEFAULT_ENGINE, "ray": document.get("ray") or {}}
        return document

    @model_validator(mode="after")
    def _server_where_there_is_one(self) -> Self:
        served = ENGINES[self.engine].served
        if served and self.server is None:
            raise ValueError(
                f"engine: {self.engine} needs a server part; add server: {{base_urls: …, model: …, revision: …}}"
            )
        if not served and self.server is not None:
            raise ValueError(
                f"server is for engine: {' or '.join(served_engines())}; this model runs on {self.engine}: remove one "
                "of the two"
            )
        if served and self.engine_options:
            raise ValueError("engine_options mean nothing to a server; give them to it when it is started")
        if served and self.replicas > 1:
            raise ValueError("replicas mean nothing to a server; start more of them and name all in server.base_urls")
        if ENGINES[self.engine].absent:
            self._check_absent()
        if self.ray is not None and (served or ENGINES[self.engine].absent):
            raise ValueError(f"ray means nothing to engine: {self.engine}, which runs no model here; remove it")
        ENGINES[self.engine].check_options(self.engine_options)
        return self

    def _check_absent(self) -> None:
        if self.stands_for in (None, ITSELF):
            raise ValueError(
                f"engine: {self.engine} has no model here; name the one that wrote the responses, with its revision: "
                "stands_for: …"
            )
        if self.engine_options or self.replicas > 1:
            raise ValueError(f"engine_options and replicas mean nothing to engine: {self.engine}; remove them")

    @property
    def is_proxy(self) -> bool:
        """Whether it scores what another model wrote, so that logprobs of that one are of no use."""
        return self.stands_for not in (None, ITSELF) and not ENGINES[self.engine].absent

    @property
    def as_scored(self) -> "Model":
        """The model as it scores the responses of the pool: behind its scoring server, if it has one."""
        if self.scoring_server is None:
            return self
        served = {"engine": SERVED_BY_DEFAULT, "engine_options": {}, "replicas": 1, "ray": None}
        served["server"] = self.scoring_server
        return self.model_copy(update=served)

    @property
    def num_gpus_each(self) -> int:
        """The GPUs that one replica takes, where there are any."""
        return ENGINES[self.engine].num_gpus(self.engine_options)

    @field_validator("engine_options")
    @classmethod
    def _no_remote_code(cls, options: dict[str, Option]) -> dict[str, Option]:
        if options.get("trust_remote_code"):
            raise ValueError("trust_remote_code is never allowed; convert the model to a supported architecture")
        return options
