import math

import pytest

from dasd_resources.storage.passes import MAX_PASSES, passes


@pytest.mark.parametrize("number", [0, 1, 4, 5, 9, 10 * MAX_PASSES + 1])
def test_every_id_is_in_one_pass(number: int) -> None:
    ids = [f"{index:05d}" for index in range(number)]
    found = passes([(name, 1 + index % 3) for index, name in enumerate(ids)], 4)
    assert [name for first, last in found for name in ids if first <= name <= last] == ids
    assert len(found) <= MAX_PASSES


def test_where_each_pass_reads_only_its_own_files_there_may_be_any_number() -> None:
    assert len(passes([(f"{index:05d}", 1) for index in range(1000)], 4, most=math.inf)) == 250


def test_a_pass_is_for_as_many_as_are_asked_for_or_one_id_more() -> None:
    assert passes([(name, 1) for name in "abcde"], 2) == [("a", "b"), ("c", "d"), ("e", "e")]
    assert passes([("a", 1), ("b", 9), ("c", 1), ("d", 1)], 2) == [("a", "b"), ("c", "d")]
