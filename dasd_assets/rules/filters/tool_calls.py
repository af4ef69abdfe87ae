"""Tool calls as models write them, told from prose and code about tools.

A notation alone is no call: what a call has after it must follow. Nor is one in code or in quotation marks, for a model
that calls a tool writes no fence around it; a text that explains how another model does has one. What a server has
parsed away already is in `responses.tool_call`.
"""

import re

from dasd_resources.chat import has_tool_call, split_thinking

_NAME = r"[A-Za-z_][\w.-]{0,63}"
_OBJECT = r"\[?\s*\{\s*\""  # JSON, of one call or of several
NOTATIONS = {
    "Hermes, Qwen, GLM": rf"<tool_call>\s*(?:{_OBJECT}|<function={_NAME}>|{_NAME}\s*<arg_key>)",
    "Llama, Qwen-Coder": rf"<function={_NAME}>\s*(?:\{{|<parameter=|</function>)",
    "Llama's Python": r"<\|python_tag\|>\s*(?:\{\s*\"|[\w.]+\(|import\s|[A-Za-z_]\w*\s*=|#)",
    "Llama 4": rf"<\|python_start\|>\s*\[?\s*{_NAME}\(",
    "Mistral": rf"\[TOOL_CALLS\]\s*(?:{_OBJECT}|{_NAME}\s*(?:\[CALL_ID\]\w+\s*)?(?:\[ARGS\]\s*)?\{{)",
    "DeepSeek": r"<｜tool▁calls?▁begin｜>\s*\S",
    "Kimi": r"<\|tool_calls?(?:_section)?_begin\|>\s*\S",
    "Granite": rf"<\|tool_call\|>\s*{_OBJECT}",
    "InternLM": r"<\|action_start\|>\s*<\|(?:plugin|interpreter)\|>",
    "Command R": r"<\|START_ACTION\|>\s*\[",
    "Gemma": rf"<start_function_call>\s*call:{_NAME}",
    "XML": rf"<(?:invoke|tool_use|tool)\s+name=\"{_NAME}\"\s*>\s*(?:<|\{{)",
    "function_call": rf"<function_calls?>\s*(?:{_OBJECT}|<invoke\s)",
    "harmony": rf"(?:<\|channel\|>\s*)?\b(?:analysis|commentary)\s+to=(?:functions\.)?{_NAME}",
    "ReAct": rf"(?m:^)Action:[ \t]*{_NAME}[ \t]*\n+Action Input:",
}
_CALL = re.compile("|".join(f"(?:{notation})" for notation in NOTATIONS.values()))
_HINT = re.compile(r"tool|function|invoke|python_|TOOL_|action|ACTION|Action|to=", re.A)  # nearly every text has none
_FENCE = re.compile(r"^(?P<tick>`{3,}|~{3,})(?P<info>[^`\n]*)\n(?P<code>.*?)(?:^(?P=tick)[`~]*[ \t]*$|\Z)", re.M | re.S)
_GEMMA = re.compile(r"```tool_code\n")
_CODE_OR_QUOTE = re.compile(r"`[^`\n]+`|\"<[^\"\n]{1,200}\"|[“「『][^”」』\n]{1,200}[”」』]|'<[^'\n]{1,200}'")
# A whole answer that is nothing but a call, in JSON or as Python.
_BARE = re.compile(
    rf"\s*(?:\[\s*)?(?:\{{\s*\"(?:type\"\s*:\s*\"function\"\s*,\s*\")?(?:name|function)\"\s*:\s*\"{_NAME}\"\s*,\s*"
    rf"\"(?:parameters|arguments|args)\"\s*:\s*\{{.*\}}\s*|[a-z](?=\w*_\w)\w*+\(\w+=[^\n]*\)\s*\])\]?\s*",
    re.S,
)


def tool_call_in(text: str) -> str | None:
    """The first tool call that a canonical text makes, as it begins; None where it makes none."""
    body, answer = split_thinking(text)
    for part in (body, answer):
        if part and _HINT.search(part):
            fenced, plain = _parted(part)
            if call := _CALL.search(plain) or _GEMMA.match(fenced):
                return _beginning(call.string, call.start())
    return _beginning(answer, 0) if answer and _BARE.fullmatch(answer) else None


def calls_tool(text: str, tool_call: bool) -> str | None:
    """The tool call of a response. tool_call: as stored: a header made a call, or a marker is somewhere in the text."""
    if (found := tool_call_in(text)) is not None:
        return found
    return "in a message header" if tool_call and not has_tool_call(text) else None


def _parted(text: str) -> tuple[str, str]:
    """The first fence of Gemma's tool code, and the text without code and quotations of notations."""
    own: list[str] = []

    def replaced(fence: re.Match[str]) -> str:
        if fence["info"].strip() == "tool_code":
            own.append(fence[0])
        return "\n"

    plain = _FENCE.sub(replaced, text)
    return own[0] if own else "", _CODE_OR_QUOTE.sub(" ", plain)


def _beginning(text: str, start: int) -> str:
    return text[start : start + 60]
