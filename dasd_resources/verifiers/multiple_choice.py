"""`multiple_choice`: the option that the answer part claims, by its letter or, where the question lists it, its text.

The whole answer part is read. What claims an option, strongest first: a box; "the answer is", "Final Answer" and their
like (English, Chinese); "I choose", "C is correct", "so B."; a letter at the beginning. The last claim of the strongest
kind counts, unless a later claim contradicts it. A claim that names two options ("B or C"), a negated one and a letter
that is a word, an initial or a symbol ("a bird", "C. elegans", "E = mc^2", "vitamin C") claim nothing: an answer is
taken only where it cannot be read otherwise.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.visible_text import excerpt

MAX_CHARS = 50_000  # of an answer part; more is wrong unread

_AMBIGUOUS = ""  # a claim of several options
_FOR = r"(?:option|choice|letter)"
_LETTER = r"[(\[{]{0,2}(?P<letter>[A-Ja-j])(?P<close>[)\]}]{0,2})"
_FORM = re.compile(rf"(?P<named>(?i:{_FOR})\s+)?(?P<form>{_LETTER})(?![A-Za-z0-9_^+*#'\u2019])")

_NOUN = (
    r"(?:answers?|ans|solution|response"
    r"|(?:correct|right|best|appropriate|final|suitable|my|our)\s+(?:option|choice|letter|one|statement)(?:\(s\))?)(?:\s+to\s+(?:this|the)\s+(?:question|problem))?"
)
_IS = r"(?:(?:is|are|was|be|(?:would|must|should|will|has\s+to)\s+be)\b|[:=.]|[-\u2013\u2014]\s|\n)"
_FILLER = r"(?:[\s:,]|(?:therefore|thus|hence|indeed|clearly|then|simply|definitely|again|just|the)\b)*"
_MARKERS = (
    re.compile(rf"(?i:\b{_NOUN}\s*(?:{_IS}{_FILLER}))"),
    re.compile(rf"(?i:\b{_NOUN}) (?=\(?[A-J]\b)"),
    re.compile(r"(?m:^)(?i:correct|final|option|choice|letter|result|conclusion|verdict|\u7b54):\s*"),
    re.compile(
        r"(?:\u7b54\u6848\u3011?|\u9009\u9879|\u6b63\u786e\u7684?\u662f)\s*(?:\u5e94\u8be5|\u5e94|\u5c31)?"
        r"[\u662f\u4e3a\u9009]?[\s:]*"
    ),
    re.compile(r"(?<!\u4e0d)(?<!\u4e0d\u80fd)(?:\u9009\u62e9|\u9009|\u9078)(?!\u9879)[\s:]*"),
)
_SAYINGS = (
    re.compile(r"(?i:\b(?:choose|select|pick|go\s+with|opt\s+for)\s+)"),
    re.compile(
        r"(?i:(?:\u2192|=>|\u21d2|\b(?:corresponds?\s+to|match(?:es)?|is|get|gives?|yields?|namely|i\.e\.,?|listed\s+as))\s+"
        rf"(?:answer\s+)?(?={_FOR}\s))"
    ),
)
_CONCLUDED = re.compile(
    r"(?i:\b(?:therefore|thus|hence|so|by elimination|definitely|clearly|obviously|actually|certainly|it is|it's"
    r"|leav(?:es|ing)(?:\s+only)?)\b[,:]?\s+)"
)
_STARTS = re.compile(r"(?i:the\s+)?")
_RIGHT = (
    re.compile(
        r"(?:^|[.,;:!\n]\s*|(?i:\b(?:that|so|hence|thus|therefore|but|and|answer|only|option|choice)\s+))"
        r"[(\[]?(?P<letter>[A-J]|(?<=[nN] )[a-j]|(?<=ce )[a-j])[)\]]?"  # lower case after "option", "choice"
        r"(?i:\s+(?:is|must\s+be)\s+(?:(?:therefore|clearly|thus|indeed|the|a)\s+)*"
        r"(?:(?:most|best|only|correct|right|appropriate)\s+)*(?:correct|right|answer|best|option|choice)(?![-\w]))"
        r"(?!\s+(?:only|if|for|when|in)\b)"
    ),
    re.compile(r"(?<![\w'])(?P<letter>[A-J]) it is(?=[.!]?\s*$)"),
    re.compile(
        rf"(?i:\bonly\s+(?:{_FOR}\s+)?)[(\[]?(?P<letter>[A-J])[)\]]?\s+"
        r"(?:satisf|work|fit|hold|remain|match|meet|is\s+(?:true|left|valid|possible))"
    ),
    re.compile(r"(?P<letter>[A-J])\s*(?:\u9009\u9879|\u9879)?\s*[\u662f\u4e3a]?(?:\u6b63\u786e|\u5bf9\u7684)"),
)

# What may follow a letter that is claimed; `(C) text` may go on with any other word, a bare `C` may not.
_ENDED = re.compile(
    r"\s*(?:[.!;,:](?=\s|$)|\u3002|\u2014|\n|$)|\s+[-\u2013]\s|\s+\(|\s+(?=(?:because|since|as(?! well)|due|given)\b)"
)
_CHINESE_END = re.compile(r"\s*(?:\u9009\u9879|\u9879)?\s*(?:\u662f?\u6b63\u786e|[.,;!\u3002\u3001](?![A-J])|\n|$)")
_NO_TEXT = re.compile(
    r"\s*(?:[/&+=<>\u2192\u3001|~]|(?i:(?:is|are|was|were|and|or|but|nor|if|unless|seems?|looks?|fails?|would|could"
    r"|might|may|can(?:not)?|has|have|does|do|vs|versus|then|through|to)\b)"
    r"|[a-z]+s\s+(?:the|an?|that|this|it|only|no|not|both|all|any)\b|[\u548c\u6216\u4e0e\u53ca])"
)
_REASON = re.compile(r"(?i:\b(?:because|since|as(?! well)|while|whereas|unlike|not|given|due)\b)")
_ANOTHER = re.compile(
    r"(?:^\s*[,;:]?|(?i:\b(?:or|and|also|plus|as well as|along with|possibly|maybe|perhaps|otherwise|unless|versus|vs"
    r"|then)\b)[^.\n]{0,20}?|[/&,\u3001\u548c\u6216\u4e0e])\s*"
    r"(?i:(?:and|or|maybe|possibly|perhaps|it\s+is|is|option|choice)\s+)*[(\[]?[A-J][)\]]?(?![A-Za-z0-9])"
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[\n\u3002]")
# A clause in which a claim is none: denied, supposed, or somebody else's.
_SUPPOSED = re.compile(
    r"(?i:\b(?:if|suppos\w+|assum\w+|might|may|could|doubt|false|untrue|students?|people|many|some|others?|no|not|never"
    r"|(?<!d )(?<!ll )says?|cannot|wrong(?:ly)?|incorrect(?:ly)?|worst|naive|tempting|previous|initial|first|common"
    r"|everyone|mistak\w+|unless|whether|otherwise|why|had|is the|was the)\b|n't\b|n\u2019t\b)"
    r"|[\u4e0d\u82e5]|\u5982\u679c|\u5047\u8bbe|\u8fd8\u662f"
)
_CLAUSE = re.compile(r"[.,;:!?\n\u3002]|(?i:\b(?:so|thus|hence|therefore|but)\b)")
_CONDITION = re.compile(r"\s*(?i:if|suppose|assume|assuming|unless|had|were|\u5982\u679c|\u82e5)\b")
_VERB = re.compile(r"\w+(?:\s\w+)?\s(?:is|are|was|were|has|have|can|does)\b")
# Second words of species whose genus is often abbreviated to one of these letters.
_SPECIES = frozenset((
    "aegypti", "albicans", "anthracis", "aureus", "baumannii", "botulinum", "burgdorferi", "canis", "cereus",
    "cerevisiae", "coli", "difficile", "diphtheriae", "elegans", "faecalis", "fumigatus", "gambiae",
    "histolytica", "influenzae", "intestinalis", "jejuni", "lamblia", "lupus", "melanogaster", "mellifera",
    "neoformans", "perfringens", "pylori", "rerio", "sapiens", "scapularis", "subtilis", "tetani", "thaliana",
    "trachomatis", "tularensis",
))  # fmt: skip

_LATEX = (
    (re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|sf|it|bb)|operatorname|bf|rm)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[()\[\]]|\$+"), ""),
    (re.compile(r"\\(?:q?quad|[ ,;:!]|\\)|~"), " "),
)
_MARKUP = re.compile(r"\*+|`+|(?m:^[ \t]*#+[ \t]*)|(?<!\w)_+|_+(?!\w)|(?m:^[ \t]*>[ \t]?)")
_TAGS = ((re.compile(r"<answer>", re.IGNORECASE), "\nAnswer: "), (re.compile(r"</answer>", re.IGNORECASE), "\n"))
_QUOTED = (
    (re.compile('["\u201c\u201d]'), ""),
    (re.compile(r"(?<!\w)['\u2018](\(?[A-Ja-j][).]?)['\u2019]"), r"\1"),
    (re.compile("[\u2705\u2713\u2714\u2611\ufe0f]"), ""),
    (re.compile(r"^[^\w(\[{\\]+"), ""),
)
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{((?:[^{}]++|\{[^{}]*\})*+)\}")
_LISTED = re.compile(r"^[ \t]*\(?([A-J])[).:][ \t]+(\S[^\n]*)$", re.MULTILINE)


@dataclass(frozen=True)
class Claim:
    """An option (or several: AMBIGUOUS) that a text says is the answer, and where.

    strength: 3 for a box, 2 for "the answer is", 1 for other sayings, 0 for the first word.
    """

    strength: int
    at: int
    letter: str
    said: str


def judge_multiple_choice(answer: str, asked: Asked) -> Judgement:
    """Whether the answer part claims the reference answer's option, and no other."""
    if not answer.strip():
        return Judgement("incorrect", "wrong_answer", "the answer is empty")
    if len(answer) > MAX_CHARS:
        reason = f"the answer part has {len(answer)} characters, at most {MAX_CHARS} are read"
        return Judgement("incorrect", "wrong_answer", reason)
    expected = chosen(asked.reference_answer, asked.question)
    found = chosen(answer, asked.question)
    if expected is not None and found == expected:
        return CORRECT
    said = f"option {found}" if found else f"no single option in {excerpt(answer.strip()[-200:])}"
    return Judgement("incorrect", "wrong_answer", f"{said}, expected {excerpt(asked.reference_answer)}")


def chosen(answer: str, question: str) -> str | None:
    """The letter of the one option that an answer part claims; None if it claims none, or it is not clear which."""
    text, options = _plain(answer), _options(question)
    claims = sorted(_claims(text), key=lambda claim: claim.at)
    if not claims:
        return _by_text(text, options)
    strongest = max(claim.strength for claim in claims)
    last = max((claim for claim in claims if claim.strength == strongest), key=lambda claim: claim.at)
    rivals = [claim for claim in claims if claim.at >= last.at or (strongest == 3 and claim.strength == 3)]
    if any(claim.letter != last.letter for claim in rivals) or last.letter == _AMBIGUOUS:
        return None
    texts = {letter for letter, option in options.items() if _same_words(option, last.said)}
    return last.letter if texts <= {last.letter} else None


def _claims(text: str) -> Iterator[Claim]:
    yield from _boxed(text)
    for strength, patterns in ((2, _MARKERS), (1, _SAYINGS)):
        for pattern in patterns:
            for match in pattern.finditer(text):
                yield from _claimed(text, match.end(), strength, match.start())
    for match in _CONCLUDED.finditer(text):
        claims = _claimed(text, match.end(), 1, match.start())
        yield from (claim for claim in claims if not claim.said.strip(" .!\n"))
    for pattern in _RIGHT:
        for match in pattern.finditer(text):
            if not _is_supposed(text, match.start("letter")):
                yield Claim(1, match.start("letter"), match["letter"].upper(), "")
    start = _STARTS.match(text)
    if start and not _enumerates(text):
        yield from _claimed(text, start.end(), 0, 0)


def _is_supposed(text: str, at: int) -> bool:
    """Whether what is claimed here is denied, or supposed, in its clause or by its sentence's first word."""
    before = text[max(0, at - 300) : at]
    sentence = _SENTENCE_END.split(before)[-1]
    return bool(_SUPPOSED.search(_CLAUSE.split(sentence)[-1]) or _CONDITION.match(sentence))


def _boxed(text: str) -> Iterator[Claim]:
    """A claim for each box that names an option; a box with letters that names none is ambiguous."""
    for match in _BOX.finditer(text):
        content = match[1].strip()
        claims = list(_claimed(content, 0, 3, 0))
        yield from (Claim(3, match.start(), claim.letter, claim.said) for claim in claims)
        if not claims and re.search(r"(?<![A-Za-z])[A-J](?![A-Za-z])", content):
            yield Claim(3, match.start(), _AMBIGUOUS, "")


def _claimed(text: str, start: int, strength: int, at: int) -> Iterator[Claim]:
    """The option that is named at `start`, if what follows lets it be a name; at: where what claims it begins."""
    form = _FORM.match(text, start)
    if form is None or _is_supposed(text, at):
        return
    letter, rest = form["letter"], text[form.end() : form.end() + 300]
    marked = bool(form["named"]) or (form["form"] != letter and form["close"][:1] in tuple(")]}"))
    if letter in "AI" and not marked and re.match(r"\s*,\s+[A-Z][a-z]", rest):
        return
    if letter.islower() and not marked and not re.match(r"\s*[.)]?\s*(?:\n|$)", rest):
        return
    if re.search(rf"\n\s*\(?{chr(ord(letter.upper()) + 1)}[).:]\s", rest):  # the options said again
        return
    sentence = rest[: end.start()] if (end := _SENTENCE_END.search(rest, rest.startswith("."))) else rest
    before_reason = re.split(_REASON, sentence, maxsplit=1)[0]
    if _ANOTHER.search(before_reason):
        yield Claim(strength, form.start(), _AMBIGUOUS, "")
    elif _ends_well(rest, marked):
        yield Claim(strength, form.start(), letter.upper(), _said(rest))


def _ends_well(rest: str, marked: bool) -> bool:
    if _CHINESE_END.match(rest):
        return not _is_initial(rest)
    if marked and re.match(r"[\s.:,]", rest):
        return _NO_TEXT.match(rest) is None
    return _ENDED.match(rest) is not None and not _is_initial(rest)


def _is_initial(rest: str) -> bool:
    """Whether a letter and what follows is a name: `C. elegans`, `J. S. Bach`."""
    word = re.match(r"\.\s+([A-Z]\.|[a-z]+)", rest)
    if word is None:
        return False
    return word[1] in _SPECIES or word[1].endswith(".") or _VERB.match(rest, word.start(1)) is not None


def _enumerates(text: str) -> bool:
    """Whether a text goes through options one by one: `A: no. B: maybe.`"""
    return len(set(re.findall(r"(?:^|\n|[.;]\s)\s*\(?([A-J])[).:]\s", text))) > 1


def _said(rest: str) -> str:
    """The words that stand after a letter in its line."""
    return rest.lstrip(" .:,)-\u2013\u2014(").split("\n", 1)[0]


def _by_text(text: str, options: dict[str, str]) -> str | None:
    """The option whose whole text is what is boxed, what follows the last marker, or the whole answer."""
    boxes = _BOX.findall(text)
    markers = list(_MARKERS[0].finditer(text))
    said = boxes[-1] if boxes else text[markers[-1].end() :] if markers else text
    if lettered := re.match(r"\(?([a-j])[).]\s+", said):  # `b. 15 cm`, which without the option's text says nothing
        options = {letter: option for letter, option in options.items() if letter == lettered[1].upper()}
        said = said[lettered.end() :]
    found = [letter for letter, option in options.items() if _same_words(option, said)]
    return found[0] if len(found) == 1 else None


def _same_words(option: str, said: str) -> bool:
    return bool(said.strip()) and _words(option) == _words(said)


def _words(text: str) -> str:
    words = " ".join(text.casefold().split()).strip(" .,;:!\"'")
    return re.sub(r"^(?:the|a|an)\s+", "", words)


@lru_cache(maxsize=1_000)
def _options(question: str) -> dict[str, str]:
    """The options that a question lists, one a line, from A without a gap; empty if it lists none."""
    listed = _LISTED.findall(_plain(question[:MAX_CHARS]))
    letters = [letter for letter, _ in listed]
    return dict(listed) if len(listed) > 1 and letters == list("ABCDEFGHIJ"[: len(letters)]) else {}


def _plain(text: str) -> str:
    """A text without Markdown, LaTeX's fonts and the compatibility forms of letters and brackets."""
    text = unicodedata.normalize("NFKC", text)
    for pattern, replacement in _TAGS:
        text = pattern.sub(replacement, text)
    for _ in range(2):  # fonts within each other
        text = _LATEX[0][0].sub(_LATEX[0][1], text)
    for pattern, replacement in _LATEX[1:]:
        text = pattern.sub(replacement, text)
    text = _MARKUP.sub("", text).strip()
    for pattern, replacement in _QUOTED:
        text = pattern.sub(replacement, text)
    return text
