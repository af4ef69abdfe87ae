"""Batches in rounds, some rows of which fail perhaps: how often each model is loaded for them, and each row asked."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from conftest import Project, change, prompt_rows
from test_engine_catalogue import KeepingProject, TellingChainSums, on_engine, slow_to_load

from dasd_assets.commands.run import RunFailed
from dasd_assets.records.quarantine import quarantine
from dasd_resources.inference.engine import Failure, FailureKind
from dasd_resources.inference.engine_catalogue import ApiKey
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.inference.kept_loaded import free_kept_engine
from dasd_resources.storage.ledger import MAX_ATTEMPTS

NUM_BATCHES = 2
WORKS, CHECKS = False, True
ROLES = ["teacher", pytest.param("student", marks=pytest.mark.drill)]  # the same code, 30 CPU seconds each
ONCE = {(role, use): 1 for role in ("teacher", "student") for use in (WORKS, CHECKS)}


@dataclass
class Engine:
    """One that takes long to load, or so its entry says: how often it was, what it was asked, and what fails."""

    loads: Counter[tuple[str, bool]] = field(default_factory=Counter)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    fails: Callable[[str, str], bool] = lambda role, request_id: False
    kind: FailureKind = "engine_error"

    def load(self, model: PromptedModel, api_key: ApiKey) -> TellingChainSums:
        self.loads[model.path.name, bool(model.spec.engine_options)] += 1
        return TellingChainSums(model, self.failed)

    def failed(self, role: str, request_id: str, what: str) -> Failure | None:
        """The failure of a request, if it is no check's."""
        if what == "scores again":
            return None
        self.asked[role, request_id] += 1
        return Failure(request_id, "told to fail", self.kind) if self.fails(role, request_id) else None


class Said(list[str]):
    """What a run says, which ends when all batches are made."""

    def append(self, line: str) -> None:
        super().append(line)
        if "selected_responses_t060" in line or "checkpoint_t060" in line:
            raise RunFailed("all batches are made")


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    with slow_to_load(made.load):
        yield made


@pytest.fixture
def own(project: Project, engine: Engine) -> KeepingProject:
    """A home in which NUM_BATCHES files have landed."""
    made = KeepingProject(project.home, change(on_engine(project.recipe), "generation.num_candidates", 2))
    for number in range(NUM_BATCHES):
        land(made, number)
    return made


def land(own: KeepingProject, number: int) -> None:
    own.land(f"{number}.jsonl", prompt_rows(3 * number, 3 * number + 3))


def make_batches(own: KeepingProject, engine: Engine) -> None:
    engine.loads.clear()
    engine.asked.clear()
    own.said = Said()
    with pytest.raises(RunFailed, match="all batches are made"):
        own.run()
    free_kept_engine()
    assert quarantine(own.warehouse).now == {}


def some_of(role: str) -> Callable[[str, str], bool]:
    """A quarter of the requests to a model; some of each batch."""
    return lambda asked, request_id: asked == role and int(request_id[:4], 16) % 4 == 0


def test_of_many_new_batches_the_first_is_checked_apart_and_none_after_raised_limits(
    own: KeepingProject, engine: Engine
) -> None:
    land(own, NUM_BATCHES)  # one more: it and the last share the models
    own.recipe = change(own.recipe, "automation.check_first_batch_above", NUM_BATCHES)
    make_batches(own, engine)
    assert engine.loads == dict.fromkeys(ONCE, 2)
    for role in ("teacher", "student"):
        own.recipe = change(own.recipe, f"parity.{role}.max_mean_difference", 0.5)
    make_batches(own, engine)
    assert engine.loads == {("teacher", CHECKS): 1, ("student", CHECKS): 1}


def test_a_row_that_fails_is_asked_as_often_as_without_rounds(own: KeepingProject, engine: Engine) -> None:
    """And the model is loaded once more for all of them, when all else is made."""
    engine.fails = some_of("teacher")
    make_batches(own, engine)
    failed = own.read("SELECT request_id, num_attempts, batch FROM failed_requests")
    assert failed["batch"].n_unique() == NUM_BATCHES
    assert set(failed["num_attempts"]) == {MAX_ATTEMPTS}
    assert {engine.asked["teacher", request_id] for request_id in failed["request_id"]} == {MAX_ATTEMPTS}
    assert engine.loads == {**ONCE, ("teacher", WORKS): 2}


@pytest.mark.parametrize("role", ROLES)
def test_a_batch_whose_server_is_away_is_not_quarantined(own: KeepingProject, engine: Engine, role: str) -> None:
    """Nor is anything else held up; its rows are asked a few times, and left to a later run, which loads each model
    once for those of all batches.
    """
    engine.kind, engine.fails = "server_unavailable", some_of(role)
    make_batches(own, engine)
    failed = own.read("SELECT batch, num_attempts FROM failed_requests")
    assert failed["batch"].n_unique() == NUM_BATCHES and set(failed["num_attempts"]) == {0}
    assert own.read("SELECT DISTINCT batch FROM response_scores").height == NUM_BATCHES
    assert max(engine.asked.values()) == 1 + MAX_ATTEMPTS
    engine.fails = lambda role, request_id: False
    make_batches(own, engine)
    assert engine.loads == (ONCE if role == "teacher" else {key: 1 for key in ONCE if key[0] == "student"})
    assert own.count("failed_requests") == 0
