"""`ray`: where a model's replicas run if not on this machine alone. No row depends on it."""

from typing import Annotated

from pydantic import Field, field_validator

from dasd_resources.recipe.parts import Part, Positive, Seconds

LOCAL = "local"


class RayCluster(Part):
    """The Ray cluster whose nodes run the model's replicas, and what each of them takes there, on one node."""

    address: Annotated[str, Field(pattern=r"^(local|auto|ray://.*|[A-Za-z0-9.-]+:\d{1,5})$")] = LOCAL
    """`local`: of this machine alone, begun for it; `auto`: the one that this machine is a node of; or host:port."""
    gpus: bool = True
    """Whether a replica takes GPUs, as many as its engine's parallel sizes ask for; false: it runs on cores."""
    num_cpus: Positive = 1
    """Cores that a replica takes."""
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default={})
    """What else a replica takes of a node, such as {"accelerator_type:H100": 0.001}."""
    patience_s: Seconds = 600.0
    """How long to wait for a place for a replica while none has any."""

    @field_validator("address")
    @classmethod
    def _no_client(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError(
                "Ray's client cannot pass on results as they come; make this machine a node of the cluster (ray start "
                "--address=HOST:PORT --num-gpus=0) and write address: auto"
            )
        return address
