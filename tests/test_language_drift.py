"""Thinking that changes its language, and thinking that only names something foreign."""

import pytest

from dasd_assets.rules.filters.language import language_drift

ENGLISH = "First we add the two numbers, and then we take the remainder modulo seven. It is three. "
CHINESE = "首先我们把两个数相加，然后求它除以七的余数。结果是三，所以答案应该是三。"
RUSSIAN = "Сначала сложим два числа, а потом возьмём остаток от деления на семь. Получается три. "
KOREAN = "먼저 두 수를 더한 다음 칠로 나눈 나머지를 구합니다. 나머지는 삼입니다. "
QUESTION = "What is the remainder of 12 + 5 modulo 7?"


def share(thinking: str, question: str = QUESTION) -> float:
    value = language_drift(f"<think>\n{thinking}\n</think>\n3", question, 0.1).value
    assert value is not None
    return value


@pytest.mark.parametrize("foreign", [CHINESE, RUSSIAN, KOREAN])
def test_a_long_stretch_in_another_script_is_drift(foreign: str) -> None:
    assert share(ENGLISH * 5 + foreign * 5) > 0.3
    assert share(foreign * 5) == 1
    verdict = language_drift(f"<think>\n{ENGLISH}{foreign}\n</think>\n3", QUESTION, 0.1)
    assert (verdict.passed, verdict.kind) == (False, "language_drift")
    assert foreign[:10] in (verdict.reason or "")


@pytest.mark.parametrize(
    "thinking",
    [
        ENGLISH * 3,
        ENGLISH + "By the theorem of Чебышёв (Chebyshev), there is a prime. " + ENGLISH,
        ENGLISH + "Let α + β = γ, so that Σ α² ≥ 0 and ∀ε > 0 ∃δ. Then φ(η) ≤ ψ(ζ). " * 5,
        ENGLISH + "The city is called 北京 in Chinese. " + ENGLISH,
        "```python\nprint('Привет')\n```\n" + ENGLISH,
        "",
    ],
)
def test_names_formulas_and_code_are_none(thinking: str) -> None:
    assert share(thinking) == 0


def test_the_questions_own_language_is_none_and_neither_is_english_that_begins() -> None:
    assert share(CHINESE * 3, "12加5除以7的余数是多少？") == 0
    assert share(ENGLISH * 3, "12加5除以7的余数是多少？") == 0
    assert share(RUSSIAN * 3, "Чему равен остаток?") == 0
    assert share(CHINESE * 9 + ENGLISH * 9, "12加5除以7的余数是多少？") > 0.3


def test_a_language_that_the_question_names_is_asked_for() -> None:
    assert share(ENGLISH + RUSSIAN * 3, "Translate into Russian: The remainder is three.") == 0
    assert share(ENGLISH + CHINESE * 3, "What does 余数是三 mean?") == 0


def test_without_thinking_there_is_nothing_to_judge() -> None:
    assert language_drift(CHINESE, QUESTION, 0.1).value == 0
