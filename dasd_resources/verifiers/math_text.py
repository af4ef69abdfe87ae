"""What of a text is its mathematical answer, as LaTeX without delimiters.

The last boxes, else within the last `<answer>…</answer>`, if there is one: what follows "the answer is", or else the
last formula or number that the text states; never one that it only mentions (`not $5$`, `$4$ or so than $5$`).
"""

import re

from dasd_resources.verifiers.final_answer import TEXT_COMMAND, boxed, marked, tagged, tidy
from dasd_resources.verifiers.written_numbers import plain, quantity, unit_name

MAX_GAP = 60  # characters between boxes that are one answer, as in `\boxed{1} papers and \boxed{2} bins`
MAX_SEARCHED = 2000  # last characters of a text in which a formula is looked for
MAX_TAIL = 80  # characters of a sentence that go on after the formula that answers

_DOUBLED = re.compile(r"\\\\(?=[A-Za-z]{2,})")  # a command whose backslash was escaped twice
_GLUED = re.compile(r"(?<=[\d)}])(or|and)(?=[A-Z(\\-])")
_ROWS = re.compile(r"\\begin\{|matrix|cases|array|align")  # there, \\ ends a row
_ADJACENT = re.compile(r"(?:[^A-Za-z.\n]|\\q?quad\b|\\text\b){0,12}")
_LISTED = re.compile(r"(?:[,;&]|\b(?:and|or)\b|\u548c|\u6216|\u3001)")
_PERCENT = re.compile(r"[\s$]*(?:\\\)|\\\])?[\s$]*(\\?%|percentage|percent|pct)(?![A-Za-z])", re.IGNORECASE)
_FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<display>[^$]+)\$\$|\\\[(?P<bracket>(?:[^\\]|\\(?!\]))+)\\\]"
    r"|(?<![\\\d$])\$(?P<inline>(?:\\\$|[^$\n])+)(?<!\\)\$|\\\((?P<paren>(?:[^\\\n]|\\(?!\)))+)\\\)"
)
_NUMBER = r"[$\u20ac\xa3\xa5]?[+-]?(?:\d[\d,. ]*\d|\.?\d)(?:\s*/\s*\d+)?"
_NUMBER_STATED = re.compile(
    r"(?:\b(?:is|are|was|equals?|gives?|gets?|(?:in|de)crease[sd]? by)\b|'s\b|[:\u2248]|\A"
    r"|(?<![<>])(?<![^\d)]!)(?<!\\not)=)[\s*_]*"
    rf"(?P<number>{_NUMBER})(?P<rest>\D{{0,160}})\Z"
)
# The same name with another value before it: `x = 5 or x = 7` states none of the two.
_VALUE_BEFORE = re.compile(
    r"(?<!\w)([A-Za-z]\w*)\s*=\s*-?[\d.]+(?:\s*[,;]\s*(?:(?:and|or)\s+)?|\s+(?:and|or)\s+)\1\s*\Z"
)
_FINAL = re.compile(r"\bfinal\s+answer", re.IGNORECASE)
_UNCLOSED = re.compile(r"\\boxed\s*\{(.+)")  # in the last line, which is how some models end
_HAS_PERCENT = re.compile(r"%|percent|pct", re.IGNORECASE)
_MENTIONED = re.compile(
    r"(?:\b(?:not|never|or|nor|either|neither|between|than|least|most|about|around|cannot|isn't|wasn't|aren't|all"
    r"|mod(?:ulo)?|rounded to|correct to)|n't)"
    r"\s+(?:be\s+|is\s+|equal\s+(?:to\s+)?)?\Z",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|wrong|incorrect|false|impossible|or|but)\b|n't\b", re.IGNORECASE)
_TEXT = re.compile(TEXT_COMMAND)
_COMMAND = re.compile(r"\\[A-Za-z]+\*?(?:\{(?:[pbvBV]?matrix|array|cases|aligned?)\})?")
_FUNCTIONS = re.compile(
    r"\b(?:and|or|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|sqrt|max|min|gcd|lcm|mod|deg)\b"
)
_SUBSCRIPT = re.compile(r"_(?:\w|\{[^{}]*\})")
_WORD = re.compile(r"(?![A-Z]{3,5}\b)[^\W\d_]{3,}")  # but `ABC` is a triangle


def stated_answer(text: str) -> str:
    """The mathematical answer of a text; the text itself, tidied, where it states none."""
    if not _ROWS.search(text):
        text = _GLUED.sub(r" \1 ", _DOUBLED.sub(r"\\", text))
    boxes = boxed(text)
    text = text if boxes else tagged(text) or text
    rest = text[boxes[-1][0][1] :] if boxes else text
    said = "" if boxes and not _FINAL.search(rest) else _stated(marked(rest), one_number=not boxes)
    if boxes and not said:
        return _last_boxes(text, boxes)
    if not boxes and (unclosed := _UNCLOSED.search(text.replace("$", "\n").rpartition("\n")[2])):
        return unclosed[1].strip()
    return said or _stated(text.strip(), one_number=False) or tidy(text)


def _stated(text: str, one_number: bool) -> str:
    """The text, if it is a formula, or the last that it states. one_number: its only number will do, wherever."""
    if is_formula(text):
        return tidy(text)
    end = text[-MAX_SEARCHED:]
    return _last_formula(end) or (_only_number(end) if one_number else "")


def is_formula(text: str) -> bool:
    """Whether a text is a number with its unit, or maths without words or delimiters around it."""
    return quantity(plain(text)) is not None or not ("$" in text or "\\(" in text or "\\[" in text or words(text))


def words(text: str) -> list[str]:
    """The words of a LaTeX text, but for the names of commands, functions and points."""
    for pattern, instead in ((_TEXT, r" \1 "), (_SUBSCRIPT, ""), (_COMMAND, " "), (_FUNCTIONS, " ")):
        text = pattern.sub(instead, text)
    return _WORD.findall(text)


def _last_boxes(text: str, boxes: list[tuple[tuple[int, int], str]]) -> str:
    """The content of the last box, or of the last ones of one enumeration, with commas."""
    contents = [content.strip() for _, content in boxes[-1:]]
    for ((_, end), content), ((start, _), _) in zip(reversed(boxes[:-1]), reversed(boxes[1:]), strict=True):
        if not _one_answer(text[end:start]):
            break
        contents += [] if content.strip() in contents else [content.strip()]
    joined = ", ".join(reversed(contents))
    return f"{joined}\\%" if _PERCENT.match(text, boxes[-1][0][1]) and not _HAS_PERCENT.search(joined) else joined


def _one_answer(gap: str) -> bool:
    """Whether what stands between two boxes joins them."""
    if _ADJACENT.fullmatch(gap):
        return True
    return len(gap) <= MAX_GAP and "\n" not in gap and ". " not in gap and _LISTED.search(gap) is not None


def _last_formula(text: str) -> str:
    """The last formulas or the last number that a text states as its answer; empty if it states none."""
    formulas = list(_FORMULA.finditer(text))
    number = _NUMBER_STATED.search(text, formulas[-1].end() if formulas else 0)
    if number and "\\" not in number[0]:
        return "" if _VALUE_BEFORE.search(text, 0, number.start()) else _stated_number(number)
    if not formulas or _DENIED.search(text, formulas[-1].end()) or len(text) - formulas[-1].end() > MAX_TAIL:
        return ""
    first = len(formulas) - 1
    while first and _joins(text[formulas[first - 1].end() : formulas[first].start()]):
        first -= 1
    if _MENTIONED.search(text, 0, formulas[first].start()):
        return ""
    joined = ", ".join(tidy(formula[formula.lastgroup or 0]) for formula in formulas[first:])
    return f"{joined}\\%" if _PERCENT.match(text, formulas[-1].end()) else joined


def _joins(gap: str) -> bool:
    return re.fullmatch(r"\s*(?:,?\s*(?:and|or)|,|;)\s*", gap) is not None


def _only_number(text: str) -> str:
    """The number of a sentence that has but one, with its unit; empty if it has several."""
    found = re.fullmatch(rf"[^\d]*?(?P<number>{_NUMBER})(?P<rest>[^\d\n]*)", text)
    return "" if not found or _MENTIONED.search(text, 0, found.start("number")) else _stated_number(found)


def _stated_number(found: re.Match[str]) -> str:
    """The number with what follows it, if that is a unit or changes nothing; empty otherwise."""
    with_rest = (found["number"] + found["rest"]).strip(" .*_!")
    if quantity(plain(with_rest)) is not None:
        return with_rest
    rest = found["rest"]
    if _DENIED.search(rest):
        return ""
    word = re.match(r"\s+([^\W\d_]+)|\s*\w", rest)
    if word is None:
        return found["number"]
    unit = unit_name(word[1]) if word[1] else None
    return "" if unit is None else f"{found['number']} {word[1]}"
