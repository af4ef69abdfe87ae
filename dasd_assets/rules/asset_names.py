"""Names of datasets and policies, and of the assets that make the rows of each: the one place that spells them.

Datasets are those of the recipe's temperatures (`t060`, …) and the mixed-policy one.
"""

from dasd_resources.dataset_names import MIXED as MIXED

DAS = "das"  # the policy of divergence-aware sampling
RANDOM = "random"  # the policy of its random control
ROLES: dict[str, int | None] = {"teacher": None, "student": 0}  # names of the untrained models, and their stages
CONTROL_ASSET = "random_responses"
SOURCE_ASSET = "selection_source"  # of a recipe that takes another's selection
EXPERIMENT_CHECKPOINTS = "experiment_checkpoints_"  # + the experiment's name
ANY_EXPERIMENT = f"{EXPERIMENT_CHECKPOINTS}…"  # of rows that several may share


def generation_asset(dataset: str) -> str:
    """The asset that samples the teacher at a dataset's temperature."""
    return f"teacher_generations_{dataset}"


def selection_asset(dataset: str, policy: str = DAS) -> str:
    """The asset that writes a dataset's `selected_responses` of a policy."""
    if policy not in (DAS, RANDOM):
        return ANY_EXPERIMENT
    if dataset == MIXED:
        return dataset_asset(MIXED)
    return CONTROL_ASSET if policy == RANDOM else f"selected_responses_{dataset}"


def dataset_asset(dataset: str, policy: str = DAS) -> str:
    """The asset that writes a dataset's `sft_examples` of a policy."""
    if policy not in (DAS, RANDOM):
        return ANY_EXPERIMENT
    return "mixed_policy_dataset" if dataset == MIXED else f"sft_dataset_{dataset}"


def checkpoint_asset(name: str) -> str:
    """The asset that registers the checkpoint of this name: of a role, or of the dataset it was trained on."""
    if "/" in name:  # dataset and policy of an experiment's stage
        return ANY_EXPERIMENT
    return f"{name}_model" if name in ROLES else f"checkpoint_{name}"
