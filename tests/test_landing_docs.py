"""docs/landing.md: its recipes are valid and do what is said, its tables are those of the code."""

import re
from pathlib import Path

import yaml

from dasd_resources.landing.columns import mapped
from dasd_resources.landing.row_files.formats import SUFFIXES
from dasd_resources.recipe import Columns, Landing, columns_for
from dasd_resources.recipe.landing_settings import Source
from dasd_resources.recipe.ready_columns import READY_COLUMNS

PAGE = (Path(__file__).parents[1] / "docs" / "landing.md").read_text(encoding="utf-8")
SHORTCUTS, FULL = (
    Landing.model_validate(yaml.safe_load(text)["landing"]) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
)


def ready_rows() -> list[str]:
    """The table of ready mappings."""
    return [
        f"| `{name}` | {READY_COLUMNS[name].dataset} | {' | '.join(cells(name))} |" for name in sorted(READY_COLUMNS)
    ]


def cells(name: str) -> list[str]:
    columns = Columns.model_validate({"ready": name})
    taken = [
        ", ".join(shown(source) for source in sources or ()) for sources in (columns.question, columns.reference_answer)
    ]
    verifiers = ", ".join(f"`{source.constant}`" for source in columns.verifier or ())
    return [*taken, verifiers, ", ".join(f"`{kept}`" for kept in columns.metadata or ())]


def shown(source: Source) -> str:
    extra = f" after `{source.after}`" if source.after else ", its last box" if source.boxed else ""
    return f"`{source.paths[0]}`{extra}"


def test_the_table_of_ready_mappings_is_the_codes() -> None:
    table = PAGE.split("| name | dataset |")[1].split("\n\n")[0].splitlines()[2:]
    assert table == ready_rows()


def test_every_suffix_is_in_the_table_of_formats() -> None:
    table = PAGE.split("| suffix | rows |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\.\w+)`", table))
    assert {part for suffix in SUFFIXES for part in re.findall(r"\.\w+", suffix)} == named


def test_every_field_of_a_source_is_in_the_table_of_sources() -> None:
    table = PAGE.split("| of a source | says |")[1].split("\n\n")[0]
    assert {name for name in Source.model_fields if f"`{name}" not in table} == set()


def test_the_recipes_do_what_is_said() -> None:
    assert [columns.ready for columns in SHORTCUTS.columns] == ["openthoughts3"]
    gsm8k, quiz, rest = (
        columns_for(FULL.columns, name) for name in ("gsm8k/train.jsonl", "exams/1.csv", "other.jsonl")
    )
    assert gsm8k and quiz and rest
    assert mapped(gsm8k, {"id": 1, "question": "q", "answer": "#### 5"})["metadata"] == {"id": 1}
    row = {
        "stem": "Which?",
        "options": ["x", "y"],
        "answer": "y",
        "subject": "phys",
        "year": 3,
        "info": {"source": "s"},
    }
    assert mapped(quiz, row) == {
        **{"question": "Which?\n\nA. x\nB. y", "reference_answer": "B", "verifier": "multiple_choice"},
        **{"domain": "physics", "metadata": {"year": 3, "info.source": "s"}},
    }
    talk = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert mapped(rest, {"conversations": talk, "solution": r"\boxed{5}", "kind": "algebra"}) == {
        **{"question": "q", "system_prompt": "s", "reference_answer": "5", "verifier": "math", "kind": "algebra"},
    }
