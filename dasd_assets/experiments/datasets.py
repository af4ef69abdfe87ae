"""The datasets that an experiment's stages train on and the pipeline does not have: chosen, tokenised, recorded.

`response_scores`, `response_verdicts` of all batches -> `selected_responses`, `sft_examples`, `published_datasets`,
under a policy of their own (`rules/arms.py`); `experiment_datasets` has the rule. So audits, takedowns and
`dasd audit verify` find and explain them as they do the pipeline's. Several of the pipeline's together are not chosen
again: they get `sft_examples` of their own, of what the pipeline has selected.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil

import dagster as dg
import polars as pl

from dasd_assets.mixed_policy.mixture import continuation_example, continuations_to_teach
from dasd_assets.records.provenance import origin
from dasd_assets.records.selection_rules import selection_rule
from dasd_assets.records.wording import listed, short
from dasd_assets.rules.arms import ArmDataset
from dasd_assets.rules.asset_names import DAS, MIXED, dataset_asset, selection_asset
from dasd_assets.rules.competition import NUM_TOKENS
from dasd_assets.rules.policies import POLICIES, draw
from dasd_assets.rules.pool import create_pool_table, pool_params
from dasd_assets.rules.selection import competition
from dasd_assets.selection import selected_rows, stored_alike
from dasd_assets.sft_datasets import example_row, selected_ids, tokens_to_teach, write_examples
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Reading, Row, Warehouse


def make_datasets(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    engines: Engines,
    base: Recipe,
    every: Sequence[ArmDataset],
    batches: Sequence[str],
) -> None:
    """Write the rows of datasets that are not the pipeline's; unchanged ones make no commit. base: the recipe."""
    _require_domains(warehouse, every)
    student = engines.fingerprint(base.student, "student.model")
    # 1. Choose of each pool for all that draw from it: seeds and most policies share one, and it costs most.
    pools = dict[str, list[_Draw]]()
    for data in every:
        for part in () if data.stage.is_mixed or data.own_parts else data.stage.dataset:
            teacher = engines.fingerprint(base.teacher, "teacher.model")
            one = _Draw(data, part, pool_params(data.recipe, teacher, student, part, batches))
            pools.setdefault(one.pool, []).append(one)
    for draws in pools.values():
        _choose(context, warehouse, base, draws)
    # 2. Make the examples of what is chosen.
    for data in every:
        if data.stage.is_mixed:
            examples = _other_loss(warehouse, base, student, loss_on_prefix=data.recipe.mixed_policy.loss_on_prefix)
        else:
            parts = data.stage.dataset
            ids = [key for part in parts for key in selected_ids(warehouse, data.recipe, part, data.policy)]
            if not ids:
                fault = f"{data.name} {data.policy}: no response is left to choose; see the drops of its filters"
                raise dg.Failure(fault)
            examples = map(example_row, tokens_to_teach(warehouse, student, ids))
        write_examples(context, warehouse, data.recipe, data.name, data.policy, examples)


@dataclass(frozen=True)
class _Draw:
    """What a dataset has of one temperature. params: of `pool_params`."""

    data: ArmDataset
    part: str
    params: dict[str, object]

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the pool, those that only its policy needs."""
        return POLICIES[self.data.stage.policy].columns

    @property
    def pool(self) -> str:
        """The same for all that draw from one pool."""
        return content_hash([self.params, self.columns, self.data.stage.matching])


def _choose(context: dg.AssetExecutionContext, warehouse: Warehouse, base: Recipe, draws: Sequence[_Draw]) -> None:
    """Write what is chosen, and the rules, of draws from one pool."""
    with warehouse.reading() as reading, reading.all_cores():
        means = create_pool_table(reading, draws[0].params, draws[0].columns, draws[0].data.stage.matching)
        for one in draws:
            data, part, stage = one.data, one.part, one.data.stage
            budget, times = domain_budgets(reading, base, data, part, one.params)
            competing, most = competition(data.recipe), _of_a_question(data, times)
            chosen = draw(reading, stage.policy, competing, budget, data.recipe.seed, times, most)
            chosen_by = {"chosen_by": stage.policy, "budget": budget, "times": times}
            among = {} if stage.matching is None else {"matching": stage.matching}
            rule = {**selection_rule(data.recipe, part, one.params, means), **chosen_by, **among}
            _write(context, warehouse, data, part, chosen, rule)
            taken = dict(chosen["domain"].value_counts().iter_rows())
            context.log.info(f"{part} {data.policy}: {chosen.height:,} responses chosen, by domain {taken}")


def _require_domains(warehouse: Warehouse, every: Sequence[ArmDataset]) -> None:
    """Raise dg.Failure if a budget names a domain that no question has: of the one meant, all would be taken."""
    known = warehouse.read("SELECT DISTINCT domain FROM prompts ORDER BY domain")["domain"].to_list()
    for data in every:
        named = data.stage.budget and data.stage.budget.per_domain
        if unknown := sorted(set(named or ()) - set(known)):
            fault = f"the budget names {', '.join(unknown)}, but no question is of that domain"
            domains = listed(list(map(short, known)))
            raise dg.Failure(f"{data.name} {data.policy}: {fault}; the domains are {domains}")


def domain_budgets(
    reading: Reading, base: Recipe, data: ArmDataset, part: str, params: dict[str, object]
) -> tuple[dict[str, int], float]:
    """Domain -> how much DAS may choose of it, all of one that is not named; and how many times that is chosen.

    A multiple of the recipe's own selection names every domain of table `pool`: nothing of what that has nothing of.
    """
    wanted = data.stage.budget
    if wanted is None or wanted.times is None:
        return data.recipe.selection.budgets.get(part, {}), 1.0
    in_tokens = wanted.unit == "tokens"
    query = f"""SELECT domain, sum({"t.num_tokens" if in_tokens else "1"})::BIGINT FROM selected_responses s
        {f"JOIN {NUM_TOKENS} t USING (response_id)" if in_tokens else ""}
        WHERE s.recipe = $recipe AND s.dataset = $dataset AND s.policy = '{DAS}' GROUP BY ALL"""
    own = dict(reading.read(query, {**params, "recipe": base.name, "dataset": part}).iter_rows())
    if not own:
        raise dg.Failure(f"the recipe has selected nothing for {part}: materialize {selection_asset(part)} first")
    domains = reading.read("SELECT DISTINCT domain FROM pool")["domain"]
    return dict(sorted({**dict.fromkeys(domains, 0), **own}.items())), wanted.times


def _of_a_question(data: ArmDataset, times: float) -> int | None:
    """How many responses of a question may be chosen; None for what `draw` has by default.

    More of them in tokens: where a policy's responses are shorter than DAS's, one of each question is not as much.
    """
    in_tokens = data.recipe.selection.budget_unit == "tokens"
    return 2 * ceil(times) if in_tokens and data.stage.policy != DAS else None


def _write(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    data: ArmDataset,
    part: str,
    chosen: pl.DataFrame,
    rule: dict[str, object],
) -> None:
    """Replace what is chosen of one temperature, and the rule, in one commit; what is unchanged stays as it is."""
    key = {"recipe": data.recipe.name, "dataset": part, "policy": data.policy}
    rows = selected_rows(chosen, data.recipe, part, data.policy)
    text = json.dumps(rule, sort_keys=True, ensure_ascii=False)
    query = "SELECT rule FROM experiment_datasets WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy"
    with warehouse.reading() as reading:
        other_rows = not stored_alike(reading, key, rows)
        other_rule = reading.read(query, key)["rule"].to_list() != [text]
    if other_rows or other_rule:
        with warehouse.commit(origin(context)) as transaction:
            if other_rows:
                transaction.replace("selected_responses", key, rows)
            if other_rule:
                transaction.replace("experiment_datasets", key, pl.DataFrame([{**key, "rule": text}]))


def _other_loss(warehouse: Warehouse, base: Recipe, student: str, *, loss_on_prefix: bool) -> Iterator[Row]:
    """The examples of the recipe's mixed-policy dataset, their loss on or off what the student has written."""
    query = f"""SELECT response_id, continuation_id FROM sft_examples
        WHERE recipe = $recipe AND dataset = '{MIXED}' AND policy = '{DAS}' ORDER BY example_id"""
    examples = warehouse.read(query, {"recipe": base.name})
    if examples.is_empty():
        raise dg.Failure(f"the recipe's mixed-policy dataset is empty: materialize {dataset_asset(MIXED)} first")
    ids = examples["continuation_id"].drop_nulls().to_list()
    continuations = continuations_to_teach(warehouse, student, ids)
    off_policy = tokens_to_teach(warehouse, student, examples["response_id"].drop_nulls().to_list())
    return chain((continuation_example(row, loss_on_prefix) for row in continuations), map(example_row, off_policy))
