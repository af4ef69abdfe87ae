"""`dasd rescore`: what the student scored wrongly is dropped, to be scored again by what the recipe names now.

A batch whose scores fail `engine_parity` goes no further, so what is wrong has no sentence made of it; what has, stays.
"""

import argparse
import json
from collections.abc import Sequence

import dagster as dg

from dasd_assets.commands.messages import echo
from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.records.quarantine import release
from dasd_assets.records.tags import DATA_VERSION_TAG, DROPPED_TAG
from dasd_assets.records.wording import number_of
from dasd_assets.service.instance import open_instance
from dasd_resources.errors import UserError
from dasd_resources.home import prepare_home
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.warehouse import Warehouse

_BATCHES = "SELECT DISTINCT batch FROM student_logprobs WHERE student_fingerprint = $student ORDER BY batch"
_UNUSED = """SELECT response_id FROM student_logprobs ANTI JOIN sentence_probabilities
        USING (response_id, student_fingerprint, batch)
    WHERE batch = $batch AND student_fingerprint = $student"""


class NotScored(UserError):
    """A batch of which the student has scored nothing; the message names those that it has scored."""


def command(args: argparse.Namespace) -> int:
    """Drop the scores of these batches, and release the batches, if they are quarantined."""
    warehouse = Warehouse(home=str(args.home))
    warehouse.require()
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    student = EnvironmentEngines(home=str(args.home)).fingerprint(recipe.student, "student.model")
    with open_instance(prepare_home(args.home, args.dagster_home)) as instance:
        dropped = drop_unused(instance, warehouse, student, args.batches)
    for batch, number in dropped.items():
        again = "; `dasd run` makes them again" if number else ": all that the student scored of it is in use"
        echo(f"{batch}: {number_of(number, 'score')} of the student dropped{again}")
    release(warehouse, args.batches)  # those that are quarantined
    return 0


def drop_unused(
    instance: dg.DagsterInstance, warehouse: Warehouse, student: str, batches: Sequence[str]
) -> dict[str, int]:
    """Delete the batches' `student_logprobs` rows of which no sentence was made; how many they were, by batch.

    An event in Dagster's log says so of each batch: else it would count as made, and but to be checked.
    student: its fingerprint. Raises NotScored, before anything is deleted, for a batch that has no such row at all.
    """
    known = warehouse.read(_BATCHES, {"student": student})["batch"].to_list()
    if unknown := sorted(set(batches) - set(known)):
        raise NotScored(f"the student has scored nothing of {', '.join(unknown)}; of {', '.join(known) or 'no batch'}")
    dropped = dict[str, int]()
    with warehouse.commit(json.dumps({"rescore": sorted(batches)})) as transaction:
        for batch in dict.fromkeys(batches):
            ids = transaction.read(_UNUSED, {"batch": batch, "student": student})["response_id"].to_list()
            if ids:  # before they are gone: a kill in between has a batch looked at once more, no more
                tags = {DROPPED_TAG: str(len(ids)), DATA_VERSION_TAG: "dropped"}
                instance.report_runless_asset_event(
                    dg.AssetMaterialization("student_logprobs", partition=batch, tags=tags)
                )
            of = {"batch": batch, "student_fingerprint": student}
            transaction.delete_keys("student_logprobs", of, "response_id", ids)
            dropped[batch] = len(ids)
    return dropped
