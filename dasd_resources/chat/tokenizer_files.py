"""The one loader of tokenizers: a model folder in, a tokenizer out that has been tried both ways.

transformers builds many tokenizers anew from their vocabulary, by the class that the folder names: how text is split,
normalized and decoded is then the class's affair, whatever tokenizer.json says. Where a folder names the wrong class,
spaces are lost or words cut otherwise than in training, without an error. So what the class made is compared with
tokenizer.json on texts that tokenizers disagree on; where the two differ, tokenizer.json counts. Left out: anything
that needs a recipe; `Chat.load` tries the chat template.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tokenizers import Tokenizer

from dasd_resources.chat.split_pattern import pattern_doubts, pattern_warnings
from dasd_resources.chat.tokenizer_probe import FILE, PLAIN, around_controls, difference, losses
from dasd_resources.recipe import RecipeError

if TYPE_CHECKING:  # the import loads torch: seconds that reading a recipe need not cost
    from transformers import TokenizersBackend

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Where a tokenizer is from: made by its `class`, or tokenizer.json's own in its place; `reason` says why.

    doubts: what a person should know of, each a clause about the tokenizer.
    """

    source: Literal["class", "tokenizer.json"]
    reason: str
    doubts: tuple[str, ...] = ()

    @property
    def replaces_class(self) -> bool:
        """Whether ids and texts are others than the class that the folder names would give."""
        return self.source == FILE


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer that keeps text, and where it is from."""

    tokenizer: "TokenizersBackend"
    origin: Origin


@dataclass(frozen=True)
class _Made:
    """What transformers made of a folder: a tokenizer or why there is none; and whether it warned of its pattern."""

    tokenizer: "TokenizersBackend | None"
    name: str
    failure: Exception | None
    warned: bool


def load_tokenizer(path: Path) -> LoadedTokenizer:
    """The tokenizer of a model folder. RecipeError, a clause about the model, if none can be read or it loses text."""
    made = _by_class(path)
    chosen = _chosen(path, made)
    tokenizer = chosen.tokenizer.backend_tokenizer
    doubts = (*losses(tokenizer), *pattern_doubts(path, made.warned, tokenizer))
    for doubt in doubts:
        log.warning("the tokenizer of %s: %s", path, doubt)
    return LoadedTokenizer(chosen.tokenizer, Origin(chosen.origin.source, chosen.origin.reason, doubts))


def _by_class(path: Path) -> _Made:
    from transformers import AutoTokenizer, TokenizersBackend

    with pattern_warnings() as warnings:
        try:
            made = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # a class fails as it likes on files that are not its own: TypeError, Rust's errors
            return _Made(None, "", error, bool(warnings))
    name = type(made).__name__
    return _Made(made if isinstance(made, TokenizersBackend) else None, name, None, bool(warnings))


def _chosen(path: Path, made: _Made) -> LoadedTokenizer:
    """The class's tokenizer if it is tokenizer.json's own in all but name, else that."""
    from transformers import TokenizersBackend

    if not (path / FILE).is_file():
        if made.tokenizer is None and made.failure is None:
            raise RecipeError(f"its tokenizer is a {made.name}, without known offsets; put its {FILE} into {path}")
        if made.tokenizer is None:
            raise RecipeError(f"no tokenizer can be read from {path}; put the model's {FILE} there") from made.failure
        return LoadedTokenizer(
            made.tokenizer, Origin("class", f"made by {made.name}, with no {FILE} to compare it with")
        )
    if type(made.tokenizer) is TokenizersBackend:
        return LoadedTokenizer(made.tokenizer, Origin("class", f"{FILE}'s own"))
    if made.tokenizer is None:
        said = f"{type(made.failure).__name__}" if made.failure else f"{made.name} has no offsets"
        return LoadedTokenizer(_of_file(path), Origin(FILE, f"the class that the folder names is of no use ({said})"))
    return _compared(path, made.tokenizer, made.name)


def _compared(path: Path, tokenizer: "TokenizersBackend", name: str) -> LoadedTokenizer:
    agrees = LoadedTokenizer(tokenizer, Origin("class", f"made by {name}, as {FILE} says"))
    # tokenizer.json alone first: with the settings of the other files it takes three times as long, and only where
    # these add tokens do they matter.
    alone = _read(path)
    prompts = _conversations(tokenizer) or [around_controls(alone)]
    if difference(tokenizer.backend_tokenizer, alone, name, prompts) is None:
        return agrees
    own = _of_file(path)
    found = difference(tokenizer.backend_tokenizer, own.backend_tokenizer, name, prompts)
    return agrees if found is None else LoadedTokenizer(own, Origin(FILE, found))


def _read(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path / FILE))
    except Exception as error:  # the library's only kind
        raise RecipeError(f"its {FILE} cannot be read ({error}); copy or download it again") from error


def _of_file(path: Path) -> "TokenizersBackend":
    """tokenizer.json's own, with the special tokens, chat template and settings of the files beside it."""
    from transformers import TokenizersBackend

    with pattern_warnings():
        try:
            tokenizer: TokenizersBackend = TokenizersBackend.from_pretrained(path, local_files_only=True)
        except Exception as error:
            raise RecipeError(f"its {FILE} cannot be read ({error}); copy or download it again") from error
    return tokenizer


def _conversations(tokenizer: "TokenizersBackend") -> list[str]:
    """A question, and one with its answer, as the chat template writes them, if it does without further settings."""
    asked, answered = {"role": "user", "content": PLAIN[0]}, {"role": "assistant", "content": PLAIN[2]}
    try:
        prompt = tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
        return [str(prompt), str(tokenizer.apply_chat_template([asked, answered], tokenize=False))]
    except Exception:  # no template, or one that wants what only a recipe has; `Chat.load` tries it as the recipe does
        return []
