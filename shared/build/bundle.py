"""Write the bundle that shared/preload.py reads: `python -m shared.build.bundle TREE FINAL TARGET`.

install.sh calls it. TREE is the directory of the modules, FINAL its later path, TARGET the file to write.
"""

from __future__ import annotations

import ast
import importlib
import marshal
import sys
from pathlib import Path
from types import CodeType, ModuleType

from shared.executables import PLUGINS
from shared.preload import Bundle, digest

PACKAGES = ("shared", "plugins", "ipam")
OPERATOR_TIER = ("shared/build/", "shared/cli/", "shared/executables.py", "shared/runtime/")


class Leaner(ast.NodeTransformer):
    """Remove the parts that a call does not need: annotations, and blocks under `if TYPE_CHECKING`.

    optimize=2 removes the docstrings. Line numbers stay.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Remove the annotations."""
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Remove the annotation."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        """Replace the statement by a plain assignment; remove it if it only declares."""
        self.generic_visit(node)
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        """Replace `if TYPE_CHECKING` by its `else` part."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse or ast.copy_location(ast.Pass(), node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt | None:
        """Remove `from __future__`: no annotations are left that it could affect."""
        return None if node.module == "__future__" else node


def compiled(source: str, filename: str) -> CodeType:
    """Compile a module's lean code."""
    tree = ast.fix_missing_locations(Leaner().visit(ast.parse(source)))
    code: CodeType = compile(tree, filename, "exec", dont_inherit=True, optimize=2)
    return code


class Recording(Bundle):
    """Import modules from their compiled code and record the order in which they finish."""

    def __init__(self, packages: list[str], modules: dict[str, bytes]) -> None:
        super().__init__("", packages, dict.fromkeys(modules, (0, 0, b"")))
        self.modules = modules
        self.finished: list[str] = []

    def load(self, name: str) -> CodeType:
        """Return the code of a module."""
        code: CodeType = marshal.loads(self.modules[name])  # noqa: S302
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, then record its name."""
        super().exec_module(module)
        self.finished.append(module.__name__)


def order_for(plugin: str, packages: list[str], modules: dict[str, bytes]) -> list[str]:
    """Return the modules that every call of a plugin needs, each after its own imports."""
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    recording = Recording(packages, modules)
    sys.meta_path.insert(0, recording)
    importlib.import_module("shared.launch")
    importlib.import_module(plugin)
    sys.meta_path.remove(recording)
    return recording.finished


def build(tree: Path, final: str) -> bytes:
    """Return the bundle's content for the running interpreter.

    It consists of eight digits, a head of as many bytes, and the modules' code. The head is its own digest and,
    marshalled, the code of shared.preload, the packages, the orders by executable and the index.
    """
    packages: list[str] = []
    modules: dict[str, bytes] = {}
    for path in sorted(path for package in PACKAGES for path in (tree / package).rglob("*.py")):
        relative = path.relative_to(tree).as_posix()
        if not relative.startswith(OPERATOR_TIER):
            source = path.read_text(encoding="utf-8")
            name = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            modules[name] = marshal.dumps(compiled(source, f"{final}/{relative}"))
            if relative.endswith("__init__.py"):
                packages.append(name)
    orders = {executable: order_for(plugin, packages, modules) for executable, plugin in PLUGINS.items()}
    preload = marshal.loads(modules["shared.preload"])  # noqa: S302
    length = 0
    while True:  # the index holds offsets that depend on its own length
        offset = 8 + length
        index = {}
        for name, code in modules.items():
            index[name] = (len(code), offset, digest(code))
            offset += len(code)
        body = marshal.dumps((preload, packages, orders, index))
        head = digest(body) + body
        if len(head) == length:
            return b"%08d" % length + head + b"".join(modules.values())
        length = len(head)


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(build(Path(sys.argv[1]), sys.argv[2]))
