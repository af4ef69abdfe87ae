"""Figures of the drills behind docs/reliability.md."""


def record(
    drill: str,
    *,
    faults: str,
    seed: int,
    tried: int,
    survived: int,
    detected: int,
    silent: int,
    command: str,
    note: str = "",
) -> None:
    """A stub: printed only."""
    print(f"{drill}: {tried} {faults} (seed {seed}): {survived} survived, {detected} detected, {silent} silent")
