"""What there is to do: how many questions of which domains, which benchmarks, which models, on which machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from dasd_assets.plan.hardware import Machine
from dasd_assets.plan.model_size import ModelSize


@dataclass(frozen=True)
class Scope:
    """questions: domain -> how many land. num_batches: files, or parts of large ones.

    benchmarks: name -> questions in it. answered_before: checkpoints whose answers to the benchmarks are there already
    (a pilot's second pass).
    """

    questions: Mapping[str, float]
    num_batches: int
    benchmarks: Mapping[str, int]
    teacher: ModelSize
    student: ModelSize
    machine: Machine
    answered_before: frozenset[str] = frozenset()

    @property
    def num_questions(self) -> float:
        return sum(self.questions.values())
