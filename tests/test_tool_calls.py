"""Tool calls in every common notation, and prose and code about them."""

import pytest

from dasd_assets.rules.filters.tool_calls import calls_tool, tool_call_in

CALLS = {
    "Qwen": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
    "Qwen-Coder": "<tool_call>\n<function=run_code>\n<parameter=code>\n1\n</parameter>\n</function>\n</tool_call>",
    "GLM": "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>",
    "Llama 3.1": '<function=get_weather>{"city": "Oslo"}</function>',
    "Llama's Python": '<|python_tag|>brave_search.call(query="weather in Oslo")',
    "Llama's JSON": '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}',
    "Llama 4": '<|python_start|>[get_weather(city="Oslo")]<|python_end|>',
    "Mistral": '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo"}}]',
    "Mistral, new": '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}',
    "DeepSeek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather",
    "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0",
    "Granite": '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]',
    "InternLM": '<|action_start|><|plugin|>\n{"name": "get_weather"}',
    "Gemma": "```tool_code\nget_weather(city='Oslo')\n```",
    "FunctionGemma": "<start_function_call>call:get_weather{city:<escape>Oslo<escape>}",
    "XML": '<function_calls>\n<invoke name="get_weather">\n<parameter name="city">Oslo</parameter>',
    "MiniMax": '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Oslo</parameter>',
    "harmony": '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo"}',
    "ReAct": "Thought: I need the weather.\nAction: get_weather\nAction Input: Oslo",
    "bare JSON": '{"name": "get_weather", "parameters": {"city": "Oslo"}}',
    "bare Python": '[get_weather(city="Oslo", unit="C")]',
}
PROSE = [
    "Qwen wraps each call in <tool_call> and </tool_call>, and Mistral writes [TOOL_CALLS] before it.",
    "Llama 3.1 emits the special token <|python_tag|> whenever it calls a built-in tool.",
    'The template looks like `<tool_call>{"name": …}</tool_call>`, which a regular expression finds.',
    'For example:\n```\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n```\nParse the JSON inside.',
    'The parser splits at "<function=" and reads the name up to ">".',
    "The best course of Action: talk to the neighbour first.\nHe may not know.",
    "Action: the hero draws a sword.\nReaction: the dragon yawns.",
    "He spoke with commentary to everyone in the room.",
    'The record is {"name": "Ada", "age": 36}.',
    "def f(x):\n    return [g(x) for x in xs]",
    "The function=linear option of the tool is described in its manual; invoke it by name.",
    "[f(x=1)]",
    "[f_(x=1)]",
]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_is_found_in_the_answer_and_in_the_thinking(call: str) -> None:
    assert tool_call_in(f"<think>\nI look it up.\n</think>\n{call}") is not None
    if not call.startswith(("{", "[get")):
        assert tool_call_in(f"<think>\nI look it up.\n\n{call}\n</think>\nIt is cold.") is not None


@pytest.mark.parametrize("text", PROSE)
def test_prose_and_code_about_tools_is_no_call(text: str) -> None:
    assert tool_call_in(f"<think>\n{text}\n</think>\n{text}") is None
    assert calls_tool(f"<think>\n{text}\n</think>\n{text}", tool_call="<tool_call>" in text) is None


def test_a_call_of_a_header_counts_though_the_text_shows_none() -> None:
    assert calls_tool("<think>\nI look it up.\n</think>\nDone.", tool_call=True) == "in a message header"
    assert calls_tool("<think>\nI look it up.\n</think>\nDone.", tool_call=False) is None


def test_a_call_after_an_unclosed_fence_of_the_thinking_is_found() -> None:
    text = '<think>\n```python\nx = 1\n</think>\n<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert tool_call_in(text) == '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


@pytest.mark.parametrize("answer", ["a" + "_" * 50_000, "<tool_call>a" + " " * 50_000])
def test_hostile_text_takes_no_time_that_grows_faster_than_it(answer: str) -> None:
    assert tool_call_in(f"<think>\nI look it up.\n</think>\n{answer}") is None
