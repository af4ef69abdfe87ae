"""The canonical text of a landed one, whoever wrote it down."""

import pytest
from test_chat import ANSWER, THINKING, harmony, harmony_ids

from dasd_resources.chat.landed_text import canonical_response

BOTH = "<think>\na b\n</think>\nc"
HARMONY = "<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>c<|return|>"
MENTIONED = f"<think>\nHarmony writes {HARMONY}, then?\n</think>\nIt does."


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (BOTH, BOTH),
        ("<think>a b</think>c", BOTH),
        ("<think>\n\na b\n\n</think>\n\nc", BOTH),
        ("a b</think>c", BOTH),
        ("c", "c"),
        ("<think>\na b", "<think>\na b"),
        (HARMONY, BOTH),
        (
            "<|start|>assistant<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>c",
            BOTH,
        ),
        ("<|channel|>final<|message|>c<|return|>", "c"),
        ("<|channel|>analysis<|message|>a b", "<think>\na b"),
        ("é\u200b<think>", "é\u200b<think>"),
        *[(MENTIONED, MENTIONED), (f"\n{HARMONY}", BOTH)],
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


def test_tokens_of_a_harmony_model_may_spell_tags_or_harmony() -> None:
    chat = harmony()
    written = harmony_ids(f"{THINKING}a b{ANSWER}c<|return|>")
    assert chat.read_landed(written) == chat.read_response(written)
    spelled = chat._encode_text("<think>\na b\n</think>\nc")[0]
    assert chat.read_response(spelled).text == ""
    said = chat.read_landed([*spelled, chat.end_of_turn_id])
    assert (said.text, said.offsets[-1]) == (BOTH, -1)
    assert chat.read_landed(spelled).text == BOTH
