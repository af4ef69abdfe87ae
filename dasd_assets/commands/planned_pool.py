"""What a plan knows of responses that are there before the run: landed ones, or another recipe's selection.

Landed files are read to their end, as `dasd check` reads them; of their texts only lengths are kept.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from dasd_assets.plan.figures import Figure, Figures, exact, measured
from dasd_assets.rules.asset_names import DAS, RANDOM
from dasd_assets.rules.candidates import AT_TEMPERATURE, HELD_OUT, OF_RECIPE, candidate_params, held_out_share
from dasd_assets.rules.imports import has_teacher, sampled_at
from dasd_assets.rules.selection_source import source_fault
from dasd_resources.errors import UserError
from dasd_resources.inference.engines import Engines
from dasd_resources.landing.response_files import Landed, LandedResponse, Logprobs
from dasd_resources.recipe import Recipe, dataset_name
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.tables import measured as measured_lists

LANDED = "landed files"
NONE_LANDED = "assumed; no response has landed"
PER_TOKEN = 3.5  # characters of a text that landed without tokens: 2.5 to 4.5


@dataclass(frozen=True)
class _Response:
    prompt_id: str
    dataset: str
    sample: str
    num_characters: int


@dataclass
class _Found:
    """The landed responses of the recipe's temperatures by id, and of every sample with logprobs its tokens."""

    responses: dict[str, _Response] = field(default_factory=dict)
    num_tokens: dict[str, int] = field(default_factory=dict)

    def add(self, one: Landed, recipe: Recipe) -> None:
        if isinstance(one, Logprobs):
            self.num_tokens.setdefault(one.sample, len(one.token_ids))
        elif isinstance(one, LandedResponse):
            sampled = sampled_at(vars(one), recipe)
            if sampled is not None and (name := dataset_name(sampled)) in recipe.datasets:
                self.responses.setdefault(one.landed_id, _Response(one.prompt_id, name, one.sample, len(one.text)))


def landed_figures(ones: Iterable[Landed], recipe: Recipe, num_questions: int) -> dict[str, Figure]:
    """Of a recipe with `imports`: responses of a landed question, those it uses, those with logprobs, their length."""
    found = _Found()
    for one in ones:
        found.add(one, recipe)
    figures = dict[str, Figure]()
    for dataset in recipe.datasets:
        figures |= _of_dataset(recipe, dataset, found, num_questions)
    return figures


def _of_dataset(recipe: Recipe, dataset: str, found: _Found, num_questions: int) -> dict[str, Figure]:
    own = [one for one in found.responses.values() if one.dataset == dataset]
    given = [one for one in own if one.sample in found.num_tokens]
    taken = own if has_teacher(recipe) else given  # without a teacher, the others wait for their logprobs
    if not num_questions or not found.responses:
        share = 0.0 if has_teacher(recipe) else 1.0
        num = float(recipe.generation.num_candidates)
        return {
            f"landed_each.{dataset}": exact(num, NONE_LANDED),
            f"used_share.{dataset}": exact(1.0, NONE_LANDED, True),
            f"given_share.{dataset}": exact(share, NONE_LANDED, True),
        }
    used = sum(min(num, recipe.generation.num_candidates) for num in Counter(one.prompt_id for one in taken).values())
    num_given = 0 if recipe.teacher.is_proxy else len(given)
    figures = {
        f"landed_each.{dataset}": exact(len(taken) / num_questions, LANDED),
        f"used_share.{dataset}": exact(used / max(len(taken), 1), LANDED, True),
        f"given_share.{dataset}": exact(num_given / max(len(taken), 1), LANDED, True),
    }
    return {**figures, **(_lengths(dataset, taken, found) if taken else {})}


def _lengths(dataset: str, taken: list[_Response], found: _Found) -> dict[str, Figure]:
    """Tokens of a response: the teacher's are known where logprobs landed, the student's are about as many."""
    lengths = [found.num_tokens[one.sample] for one in taken if one.sample in found.num_tokens]
    if len(lengths) == len(taken):
        teacher = exact(float(np.mean(lengths)), LANDED)
    elif lengths:
        teacher = replace(measured(np.array(lengths, float)), origin=f"{LANDED}, {len(lengths):,} with tokens")
    else:
        mean = float(np.mean([one.num_characters for one in taken])) / PER_TOKEN
        teacher = Figure(mean, mean * PER_TOKEN / 4.5, mean * PER_TOKEN / 2.5, f"{LANDED}, {PER_TOKEN} characters each")
    student = Figure(teacher.value, 0.8 * teacher.low, 1.25 * teacher.high, "as many as the teacher's tokens, assumed")
    per_sentence = Figure(teacher.value / 27, teacher.low / 40, teacher.high / 18, "ours: 27 tokens a sentence")
    return {
        f"teacher_tokens.{dataset}": teacher,
        f"student_tokens.{dataset}": student,
        f"sentences.{dataset}": per_sentence,
    }


def carried_figures(lake: Lake, recipe: Recipe, engines: Engines) -> dict[str, Figure]:
    """Of a recipe with `selection_from`: what the other one has selected, and the responses it has chosen from.

    Raises UserError where there is no selection that this recipe can take.
    """
    if not lake.catalog.exists():
        raise UserError(
            f"selection_from: recipe {recipe.selection_from} has selected nothing in this home, so that there is "
            f"nothing to plan with; run `dasd run --recipe {recipe.selection_from}` first, or plan that recipe"
        )
    teacher = engines.fingerprint(recipe.teacher, "teacher.model")
    if fault := source_fault(lake, recipe, teacher):
        raise UserError(fault)
    source = {"source": recipe.selection_from, "held_out_share": held_out_share(recipe)}
    origin, figures = f"recipe {recipe.selection_from}, in this home", dict[str, Figure]()
    for dataset, temperature in recipe.datasets.items():
        params = {**candidate_params(recipe, teacher), "temperature": temperature}
        num, tokens = _row(lake, _POOL, params)
        key = {**source, "dataset": dataset}
        carried, carried_tokens = _row(lake, _CARRIED, {**key, "policy": DAS})
        control, _ = _row(lake, _CARRIED, {**key, "policy": RANDOM})
        student = f"{origin}: the teacher's tokens; this student's are about as many"
        figures |= {
            f"present.{dataset}": exact(num, origin),
            f"carried.{dataset}": exact(carried, origin),
            f"control.{dataset}": exact(control, origin),
            f"teacher_tokens.{dataset}": exact(tokens, origin),
            f"student_tokens.{dataset}": Figure(tokens, 0.8 * tokens, 1.25 * tokens, student),
            f"carried_tokens.{dataset}": Figure(carried_tokens, 0.8 * carried_tokens, 1.25 * carried_tokens, student),
        }
    last = {**source, "dataset": recipe.last_dataset, "policy": DAS}
    questions = float(lake.read(f"SELECT count(DISTINCT prompt_id) {_OF_SOURCE}", last).item())
    fitting = Figure(0.97, 0.8, 1.0, "assumed: not too long in this student's tokens", True)
    return {**figures, "carried_questions": exact(questions, origin), "fitting_share": fitting}


def has_answered(lake: Lake, checkpoint_id: str) -> bool:
    """Whether a model's answers to benchmarks are there, which another recipe has asked for."""
    query = "SELECT count(*) FROM evaluations WHERE checkpoint_id = $checkpoint_id"
    return bool(lake.read(query, {"checkpoint_id": checkpoint_id}).item())


_LENGTHS = measured_lists("responses", "num_tokens", "response_id")
_POOL = f"""SELECT count(*), avg(l.num_tokens) FROM responses r JOIN (FROM {_LENGTHS}) l USING (response_id)
    WHERE {OF_RECIPE} AND {AT_TEMPERATURE}"""
_OF_SOURCE = f"""FROM selected_responses r
    WHERE recipe = $source AND dataset = $dataset AND policy = $policy AND NOT {HELD_OUT}"""
_CARRIED = f"""SELECT count(*), avg(l.num_tokens) FROM (SELECT response_id {_OF_SOURCE}) s
    JOIN (FROM {_LENGTHS}) l USING (response_id)"""


def _row(lake: Lake, query: str, params: dict[str, object]) -> tuple[float, float]:
    """Number and mean length."""
    number, mean = lake.read(query, params).row(0)
    return float(number), float(mean or 0.0)


def over(exact: Figures, others: Figures) -> Figures:
    """`others`, but for what is known exactly."""
    return {**others, **{name: one for name, one in exact.items() if one.low == one.high or name not in others}}
