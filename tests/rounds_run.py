"""`dasd run` of batches in rounds that is killed at a moment of its own: as it says something, or asks its engine.

Started from a forkserver.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from test_engine_catalogue import KeepingProject, TellingChainSums, slow_to_load

from dasd_assets.commands.run import RunFailed
from dasd_resources.inference.engine import Failure
from dasd_resources.inference.engine_catalogue import ApiKey
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.inference.kept_loaded import free_kept_engine
from dasd_resources.recipe import load_recipe

MADE = "all that was wanted is made"


@dataclass
class Events(list[str]):
    """What a run says, which ends when it is to make `end`.

    fails: whether one in three requests fails, whenever it is asked. at: called at each event, of the engine's, too.
    """

    fails: bool
    end: str
    at: Callable[[str], None] = lambda event: None

    def append(self, line: str) -> None:
        self.at(line)
        super().append(line)
        if self.end in line:
            raise RunFailed(MADE)

    def load(self, model: PromptedModel, api_key: ApiKey) -> TellingChainSums:
        return TellingChainSums(model, self.failed)

    def failed(self, role: str, request_id: str, what: str) -> Failure | None:
        """The failure of a request, if it is no check's."""
        self.at(f"{role} {what}")
        drawn = int(request_id[:4] if role == "teacher" else request_id[4:8], 16)
        fails = self.fails and what != "scores again" and drawn % 3 == 0
        return Failure(request_id, "told to fail", "engine_error") if fails else None


def make(home: Path, recipe: Path, events: Events) -> None:
    """Up to the events' end. Raises RunFailed where a batch fails."""
    with slow_to_load(events.load):
        try:
            KeepingProject(home, load_recipe(str(recipe)), said=events).run()
        except RunFailed as error:
            if str(error) != MADE:
                raise
        finally:
            free_kept_engine()


def main(home: Path, recipe: Path, fails: bool, end: str, killed_at: str, number: int) -> None:
    """Killed at the event of this number among those that begin so, if it comes to that."""
    left = iter(range(number - 1, -1, -1))

    def kill(event: str) -> None:
        if event.startswith(killed_at) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    make(home, recipe, Events(fails, end, kill))
