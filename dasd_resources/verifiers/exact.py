"""`exact`: the same text but for case, white space, markup and Unicode composition."""

import unicodedata

from dasd_resources.verifiers.final_answer import compare_final_answer, tidy
from dasd_resources.verifiers.judgement import Asked, Judgement


def judge_exact(answer: str, asked: Asked) -> Judgement:
    """Whether the final answer is the reference answer's text."""
    return compare_final_answer(answer, asked, lambda found, expected: normal_text(found) == normal_text(expected))


def normal_text(text: str) -> str:
    """The text but for case, white space, markup and Unicode composition."""
    return " ".join(unicodedata.normalize("NFC", tidy(text) or text).casefold().split())
