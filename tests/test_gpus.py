"""Which GPUs each replica gets."""

import pytest

from dasd_resources.inference.gpus import divide, visible_gpus
from dasd_resources.recipe import RecipeError, load_recipe


def test_each_replica_has_its_own() -> None:
    assert divide(list("0123"), 4, 1) == [["0"], ["1"], ["2"], ["3"]]
    assert divide(["GPU-a", "GPU-b", "GPU-c", "GPU-d", "GPU-e"], 2, 2) == [["GPU-a", "GPU-b"], ["GPU-c", "GPU-d"]]


def test_without_a_gpu_replicas_share_the_cores() -> None:
    assert divide([], 3, 2) == [[], [], []]


@pytest.mark.parametrize(
    ("replicas", "each", "message"),
    [
        (8, 1, r"replicas: 8, each on 1 GPU, exceed the 4 that can be used here; lower replicas$"),
        (3, 2, r"replicas: 3, each on 2 GPUs, exceed the 4 .* lower replicas or the engine's parallel size$"),
    ],
)
def test_too_few_are_an_error(replicas: int, each: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        divide(list("0123"), replicas, each)


def test_a_variable_cannot_add_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    there = len(visible_gpus())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(99))))
    assert len(visible_gpus()) == there


def test_the_gpus_of_a_model_are_the_product_of_its_parallel_sizes() -> None:
    recipe = load_recipe("dasd-4b")
    assert (recipe.teacher.replicas, recipe.teacher.num_gpus_each) == (1, 8)
    assert (recipe.student.replicas, recipe.student.num_gpus_each) == (8, 1)
    assert load_recipe("demo").student.num_gpus_each == 1
