"""`dasd chat MODEL`: ask a model, and others beside it, what you type, or each line of standard input.

A question is put as in the pipeline: alone, by the model's chat template and its system prompt, to its engine. No
answer is stored. A chat that loads a model here has the slot of the engine pool, as a step has that does so. The same
question asked again is another sample; the next chat draws the same ones. Left out: a conversation of several turns,
which these models are neither trained on nor asked in here.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from dasd_assets.commands.engine_slot import with_engine
from dasd_assets.commands.evaluated_model import entry_of, known_checkpoint
from dasd_assets.commands.messages import echo
from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.evaluation.answers import Checkpoint
from dasd_assets.records.wording import number_of
from dasd_assets.rules.sampling import sampling_request
from dasd_assets.service.instance import open_instance
from dasd_resources.chat import UnsupportedQuestion
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, InferenceEngine, StreamingEngine
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Evaluation, Recipe, RecipeError, load_recipe
from dasd_resources.recipe.faults import checked
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.visible_text import show, show_message

REDRAW_SECONDS = 0.1  # between two looks at what a response says so far: all of its tokens are read each time
UNFINISHED = "\ufffd"  # of a character whose last bytes are in a token to come; so may be what ends white space
FAILED = 1
NAME = "chat"  # of its runs in the web UI


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled; system_prompt: None for that of each model."""

    temperature: float
    top_p: float
    max_tokens: int
    system_prompt: str | None


@dataclass(frozen=True)
class Speaker:
    """A model that answers."""

    name: str
    model: PromptedModel
    engine: InferenceEngine


def command(args: argparse.Namespace) -> int:
    """Answer until the input ends."""
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    engines = EnvironmentEngines(home=str(args.home))
    asked = [args.model, *(args.beside or ())]
    found = [find_model(Warehouse(home=str(args.home)), engines, recipe, name) for name in asked]
    models = [(one.name, engines.find(one.spec, one.name)) for one in found]
    require_one_process(models)
    work = partial(converse, engines, models, sampling_of(recipe, args))
    loads_here = any(not ENGINES[model.spec.engine].served for _, model in models)
    dagster_home = Path(args.dagster_home or args.home / "dagster")
    if not (loads_here and dagster_home.is_dir()):  # where no home is, nothing else is loaded from it
        return work()
    with open_instance(dagster_home) as instance:
        return with_engine(instance, args.home, NAME, work, echo, converses=True)


def converse(engines: Engines, models: Sequence[tuple[str, PromptedModel]], sampling: Sampling) -> int:
    """Load the models, each once, and have them answer what standard input asks."""
    with ExitStack() as opened:
        speakers = []
        for name, model in models:
            echo(f"loading {name} ({model.spec.engine}, {model.path})")
            alone = replace(model, spec=model.spec.model_copy(update={"replicas": 1}))  # there is one to be answered
            speakers.append(Speaker(name, alone, opened.enter_context(engines.open(alone.by_hand))))
        return answer_all(speakers, questions(sys.stdin), sampling)


def sampling_of(recipe: Recipe, args: argparse.Namespace) -> Sampling:
    """As held-out questions are asked, but for what the call says; as long as a response may be. Raises RecipeError."""
    instead = {"temperatures": None if args.temperature is None else (args.temperature,), "top_p": args.top_p}
    said = {key: value for key, value in instead.items() if value is not None}
    asked = checked(Evaluation, {**recipe.evaluation.model_dump(), **said}, "dasd chat")
    max_tokens = args.max_tokens or recipe.generation.max_tokens
    return Sampling(asked.temperatures[0], asked.top_p, max_tokens, args.system)


def find_model(warehouse: Warehouse, engines: Engines, recipe: Recipe, asked: str) -> Checkpoint:
    """The model that `asked` names, as `dasd evaluate` takes it; it is not entered in any table."""
    if warehouse.catalog.exists() and (known := known_checkpoint(warehouse, engines, recipe, asked)):
        found = known
    else:
        entry = entry_of(recipe, asked)
        found = Checkpoint("", entry.name, entry.spec)
    if ENGINES[found.spec.engine].absent:
        raise RecipeError(f"{asked}: {found.spec.stands_for} is not here to be asked, only what it wrote; leave it out")
    return found


def require_one_process(models: Sequence[tuple[str, PromptedModel]]) -> None:
    """Raise RecipeError where two models would have to share a GPU that the first keeps."""
    alone = [name for name, model in models if ENGINES[model.spec.engine].holds_gpu_until_exit]
    if len(models) > 1 and alone:
        raise RecipeError(
            f"{', '.join(alone)}: this engine keeps its GPU to itself, so no other model can be loaded beside it; "
            "leave --beside out, or serve the model and name it by a YAML file (docs/chat.md)"
        )


def questions(stream: TextIO) -> Iterator[str]:
    """What a person types, or each line of a pipe; blank lines ask nothing."""
    if stream.isatty():
        import readline  # noqa: F401  lines can be edited and called back

        show_message("Ask; Ctrl-D or Ctrl-C ends.", sys.stderr)
        lines = _typed()
    else:
        lines = (line.rstrip("\n") for line in stream)
    yield from (line.strip() for line in lines if line.strip())


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("> ")
        except EOFError:
            show("", sys.stderr)
            return


def answer_all(speakers: Sequence[Speaker], asked: Iterator[str], sampling: Sampling) -> int:
    """Have every question answered by each model in turn; the exit code says whether all were."""
    times, failed = Counter[str](), 0
    for question in asked:
        times[question] += 1
        if not sys.stdin.isatty():
            show(f"> {question}")
        for speaker in speakers:
            if len(speakers) > 1:
                show(f"── {speaker.name}")
            failed += not answer(speaker, question, times[question], sampling)
            show("")
    return FAILED if failed else 0


def answer(speaker: Speaker, question: str, number: int, sampling: Sampling) -> bool:
    """Print a model's answer as it comes, and what became of it; whether there is one. number: of the sample."""
    chat = speaker.model.chat
    try:
        prompt = chat.prompt_ids(question, sampling.system_prompt)
    except UnsupportedQuestion as error:
        show_message(str(error), sys.stderr)
        return False
    max_tokens = sampling.max_tokens
    if not ENGINES[speaker.model.spec.engine].served:  # a server knows its own context, and says what exceeds it
        max_tokens = max(1, min(max_tokens, speaker.model.context - len(prompt)))
    key = content_hash(["chat", speaker.model.fingerprint, question, sampling.system_prompt, number])
    request = sampling_request(speaker.model, key, prompt, sampling.temperature, sampling.top_p, max_tokens)
    began = time.monotonic()
    result = _streamed(speaker, request) if isinstance(speaker.engine, StreamingEngine) else _waited(speaker, request)
    if isinstance(result, Failure):
        show_message(f"{speaker.name} gave no answer: {result.reason}", sys.stderr)
        return False
    seconds, count = time.monotonic() - began, len(result.token_ids)
    cut_off = "; cut off there" if result.finish_reason == "length" else ""
    show_message(f"{number_of(count, 'token')} in {seconds:.1f} s, {count / seconds:.0f} a second{cut_off}", sys.stderr)
    return True


def _streamed(speaker: Speaker, request: GenerationRequest) -> Completion | Failure:
    """Show the text of a response as its tokens come."""
    assert isinstance(speaker.engine, StreamingEngine)
    token_ids, shown, looked = list[int](), "", time.monotonic()
    for result in speaker.engine.stream(request):
        if isinstance(result, Failure):
            return result
        if isinstance(result, Completion):
            _end_with(shown, speaker.model.chat.read_response(result.token_ids).text)
            return result
        token_ids.append(result)
        if time.monotonic() - looked >= REDRAW_SECONDS:
            text = speaker.model.chat.read_response(token_ids).text.rstrip(UNFINISHED).rstrip()
            if text.startswith(shown):
                show(text[len(shown) :], end="")
                shown = text
            looked = time.monotonic()
    raise AssertionError("an engine ends a stream with its result")


def _end_with(shown: str, text: str) -> None:
    """Show the rest of a response; all of it, where it reads otherwise now that it is whole."""
    show(text[len(shown) :] if text.startswith(shown) else f"\n{text}")


def _waited(speaker: Speaker, request: GenerationRequest) -> Completion | Failure:
    """Show a response when it is there; until then, that it is under way."""
    console = Console(stderr=True)
    if not console.is_terminal:
        echo(f"{speaker.name} answers")
    with console.status(Text(f"{speaker.name} answers")):
        [result] = speaker.engine.generate([request])
    if isinstance(result, Completion):
        show(speaker.model.chat.read_response(result.token_ids).text)
    return result
