"""reasoning-gym: each dataset is judged, left to the sandbox or excluded, and what is judged here evaluates nothing."""

import ast
import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from reasoning_gym import create_dataset, get_score_answer_fn
from reasoning_gym.factory import DATASETS

from dasd_resources.verifiers.catalogue import reference_fault, verify
from dasd_resources.verifiers.judgement import Asked
from dasd_resources.verifiers.reasoning_gym_datasets import (
    EVALUATED_DATASETS,
    EXCLUDED_DATASETS,
    REASONING_GYM_DATASETS,
    WITHOUT_REFERENCE,
)
from dasd_resources.verifiers.reasoning_gym_tasks import final_candidates, has_form

EVALUATING = {"eval", "exec", "compile", "open", "getattr", "__import__", "parse_expr", "sympify", "literal_eval"}
EVALUATING_MODULES = {"sympy", "ast", "os", "sys", "subprocess", "pickle", "importlib", "builtins", "numexpr", "pandas"}
FOLLOWED = ("reasoning_gym", "magiccube")
# What only another caller comes to: Game(path=…) opens a file, and the walk takes any object for one of any class.
NEVER_CALLED = {"sokoban": {"open", "import in SokobanDataset.__init__"}}
TWICE_IS_RIGHT = {"knights_knaves", "sokoban"}  # the same claims; moves that change a solved board no more
HOSTILE = (
    "no idea", "nan", "NaN", "inf", "-inf", "nanj", "sNaN", "1e999999999", "9" * 5_000, "[" * 5_000, "(" * 5_000,
    "{}", "[]", "[[]]", "null", "True and False", "__import__('os').getpid()", "\ud800", "\u0669" * 4, "A=1,A=2", 
    "A+999999999", "F999999999", '{"0": [1]}', "Move disk 1 from Peg 9 to Peg 9", "ABC" * 3_000, "U" * 9_999, "x,y",
    "\u00d7" * 40, "1/0", "F" * 3,
)  # fmt: skip


def rows(dataset: str) -> Iterator[tuple[Asked, str]]:
    """Rows as landing stores them, with the dataset's own answer, or one that is right where it gives none."""
    for entry in create_dataset(dataset, seed=1, size=3):
        metadata = json.dumps(entry["metadata"], sort_keys=True)
        yield Asked(entry["question"], entry["answer"] or "", metadata), entry["answer"] or solved(dataset, entry)


def solved(dataset: str, entry: dict[str, dict[str, object]]) -> str:
    if dataset == "graph_color":
        return json.dumps(entry["metadata"]["possible_answer"])
    if dataset == "rubiks_cube":
        return str(entry["metadata"]["example_correct_answer"])
    return ""


def outcome(dataset: str, answer: str, asked: Asked) -> str:
    return verify(f"reasoning_gym:{dataset}", answer, asked).outcome


def test_every_dataset_has_its_place() -> None:
    placed = [*REASONING_GYM_DATASETS, *EVALUATED_DATASETS, *EXCLUDED_DATASETS]
    assert sorted(placed) == sorted(DATASETS)
    assert all(len(reason) > 20 for reason in EXCLUDED_DATASETS.values())
    assert WITHOUT_REFERENCE <= REASONING_GYM_DATASETS


@pytest.mark.parametrize("dataset", sorted(REASONING_GYM_DATASETS))
def test_its_own_answers_are_correct_and_others_are_not(dataset: str, capfd: pytest.CaptureFixture[str]) -> None:
    name = f"reasoning_gym:{dataset}"
    for asked, answer in rows(dataset):
        assert reference_fault(name, asked) is None
        if not answer:
            continue
        for said in (answer, f"\\boxed{{{answer}}}", f"So:\n<answer>\n{answer}\n</answer>\n"):
            assert outcome(dataset, said, asked) == "correct" or "boxed" in said
        wrong = [*HOSTILE, f"{answer} or 7", *([f"{answer} {answer}"] if dataset not in TWICE_IS_RIGHT else [])]
        capfd.readouterr()
        assert [one for one in wrong if outcome(dataset, one, asked) == "correct"] == []
        assert capfd.readouterr().out == ""  # what a model wrote reaches no terminal


@dataclass
class Reach:
    """Functions that a scorer can come to within the library, by name, and what they use that evaluates."""

    dataset: object
    functions: set[Callable[..., object]] = field(default_factory=set)
    classes: list[type] = field(default_factory=list)
    attributes: set[str] = field(default_factory=lambda: {"__init__", "__call__", "__eq__", "__getitem__"})
    found: set[str] = field(default_factory=set)

    def follow(self, function: object) -> None:
        function = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
        if not inspect.isfunction(function) or not function.__module__.startswith(FOLLOWED):
            return
        if function in self.functions or function.__code__.co_filename == "<string>":  # a dataclass's own
            return
        self.functions.add(function)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.found.add(f"import in {function.__qualname__}")
            elif isinstance(node, ast.Name):
                self.use(node.id, function.__globals__.get(node.id))
            elif isinstance(node, ast.Attribute):
                holder = function.__globals__.get(node.value.id) if isinstance(node.value, ast.Name) else None
                self.use(node.attr, getattr(holder, node.attr, None) if isinstance(holder, ModuleType) else None)
                self.look_up(node.attr)

    def use(self, name: str, value: object) -> None:
        module = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
        if name in EVALUATING or module.partition(".")[0] in EVALUATING_MODULES:
            self.found.add(name)
        elif inspect.isclass(value):
            self.meet(value)
        else:
            self.follow(value)

    def meet(self, met: type) -> None:
        """A class that is used: its methods are those of names that are used, for any object may be one of it."""
        for one in met.__mro__:
            if one not in self.classes and one.__module__.startswith(FOLLOWED):
                self.classes.append(one)
                for name in list(self.attributes):
                    self.follow(vars(one).get(name))

    def look_up(self, name: str) -> None:
        self.attributes.add(name)
        self.use(name, vars(self.dataset).get(name))  # such as sokoban's game, imported when the dataset is made
        for one in list(self.classes):
            self.follow(vars(one).get(name))


@cache
def reach(dataset: str) -> Reach:
    scorer = get_score_answer_fn(dataset)
    found = Reach(scorer.__self__)
    found.classes += [one for one in type(scorer.__self__).__mro__ if one.__module__.startswith(FOLLOWED)]
    found.follow(scorer)
    return found


@pytest.mark.parametrize("dataset", sorted(REASONING_GYM_DATASETS))
def test_an_allowed_scorer_comes_to_nothing_that_evaluates(dataset: str) -> None:
    assert reach(dataset).found - NEVER_CALLED.get(dataset, set()) == set()


@pytest.mark.parametrize("dataset", sorted(EVALUATED_DATASETS))
def test_the_walk_finds_what_evaluates(dataset: str) -> None:
    assert reach(dataset).found & {"eval", "parse_expr"}


def asked(dataset: str, reference: str, metadata: str = "{}") -> Asked:
    return Asked("q", reference, metadata, dataset)


@pytest.mark.parametrize(
    ("text", "reference", "among"),
    [
        ("A# B#", "A# B#", "A# B#"),
        ("It ends so.", "It ends so.", "It ends so."),  # markup and full stops may belong to the answer
        ("I think\n<answer>\n1 2\n3 4\n</answer>.", "1 2\n3 4", "1 2\n3 4"),
        ("<answer>1</answer> no: <answer>2</answer>", "2", "2"),
        ("The answer is:\n1 2\n3 4", "1 2\n3 4", "1 2\n3 4"),
        ('Here:\n```json\n["fill A"]\n```\nDone.', '["fill A"]', '["fill A"]'),
        ("\\boxed{7}", "7", "7"),
        ("The answer is _ Q\nQ _", "_ Q\nQ _", "_ Q\nQ _"),
        ("The answer is:\n```json\n[1]\n```", "[1]", "[1]"),
        ("The answer is as follows:\n\n```\n1 2\n3 4\n```", "1 2\n3 4", "1 2\n3 4"),
        ("```\nAnswer: 5\n```", "5", "5"),
        ("\\boxed{\\text{Paris}}", "Paris", "Paris"),
    ],
)
def test_where_an_answer_stands(text: str, reference: str, among: str) -> None:
    assert among in final_candidates(text, reference)


@pytest.mark.parametrize(
    "hedge",
    ["The answer is 5.\n```\n7\n```", "```\n7\n```\nThe answer is 5.", "\\boxed{5}, the answer is\n```\n7\n```"],
)
def test_of_two_answers_one_counts(hedge: str) -> None:
    assert final_candidates(hedge, "7") == ["5"]
    assert final_candidates("\\boxed{5}, the answer is\n7\n8", "7\n8") == ["5"]


def test_tags_say_which_part_is_the_answer() -> None:
    assert final_candidates("The answer is 5. <answer>6</answer>", "5") == ["6"]
    assert final_candidates("</answer> 5 <answer>", "5") == ["</answer> 5 <answer>"]
    assert final_candidates(" ", "5") == []


@pytest.mark.parametrize(
    ("dataset", "answer", "reference", "metadata"),
    [
        ("complex_arithmetic", "nan", "1.0 + 2.0i", '{"result": [1.0, 2.0]}'),
        ("time_intervals", "5 or 6 days", "5 days", '{"task_type": "date"}'),
        ("word_sorting", "a, b, c", "a, b", '{"sorted_words": ["a", "b"]}'),
        ("letter_jumble", "full license extra", "full license", "{}"),
        ("polynomial_equations", "2.0, or maybe 3", "2.0", "{}"),
        ("rubiks_cube", "2R U'", "", "{}"),
        ("rubiks_cube", "R'" * 400 + "!", "", "{}"),
        ("puzzle24", "6*4*1*1", "", '{"numbers": [5, 6, 1, 6]}'),
    ],
)
def test_answers_that_a_scorer_takes_too_readily_lack_the_form(
    dataset: str, answer: str, reference: str, metadata: str
) -> None:
    assert not has_form(answer, asked(dataset, reference, metadata))


def test_a_row_that_its_scorer_cannot_judge_is_refused() -> None:
    assert reference_fault("reasoning_gym:gcd", asked("gcd", "3")) is None
    assert "does not get the full score of word_sorting" in (
        reference_fault("reasoning_gym:word_sorting", asked("", "a, b")) or ""
    )
    assert "not that of a rush_hour row" in (reference_fault("reasoning_gym:rush_hour", asked("", "")) or "")
    assert "needs a reference_answer" in (reference_fault("reasoning_gym:ab", asked("", "")) or "")
    huge = asked("", "x", '{"num_disks": 1000000000}')
    assert (
        reference_fault("reasoning_gym:tower_of_hanoi", huge)
        == "metadata key num_disks is 1000000000, at most 1000 is judged"
    )


def test_integer_keys_that_json_made_strings_are_refused() -> None:
    """A row whose scorer relies on integer keys; none of the allowed datasets does, as their own rows show above."""
    assert reference_fault("reasoning_gym:jugs", asked("", '["fill A"]', '{"puzzle": {"0": 1}}')) is not None


def test_the_page_names_every_dataset_that_is_not_judged_and_why() -> None:
    page = (Path(__file__).parents[1] / "docs" / "verifiers.md").read_text("utf-8")
    assert all(f"| `{dataset}` | {reason} |" in page for dataset, reason in EXCLUDED_DATASETS.items())
    assert all(f"`{dataset}`" in page for dataset in EVALUATED_DATASETS | WITHOUT_REFERENCE)
    assert f"{len(REASONING_GYM_DATASETS)} are judged here" in page
