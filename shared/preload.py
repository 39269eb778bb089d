"""Load a call's modules from the bundle; the launcher executes this before any other import of the suite.

Importing fifty modules from as many files takes 5 ms, and the import system's bookkeeping another. The bundle (written
by shared/build/bundle.py) contains the code that each executable needs in one run. Strings that several modules use are
in it once. A part that many calls need later, such as an IPAM plugin, has a run of its own. Any other module is
imported as usual, also from the bundle.

The digest of a run or module is compared before its code is unmarshalled, because garbled code could crash the
interpreter. The modules of a garbled run are imported one by one; a garbled module is compiled from its source.
"""

from __future__ import annotations

import gc
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, ExtensionFileLoader
from _imp import create_builtin, create_dynamic, exec_builtin, exec_dynamic, source_hash
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    Place = tuple[int, int, bytes]  # in the bundle: length, offset, digest
    # Modules in C with their files, empty for built-in ones; the suite's modules.
    Run = tuple[list[tuple[str, str]], list[tuple[str, CodeType]]]

Module = type(sys)
PACKAGES = ("shared", "plugins", "ipam")
PACKAGE_FILE = "/__init__.py"

gc.disable()  # a call ends before a garbage collection would pay off


def digest(data: bytes) -> bytes:
    """Return eight bytes that differ for garbled code, and for code of another Python version.

    The interpreter's built-in function runs at 4 GB/s.
    """
    found: bytes = source_hash(int.from_bytes(MAGIC_NUMBER, "little"), data)
    return found


def is_package(code: CodeType) -> bool:
    """Return True if a module's code is that of a package."""
    return code.co_filename.endswith(PACKAGE_FILE)


class Bundle:
    """A finder and loader (importlib.abc) for the modules of the bundle, and for the interpreter's modules in C.

    `index` is the place of the table of all modules, `later` the places of runs by the module whose import begins them.
    `libraries` are the files of the modules in C, which the interpreter would search in four directories.
    """

    def __init__(self, tree: str, index: Place, later: dict[str, Place], libraries: dict[str, str]) -> None:
        self.tree = tree
        self.index = index
        self.later = later
        self.libraries = libraries
        self.places: dict[str, Place] | None = None

    def place(self, name: str, *, is_package: bool) -> ModuleType:
        """Create an empty module and set it as attribute of its package."""
        module = sys.modules[name] = Module(name)
        parent, _, child = name.rpartition(".")
        if is_package:
            module.__path__ = [self.directory(name)]
        if parent:
            setattr(sys.modules.get(parent) or self.place(parent, is_package=True), child, module)
        return module

    def directory(self, package: str) -> str:
        """Return a package's directory."""
        return f"{self.tree}/{package.replace('.', '/')}"

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> Any:
        """Return the specification of a module in the bundle; None if it is not there or garbled."""
        if name in self.libraries:
            return self.find_library(name)
        code = self.load(name) if name.partition(".")[0] in PACKAGES else None
        if code is None:
            return None
        spec = ModuleSpec(name, self, is_package=is_package(code))  # type: ignore[arg-type]
        spec.loader_state = code
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(self.directory(name))
        return spec

    def find_library(self, name: str) -> Any:
        """Return the specification of a module in C; None if its file is not where it was."""
        path = self.libraries[name]
        if not posix.access(path, posix.R_OK):
            return None
        return ModuleSpec(name, ExtensionFileLoader(name, path), origin=path)

    def create_module(self, spec: Any) -> ModuleType | None:
        """Return the package that a run made for its modules, None for the import system to create the module."""
        return sys.modules.get(spec.name)

    def exec_module(self, module: Any) -> None:
        """Execute the module's code in its namespace."""
        exec(module.__spec__.loader_state, module.__dict__)  # noqa: S102  (this is how modules are imported)

    def load(self, name: str) -> CodeType | None:
        """Return a module's code, when the other modules of its run are loaded.

        None if the bundle cannot be read, or does not have the module, or if the code is garbled.
        """
        try:
            bundle = posix.open(f"{self.tree}/bundle.{sys.implementation.cache_tag}", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return None
        try:
            run: Run | None = self.read(bundle, self.later.pop(name)) if name in self.later else None
            if run:
                code = dict(run[1])[name]
                self.execute(run, name)
                return code
            if self.places is None:
                self.places = self.read(bundle, self.index) or {}
            found: CodeType | None = self.read(bundle, self.places[name]) if name in self.places else None
            return found
        finally:
            posix.close(bundle)

    def read(self, bundle: int, place: Place) -> Any:
        """Return an object of the open bundle; None if it is garbled.

        In that case ignore compiled files from now on: they were written together with the bundle.
        """
        length, offset, expected = place
        try:
            data = posix.pread(bundle, length, offset)
        except OSError:
            data = b""
        if digest(data) != expected:
            sys.pycache_prefix, sys.dont_write_bytecode = f"{self.tree}/none", True
            return None
        return loads(data)  # noqa: S302  (root's own file, as a .pyc is)

    def execute(self, run: Run, imported: str = "") -> None:
        """Load the modules of a run, in order, that are not there yet; leave `imported` to the import system."""
        natives, modules = run
        present = set(sys.modules)
        for name, file in natives:
            if name not in present:
                load_native(name, file)
        for name, code in modules:
            if name not in present and name != imported:
                module = sys.modules.get(name) or self.place(name, is_package=is_package(code))
                exec(code, module.__dict__)  # noqa: S102


def load_native(name: str, file: str) -> None:
    """Load a module in C without the import system, whose search takes longer. Leave a failure to the import."""
    spec: Any = ModuleSpec(name, None, origin=file)
    try:
        if file:
            module = create_dynamic(spec)
            exec_dynamic(module)
        else:
            module = create_builtin(spec)
            exec_builtin(module)
    except ImportError:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module


def preload(
    bundle: int, tree: str, executable: str, runs: dict[str, Place], index: Place, later: dict[str, Place],
    libraries: dict[str, str],
) -> None:  # fmt: skip
    """Load the modules of an executable, if need be for its verb, and let others be imported from the bundle."""
    finder = Bundle(tree, index, later, libraries)
    sys.meta_path.insert(0, finder)
    verb = posix.environ.get(b"CNI_COMMAND", b"").decode(errors="replace")
    run: Run | None = finder.read(bundle, runs.get(f"{executable} {verb}") or runs[executable])
    if run:
        finder.execute(run)
    posix.close(bundle)
