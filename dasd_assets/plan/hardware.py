"""Machines by their peak figures. Prices are what such a device is rented for by the hour, in dollars, 2026: ours.

Peaks are the makers', of dense bfloat16 without sparsity. A CPU's are of one core; `utilisation` (assumptions.py) says
how much of a peak is reached.
"""

from dataclasses import dataclass

from dasd_assets.records.wording import number_of
from dasd_resources.errors import UserError

GB, TERA = 1e9, 1e12
CPU = "cpu"


@dataclass(frozen=True)
class Device:
    """flops, bytes_per_second: at peak. memory: bytes. price: dollars an hour. num_cores: that come with it."""

    name: str
    flops: float
    bytes_per_second: float
    memory: float
    price: float
    num_cores: int = 16


DEVICES = {
    device.name: device
    for device in (
        Device("A100", 312 * TERA, 2039 * GB, 80 * GB, 1.5),
        Device("L40S", 362 * TERA, 864 * GB, 48 * GB, 0.9),
        Device("H100", 989 * TERA, 3350 * GB, 80 * GB, 2.5),
        Device("H200", 989 * TERA, 4800 * GB, 141 * GB, 3.5),
        Device("B200", 2250 * TERA, 8000 * GB, 180 * GB, 5.0),
        Device(CPU, 0.05 * TERA, 10 * GB, 4 * GB, 0.05, num_cores=1),
    )
}


@dataclass(frozen=True)
class Machine:
    """Devices of one kind, all of which are paid for while any stage runs. price: dollars an hour of one."""

    device: Device
    num: int
    price: float

    @property
    def is_cpu(self) -> bool:
        return self.device.name == CPU

    @property
    def num_cores(self) -> int:
        return self.num * self.device.num_cores

    @property
    def described(self) -> str:
        name = number_of(self.num, "CPU core") if self.is_cpu else f"{self.num} × {self.device.name}"
        return f"{name} at ${self.price:.2f} an hour each"


def machine(name: str, num: int, price: float | None = None) -> Machine:
    """Raises UserError for a device that is not in the table."""
    known = {device.lower(): device for device in DEVICES}
    if name.lower() not in known:
        raise UserError(f"--gpu {name}: there are {', '.join(DEVICES)}; take the nearest, and its price with --price")
    device = DEVICES[known[name.lower()]]
    return Machine(device, num, device.price if price is None else price)
