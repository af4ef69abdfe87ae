"""An experiment: arms that differ in what a student is trained on, each trained from several seeds and compared.

A YAML file (`experiment_files.py`) names a recipe; an arm is a curriculum, one stage after another. What a stage
changes of the recipe makes a recipe of its own (`experiment_recipes.py`).
"""

from typing import Annotated, Self

import duckdb
from pydantic import AfterValidator, Field, field_validator, model_validator

from dasd_resources.dataset_names import MIXED
from dasd_resources.recipe.claim import Claim, Name, Pair
from dasd_resources.recipe.parts import AddedLater, DecidesNothing, Part, Positive
from dasd_resources.recipe.selection_settings import Selection, Unit
from dasd_resources.recipe.training_settings import StageTraining

Seed = Annotated[int, Field(ge=0, lt=2**32)]
# Columns of the table of ways, besides the ways: the arm, what goes none of them, what they make of accuracy, counts.
OF_WAYS = ARM, OTHER_WAY, BY_WAYS, SHOWN, ANSWERED = "arm", "other", "by ways alone", "trained on", "answers"
FAILED_WAY = "failed"  # the way of a request that failed, in no table


def _an_expression(value: str) -> str:
    try:
        duckdb.execute("SELECT regexp_matches('', ?)", [value])
    except duckdb.Error as error:
        raise ValueError(f"is no regular expression of RE2's: {error}") from None
    return value


Expression = Annotated[str, Field(min_length=1), AfterValidator(_an_expression)]
# What a stage cannot change of `selection`, and why.
FIXED = {
    "budgets": "a stage's budget stands beside it; write budget: {examples: {DOMAIN: NUMBER}}",
    "budget_unit": "the unit is part of a stage's budget; write budget: {tokens: {DOMAIN: NUMBER}}",
    "divergence": "sentences are typed once for a recipe; change it there, or take another recipe",
}


class Budget(Part):
    """How much a stage takes of each domain of a dataset: one of three.

    examples, tokens: domain -> how much; a domain that is not named gives all it has. times: so many times what the
    recipe's own selection takes of each domain, counted in `unit`.
    """

    examples: Annotated[dict[str, Positive], Field(min_length=1)] | None = None
    tokens: Annotated[dict[str, Positive], Field(min_length=1)] | None = None
    times: Annotated[float, Field(gt=0)] | None = None
    unit: Unit = "examples"

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        given = [name for name in ("examples", "tokens", "times") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of examples, tokens and times")
        if self.times is None and "unit" in self.model_fields_set:
            raise ValueError(f"unit goes with times; {given[0]} says it already: remove unit")
        return self

    @property
    def counted_in(self) -> Unit:
        """The unit of what it allows."""
        return "tokens" if self.tokens is not None else self.unit

    @property
    def per_domain(self) -> dict[str, int] | None:
        """Domain -> how much; None where it is a multiple of the recipe's own selection."""
        return self.examples if self.tokens is None else self.tokens


class ArmFilters(Part):
    """What a stage changes of the recipe's `filters`."""

    apply: str | None = None
    require_correct: bool | None = None
    required: Annotated[tuple[str, ...] | None, AddedLater] = Field(default=None, strict=False)


class ArmStage(Part):
    """A stage of an arm: what it trains on, and what it changes of the recipe; what it leaves out is the recipe's.

    dataset: one of the recipe's, or several, whose selections are trained on together. policy: an entry of
    `dasd_assets.rules.policies.POLICIES`. selection: keys of the recipe's section. num_candidates: only so many of the
    responses to a question compete. matching: only responses in whose text it is found, a regular expression (RE2).
    loss_on_prefix: of the mixed-policy dataset. epochs_of: as many epochs as these stages of the recipe have together.
    """

    dataset: tuple[str, ...] = Field(min_length=1, strict=False)
    policy: str = "das"
    selection: dict[str, str | int | float | None] = Field(default_factory=dict)
    filters: ArmFilters = ArmFilters()
    num_candidates: Positive | None = None
    matching: Annotated[Expression | None, AddedLater] = None
    budget: Budget | None = None
    loss_on_prefix: bool | None = None
    training: StageTraining = StageTraining()
    epochs_of: Annotated[tuple[str, ...] | None, AddedLater] = Field(None, min_length=1, strict=False)

    @field_validator("dataset", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("dataset")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("names a dataset twice; remove one")
        return tuple(sorted(names))

    @field_validator("selection")
    @classmethod
    def _changeable(cls, changes: dict[str, object]) -> dict[str, object]:
        for key in changes:
            if key in FIXED:
                raise ValueError(f"{key} cannot be changed here: {FIXED[key]}")
            if key not in Selection.model_fields:
                known = ", ".join(name for name in Selection.model_fields if name not in FIXED)
                raise ValueError(f"there is no selection.{key}; there are {known}")
        return changes

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.epochs_of is not None and self.training.epochs is not None:
            raise ValueError("training.epochs says already how many: remove it, or epochs_of")
        if not self.is_mixed and self.loss_on_prefix is not None:
            raise ValueError("loss_on_prefix is of the mixed-policy dataset; remove it, or name dataset: mixed")
        if self.is_mixed:
            if len(self.dataset) > 1:
                raise ValueError("the mixed-policy dataset holds off-policy responses already; name it alone")
            changed = {"policy", "selection", "filters", "num_candidates", "matching", "budget"} & self.model_fields_set
            if changed:
                raise ValueError(f"the mixed-policy dataset is not selected: remove {', '.join(sorted(changed))}")
        return self

    @property
    def is_mixed(self) -> bool:
        """Whether it trains on the mixed-policy dataset."""
        return MIXED in self.dataset

    @property
    def name(self) -> str:
        """Of what it trains on: `t060`, `mixed`, or `t060+t100` of several together."""
        return "+".join(self.dataset)


class Experiment(Part):
    """What is compared with what: each arm is trained from each seed, and all answer the same held-out questions.

    report: what the report found, in words, to stand beside the result. claims: what it or you expect, declared before
    looking; the verdict on each is computed. meaning: what the result says, written by who
    has read it; meaning_of: the hash, on the page, of the judged answers that were read. declared_after: experiments
    whose results had been seen by then, which the page says. arms: name -> its stages, in order; one without stages is
    the untrained student. Every arm is compared with the baseline; pairs: arms that are compared besides, the first
    less the second. ways: name -> expression by which a response is known to go that way, for a table of what arms are
    shown and answer. benchmarks, temperatures, samples_per_question: the recipe's if left out.
    """

    name: Name
    title: Annotated[str, Field(min_length=1)]
    report: Annotated[str, Field(min_length=1)]
    claims: Annotated[tuple[Claim, ...], DecidesNothing] = Field((), strict=False)
    meaning: Annotated[str | None, DecidesNothing] = Field(None, min_length=1)
    meaning_of: Annotated[str | None, DecidesNothing] = Field(None, pattern=r"^[0-9a-f]{12}$")
    declared_after: Annotated[tuple[Name, ...], DecidesNothing] = Field((), strict=False)
    recipe: str
    seeds: tuple[Seed, ...] = Field(min_length=1, strict=False)
    baseline: str
    arms: dict[Name, tuple[ArmStage, ...]] = Field(min_length=2, strict=False)
    pairs: Annotated[tuple[Pair, ...], AddedLater] = Field((), strict=False)
    ways: Annotated[dict[str, Expression], DecidesNothing] = Field(default_factory=dict)
    benchmarks: tuple[str, ...] | None = Field(None, min_length=1, strict=False)
    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] | None = Field(None, min_length=1, strict=False)
    samples_per_question: Positive | None = None

    @field_validator("arms", mode="before")
    @classmethod
    def _lists(cls, arms: object) -> object:
        """YAML's lists of stages as tuples."""
        if not isinstance(arms, dict):
            return arms
        return {name: tuple(stages) if isinstance(stages, list) else stages for name, stages in arms.items()}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds names one twice; remove one")
        if self.meaning is None and self.meaning_of is not None:
            raise ValueError("meaning_of says of which answers meaning was written; write that, or remove this")
        if self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is no arm; there are {', '.join(self.arms)}")
        return self

    @field_validator("ways")
    @classmethod
    def _not_taken(cls, ways: dict[str, str]) -> dict[str, str]:
        if taken := [name for name in ways if name in OF_WAYS]:
            raise ValueError(f"{taken[0]} is a column of the table of ways; name it otherwise")
        if FAILED_WAY in ways:
            raise ValueError(f"{FAILED_WAY} is the way of requests that failed; name it otherwise")
        return ways

    @model_validator(mode="after")
    def _new_pairs(self) -> Self:
        found = [frozenset({arm, self.baseline}) for arm in self.arms]
        for pair in self.pairs:
            shown = self._shown("pairs", pair)
            if len(set(pair)) == 1:
                raise ValueError(f"{shown} is an arm and itself; name two")
            if frozenset(pair) in found:
                raise ValueError(f"{shown} is compared already, this way round or the other; remove it")
            found.append(frozenset(pair))
        return self

    @model_validator(mode="after")
    def _decidable(self) -> Self:
        compared = set(map(frozenset, self.compared))
        for number, claim in enumerate(self.claims):
            for pair in claim.above:
                shown = self._shown(f"claims.{number}.above", pair)
                if frozenset(pair) not in compared:
                    raise ValueError(f"{shown} is not compared; name it in pairs, too")
                untrained = [arm for arm in pair if not self.arms[arm]]
                if untrained and claim.of != "accuracy":
                    raise ValueError(f"{shown}: {untrained[0]} is trained on nothing, so it has no {claim.of}")
        return self

    def _shown(self, key: str, pair: Pair) -> str:
        """A pair as a message names it; raises ValueError where one of the two is no arm."""
        shown = f"{key}: [{', '.join(pair)}]"
        if unknown := [name for name in pair if name not in self.arms]:
            raise ValueError(f"{shown}: {unknown[0]!r} is no arm; there are {', '.join(self.arms)}")
        return shown

    @property
    def datasets(self) -> set[str]:
        """What its arms are trained on: names of datasets, that of the mixed policy among them."""
        return {name for stages in self.arms.values() for stage in stages for name in stage.dataset}

    @property
    def compared(self) -> list[Pair]:
        """All that is compared, the first less the second: each arm with the baseline, then `pairs`."""
        return [*((arm, self.baseline) for arm in self.arms if arm != self.baseline), *self.pairs]
