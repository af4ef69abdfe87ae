"""A recipe's benchmark -> its questions, each with what judges it; the first that cannot be judged is an error."""

from collections.abc import Iterator
from pathlib import Path

from dasd_resources.benchmarks.choices import with_shuffled_choices
from dasd_resources.benchmarks.generated import generated_prompts
from dasd_resources.benchmarks.layouts import LAYOUTS
from dasd_resources.landing.prompt_files import Fields, InvalidRow, Prompt, QuestionPart, mapped_row, read_prompts
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES
from dasd_resources.recipe import Benchmark, Columns, RecipeError
from dasd_resources.verifiers.packed_tests import TooManyTests, packed
from dasd_resources.visible_text import excerpt


def benchmark_prompts(benchmark: Benchmark) -> Iterator[Prompt]:
    """The questions in order. Raises RecipeError, naming the recipe's key and the line, for one that is of no use."""
    key = f"evaluation.benchmarks {benchmark.name}"
    if benchmark.task is not None:
        try:
            yield from generated_prompts(benchmark.task)
        except RecipeError as error:
            raise RecipeError(f"{key}: task: {error}") from None
        return
    key = f"{key}: path {benchmark.path}"
    if benchmark.path is None or not Path(benchmark.path).is_file():
        raise RecipeError(f"{key}: there is no such file; {_what_to_put(benchmark)}")
    for record in _records(Path(benchmark.path), benchmark):
        if isinstance(record, RejectedPrompt) and record.line is not None:
            record = record.line  # the same question with another answer may be held out, too
        if isinstance(record, RejectedPrompt):
            raise RecipeError(f"{key}, line {record.source_line}: {record.reason}; correct or remove the line")
        if record.verifier is None:
            raise RecipeError(f"{key}, line {record.source_line}: no verifier, so no answer could be judged; name one")
        yield record


def _what_to_put(benchmark: Benchmark) -> str:
    if benchmark.layout is not None:
        return (
            f"put one there, as downloaded ({LAYOUTS[benchmark.layout].source}), or name another in a recipe of yours"
        )
    return (
        "put one there, in the format of the prompt files (docs/landing.md; every line with a verifier), or name "
        "another in a recipe of your own"
    )


def _records(path: Path, benchmark: Benchmark) -> Iterator[Prompt | RejectedPrompt]:
    mappings = [benchmark.columns] if benchmark.columns else []
    if benchmark.layout is None:
        return read_prompts(path, mappings=mappings)
    layout = LAYOUTS[benchmark.layout]
    most = max(layout.max_row_bytes, MAX_ROW_BYTES)
    return read_prompts(
        path, mappings=mappings, part=_part_in(benchmark.layout, benchmark.shuffle_seed), max_row_bytes=most
    )


def _part_in(name: str, seed: int) -> QuestionPart:
    """How a row of that layout becomes a question."""
    layout = LAYOUTS[name]

    def part(row: Fields, columns: Columns | None) -> Fields:
        prepared = with_shuffled_choices(row, "Question", layout.choices, seed) if layout.choices else row
        ours = mapped_row(prepared, columns)
        if ours.get("question") is None:
            keys = excerpt(sorted(row))
            raise InvalidRow(
                "missing_question", f"no row in the layout {name}, of {layout.source}; its keys are {keys}"
            )
        if layout.tests:
            ours = {**ours, "metadata": _with_packed_tests(ours["metadata"], layout.tests)}
        # A mapping sets a verifier only beside a reference answer: here, one that is missing is an error.
        return {**ours, "verifier": layout.verifier}

    return part


def _with_packed_tests(metadata: object, keys: tuple[str, ...]) -> Fields:
    """The metadata with long tests compressed. Raises InvalidRow for more than a question may have."""
    assert isinstance(metadata, dict), "the layout keeps named columns"
    try:
        tests = {key: packed(value) for key, value in metadata.items() if key in keys and isinstance(value, str)}
    except TooManyTests as error:
        raise InvalidRow("row_too_long", str(error)) from None
    return {**metadata, **tests}
