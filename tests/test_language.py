"""Which language a question is in, with the maths and code of it left out."""

import pytest

from dasd_assets.rules.language import language


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ("Let $x$ be a real number such that $x^2 + 3x = 5$. Find $x$.", "en"),
        ("How many r in strawberry?", "en"),
        ("Quelle est la dérivée de \\(x^2 \\sin x\\) ?", "fr"),
        ("Was ist die Ableitung von x^2?", "de"),
        ("求解方程 2x+3=7", "zh"),
        ("次の積分を求めよ。\\[\\int x\\,dx\\]", "ja"),
        ("Докажите, что 2+2=4", "ru"),
        ("¿Cuál es el valor de $x$?", "es"),
        ("Schreibe eine Funktion, die eine Liste umdreht:\n```python\ndef reverse(items: list) -> list:\n```", "de"),
    ],
)
def test_words_tell_the_language(question: str, code: str) -> None:
    assert language(question) == code


@pytest.mark.parametrize(
    "question",
    [
        "",
        "x = ?",
        "35 + 12 - 4 =",
        "\\frac{1}{2} + \\frac{3}{4} = \\boxed{?}",
        "$$\\int_0^1 x\\,dx$$",
        "```python\ndef f(x):\n    return x + 1\n```",
        "\\begin{align*} a &= b \\\\ c &= d \\end{align*}",
        "-",
    ],
)
def test_maths_and_code_are_in_no_language(question: str) -> None:
    assert language(question) is None


def test_a_long_question_is_told_by_its_beginning() -> None:
    assert language("Find the sum of the numbers that follow. " + "7 " * 100_000) == "en"
