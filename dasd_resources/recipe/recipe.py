"""The recipe: all sections, the rules that hold between them, and the hash of any part."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from dasd_resources.content_hash import content_hash
from dasd_resources.dataset_names import MIXED
from dasd_resources.inference.engine_catalogue import ENGINES, local_engines
from dasd_resources.recipe.evaluation_settings import Evaluation
from dasd_resources.recipe.export_settings import Export
from dasd_resources.recipe.generation_settings import Generation, Parity, dataset_name
from dasd_resources.recipe.heldout_settings import HeldOut
from dasd_resources.recipe.import_settings import Imports
from dasd_resources.recipe.landing_settings import Landing
from dasd_resources.recipe.model_settings import Model
from dasd_resources.recipe.overlap_settings import Decontamination, NearDuplicates
from dasd_resources.recipe.parts import AddedLater, DecidesNothing, Part, deciding, is_unset
from dasd_resources.recipe.provenance_settings import Provenance
from dasd_resources.recipe.selection_settings import Filters, Selection
from dasd_resources.recipe.service_settings import Automation, Checks, Freshness, Maintenance, Owner
from dasd_resources.recipe.training_settings import MixedPolicy, Training
from dasd_resources.recipe.verification_settings import Verification


class Recipe(Part):
    """All settings of one distillation. `version(…)` hashes the parts that a stage depends on, and no others.

    Name, teacher, student and benchmarks are to be given; all else has a default: the report's, or ours where it is
    silent.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Of what this recipe makes; several share a home."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42  # as large as the trainer's random generators take
    """Of sampling, of the random control and of training (report §6.4.1)."""
    teacher: Model
    """Who writes the responses."""
    student: Model
    """Who is trained on them."""
    decontamination: Decontamination | None = Decontamination()
    """Questions that a benchmark holds are not asked; null: they are."""
    near_duplicates: Annotated[NearDuplicates | None, AddedLater] = None
    """Of questions that are almost the same, the first alone is asked; null: all are."""
    generation: Generation = Generation()
    """The teacher's responses (report §3)."""
    imports: Imports | None = None
    """Responses that land, instead of sampling (docs/importing.md)."""
    parity: Parity = Parity()
    """A sample of each batch's logprobs is computed again before they are used."""
    filters: Filters = Filters()
    """Which responses may be trained on (report §6.2)."""
    verification: Verification = Verification()
    """Limits of programs that judge an answer."""
    selection: Selection = Selection()
    """Divergence-aware sampling (report §4)."""
    selection_from: Annotated[str | None, AddedLater] = None
    """The recipe whose selection this one is trained on."""
    training: Training = Training()
    """Supervised fine-tuning, a stage for each temperature (report §6.4.1)."""
    mixed_policy: MixedPolicy = MixedPolicy()
    """The last stage: answers that the student began and the teacher finished (report §5)."""
    evaluation: Evaluation
    """Held-out questions that every stage answers (report §7)."""
    provenance: Annotated[Provenance | None, AddedLater] = None
    """Whose sentences the checkpoints' own answers consist of (report §4); three forward passes an answer."""
    heldout: Annotated[HeldOut | None, AddedLater] = None
    """The loss on responses that were not trained on; a forward pass of every checkpoint a response."""
    export: Export | None = None
    """The training sets as a dataset for others; null: when `dasd export` asks for it."""
    maintenance: Maintenance = Maintenance()
    """Of the home, by the service (`dasd ui`); no row depends on it."""
    landing: Landing = Landing()
    """What is made of landed files (docs/landing.md)."""
    automation: Automation = Automation()
    """What the service (`dasd ui`) does by itself; no row depends on it."""
    checks: Checks = Checks()
    """Limits beyond which the web UI warns."""
    freshness: Freshness = Freshness()
    """Days after which the web UI shows an asset as overdue; null: never."""
    experiments: Annotated[tuple[str, ...], DecidesNothing] = Field(default=(), strict=False)
    """Experiments of other recipes, such as those shipped, that this one makes, too (docs/experiments.md)."""
    owners: tuple[Owner, ...] = Field(default=("team:distillation",), strict=False)
    """Shown in the web UI: teams (`team:…`) or e-mail addresses."""

    @model_validator(mode="before")
    @classmethod
    def _student_thinks_as_its_teacher(cls, document: object) -> object:
        """A student that says nothing of its thinking has its teacher's, whose responses it is trained on."""
        if not isinstance(document, Mapping):
            return document
        teacher, student = document.get("teacher"), document.get("student")
        if not isinstance(teacher, Mapping) or not isinstance(student, Mapping) or "thinking" not in teacher:
            return document
        return {**document, "student": {"thinking": teacher["thinking"], **student}}

    @model_validator(mode="before")
    @classmethod
    def _one_context(cls, document: object) -> object:
        """Where only training.max_length is given, a response may be as long, before and after the filters."""
        if not isinstance(document, Mapping):
            return document
        training = document.get("training")
        if not isinstance(training, Mapping) or "max_length" not in training:
            return document
        return {**document, **_with_context(document, training["max_length"])}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.student.thinking != self.teacher.thinking:
            raise ValueError(
                f"student.thinking is {self.student.thinking} and teacher.thinking {self.teacher.thinking}: a student "
                "is trained on its teacher's responses; remove student.thinking"
            )
        if self.student.thinking_format != "think_tags":
            raise ValueError("student.thinking_format must be think_tags: students are trained on canonical text")
        if ENGINES[self.student.engine].served or ENGINES[self.student.engine].absent:
            raise ValueError(
                f"student.engine must be {' or '.join(local_engines())}: its checkpoints are made here, not served; a "
                "server that scores the responses is named in student.scoring_server"
            )
        if self.teacher.scoring_server is not None:
            raise ValueError("teacher.scoring_server means nothing: a teacher's server is teacher.server; rename it")
        if self.student.stands_for is not None:
            raise ValueError("student.stands_for means nothing: only a teacher's responses are imported; remove it")
        if (self.imports is None) != (self.teacher.stands_for is None):
            raise ValueError(
                "imports and teacher.stands_for, the model that wrote the responses (itself: this teacher), go "
                "together; add the other, or remove both"
            )
        if self.imports is not None and (of_asking := _of_asking(self.generation)):
            raise ValueError(
                f"generation.{of_asking} is about asking questions, and imports takes responses that are there; "
                "remove one of the two"
            )
        if self.selection_from == self.name:
            raise ValueError(f"selection_from is {self.name}, this recipe itself; name another, or leave it out")
        unknown = set(self.selection.budgets) - set(self.datasets)
        if unknown:
            raise ValueError(
                f"selection.budgets names {sorted(unknown)}; generation makes {list(self.datasets)}: name only these"
            )
        if unknown := set(self.training.stages) - {*self.datasets, MIXED}:
            raise ValueError(
                f"training.stages names {sorted(unknown)}; the stages are {[*self.datasets, MIXED]}: name only these"
            )
        if self.filters.max_student_tokens > self.training.max_length:
            raise ValueError(
                f"filters.max_student_tokens {self.filters.max_student_tokens} is above training.max_length "
                f"{self.training.max_length}; lower it, such rows would be cut while training"
            )
        self._check_provenance()
        return self

    def _check_provenance(self) -> None:
        if self.provenance is None:
            return
        known = {"benchmarks": tuple(b.name for b in self.evaluation.benchmarks)}
        known["temperatures"] = tuple(f"{t:g}" for t in self.evaluation.temperatures)
        asked = {"benchmarks": self.provenance.benchmarks or ()}
        asked["temperatures"] = tuple(f"{t:g}" for t in self.provenance.temperatures or ())
        for key, names in asked.items():
            if unknown := [name for name in names if name not in known[key]]:
                raise ValueError(
                    f"provenance.{key} names {', '.join(unknown)}; evaluation.{key} has {', '.join(known[key])}: name "
                    "only these"
                )

    @property
    def datasets(self) -> dict[str, float]:
        """Dataset name (`t060`) to sampling temperature, ascending: the order of the training stages."""
        return {dataset_name(t): t for t in self.generation.temperatures}

    @property
    def last_dataset(self) -> str:
        """The highest temperature's dataset: the last off-policy stage, from which rollout questions are drawn."""
        return list(self.datasets)[-1]

    def epochs(self, dataset: str) -> int:
        """Of the stage that trains on a dataset; the mixed-policy stage's are not those of `training`."""
        return self.mixed_policy.epochs if dataset == MIXED else self.training.of(dataset).epochs

    @property
    def quota_scope(self) -> str:
        """Whose rows of `asked_prompts` say which questions are asked: the recipe's, if it has quotas."""
        return self.name if self.generation.questions_per_domain else ""

    def version(self, *parts: str) -> str:
        """Hash of the named parts, each a dotted path such as `selection.divergence`; 12 hex digits."""
        return content_hash(self.parts(*parts))[:12]

    def parts(self, *parts: str) -> dict[str, object]:
        """The named parts as plain values, without those added later that are not set."""
        return {part: self._part(part) for part in parts if not self._is_unset(part)}

    def _is_unset(self, path: str) -> bool:
        """Whether hashes leave out a part, or a section that it is in."""
        section: Part | None = self
        for key in path.split("."):
            if section is None or is_unset(section, key):
                return section is not None
            section = getattr(section, key)
        return False

    def _part(self, path: str) -> object:
        """Of a section that is left out, every part is None."""
        value: object = self
        for key in path.split("."):
            value = None if value is None else getattr(value, key)
        return deciding(value)


def _with_context(document: Mapping[str, object], max_length: object) -> dict[str, object]:
    """The sections whose limit of tokens is the training context, where they give none themselves."""
    filled = dict[str, object]()
    for section, key in (("generation", "max_tokens"), ("filters", "max_student_tokens")):
        given = document.get(section, {})
        if isinstance(given, Mapping):
            filled[section] = {key: max_length, **given}
    return filled


def _of_asking(generation: Generation) -> str | None:
    """The first key that decides what is asked, and how, if one is set."""
    return next((key for key in ("instructions", "questions_per_domain") if getattr(generation, key)), None)
