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
from dasd_resources.recipe.parts import AddedLater, Part, deciding, is_unset
from dasd_resources.recipe.provenance_settings import Provenance
from dasd_resources.recipe.selection_settings import Filters, Selection
from dasd_resources.recipe.service_settings import Automation, Checks, Freshness, Maintenance, Owner
from dasd_resources.recipe.training_settings import MixedPolicy, Training
from dasd_resources.recipe.verification_settings import Verification


class Recipe(Part):
    """All settings of one distillation. `version(…)` hashes the parts that a stage depends on, and no others."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # as large as the trainer's random generators take
    teacher: Model
    student: Model
    decontamination: Decontamination | None = Decontamination()
    near_duplicates: Annotated[NearDuplicates | None, AddedLater] = None
    generation: Generation
    imports: Imports | None = None  # instead of sampling
    parity: Parity = Parity()
    filters: Filters
    verification: Verification = Verification()
    selection: Selection
    selection_from: Annotated[str | None, AddedLater] = None  # the recipe whose selection this one is trained on
    training: Training
    mixed_policy: MixedPolicy
    evaluation: Evaluation
    provenance: Annotated[Provenance | None, AddedLater] = None  # a forward pass of three models an answer
    heldout: Annotated[HeldOut | None, AddedLater] = None  # a forward pass of every checkpoint a response
    export: Export | None = None
    maintenance: Maintenance = Maintenance()
    landing: Landing = Landing()
    automation: Automation = Automation()
    checks: Checks = Checks()
    freshness: Freshness = Freshness()
    owners: tuple[Owner, ...] = Field(default=("team:distillation",), strict=False)

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
                f"student.engine must be {' or '.join(local_engines())}: its checkpoints are made here, not served"
            )
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
        *sections, key = path.split(".")
        section: Part | None = self
        for name in sections:
            section = section and getattr(section, name)
        return section is not None and is_unset(section, key)

    def _part(self, path: str) -> object:
        """Of a section that is left out, every part is None."""
        value: object = self
        for key in path.split("."):
            value = None if value is None else getattr(value, key)
        return deciding(value)


def _of_asking(generation: Generation) -> str | None:
    """The first key that decides what is asked, and how, if one is set."""
    return next((key for key in ("instructions", "questions_per_domain") if getattr(generation, key)), None)
