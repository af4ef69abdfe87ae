"""IFEval's 25 verifiable instructions (Zhou et al. 2023, arXiv 2311.07911): each a function of a response.

Written from the paper's definitions; where they leave something open, the published checker's reading is kept, so that
verdicts agree with the benchmark's. Deviations: keywords are words, not regular expressions; JSON is strict; a language
is identified by py3langid; sentences end at `.`, `!`, `?` and their Chinese forms but for abbreviations, as there is no
tokenizer to load. Every function takes time linear in the response.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from dasd_resources.verifiers.json_answers import is_json

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

Kind = Literal["count", "relation", "text", "texts", "language"]
RELATIONS = ("less than", "at least")
CONSTRAINED_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
MAX_LANGUAGE_CHARS = 20_000  # of a response, by which its language is identified

_WORD = re.compile(r"\w+")
_CAPITAL_WORD = re.compile(r"\w+(?:[.'\u2019&-]\w+)*")
_HIGHLIGHTED = re.compile(r"\*([^\n*]*)\*")
_DOUBLY_HIGHLIGHTED = re.compile(r"\*\*([^\n*]*)\*\*")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"'\u201d\u2019)\]*_]*+(?=\s|$)|[\u3002\uff01\uff1f]+[\u201d\u2019]?")
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|sr|jr|st|vs|e\.g|i\.e|cf|al|fig|no|vol|pp|inc|ltd|co|approx|gen|rep|sen)"
    r"|\b[A-Za-z]|(?:^|\n)\s*\d+)\.$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Given:
    """The arguments of one instruction, already checked."""

    values: Mapping[str, object]

    def count(self, name: str) -> int:
        value = self.values[name]
        assert isinstance(value, int | float)
        return int(value)

    def text(self, name: str) -> str:
        return str(self.values[name])

    def texts(self, name: str) -> list[str]:
        value = self.values[name]
        assert isinstance(value, list)
        return [str(one) for one in value]

    def holds(self, number: int, limit: str, relation: str = "relation") -> bool:
        """Whether a number is less than, or at least, the limit."""
        return (number < self.count(limit)) == (self.text(relation) == "less than")


@dataclass(frozen=True)
class Instruction:
    """follows: whether a response does; arguments: what it needs to know, by IFEval's names."""

    follows: Callable[[str, Given], bool]
    arguments: Mapping[str, Kind]


def _keywords_exist(text: str, given: Given) -> bool:
    return all(word.casefold() in text.casefold() for word in given.texts("keywords"))


def _keyword_frequency(text: str, given: Given) -> bool:
    return given.holds(text.casefold().count(given.text("keyword").strip().casefold()), "frequency")


def _no_forbidden_words(text: str, given: Given) -> bool:
    words = map(re.escape, given.texts("forbidden_words"))
    return not any(re.search(rf"(?<!\w){word}(?!\w)", text, re.IGNORECASE) for word in words)


def _letter_frequency(text: str, given: Given) -> bool:
    return given.holds(text.lower().count(given.text("letter").lower()), "let_frequency", "let_relation")


def _in_language(text: str, given: Given) -> bool:
    return language(text) == given.text("language")


def _number_of_sentences(text: str, given: Given) -> bool:
    return given.holds(num_sentences(text), "num_sentences")


def _number_of_paragraphs(text: str, given: Given) -> bool:
    """Paragraphs between `***`; an empty one only before the first divider or after the last."""
    parts = [part.strip() for part in _DIVIDER.split(text)]
    return all(parts[1:-1]) and len([part for part in parts if part]) == given.count("num_paragraphs")


def _number_of_words(text: str, given: Given) -> bool:
    return given.holds(len(_WORD.findall(text)), "num_words")


def _first_word_of_paragraph(text: str, given: Given) -> bool:
    """Paragraphs between empty lines: so many of them, and the n-th starts with the word."""
    parts = text.split("\n\n")
    number = len([part for part in parts if part.strip()])
    nth = given.count("nth_paragraph")
    if number != given.count("num_paragraphs") or nth > number or not (words := parts[nth - 1].split()):
        return False
    first = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'), maxsplit=1)[0]
    return first.lower() == given.text("first_word").lower()


def _placeholders(text: str, given: Given) -> bool:
    return sum(map(_num_brackets, text.split("\n"))) >= given.count("num_placeholders")


def _num_brackets(line: str) -> int:
    number = at = 0
    while (opened := line.find("[", at)) >= 0 and (closed := line.find("]", opened)) >= 0:
        number, at = number + 1, closed + 1
    return number


def _postscript(text: str, given: Given) -> bool:
    marker = given.text("postscript_marker").strip()
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _bullets(text: str, given: Given) -> bool:
    """Exactly so many lines that start with `*` (not `**`) or `-`."""
    lines = [line.lstrip() for line in text.split("\n")]
    starred = [line for line in lines if line[:1] == "*" and line[1:2] != "*"]
    return len(starred) + len([line for line in lines if line[:1] == "-"]) == given.count("num_bullets")


def _constrained_response(text: str, given: Given) -> bool:
    return any(option in text for option in CONSTRAINED_RESPONSES)


def _highlights(text: str, given: Given) -> bool:
    """At least so many `*parts*` that are not empty; `**part**` is one, too."""
    found = [*_HIGHLIGHTED.findall(text), *_DOUBLY_HIGHLIGHTED.findall(text)]
    return len([part for part in found if part.strip()]) >= given.count("num_highlights")


def _sections(text: str, given: Given) -> bool:
    splitter = re.escape(given.text("section_spliter").strip())
    return len(re.findall(rf"{splitter}\s?\d+", text)) >= given.count("num_sections")


def _json_format(text: str, given: Given) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    return is_json(text.removesuffix("```"))


def _title(text: str, given: Given) -> bool:
    """A line with `<<title>>`."""
    for line in text.split("\n"):
        opened, closed = line.find("<<"), line.rfind(">>")
        if 0 <= opened < closed and line[opened:closed].strip("<> \t"):
            return True
    return False


def _two_responses(text: str, given: Given) -> bool:
    """Two different ones with `******` between, and before and after them at most."""
    parts = [part.strip() for part in text.split("******")]
    responses = [part for part in parts if part]
    return all(parts[1:-1]) and len(responses) == 2 and responses[0] != responses[1]


def _repeats_prompt(text: str, given: Given) -> bool:
    return text.strip().lower().startswith(given.text("prompt_to_repeat").strip().lower())


def _ends_with(text: str, given: Given) -> bool:
    return text.strip().strip('"').lower().endswith(given.text("end_phrase").strip().lower())


def _quoted(text: str, given: Given) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_words(text: str, given: Given) -> bool:
    words = [word for word in _CAPITAL_WORD.findall(text) if word.isupper()]
    return given.holds(len(words), "capital_frequency", "capital_relation")


def _all_capitals(text: str, given: Given) -> bool:
    return text.isupper() and language(text.lower()) == "en"


def _all_lower_case(text: str, given: Given) -> bool:
    return text.islower() and language(text) == "en"


def _no_comma(text: str, given: Given) -> bool:
    return "," not in text


def num_sentences(text: str) -> int:
    """How many sentences a text has; what follows the last full stop is one, too."""
    number, start = 0, 0
    for end in _SENTENCE_END.finditer(text):
        said = text[max(start, end.start() - 20) : end.start() + 1]
        if re.search(r"\w", said) and not (end[0] == "." and end.end() < len(text) and _ABBREVIATION.search(said)):
            number, start = number + 1, end.end()
    return number + (re.search(r"\w", text[start:]) is not None)


def language(text: str) -> str:
    """ISO 639-1 code of the language of a text."""
    return str(_identifier().classify(text[:MAX_LANGUAGE_CHARS])[0])


@cache
def languages() -> frozenset[str]:
    """All codes that `language` may return."""
    return frozenset(map(str, _identifier().labels))


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import (  # with its model 1 s, which only its first use should pay
        MODEL_FILE,
        LanguageIdentifier,
    )

    return LanguageIdentifier.from_model_file(MODEL_FILE)


INSTRUCTIONS: dict[str, Instruction] = {
    "change_case:capital_word_frequency": Instruction(
        _capital_words, {"capital_frequency": "count", "capital_relation": "relation"}
    ),
    "change_case:english_capital": Instruction(_all_capitals, {}),
    "change_case:english_lowercase": Instruction(_all_lower_case, {}),
    "combination:repeat_prompt": Instruction(_repeats_prompt, {"prompt_to_repeat": "text"}),
    "combination:two_responses": Instruction(_two_responses, {}),
    "detectable_content:number_placeholders": Instruction(_placeholders, {"num_placeholders": "count"}),
    "detectable_content:postscript": Instruction(_postscript, {"postscript_marker": "text"}),
    "detectable_format:constrained_response": Instruction(_constrained_response, {}),
    "detectable_format:json_format": Instruction(_json_format, {}),
    "detectable_format:multiple_sections": Instruction(_sections, {"section_spliter": "text", "num_sections": "count"}),
    "detectable_format:number_bullet_lists": Instruction(_bullets, {"num_bullets": "count"}),
    "detectable_format:number_highlighted_sections": Instruction(_highlights, {"num_highlights": "count"}),
    "detectable_format:title": Instruction(_title, {}),
    "keywords:existence": Instruction(_keywords_exist, {"keywords": "texts"}),
    "keywords:forbidden_words": Instruction(_no_forbidden_words, {"forbidden_words": "texts"}),
    "keywords:frequency": Instruction(
        _keyword_frequency, {"keyword": "text", "frequency": "count", "relation": "relation"}
    ),
    "keywords:letter_frequency": Instruction(
        _letter_frequency, {"letter": "text", "let_frequency": "count", "let_relation": "relation"}
    ),
    "language:response_language": Instruction(_in_language, {"language": "language"}),
    "length_constraints:nth_paragraph_first_word": Instruction(
        _first_word_of_paragraph, {"num_paragraphs": "count", "nth_paragraph": "count", "first_word": "text"}
    ),
    "length_constraints:number_paragraphs": Instruction(_number_of_paragraphs, {"num_paragraphs": "count"}),
    "length_constraints:number_sentences": Instruction(
        _number_of_sentences, {"num_sentences": "count", "relation": "relation"}
    ),
    "length_constraints:number_words": Instruction(_number_of_words, {"num_words": "count", "relation": "relation"}),
    "punctuation:no_comma": Instruction(_no_comma, {}),
    "startend:end_checker": Instruction(_ends_with, {"end_phrase": "text"}),
    "startend:quotation": Instruction(_quoted, {}),
}
