"""Which rules' versions are in each asset's code version: `versions_raised.py RECIPE MODULE:CONSTANT…`.

Each constant is raised to its own name, in the source that this process compiles, so every module that imports it, and
all that follows from it, has the raised one: nothing is patched. Prints JSON: asset -> the constants whose raised
values are in what its code version is the hash of.
"""

import json
import re
import sys
from collections import defaultdict
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType


class RaisedSource(SourceFileLoader):
    """Compiles a module with some constants raised."""

    constants: list[str]

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode("utf-8")
        for constant in self.constants:
            source, number = re.subn(rf'^{constant} = "[^"\n]*"', f'{constant} = "<{constant}>"', source, flags=re.M)
            assert number == 1, f"{constant} is defined {number} times in {fullname}"
        return compile(source, self.path, "exec")


class RaisedModules(MetaPathFinder):
    """Finds the modules whose constants are raised."""

    def __init__(self, constants: dict[str, list[str]]) -> None:
        self._constants = constants

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self._constants:
            return None
        spec = PathFinder.find_spec(fullname, path)  # type: ignore[arg-type]
        assert spec is not None and spec.origin is not None
        spec.loader = RaisedSource(fullname, spec.origin)
        spec.loader.constants = self._constants[fullname]
        return spec


def versions_held(recipe: str) -> dict[str, list[str]]:
    """Asset -> the raised constants in its code version."""
    from dasd_assets.definitions import STAGES
    from dasd_assets.records.code_versions import MADE_WITH, CodeVersion
    from dasd_resources.recipe import load_recipe

    loaded = load_recipe(recipe)
    specs = [spec for stage in STAGES for asset in stage.build(loaded) for spec in asset.specs]
    found = {}
    for spec in specs:
        held = spec.code_version
        if MADE_WITH in spec.metadata:
            made_with = spec.metadata[MADE_WITH].data
            assert held == CodeVersion(**made_with).text, "the code version is a hash of this and of nothing else"
            held = json.dumps(made_with["code"])
        found[spec.key.to_user_string()] = re.findall("<([A-Z_]+)>", held)
    return found


def main(recipe: str, pairs: list[str]) -> None:
    constants = defaultdict[str, list[str]](list)
    for module, constant in (pair.split(":") for pair in pairs):
        constants[module].append(constant)
    sys.meta_path.insert(0, RaisedModules(constants))
    print(json.dumps(versions_held(recipe)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
