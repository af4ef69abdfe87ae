"""Trainings and evaluations side by side: as many processes as cores and memory allow, each with its share of threads.

A small model cannot use a second core: a step of 0.2 M parameters is over before its threads have met. Each training
is a process anyway (`sft/trainer.py`), here one that is forked (`sft/forked.py`), and models that are asked have some
(`inference/engine_processes.py`); threads here only wait for theirs.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from dasd_resources.inference.gpus import visible_gpus
from dasd_resources.inference.model_files import count_weights, find_model
from dasd_resources.machine import free_memory, num_cores
from dasd_resources.recipe import Recipe, RecipeError

WEIGHT_BYTES = 16  # of a training: a weight, its gradient and AdamW's two moments, in float32
OTHER_BYTES = 2**30  # of activations, logits and libraries: the demo's student takes up to 912 MB in all


@dataclass(frozen=True)
class Places:
    """How many trainings, or evaluations, run at once, and the threads of each."""

    num_at_once: int
    num_threads: int | None


def places(recipe: Recipe) -> Places:
    """One a core, if the memory holds so many; one at a time where it has GPUs, or is divided among processes."""
    if recipe.training.launcher or recipe.training.strategy or visible_gpus():
        return Places(1, None)
    held = free_memory() // (OTHER_BYTES + WEIGHT_BYTES * _num_weights(recipe))
    num_at_once = max(min(num_cores(), held), 1)
    return Places(num_at_once, num_cores() // num_at_once)


def _num_weights(recipe: Recipe) -> int:
    try:
        return count_weights(find_model(recipe.student.model, "student.model"))
    except RecipeError:  # it is not here; whoever needs it says so
        return 0


def side_by_side(parents: Mapping[str, str], work: Callable[[str], None], num_at_once: int) -> None:
    """Call `work` with each key, once the key's parent is done; those of no parent among the keys begin.

    Those begin first that most others have to wait for, one after another, as a chain that begins last leaves cores
    idle; else keys begin in their order. After the first that fails no further one begins, and its error is raised when
    those under way have ended.
    """
    waiting = sorted(parents, key=_chain_lengths(parents).__getitem__, reverse=True)  # stable
    done, running = set[str](), dict[Future[None], str]()
    with ThreadPoolExecutor(num_at_once) as pool:
        try:
            while waiting or running:
                ready = [key for key in waiting if parents[key] not in parents or parents[key] in done]
                begun = ready[: num_at_once - len(running)]
                running |= {pool.submit(work, key): key for key in begun}
                waiting = [key for key in waiting if key not in begun]
                for finished in wait(running, return_when=FIRST_COMPLETED).done:
                    done.add(running.pop(finished))
                    finished.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _chain_lengths(parents: Mapping[str, str]) -> dict[str, int]:
    """Of each key, how many must be done one after another from it on, itself included."""
    lengths = dict.fromkeys(parents, 1)
    for key in parents:
        ancestor, length = parents[key], 2
        while ancestor in parents:
            lengths[ancestor] = max(lengths[ancestor], length)
            ancestor, length = parents[ancestor], length + 1
    return lengths
