"""What makes two questions one, and which ids follow from it."""

from dasd_resources.landing.question_identity import judged_question_id, question_key


def test_a_question_counts_up_to_composition_and_white_space_and_nothing_else() -> None:
    base = question_key("é 1", None)
    assert base == question_key(" e\u0301\n1\u00a0", None)
    assert len(base) == 32
    assert len({base, question_key("É 1", None), question_key("é 1", "s"), question_key("é1", None)}) == 4


def test_characters_that_only_look_alike_stay_apart() -> None:
    """Compatibility composition would make 2² and 22, or x₁ and x1, one question."""
    texts = ["2²", "22", "x₁", "x1", "½", "1/2", "ﬁ", "fi"]
    assert len({question_key(text, None) for text in texts}) == len(texts)


def test_ids_of_earlier_releases_and_of_held_out_questions_do_not_change() -> None:
    """Every id downstream is made from them."""
    assert judged_question_id("e\u0301  1", None, "math", "exact", "5") == "78bb64f2d53d6a7e9248a6d11befac97"
    base = judged_question_id("é 1", None, "math", None, None)
    others = [
        judged_question_id("é 1", "s", "math", None, None),
        judged_question_id("é 1", None, "code", None, None),
        judged_question_id("é 1", None, "math", None, "5"),
        judged_question_id("é 1", None, "math", "math", "5"),
        judged_question_id("é 1", None, "math", "exact", "5"),
    ]
    assert len({base, *others}) == 6
