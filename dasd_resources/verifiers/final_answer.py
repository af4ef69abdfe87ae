"""Where in the answer part of a response the final answer stands."""

import re
from collections.abc import Callable

from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.visible_text import excerpt

MAX_ANSWER_CHARS = 10_000  # longer answers are wrong unread, which bounds the work an answer can cause

_MARKER = re.compile(r"\banswers?[*_`]*\s*(?:is\b|:)[\s:*_`]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|\n")
_BRACE = re.compile(r"(?P<boxed>\\boxed\s*\{)|\\.|(?P<brace>[{}])", re.DOTALL)
MARKUP = " \t\r\n*_`$"


def compare_final_answer(text: str, asked: Asked, same: Callable[[str, str], bool]) -> Judgement:
    """Correct if the final answer in the text is the same as the reference answer; both are in the reason otherwise."""
    answer = extract_answer(text)
    if not answer:
        return Judgement("incorrect", "wrong_answer", "the answer is empty")
    if len(answer) > MAX_ANSWER_CHARS:
        reason = f"the answer has {len(answer)} characters, at most {MAX_ANSWER_CHARS} are compared"
        return Judgement("incorrect", "wrong_answer", reason)
    if same(answer, asked.reference_answer):
        return CORRECT
    reason = f"answer {excerpt(answer)}, expected {excerpt(asked.reference_answer)}"
    return Judgement("incorrect", "wrong_answer", reason)


def extract_answer(answer: str) -> str:
    r"""The last \boxed{…}, else what follows the last "answer is" or "answer:" in its sentence, else everything."""
    boxed = _last_boxed(answer)
    if boxed is not None:
        return boxed.strip()
    markers = list(_MARKER.finditer(answer))
    rest = answer[markers[-1].end() :] if markers else ""
    end = _SENTENCE_END.search(rest)
    return tidy(rest[: end.start()] if end else rest) or tidy(answer) or answer.strip()


def _last_boxed(text: str) -> str | None:
    """Content of the balanced box that opens last; one pass, so unbalanced braces cost nothing extra."""
    opened: list[tuple[int, bool]] = []
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        if match["boxed"] or match["brace"] == "{":
            opened.append((match.end(), match["boxed"] is not None))
        elif match["brace"] == "}" and opened:
            start, boxed = opened.pop()
            if boxed and (last is None or start > last[0]):
                last = start, match.start()
    return text[last[0] : last[1]] if last else None


def tidy(text: str) -> str:
    """Without surrounding Markdown, inline-maths delimiters and the final full stop."""
    text = text.lstrip(MARKUP).rstrip(MARKUP + ".")
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening):
            text = text.removeprefix(opening).removesuffix(closing)
    return text.strip(MARKUP)
