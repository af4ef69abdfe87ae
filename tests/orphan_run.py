"""A run worker in a process of its own, with a step that never ends in another: `python orphan_run.py HOME`.

The recipe's teacher is for vLLM, so that each step is a process; it is looked for, and never found.
"""

import multiprocessing
import os
import sys
import time
from pathlib import Path

import dagster as dg

from dasd_assets.definitions import build_definitions
from dasd_resources.home import prepare_home
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Model, Recipe, load_recipe


class EndlessEngines(Engines):
    """Writes down the processes of the run and of its step, and searches."""

    def find(self, spec: Model, key: str) -> PromptedModel:
        note = Path(self.home, "processes.part")
        note.write_text(f"{os.getppid()} {os.getpid()}")
        note.rename(note.with_suffix(""))
        while True:
            time.sleep(1)


def job(home: str) -> dg.JobDefinition:
    document = load_recipe("demo").model_dump()
    document["teacher"]["engine"] = "vllm"
    recipe = Recipe.model_validate(document)
    definitions = build_definitions(recipe, Path(home), EndlessEngines(home=home))
    return definitions.resolve_job_def("data_only")


def work(home: str) -> None:
    """Execute the run, as a run worker of the service does."""
    folder = str(Path(__file__).parent)
    run = dg.build_reconstructable_job(
        "orphan_run", "job", reconstructable_args=(home,), reconstructor_working_directory=folder
    )
    with dg.DagsterInstance.from_config(str(prepare_home(Path(home), None))) as instance:
        dg.execute_job(run, instance, asset_selection=[dg.AssetKey("teacher_model")])


if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1],))
    worker.start()
    while worker.is_alive() and not Path(sys.argv[1], "processes").exists():
        time.sleep(0.1)
    os._exit(0)  # as a code server that is replaced, which its workers outlive
