"""The files of a pilot's home: its questions, with the responses that landed to them, and smaller benchmarks."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dasd_assets.commands.check.landed_responses import landed
from dasd_assets.evaluation.questions import benchmark_rows
from dasd_assets.plan.engine_time import MAX_SEQUENCES
from dasd_assets.rules.imports import sampled_at
from dasd_resources.content_hash import content_hash
from dasd_resources.landing.landing_folder import landing_folder
from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.landing.response_files import LandedResponse, Logprobs
from dasd_resources.recipe import Landing, Recipe
from dasd_resources.storage.warehouse import Row
from dasd_resources.whole_files import write_whole

# Answers of one model to all benchmarks: an engine of the default size is filled twice over, so that most of its time
# goes by while it is full, as in the run. A question has at least 2, as some metrics compare the answers to one.
ANSWERS_EACH, LEAST_SAMPLES = 2 * MAX_SEQUENCES, 2
Line = dict[str, object]
Lines = Mapping[str, Sequence[Line]]  # prompt id -> its rows in a landed file


def draw(prompts: Iterable[Prompt], num: int) -> list[Prompt]:
    """So many of them, those whose hashes come first: of every file and domain as many as their share."""
    unique = {prompt.prompt_id: prompt for prompt in prompts}
    ordered = sorted(unique, key=lambda key: content_hash(["pilot", key]))
    return [unique[key] for key in ordered[:num]]


def lines_of(recipe: Recipe, prompts: Iterable[Prompt], home: Path) -> Lines:
    """The rows that bring these questions; of a recipe with `imports`, one for each response that landed to them."""
    alone = {prompt.prompt_id: _line(vars(prompt)) for prompt in prompts}
    if recipe.imports is None:
        return {prompt_id: [line] for prompt_id, line in alone.items()}
    folder, responses = landing_folder(recipe, home), dict[str, LandedResponse]()
    for one in landed(folder, recipe):
        if isinstance(one, LandedResponse) and one.prompt_id in alone:
            responses.setdefault(one.landed_id, one)
    # Once more, as a companion may have landed before the file whose responses its logprobs are of.
    samples, logprobs = {one.sample for one in responses.values()}, dict[str, Logprobs]()
    for one in landed(folder, recipe):
        if isinstance(one, Logprobs) and one.sample in samples:
            logprobs.setdefault(one.sample, one)
    lines: dict[str, list[Line]] = {prompt_id: [] for prompt_id in alone}
    for response in responses.values():
        said = _said(response, sampled_at(vars(response), recipe), logprobs.get(response.sample))
        lines[response.prompt_id].append({**alone[response.prompt_id], **said})
    return lines


def _said(one: LandedResponse, temperature: float | None, given: Logprobs | None) -> Line:
    """A response in the columns of a landed row; its temperature is named, as the pilot's file has another name."""
    said = {"sample_uuid": one.sample_uuid, "temperature": temperature, "sample_index": one.sample_index}
    tokens = {} if given is None else {"token_ids": given.token_ids, "logprobs": given.logprobs}
    named = {key: value for key, value in said.items() if value is not None}
    return {"response": one.text, "finish_reason": one.finish_reason, **named, **tokens}


def smaller(recipe: Recipe, most: int, path: Path) -> Recipe:
    """With at most so many questions of each benchmark, in files of the pilot's own, and few answers to each."""
    rows, benchmarks, num_questions = benchmark_rows(recipe), [], 0
    for benchmark in recipe.evaluation.benchmarks:
        own = sorted((row for row in rows if row["benchmark"] == benchmark.name), key=lambda row: row["question_id"])
        file = path / "benchmarks" / f"{benchmark.name}.jsonl"
        write_lines(file, (_line(row) for row in own[:most]))
        num_questions += len(own[:most])
        update = {"path": str(file), "columns": None, "layout": None, "task": None, "shuffle_seed": 0}
        benchmarks.append(benchmark.model_copy(update=update))
    each = math.ceil(ANSWERS_EACH / max(num_questions * len(recipe.evaluation.temperatures), 1))
    samples = min(recipe.evaluation.samples_per_question, max(each, LEAST_SAMPLES))
    fewer = {"benchmarks": tuple(benchmarks), "samples_per_question": samples}
    evaluation = recipe.evaluation.model_copy(update=fewer)
    automation = recipe.automation.model_copy(update={"landing": None})
    return recipe.model_copy(update={"evaluation": evaluation, "automation": automation, "landing": Landing()})


def write_lines(path: Path, rows: Iterable[Line]) -> None:
    """A file of JSON lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _line(row: Row) -> Line:
    """A question as a prompt file has it."""
    keys = ("question", "domain", "system_prompt", "reference_answer", "verifier", "metadata")
    return {key: row[key] for key in keys if row[key] is not None}
