"""Refusals: short answers that decline to answer. A long one that declines in passing has answered something else."""

import re

from dasd_assets.rules.verdict import Verdict
from dasd_resources.chat import split_thinking
from dasd_resources.visible_text import excerpt

OPENING_CHARS = 250  # a refusal begins with itself, or with a word about the question
_CANNOT = (
    "(?:can(?:no|')t|can not|could(?:n't| not)|won't|will not"
    "|(?:am|'m|are|'re) (?:not able|unable|not going|not allowed) to|won't be able to)"
)
_DO = r"(?:help|assist|comply|support|fulfil+|engage|participate|accommodate|oblige)\b"
_WE_DO = "help|assist|comply"  # what "we" of a proof cannot do is of the question: give, share, support, accommodate
_GIVE = r"(?:provide|give|answer|share|discuss|create|generate|write|produce|continue|do|offer|process|respond)\b"
_THAT = (
    "(?: you)?(?: with)? (?:that|this|it|such|any|those|instructions?|information|guidance|advice|details|content|help"
    r"|assistance|your (?:request|question))\b"
)


def _spaced(pattern: str) -> str:
    """The pattern for a verbose one, which ignores plain blanks."""
    return pattern.replace(" ", r"\ ")


# "I can't find an integer such that" is an answer, "I can't help with that" is none: the verb tells them apart.
_REFUSAL = re.compile(
    rf"""(?<![\"'“‘「])(?:
        \bI\s?{_spaced(_CANNOT)}\ (?:\w+ly\ )?(?:{_DO}|{_GIVE}{_spaced(_THAT)})
      | \b[Ww]e\s?{_spaced(_CANNOT)}\ (?:\w+ly\ )?(?:{_WE_DO})(?:\ you\b|{_spaced(_THAT)})
      | \b[Ss]orry,?\ (?:but\ )?(?:I|we)\s?(?:{_spaced(_CANNOT)})\ (?:\w+ly\ )?(?:{_DO}|{_GIVE})
      | \b[Ss]orry,?\ (?:but\ )?(?:that's|this\ is|that\ is)\ (?:not\ )?something\ I\ (?:can|can't|cannot)\b
      | \b(?:I|we)\ (?:must|have\ to|need\ to|will\ have\ to)\ (?:respectfully\ )?(?:decline|refuse)\b
      | \bI(?:'d|\ would)\ (?:rather|prefer)\ not\ (?:to\ )?(?:answer|discuss|help|say)\b
      | \b[Aa]s\ an?\ (?:AI|artificial\ intelligence|(?:large\ )?language\ model)\b[^.\n]{{0,80}}
        (?:{_spaced(_CANNOT)}|not\ able|do\ not|don't)
      | \bagainst\ (?:my|our|OpenAI's)\ (?:content\ |usage\ |safety\ )?(?:polic(?:y|ies)|guidelines)\b
      | (?:抱歉|对不起|很遗憾|不好意思)[，,。！ ]*(?:但|不过|我|作为[^，。\n]{{0,20}}[，,])*\s*
        (?:无法|不能|不便|没有办法)(?:为[你您])?(?:提供|回答|协助|帮助|帮[你您]|满足|完成|继续|讨论|生成|处理)
      | 我(?:无法|不能|不便)(?:为[你您])?(?:提供|协助|帮助|帮[你您]|满足|回答)(?:这|该|此|[你您]|与|关于|相关|任何)
      | 作为(?:一个|一名)?(?:AI|人工智能|语言模型|大模型)[^。\n]{{0,30}}(?:无法|不能|不会)
      | \bno\ puedo\ (?:ayudar|responder|proporcionar|cumplir)
      | \bje\ ne\ peux\ pas\ (?:vous\ |t')?(?:aider|répondre|fournir)
      | \bkann\ (?:ich\ )?(?:Ihnen|dir|euch)?\ ?(?:dabei|damit|hierbei)\ ?(?:leider\ )?nicht\ (?:weiter)?helfen
      | Извините[^.\n]{{0,20}}не\ могу\ (?:помочь|ответить|предоставить)
    )""",
    re.X,
)


def refusal(text: str, max_chars: int) -> Verdict:
    """No answer of at most so many characters that declines; value: the length of one that does, however long."""
    _, answer = split_thinking(text)
    opening = (answer or "").strip().replace("’", "'")[:OPENING_CHARS]
    if (found := _REFUSAL.search(opening)) is None:
        return Verdict(True)
    num_chars = len((answer or "").strip())
    if num_chars > max_chars:
        return Verdict(True, value=num_chars)
    return Verdict(False, "refusal", f"the answer declines: {excerpt(opening[found.start() :], 60)}", num_chars)
