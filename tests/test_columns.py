"""Mappings of a file's columns: paths, conversations, choices, and every ready mapping on rows of its own schema.

The rows are made up; their keys and types are the dataset's.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dasd_assets import prompts
from dasd_assets.evaluation.questions import question_rows
from dasd_assets.records.declaration import declare
from dasd_assets.rules.contamination import CONTAMINATION
from dasd_assets.rules.near_duplicates import NEAR_DUPLICATES
from dasd_assets.rules.quotas import QUOTAS
from dasd_resources.landing.columns import UnmappableRow, absent_paths, at_path, fitting, last_box, mapped, messages_of
from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.recipe import Benchmark, Columns, Landing, columns_for, load_recipe
from dasd_resources.recipe.ready_columns import READY_COLUMNS

Row = dict[str, object]
THOUGHT = "<think>\nOthers thought so.\n</think>\nOthers answered so."


def columns(**keys: object) -> Columns:
    return Columns.model_validate(keys)


def from_file(folder: Path, mapping: object, *rows: Row, name: str = "a.jsonl") -> list[Prompt | RejectedPrompt]:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return list(read_prompts(path, mappings=Landing.model_validate({"columns": mapping}).columns))


def turns(question: str, answer: str = THOUGHT, system: str | None = None) -> list[Row]:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return said if system is None else [{"role": "system", "content": system}, *said]


def am_turns(question: str, source: str, reference: str | None, test_case: str | None) -> list[Row]:
    info = {"source": source, "reference_answer": reference, "test_case": test_case}
    empty = dict.fromkeys(info)
    asked = {"role": "user", "content": question, "info": {**info, "think_content": None, "answer_content": None}}
    answered = {"role": "assistant", "content": THOUGHT, "info": {**empty, "think_content": "a", "answer_content": "b"}}
    return [asked, answered]


OCR = {"output": THOUGHT, "source": "aizu", "license": "cc-by-4.0", "difficulty": "EASY", "solution": "print(1)"}
OCR2 = {
    **{"question_id": "q", "r1_generation": THOUGHT, "qwq_critique": THOUGHT, "solution": "x", "judgement": "right"},
    **{"pass_rate": 1.0, "source": "s", "license": "l", "difficulty": "1", "split": "train"},
}
NEMOTRON = {"uuid": "u", "license": "cc-by-4.0", "generator": "R1", "version": "1.0", "reasoning": "on"}
# name -> rows as the dataset has them, each with what it becomes: question, domain, reference, verifier, metadata
READY: dict[str, list[tuple[Row, tuple[str, str, str | None, str | None, Row]]]] = {
    "acereason_math": [({"problem": "2+3?", "answer": "5"}, ("2+3?", "math", "5", "math", {}))],
    "acereason_sft": [
        (
            {"category": "code", "source": "taco", "input": "Sort.", "output": THOUGHT},
            ("Sort.", "code", None, None, {"source": "taco"}),
        )
    ],
    "am_deepseek_r1": [
        (
            {"messages": am_turns("2+4?", "OpenR1-Math", "6", None)},
            ("2+4?", "math", "6", "math", {"source": "OpenR1-Math"}),
        ),
        (
            {"messages": am_turns("Sort it.", "codeforces", None, '{"inputs": ["1"]}')},
            ("Sort it.", "code", None, None, {"source": "codeforces", "test_case": '{"inputs": ["1"]}'}),
        ),
        (
            {"messages": am_turns("Why?", "InfinityInstruct", "Because.", None)},
            ("Why?", "general", "Because.", None, {"source": "InfinityInstruct"}),
        ),
    ],
    "dapo_math": [
        (
            {
                **{"data_source": "math_dapo", "prompt": [{"role": "user", "content": "3+4?"}], "ability": "MATH"},
                "reward_model": {"ground_truth": "7", "style": "rule-lighteval/MATH_v2"},
                "extra_info": {"index": "9a"},
            },
            ("3+4?", "math", "7", "math", {"data_source": "math_dapo", "index": "9a"}),
        )
    ],
    "dasd": [
        (
            {"uuid": "u", "input": "4+4?", "output": THOUGHT, "domain": "math", "meta": "{}"},
            ("4+4?", "math", None, None, {"uuid": "u", "meta": "{}"}),
        )
    ],
    "deepmath": [
        (
            {
                **{"question": "4+5?", "final_answer": "9", "difficulty": 5.0, "topic": "Algebra"},
                **{f"r1_solution_{number}": THOUGHT for number in (1, 2, 3)},
            },
            ("4+5?", "math", "9", "math", {"difficulty": 5.0, "topic": "Algebra"}),
        )
    ],
    "gsm8k": [
        (
            {"question": "5+5?", "answer": "It is 5+5 = <<5+5=10>>10.\n#### 10"},
            ("5+5?", "math", "10", "math", {}),
        )
    ],
    "math500": [
        (
            {
                **{"problem": "5+6?", "solution": r"It is \boxed{11}.", "answer": "11", "subject": "Algebra"},
                **{"level": 2, "unique_id": "test/algebra/1.json"},
            },
            ("5+6?", "math", "11", "math", {"subject": "Algebra", "level": 2, "unique_id": "test/algebra/1.json"}),
        )
    ],
    "messages": [({"id": "1", "messages": turns("Hello?")}, ("Hello?", "general", None, None, {"id": "1"}))],
    "nemotron_v1": [
        (
            {**NEMOTRON, "category": "math", "messages": turns("6+6?"), "metadata": '{"expected_answer": "12"}'},
            ("6+6?", "math", "12", "math", {"uuid": "u", "category": "math", "license": "cc-by-4.0"}),
        ),
        (
            {**NEMOTRON, "category": "stem", "messages": turns("A?"), "metadata": '{"expected_answer": "B"}'},
            ("A?", "science", "B", "multiple_choice", {"uuid": "u", "category": "stem", "license": "cc-by-4.0"}),
        ),
        (
            {**NEMOTRON, "category": "chat", "messages": turns("Hi!", system=""), "metadata": "{}"},
            ("Hi!", "chat", None, None, {"uuid": "u", "category": "chat", "license": "cc-by-4.0"}),
        ),
    ],
    "numinamath_cot": [
        (
            {
                **{"source": "cn_k12", "problem": "6+7?", "solution": r"So \boxed{\frac{26}{2}}."},
                "messages": turns("6+7?", r"So \boxed{\frac{26}{2}}."),
            },
            ("6+7?", "math", r"\frac{26}{2}", "math", {"source": "cn_k12"}),
        ),
        (
            {
                "source": "olympiads",
                "problem": "Prove it.",
                "solution": "Clear.",
                "messages": turns("Prove it.", "Clear."),
            },
            ("Prove it.", "math", None, None, {"source": "olympiads"}),
        ),
    ],
    "opencodereasoning": [
        (
            {**OCR, "id": "1", "input": "Sort a list.", "dataset": "-", "split": "-"},
            (
                *("Sort a list.", "code", None, None),
                {
                    **{"id": "1", "source": "aizu", "license": "cc-by-4.0"},
                    **{"dataset": "-", "split": "-", "difficulty": "EASY"},
                },
            ),
        )
    ],
    "opencodereasoning2": [
        (
            {**OCR2, "id": "1", "question": "Sort a tree.", "dataset": "taco", "index": "3"},
            (
                *("Sort a tree.", "code", None, None),
                {
                    **{"id": "1", "question_id": "q", "source": "s", "license": "l", "difficulty": "1"},
                    **{"dataset": "taco", "split": "train", "index": "3"},
                },
            ),
        )
    ],
    "opensciencereasoning2": [
        (
            {"input": "Which? A: a, B: b", "output": THOUGHT, "expected_answer": "B"},
            ("Which? A: a, B: b", "science", "B", "multiple_choice", {}),
        ),
        (
            {"input": "Why is it so?", "output": THOUGHT, "expected_answer": "x" * 500},
            ("Why is it so?", "science", None, None, {}),
        ),
    ],
    "openthoughts3": [
        (
            {
                **{"difficulty": 7, "source": "ai2", "domain": "math"},
                "conversations": [{"from": "human", "value": "7+7?"}, {"from": "gpt", "value": THOUGHT}],
            },
            ("7+7?", "math", None, None, {"source": "ai2", "difficulty": 7}),
        )
    ],
    "sharegpt": [
        (
            {"conversations": [{"from": "human", "value": "7+8?"}, {"from": "gpt", "value": THOUGHT}]},
            ("7+8?", "general", None, None, {}),
        )
    ],
}


def test_every_ready_mapping_has_rows_here() -> None:
    assert READY.keys() == READY_COLUMNS.keys()


@pytest.mark.parametrize("name", READY)
def test_a_ready_mapping_takes_rows_of_its_schema_and_leaves_the_answers_of_others(tmp_path: Path, name: str) -> None:
    rows = [row for row, _ in READY[name]]
    for (_, wanted), found in zip(READY[name], from_file(tmp_path, name, *rows), strict=True):
        assert isinstance(found, Prompt), found
        ours = (found.question, found.domain, found.reference_answer, found.verifier, json.loads(found.metadata))
        assert ours == wanted
        assert found.system_prompt is None
        assert "Others" not in f"{found}"


@pytest.mark.parametrize("name", READY)
def test_rows_of_a_schema_are_recognised(name: str) -> None:
    assert {fitting(row) for row, _ in READY[name]} == {name}


def test_a_rejected_row_names_the_mapping_that_fits(tmp_path: Path) -> None:
    [found] = from_file(tmp_path, [], READY["openthoughts3"][0][0])
    assert isinstance(found, RejectedPrompt)
    assert found.kind == "missing_question"
    assert found.reason == (
        "question is missing; the keys are those of open-thoughts/OpenThoughts3-1.2M: "
        "write `landing: {columns: openthoughts3}` in the recipe"
    )
    [found] = from_file(tmp_path, "acereason_math", READY["openthoughts3"][0][0])
    assert isinstance(found, RejectedPrompt)
    assert "write `landing: {columns: openthoughts3}`" in found.reason
    [found] = from_file(tmp_path, [], {"text": "?"})
    assert isinstance(found, RejectedPrompt)
    assert "name its key `question`, or map it in the recipe" in found.reason


@pytest.mark.parametrize(
    ("name", "row", "what"),
    [
        (
            "opencodereasoning",
            {**OCR, "id": "1", "input": "-", "dataset": "apps", "split": "train", "index": "3"},
            "TACO",
        ),
        ("opencodereasoning2", {**OCR2, "id": "1", "question": "-", "dataset": "apps", "index": "3"}, "as `question`"),
        ("nemotron_v1", {**NEMOTRON, "category": "code", "messages": turns("-"), "metadata": "{}"}, "join them"),
        ("nemotron_v1", {**NEMOTRON, "category": "chat", "messages": turns(""), "metadata": "{}"}, "join them"),
    ],
)
def test_a_question_that_the_dataset_leaves_out_is_to_be_joined(tmp_path: Path, name: str, row: Row, what: str) -> None:
    [found] = from_file(tmp_path, name, row)
    assert isinstance(found, RejectedPrompt)
    assert found.kind == "missing_question"
    assert what in found.reason
    assert "landing:" not in found.reason  # it is mapped already


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1),
        ("b.c", "x"),
        ("b.d.0", "p"),
        ("b.d.-1", "q"),
        ("b.d.2", None),
        ("b.d.x", None),
        ("j.k.1.l", 5),
        ("dotted.key", 2),
        ("dotted.in.side", 3),
        ("nothing", None),
        ("a.b", None),
        ("t.x", None),
        ("", None),
    ],
)
def test_a_path_goes_through_objects_lists_and_json_in_texts(path: str, value: object) -> None:
    row = {
        **{"a": 1, "b": {"c": "x", "d": ["p", "q"]}, "j": '{"k": [0, {"l": 5}]}', "t": "{not json"},
        **{"dotted.key": 2, "dotted": {"key": 0}, "dotted.in": {"side": 3}},
    }
    assert at_path(row, path) == value


@given(
    st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), st.text()
)
@settings(deadline=None, max_examples=50)
def test_any_path_into_anything_is_a_value_or_none(row: object, path: str) -> None:
    at_path(row, path)


def test_a_conversation_is_read_in_every_notation() -> None:
    said = [("system", "s"), ("user", "q"), ("assistant", "a")]
    for value in (
        [{"role": role, "content": text} for role, text in said],
        [{"from": name, "value": text} for name, text in (("system", "s"), ("human", "q"), ("gpt", "a"))],
        json.dumps([{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]),
    ):
        found = messages_of(value)
        assert found is not None
        assert [(message.role, message.content) for message in found] == said
    assert messages_of("plain") is messages_of(5) is messages_of(["a"]) is None


def test_the_question_is_the_last_user_message_before_the_first_answer() -> None:
    mapping = columns(question={"messages": "m"}, system_prompt={"messages": "m", "role": "system"}, metadata=[])
    talk = [*turns("one"), *turns("two")]
    assert mapped(mapping, {"m": talk})["question"] == "one"
    assert mapped(mapping, {"m": [{"role": "user", "content": "zero"}, *talk]})["question"] == "one"
    assert mapped(mapping, {"m": turns("q", system="Be brief.")}) == {
        **{"metadata": {}, "question": "q", "system_prompt": "Be brief."},
    }
    assert mapped(mapping, {"m": turns("q", system=" ")}) == {"metadata": {}, "question": "q"}
    assert mapped(mapping, {"m": talk[1:2]}) == mapped(mapping, {"m": []}) == mapped(mapping, {}) == {"metadata": {}}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "m is no list of messages: 'hello'"),
        ([["user", "q"]], "m is no list of messages"),
        ([{"role": "user", "content": 5}], "a message's content is no text: 5"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}],
            "a message has a part that is no text",
        ),
    ],
)
def test_what_is_no_conversation_is_an_invalid_field(tmp_path: Path, messages: object, message: str) -> None:
    [found] = from_file(tmp_path, {"question": {"messages": "m"}}, {"m": messages})
    assert isinstance(found, RejectedPrompt)
    assert found.kind == "invalid_field"
    assert message in found.reason


CHOICES: list[object] = [
    ["red", "blue"],
    {"A": "red", "B": "blue"},
    {"text": ["red", "blue"], "label": ["A", "B"]},
    [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}],
    '["red", "blue"]',
]


@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize("right", ["B", 1, "blue", " blue "])
def test_choices_become_one_text_and_the_right_ones_letter(choices: object, right: object) -> None:
    mapping = columns(
        question={"template": "{q}\n\n{choices}", "choices": "options"},
        reference_answer={"letter": "right", "choices": "options"},
        verifier={"constant": "multiple_choice"},
    )
    assert mapped(mapping, {"q": "Sky?", "options": choices, "right": right, "year": 1}) == {
        **{"question": "Sky?\n\nA. red\nB. blue", "reference_answer": "B", "verifier": "multiple_choice", "year": 1},
    }


def test_a_template_takes_values_once_and_needs_them_all() -> None:
    mapping = columns(question={"template": r"{a}: {b.c}. Answer in \boxed{}."})
    assert mapped(mapping, {"a": "{b.c}", "b": {"c": [1]}})["question"] == r"{b.c}: [1]. Answer in \boxed{}."
    assert mapped(mapping, {"a": "x"}) == {}


@pytest.mark.parametrize("right", ["C", 2, -1, True, "red, blue", 1.0, ["B"]])
def test_a_right_choice_that_is_none_is_a_fault(right: object) -> None:
    mapping = columns(reference_answer={"letter": "right", "choices": "options"})
    with pytest.raises(UnmappableRow, match=r"right .* is none of the choices A, B"):
        mapped(mapping, {"question": "q", "options": ["red", "blue"], "right": right})


@pytest.mark.parametrize("choices", [5, "red", [1, 2], {"A": 1}, [{"a": "b"}], []])
def test_what_is_no_list_of_choices_is_a_fault(choices: object) -> None:
    mapping = columns(reference_answer={"letter": "right", "choices": "options"})
    with pytest.raises(UnmappableRow, match="options is no list of choices"):
        mapped(mapping, {"question": "q", "options": choices, "right": "A"})


def test_of_several_sources_the_first_with_a_value_counts() -> None:
    mapping = columns(
        question=["problem", {"path": "text", "empty": ["-"]}, {"constant": "What?"}],
        domain={"path": "kind", "values": {"m": "math"}},
    )
    assert mapped(mapping, {"problem": "p", "text": "t", "kind": "m"})["question"] == "p"
    assert mapped(mapping, {"problem": " ", "text": "t", "kind": "m"}) == {"question": "t", "domain": "math"}
    assert mapped(mapping, {"text": "-", "kind": "x"}) == {"question": "What?", "domain": "x"}


def test_metadata_is_what_is_kept_or_all_that_no_key_is_made_of() -> None:
    row = {"problem": "p", "answer": "5", "solution": "s", "info": {"year": 3}, "domain": "d"}
    assert mapped(columns(question="problem"), row) == {
        **{"question": "p", "domain": "d", "answer": "5", "solution": "s", "info": {"year": 3}},
    }
    assert mapped(columns(question="problem", metadata=["answer", "info.year", "none"]), row)["metadata"] == {
        **{"answer": "5", "info.year": 3},
    }
    assert mapped(columns(question="problem", metadata={"year": "info.year"}), row)["metadata"] == {"year": 3}
    assert mapped(columns(question="problem", domain={"constant": None}, metadata=[]), row) == {
        **{"question": "p", "metadata": {}},
    }


def test_a_verifier_of_the_mapping_is_for_rows_with_a_reference() -> None:
    mapping = columns(question="q", reference_answer={"path": "a", "after": "####"}, verifier={"constant": "math"})
    assert mapped(mapping, {"q": "x", "a": "so #### 5"}) == {
        "question": "x",
        "reference_answer": "5",
        "verifier": "math",
    }
    assert mapped(mapping, {"q": "x", "a": "so 5"}) == {"question": "x"}
    tested = columns(question="q", verifier={"constant": "code"})
    assert mapped(tested, {"q": "x", "tests": []}) == {"question": "x", "verifier": "code", "tests": []}
    own = columns(question="q")
    assert mapped(own, {"q": "x", "verifier": "math"}) == {"question": "x", "verifier": "math"}  # is rejected as ever


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\fbox {3}", "3"),
        (r"\boxed{4} and \boxed{5", "4"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{5 and \boxed{6}", "6"),
        (r"\boxed{7 \boxed{8}}", "8"),
        (r"} \boxed{9}", "9"),
        (r"\boxed{" * 100_000, None),
        ("none", None),
    ],
)
def test_the_last_closed_box(text: str, inside: str | None) -> None:
    assert last_box(text) == inside


def test_a_mapping_makes_prompts_stale_and_none_is_in_no_code_version() -> None:
    demo = load_recipe("demo")

    def version(mapping: object) -> str | None:
        landing = Landing.model_validate({"columns": mapping})
        [asset] = prompts.build(demo.model_copy(update={"landing": landing}))
        return next(iter(asset.specs)).code_version

    rules = [prompts.LANDING, QUOTAS, CONTAMINATION, NEAR_DUPLICATES]
    assert version([]) == declare(demo, "prompts", ["prompts"], rules=rules).code_version.text
    mappings: list[object] = [[], "gsm8k", {"ready": "gsm8k", "metadata": ["id"]}, {"question": "q"}]
    assert len({version(mapping) for mapping in mappings}) == len(mappings)


def test_each_file_has_the_first_mapping_that_fits_its_name() -> None:
    landing = Landing.model_validate(
        {"columns": [{"where": "gsm*", "ready": "gsm8k"}, {"where": ["b/*", "c.jsonl"], "question": "text"}]}
    )
    names = {
        name: columns_for(landing.columns, name) for name in ("gsm1.csv", "x/gsm2.csv", "b/c.json", "c.jsonl", "d")
    }
    assert [found and (found.ready or "own") for found in names.values()] == ["gsm8k", "gsm8k", "own", "own", None]


def test_keys_beside_a_ready_mapping_replace_its_own() -> None:
    mapping = columns(ready="gsm8k", domain={"constant": "school"}, metadata=["id"])
    assert mapped(mapping, {"id": 1, "question": "q", "answer": "#### 2"}) == {
        **{"metadata": {"id": 1}, "question": "q", "domain": "school", "reference_answer": "2", "verifier": "math"},
    }


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("gsm8", "there is no ready mapping 'gsm8'; there are acereason_math, acereason_sft"),
        ([{"where": "a*"}], "maps nothing; name a ready mapping"),
        ({"question": {"pth": "a"}}, "Extra inputs are not permitted"),
        ({"question": 5}, "must be a path, or an object with one of path, constant"),
        ({"question": {"path": "a", "constant": "b"}}, "exactly one of .*; it has path and constant"),
        ({"question": {"empty": ["-"]}}, "exactly one of .*; it has none"),
        ({"question": {"letter": "a"}}, "choices goes with `letter`"),
        ({"question": {"template": "{a}", "choices": "b"}}, "choices goes with `letter`"),
        ({"question": {"path": "a", "when": {"b": "("}}}, "'\\(' is not a regular expression"),
        ({"question": []}, "at least 1 item"),
    ],
)
def test_a_fault_of_a_mapping_is_one_clear_sentence(mapping: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as error:
        Landing.model_validate({"columns": mapping})
    assert len(error.value.errors()) == 1


def test_the_paths_that_no_row_has() -> None:
    rows: list[Row] = [{"a": 1, "m": None}, {"b": {"c": 2}}]
    mapping = columns(question=["x", "a"], domain=["y", "z"], verifier={"path": "m"}, metadata=["b.c", "b.d"])
    assert absent_paths(mapping, rows) == ["y", "z", "b.d"]
    assert absent_paths(columns(ready="gsm8k"), [{"question": "q"}]) == ["answer"]


def test_a_benchmarks_file_may_be_mapped_too(tmp_path: Path) -> None:
    path = tmp_path / "math500.jsonl"
    path.write_text(json.dumps(READY["math500"][0][0]) + "\n", encoding="utf-8")
    document = {"name": "math500", "path": str(path), "max_tokens": 9, "columns": "math500"}
    [row] = question_rows(Benchmark.model_validate(document))
    assert (row["question"], row["reference_answer"], row["verifier"]) == ("5+6?", "11", "math")


def test_what_was_json_in_a_text_may_be_too_deep(tmp_path: Path) -> None:
    [found] = from_file(
        tmp_path, {"question": "q", "metadata": ["m.a"]}, {"q": "x", "m": f'{{"a": {"[" * 200}{"]" * 200}}}'}
    )
    assert isinstance(found, RejectedPrompt)
    assert "nested more than 100 deep" in found.reason
    [good] = from_file(tmp_path, {"question": "q", "metadata": ["m.a"]}, {"q": "x", "m": "[" * 100_000})
    assert isinstance(good, Prompt)
