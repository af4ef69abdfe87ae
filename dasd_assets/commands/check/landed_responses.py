"""The check of landed responses in `dasd check`: how many there are, and whether their tokens say their texts."""

from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from dasd_assets.commands.check.outcome import NUM_REASONS, CheckFailed, CheckWarning
from dasd_assets.rules.imports import has_teacher
from dasd_resources.chat.landed_text import canonical_response
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.landing.landing_folder import LandingFolder, landing_folder
from dasd_resources.landing.response_files import Landed, LandedResponse, Logprobs, read_responses
from dasd_resources.landing.response_rejections import RejectedResponse
from dasd_resources.recipe import Recipe

NUM_TRIED = 16  # responses whose tokens are read


@dataclass
class Found:
    """What has landed: samples with a response and those with logprobs; rejected ones; the first texts and tokens.

    per_batch: responses, about, of each batch: of a file, or its part of `rows_per_batch` rows, to whose questions they
    are. A response goes with its question, whatever file it stands in. rows: of each file, those with a response.
    """

    rows_per_batch: int | None = None
    per_batch: Counter[tuple[str, int]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    last_row: tuple[str, int] | None = None
    batch_of: dict[str, tuple[str, int]] = field(default_factory=dict)  # a question's
    samples: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    texts: dict[str, LandedResponse] = field(default_factory=dict)
    tokens: dict[str, list[int]] = field(default_factory=dict)
    num_rejected: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, one: Landed) -> None:
        """Count it; of texts and tokens, only the first are kept."""
        match one:
            case LandedResponse():
                self.samples.add(one.sample)
                row = one.source_file, one.source_line
                self.rows[one.source_file] += row != self.last_row
                self.last_row = row
                part = (self.rows[one.source_file] - 1) // self.rows_per_batch if self.rows_per_batch else 0
                self.per_batch[self.batch_of.setdefault(one.prompt_id, (one.source_file, part))] += 1
                if len(self.texts) < NUM_TRIED:
                    self.texts[one.sample] = one
            case Logprobs():
                self.given.add(one.sample)
                if one.sample in self.texts or len(self.tokens) < NUM_TRIED:
                    self.tokens[one.sample] = one.token_ids
            case RejectedResponse():
                self.num_rejected += 1
                if len(self.reasons) < NUM_REASONS:
                    self.reasons.append(f"{one.source_file}:{one.source_line}: {one.reason}")

    @property
    def tried(self) -> Set[str]:
        """Samples of which both text and tokens were kept."""
        return self.texts.keys() & self.tokens.keys()


def landed_responses(recipe: Recipe, home: Path, teacher: PromptedModel | None, found: Found) -> str:
    """How many there are, and how many with logprobs. found: takes them. Raises CheckFailed or CheckWarning."""
    for one in landed(landing_folder(recipe, home), recipe):
        found.add(one)
    num_given = len(found.given & found.samples)
    message = f"{len(found.samples):,} landed, {num_given:,} of them with logprobs"
    if teacher is not None and not teacher.spec.is_proxy:
        _require_texts(found, teacher, message)
    if found.num_rejected:
        raise CheckWarning(f"{message}; {found.num_rejected:,} rejected: {'; '.join(found.reasons)}")
    if not found.samples:
        raise CheckWarning("none has landed")
    if num_given < len(found.samples) and not has_teacher(recipe):
        raise CheckWarning(f"{message}: the others cannot be used until theirs land, or a teacher can score them")
    return message


def _require_texts(found: Found, teacher: PromptedModel, message: str) -> None:
    """Raise CheckFailed if the tokens of one of the first responses do not say its text."""
    for sample in sorted(found.tried):
        one = found.texts[sample]
        if teacher.chat.read_landed(found.tokens[sample]).text != canonical_response(one.text).text:
            raise CheckFailed(
                f"{message}; the token ids of {one.source_file}:{one.source_line} do not say its text: teacher.model "
                "must have the tokenizer that made them, and teacher.thinking_format be the one they are in"
            )


def landed(folder: LandingFolder, recipe: Recipe) -> Iterator[Landed]:
    """What the files of a landing folder bring beside questions."""
    for file, path in folder.local_copies():
        yield from read_responses(path, file.name, recipe.landing.columns)
