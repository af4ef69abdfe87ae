"""A plan as a page of text, and as one JSON object."""

from collections.abc import Callable, Iterator, Sequence

from dasd_assets.plan.engine_time import idle
from dasd_assets.plan.estimate import HOUR, TOTAL, Plan, StagePlan
from dasd_assets.plan.figures import Interval
from dasd_assets.plan.savings import Saving
from dasd_assets.records.wording import number_of, size_of

HEAD = ("stage", "rows", "tokens", "time", "90 %", "{device}-h", "money", "disk", "time from")
WITHIN = ("nine times in ten", "rows", "tokens", "{device}-h", "money", "disk")
OF_TIMES = ("factor.", "fixed.")
Shown = Callable[[float], str]


def page(plan: Plan, saved: Sequence[Saving]) -> str:
    """What is planned, its stages, what dominates, what would be cheaper, and what all of it rests on."""
    parts = [_heading(plan), _stages(plan), _within(plan), _totals(plan), *_idle(plan), _disk(plan), _dominates(plan)]
    return "\n\n".join([*parts, _cheaper(saved), _figures(plan)])


def document(plan: Plan, saved: Sequence[Saving]) -> dict[str, object]:
    """The same numbers: seconds, dollars, bytes; of each its value and the interval that holds it nine times in ten."""
    machine = plan.scope.machine
    return {
        "recipe": plan.recipe.name,
        "num_questions": plan.scope.num_questions,
        "num_batches": plan.scope.num_batches,
        "device": machine.device.name,
        "num_devices": machine.num,
        "price": machine.price,
        "idle": idle(plan.recipe, machine),
        "seconds": vars(plan.seconds),
        "device_hours": vars(plan.device_hours),
        "money": vars(plan.money),
        "disk": {part: vars(size) for part, size in plan.disk.items()},
        "rows": {table: vars(num) for table, num in plan.rows.items()},
        "dominant": [planned.stage.asset for planned in plan.dominant],
        "stages": [_stage_document(plan, planned) for planned in plan.stages],
        "savings": [vars(saving) for saving in saved],
        "figures": {name: vars(figure) for name, figure in sorted(plan.figures.items())},
    }


def _stage_document(plan: Plan, planned: StagePlan) -> dict[str, object]:
    return {
        "stage": planned.stage.asset,
        "table": planned.stage.table,
        "rows": vars(planned.rows),
        "tokens": vars(planned.tokens),
        "seconds": vars(planned.seconds),
        "device_hours": vars(plan.hours_of(planned.seconds)),
        "money": vars(plan.money_of(planned.seconds)),
        "disk": vars(planned.disk),
        "is_measured": planned.is_measured,
    }


def _heading(plan: Plan) -> str:
    measured = sum(figure.is_measured for figure in plan.figures.values())
    if plan.recipe.selection_from is not None:
        basis = f"rows are by what recipe {plan.recipe.selection_from} has selected here; times are assumed, see below"
    elif measured:
        basis = f"{measured} of {len(plan.figures)} figures are a pilot's, the others assumed (below)"
    else:
        basis = "without a pilot: what has not landed is assumed, see below; `dasd plan --pilot 50` measures it"
    batches = number_of(plan.scope.num_batches, "batch", "batches")
    return (
        f"Plan of {plan.recipe.name}: {plan.scope.num_questions:,.0f} questions in {batches}, on "
        f"{plan.scope.machine.described}\n{basis}"
    )


def _stages(plan: Plan) -> str:
    rows = [_head(plan, HEAD)]
    for planned in plan.lines:
        work, cost = _cells(plan, planned, _value)
        time = [_value(planned.seconds, _time), _between(planned.seconds, _time)]
        rows.append([planned.stage.asset, *work, *time, *cost, "assumed" if planned.pace is None else planned.pace])
    return _table(rows)


def _within(plan: Plan) -> str:
    rows = [_head(plan, WITHIN)]
    for planned in plan.lines:
        work, cost = _cells(plan, planned, _between)
        rows.append([planned.stage.asset, *work, *cost])
    return _table(rows)


def _head(plan: Plan, names: Sequence[str]) -> list[str]:
    device = "core" if plan.scope.machine.is_cpu else "GPU"
    return [name.format(device=device) for name in names]


def _cells(plan: Plan, planned: StagePlan, cell: Callable[[Interval, Shown], str]) -> tuple[list[str], list[str]]:
    """Rows and tokens; device-hours, money and disk."""
    seconds, counts = planned.seconds, planned.stage.table != "checkpoints"
    work = [cell(planned.rows, _count) if counts else "", cell(planned.tokens, _count)]
    cost = [cell(plan.hours_of(seconds), _count), cell(plan.money_of(seconds), _dollars), cell(planned.disk, size_of)]
    return work, cost


def _totals(plan: Plan) -> str:
    device = "core-hours" if plan.scope.machine.is_cpu else "GPU-hours"
    lines = [
        ("time", f"{_time(plan.seconds.value)}, {_between(plan.seconds, _time)}"),
        (device, f"{_count(plan.device_hours.value)}, {_between(plan.device_hours, _count)}"),
        ("money", f"{_dollars(plan.money.value)}, {_between(plan.money, _dollars)}; all devices all the time"),
        ("disk", f"{size_of(plan.disk[TOTAL].value)}, {_between(plan.disk[TOTAL], size_of)}"),
    ]
    return "\n".join(["In all (in brackets what holds nine times in ten)", *(f"  {n:<12}{v}" for n, v in lines)])


def _idle(plan: Plan) -> list[str]:
    machine = plan.scope.machine
    parts = [f"{num} of {machine.num} by {key}" for key, num in idle(plan.recipe, machine).items()]
    return [f"GPUs stay idle, and are paid for: {', '.join(parts)}"] if parts else []


def _disk(plan: Plan) -> str:
    parts = sorted(plan.disk.keys() - {TOTAL}, key=lambda part: -plan.disk[part].value)
    sizes = [[part, size_of(plan.disk[part].value), _between(plan.disk[part], size_of)] for part in parts]
    return _table([["disk", "bytes", "90 %"], *sizes])


def _dominates(plan: Plan) -> str:
    names = [planned.stage.asset for planned in plan.dominant]
    spent = sum(planned.seconds.value for planned in plan.dominant)
    share = 100 * spent / max(plan.seconds.value, 1e-9)
    return f"{', '.join(names)} dominate{'s' if len(names) == 1 else ''}: {share:.0f} % of the time"


def _cheaper(saved: Sequence[Saving]) -> str:
    if not saved:
        return "No cheaper setting that is known here saves half a percent of the time"
    rows = [["cheaper setting", "saves", "time", "disk", "fewer examples"]]
    for one in saved:
        money = _dollars(one.money) if abs(one.money) >= 0.005 else "$0"
        examples = _count(one.examples) if one.examples >= 0.5 else ""
        rows.append([one.change, money, _time(one.hours * HOUR), size_of(max(one.disk, 0)), examples])
    return _table(rows)


def _figures(plan: Plan) -> str:
    rows = [["figure", "value", "90 %", "from"]]
    shown = {name: one for name, one in plan.figures.items() if not name.startswith(OF_TIMES)}
    for name, figure in shown.items():
        between = _between(Interval(figure.value, figure.low, figure.high), _count)
        rows.append([name, _count(figure.value), between, figure.origin])
    hidden = len(plan.figures) - len(shown)
    more = f"\nand {hidden} figures of the times that the pilot measured: --json has them" if hidden else ""
    return f"What it rests on\n{_table(rows)}{more}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need; the first and the last on the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def cells(row: Sequence[str]) -> Iterator[str]:
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            yield cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)

    return "\n".join("  ".join(cells(row)).rstrip() for row in rows)


def _value(interval: Interval, shown: Shown) -> str:
    return shown(interval.value) if interval.value else ""


def _between(interval: Interval, shown: Shown) -> str:
    """Nothing of a number that is exact."""
    return f"[{shown(interval.low)} – {shown(interval.high)}]" if interval.low < interval.high else ""


def _count(number: float) -> str:
    """`0.12`, `7.3`, `1,600`, `1.45 M`, `26.2 G`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}" if number < 10 else f"{number:.1f}"


def _time(seconds: float) -> str:
    """`12 s`, `7.5 min`, `3.2 h`, `4.1 d`."""
    for unit, size in (("d", 48 * HOUR), ("h", 2 * HOUR), ("min", 120.0)):
        if seconds >= size:
            return f"{seconds / {'d': 24 * HOUR, 'h': HOUR, 'min': 60.0}[unit]:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _dollars(amount: float) -> str:
    return f"${amount:,.0f}" if amount >= 100 else f"${amount:.2f}" if amount >= 0 else f"-{_dollars(-amount)}"
