"""A recipe that runs what models write without a sandbox: said in the log and with the asset (no table)."""

from collections.abc import Callable

from dasd_resources.recipe import Recipe
from dasd_resources.sandbox import Confinement

UNSAFE = (
    "verification.sandbox is unsafe: programs that models write run here with the rights of this process, and read, "
    "change and send what it can; install bubblewrap and write `sandbox: required`"
)


def confinement_of(recipe: Recipe, warn: Callable[[str], None]) -> Confinement:
    """How the recipe has programs run; warned of if it is unsafe."""
    confinement = recipe.verification.confinement
    if confinement.unsafe:
        warn(UNSAFE)
    return confinement


def sandbox_figure(confinement: Confinement) -> dict[str, str]:
    """What an asset's metadata says of an unsafe recipe; nothing of any other."""
    return {"sandbox": "none: verification.sandbox is unsafe"} if confinement.unsafe else {}
