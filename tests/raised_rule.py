"""A rule as it is after its version was raised, for tests of what is made anew then."""

import sys
from dataclasses import replace

import pytest

from dasd_assets.rules.rule import Rule


def raise_version(monkeypatch: pytest.MonkeyPatch, constant: str, rule: Rule, version: str) -> None:
    """Give `constant`, the version of `rule`, another value wherever it was imported, and in all rules that use it."""

    def raised(found: Rule) -> Rule:
        own = version if found.name == rule.name else found.version
        return replace(found, version=own, uses=tuple(raised(used) for used in found.uses))

    for module in [module for name, module in sys.modules.items() if name.startswith("dasd_assets.")]:
        for name, value in list(vars(module).items()):
            if name == constant:
                monkeypatch.setattr(module, name, version)
            elif isinstance(value, Rule):
                monkeypatch.setattr(module, name, raised(value))
