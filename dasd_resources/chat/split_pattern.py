"""How text is split before it is tokenised, where a Mistral model's files contradict each other.

Some of Mistral's models were published with another split pattern in tokenizer.json than in tekken.json, by which they
were trained, and transformers warns of it, of sound models too. What the warning is worth is decided here.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Regex, Tokenizer, pre_tokenizers

from dasd_resources.chat.tokenizer_probe import PLAIN, WORLD, difference
from dasd_resources.recipe import RecipeError

# Where transformers writes of a pattern, and what it calls it.
LOGGER, WARNING = "transformers.tokenization_utils_tokenizers", "incorrect regex pattern"
MISTRAL_TYPES = ("mistral", "mistral3", "ministral", "ministral3", "mixtral", "pixtral", "voxtral")


@contextmanager
def pattern_warnings() -> Iterator[list[str]]:
    """Collects transformers' warnings of a pattern instead of printing them: what they are worth is looked into."""
    found: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        warned = WARNING in record.getMessage()  # transformers gives it no code
        if warned:
            found.append(record.getMessage())
        return not warned

    logger, level = logging.getLogger(LOGGER), logging.getLogger(LOGGER).level
    logger.addFilter(collect)
    logger.setLevel(logging.WARNING)  # else a caller that quietens transformers would hide what is looked for
    try:
        yield found
    finally:
        logger.setLevel(level)
        logger.removeFilter(collect)


def pattern_doubts(path: Path, warned: bool, tokenizer: Tokenizer) -> Iterator[str]:
    """What is to be said of how a tokenizer splits text, if transformers `warned` of it.

    A tekken.json decides: RecipeError if it splits otherwise. transformers also warns of models of other families whose
    config.json names no version of transformers: they are split as tokenizer.json says, and nothing is amiss.
    """
    tekken = path / "tekken.json"
    if tekken.is_file():
        _check_tekken(tekken, tokenizer)
    elif warned and _model_type(path) in MISTRAL_TYPES and (found := _difference_of_fix(path, tokenizer)):
        yield (
            f"transformers takes its split pattern for the wrong one of some Mistral models ({found}); "
            'tokenizer.json\'s is used: set "fix_mistral_regex" in tokenizer_config.json to true if the model was '
            "trained with tekken's pattern, to false if not"
        )


def _check_tekken(file: Path, tokenizer: Tokenizer) -> None:
    pattern = json.loads(file.read_text(encoding="utf-8")).get("config", {}).get("pattern", "")
    tekken = pre_tokenizers.Split(Regex(pattern), "isolated")
    for text in (*PLAIN, *WORLD):
        splits = [(step.pre_tokenize_str(text) if step else []) for step in (tekken, tokenizer.pre_tokenizer)]
        ends = [[end for _, (_, end) in split] for split in splits]
        if ends[0] != ends[1]:
            at = min(set(ends[0]) ^ set(ends[1]))
            raise RecipeError(
                f"its tokenizer.json splits {text[max(0, at - 8) : at + 8]!r} otherwise than its tekken.json; set "
                '"fix_mistral_regex" to true in its tokenizer_config.json, or remove tekken.json if the model is not '
                "trained with that"
            )


def _difference_of_fix(path: Path, tokenizer: Tokenizer) -> str | None:
    """Where the pattern that transformers would put in place of tokenizer.json's gives other ids."""
    from transformers import TokenizersBackend

    fixed = TokenizersBackend.from_pretrained(path, local_files_only=True, fix_mistral_regex=True)
    return difference(fixed.backend_tokenizer, tokenizer, "tekken's", ())


def _model_type(path: Path) -> str | None:
    config = path / "config.json"
    found = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
    return found if isinstance(found, str) else None
