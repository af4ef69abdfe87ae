"""The card: README.md with the header that the Hugging Face hub and `datasets.load_dataset` read.

Names of domains and sources are others' texts: they stand as code, so that none of them is a link or an image.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import yaml

from dasd_assets.published_dataset.composition import Composition, Tally
from dasd_assets.published_dataset.forms import FORMS, LOGPROBS, Form
from dasd_assets.records.markdown import code
from dasd_assets.records.plots import histogram
from dasd_assets.records.wording import number_of
from dasd_resources.recipe import Export
from dasd_resources.recipe.model_settings import ITSELF

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_STATED = "not stated"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGER = "1M<n<10M"


def card(composition: Composition, settings: Export) -> str:
    """The whole of README.md."""
    form = FORMS[settings.form]
    sections = [
        _front_matter(composition, settings),
        f"# {settings.title or f'Distillation {composition.recipe.name}'}",
        _introduction(composition),
        "## Training sets\n\n" + _training_sets(composition) + "\n\n![lengths](figures/lengths.png)",
        "## Domains\n\n" + _domains(composition),
        "## Selection\n\n" + _selection(composition) + "\n\n![scores](figures/scores.png)",
        "## Filters\n\n" + _filters(composition),
        "## Questions\n\n" + _questions(composition),
        "## Sources and licences\n\n" + _sources(composition, settings),
        "## Columns\n\n" + _columns(form) + (_logprob_columns(composition) if settings.logprobs else ""),
        "## Known limits\n\n" + _limits(composition),
        "## Use\n\n" + _use(composition),
    ]
    return "\n\n".join(sections) + "\n"


def figures(composition: Composition) -> "dict[str, Figure]":
    """Name -> figure of the card."""
    tallies = composition.tallies
    return {
        "lengths": histogram({name: tally.lengths for name, tally in tallies.items()}, "tokens per example"),
        "scores": histogram(
            {name: tally.scores for name, tally in tallies.items() if tally.scores},
            f"score: {composition.recipe.selection.score}",
        ),
    }


def _front_matter(composition: Composition, settings: Export) -> str:
    names = [(config.name, f"data/{config.name}/train-*") for config in composition.configs]
    if settings.logprobs:
        names += [(f"{name}_logprobs", f"logprobs/{name}/train-*") for name, _ in names]
    document = {
        "license": settings.license or "other",
        "task_categories": ["text-generation"],
        "tags": ["distillation", "reasoning", "dasd"],
        "size_categories": [_size(sum(tally.num_rows for tally in composition.tallies.values()))],
        "configs": [{"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in names],
    }
    if document["configs"]:
        document["configs"][0]["default"] = True  # type: ignore[index]
    return f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}---"


def _size(num_rows: int) -> str:
    return next((name for limit, name in SIZES if num_rows < limit), LARGER)


def _introduction(composition: Composition) -> str:
    return (
        "Responses of a teacher, selected for a student by divergence-aware sampling and ordered for training in "
        "stages ([arXiv 2601.09088](https://arxiv.org/abs/2601.09088)), made by the open-source engine DASD.\n\n"
        f"- Teacher: {_teacher(composition)}\n- Selected for the student: {code(composition.student)}\n"
        f"- Recipe: {code(composition.recipe.name)}"
    )


def _teacher(composition: Composition) -> str:
    """The model that wrote the responses and, if it is not the recipe's, where their log-probabilities are from."""
    teacher = composition.recipe.teacher
    if teacher.stands_for is None or teacher.stands_for == ITSELF:
        return code(composition.teacher)
    by = f"and any continuation by {code(composition.teacher)}" if teacher.is_proxy else "as landed"
    return f"{code(teacher.stands_for)}, log-probabilities {by}"


def _training_sets(composition: Composition) -> str:
    """One row per config, in the order of training."""
    rows = [
        (
            code(config.name),
            f"{tally.num_rows:,}",
            f"{sum(tally.lengths):,}",
            f"{np.mean(tally.lengths or [0]):,.0f}",
            f"{max(tally.lengths, default=0):,}",
            _temperature(composition, config.dataset),
            _correct(tally),
        )
        for config, tally in ((config, composition.tallies[config.name]) for config in composition.configs)
    ]
    columns = ["config", "examples", "tokens", "tokens per example", "longest", "teacher's temperature", "correct"]
    return f"In the order of training; tokens are the student's.\n\n{_table(columns, rows)}"


def _temperature(composition: Composition, dataset: str) -> str:
    at = composition.recipe.datasets.get(dataset)
    return (
        f"{at:g}" if at is not None else f"{composition.recipe.mixed_policy.continuation_temperature:g} (continuations)"
    )


def _correct(tally: Tally) -> str:
    if not tally.num_judged:
        return "nothing to verify"
    return f"{tally.num_correct / tally.num_judged:.1%} of {tally.num_judged:,} that a verifier decided"


def _domains(composition: Composition) -> str:
    domains = sorted({name for tally in composition.tallies.values() for name in tally.per_domain})
    names = [config.name for config in composition.configs]
    rows = [
        (code(domain), *(f"{composition.tallies[name].per_domain.get(domain, 0):,}" for name in names))
        for domain in domains
    ]
    return _table(["domain", *map(code, names)], rows)


def _selection(composition: Composition) -> str:
    """What decided which responses are here."""
    chosen = composition.recipe.selection
    lines = [
        f"score {code(chosen.score)}, policy {code(chosen.policy)}: a sentence counts as the teacher's where its "
        f"{chosen.divergence.measure} per {chosen.divergence.per} is greater under the teacher than under the student "
        f"by more than {chosen.divergence.threshold:g}",
        f"candidates per question and temperature: {composition.recipe.generation.num_candidates}",
    ]
    for dataset, rule in composition.rules.items():
        if rule.get("budget"):
            budget = ", ".join(f"{code(str(name))} {count:,}" for name, count in dict(rule["budget"]).items())  # type: ignore[call-overload]
            lines.append(f"budget of {code(dataset)} in {rule.get('budget_unit', 'examples')}: {budget}")
    return "\n".join(f"- {line}" for line in lines)


def _filters(composition: Composition) -> str:
    """How many of all candidates each filter dropped; those not required only tell."""
    rows = [
        (
            code(row["filter"]),
            f"{row['temperature']:g}",
            f"{row['num_dropped']:,} of {row['num_judged']:,} ({row['num_dropped'] / row['num_judged']:.1%})",
            "yes" if row["filter"] in composition.required else "no, recorded only",
        )
        for row in composition.drops.iter_rows(named=True)
    ]
    return "Of all candidates that the teacher gave to the questions counted below.\n\n" + _table(
        ["filter", "temperature", "failed", "required"], rows
    )


def _questions(composition: Composition) -> str:
    lines = [f"The teacher answered {number_of(composition.num_questions, 'question')}.", _decontamination(composition)]
    if composition.rejected:
        kinds = [(code(kind), f"{count:,}") for kind, count in composition.rejected.items()]
        lines.append("Landed lines that are no question of their own:\n\n" + _table(["reason", "lines"], kinds))
    return "\n\n".join(lines)


def _decontamination(composition: Composition) -> str:
    """With what the questions were compared, and how."""
    settings = composition.recipe.decontamination
    if settings is None or not composition.held_out:
        return "They were not compared with the questions of any benchmark."
    named = ", ".join(f"{code(source)} ({count:,})" for source, count in composition.held_out.items())
    share = f"{settings.min_share:.0%} of" if settings.min_share else "any of"
    return (
        f"They were compared with the held-out questions of {named}: left out was what has the same words, or shares "
        f"{share} a held-out question's {settings.ngram_size}-grams that none but its variants has. Paraphrases were "
        "not looked for."
    )


def _sources(composition: Composition, settings: Export) -> str:
    rows = [
        (code(name), f"{count:,}", code(settings.licenses[name]) if name in settings.licenses else NOT_STATED)
        for name, count in composition.per_source.items()
    ]
    whole = f"The dataset as a whole: {code(settings.license) if settings.license else NOT_STATED}."
    return f"{whole}\n\n{_table(['source', 'examples', 'licence'], rows)}"


def _columns(form: Form) -> str:
    return _table(["column", "type", "holds"], [(code(n), code(str(k)), t) for n, (k, t) in form.described.items()])


def _logprob_columns(composition: Composition) -> str:
    """Of a text that a model scored by prefill, the tokens are the tokenizer's, not those that were sampled."""
    teacher = composition.recipe.teacher
    by = code(composition.teacher) if teacher.is_proxy else "the teacher"
    tokens = "" if teacher.is_proxy or teacher.stands_for == ITSELF else ", of the tokens as sampled"
    return (
        f"\n\nThe configs `…_logprobs` hold token log-probabilities by {by}, of responses alone{tokens}:\n\n"
        + _columns(LOGPROBS)
    )


def _limits(composition: Composition) -> str:
    """What a reader should not take for granted, each with its number."""
    tallies = list(composition.tallies.values())
    num_rows, num_judged = sum(t.num_rows for t in tallies), sum(t.num_judged for t in tallies)
    num_wrong = num_judged - sum(t.num_correct for t in tallies)
    num_not_ended = sum(t.num_not_ended for t in tallies)
    lines = [
        "Responses are the output of a model, and were not read by people.",
        f"{num_rows - num_judged:,} of {num_rows:,} examples have no verifier, or one that could not decide: "
        "nobody knows whether their answers are right.",
        f"{num_wrong:,} of {num_judged:,} verified answers are wrong.",
        "A verifier compares final answers; a right answer may follow from wrong reasoning.",
        "The selection is for one student: it measures what that student finds improbable.",
    ]
    if num_not_ended:
        lines.append(f"{num_not_ended:,} examples did not end by themselves.")
    return "\n".join(f"- {line}" for line in lines)


def _use(composition: Composition) -> str:
    first = composition.configs[0].name if composition.configs else "CONFIG"
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("PATH_OR_NAME", "{first}", split="train")\n```\n\n'
        "`manifest.json` has the SHA-256 of every file, and the snapshot of the warehouse that it was written from."
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. A pipe would end a cell even within code, and an escaped one does after a backslash."""
    safe = [[cell.replace("|", r"\x7c") for cell in line] for line in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in safe)
