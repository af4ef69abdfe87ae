"""The questions that some shipped recipes bring with them: `dasd run --recipe demo` works in an empty folder."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from dasd_resources.home import LANDING_FOLDER

Write = Callable[[Path], Sequence[Path]]
QUESTIONS = {"demo": "dasd_resources.demo.questions", "school": "dasd_resources.school.questions"}


def own_questions(recipe: str | None, home: Path, batches: Sequence[str]) -> Write | None:
    """What puts the recipe's own questions into a folder; None where it has none, or the home has questions.

    recipe: as it was asked for. Of several files some may be there, if a run was killed: then the others are lacking.
    """
    if recipe not in QUESTIONS or batches:
        return None
    folder = home / LANDING_FOLDER
    landed = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()
    questions = import_module(QUESTIONS[recipe])  # slow: reasoning-gym
    write: Write = questions.write_prompt_files
    return write if landed < set(questions.PROMPT_FILES) else None
