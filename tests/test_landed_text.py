"""The canonical text of a landed one, whoever wrote it down."""

import pytest

from dasd_resources.chat.landed_text import canonical_response

BOTH = "<think>\na b\n</think>\nc"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (BOTH, BOTH),
        ("<think>a b</think>c", BOTH),
        ("<think>\n\na b\n\n</think>\n\nc", BOTH),
        ("a b</think>c", BOTH),
        ("c", "c"),
        ("<think>\na b", "<think>\na b"),
        ("<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>c<|return|>", BOTH),
        (
            "<|start|>assistant<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>c",
            BOTH,
        ),
        ("<|channel|>final<|message|>c<|return|>", "c"),
        ("<|channel|>analysis<|message|>a b", "<think>\na b"),
        ("é\u200b<think>", "é\u200b<think>"),
    ],
)
def test_thinking_is_marked_in_one_way(text: str, canonical: str) -> None:
    found = canonical_response(text)
    assert (found.text, found.tool_call) == (canonical, False)
    assert canonical_response(found.text).text == canonical


@pytest.mark.parametrize(
    "text",
    [
        "<think>\na\n</think>\n<tool_call>{}</tool_call>",
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant to=f<|channel|>commentary<|message|>{}<|call|>",
    ],
)
def test_a_tool_call_is_seen(text: str) -> None:
    assert canonical_response(text).tool_call
