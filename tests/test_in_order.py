"""Rows that are judged at once come out in their order, few at a time."""

from collections.abc import Iterator
from threading import Barrier, Event

import pytest

from dasd_resources.machine import num_cores
from dasd_resources.verifiers.in_order import AHEAD, in_order


def test_results_come_in_the_order_of_the_items_though_the_last_is_done_first() -> None:
    second_is_done = Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(60)
        if item == 1:
            second_is_done.set()
        return -item

    assert list(in_order(range(100), work)) == [-item for item in range(100)]


def test_several_are_worked_on_at_once() -> None:
    both = Barrier(2, timeout=60)
    assert len(list(in_order(range(2), lambda item: both.wait()))) == 2


def test_an_error_is_raised_in_its_place() -> None:
    found = []
    with pytest.raises(ZeroDivisionError):
        for result in in_order([1, 2, 0, 4], lambda item: 4 // item):
            found.append(result)
    assert found == [4, 2]


def test_no_more_items_are_read_than_are_worked_on() -> None:
    read = []

    def items() -> Iterator[int]:
        for item in range(10_000):
            read.append(item)
            yield item

    results = in_order(items(), lambda item: item)
    for _ in range(10):
        next(results)
    assert len(read) <= 10 + AHEAD * (num_cores() + 1) + 1
    results.close()  # type: ignore[attr-defined]


def test_a_result_does_not_lie_about_while_the_next_item_is_waited_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        assert taken == [1]
        yield 2

    for result in in_order(items(), lambda item: item, patience=60):
        taken.append(result)
    assert taken == [1, 2]
