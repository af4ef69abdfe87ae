"""The sentence that names `teacher.thinking` where it drops most of what is dropped for structure."""

from dasd_assets.rules.thinking import advice


def test_the_key_is_named_where_most_are_dropped_for_their_thinking() -> None:
    assert advice({"no_thinking": 22}, "required") == (
        "22 of the 22 that structure dropped have no thinking part, and teacher.thinking is required: write "
        "teacher.thinking: none if the teacher is not to think, optional to keep both kinds "
        "(nothing is generated again)"
    )
    assert advice({"unexpected_thinking": 1200, "tool_call": 3}, "none").startswith(
        "1,200 of the 1,203 that structure dropped have a thinking part, and teacher.thinking is none: write "
        "teacher.thinking: required if the teacher is to think"
    )


def test_it_is_not_named_where_something_else_drops_them() -> None:
    assert advice({}, "required") == advice({"tool_call": 5, "no_thinking": 5}, "required") == ""
    assert advice({"no_thinking": 5, "no_final_answer": 9}, "optional") == advice({"no_final_answer": 9}, "none") == ""
