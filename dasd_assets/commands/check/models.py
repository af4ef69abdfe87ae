"""Checks of teacher and student: their files, GPUs, tokenizer and template, and the logprobs that they really give."""

from importlib.util import find_spec
from statistics import fmean

from dasd_assets.commands.check.begun_answers import Begun, begin_answers
from dasd_assets.commands.check.contexts import room
from dasd_assets.commands.check.landed import Prompts
from dasd_assets.commands.check.outcome import CheckFailed, CheckUnknown, CheckWarning
from dasd_assets.rules.sampling import sampling_request
from dasd_resources.chat import without_empty_thinking
from dasd_resources.inference.engine import MAX_MEAN_DIFFERENCE, Completion, Failure, Score, ScoringRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.inference.gpus import divide, visible_gpus
from dasd_resources.recipe import Model, Recipe, Thinking

QUESTION = "What is 17 + 25?"
ANSWER = "The answer is 42."
RESPONSE = f"<think>\nIt is 17 + 25 = 42.\n</think>\n{ANSWER}"
RESPONSES: dict[Thinking, tuple[str, ...]] = {
    "required": (RESPONSE,),
    "optional": (RESPONSE, ANSWER),
    "none": (ANSWER,),
}
NUM_TOKENS = 8  # sampled and scored again


def find(role: str, spec: Model, engines: Engines, models: dict[str, PromptedModel]) -> str:
    found = engines.find(spec, f"{role}.model")
    models[role] = found
    entry = ENGINES[spec.engine]
    runs_here = spec.ray is None  # or its nodes have the package
    if runs_here and entry.package is not None and find_spec(entry.package) is None:
        raise CheckFailed(f"engine {spec.engine} is not installed: {entry.install}, or another engine")
    return f"{found.fingerprint} ({spec.engine}, {found.path})"


def gpus(spec: Model) -> str:
    """There are as many as the model takes on all its replicas."""
    wanted, gpus = spec.replicas * spec.num_gpus_each, visible_gpus()
    divide(gpus, spec.replicas, spec.num_gpus_each)
    if not gpus:
        raise CheckWarning(f"{wanted} are wanted, and there is none here")
    return f"{wanted} of {len(gpus)}"


def tokenizer(model: PromptedModel) -> str:
    """Where it is from, and why: the class that its folder names, or tokenizer.json; text was tried both ways."""
    origin = model.chat.origin
    message = f"{'tokenizer.json in place of its class: ' if origin.replaces_class else ''}{origin.reason}"
    if origin.doubts:
        raise CheckWarning(f"{message}; {'; '.join(origin.doubts)}")
    return message


def template(model: PromptedModel) -> str:
    """A response put through the template comes back as it was, thinking included.

    One without comes back with an empty thinking part where the template opens one in the prompt.
    """
    for response in RESPONSES[model.spec.thinking]:
        encoded = model.chat.encode_response(QUESTION, response)
        again = model.chat.read_response(encoded.token_ids[encoded.num_prompt_tokens :])
        if response not in (again.text, without_empty_thinking(again.text)):
            raise CheckFailed(f"a response does not survive the template: {response!r} became {again.text!r}")
        if not any(offset >= 0 for offset in again.offsets):
            raise CheckFailed("no token of a response has a place in its text")
    return (
        f"{model.spec.thinking_format}, thinking {model.spec.thinking}, prompt of {encoded.num_prompt_tokens} tokens, "
        "round trip intact"
    )


def logprobs(
    recipe: Recipe, role: str, model: PromptedModel, prompts: Prompts, engines: Engines, begun: list[Begun]
) -> str:
    """Sample a few tokens, score them again, and compare; of a server that reports its context, that too.

    begun: gets the beginnings of some answers of a teacher, while it is loaded.
    """
    prompt = model.chat.prompt_ids(QUESTION)
    request = sampling_request(model, "check", prompt, 1.0, 1.0, NUM_TOKENS)
    with engines.open(model.by_hand) as engine:
        (sampled,) = engine.generate([request])
        if isinstance(sampled, Failure):
            raise CheckFailed(f"it generated nothing: {sampled.reason}")
        (scored,) = engine.score([ScoringRequest("check", (*prompt, *sampled.token_ids), len(prompt))])
        context = ENGINES[model.spec.engine].served_context(engine)
        if role == "teacher":
            begun += begin_answers(recipe, model, prompts.first, engine)
    if isinstance(scored, Failure):
        raise CheckFailed(f"it generated {len(sampled.token_ids)} tokens but could not score them: {scored.reason}")
    message = _agreement(sampled, scored)
    if context is None:
        return message
    try:
        return f"{message}; {room(recipe, role, model, prompts, context)}"
    except CheckUnknown as unknown:
        raise CheckUnknown(f"{message}; {unknown}") from None


def absent(model: PromptedModel) -> str:
    return (
        f"those that land; {model.spec.stands_for} is not here, so nothing can be scored, compared with a prefill, "
        "continued (no mixed-policy stage) or evaluated by it"
    )


def _agreement(sampled: Completion, scored: Score) -> str:
    difference = fmean(abs(a - b) for a, b in zip(sampled.logprobs, scored.logprobs, strict=True))
    message = f"{len(sampled.logprobs)} tokens sampled and scored again, {difference:.2g} nats apart on average"
    if difference > MAX_MEAN_DIFFERENCE:
        raise CheckFailed(
            f"{message}: more than {MAX_MEAN_DIFFERENCE}; they are not both raw log-probabilities of one model"
        )
    return message
