"""Where in the answer part of a response the final answer stands."""

import re
from collections.abc import Callable

from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.visible_text import excerpt

MAX_ANSWER_CHARS = 10_000  # longer answers are wrong unread, which bounds the work an answer can cause

# "The answer is", "**Answer:**", a heading "Final Answer", Chinese, and GSM8K's "#### 72", which only a last line is.
_MARKER = re.compile(
    r"(?:\banswers?[*_`]*\s*(?:is\b|[:\uff1a])|\bfinal\s+answers?[*_`#]*[ \t]*\n"
    r"|\u7b54\u6848[*_`]*\s*[\u662f\u4e3a\u70ba:\uff1a]"
    r"|^[ \t]{0,3}\#{4}(?=[ \t]*\S[^\n]*\s*\Z))[\s:\uff1a*_`]*",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|\n|\u3002")
_DISPLAYED = (("$$", "$$"), (r"\[", r"\]"))  # maths that may run over several lines
_BRACE = re.compile(r"(?P<boxed>\\f?box(?:ed)?\s*\{)|\\.|(?P<brace>[{}])", re.DOTALL)
TEXT_COMMAND = r"\\(?:text|textbf|textit|textnormal|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
_TEXT = re.compile(TEXT_COMMAND)
MARKUP = " \t\r\n*_`$"


def compare_final_answer(text: str, asked: Asked, same: Callable[[str, str], bool]) -> Judgement:
    """Correct if the final answer in the text is the same as the reference answer; both are in the reason otherwise.

    The reference is read as an answer is, so it may be boxed, too, or be a sentence. As a full stop may be that of an
    abbreviation ("The answer is St. Louis."), the whole line may be the answer, too.
    """
    answer, expected = extract_answer(text), extract_answer(asked.reference_answer)
    if fault := size_fault(answer):
        return fault
    line = _marked_line(text)
    if same(answer, expected) or (0 < len(line) <= MAX_ANSWER_CHARS and same(line, expected)):
        return CORRECT
    return wrong(answer, asked)


def size_fault(answer: str) -> Judgement | None:
    """The judgement on an answer that is too short or too long to be compared."""
    if not answer:
        return Judgement("incorrect", "wrong_answer", "the answer is empty")
    if len(answer) > MAX_ANSWER_CHARS:
        reason = f"the answer has {len(answer)} characters, at most {MAX_ANSWER_CHARS} are compared"
        return Judgement("incorrect", "wrong_answer", reason)
    return None


def wrong(answer: str, asked: Asked) -> Judgement:
    """The judgement on another answer than the reference."""
    reason = f"answer {excerpt(answer)}, expected {excerpt(asked.reference_answer)}"
    return Judgement("incorrect", "wrong_answer", reason)


def extract_answer(answer: str) -> str:
    r"""The last \boxed{…}, else what follows the last "answer is" or the like in its sentence, else everything.

    Without a box, only the last `<answer>…</answer>` is looked at, if there is one. Of an answer that is a \text{…},
    what that holds.
    """
    boxes = boxed(answer)
    answer = answer if boxes else tagged(answer) or answer
    found = boxes[-1][1].strip() if boxes else tidy(marked(answer)) or tidy(answer) or answer.strip()
    text = _TEXT.fullmatch(found)
    return text[1].strip() if text else found


def tagged(text: str) -> str | None:
    """Content of the last `<answer>…</answer>`, as reasoning-gym and others ask for an answer."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return text[start + len("<answer>") : end] if start >= 0 else None


def marked(answer: str) -> str:
    """What follows the last "answer is", "Answer:", "Final Answer", "####" in its sentence; empty without one."""
    marker = last_marker(answer)
    return _sentence(answer[marker.end() :]) if marker else ""


def _marked_line(answer: str) -> str:
    """All that follows "answer is" or the like in its line; empty where a box or tags are the answer."""
    marker = None if boxed(answer) or tagged(answer) else last_marker(answer)
    return tidy(answer[marker.end() :].partition("\n")[0]) if marker else ""


def last_marker(answer: str) -> re.Match[str] | None:
    """The last "answer is", "Answer:", "Final Answer" or "####", with the white space and markup that follow."""
    return next(reversed(list(_MARKER.finditer(answer))), None)


def _sentence(text: str) -> str:
    """The text up to its first full stop or line end, or the formula that it starts with."""
    for opening, closing in _DISPLAYED:
        if text.startswith(opening) and (end := text.find(closing, len(opening))) > 0:
            return text[: end + len(closing)]
    found = _SENTENCE_END.search(text)
    return text[: found.start()] if found else text


def boxed(text: str) -> list[tuple[tuple[int, int], str]]:
    """Where each balanced box that holds no other stands, and its content, by start; one pass."""
    opened: list[tuple[int, int, bool]] = []
    found: list[tuple[tuple[int, int], str]] = []
    for match in _BRACE.finditer(text):
        if match["boxed"] or match["brace"] == "{":
            opened.append((match.start(), match.end(), match["boxed"] is not None))
        elif match["brace"] == "}" and opened:
            start, content, is_box = opened.pop()
            if is_box and not (found and found[-1][0][0] > start):
                found.append(((start, match.end()), text[content : match.start()]))
    return found


def tidy(text: str) -> str:
    """Without surrounding Markdown, inline-maths delimiters and the final full stop."""
    text = text.lstrip(MARKUP).rstrip(MARKUP + ".")
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening):
            text = text.removeprefix(opening).removesuffix(closing)
    return text.strip(MARKUP)
