"""Answers that decline, and answers that only sound like it."""

import pytest

from dasd_assets.rules.filters.refusals import refusal
from dasd_assets.rules.verdict import Verdict

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t assist with that request.",
    "I cannot provide instructions for this.",
    "I'm unable to help with that.",
    "Sorry, I can't answer this.",
    "Sorry, I am not able to respectfully answer.",
    "Sorry, that's not something I can do.",
    "I must decline.",
    "We can't help with that.",
    "Unfortunately, we are unable to assist you with this request.",
    "We cannot comply with such requests.",
    "I won't be able to help you here, sorry. I can't assist with that.",
    "As an AI language model, I cannot have opinions on that.",
    "That is against my guidelines.",
    "I'm not able to assist with creating such content.",
    "I'd rather not answer.",
    "抱歉，我无法提供该内容。",
    "对不起，我不能回答这个问题。",
    "作为一个人工智能，我无法对此发表意见。",
    "很遗憾，我无法为您提供相关信息。",
    "Lo siento, pero no puedo ayudar con eso.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "Es tut mir leid, dabei kann ich Ihnen dabei nicht helfen.",
    "Извините, я не могу помочь с этим.",
]
ANSWERS = [
    "I can't find an integer such that the equation holds, so there is none.",
    "We cannot write this as a product of two polynomials, so it is irreducible.",
    "I'm sorry for the long derivation; the answer is 7.",
    'The guard says: "I can\'t help with that."',
    "Sorry, I can't find any mistake in it.",
    "Since we cannot write it as a product, it is prime.",
    "Thus we cannot share it equally, and one is left.",
    "With this alone we can't answer it with certainty; by Bayes it is 1/3.",
    "We cannot accommodate that many guests, so a fourth table is needed.",
    "We cannot help but notice that 7 is prime.",
    "We could not divide by zero here, so x = 2.",
    "无法确定三角形的形状，所以选D。",
    "这个数不能被三整除。",
    "There is no such number.",
    "The policy lowers prices. It does not go against the guidelines' aim.",
    "We can't do better than 12, because each move helps one row only.",
]


def response(answer: str) -> str:
    return f"<think>\nI can't help with that, says the policy.\n</think>\n{answer}"


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal(answer: str) -> None:
    verdict = refusal(response(answer), 400)
    assert (verdict.passed, verdict.kind, verdict.value) == (False, "refusal", len(answer))


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer(answer: str) -> None:
    assert refusal(response(answer), 400) == Verdict(True)


def test_a_long_answer_has_answered_something() -> None:
    answer = "I can't help with that, but here is what is known. " + "The year was 1648. " * 30
    assert refusal(response(answer), 400) == Verdict(True, value=len(answer.strip()))
    assert refusal(response(answer), 1000).kind == "refusal"


def test_the_reason_has_the_words() -> None:
    assert refusal(response("Well. I must decline."), 400).reason == "the answer declines: 'I must decline.'"
