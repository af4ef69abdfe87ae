"""Form (report §6.2): length, a proper end, a thinking part and a final answer, no tool call."""

from dasd_assets.rules.filters.tool_calls import calls_tool
from dasd_assets.rules.verdict import Verdict, VerdictKind
from dasd_resources.chat import split_thinking
from dasd_resources.recipe import Thinking
from dasd_resources.visible_text import excerpt


def length(num_student_tokens: int, max_student_tokens: int) -> Verdict:
    """At most so many tokens, counted by the tokenizer that will be trained; value: how many they are."""
    if num_student_tokens <= max_student_tokens:
        return Verdict(True, value=num_student_tokens)
    reason = f"{num_student_tokens} student tokens, at most {max_student_tokens}"
    return Verdict(False, "too_long", reason, num_student_tokens)


def truncation(finish_reason: str) -> Verdict:
    """Ended by the model itself."""
    if finish_reason == "stop":
        return Verdict(True)
    return Verdict(False, "cut_off", f"cut off: finish_reason is {finish_reason}")


def structure(text: str, tool_call: bool, thinking: Thinking = "required") -> Verdict:
    """No tool call; a thinking part as the recipe has it; a final answer; each delimiter once, or never without.

    tool_call: as stored of the response.
    """
    body, answer = split_thinking(text)
    faults: list[tuple[VerdictKind, str]] = []
    if (call := calls_tool(text, tool_call)) is not None:
        faults.append(("tool_call", f"calls a tool: {excerpt(call, 60)}"))
    thinks = bool((body or "").strip())
    if thinking == "required" and not thinks:
        faults.append(("no_thinking", "no thinking part"))
    if thinking == "none" and thinks:
        faults.append(("unexpected_thinking", "a thinking part, where teacher.thinking is none"))
    if not (answer or "").strip():
        faults.append(("no_final_answer", "no final answer"))
    # Without a thinking part, one that is required is all that is missed: its delimiters are not counted, too.
    expected = 0 if body is None and thinking != "required" else 1
    for tag in ("<think>", "</think>"):
        if (count := text.count(tag)) > expected:
            faults.append(("extra_delimiters", f"{count} {tag} delimiters, exactly {expected} expected"))
    return Verdict.of_faults(faults)
