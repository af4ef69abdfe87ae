"""`dasd check`: everything that a recipe needs, checked before hours are spent on a run (no table).

Each check ends in a result of its own; none stops the others. What an engine really returns is tried out: a few tokens
are sampled and scored again, and the teacher begins a few answers. `--quick` loads no engine. Left out: whether the
training fits into a GPU's memory.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Literal, ParamSpec

from dasd_assets.commands.begun_answers import NUM_BEGUN, Begun, begin_answers, thinking_found
from dasd_assets.commands.check_imports import landed_responses
from dasd_assets.commands.check_outcome import CheckFailed, CheckWarning
from dasd_assets.commands.check_selection import other_selection
from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.evaluation import question_rows
from dasd_assets.held_out_questions import held_out_rows
from dasd_assets.records.unsafe import UNSAFE
from dasd_assets.rules.checkpoints import trained_names
from dasd_assets.rules.instructions import as_asked, asked_as
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.rules.rollouts import length_cap
from dasd_assets.rules.sampling import sampling_request
from dasd_assets.service.landed import not_read
from dasd_resources.chat import without_empty_thinking
from dasd_resources.inference.engine import Completion, Failure, Score, ScoringRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.inference.gpus import divide, visible_gpus
from dasd_resources.inference.model_files import WEIGHTS
from dasd_resources.json_text import json_text
from dasd_resources.landing.columns import absent_paths
from dasd_resources.landing.landing_folder import LandedFile, LandingFolder
from dasd_resources.landing.prompt_files import Prompt, first_rows, read_prompts
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.response_files import read_questions
from dasd_resources.landing.row_files import FORMATS
from dasd_resources.recipe import Benchmark, Model, Recipe, RecipeError, Thinking, columns_for, load_recipe
from dasd_resources.sandbox import sandbox_fault
from dasd_resources.sft.trainer import executable
from dasd_resources.storage.lake import Lake
from dasd_resources.verifiers import runs_programs
from dasd_resources.visible_text import excerpt, show, show_message

Parameters = ParamSpec("Parameters")
Status = Literal["ok", "warning", "failed"]
QUESTION = "What is 17 + 25?"
ANSWER = "The answer is 42."
RESPONSE = f"<think>\nIt is 17 + 25 = 42.\n</think>\n{ANSWER}"
RESPONSES: dict[Thinking, tuple[str, ...]] = {
    "required": (RESPONSE,),
    "optional": (RESPONSE, ANSWER),
    "none": (ANSWER,),
}
NUM_TOKENS = 8  # sampled and scored again
MAX_DIFFERENCE = 0.3  # nats, on average; bfloat16 makes some 0.01 between decode and prefill
# ids, logprob and offset of a token take 7.7 bytes; the text some 2 more. The student has its own tokens.
BYTES_PER_TOKEN = 2 * 7.7 + 2 + 2  # teacher, student, text, sentence sums
STATE_COPIES = 4  # a private training checkpoint: weights, two moments, and the one before it being deleted
NUM_REASONS = 3
NUM_LOOKED_AT = 100  # first rows of a file, in which a mapping's paths are looked for
PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


@dataclass(frozen=True)
class PreflightResult:
    """The outcome of a check; `message` says what was found and, where it failed, what to do."""

    check: str
    status: Status
    message: str


@dataclass(frozen=True)
class Prompts:
    """The landed prompts: how many, of which domains and verifiers, the longest one, and the first few."""

    num_prompts: int
    longest: Prompt | None
    domains: frozenset[str]
    verifiers: frozenset[str] = frozenset()
    first: tuple[Prompt, ...] = ()

    def longest_for(self, model: PromptedModel) -> int:
        """Tokens of the longest one as this model is asked it; 0 where none has landed."""
        longest = self.longest
        return len(model.chat.prompt_ids(longest.question, longest.system_prompt)) if longest else 0


def command(args: argparse.Namespace) -> int:
    """Exit code 1 if a check failed, as a run would then fail too."""
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    check_names(recipe)
    return int(print_checks(recipe, args.home, args.quick, args.json))


def print_checks(recipe: Recipe, home: Path, quick: bool, as_json: bool = False) -> bool:
    """Print each result as soon as it is known, or all as JSON; returns whether a check failed."""
    results: list[PreflightResult] = []
    for result in check(recipe, home, EnvironmentEngines(home=str(home)), quick):
        results.append(result)
        if not as_json:
            show_message(f"{result.status:8}{result.check:22}{result.message}")
    if as_json:
        show(json_text([asdict(result) for result in results]))
    return any(result.status == "failed" for result in results)


def check(recipe: Recipe, home: Path, engines: Engines, quick: bool = False) -> Iterator[PreflightResult]:
    """Results in the order of the data path, each as soon as it is known."""
    models: dict[str, PromptedModel] = {}
    for role, spec in (("teacher", recipe.teacher), ("student", recipe.student)):
        yield _result(role, _find, role, spec, engines, models)
        if spec.replicas * spec.num_gpus_each > 1:
            yield _result(f"{role} GPUs", _gpus, spec)
    landed: list[Prompts] = []
    yield _result("prompts", _prompts, recipe, home, models.get("teacher"), landed)
    prompts = landed[0] if landed else Prompts(0, None, frozenset(), frozenset())
    if recipe.landing.columns:
        yield _result("columns", _columns, recipe, home)
    if recipe.imports is not None:
        yield _result("responses", landed_responses, recipe, home, models.get("teacher"))
    if recipe.selection_from is not None and "teacher" in models:
        yield _result("selection_from", other_selection, recipe, home, models["teacher"])
    yield _result("budgets", _budgets, recipe, prompts)
    for role, model in models.items():
        yield _result(f"{role} tokenizer", _tokenizer, model)
        yield _result(f"{role} template", _template, model)
        if ENGINES[model.spec.engine].absent:
            yield _result(f"{role} logprobs", _absent, model)
            continue
        yield _result(f"{role} context", _context, recipe, role, model, prompts)
        begun: list[Begun] = []
        if not quick:
            yield _result(f"{role} logprobs", _logprobs, recipe, role, model, prompts, engines, begun)
        if begun:
            yield PreflightResult(f"{role} thinking", *thinking_found(begun, model.spec.thinking))
    for benchmark in recipe.evaluation.benchmarks:
        yield _result(f"benchmark {benchmark.name}", _benchmark, benchmark)
    if recipe.decontamination is not None and recipe.decontamination.files:
        yield _result("held-out questions", _held_out, recipe)
    if any(map(runs_programs, _verifiers(recipe, prompts))):
        yield _result("sandbox", _sandbox, recipe)
    yield _result("launcher", _launcher, recipe)
    yield _result("attention", _attention, recipe)
    yield _result("disk", _disk, recipe, home, models.get("student"), prompts.num_prompts)


def _result(
    name: str, run: Callable[Parameters, str], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> PreflightResult:
    try:
        return PreflightResult(name, "ok", run(*args, **kwargs))
    except CheckWarning as warning:
        return PreflightResult(name, "warning", str(warning))
    except Exception as error:  # any error of an engine, a server or a file: the other checks go on
        message = str(error) if isinstance(error, (CheckFailed, RecipeError)) else f"{type(error).__name__}: {error}"
        return PreflightResult(name, "failed", message)


def _find(role: str, spec: Model, engines: Engines, models: dict[str, PromptedModel]) -> str:
    found = engines.find(spec, f"{role}.model")
    models[role] = found
    entry = ENGINES[spec.engine]
    if entry.package is not None and find_spec(entry.package) is None:
        raise CheckFailed(f"engine {spec.engine} is not installed: {entry.install}, or another engine")
    return f"{found.fingerprint} ({spec.engine}, {found.path})"


def _gpus(spec: Model) -> str:
    """There are as many as the model takes on all its replicas."""
    wanted, gpus = spec.replicas * spec.num_gpus_each, visible_gpus()
    divide(gpus, spec.replicas, spec.num_gpus_each)
    if not gpus:
        raise CheckWarning(f"{wanted} are wanted, and there is none here")
    return f"{wanted} of {len(gpus)}"


def _tokenizer(model: PromptedModel) -> str:
    """Where it is from, and why: the class that its folder names, or tokenizer.json; text was tried both ways."""
    origin = model.chat.origin
    message = f"{'tokenizer.json in place of its class: ' if origin.replaces_class else ''}{origin.reason}"
    if origin.doubts:
        raise CheckWarning(f"{message}; {'; '.join(origin.doubts)}")
    return message


def _template(model: PromptedModel) -> str:
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


def _prompts(recipe: Recipe, home: Path, teacher: PromptedModel | None, landed: list[Prompts]) -> str:
    folder = LandingFolder.of(recipe.automation.landing, home)
    num_prompts, num_rejected, reasons, longest = 0, 0, list[str](), None
    domains, verifiers, first = set[str](), set[str](), list[Prompt]()
    for record in _records(folder, recipe):
        if isinstance(record, RejectedPrompt):
            num_rejected += 1
            if len(reasons) < NUM_REASONS:
                reasons.append(f"{record.source_file}:{record.source_line}: {record.reason}")
        else:
            num_prompts += 1
            record = _as_asked(recipe, record)
            domains.add(record.domain)
            verifiers |= {record.verifier} if record.verifier else set()
            first += [record] if len(first) < NUM_BEGUN else []
            longest = max(longest or record, record, key=lambda p: _num_characters(p.question, p.system_prompt))
    found = Prompts(num_prompts, longest, frozenset(domains), frozenset(verifiers), tuple(first))
    landed.append(found)
    length = f", the longest of {found.longest_for(teacher):,} tokens" if teacher else ""
    message = f"{num_prompts:,} in {folder.url}{length}"
    if passed_over := folder.passed_over():
        message = f"{message}; {not_read(passed_over)}"
    if num_rejected:
        raise CheckWarning(f"{message}; {num_rejected:,} rejected: {'; '.join(reasons)}")
    if num_prompts and passed_over:
        raise CheckWarning(message)
    if not num_prompts:
        if recipe.automation.landing is not None and not folder.exists():
            raise CheckFailed(f"automation.landing: {folder.url} is not a folder: fix the recipe, or create it")
        unread = f"; {not_read(passed_over)}" if passed_over else ""
        raise CheckWarning(f"none in {folder.url}{unread}: put files there ({FORMATS})")
    return message


def _as_asked(recipe: Recipe, prompt: Prompt) -> Prompt:
    """The prompt with the recipe's instruction below its question, if there is one for its domain."""
    instruction = recipe.generation.instructions.get(prompt.domain)
    return prompt if instruction is None else replace(prompt, question=as_asked(prompt.question, instruction))


def _columns(recipe: Recipe, home: Path) -> str:
    """Every path of the mappings is in one of the first rows, at least, of some file that it fits."""
    folder = LandingFolder.of(recipe.automation.landing, home)
    looks = [look for batch, file in folder.keys(folder.files()).items() for look in _look(recipe, folder, batch, file)]
    problems = [problem for number in range(len(recipe.landing.columns)) for problem in _unused(recipe, number, looks)]
    if problems:
        raise CheckWarning("; ".join(problems))
    return f"{len(looks):,} files are mapped, by the paths of their first rows"


@dataclass(frozen=True)
class MappedFile:
    """A file that the mapping of this number fits, and its first rows."""

    number: int
    rows: Sequence[Mapping[str, object]]


def _look(recipe: Recipe, folder: LandingFolder, batch: str, file: LandedFile) -> Iterator[MappedFile]:
    columns = columns_for(recipe.landing.columns, file.name)
    if columns is not None:
        with folder.local_copy(file, batch) as path:
            yield MappedFile(recipe.landing.columns.index(columns), first_rows(path, NUM_LOOKED_AT))


def _unused(recipe: Recipe, number: int, looks: Sequence[MappedFile]) -> Iterator[str]:
    """What of a mapping no file has use for."""
    columns, key = recipe.landing.columns[number], f"landing.columns.{number}"
    rows = [row for look in looks if look.number == number for row in look.rows]
    if not any(look.number == number for look in looks):
        yield f"{key} fits no landed file: {', '.join(columns.where)}"
    elif absent := absent_paths(columns, rows):
        keys = excerpt(sorted({name for row in rows for name in row}))
        yield f"{key}: none of the first {len(rows):,} rows has {', '.join(absent)}; their keys are {keys}"


def _num_characters(question: str, system_prompt: str | None) -> int:
    return len(question) + len(system_prompt or "")


_NOT_LANDED = "of which nothing has landed; there are"


def _budgets(recipe: Recipe, prompts: Prompts) -> str:
    """A domain spelled another way in the files than in the budgets, or a dataset left out of them, is kept whole.

    One spelled another way in quotas or instructions is asked whole, and without.
    """
    budgets = recipe.selection.budgets
    if budgets and (missing := [dataset for dataset in recipe.datasets if not budgets.get(dataset)]):
        raise CheckWarning(
            "; ".join(f"{dataset} has no budget: all its responses are kept" for dataset in missing)
            + ". Give it one in selection.budgets if that is not meant"
        )
    for key, settings in (
        ("generation.questions_per_domain", recipe.generation.questions_per_domain),
        ("generation.instructions", recipe.generation.instructions),
    ):
        if prompts.domains and (absent := sorted(set(settings) - prompts.domains)):
            raise CheckWarning(f"{key} names {', '.join(absent)}, {_NOT_LANDED} {', '.join(sorted(prompts.domains))}")
    named = {domain for budget in budgets.values() for domain in budget}
    without, unnamed = sorted(named - prompts.domains), sorted(prompts.domains - named)
    if without and prompts.domains:
        raise CheckWarning(
            f"selection.budgets names {', '.join(without)}, {_NOT_LANDED} {', '.join(sorted(prompts.domains))}. "
            "Domains it does not name keep all their responses"
        )
    return f"all of {', '.join(unnamed)} is kept" if unnamed else "every landed domain has one"


def _records(folder: LandingFolder, recipe: Recipe) -> Iterator[Prompt | RejectedPrompt]:
    read = read_questions if recipe.imports is not None else read_prompts
    for batch, file in folder.keys(folder.files()).items():
        with folder.local_copy(file, batch) as path:
            yield from read(path, file.name, recipe.landing.columns)


def _context(recipe: Recipe, role: str, model: PromptedModel, prompts: Prompts) -> str:
    """The longest sequence the recipe asks of a model, against what it takes."""
    if model.spec.server is not None:
        return "known to the server, which is asked with its logprobs and refuses what is longer"
    return _room(recipe, role, model, prompts, model.context)


def _room(recipe: Recipe, role: str, model: PromptedModel, prompts: Prompts, context: int) -> str:
    """What the recipe asks of a context of so many tokens. Raises CheckFailed or CheckWarning if it is too much."""
    landed, limit = prompts.longest_for(model), recipe.generation.max_tokens
    asked = [
        (b.max_tokens + size, f"{b.name}'s max_tokens {b.max_tokens:,} and its longest question's {size:,}")
        for b, size in ((b, _longest_question(b, model)) for b in recipe.evaluation.benchmarks)
    ]
    if role == "teacher":
        asked.append((limit + landed, f"generation.max_tokens {limit:,} and the longest prompt's {landed:,}"))
    tokens, summands = max(asked)
    if tokens > context:
        raise CheckFailed(f"{summands} exceed the context of {context:,}")
    if role == "student" and recipe.training.max_length > context:
        raise CheckFailed(
            f"training.max_length {recipe.training.max_length:,} exceeds the context of {context:,}; lower it"
        )
    scored = limit + landed if recipe.filters.apply == "after_selection" else recipe.filters.max_student_tokens
    if role == "student" and scored > context:
        raise CheckWarning(
            f"a response may have generation.max_tokens {limit:,}, which with the longest prompt's {landed:,} exceed "
            f"the context of {context:,}: such responses cannot be scored"
        )
    capped = length_cap(recipe.filters.max_student_tokens, recipe.mixed_policy.length_cap)
    if role == "student" and capped + landed > context:
        raise CheckWarning(
            f"a rollout may have {capped:,} tokens (mixed_policy.length_cap times filters.max_student_tokens), which "
            f"with the longest prompt's {landed:,} exceed the context of {context:,}: such rollouts will fail"
        )
    return f"{context:,} tokens, of which {tokens:,} may be asked"


def _longest_question(benchmark: Benchmark, model: PromptedModel) -> int:
    """Tokens of a benchmark's longest question as a model is asked it; 0 where its file is at fault."""
    try:
        rows = question_rows(benchmark)
    except RecipeError:
        return 0
    longest = max(rows, key=lambda row: _num_characters(row["question"], row["system_prompt"]))
    question = asked_as(longest["question"], longest["instruction"])
    return len(model.chat.prompt_ids(question, longest["system_prompt"]))


def _logprobs(
    recipe: Recipe, role: str, model: PromptedModel, prompts: Prompts, engines: Engines, begun: list[Begun]
) -> str:
    """Sample a few tokens, score them again, and compare; of a server that reports its context, that too.

    begun: gets the beginnings of some answers of a teacher, while it is loaded.
    """
    prompt = model.chat.prompt_ids(QUESTION)
    request = sampling_request(model, "check", prompt, 1.0, 1.0, NUM_TOKENS)
    with engines.open(model) as engine:
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
    return message if context is None else f"{message}; {_room(recipe, role, model, prompts, context)}"


def _absent(model: PromptedModel) -> str:
    return (
        f"those that land; {model.spec.stands_for} is not here, so nothing can be scored, compared with a prefill, "
        "continued (no mixed-policy stage) or evaluated by it"
    )


def _agreement(sampled: Completion, scored: Score) -> str:
    difference = fmean(abs(a - b) for a, b in zip(sampled.logprobs, scored.logprobs, strict=True))
    message = f"{len(sampled.logprobs)} tokens sampled and scored again, {difference:.2g} nats apart on average"
    if difference > MAX_DIFFERENCE:
        raise CheckFailed(
            f"{message}: more than {MAX_DIFFERENCE}; they are not both raw log-probabilities of one model"
        )
    return message


def _benchmark(benchmark: Benchmark) -> str:
    return f"{len(question_rows(benchmark)):,} questions, at most {benchmark.max_tokens:,} tokens each"


def _held_out(recipe: Recipe) -> str:
    return f"{len(held_out_rows(recipe)):,}, which nothing is trained on"


def _verifiers(recipe: Recipe, prompts: Prompts) -> set[str]:
    """Of all questions, landed or held out; a benchmark whose file is at fault has a result of its own."""
    found = set(prompts.verifiers)
    for benchmark in recipe.evaluation.benchmarks:
        with suppress(RecipeError):
            found |= {row["verifier"] for row in question_rows(benchmark)}
    return found


def _sandbox(recipe: Recipe) -> str:
    """A program runs in it and is seen to end."""
    confinement = recipe.verification.confinement
    if (fault := sandbox_fault(confinement)) is not None:
        raise CheckFailed(fault)
    if confinement.unsafe:
        raise CheckWarning(UNSAFE)
    return (
        f"a program ran in it; {confinement.seconds_per_test:g} s of computing a test, "
        f"{confinement.seconds_per_answer:g} s an answer, {confinement.memory_mb} MB"
    )


def _launcher(recipe: Recipe) -> str:
    command = recipe.training.launcher or (sys.executable,)
    found = executable(command[0])
    if found is None:
        raise CheckFailed(f"training.launcher: no command {command[0]}; install it or correct the recipe")
    return found


def _attention(recipe: Recipe) -> str:
    name = recipe.training.attn_implementation
    needed = [PACKAGES[name]] if name in PACKAGES else []
    needed += ["kernels"] if recipe.training.use_kernels else []
    if missing := [package for package in needed if find_spec(package) is None]:
        raise CheckFailed(
            f"training.attn_implementation {name} and use_kernels {recipe.training.use_kernels} need "
            f"{', '.join(missing)}: pip install it, or set attn_implementation: sdpa and use_kernels: false"
        )
    return name


def _disk(recipe: Recipe, home: Path, student: PromptedModel | None, num_prompts: int) -> str:
    """Rows of all responses, at most, or of as many tokens as there are by now; and the checkpoint of every stage."""
    num_responses = num_prompts * recipe.generation.num_candidates * len(recipe.generation.temperatures)
    mean, known = _mean_tokens(home)
    rows = num_responses * (mean or recipe.generation.max_tokens) * BYTES_PER_TOKEN
    weights = sum(file.stat().st_size for file in student.path.glob(WEIGHTS)) if student else 0
    checkpoints = weights * (len(trained_names(recipe)) + STATE_COPIES)
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    needed, free = math.ceil(rows + checkpoints), shutil.disk_usage(there).free
    message = (
        f"{_size(needed)} needed ({_size(rows)} for {num_responses:,} responses of {known} "
        f"{mean or recipe.generation.max_tokens:,.0f} tokens, {_size(checkpoints)} for checkpoints), {_size(free)} free"
    )
    if needed > free:
        raise CheckFailed(f"{message}: make room, or set DASD_HOME to a larger disk")
    return message


def _mean_tokens(home: Path) -> tuple[float | None, str]:
    lake = Lake(home=str(home))
    if not lake.catalog.is_file():
        return None, "at most"
    mean = lake.read("SELECT avg(len(token_ids)) FROM responses").item()
    return (mean, "so far") if mean else (None, "at most")


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
