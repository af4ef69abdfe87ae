"""Code versions of every asset where one rule's version is raised: `versions_raised.py RECIPE MODULE:CONSTANT…`.

Prints JSON: constant -> asset -> code version; "" -> as they are. Each constant is raised in the source that a forked
process compiles, so every module that imports it, and all that follows from it, has the raised one: nothing is patched.
"""

import json
import os
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

RAISED = "raised by a test"


class RaisedSource(SourceFileLoader):
    """Compiles a module with one constant raised."""

    constant: str

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode("utf-8")
        raised, number = re.subn(rf'^{self.constant} = "[^"\n]*"', f'{self.constant} = "{RAISED}"', source, flags=re.M)
        assert number == 1, f"{self.constant} is defined {number} times in {fullname}"
        return compile(raised, self.path, "exec")


class RaisedModule(MetaPathFinder):
    """Finds the one module whose constant is raised."""

    def __init__(self, module: str, constant: str) -> None:
        self._module = module
        self._constant = constant

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        spec = PathFinder.find_spec(fullname, path)  # type: ignore[arg-type]
        assert spec is not None and spec.origin is not None
        spec.loader = RaisedSource(fullname, spec.origin)
        spec.loader.constant = self._constant
        return spec


def code_versions(recipe: str) -> dict[str, str | None]:
    """Asset -> code version."""
    from dasd_assets.definitions import STAGES
    from dasd_resources.recipe import load_recipe

    loaded = load_recipe(recipe)
    specs = [spec for stage in STAGES for asset in stage.build(loaded) for spec in asset.specs]
    return {spec.key.to_user_string(): spec.code_version for spec in specs}


def in_a_fork(recipe: str, module: str, constant: str) -> dict[str, str | None]:
    receiver, sender = os.pipe()
    if os.fork() == 0:
        try:
            sys.meta_path.insert(0, RaisedModule(module, constant))
            os.write(sender, json.dumps(code_versions(recipe)).encode())
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as answer:
        text = answer.read()
    os.wait()
    return dict(json.loads(text))


def main(recipe: str, constants: list[str]) -> None:
    for library in ("dagster", "duckdb", "jinja2", "numpy", "PIL.Image", "polars", "pyarrow", "pydantic", "tokenizers"):
        __import__(library)  # once, before the forks; nothing of ours
    pairs = [("", ""), *[tuple(pair.split(":")) for pair in constants]]
    print(json.dumps({constant: in_a_fork(recipe, module, constant) for module, constant in pairs}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
