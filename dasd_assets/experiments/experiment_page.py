"""What one experiment has found, as the text of a page: its arms, result, figures, and what it was made from."""

from collections.abc import Collection, Mapping, Sequence

import polars as pl

from dasd_assets.experiments.cells import Cell, current, every_cell, failed_text, outdated_text
from dasd_assets.experiments.claims import Verdict, claims_section
from dasd_assets.experiments.cut_off_rollouts import rollouts_cut_off
from dasd_assets.experiments.figure_data import rollouts
from dasd_assets.experiments.report_tables import by_difficulty, by_way, difference_table, trait_table
from dasd_assets.experiments.result_table import Results, ShownTable, markdown_table, result_markdown, result_rows
from dasd_assets.experiments.sentences_by_work import sentences_by_work
from dasd_assets.experiments.wording import arm_text
from dasd_assets.records.recipe_document import described
from dasd_assets.rules.arms import declared_rule
from dasd_assets.rules.statistics.comparison import SETTING
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.visible_text import visible

MARK = "<!-- Written by `dasd experiment --write`. What it means is said in the grid's file, under `meaning`. -->"
CAPTIONS = {
    "differences": "Each arm less the baseline, and what else is compared, with 95 % intervals",
    "training_loss": "Training loss over all stages' steps, under the first seed of all arms (the report's Figure 3)",
    "loss_against_accuracy": "Mean training loss of the last stage against accuracy, a point per seed (for Figure 3)",
    "cut_off_rate": "Final answers cut off at the benchmark's limit, by how long all arms' answers are",
    "rollouts_cut_off": "Rollouts cut off, by the length of the teacher's response (the report's Figure 7)",
    "response_probabilities": "How probable the teacher finds what was chosen (the report's Figure 10)",
}
_WAYS_LEGEND = """In %: how much of what an arm is trained on goes this way · how many of its answers do · how many of
these answers are right. By ways alone: points that the arm would be from `{baseline}` if its answers were as right in
each way as those of `{baseline}`, over the seeds that both have, with a 95 % interval; what its difference is beyond
that comes from how right they are within the ways ([how it is computed](../statistics.md#by-ways-alone)). ± a standard
error over seeds and questions, of one model over questions, and none where all are alike; what an arm is trained on was
counted. Trained on, answers: how many, over all stages, questions and seeds. A text goes the first way whose expression
is found in it:"""
_DIFFICULTY_LEGEND = """As above, on the questions of a domain and on those of some of its levels, which their metadata
names; in brackets how many questions these are. First accuracies in %, ± a standard error over seeds and questions;
then the difference of each arm less the one that is named, paired by seed and question, with a 95 % interval; and what
could have been seen of each, were it the only one. Intervals are not corrected for how many they are: where nothing
differs, one in twenty leaves zero out. A star stands where two seeds or more are compared and p, corrected for all
differences of the table, is below 0.05, which none of more than 250 can be. That one has a star and another has none is
not yet a difference between the two."""
_TRAITS_LEGEND = """Means over the examples of a stage, then over seeds, ± a standard error over questions: all examples
to a question, of all seeds, are taken as one. Continuations: examples that the student began and the teacher ended,
where the student's own answer had been cut off; the others are responses of the teacher's own, and the columns after
"with loss" are of these alone. Tokens: the student's, the question's included. With loss: the share of all tokens that
carries loss; the question carries none. Right: those whose answer passed verification. Sound: those with no step that
is known to be wrong (the filter `work`). Teacher share: of the sentences. Mean difference: the teacher's probability
less the student's, per token, over the sentences. Probability: of a token under the teacher, a geometric mean of a
response."""
_DIFFERENCES_LEGEND = """What of this differs between arms that are compared, an arm less the one that is named, over
all stages. Same: the share of the arm's examples that the other has, too, under the same seed. Where arms share all and
differ in no trait, their order, repetition or labels are what is left to make their students differ. The others are
differences of the means above, with a 95 % interval over questions, each with all its examples, of all seeds and both
arms ([how it is computed](../statistics.md#what-arms-were-trained-on)). Training loss: a mean over the steps of the
last stage, paired by seed, with an interval over seeds; where one arm takes more steps, it differs by these, too."""
HASH_CHARS = 12


def experiment_page(
    warehouse: Warehouse,
    recipe: Recipe,
    experiment: Experiment,
    results: Results,
    trained: tuple[pl.DataFrame, pl.DataFrame],
    judged: Sequence[Verdict],
    now: str,
    images: Mapping[str, str],
) -> str:
    """An experiment's page.

    trained: of `of_training`; judged: of `claims.verdicts`; now: of `answers_hash`; images: figure -> path.
    """
    found, compared, stages, outdated = results
    rows, of_now = result_rows(found, stages, compared, experiment, outdated), current(stages, outdated)
    meaning = [] if experiment.meaning is None else ["## What it means", experiment.meaning.strip()]
    failed = [f"{text[0].upper()}{text[1:]}."] if (text := failed_text(found)) else []
    said_of_outdated = [f"*{text}.*"] if (text := outdated_text(outdated)) else []
    traits, differences = trait_table(trained[0]), difference_table(trained[1])
    parts = [
        MARK,
        f"# {visible(experiment.title)}",
        f"The report: {visible(' '.join(experiment.report.split()))}",
        *meaning,
        *written_of_others(experiment, now),
        *declared_after(experiment),
        *claims_section(judged),
        "## What is compared",
        _compared_text(recipe, experiment, found),
        markdown_table(
            ("arm", "trained on"), [{"arm": a, "trained on": arm_text(s)} for a, s in experiment.arms.items()]
        ),
        "## Result",
        result_markdown(rows),
        *failed,
        *said_of_outdated,
        *_by_difficulty(by_difficulty(warehouse, experiment, stages, found)),
        "## What they were trained on",
        markdown_table(*traits),
        _TRAITS_LEGEND,
        *([markdown_table(*differences), _DIFFERENCES_LEGEND] if differences.rows else []),
        *sentences_by_work(warehouse, recipe, experiment),
        *_by_way(experiment, by_way(warehouse, recipe, experiment, of_now, found)),
        *rollouts_cut_off(rollouts(warehouse, recipe, stages)),
        "## Figures",
        *(f"![{CAPTIONS[name]}]({path})\n\n*{CAPTIONS[name]}.*" for name, path in images.items()),
        "## Every cell",
        _cells(stages, outdated, found),
        "## What it was made from",
        _made_from(warehouse, recipe, experiment, stages, found, now),
    ]
    return "\n\n".join(parts) + "\n"


def written_of_others(experiment: Experiment, now: str) -> list[str]:
    """The sentence that says so where `meaning` was written about other answers than those that are there now.

    now: of `answers_hash`.
    """
    if experiment.meaning_of in (None, now):
        return []
    return [f"*Written about other answers ({experiment.meaning_of}) than those here ({now}): figures may differ.*"]


def answers_hash(found: pl.DataFrame) -> str:
    """What `meaning_of` names: a hash of who has answered what, and how it was judged. found: of `cells.answers`."""
    return _hash(found.select("arm", "seed", *SETTING, "question_id", "correct").sort(pl.all()).rows())


def _hash(value: object) -> str:
    return content_hash(value)[:HASH_CHARS]


def _by_difficulty(found: Mapping[str, Mapping[str, ShownTable]]) -> list[str]:
    """The tables of domains and levels; none where all questions are of one domain and none has a level."""
    parts = [
        text
        for setting, tables in found.items()
        for text in (f"### {setting}", *(markdown_table(*one) for one in tables.values()))
    ]
    return ["## By domain and difficulty", *parts, _DIFFICULTY_LEGEND] if parts else []


def _by_way(experiment: Experiment, found: Mapping[str, ShownTable]) -> list[str]:
    """The tables of the ways that the experiment declares, if any."""
    if not found:
        return []
    parts = [text for setting, one in found.items() for text in (f"### {setting}", markdown_table(*one))]
    declared = [{"way": name, "expression": f"`{text}`"} for name, text in experiment.ways.items()]
    legend = _WAYS_LEGEND.format(baseline=experiment.baseline)
    return ["## Ways of reasoning", *parts, legend, markdown_table(("way", "expression"), declared)]


def declared_after(experiment: Experiment) -> list[str]:
    """The sentence that says after which results it was declared, if after any."""
    names = [f"`{name}`" for name in experiment.declared_after]
    return [f"Declared after the results of {' and '.join(names)} had been seen."] if names else []


def _compared_text(recipe: Recipe, experiment: Experiment, found: pl.DataFrame) -> str:
    asked = found.group_by("benchmark").agg(pl.col("question_id").n_unique()).sort("benchmark")
    questions = " and ".join(f"{number} questions of `{benchmark}`" for benchmark, number in asked.iter_rows())
    samples = max(found.group_by(["arm", "seed", *SETTING, "question_id"]).len()["len"])
    done, num = found.select("arm", "seed").n_unique(), len(every_cell(experiment))
    seeds = ", ".join(map(str, experiment.seeds))
    return (
        f"Arms of the grid `{experiment.name}` of recipe `{recipe.name}`, from seeds {seeds}: {done} of {num} cells. "
        f"Each answers {questions}, {samples} times at each temperature. The baseline is `{experiment.baseline}`."
    )


def _cells(stages: pl.DataFrame, outdated: Collection[Cell], found: pl.DataFrame) -> str:
    """Checkpoint and accuracies of every cell that has answered."""
    last = {(row["arm"], row["seed"]): row["checkpoint_id"] for row in stages.iter_rows(named=True)}
    settings = found.select(SETTING).unique().sort(SETTING).rows()
    accuracies = found.group_by("arm", "seed", *SETTING).agg(pl.col("correct").mean()).rows()
    of_cell = {tuple(row[:4]): 100 * row[4] for row in accuracies}
    names = {setting: f"{setting[0]}, T={setting[1]:g}" for setting in settings}
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "checkpoint": f"{checkpoint} (outdated)" if (arm, seed) in outdated else checkpoint,
            **{names[at]: f"{of_cell[arm, seed, *at]:.1f}" for at in settings if (arm, seed, *at) in of_cell},
        }
        for (arm, seed), checkpoint in last.items()
        if any((arm, seed, *at) in of_cell for at in settings)
    ]
    return markdown_table(("arm", "seed", "checkpoint", *names.values()), rows)


def _made_from(
    warehouse: Warehouse, recipe: Recipe, experiment: Experiment, stages: pl.DataFrame, found: pl.DataFrame, now: str
) -> str:
    """Hashes that two homes share if they hold the same: of what was declared, trained, asked and answered."""
    ids = stages["checkpoint_id"].unique().sort().to_list()
    query = """SELECT DISTINCT checkpoint_id, content_hash FROM checkpoints
        WHERE list_contains($ids, checkpoint_id) ORDER BY ALL"""
    weights = warehouse.read(query, {"ids": ids})
    datasets = stages["dataset_id"].drop_nulls().unique().sort().to_list()
    questions = found.select("benchmark", "question_id").unique().sort("benchmark", "question_id")
    hashes = {
        f"recipe `{recipe.name}`": _hash(described(recipe)),
        "grid": _hash(declared_rule(experiment).version),
        f"weights of {len(ids)} checkpoints": _hash(weights.rows()),
        f"examples of {len(datasets)} datasets": _hash(datasets),
        f"{questions.height} questions": _hash(questions.rows()),
        f"{found.height:,} judged answers": now,
    }
    rows = [{"what": name, "hash": value} for name, value in hashes.items()]
    return markdown_table(("what", "hash"), rows)
