"""Which questions are one: the identity of a prompt, by which copies are found in whatever file they land.

A prompt is a question and the system prompt it is asked with, for that is all a model is given. Domain, verifier and
reference answer are what is known of it: several lines may say different things, and are merged (rules/merging.py).
"""

import unicodedata

from dasd_resources.content_hash import content_hash


def question_key(question: str, system_prompt: str | None) -> str:
    """Hash of question and system prompt, 32 hex digits: the id of a prompt that lands now."""
    return content_hash([normalised(question), system_prompt])[:32]


def judged_question_id(
    question: str, system_prompt: str | None, domain: str, verifier: str | None, reference_answer: str | None
) -> str:
    """Hash of a question and of what judges it: ids of held-out questions, and of prompts that earlier releases landed.

    These stay as they are, for every id downstream is made from them.
    """
    return content_hash([normalised(question), system_prompt, domain, verifier, reference_answer])[:32]


def normalised(question: str) -> str:
    """A question's text in composed Unicode, with single spaces; case is kept.

    NFC, not NFKC, which would make 2² and 22, x₁ and x1 one question.
    """
    return " ".join(unicodedata.normalize("NFC", question).split())
