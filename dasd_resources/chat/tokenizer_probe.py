"""Trying tokenizers out on texts that they disagree on: do two of them differ, and does one lose text?

Both ways are tried, text to ids and ids to text; it takes milliseconds. Left out: a space that begins a response, which
only an encoder that goes on from a prompt keeps; `Chat.load` tries that.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tokenizers import Encoding, Tokenizer

from dasd_resources.recipe import RecipeError

# ASCII: what every answer is made of, so it has to come back exactly.
PLAIN = (
    "The answer is 42, and DON'T they'll we'VE camelCase XMLHttpRequest snake_case.",
    "two  spaces, three   spaces; a tab\tand\t\ttwo; a line's end \nand\n\nblank\n\n\nlines\r\n  \n    in\n\tand out",
    "7, 42, 180, 2026, 31415926535, 3.14159, 1,000,000, -1e-9 and 0x1F",
    "def f(n: int) -> list[str]:\n    return [f'{n!r}' for _ in range(10)] if n != 0 else {}  # \"a\" && b || ~c @ `d`",
    "so \\[ \\int_{0}^{\\infty} \\frac{x^2}{\\sqrt{1 + x}}\\,dx \\leq \\sum_{i=1}^{n} a_i \\] $x < y > z$ \\boxed{42}",
)
# The rest of Unicode: a normalizer may rewrite it, and a vocabulary without bytes may lack some of it.
WORLD = (
    "让我们先计算一下。答案是四十二，对吗？日本語のテキスト 한국어 텍스트",
    "мир العربية עברית हिन्दी ภาษาไทย Ελληνικά",
    "of emoji 🙂 👩\u200d🚀 👨\u200d👩\u200d👧 🇩🇪 ✅ ☺\ufe0f",
    "e\u0301 n\u0303 o\u0308, é ñ ö, x² x₁ ≤ ½ ﬁ “naïve” — … \u00a0 \u3000",
)
TAGS = "<think>\nso\n</think>\n\nit is"
FILE: Final = "tokenizer.json"
REMEDY = (
    f"put the {FILE} that the model was published with into its folder, or choose a model whose tokenizer keeps text "
    "as it is"
)
NUM_CONTROLS = 64  # added tokens that are tried; the first ones are those that structure a conversation
SHOWN = 24  # characters of a text that a message quotes


def around_controls(tokenizer: Tokenizer) -> str:
    """Text around a tokenizer's control tokens, as a chat template may write them."""
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.content.strip()]
    return "".join(f"{token}say it\n{token} {token}\n\n" for token in added[:NUM_CONTROLS])


def difference(made: Tokenizer, own: Tokenizer, name: str, prompts: Sequence[str]) -> str | None:
    """The first place where two tokenizers differ in ids or in the text that the ids say; None if there is none.

    They are compared on the fixed texts and on `prompts`. name: what to call the first, the other being tokenizer.json.
    """
    known = {id: token.content for id, token in made.get_added_tokens_decoder().items()}
    missing = [t.content for id, t in own.get_added_tokens_decoder().items() if known.get(id) != t.content]
    if missing:
        return f"{name} lacks its added token {missing[0]!r}"
    with _whole(made), _whole(own):
        found = (_difference_in(made, own, name, text) for text in (*PLAIN, *WORLD, TAGS, *prompts))
        return next(filter(None, found), None)


def _difference_in(made: Tokenizer, own: Tokenizer, name: str, text: str) -> str | None:
    second = _encode(own, text)
    try:
        first = _encode(made, text)
    except RecipeError as error:
        return f"{name}: {error}"
    if first.ids != second.ids:
        at = next((i for i, (a, b) in enumerate(zip(first.ids, second.ids, strict=False)) if a != b), len(second) - 1)
        start = second.offsets[at][0] if second.ids else 0
        cuts = f"{name} cuts {text[start : start + SHOWN]!r} into {first.tokens[at : at + 3]}"
        return f"{cuts}, {FILE} into {second.tokens[at : at + 3]}"
    said, meant = (tokenizer.decode(second.ids, skip_special_tokens=False) for tokenizer in (made, own))
    return None if said == meant else f"{name} decodes {first_difference(meant, said)}"


def losses(tokenizer: Tokenizer) -> Iterator[str]:
    """What a tokenizer does to text by rules of its own; RecipeError where it loses text by none."""
    with _whole(tokenizer):
        for text in (*PLAIN, *WORLD):
            encoding = _encode(tokenizer, text)
            said = tokenizer.decode(encoding.ids, skip_special_tokens=False).removeprefix(
                " "
            )  # it may put one in front
            if said != text:
                yield from _excuse(tokenizer, text, said, encoding.tokens)


def _encode(tokenizer: Tokenizer, text: str) -> Encoding:
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:  # the library's only kind: a vocabulary without its own unknown token, for one
        raise RecipeError(f"its tokenizer cannot encode {text[:SHOWN]!r} ({error}); {REMEDY}") from error


def _excuse(tokenizer: Tokenizer, text: str, said: str, tokens: Sequence[str]) -> Iterator[str]:
    """The rule by which a text became another; none is needed between forms of one character. Raises RecipeError."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if text in WORLD and unicodedata.normalize("NFC", said) == unicodedata.normalize("NFC", text):
        return
    if text in WORLD and said == _normalized(tokenizer, text):
        yield f"its normalizer rewrites {first_difference(text, said)}"
    elif text in WORLD and any(token in added and token not in text for token in tokens):
        yield f"its vocabulary lacks characters and reads {first_difference(text, said)}"
    else:
        raise RecipeError(f"its tokenizer reads {first_difference(text, said)}; {REMEDY}")


def _normalized(tokenizer: Tokenizer, text: str) -> str:
    if tokenizer.normalizer is None:
        return text
    return str(tokenizer.normalizer.normalize_str(text)).replace("▁", " ").removeprefix(" ")


def first_difference(text: str, said: str) -> str:
    """`'42, 你好' as '42,你好'`: both from the character before the first that differs."""
    at = next((i for i, (a, b) in enumerate(zip(text, said, strict=False)) if a != b), min(len(text), len(said)))
    start = max(0, at - 8)
    return f"{text[start : start + SHOWN]!r} as {said[start : start + SHOWN]!r}"


@contextmanager
def _whole(tokenizer: Tokenizer) -> Iterator[None]:
    """The tokenizer without truncation and padding, which its file may switch on; they are put back."""
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)
        if padding is not None:
            tokenizer.enable_padding(**padding)
