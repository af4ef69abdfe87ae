"""Which functions an asset's code reaches, by the names in it, and with them the rules whose versions it depends on."""

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, ModuleType

OURS = ("dasd_assets.", "dasd_resources.")


def versions_reached(function: FunctionType) -> set[str]:
    """Names of the `…_VERSION` constants that a function depends on: it names one, or calls into its module."""
    found: set[str] = set()
    waiting, seen = [function], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one.__code__) in seen:
            continue
        seen.add(id(one.__code__))
        found |= versions_of(sys.modules[one.__module__])
        for name, value in _named(one):
            if name.endswith("_VERSION"):
                found.add(name)
            waiting += functions_in(value)
    return found


def versions_of(module: ModuleType) -> set[str]:
    """The version constants that a module defines, not those that it imports."""
    texts = {name for name, value in vars(module).items() if name.endswith("_VERSION") and isinstance(value, str)}
    return {name for name in texts if _defines(module, name)}


def _defines(module: ModuleType, name: str) -> bool:
    with open(str(module.__file__), encoding="utf-8") as source:
        return any(line.startswith(f"{name} = ") or line.startswith(f"{name}: ") for line in source)


def _named(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Every global, attribute of one, and closed-over function that its code names, nested functions included."""
    names = set(_names(function.__code__))
    for name in names:
        if name in function.__globals__:
            value = function.__globals__[name]
            yield name, value
            if isinstance(value, ModuleType) and value.__name__.startswith(OURS):
                yield from ((attribute, vars(value)[attribute]) for attribute in names & set(vars(value)))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if isinstance(cell.cell_contents, FunctionType):
            yield name, cell.cell_contents


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def functions_in(value: object) -> list[FunctionType]:
    """A function of ours; the methods of a class of ours; what tables, tuples and records hold of them."""
    inner = getattr(value, "__wrapped__", getattr(value, "func", value))  # of @cache and the like; of a partial
    if isinstance(inner, FunctionType):
        return [inner] if inner.__module__.startswith(OURS) else []
    if isinstance(value, type):
        return _methods(value) if value.__module__.startswith(OURS) else []
    if isinstance(value, dict):
        return [function for part in value.values() for function in functions_in(part)]
    if isinstance(value, (tuple, list)):
        return [function for part in value for function in functions_in(part)]
    if is_dataclass(value) and type(value).__module__.startswith(OURS):
        return [function for part in fields(value) for function in functions_in(getattr(value, part.name))]
    return []


def _methods(kind: type) -> list[FunctionType]:
    plain = [getattr(member, "fget", None) or getattr(member, "__func__", member) for member in vars(kind).values()]
    written = [
        member for member in plain if isinstance(member, FunctionType) and member.__code__.co_filename != "<string>"
    ]
    return [member for member in written if member.__module__.startswith(OURS)]  # not what a dataclass generates
