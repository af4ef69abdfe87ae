"""Dagster's instance: several processes may make one at the same time."""

import multiprocessing
from pathlib import Path

from dasd_assets.service.instance import open_instance
from dasd_resources.home import prepare_home


def open_new(home: Path) -> None:
    with open_instance(prepare_home(home, None)) as instance:
        assert instance.get_runs_count() == 0


def test_several_at_once_make_one(tmp_path: Path) -> None:
    children = [multiprocessing.get_context("fork").Process(target=open_new, args=(tmp_path,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
