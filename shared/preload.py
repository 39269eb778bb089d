"""Load a call's modules from the bundle; the launcher executes this before any other import of the suite.

Importing thirty modules from as many files takes 3 ms, and the import system's bookkeeping another. The bundle (written
by shared/build/bundle.py) contains the compiled modules and, for each executable, the order in which to load them. Each
module is read separately, because touching more memory than needed costs most. Modules outside the order are imported
as usual, also from the bundle.

A module's digest is compared before its code is unmarshalled, because garbled code could crash the interpreter. A
module that fails the comparison is compiled from its source.
"""

from __future__ import annotations

import gc
import marshal
import posix
import sys
from _frozen_importlib_external import MAGIC_NUMBER
from _imp import source_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any

    Index = dict[str, tuple[int, int, bytes]]  # module: length, offset, digest

Module = type(sys)

gc.disable()  # a call ends before a garbage collection would pay off


def digest(data: bytes) -> bytes:
    """Return eight bytes that differ for garbled code, and for code of another Python version.

    The interpreter's built-in function runs at 4 GB/s.
    """
    found: bytes = source_hash(int.from_bytes(MAGIC_NUMBER, "little"), data)
    return found


class Bundle:
    """A finder and loader (importlib.abc) for the modules of the bundle."""

    def __init__(self, tree: str, packages: list[str], index: Index) -> None:
        self.tree = tree
        self.packages = packages
        self.index = index

    def place(self, name: str) -> ModuleType:
        """Create an empty module and set it as attribute of its package."""
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
        """Return the specification of a module in the bundle; None if it is not there or garbled."""
        code = self.load(name) if name in self.index else None
        if code is None:
            return None
        import _frozen_importlib

        spec = _frozen_importlib.ModuleSpec(name, self, is_package=name in self.packages)  # type: ignore[arg-type]
        spec.loader_state = code
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(f"{self.tree}/{name.replace('.', '/')}")
        return spec

    def create_module(self, _spec: object) -> None:
        """Return None: the import system creates an ordinary module."""

    def exec_module(self, module: Any) -> None:
        """Execute the module's code in its namespace."""
        exec(module.__spec__.loader_state, module.__dict__)  # noqa: S102  (this is how modules are imported)

    def load(self, name: str) -> CodeType | None:
        """Return a module's code; None if the bundle cannot be read or the code is garbled."""
        try:
            bundle = posix.open(f"{self.tree}/bundle.{sys.implementation.cache_tag}", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return None
        try:
            return self.read(bundle, name)
        finally:
            posix.close(bundle)

    def read(self, bundle: int, name: str) -> CodeType | None:
        """Return a module's code from the open bundle; None if it is garbled.

        In that case ignore compiled files from now on: they were written together with the bundle.
        """
        length, offset, expected = self.index[name]
        try:
            data = posix.pread(bundle, length, offset)
        except OSError:
            data = b""
        if digest(data) != expected:
            sys.pycache_prefix, sys.dont_write_bytecode = f"{self.tree}/none", True
            return None
        code: CodeType = marshal.loads(data)  # noqa: S302  (root's own file, as a .pyc is)
        return code


def preload(bundle: int, tree: str, packages: list[str], index: Index, order: Sequence[str]) -> None:
    """Load the modules in `order`, each after its own imports, and let others be imported from the bundle."""
    finder = Bundle(tree, packages, index)
    sys.meta_path.insert(0, finder)
    for name in order:
        code = finder.read(bundle, name)
        if code is None:
            break  # import this module and the rest as usual
        exec(code, (sys.modules.get(name) or finder.place(name)).__dict__)  # noqa: S102
    posix.close(bundle)
