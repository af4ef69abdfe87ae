"""Checks of the questions that landed: how many there are, what keeps some out, whether the recipe fits them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dasd_assets.commands.check.begun_answers import NUM_BEGUN
from dasd_assets.commands.check.outcome import NUM_REASONS, CheckFailed, CheckWarning
from dasd_assets.rules.instructions import as_asked
from dasd_assets.service.landed import not_read, read_later
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.landing.columns import absent_paths
from dasd_resources.landing.landing_folder import LandedFile, LandingFolder, landing_folder
from dasd_resources.landing.prompt_files import Prompt, first_rows, read_prompts
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.response_files import read_questions
from dasd_resources.landing.row_files.formats import FORMATS
from dasd_resources.recipe import Recipe, columns_for
from dasd_resources.visible_text import excerpt

NUM_LOOKED_AT = 100  # first rows of a file, in which a mapping's paths are looked for
_NOT_LANDED = "of which nothing has landed; there are"


@dataclass(frozen=True)
class Prompts:
    """The landed prompts: how many, of which domains and verifiers, the longest one, and the first few.

    per_file: how many each file has.
    """

    num_prompts: int
    longest: Prompt | None
    domains: frozenset[str]
    verifiers: frozenset[str] = frozenset()
    first: tuple[Prompt, ...] = ()
    per_file: Mapping[str, int] = field(default_factory=dict)

    def longest_for(self, model: PromptedModel) -> int:
        """Tokens of the longest one as this model is asked it; 0 where none has landed."""
        longest = self.longest
        return len(model.chat.prompt_ids(longest.question, longest.system_prompt)) if longest else 0


def prompts_landed(recipe: Recipe, home: Path, teacher: PromptedModel | None, landed: list[Prompts]) -> str:
    folder = landing_folder(recipe, home)
    num_prompts, num_rejected, reasons, longest = 0, 0, list[str](), None
    domains, verifiers, first, per_file = set[str](), set[str](), list[Prompt](), Counter[str]()
    for record in landed_records(folder, recipe):
        if isinstance(record, RejectedPrompt):
            num_rejected += 1
            if len(reasons) < NUM_REASONS:
                reasons.append(f"{record.source_file}:{record.source_line}: {record.reason}")
        else:
            num_prompts += 1
            per_file[record.source_file] += 1
            record = _as_asked(recipe, record)
            domains.add(record.domain)
            verifiers |= {record.verifier} if record.verifier else set()
            first += [record] if len(first) < NUM_BEGUN else []
            longest = max(longest or record, record, key=lambda p: _num_characters(p.question, p.system_prompt))
    found = Prompts(num_prompts, longest, frozenset(domains), frozenset(verifiers), tuple(first), per_file)
    landed.append(found)
    length = f", the longest of {found.longest_for(teacher):,} tokens" if teacher else ""
    unread = _unread(folder)
    message = f"{num_prompts:,} in {folder.url}{length}{unread}"
    if num_rejected:
        raise CheckWarning(f"{message}; {num_rejected:,} rejected: {'; '.join(reasons)}")
    if num_prompts and unread:
        raise CheckWarning(message)
    if not num_prompts:
        if recipe.automation.landing is not None and not folder.exists():
            raise CheckFailed(f"automation.landing: {folder.url} is not a folder: fix the recipe, or create it")
        raise CheckWarning(f"none in {folder.url}{unread}: put files there ({FORMATS})")
    return message


def _unread(folder: LandingFolder) -> str:
    """What of the folder is not read, and what cannot be; each begins with a semicolon."""
    files, passed_over = folder.files(), folder.passed_over()
    read = folder.batches(files)
    unreadable = [file.name for file in files if file not in read]
    later = f"; {read_later(unreadable)}" if unreadable else ""
    return (f"; {not_read(passed_over)}" if passed_over else "") + later


def _as_asked(recipe: Recipe, prompt: Prompt) -> Prompt:
    """The prompt with the recipe's instruction below its question, if there is one for its domain."""
    instruction = recipe.generation.instructions.get(prompt.domain)
    return prompt if instruction is None else replace(prompt, question=as_asked(prompt.question, instruction))


def columns(recipe: Recipe, home: Path) -> str:
    """Every path of the mappings is in one of the first rows, at least, of some file that it fits."""
    folder = landing_folder(recipe, home)
    looks = [look for batch, file in folder.keys(folder.files()).items() for look in _look(recipe, folder, batch, file)]
    problems = [problem for number in range(len(recipe.landing.columns)) for problem in _unused(recipe, number, looks)]
    if problems:
        raise CheckWarning("; ".join(problems))
    return f"{len(looks):,} files are mapped, by the paths of their first rows"


@dataclass(frozen=True)
class MappedFile:
    """A file that the mapping of this number fits, and its first rows."""

    number: int
    rows: Sequence[Mapping[str, object]]


def _look(recipe: Recipe, folder: LandingFolder, batch: str, file: LandedFile) -> Iterator[MappedFile]:
    columns = columns_for(recipe.landing.columns, file.name)
    if columns is not None:
        with folder.local_copy(file, batch) as path:
            yield MappedFile(recipe.landing.columns.index(columns), first_rows(path, NUM_LOOKED_AT))


def _unused(recipe: Recipe, number: int, looks: Sequence[MappedFile]) -> Iterator[str]:
    """What of a mapping no file has use for."""
    columns, key = recipe.landing.columns[number], f"landing.columns.{number}"
    rows = [row for look in looks if look.number == number for row in look.rows]
    if not any(look.number == number for look in looks):
        yield f"{key} fits no landed file: {', '.join(columns.where)}"
    elif absent := absent_paths(columns, rows):
        keys = excerpt(sorted({name for row in rows for name in row}))
        yield f"{key}: none of the first {len(rows):,} rows has {', '.join(absent)}; their keys are {keys}"


def _num_characters(question: str, system_prompt: str | None) -> int:
    return len(question) + len(system_prompt or "")


def budgets(recipe: Recipe, prompts: Prompts) -> str:
    """A domain spelled another way in the files than in the budgets, or a dataset left out of them, is kept whole.

    One spelled another way in quotas or instructions is asked whole, and without.
    """
    budgets = recipe.selection.budgets
    if budgets and (missing := [dataset for dataset in recipe.datasets if not budgets.get(dataset)]):
        raise CheckWarning(
            "; ".join(f"{dataset} has no budget: all its responses are kept" for dataset in missing)
            + ". Give it one in selection.budgets if that is not meant"
        )
    for key, settings in (
        ("generation.questions_per_domain", recipe.generation.questions_per_domain),
        ("generation.instructions", recipe.generation.instructions),
    ):
        if prompts.domains and (absent := sorted(set(settings) - prompts.domains)):
            raise CheckWarning(f"{key} names {', '.join(absent)}, {_NOT_LANDED} {', '.join(sorted(prompts.domains))}")
    named = {domain for budget in budgets.values() for domain in budget}
    without, unnamed = sorted(named - prompts.domains), sorted(prompts.domains - named)
    if without and prompts.domains:
        raise CheckWarning(
            f"selection.budgets names {', '.join(without)}, {_NOT_LANDED} {', '.join(sorted(prompts.domains))}. "
            "Domains it does not name keep all their responses"
        )
    return f"all of {', '.join(unnamed)} is kept" if unnamed else "every landed domain has one"


def landed_records(folder: LandingFolder, recipe: Recipe) -> Iterator[Prompt | RejectedPrompt]:
    """What became of every line of the landing folder, file by file."""
    read = read_questions if recipe.imports is not None else read_prompts
    for file, path in folder.local_copies():
        yield from read(path, file.name, recipe.landing.columns)
