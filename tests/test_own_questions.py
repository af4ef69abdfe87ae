"""Questions that a shipped recipe brings: landed where a home has none, and never beside a user's."""

from pathlib import Path

from dasd_assets.commands.own_questions import QUESTIONS, own_questions
from dasd_resources.demo.questions import PROMPT_FILES
from dasd_resources.recipe.load import RECIPES


def test_recipes_that_bring_questions_are_shipped() -> None:
    assert all((RECIPES / f"{name}.yaml").is_file() for name in QUESTIONS)


def test_an_empty_home_gets_them_once(tmp_path: Path) -> None:
    write = own_questions("demo", tmp_path, [])
    assert write is not None
    assert [path.name for path in write(tmp_path / "prompts")] == list(PROMPT_FILES)
    assert own_questions("demo", tmp_path, []) is None
    (tmp_path / "prompts" / PROMPT_FILES[1]).unlink()  # the run was killed after the first
    assert own_questions("demo", tmp_path, []) is not None
    assert own_questions("demo", tmp_path, ["chain_sum_a-0123456789ab"]) is None


def test_a_home_with_questions_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "mine.jsonl").touch()
    assert own_questions("demo", tmp_path, []) is None
    assert own_questions("dasd-4b", tmp_path / "other", []) is None
    assert own_questions(None, tmp_path / "other", []) is None  # a default is not asked for
