"""Rows and tokens of every stage, from the recipe, what there is to do, and the figures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dasd_assets.plan.figures import Values
from dasd_assets.plan.scope import Scope
from dasd_assets.rules.asset_names import MIXED
from dasd_assets.rules.candidates import held_out_share
from dasd_assets.rules.checkpoints import checkpoint_names, trained_names
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.rules.imports import has_teacher
from dasd_assets.rules.scores import SCORES
from dasd_resources.recipe import Recipe


@dataclass
class Work:
    """rows: table -> rows, also of its parts (`responses.t060`). tokens: what a stage goes through, of one epoch.

    pool: dataset -> candidates, whoever made them. selected: dataset -> examples of the selection.
    """

    rows: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    pool: dict[str, float] = field(default_factory=dict)
    selected: dict[str, float] = field(default_factory=dict)


def work_of(recipe: Recipe, scope: Scope, values: Values) -> Work:
    """All of it; what the recipe leaves out is 0."""
    work = Work()
    _responses(recipe, scope, values, work)
    _selection(recipe, scope, values, work)
    _mixed_policy(recipe, values, work)
    _evaluation(recipe, scope, values, work)
    return work


def has_mixed(recipe: Recipe) -> bool:
    """Whether there is a mixed-policy stage: without a teacher nobody continues the rollouts."""
    return recipe.mixed_policy.num_questions != 0 and has_teacher(recipe)


def trained_here(recipe: Recipe) -> list[str]:
    """Names of the checkpoints that are trained."""
    return [name for name in trained_names(recipe) if name != MIXED or has_mixed(recipe)]


def answering(recipe: Recipe) -> list[str]:
    """Names of the models that answer the benchmarks."""
    there = {*trained_here(recipe), "student", *(["teacher"] if has_teacher(recipe) else [])}
    return [name for name in checkpoint_names(recipe) if name in there]


def _responses(recipe: Recipe, scope: Scope, values: Values, work: Work) -> None:
    rows, tokens = work.rows, work.tokens
    asked = sum(_asked(recipe, scope, values).values())
    carries = recipe.selection_from is not None
    rows["prompts"] = 0.0 if carries else scope.num_questions * values["asked_share"]
    for dataset in recipe.datasets:
        made, pool = _made(recipe, asked, values, dataset)
        after = recipe.filters.apply == "after_selection"
        scored = 0.0 if carries else pool if after else pool * values[f"scored_share.{dataset}"]
        rows[f"responses.{dataset}"], rows[f"student_logprobs.{dataset}"] = made, scored
        work.pool[dataset] = pool
        length = values[f"student_tokens.{dataset}"] + values["prompt_tokens"]
        tokens[f"generated.{dataset}"] = made * values[f"teacher_tokens.{dataset}"]
        tokens[f"student.{dataset}"], tokens[f"scored.{dataset}"] = pool * length, scored * length
        rows[f"sentences.{dataset}"] = scored * values[f"sentences.{dataset}"]
    rows["responses"] = _total(rows, "responses.")
    if recipe.imports is not None:
        rows["landed_responses"] = rows["responses"]
    rows["student_tokens"] = sum(work.pool.values())
    rows["response_verdicts"] = rows["student_tokens"] * len(FILTERS)
    rows["student_logprobs"] = _total(rows, "student_logprobs.")
    rows["sentence_probabilities"] = rows["sentence_types"] = _total(rows, "sentences.")
    rows["response_scores"] = rows["student_logprobs"] * len(SCORES)


def _made(recipe: Recipe, asked: float, values: Values, dataset: str) -> tuple[float, float]:
    """Responses of a dataset that this recipe adds, and those that it then has."""
    if recipe.selection_from is not None:
        return 0.0, values[f"present.{dataset}"]
    if recipe.imports is not None:
        landed = asked * values[f"landed_each.{dataset}"] * values["answered_share"]
        return landed, landed * values[f"used_share.{dataset}"]
    made = asked * recipe.generation.num_candidates * values["answered_share"]
    return made, made


def _asked(recipe: Recipe, scope: Scope, values: Values) -> dict[str, float]:
    """Domain -> questions that are asked."""
    quotas = recipe.generation.questions_per_domain
    return {name: min(num * values["asked_share"], quotas.get(name, math.inf)) for name, num in scope.questions.items()}


def _selection(recipe: Recipe, scope: Scope, values: Values, work: Work) -> None:
    """What is selected of each dataset, and of its random control, which is as large."""
    for dataset in recipe.datasets:
        if recipe.selection_from is None:
            kept = control = _kept(recipe, scope, values, work, dataset)
            mean = values[f"student_tokens.{dataset}"]
        else:
            kept, control = (values[f"{name}.{dataset}"] * values["fitting_share"] for name in ("carried", "control"))
            mean = values[f"carried_tokens.{dataset}"]
        work.selected[dataset] = kept
        work.rows[f"sft_examples.{dataset}"] = kept + control
        work.tokens[f"trained.{dataset}"] = kept * (mean + values["prompt_tokens"])
    work.rows["selected_responses"] = sum(work.rows[f"sft_examples.{dataset}"] for dataset in recipe.datasets)


def _kept(recipe: Recipe, scope: Scope, values: Values, work: Work, dataset: str) -> float:
    asked = _asked(recipe, scope, values)
    if recipe.selection.policy == "best_per_question":
        # Filtered after selection, a question gives its best response or, if that was rejected, none.
        after = recipe.filters.apply == "after_selection"
        each = values[f"{'accepted_share' if after else 'covered_share'}.{dataset}"]
    else:
        each = work.pool[dataset] / max(sum(asked.values()), 1) * values[f"accepted_share.{dataset}"]
        each = min(each, recipe.selection.max_per_question or math.inf)
    budget = recipe.selection.budgets.get(dataset, {})
    length = values[f"student_tokens.{dataset}"] if recipe.selection.budget_unit == "tokens" else 1.0
    each *= 1 - held_out_share(recipe)
    return sum(min(num * each, budget.get(name, math.inf) / length) for name, num in asked.items())


def _mixed_policy(recipe: Recipe, values: Values, work: Work) -> None:
    rows, tokens, last = work.rows, work.tokens, recipe.last_dataset
    mean, prompt = values[f"student_tokens.{last}"], values["prompt_tokens"]
    drawn = min(recipe.mixed_policy.num_questions or math.inf, _questions_selected(recipe, work, values))
    drawn = drawn if has_mixed(recipe) else 0.0
    length = min(values["rollout_length"], recipe.mixed_policy.length_cap) * mean
    rows["student_rollouts"], tokens["rollouts"] = drawn, drawn * length
    cut_off = drawn * values["cut_off_share"]
    rows["prefix_cuts"] = rows["teacher_continuations"] = rows["continuation_tokens"] = cut_off
    rows["continuation_verdicts"] = cut_off * len(FILTERS)
    # A prefix ends between half of the rollout, which ran into its cap, and all of it.
    prefix = 0.75 * recipe.mixed_policy.length_cap * mean
    tokens["continued"] = cut_off * values["continuation_length"] * mean
    tokens["prefixes"] = cut_off * (prefix + prompt)
    kept = cut_off * values["continued_share"]
    off_policy = min(recipe.mixed_policy.off_policy_ratio * kept, work.selected[last])
    work.selected[MIXED] = rows[f"sft_examples.{MIXED}"] = kept + off_policy
    tokens[f"trained.{MIXED}"] = kept * (prefix + values["continuation_length"] * mean) + off_policy * mean
    tokens[f"trained.{MIXED}"] += (kept + off_policy) * prompt
    rows[f"selected_responses.{MIXED}"] = off_policy
    rows["selected_responses"] += off_policy
    rows["sft_examples"] = _total(rows, "sft_examples.")


def _questions_selected(recipe: Recipe, work: Work, values: Values) -> float:
    """Of the last dataset: one rollout a question, of which top_k may have selected several responses."""
    kept, last = work.selected[recipe.last_dataset], recipe.last_dataset
    if recipe.selection_from is not None:
        return values["carried_questions"] * values["fitting_share"]
    if recipe.selection.policy == "best_per_question":
        return kept
    most = recipe.selection.max_per_question or recipe.generation.num_candidates
    num_asked = work.pool[last] / recipe.generation.num_candidates / values["answered_share"]
    num_asked *= 1 - held_out_share(recipe)
    # Drawn at random, so many of the questions would have at least one response among those kept.
    per_question = kept / max(num_asked, 1e-9)
    return num_asked * (1 - (1 - min(per_question / most, 1.0)) ** most)


def _evaluation(recipe: Recipe, scope: Scope, values: Values, work: Work) -> None:
    rows, tokens, asking = work.rows, work.tokens, recipe.evaluation
    each = len(asking.temperatures) * asking.samples_per_question
    prompt = values["prompt_tokens"]
    for name in answering(recipe):
        asked = 0.0 if name in scope.answered_before else sum(scope.benchmarks.values()) * each
        rows[f"evaluations.{name}"] = asked
        tokens[f"answers.{name}"] = asked * values[f"answer_tokens.{name}"]
    rows["evaluations"] = _total(rows, "evaluations.")
    looked_at = _looked_at(recipe, scope.benchmarks)
    judged = [name for name in answering(recipe) if name != "teacher"]
    rows["answer_logprobs"] = 0.0
    for name in judged:
        num = 0.0 if name in scope.answered_before else looked_at
        # Teacher, undistilled student and, if another, the checkpoint itself score an answer.
        rows["answer_logprobs"] += num * (2 if name == "student" else 3)
        tokens[f"provenance.{name}"] = num * (values[f"answer_tokens.{name}"] + prompt)
    held_out = sum(_held_out(recipe, work, values, dataset) for dataset in recipe.datasets)
    mean = max(values[f"student_tokens.{dataset}"] for dataset in recipe.datasets)
    rows["heldout_logprobs"] = held_out * len(trained_here(recipe))
    tokens["held_out"] = rows["heldout_logprobs"] * (mean + prompt)


def _looked_at(recipe: Recipe, benchmarks: Mapping[str, int]) -> float:
    """Answers of one checkpoint whose sentences are attributed."""
    if recipe.provenance is None or not has_teacher(recipe):
        return 0.0
    wanted, asking = recipe.provenance, recipe.evaluation
    names = wanted.benchmarks or tuple(benchmarks)
    questions = sum(min(benchmarks[name], wanted.num_questions or math.inf) for name in names)
    samples = min(wanted.samples_per_question or math.inf, asking.samples_per_question)
    return questions * samples * len(wanted.temperatures or asking.temperatures)


def _held_out(recipe: Recipe, work: Work, values: Values, dataset: str) -> float:
    """Accepted responses that no stage was trained on, at most as many as the recipe scores."""
    if recipe.heldout is None:
        return 0.0
    accepted = work.pool[dataset] * values[f"accepted_share.{dataset}"]
    unseen = accepted * recipe.heldout.questions
    seen = max(accepted - unseen - work.selected[dataset], 0.0)
    return min(recipe.heldout.num_responses, seen) + min(recipe.heldout.num_responses, unseen)


def _total(rows: Mapping[str, float], prefix: str) -> float:
    return sum(num for name, num in rows.items() if name.startswith(prefix))
