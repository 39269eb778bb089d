"""Makes the modules of a call from the bundle; executed by the launcher before anything of the suite is imported.

Importing thirty modules from as many files costs a call 3 ms, and the import system's bookkeeping another. The bundle
(shared/cli/bundle.py writes it) has their compiled code and, for each executable, the order in which they need each
other. Each module is read by itself: touching more memory than needed is what costs most. What a call needs beyond the
order is imported as usual and found in the bundle, too.
"""

from __future__ import annotations

import gc
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

    Index = dict[str, tuple[int, int]]  # module: length, offset

Module = type(sys)

gc.disable()  # a call ends before a collection would pay


class Bundle:
    """A finder and loader (importlib.abc) of modules whose code is at hand."""

    def __init__(self, tree: str, packages: list[str], index: Index) -> None:
        self.tree = tree
        self.packages = packages
        self.index = index

    def place(self, name: str) -> ModuleType:
        """An empty module in its package."""
        module = sys.modules[name] = Module(name)
        parent, _, child = name.rpartition(".")
        module.__package__ = parent
        if name in self.packages:
            module.__package__ = name
            module.__path__ = [f"{self.tree}/{name.replace('.', '/')}"]
        if parent:
            setattr(sys.modules.get(parent) or self.place(parent), child, module)
        return module

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> Any:
        """The specification of a module of the bundle, None for any other."""
        if name not in self.index:
            return None
        import _frozen_importlib

        spec = _frozen_importlib.ModuleSpec(name, self, is_package=name in self.packages)  # type: ignore[arg-type]
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(f"{self.tree}/{name.replace('.', '/')}")
        return spec

    def create_module(self, _spec: object) -> None:
        """None: an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module's code in it."""
        bundle = posix.open(f"{self.tree}/bundle.{sys.implementation.cache_tag}", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            run(bundle, self.index, module)
        finally:
            posix.close(bundle)


def run(bundle: int, index: Index, module: ModuleType) -> None:
    """Runs a module's code in it, read from the open bundle."""
    code = marshal.loads(posix.pread(bundle, *index[module.__name__]))  # noqa: S302  (root's own file, as a .pyc is)
    exec(code, module.__dict__)  # noqa: S102  (importing is just this)


def preload(bundle: int, tree: str, packages: list[str], index: Index, order: Sequence[str]) -> None:
    """Makes the modules in `order`, each after those that it needs, and lets the others be found when imported."""
    finder = Bundle(tree, packages, index)
    sys.meta_path.insert(0, finder)
    for name in order:
        run(bundle, index, sys.modules.get(name) or finder.place(name))
    posix.close(bundle)
