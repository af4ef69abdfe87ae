r"""What a response has to do with its question: the \boxed{} that was asked for, and thinking that is about it."""

import re

from dasd_assets.rules.filters.language import main_script
from dasd_assets.rules.verdict import Verdict
from dasd_resources.chat import split_thinking

STEM = 5  # letters: "number" and "numbers", "prime" and "primality"
MIN_TERMS = 4  # of a question; with fewer, one synonym decides
_BOX = re.compile(r"\\boxed\b|\\fbox\b")
_FILLED_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{\s*[^\s}]|\w)")
_HAN = "\u3400-\u9fff\u3040-\u30ff"
_TERM = re.compile(rf"(\d{{2,}}(?:\.\d+)?)|(?=([{_HAN}]{{2}}))[{_HAN}]|((?:(?![{_HAN}])[^\W\d_]){{4,}})")
# Words that say what is to be done and not what it is about, and those of every text.
_EMPTY = re.compile(
    r"(?:about|above|after|again|also|answer|answers|apply|because|been|before|being|below|between|both|boxed"
    r"|calculate|choose|compute|consider|correct|could|determine|does|down|each|evaluate|every|explain|expression"
    r"|final|find|first|following|form|from|give|given|have|here|hence|however|integer|into|its|just|leave|letter"
    r"|like|make|many|more|most|much|must|need|number|only|option|other|over|please|problem|provide|prove|put"
    r"|question|really|reason|return|same|several|shall|should|show|simplest|simplify|solution|solve|some"
    r"|statement|step|such|suppose|take|than|that|their|them|then|there|these|they|this|those|through|under|until"
    r"|using|value|values|very|want|what|when|where|whether|which|while|will|with|within|without|work|would|write"
    r"|your)\Z"
)


def box(text: str, question: str) -> Verdict:
    r"""A filled \boxed{} in the answer where the question asks for one; value: how many there are, None if it does not.

    An answer that is missing is a matter of structure.
    """
    _, answer = split_thinking(text)
    if not _BOX.search(question) or not (answer or "").strip():
        return Verdict(True)
    count = len(_FILLED_BOX.findall(answer or ""))
    if count:
        return Verdict(True, value=count)
    return Verdict(False, "no_box", r"the question asks for \boxed{}, the answer has none", 0)


def relevance(text: str, question: str, min_share: float) -> Verdict:
    """At least this share of the question's terms in the thinking; value: the share.

    The value is None where nothing can be told: too few terms, or thinking in another script than the question.
    """
    body, answer = split_thinking(text)
    thinking, asked = body or answer or "", terms(question)
    if len(asked) < MIN_TERMS or main_script(question) != main_script(thinking):
        return Verdict(True)
    lowered = thinking.lower()
    missing = [term for term in sorted(asked) if not _occurs(term, lowered)]
    share = round(1 - len(missing) / len(asked), 4)
    if share >= min_share:
        return Verdict(True, value=share)
    reason = (
        f"{share:.2f} of the question's terms are in the thinking, at least {min_share:g}; not {', '.join(missing[:5])}"
    )
    return Verdict(False, "off_topic", reason, share)


def terms(text: str) -> set[str]:
    """Numbers of two digits or more, stems of words that mean something, and pairs of Han characters or kana."""
    found = {
        term for match in _TERM.finditer(text.lower()) if not _EMPTY.match(term := match[1] or match[2] or match[3])
    }
    return {term[:STEM] if term[0].isalpha() else term for term in found}


def _occurs(term: str, lowered: str) -> bool:
    if term[0].isdigit():
        return re.search(rf"(?<!\d){re.escape(term)}(?!\d)", lowered) is not None
    return term in lowered
