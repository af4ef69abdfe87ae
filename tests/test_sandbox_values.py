"""Values of programs as JSON and back: plain data returns as it was, anything else is refused."""

import json
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasd_resources.sandbox.inside.values import NotPlain, decoded, encoded

KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
PLAIN = st.recursive(
    KEYS | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False, allow_infinity=False),
    lambda part: st.lists(part) | st.tuples(part, part) | st.dictionaries(KEYS, part) | st.sets(KEYS),
    max_leaves=20,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: (
        st.lists(part) | st.dictionaries(st.sampled_from(["set", "dict", "int", "bytes", "x"]), part, max_size=2)
    ),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_data_returns_as_it_was(value: object) -> None:
    again = decoded(json.loads(json.dumps(encoded(value))))
    assert again == value and type(again) is type(value)


def test_what_derives_from_plain_data_becomes_plain() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    point = namedtuple("point", "x y")
    for value, plain in (
        (Liar(3), 3),
        (point(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(int, {1: 2}), {1: 2}),
        (OrderedDict([(2, 1)]), {2: 1}),
        (deque([1, 2]), [1, 2]),
        (frozenset({1}), {1}),
        (math.inf, math.inf),
    ):
        again = decoded(json.loads(json.dumps(encoded(value))))
        assert again == plain and type(again) is type(plain)
    assert math.isnan(float(str(decoded(encoded(math.nan)))))


def test_anything_else_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    for value in (object(), iter([1]), lambda: 1, {"a": object()}, loop, range(3)):
        with pytest.raises(NotPlain):
            encoded(value)


@given(JSON)
def test_whatever_a_program_writes_in_place_of_a_value_is_a_value_or_an_error(text: object) -> None:
    with suppress(ValueError, TypeError):
        decoded(text)
