"""The language a question is written in, identified by its words: py3langid on what is left without maths and code.

Left out: questions in two languages, which get the one with more evidence. Formulas and programs are no language, and
short ones get any (`def f(x):` is Icelandic), so what has few letters or little evidence has no tag.
"""

import re
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]

LANGUAGE_VERSION = "1"  # tags only describe: what they change is left to whoever selects by them
NUM_CHARS = 500  # of words; the rest of a long question says nothing new, and costs 0.1 ms per 500
MIN_LETTERS = 4
MIN_CONFIDENCE = 0.4  # "求解方程" has 0.42 and "How many r in strawberry?" 0.69; "x=?" has 0.01 and code below 0.1

_NO_WORDS = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`"  # code
    r"|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\begin\{(\w+\*?)\}.*?\\end\{\1\}"  # maths
    r"|\\[A-Za-z]+|https?://\S+|\w*[\d_]\w*|[^\w\s'’-]",  # commands, addresses, numbers and names, signs
    re.DOTALL,
)


def language(question: str) -> str | None:
    """ISO 639-1 code of the language of a question's words; None where there are too few, or they leave it open."""
    words = " ".join(_NO_WORDS.sub(" ", question[: 8 * NUM_CHARS]).split())[:NUM_CHARS]
    if sum(map(str.isalpha, words)) < MIN_LETTERS:
        return None
    code, confidence = _identifier().classify(words)
    return str(code) if confidence >= MIN_CONFIDENCE and len(code) == 2 else None


@cache
def _identifier() -> LanguageIdentifier:
    """The model; loading it takes 0.9 s, so it is done where a question is first looked at."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
