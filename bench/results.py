"""Markdown for the bench scripts: each prints one section, whose tables end in the ratio and its bar."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table, first column on the left, figures on the right; floats with three significant digits."""
    cells = [[figure(cell) for cell in row] for row in rows]
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def figure(value: object) -> str:
    """`1,234`, `0.0123`, `1.23`; anything but a number as it is."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def against(ratio: float, bar: float) -> str:
    """`1.20 × (bar 0.9 ×)`, marked where it falls short."""
    return f"{ratio:.2f} × (bar {bar:g} ×{'' if ratio >= bar else ', MISSED'})"
