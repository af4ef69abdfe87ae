"""What is out of date as steps: their order, what holds up what, and what their identity follows."""

from dasd_assets.service.staleness import Stale
from dasd_assets.service.steps import Step, ready, steps_of

DATA = {"model", "prompts", "responses", "selected"}
ROOTS = {"model", "questions"}


def stale(asset: str, batch: str | None = None, wanted: str = "", retry: bool = False) -> Stale:
    return Stale(asset, batch, "never materialized", wanted, retry)


def steps(*found: Stale) -> list[Step]:
    return steps_of(found, DATA, ROOTS)


def names(found: list[Step]) -> list[tuple[str, str | None, list[str]]]:
    return [(step.level, step.batch, step.assets) for step in found]


def test_models_come_first_then_each_batch_then_selection_then_training() -> None:
    found = steps(
        stale("questions"),
        stale("model"),
        stale("prompts", "b"),
        stale("prompts", "a"),
        stale("responses", "b"),
        stale("selected"),
        stale("report"),
    )
    assert names(found) == [
        ("models", None, ["model"]),
        ("batch", "b", ["prompts", "responses"]),
        ("batch", "a", ["prompts"]),
        ("selection", None, ["selected"]),
        ("training", None, ["questions", "report"]),
    ]
    assert names(ready(found)) == names(found[:1])
    assert names(ready(found[1:])) == names(found[1:3])
    assert names(ready(found[3:])) == names(found[3:4])


def test_what_only_tries_failed_rows_again_holds_nothing_up() -> None:
    found = steps(stale("responses", "a", retry=True), stale("selected"), stale("report"))
    assert [step.level for step in ready(found)] == ["batch", "selection"]
    found = steps(stale("responses", "a", retry=True), stale("prompts", "a"), stale("selected"))
    assert [step.level for step in ready(found)] == ["batch"]


def test_the_identity_is_what_is_wanted_and_nothing_else() -> None:
    [one] = steps(stale("prompts", "a", "1"), stale("responses", "a", "2"))
    [same] = steps(Stale("prompts", "a", "changed", "1"), Stale("responses", "a", "changed", "2"))
    [other] = steps(stale("prompts", "a", "1"), stale("responses", "a", "3"))
    [less] = steps(stale("responses", "a", "2"))
    assert one.identity == same.identity
    assert len({one.identity, other.identity, less.identity}) == 3


def test_a_step_tells_its_runs_what_they_are_for() -> None:
    [batch] = steps(stale("prompts", "a"))
    [training] = steps(stale("report"))
    assert batch.tags == {"dasd.target": "a", ".dagster/dasd_step": batch.identity}
    assert training.target == "training"
    assert batch.why == "prompts (never materialized)"
