"""What experiments found: each arm against the baseline, and further pairs."""

from dasd_resources.storage.tables.recurring import BENCHMARK, RECIPE, RUN_ID, TEMPERATURE
from dasd_resources.storage.tables.table import Column, Table

_OF = ("evaluations.correct", "evaluations.question_id", "evaluations.checkpoint_id")
EXPERIMENT_COMPARISONS = Table(
    name="experiment_comparisons",
    one_row_per="pair of arms that an experiment compares, benchmark and temperature",
    notes="How each is computed, and how to read it: [statistics](statistics.md).",
    columns=(
        RECIPE,
        Column("experiment", "VARCHAR", "Name of the experiment."),
        Column("arm", "VARCHAR", "The arm that is compared."),
        Column("baseline", "VARCHAR", "The arm that it is compared with: the baseline, or another."),
        BENCHMARK.of("evaluations.benchmark"),
        TEMPERATURE,
        Column("accuracy", "DOUBLE", "Mean over the arm's seeds and questions.", _OF),
        Column("baseline_accuracy", "DOUBLE", "The same of the baseline, over the same seeds and questions.", _OF),
        Column("difference", "DOUBLE", "Arm less baseline, paired by seed and question.", _OF),
        Column(
            "low",
            "DOUBLE",
            "Lower end of the difference's 95 % interval; NULL, as all that follows from it, where nothing varies.",
            _OF,
            nullable=True,
        ),
        Column("high", "DOUBLE", "Upper end of it.", _OF, nullable=True),
        Column("p", "DOUBLE", "Two-sided p-value of no difference.", _OF, nullable=True),
        Column("p_holm", "DOUBLE", "The same, corrected for all rows of the experiment.", _OF, nullable=True),
        Column("standard_error", "DOUBLE", "Of the difference.", _OF, nullable=True),
        Column("degrees_of_freedom", "DOUBLE", "Of the standard error.", _OF, nullable=True),
        Column(
            "minimum_detectable_effect",
            "DOUBLE",
            "The true difference that such a comparison finds in 80 of 100 repetitions.",
            _OF,
            nullable=True,
        ),
        Column("num_questions", "BIGINT", "Questions that were compared.", _OF),
        Column("num_seeds", "BIGINT", "Seeds that both arms have.", _OF),
        Column("statistics_version", "VARCHAR", "Version of the code that compared."),
        RUN_ID,
    ),
    key=("recipe", "experiment", "arm", "baseline", "benchmark", "temperature"),
    shown=(
        "arm",
        "baseline",
        "benchmark",
        "temperature",
        "difference",
        "low",
        "high",
        "p_holm",
        "minimum_detectable_effect",
    ),
    derived=True,
    in_summary=False,
)

TABLES = (EXPERIMENT_COMPARISONS,)
