"""Choices in an order that a seed and the question decide: on every machine, in every order of the file, the same."""

from collections.abc import Mapping, Sequence

from dasd_resources.content_hash import content_hash
from dasd_resources.landing.columns import LETTERS
from dasd_resources.landing.prompt_files import InvalidRow
from dasd_resources.visible_text import excerpt


def with_shuffled_choices(
    row: Mapping[str, object], question: str, choices: Sequence[str], seed: int
) -> dict[str, object]:
    """The row with `choices`, shuffled, `letter`, that of the right one, and `shuffle_seed`; texts are stripped.

    question, choices: keys of the row; the first choice is the right one. Raises InvalidRow where one is missing, or a
    choice stands there twice.
    """
    asked = _text(question, row.get(question))
    texts = [_text(key, row.get(key)) for key in choices]
    if twice := sorted({text for text in texts if texts.count(text) > 1}):
        raise InvalidRow("invalid_field", f"two of the choices are the same, {excerpt(twice[0])}; correct the row")
    # By a hash of each text, so that the order in the file, of columns as of rows, says nothing.
    shuffled = sorted(texts, key=lambda text: content_hash([seed, asked, text]))
    letter = LETTERS[shuffled.index(texts[0])]
    return {**row, question: asked, "choices": shuffled, "letter": letter, "shuffle_seed": seed}


def _text(key: str, value: object) -> str:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip():
        raise InvalidRow("invalid_field", f"{key} must be a text, found {excerpt(value)}; correct the row")
    return text.strip()
