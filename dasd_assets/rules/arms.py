"""What the stages of an experiment's arms train on: datasets, each known by what it was chosen by, and made once.

A dataset chosen as the recipe itself chooses is the pipeline's own, of policy `das` or `random`; several of these
together are of the same policy, and have the examples of each. Any other is of a policy that names how and by which
rule: `random-1a2b3c4d`, the same for all stages, arms, seeds and experiments that choose alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dasd_assets.rules.asset_names import DAS, RANDOM
from dasd_assets.rules.policies import CHOICE, POLICIES, POLICIES_VERSION
from dasd_assets.rules.random_control import DRAW
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.selection import selection_version
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.recipe.experiment import ArmStage, Experiment
from dasd_resources.recipe.experiment_recipes import stage_recipe
from dasd_resources.recipe.parts import deciding

ARMS_VERSION = "1"
ARMS = Rule("arms", ARMS_VERSION, ("name", "generation.temperatures", "seed"), (CHOICE,))


# Of stages with a budget of so many times the recipe's own selection: no other experiment is made anew for it.
MULTIPLES_VERSION = "2"
MULTIPLES = Rule("multiples of the own selection", MULTIPLES_VERSION)


def declared_rule(experiment: Experiment) -> Rule:
    """The experiment as it is declared, so that a changed one shows as another code version.

    Not its `pairs`, which change nothing that is trained or asked, nor what `DecidesNothing`.
    """
    return compared_rule(experiment.model_copy(update={"pairs": ()}))


def compared_rule(experiment: Experiment) -> Rule:
    """The same with the `pairs` that its report compares."""
    budgets = [stage.budget for stages in experiment.arms.values() for stage in stages if stage.budget is not None]
    uses = (MULTIPLES,) if any(budget.times is not None for budget in budgets) else ()
    return Rule(f"experiment {experiment.name}", content_hash(deciding(experiment))[:12], uses=uses)


@dataclass(frozen=True)
class ArmDataset:
    """What a stage trains on. name, policy: of its rows; recipe: the stage's, by which it is chosen."""

    name: str
    policy: str
    recipe: Recipe
    stage: ArmStage

    @property
    def own_parts(self) -> tuple[str, ...]:
        """The pipeline's datasets whose examples it has; none where they are chosen, or labelled, otherwise."""
        return self.stage.dataset if self.policy in (DAS, RANDOM) else ()

    @property
    def is_own(self) -> bool:
        """Whether it is the pipeline's, and so nothing that an experiment has to make."""
        return len(self.own_parts) == 1


def arm_dataset(base: Recipe, stage: ArmStage, seed: int) -> ArmDataset:
    """The dataset of a stage under a seed; raises as `stage_recipe` does."""
    recipe = stage_recipe(base, stage, seed)
    policy = _mixed(base, recipe) if stage.is_mixed else _chosen(base, recipe, stage)
    return ArmDataset(stage.name, policy, recipe, stage)


def check_policies(experiment: Experiment, base: Recipe) -> None:
    """Raise RecipeError, a line per stage, for a policy or a score that there is not, or that cannot be."""
    carried = f"recipe {base.name} trains on the selection of recipe {base.selection_from} and scores nothing itself"
    faults = list[str]()
    for arm, stages in experiment.arms.items():
        for number, stage in enumerate(stages):
            key = f"{experiment.name}.yaml: arms.{arm}.{number}"
            if stage.policy not in POLICIES:
                faults.append(f"{key}.policy: there is no policy {stage.policy!r}; there are {', '.join(POLICIES)}")
            try:
                check_names(stage_recipe(base, stage, experiment.seeds[0]))
            except RecipeError as error:
                faults += [f"{key}.{line}" for line in str(error).splitlines()]
            else:
                if base.selection_from is not None and not _is_carried(base, stage, experiment.seeds):
                    faults.append(f"{key}: {carried}, so a stage can only be the carried `{DAS}` of one dataset")
    if faults:
        raise RecipeError("\n".join(faults))


def _is_carried(base: Recipe, stage: ArmStage, seeds: Iterable[int]) -> bool:
    return stage.is_mixed or all(arm_dataset(base, stage, seed).is_own for seed in seeds)


def datasets_of(base: Recipe, experiment: Experiment, cells: Iterable[tuple[str, int]]) -> list[ArmDataset]:
    """Every dataset that these cells train on, each once. cells: arm and seed."""
    every = (arm_dataset(base, stage, seed) for arm, seed in cells for stage in experiment.arms[arm])
    return list({(data.name, data.policy): data for data in every}.values())


def _chosen(base: Recipe, recipe: Recipe, stage: ArmStage) -> str:
    drawn = POLICIES[stage.policy].key == DRAW
    rule = [selection_version(recipe), recipe.generation.num_candidates, stage.budget and stage.budget.times]
    if stage.matching is not None:
        rule.append(stage.matching)
    own = [selection_version(base), base.generation.num_candidates, None]
    # With budgets in tokens an arm's draw may take more of a question than the pipeline's: never that one, so that all
    # seeds draw alike.
    as_own = recipe.seed == base.seed and base.selection.budget_unit == "examples"
    if rule == own and stage.policy in (DAS, RANDOM) and (not drawn or as_own):
        return stage.policy
    decided = [ARMS_VERSION, POLICIES_VERSION, stage.policy, *rule, recipe.seed if drawn else None]
    return f"{stage.policy}-{content_hash(decided)[:8]}"


def _mixed(base: Recipe, recipe: Recipe) -> str:
    """The same examples whatever the seed; only where the loss is can differ."""
    loss = recipe.mixed_policy.loss_on_prefix
    return DAS if loss == base.mixed_policy.loss_on_prefix else f"{DAS}-{'unmasked' if loss else 'masked'}"
