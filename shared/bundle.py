"""All modules of the tree in one file of compiled code, because looking for thirty files costs a call 3 ms.

install.sh writes the bundle; the launcher loads it. It serves only the Python that wrote it: after an upgrade behind
the same path the modules come from their own files, as everywhere else in Python.
"""

from __future__ import annotations

import _frozen_importlib
import _frozen_importlib_external
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

PACKAGES = ("shared", "plugins", "ipam")


def path(tree: str) -> str:
    """Where the bundle for the running interpreter is."""
    return f"{tree}/bundle.{sys.implementation.cache_tag}"


def load(tree: str) -> None:
    """Lets the tree's modules be imported from its bundle, if there is one for this interpreter."""
    try:
        descriptor = posix.open(path(tree), posix.O_RDONLY | posix.O_CLOEXEC)
        magic, modules = marshal.loads(posix.read(descriptor, posix.fstat(descriptor).st_size))  # noqa: S302  (root's own file, as a .pyc is)
        posix.close(descriptor)
    except (OSError, ValueError, EOFError, TypeError):
        return
    if magic == _frozen_importlib_external.MAGIC_NUMBER:
        sys.meta_path.insert(0, Bundle(tree, modules))


class Bundle:
    """A finder and loader (importlib.abc) of modules whose code is at hand."""

    def __init__(self, tree: str, modules: dict[str, bytes]) -> None:
        self.tree = tree
        self.modules = modules

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> Any:
        """The specification of a module of the bundle, None for any other."""
        is_package = f"{name}.__init__" in self.modules
        if not is_package and name not in self.modules:
            return None
        spec = _frozen_importlib.ModuleSpec(name, self, is_package=is_package)  # type: ignore[arg-type]
        if is_package and spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(f"{self.tree}/{name.replace('.', '/')}")
        return spec

    def create_module(self, _spec: object) -> None:
        """None: an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module's code in it."""
        name = module.__name__
        code = marshal.loads(self.modules.get(name) or self.modules[f"{name}.__init__"])  # noqa: S302
        exec(code, module.__dict__)  # noqa: S102  (this is what importing is)


def build(tree: str) -> None:
    """Writes the bundle of the tree's modules, except the operator tier's, for the running interpreter."""
    modules: dict[str, bytes] = {}
    pending = list(PACKAGES)
    while pending:
        package = pending.pop()
        for entry in sorted(posix.listdir(f"{tree}/{package}")):
            if posix.stat(f"{tree}/{package}/{entry}").st_mode & 0o170000 == 0o040000:
                if entry not in ("__pycache__", "cli", "runtime"):
                    pending.append(f"{package}/{entry}")
            elif entry.endswith(".py"):
                source_path = f"{tree}/{package}/{entry}"
                with open(source_path, encoding="utf-8") as source:
                    code = compile(source.read(), source_path, "exec", dont_inherit=True, optimize=2)
                modules[f"{package}/{entry[:-3]}".replace("/", ".")] = marshal.dumps(code)
    data = marshal.dumps((_frozen_importlib_external.MAGIC_NUMBER, modules))
    with open(path(tree), "wb") as target:
        target.write(data)
