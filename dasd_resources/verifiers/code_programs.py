"""The program in an answer: its last fenced block of Python, else its last one of no language."""

import re
from collections.abc import Iterator

MAX_PROGRAM_CHARS = 200_000
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})\s*(?P<language>[^\s`]*)[^`]*", re.ASCII)
_PYTHON = {"python", "py", "python3", "py3", "python2", "pypy", "pypy3", "cpython", "{python}", "{.python}"}


def program_of(answer: str) -> tuple[str | None, str]:
    """The program, and why there is none. A last block that is never closed reaches to the end."""
    blocks = list(_fenced_blocks(answer))
    found = [text for language, text in blocks if language in _PYTHON] or [text for name, text in blocks if not name]
    programs = [text for text in found if text.strip()]
    if not programs:
        others = ", ".join(sorted({language[:20] for language, _ in blocks if language and language not in _PYTHON}))
        return None, f"its only code is {others}, not Python" if others else "it has no fenced block of code"
    if len(programs[-1]) > MAX_PROGRAM_CHARS:
        return None, f"its program has {len(programs[-1])} characters, at most {MAX_PROGRAM_CHARS} are run"
    return programs[-1], ""


def _fenced_blocks(answer: str) -> Iterator[tuple[str, str]]:
    """(language, text) of every fenced block, as CommonMark has them."""
    fence, language, lines = "", "", list[str]()
    for line in answer.split("\n"):
        match = _FENCE.fullmatch(line.rstrip())
        if not fence and match:
            fence, language, lines = match["fence"], match["language"].casefold(), []
        elif fence and match and match["fence"].startswith(fence) and not match["language"]:
            yield language, "\n".join(lines) + "\n"
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        yield language, "\n".join(lines) + "\n"
