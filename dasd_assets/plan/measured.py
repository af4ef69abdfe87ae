"""The figures that a pilot's home holds: lengths, shares, bytes, and what each stage took beside what was modelled.

A pilot runs a recipe twice: on a fifth of its questions, then on all. A stage's two times tell what it costs to start
from what a unit of its work costs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from dasd_assets.plan.assumptions import CONTINUED, STORED_IN
from dasd_assets.plan.figures import PILOT, Figure, Figures, Values, at_hand, exact, measured
from dasd_assets.plan.scope import Scope
from dasd_assets.plan.stages import Stage, stages_of
from dasd_assets.plan.work import work_of
from dasd_assets.rules.checkpoints import current_checkpoints
from dasd_assets.rules.filters.catalogue import required_filters
from dasd_assets.rules.last_prompts import OF_CHECKPOINTS, last_prompts, newest_answers
from dasd_assets.rules.quotas import IS_ASKED
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.tables import measured as stored
from dasd_resources.storage.upkeep import table_sizes

# Of a step's time: two runs of the same step lie so far apart, and by as many seconds at least. On a busy machine they
# lie farther apart: then what stages without work of their own took in the two passes says how far.
NOISE, NOISE_SECONDS = 0.07, 0.1
STEADY_SECONDS = 10.0  # what is shorter is less certain, as the root of the time: disturbances do not average out
LEAST_SHARE = 0.02  # of the time of a stage that two noisy times would say costs nothing a unit
LEAST_CONTINUED = 5  # continuations: fewer say nothing, and what is assumed of them stays
# Of the continuations of a student that has learnt little, fewer are kept (docs/benchmarks.md: 0.08 by a pilot on 100
# of the questions, 0.68 in the run of the demo): the assumed share counts as so many continuations more.
ASSUMED_CONTINUED = 30
UNSURE = 0.5  # of a difference: if its noise is more than that, the middle of what is open is taken
RATES = ("utilisation.", "parallel_efficiency")  # and all that end in _per_second: what the stages' factors correct


@dataclass(frozen=True)
class Pass:
    """One of a pilot's two: what its own batch had to do, what all so far had, and the seconds of every asset."""

    own: Scope
    whole: Scope
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Pace:
    """Tokens that an asset went through between two looks at its clock, and the seconds between them."""

    tokens: float
    seconds: float


def figures_of(lake: Lake, recipe: Recipe, num_landed: int) -> Figures:
    """What the rows of a finished home say; what they are silent about is left out.

    recipe: as it ran. num_landed: questions that landed there.
    """
    figures = _of_responses(lake, recipe, num_landed)
    return {**figures, **_of_mixed_policy(lake, recipe), **_of_answers(lake, recipe), **_of_disk(lake)}


def time_figures(
    recipe: Recipe, passes: Sequence[Pass], figures: Figures, paces: Mapping[str, Pace] | None = None
) -> Figures:
    """fixed.<asset> and factor.<kind> of every stage that ran in both passes. figures: all others.

    paces: of assets of the last pass that say how fast they went once they had begun. Two times of a few steps each
    tell that much worse.
    """
    values = at_hand(figures)
    stages = [_by_asset(recipe, one, values) for one in passes]
    found, noise = dict[str, Figure](), _noise(stages, passes)
    kinds: dict[str, list[str]] = {stage.kind: [] for stage in stages[-1].values()}
    for asset, stage in stages[-1].items():
        if all(asset in one.seconds for one in passes) and asset in stages[0]:
            kinds[stage.kind].append(asset)
    for kind, assets in kinds.items():
        if not assets:
            continue
        points = [
            (
                sum(modelled[asset].seconds for asset in assets),
                sum(one.seconds[asset] for asset in assets),
                sum(modelled[asset].starts for asset in assets),
            )
            for modelled, one in zip(stages, passes, strict=True)
        ]
        known = [(stages[-1][asset], paces[asset]) for asset in assets if paces and asset in paces]
        factor, fixed = at_pace(points, known, noise) if known else fit(points, noise)
        found[f"factor.{kind}"] = factor
        found |= {f"fixed.{asset}": fixed for asset in assets}
    return found


def settled(figures: Figures) -> Figures:
    """The assumed rates as they are: the factors of measured stages hold what was uncertain about them."""
    rates = [name for name in figures if name.startswith(RATES) or name.endswith("_per_second")]
    held = "assumed; what it was worth is in the measured times"
    return {name: Figure(figures[name].value, figures[name].value, figures[name].value, held) for name in rates}


def _noise(stages: Sequence[Mapping[str, Stage]], passes: Sequence[Pass]) -> float:
    """Share of a time by which two runs of one step differ, from those that have the same to do in both passes."""
    idle = [name for name, stage in stages[-1].items() if not stage.seconds and name in stages[0]]
    pairs = [[one.seconds[name] for one in passes] for name in idle if all(name in one.seconds for one in passes)]
    apart = [abs(first - second) / (first + second) for first, second in pairs if first + second > 0]
    return max(float(np.median(apart)) if apart else 0.0, NOISE)


def fit(points: Sequence[tuple[float, float, float]], share: float = NOISE) -> tuple[Figure, Figure]:
    """seconds = fixed · starts + factor · modelled, through two points (modelled, seconds, starts).

    Neither is negative. What the noise of the two times leaves open is in the intervals; a stage of whose work nothing
    is modelled costs what it took, however large the rest. share: of a time, by which two equal ones differ.
    """
    (small, early, few), (large, late, many) = sorted(points)
    starts, origin = (few + many) / 2, _within(late)
    noise = NOISE_SECONDS + _share(share, max(early, late)) * max(early, late)
    if large <= 0 or large - small < 1e-9:
        each = (early + late) / (few + many)
        return Figure(0.0, 0.0, 0.0, origin), Figure(each, max(each - noise, 0.0), each + noise, PILOT)
    # Of equal starts the difference is the work's alone; else as much more of the fixed cost is in one of them.
    determinant = few * large - many * small
    slope = (few * late - many * early) / determinant if abs(determinant) > 1e-12 else late / large
    doubt = noise * max(few, many) / abs(determinant) if abs(determinant) > 1e-12 else slope / 2
    most = late / large
    factor = min(max(slope, LEAST_SHARE * most), most)
    low, high = max(slope - doubt, LEAST_SHARE * most), min(max(slope + doubt, factor), most * (1 + share))
    if doubt > UNSURE * factor:
        factor = (min(low, factor) + max(high, factor)) / 2
    fixed = max(late - factor * large, 0.0) / many
    spread = noise / starts
    return (
        Figure(factor, min(low, factor), max(high, factor), origin),
        Figure(fixed, max(fixed - spread, 0.0), fixed + spread, PILOT),
    )


def at_pace(
    points: Sequence[tuple[float, float, float]], known: Sequence[tuple[Stage, Pace]], share: float
) -> tuple[Figure, Figure]:
    """The same where paces are known, which give the factor; what they leave of the times is fixed.

    points: as of `fit`. share: of a time, by which two equal ones differ.
    """
    ratios = [pace.seconds / (pace.tokens * stage.seconds / stage.tokens) for stage, pace in known]
    factor = sum(pace.seconds for _, pace in known) / sum(p.tokens * s.seconds / s.tokens for s, p in known)
    within = sum(pace.seconds for _, pace in known)
    apart = 1 + _share(share, within / len(known))
    low, high = min([*ratios, factor / apart]), max([*ratios, factor * apart])
    each = sum(max(seconds - factor * modelled, 0.0) for modelled, seconds, _ in points) / sum(n for *_, n in points)
    spread = (NOISE_SECONDS + share * max(seconds for _, seconds, _ in points)) / max(n for *_, n in points)
    return Figure(factor, low, high, _within(within)), Figure(each, max(each - spread, 0.0), each + spread, PILOT)


def _share(share: float, seconds: float) -> float:
    """Of a time, by which two equal ones differ that take so many seconds."""
    return share * math.sqrt(max(STEADY_SECONDS / max(seconds, NOISE_SECONDS), 1.0))


def _within(seconds: float) -> str:
    """The origin of a pace that was measured within so many seconds."""
    return f"{PILOT}, {seconds:.2g} s" if seconds < STEADY_SECONDS else PILOT


def _by_asset(recipe: Recipe, one: Pass, values: Values) -> dict[str, Stage]:
    """A stage of each batch had the pass's own part to do, any other all that there was."""
    own, whole = (stages_of(recipe, scope, work_of(recipe, scope, values), values) for scope in (one.own, one.whole))
    of_batch = {stage.asset: stage for stage in own if stage.per_batch}
    return of_batch | {stage.asset: stage for stage in whole if not stage.per_batch}


def _of_responses(lake: Lake, recipe: Recipe, num_landed: int) -> dict[str, Figure]:
    asked = lake.read("SELECT count(*) FROM prompts").item()
    prompts = lake.read("SELECT num_prompt_tokens FROM student_tokens")
    within = f"SELECT count(*) FROM prompts p WHERE {IS_ASKED}"
    num_within = lake.read(within, {"quota_scope": recipe.quota_scope}).item()
    share = asked / max(num_landed, 1)
    figures = {
        "asked_share": measured(np.array([1.0] * asked + [0.0] * (num_landed - asked)), is_share=True)
        if num_landed > asked
        else Figure(share, max(1 - 3 / max(num_landed, 1), 0.0), share, PILOT, True),
        "prompt_tokens": measured(prompts["num_prompt_tokens"].cast(pl.Float64).to_numpy()),
    }
    required = {"filters": recipe.filters.require_correct, "before_scoring": False}
    filters = {name: list(required_filters(correct, recipe.filters.required)) for name, correct in required.items()}
    responses = stored("responses", "num_tokens", "response_id", "prompt_id", "temperature", "sample_index")
    student = stored("student_tokens", "num_tokens", "response_id", "num_prompt_tokens")
    query = f"""SELECT r.prompt_id, r.num_tokens AS teacher_tokens,
            t.num_tokens - t.num_prompt_tokens AS student_tokens,
            coalesce(v.scored, FALSE)::DOUBLE AS scored, coalesce(v.accepted, FALSE)::DOUBLE AS accepted,
            p.num_sentences, r.sample_index < $num_candidates
                AND r.prompt_id IN (SELECT prompt_id FROM prompts p WHERE {IS_ASKED}) AS is_asked
        FROM {responses} r JOIN {student} t USING (response_id)
            LEFT JOIN (SELECT response_id, bool_and(passed) AS accepted,
                    bool_and(passed) FILTER (list_contains($before_scoring, filter)) AS scored
                FROM response_verdicts WHERE list_contains($filters, filter) GROUP BY response_id) v USING (response_id)
            LEFT JOIN (SELECT response_id, count(*) AS num_sentences FROM sentence_probabilities GROUP BY ALL) p
                USING (response_id)
        WHERE r.temperature = $temperature"""
    for dataset, temperature in recipe.datasets.items():
        params = {**filters, "temperature": temperature, "quota_scope": recipe.quota_scope}
        rows = lake.read(query, {**params, "num_candidates": recipe.generation.num_candidates})
        if recipe.imports is not None:
            figures |= _of_imports(lake, recipe, dataset, asked)
        if not rows.is_empty():
            num_wanted = 0 if recipe.imports is not None else num_within * recipe.generation.num_candidates
            figures |= _of_dataset(dataset, rows, num_wanted)
    return figures


def _of_imports(lake: Lake, recipe: Recipe, dataset: str, asked: int) -> dict[str, Figure]:
    """Of this home alone, whose stages had these to do; what all landed files hold is counted (`planned_pool`)."""
    query = """SELECT count(*), count(*) FILTER (sample_index < $num_candidates),
            count(*) FILTER (logprob_origin = 'given') FROM responses WHERE temperature = $temperature"""
    params = {"num_candidates": recipe.generation.num_candidates, "temperature": recipe.datasets[dataset]}
    num, used, given = lake.read(query, params).row(0)
    found = {"landed_each": num / max(asked, 1), "used_share": used / max(num, 1), "given_share": given / max(num, 1)}
    return {f"{name}.{dataset}": exact(value, PILOT) for name, value in found.items()}


def _of_dataset(dataset: str, rows: pl.DataFrame, num_wanted: int) -> dict[str, Figure]:
    groups = rows["prompt_id"].to_numpy()
    scored = rows.filter(pl.col("num_sentences").is_not_null())
    covered = rows.group_by("prompt_id").agg(pl.col("accepted").max())["accepted"].to_numpy()
    figures = {
        f"{name}.{dataset}": measured(rows[name].cast(pl.Float64).to_numpy(), groups)
        for name in ("teacher_tokens", "student_tokens")
    }
    if not scored.is_empty():
        counts = scored["num_sentences"].cast(pl.Float64).to_numpy()
        figures[f"sentences.{dataset}"] = measured(counts, scored["prompt_id"].to_numpy())
    num_answered = int(rows["is_asked"].sum())  # there may be more, asked by the recipe as it was before
    if num_wanted > num_answered:
        answered = np.array([1.0] * num_answered + [0.0] * (num_wanted - num_answered))
        figures["answered_share"] = measured(answered, is_share=True)
    return {
        **figures,
        f"scored_share.{dataset}": measured(rows["scored"].to_numpy(), groups, is_share=True),
        f"accepted_share.{dataset}": measured(rows["accepted"].to_numpy(), groups, is_share=True),
        f"covered_share.{dataset}": measured(covered, is_share=True),
    }


def _of_mixed_policy(lake: Lake, recipe: Recipe) -> dict[str, Figure]:
    """Nothing of a home without rollouts or, of what follows them, with hardly one that was cut off."""
    current = {"ids": current_checkpoints(lake, recipe)["checkpoint_id"].to_list(), "recipe": recipe.name}
    rollouts = stored("student_rollouts", "num_tokens", "checkpoint_id", "reference_num_tokens", "cut_off")
    continuations = stored("teacher_continuations", "num_tokens", "continuation_id", "rollout_id")
    student = lake.read(
        f"""SELECT num_tokens / avg(reference_num_tokens) OVER () AS length, cut_off::DOUBLE AS cut_off
        FROM {rollouts} WHERE checkpoint_id IN (SELECT unnest($ids::VARCHAR[]))""",
        {"ids": current["ids"]},
    )
    if student.is_empty():
        return {}
    figures = {
        "rollout_length": measured(student["length"].to_numpy()),
        "cut_off_share": measured(student["cut_off"].to_numpy(), is_share=True),
    }
    made = lake.read(
        f"""SELECT c.num_tokens / avg(r.reference_num_tokens) OVER () AS length,
            (e.continuation_id IS NOT NULL)::DOUBLE AS kept
        FROM {continuations} c JOIN student_rollouts r USING (rollout_id)
            LEFT JOIN (FROM sft_examples WHERE recipe = $recipe AND continuation_id IS NOT NULL) e
            USING (continuation_id)
        WHERE r.checkpoint_id IN (SELECT unnest($ids::VARCHAR[]))""",
        current,
    )
    if made.height < LEAST_CONTINUED:
        return figures
    return {
        **figures,
        "continuation_length": measured(made["length"].to_numpy()),
        "continued_share": continued(measured(made["kept"].to_numpy(), is_share=True), made.height),
    }


def continued(found: Figure, num: int) -> Figure:
    """The share of so many continuations that is kept: the fewer, the nearer to the assumed one.

    found: the pilot's. The interval of few holds both, that of many is the pilot's.
    """
    weight = ASSUMED_CONTINUED / (num + ASSUMED_CONTINUED)

    def between(own: float, other: float) -> float:
        return own + weight * (other - own)

    low, high = min(found.low, CONTINUED.low), max(found.high, CONTINUED.high)
    return Figure(
        between(found.value, CONTINUED.value), between(found.low, low), between(found.high, high), PILOT, True
    )


def _of_answers(lake: Lake, recipe: Recipe) -> dict[str, Figure]:
    """Of answers to the prompt that each model was asked with last."""
    names = current_checkpoints(lake, recipe).select("checkpoint_id", "name")
    query = f"""WITH asked_last AS ({last_prompts(OF_CHECKPOINTS)})
        SELECT checkpoint_id, question_id, num_tokens::DOUBLE AS num_tokens FROM ({newest_answers(OF_CHECKPOINTS)})"""
    rows = lake.read(query, {"ids": names["checkpoint_id"].to_list()}).join(names, on="checkpoint_id")
    return {
        f"answer_tokens.{name[0]}": measured(part["num_tokens"].to_numpy(), part["question_id"].to_numpy())
        for name, part in rows.group_by("name")
    }


def _of_disk(lake: Lake) -> dict[str, Figure]:
    """Of tables that grow with tokens, the bytes of a token (of a sentence): a small home's, which compress less."""
    responses, tokens = (stored(name, "num_tokens", "response_id") for name in ("responses", "student_tokens"))
    counts = {
        "bytes.teacher_token": f"SELECT sum(num_tokens) FROM {responses}",
        "bytes.student_token": f"SELECT sum(num_tokens) FROM {tokens}",
        "bytes.student_logprob": "SELECT sum(len(logprobs)) FROM student_logprobs",
        "bytes.sentence": "SELECT count(*) FROM sentence_probabilities",
        "bytes.example_token": "SELECT sum(len(input_ids)) FROM sft_examples",
    }
    sizes = {row["table_name"]: row["num_bytes"] for row in table_sizes(lake).iter_rows(named=True)}
    figures = dict[str, Figure]()
    for name, query in counts.items():
        number, size = lake.read(query).item(), sum(sizes.get(table, 0) for table in STORED_IN[name])
        if number and size:
            each = size / float(number)  # DuckDB sums to a decimal
            figures[name] = Figure(each, 0.7 * each, 1.1 * each, PILOT)
    return figures
