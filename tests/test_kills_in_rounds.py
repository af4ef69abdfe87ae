"""Batches in rounds under kill -9: within making and within checking, and between the two, also where rows fail."""

import signal
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import rounds_run
import yaml
from conftest import Project, forkserver, prompt_rows
from rounds_run import Events
from test_drill import differences, tables
from test_engine_catalogue import on_engine, slow_to_load

from dasd_assets.records.quarantine import quarantine
from dasd_resources.recipe import Recipe

NUM_BATCHES, NUM_QUESTIONS = 2, 3
NUM_RESPONSES = NUM_BATCHES * NUM_QUESTIONS * 2 * 2  # candidates, temperatures


@dataclass
class Drill:
    """A home in which NUM_BATCHES files have landed, and its runs, up to what they are to make last."""

    folder: Path
    recipe: Recipe
    fails: bool
    end: str

    def begin(self, name: str) -> Project:
        with slow_to_load(Events(self.fails, self.end).load):
            project = Project(self.folder / name, on_engine(self.recipe))
            self.file.write_text(yaml.safe_dump(project.recipe.model_dump(mode="json")))
        for number in range(NUM_BATCHES):
            project.land(f"{number}.jsonl", prompt_rows(NUM_QUESTIONS * number, NUM_QUESTIONS * (number + 1)))
        return project

    @property
    def file(self) -> Path:
        return self.folder / "recipe.yaml"

    def kill(self, home: Path, at: str, number: int) -> bool:
        """Whether a run was killed: it may have ended before."""
        child = forkserver().Process(target=rounds_run.main, args=(home, self.file, self.fails, self.end, at, number))
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        return child.exitcode != 0

    def finish(self, home: Path) -> list[str]:
        """What a run says that nobody kills, without the reasons."""
        events = Events(self.fails, self.end)
        rounds_run.make(home, self.file, events)
        return [line.partition(" (")[0] for line in events if line.startswith(("materializing", "checking"))]


def test_killed_within_and_between_making_and_checking_a_batch_goes_on_where_it_was(
    tmp_path: Path, tiny: Recipe
) -> None:
    """No request is asked twice, nothing is made before its check has passed, and no kill is held against a batch."""
    drill = Drill(tmp_path, tiny, fails=True, end="student_tokens")
    project = drill.begin("home")
    assert drill.kill(project.home, "teacher samples at 1.0", 1)  # the other temperature's asset is made
    assert drill.kill(project.home, "checking", 1)  # both batches are made
    assert drill.kill(project.home, "teacher scores again", 3)  # one of the first batch's two checks has passed
    first, second = sorted({row[0] for row in project.read("SELECT DISTINCT batch FROM responses").rows()})
    assert drill.finish(project.home) == [
        f"checking 1 assets of batch {first}: teacher_generations_t100",
        f"checking 2 assets of batch {second}: teacher_generations_t060",
        f"materializing 2 assets of batch {first}: student_tokens",
    ]
    failed = project.read("SELECT request_id, num_attempts FROM failed_requests")
    ids = [*project.read("SELECT response_id FROM responses")["response_id"], *failed["request_id"]]
    assert len(ids) == len(set(ids)) == NUM_RESPONSES
    assert set(failed["num_attempts"]) == {1}
    assert quarantine(project.warehouse).now == {}


@pytest.mark.drill
@pytest.mark.parametrize("fails", [False, True])
def test_killed_at_any_moment_the_tables_are_those_of_an_undisturbed_run(
    tmp_path: Path, tiny: Recipe, fails: bool
) -> None:
    """Of failed rows, too, each of which is asked three times."""
    drill, rng = Drill(tmp_path, tiny, fails, end="selected_responses_t060"), Random(12)
    undisturbed, project = drill.begin("undisturbed"), drill.begin("home")
    drill.finish(undisturbed.home)
    kills = 0
    for at in ["checking", "materializing", ""] * 100:
        if not drill.kill(project.home, at, rng.randint(2, 3) if at else rng.randint(2, 30)):
            break
        kills += 1
    print(f"{kills} kills")
    assert kills > 1
    ours, theirs = tables(project.home), tables(undisturbed.home)
    assert {name: differences(ours[name], theirs[name]) for name in ours if not ours[name].equals(theirs[name])} == {}
    assert ours["quarantined_batches"].is_empty() and not ours["response_scores"].is_empty()
    assert ours["failed_requests"].is_empty() is not fails
