"""Many batches in rounds: what is made first, what is checked when, and what is left as it was."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby, pairwise
from pathlib import Path

import dagster as dg
import pytest
from conftest import change

from dasd_assets.definitions import build_definitions
from dasd_assets.records.quarantine import Quarantine, Quarantined
from dasd_assets.service.attempts import Attempt
from dasd_assets.service.jobs import executor
from dasd_assets.service.planning import STEPS_PER_LOOK, Planner, Tables
from dasd_assets.service.rounds import Part, Round, in_order, next_part, rounds
from dasd_assets.service.staleness import NEVER, Cause, Stale
from dasd_assets.service.steps import LEVELS, Step, marked_unproven, steps_of
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.warehouse import Warehouse

ROUNDS = [
    Round(frozenset({"prompts"}), frozenset()),
    Round(frozenset({"prompts", "responses"}), frozenset({"responses"})),
    Round(frozenset({"prompts", "responses", "verdicts"}), frozenset()),
    Round(frozenset({"prompts", "responses", "verdicts", "scores"}), frozenset({"scores"})),
]
ORDER = ["prompts", "responses", "verdicts", "scores", "sentences"]


def step(batch: str, first: str, only_check: bool = False, retry: bool = False) -> Step:
    """A batch that is out of date from an asset on; that one perhaps for its check alone."""
    found = [
        Stale(asset, batch, NEVER, asset, retry, (Cause("check" if only_check and asset == first else "never", ""),))
        for asset in ORDER[ORDER.index(first) :]
    ]
    [one] = steps_of(found, set(), set())
    return one


def attempts(*steps: Step) -> list[Attempt]:
    return [Attempt(step, 1) for step in steps]


def told(*steps: Step) -> tuple[str | None, list[str], list[str]]:
    part = next_part(attempts(*steps), ROUNDS)
    return part.step.batch, part.step.assets, sorted(part.unchecked)


def test_all_batches_get_responses_before_one_is_checked_and_so_on() -> None:
    """What needs no model is made of all batches by itself: meanwhile an idle model would be freed."""
    new, unsampled, sampled = step("a", "prompts"), step("b", "responses"), step("c", "responses", only_check=True)
    checked, judged = step("d", "verdicts"), step("e", "scores")
    scored, other = step("f", "scores", only_check=True), step("g", "sentences")
    assert told(other, scored, judged, checked, sampled, unsampled, new) == ("a", ["prompts"], [])
    assert told(other, scored, judged, checked, sampled, unsampled) == ("b", ["responses"], ["responses"])
    assert told(other, scored, judged, checked, sampled) == ("c", ["responses"], [])
    assert told(other, scored, judged, checked) == ("d", ["verdicts"], [])
    assert told(other, scored, judged) == ("e", ["scores"], ["scores"])
    assert told(other, scored) == ("f", ["scores"], [])
    assert told(other, other) == ("g", ["sentences"], [])


def test_a_part_is_an_attempt_at_its_whole_step() -> None:
    steps = [step("a", "prompts"), step("b", "prompts")]
    part = next_part(attempts(*steps), ROUNDS).step
    assert (part.identity, part.target, part.tags) == (steps[0].identity, "a", steps[0].tags)


@pytest.mark.parametrize("retry", [False, True])
def test_one_batch_is_made_whole(retry: bool) -> None:
    assert told(step("a", "prompts", retry=retry)) == ("a", ORDER, [])


def of_assets(batch: str, **kinds: str) -> Step:
    """A batch of which these assets are out of date: `never` made, to be checked (`check`), or with `failed` rows."""
    found = [Stale(name, batch, kind, name, kind == "failed", (Cause(kind, ""),)) for name, kind in kinds.items()]
    [one] = steps_of(found, set(), set())
    return one


def test_what_is_but_to_be_checked_is_not_made_again_with_the_rest() -> None:
    """As after a kill between the two assets of a round."""
    both = frozenset({"responses", "responses_hot"})
    first = [Round(frozenset({"prompts", *both}), both)]
    killed = of_assets("a", responses="check", responses_hot="never", verdicts="never")
    part = next_part(attempts(killed, killed), first)
    assert (part.step.assets, part.unchecked, part.only_checks) == (["responses_hot"], both, False)
    made = of_assets("a", responses="check", responses_hot="check", verdicts="never")
    part = next_part(attempts(made, made), first)
    assert (set(part.step.assets), part.only_checks) == (both, True)


def test_a_batch_whose_last_attempt_died_holds_up_no_other() -> None:
    """Wherever it is in the rounds: it may kill this process, too."""
    deadly, other = Attempt(step("a", "responses"), 2, died=True), Attempt(step("b", "sentences"), 1)
    part = next_part([deadly, replace(other, died=True)], ROUNDS)
    assert (part.step.batch, part.step.assets) == ("a", ["responses"])
    assert next_part([deadly, other], ROUNDS, part).step.batch == "b"


def test_failed_rows_are_left_until_all_else_of_the_batch_is_made() -> None:
    mixed = of_assets("a", responses="failed", verdicts="never", sentences="never")
    assert told(mixed, mixed) == ("a", ["verdicts"], [])
    mixed = of_assets("a", responses="failed", sentences="never")
    assert told(mixed, mixed) == ("a", ["sentences"], [])


@pytest.mark.parametrize("gains", [True, False])
def test_failed_rows_of_many_batches_are_asked_again_in_rounds(gains: bool) -> None:
    """Gains: they succeed, and all that follows is made again; else they fail three times in all."""
    asked = Counter[str]()
    due = {f"{number:03}": of_assets(f"{number:03}", responses="failed") for number in range(100)}
    after = {"responses": "verdicts", "verdicts": "scores", "scores": "sentences"}
    made, last = [], None
    while due:
        last = next_part(attempts(*due.values()), ROUNDS, last)
        batch, assets = last.step.batch, last.step.assets
        assert batch is not None
        made.append((tuple(assets), last.only_checks))
        asked[batch] += assets == ["responses"] and not last.only_checks
        name = assets[-1]
        if last.unchecked:
            due[batch] = of_assets(batch, **{name: "check"})
        elif not gains and asked[batch] < 3:
            due[batch] = of_assets(batch, responses="failed")
        elif gains and name in after:
            due[batch] = of_assets(batch, **{after[name]: "never"})
        else:
            del due[batch]
    changes = sum(one != other for one, other in pairwise(made))
    assert set(asked.values()) == {1 if gains else 3}
    assert changes <= 7


def test_without_rounds_batches_are_made_whole() -> None:
    steps = [step("a", "prompts"), step("b", "prompts")]
    assert next_part(attempts(*steps), []) == Part(steps[0])


def test_models_that_take_long_to_load_have_rounds_unless_they_are_turned_off(tmp_path: Path) -> None:
    demo = load_recipe("demo")
    graph = build_definitions(demo, tmp_path).resolve_asset_graph()
    assert rounds(demo, graph) == []
    slow = change(demo, "teacher.engine", "vllm")
    prompts, responses, verdicts, logprobs = rounds(slow, graph)
    sampled = {"teacher_generations_t060", "teacher_generations_t100"}
    assert prompts == Round(frozenset({"prompts"}), frozenset())
    assert responses == Round(prompts.assets | sampled, frozenset(sampled))
    assert verdicts == Round(responses.assets | {"student_tokens", "response_verdicts"}, frozenset())
    assert logprobs == Round(verdicts.assets | {"student_logprobs"}, frozenset({"student_logprobs"}))
    assert rounds(change(slow, "automation.keep_loaded_seconds", 0.0), graph) == []


@pytest.mark.parametrize("ray", [{}, {"gpus": False}])
def test_a_model_on_ray_has_them_too_though_no_step_holds_its_gpu(ray: dict[str, bool], tmp_path: Path) -> None:
    demo = load_recipe("demo")
    graph = build_definitions(demo, tmp_path).resolve_asset_graph()
    on_ray = change(demo, "teacher", {**demo.teacher.model_dump(), "engine": "vllm", "ray": ray})
    assert len(rounds(on_ray, graph)) == 4
    assert executor(on_ray, tmp_path).name == "in_process"
    assert rounds(change(demo, "teacher", {**demo.teacher.model_dump(), "ray": {"gpus": False}}), graph) == []


FEW = load_recipe("demo").automation.check_first_batch_above


def order_of_parts(
    folder: Path, num_batches: int, num_made: int = 0, check_first_above: int = FEW, failed: str | None = None
) -> list[tuple[tuple[str, ...], bool]]:
    """The parts in which new batches are made beside others that are: assets, and whether they were but checked.

    failed: the batch that is quarantined, as its responses failed their check.
    """
    planner = Planner(
        dg.DagsterInstance.ephemeral(),
        dg.Definitions(),
        change(load_recipe("demo"), "automation.check_first_batch_above", check_first_above),
        Engines(home=str(folder)),
        Warehouse(home=str(folder)),
    )
    due = {f"{number:03}": step(f"{number:03}", "prompts") for number in range(num_batches)}
    quarantine = Quarantine({}, {})
    if failed is not None:
        due[failed] = step(failed, "responses", only_check=True)
        row = Quarantined(failed, "its check failed", due[failed].identity, 3, "run", datetime.now(UTC))
        quarantine = Quarantine({failed: row}, {})
    known = [*due, *(f"made {number}" for number in range(num_made))]
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dasd_assets.service.planning.batches", lambda _: known)
        patch.setattr("dasd_assets.service.planning.unfinished_runs", lambda *_: [])
        patch.setattr("dasd_assets.service.planning.runs_of", lambda _, steps: {step.target: [] for step in steps})
        patch.setattr(Planner, "_tables", lambda *_: Tables(quarantine, {}, [], {}))
        patch.setattr(Planner, "_stale", lambda *_: [])
        patch.setattr(Planner, "_steps", lambda *_: list(due.values()))
        last: Part | None = None
        while found := planner.plan(LEVELS, patient=False, of_recipe=ROUNDS).due:
            last = next_part(found, ROUNDS, last)
            batch, assets = last.step.batch, last.step.assets
            assert batch is not None
            made.append((tuple(assets), last.only_checks))
            if last.unchecked:
                due[batch] = step(batch, assets[-1], only_check=True)
            elif assets[-1] != ORDER[-1]:
                due[batch] = step(batch, ORDER[ORDER.index(assets[-1]) + 1])
            else:
                del due[batch]
    return made


def loads(made: list[tuple[tuple[str, ...], bool]]) -> Counter[str]:
    """By what it makes, how often a model is loaded: to work, or to be checked, after it was asked for the other."""
    asked = [(assets[0], checks) for assets, checks in made if assets[0] in ("responses", "scores")]
    return Counter(asset for (asset, _), _ in groupby(asked))


def test_no_model_is_loaded_for_one_batch_where_more_batches_wait_than_are_looked_at(tmp_path: Path) -> None:
    made = order_of_parts(tmp_path, 2 * STEPS_PER_LOOK, num_made=1)
    assert len(made) == 7 * 2 * STEPS_PER_LOOK
    assert sum(one != other for one, other in pairwise(made)) == 6


def test_of_many_batches_the_first_is_checked_before_the_others_are_begun(tmp_path: Path) -> None:
    """Where none has passed yet: what is wrong in all of them costs one. Each model is loaded twice more."""
    many = 2 * STEPS_PER_LOOK
    made = order_of_parts(tmp_path, many)
    sampled = [number for number, part in enumerate(made) if part == (("responses",), False)]
    scored = [number for number, part in enumerate(made) if part == (("scores",), False)]
    assert [made.index((("responses",), True)), made.index((("scores",), True))] == [sampled[0] + 1, scored[0] + 1]
    assert len(made) == 7 * many
    assert sum(one != other for one, other in pairwise(made)) == 6 + 2 * 2
    assert loads(made) == {"responses": 4, "scores": 4}
    few = order_of_parts(tmp_path, FEW)
    assert sum(one != other for one, other in pairwise(few)) == 6
    assert loads(few) == {"responses": 2, "scores": 2}


def test_a_recipe_says_of_how_many_batches_the_first_is_checked_apart(tmp_path: Path) -> None:
    """Of all that wait, of which a plan looks at fewer."""
    made = order_of_parts(tmp_path, 2 * STEPS_PER_LOOK, check_first_above=1000)
    assert loads(made) == {"responses": 2, "scores": 2}
    made = order_of_parts(tmp_path, STEPS_PER_LOOK + 2, check_first_above=STEPS_PER_LOOK + 1)
    assert loads(made) == {"responses": 4, "scores": 4}


def test_after_a_batch_that_failed_its_check_the_next_is_checked_first(tmp_path: Path) -> None:
    """Though fewer are left: those that failed count, too, also when they are quarantined."""
    new = [step(f"{number}", "prompts") for number in range(2, FEW + 1)]
    steps = [step("0", "responses", only_check=True), step("1", "responses", only_check=True), *new]
    first, *others = in_order(marked_unproven(steps, [one.target for one in steps]), ROUNDS, prove_first=True)
    assert first.target == "0"
    part = next_part(attempts(*others), ROUNDS)
    assert (part.step.target, part.only_checks) == ("1", True)
    made = order_of_parts(tmp_path, FEW + 1, failed="000")
    sampled = made.index((("responses",), False))
    assert made[sampled + 1] == (("responses",), True)
