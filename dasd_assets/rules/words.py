"""A question as words, for comparison with others: without case, typography and LaTeX's markup."""

import re
import unicodedata

# Letters of scripts that put no space between words are words of their own. Operators stay: they tell sums apart.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[-+*/=<>^%|]")


def words(text: str) -> list[str]:
    """The words and operators of a text in lower case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def ngrams(parts: list[str], size: int) -> list[str]:
    """All runs of `size` words, in order; the whole text where it is shorter."""
    if len(parts) < size:
        return [" ".join(parts)] if parts else []
    return [" ".join(parts[start : start + size]) for start in range(len(parts) - size + 1)]
