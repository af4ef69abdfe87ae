"""What the card says of a release: how much there is of what, how it was selected, what was left out and why."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dasd_assets.published_dataset.examples import Config
from dasd_assets.rules.candidates import candidate_params, drop_counts, num_answered
from dasd_assets.rules.filters.catalogue import FILTERS, filter_version, required_filters
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Reading, Row


@dataclass
class Tally:
    """Counts over the rows of a config, taken while they are written."""

    lengths: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    per_domain: dict[str, int] = field(default_factory=dict)
    per_source: dict[str, int] = field(default_factory=dict)
    num_judged: int = 0
    num_correct: int = 0
    num_not_ended: int = 0

    def add(self, example: Row) -> None:
        """Count one example of `examples.examples`."""
        self.lengths.append(example["num_tokens"])
        self.scores += [] if example["score"] is None else [example["score"]]
        for counts, name in ((self.per_domain, example["domain"]), (self.per_source, example["source"])):
            counts[name] = counts.get(name, 0) + 1
        self.num_judged += example["correct"] is not None
        self.num_correct += bool(example["correct"])
        self.num_not_ended += example["finish_reason"] != "stop"

    @property
    def num_rows(self) -> int:
        """Examples so far."""
        return len(self.lengths)


@dataclass(frozen=True)
class Composition:
    """What the card is made of.

    drops: temperature, filter, num_dropped, num_judged. rejected: kind of rejected line -> how many.
    held_out: where questions come from with which landed ones were compared -> how many. num_questions: answered
    ones. rules: dataset -> what decided its selection.
    """

    recipe: Recipe
    teacher: str
    student: str
    tallies: Mapping[str, Tally]
    configs: Sequence[Config]
    drops: pl.DataFrame
    rejected: Mapping[str, int]
    held_out: Mapping[str, int]
    num_questions: int
    rules: Mapping[str, Mapping[str, object]]

    @property
    def required(self) -> tuple[str, ...]:
        """The filters that a response must pass."""
        return required_filters(self.recipe.filters.require_correct, self.recipe.filters.required)

    @property
    def per_source(self) -> dict[str, int]:
        """Source -> examples, the most frequent first, over all configs."""
        total: dict[str, int] = {}
        for tally in self.tallies.values():
            for name, count in tally.per_source.items():
                total[name] = total.get(name, 0) + count
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def compose(
    reading: Reading,
    engines: Engines,
    recipe: Recipe,
    configs: Sequence[Config],
    tallies: Mapping[str, Tally],
) -> Composition:
    """Count what the rows themselves do not say, on the snapshot that they are read from."""
    teacher = engines.fingerprint(recipe.teacher, "teacher.model")
    student = engines.fingerprint(recipe.student, "student.model")
    rules = _rules(reading, recipe)
    params = {
        **candidate_params(recipe, teacher),
        "temperatures": list(recipe.generation.temperatures),
        "batches": _batches(rules, recipe.datasets),
        "filter_version": filter_version(recipe, student),
    }
    rejected = "SELECT kind, count(*) AS num_lines FROM rejected_prompts GROUP BY kind ORDER BY num_lines DESC, kind"
    return Composition(
        recipe=recipe,
        teacher=f"{Path(recipe.teacher.model).name} ({teacher})",
        student=f"{Path(recipe.student.model).name} ({student})",
        tallies=tallies,
        configs=configs,
        drops=drop_counts(reading, params, FILTERS),
        rejected=dict(reading.read(rejected).iter_rows()),
        held_out=_held_out(reading, recipe),
        num_questions=num_answered(reading, params),
        rules=rules,
    )


def _rules(reading: Reading, recipe: Recipe) -> dict[str, dict[str, object]]:
    query = "SELECT dataset, rule FROM selection_rules WHERE recipe = $recipe ORDER BY dataset"
    return {name: json.loads(rule) for name, rule in reading.read(query, {"recipe": recipe.name}).iter_rows()}


def _batches(rules: Mapping[str, Mapping[str, object]], datasets: Iterable[str]) -> list[str]:
    """The batches that these datasets were selected from: those that were there, and not quarantined."""
    selected_from = [rules[name]["batches"] for name in datasets if name in rules]
    return sorted({str(batch) for batches in selected_from for batch in batches})  # type: ignore[attr-defined]


def _held_out(reading: Reading, recipe: Recipe) -> dict[str, int]:
    if recipe.decontamination is None:
        return {}
    query = "SELECT source, count(*) FROM held_out_questions WHERE recipe = $recipe GROUP BY source ORDER BY source"
    return dict(reading.read(query, {"recipe": recipe.name}).iter_rows())
