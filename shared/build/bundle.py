"""Write the bundle that shared/preload.py reads: `python -m shared.build.bundle TREE FINAL TARGET`.

install.sh calls it. TREE is the directory of the modules, FINAL its later path, TARGET the file to write.
"""

from __future__ import annotations

import ast
import importlib
import marshal
import sys
from importlib.machinery import ExtensionFileLoader, PathFinder
from pathlib import Path
from types import CodeType, ModuleType

from shared.executables import PLUGINS
from shared.preload import PACKAGES, Bundle, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from shared.preload import Place, Run

LAUNCH = "shared.launch"
NOWHERE = (0, 0, b"")
# Modules that nearly each call of an executable imports later, or nearly each of a verb.
FIREWALL = ("shared.iptables.variants", "shared.net.filter_tables", "shared.net.netlink")
ON_MASTER = ("shared.pod.below", "shared.pod.inside")
EXTRA = {
    "bridge ADD": ("shared.net.announce", "shared.net.gateways", "shared.pod.inside", "shared.pod.port"),
    "bridge DEL": ("shared.net.deletion",),
    "firewall": FIREWALL,
    # of ADD, and of the other verbs
    "dummy ADD": ("shared.pod.inside",), "dummy": ("shared.net.deletion",),
    "host-device ADD": ("shared.pod.inside",),
    "ipvlan ADD": (*ON_MASTER, "shared.net.rules_lock"), "ipvlan": ("shared.net.deletion",),
    "macvlan ADD": ON_MASTER, "macvlan": ("shared.net.deletion",),
    "ptp ADD": ("shared.net.forwarding", "shared.pod.gateway", "shared.pod.inside"), "ptp": ("shared.net.deletion",),
    "tap ADD": ("shared.pod.inside",), "tap": ("shared.net.deletion",),
    "vlan ADD": ON_MASTER, "vlan": ("shared.net.deletion",),
}  # fmt: skip
# Parts that many calls import later: the import that loads one, its modules, and those that most calls have by then.
LATER = {
    "ipam": (("ipam.host_local", "shared.net.liveness"), ("plugins.bridge",)),
    "shared.admission.nftables": (
        ("shared.admission.nftables",),
        ("plugins.firewall", *FIREWALL, "shared.nft.registry"),
    ),
    "shared.hostports.iptables": (("shared.hostports.iptables",), ("plugins.portmap",)),
    "shared.libc": (("shared.libc",), ("plugins.bridge",)),
    "shared.masquerade": (("shared.masquerade.nftables",), ("plugins.bridge", "shared.nft.registry")),
    "shared.net.deletion": (("shared.net.deletion",), ("plugins.bridge",)),
    "shared.net.placements": (("shared.net.placements",), ("plugins.bridge",)),
    "shared.net.rules_lock": (("shared.net.rules_lock",), ("plugins.portmap",)),
    "shared.net.verify": (("shared.net.verify",), ("plugins.sbr",)),
    "shared.nft": (("shared.nft.registry", "shared.nft.former"), ("plugins.bridge", "ipam.host_local")),
}
OPERATOR_TIER = ("shared/build/", "shared/cli/", "shared/cluster/", "shared/executables.py", "shared/runtime/")


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


class Natives(ast.NodeVisitor):
    """Find the modules in C that a module imports when it is loaded: names with the files, empty for built-in ones."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Pass over a function: it imports when it is called."""

    def visit_Import(self, node: ast.Import) -> None:
        """Look at each name."""
        for alias in node.names:
            self.look(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Look at the module."""
        self.look(node.module or "")

    def look(self, name: str) -> None:
        """Find one module."""
        spec = PathFinder.find_spec(name) if "." not in name else None
        if name in sys.builtin_module_names:
            self.found[name] = ""
        elif spec and isinstance(spec.loader, ExtensionFileLoader):
            self.found[name] = spec.loader.path


def lean(source: str) -> ast.Module:
    """Parse a module's source, and remove the parts that a call does not need."""
    tree: ast.Module = ast.fix_missing_locations(Leaner().visit(ast.parse(source)))
    return tree


def natives_of(tree: ast.Module) -> dict[str, str]:
    """Return the modules in C that a module imports, see Natives."""
    natives = Natives()
    natives.visit(tree)
    return natives.found


class Recording(Bundle):
    """Import modules from their compiled code and record the order in which they finish."""

    def __init__(self, modules: dict[str, CodeType]) -> None:
        super().__init__("", NOWHERE, {}, {})
        self.modules = modules
        self.finished: list[str] = []

    def load(self, name: str) -> CodeType | None:
        """Return the code of a module."""
        return self.modules.get(name)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, then record its name."""
        super().exec_module(module)
        self.finished.append(module.__name__)


def order_of(imports: Iterable[str], modules: dict[str, CodeType], before: Iterable[str] = ()) -> list[str]:
    """Return the modules that the imports load after those of `before`, each after its own imports."""
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    recording = Recording(modules)
    sys.meta_path.insert(0, recording)
    try:
        for name in before:
            importlib.import_module(name)
        recording.finished.clear()
        for name in imports:
            importlib.import_module(name)
    except Exception as error:
        raise SystemExit(f"the code does not work with this Python: {type(error).__name__}: {error}") from error
    sys.meta_path.remove(recording)
    return recording.finished


def build(tree: Path, final: str, moved: tuple[str, str] = ("", "")) -> bytes:
    """Return the bundle's content for the running interpreter.

    `moved` are the present directory of an interpreter whose files have another place later, and that place. The bundle
    consists of eight digits, a head of as many bytes, and marshalled objects: the runs, the modules' code and the
    index. The head is its own digest and, marshalled, the code of shared.preload and its arguments.
    """
    modules: dict[str, CodeType] = {}
    natives: dict[str, dict[str, str]] = {}
    for path in sorted(path for package in PACKAGES for path in (tree / package).rglob("*.py")):
        relative = path.relative_to(tree).as_posix()
        if not relative.startswith(OPERATOR_TIER):
            name = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            syntax = lean(path.read_text(encoding="utf-8"))
            natives[name] = {native: file.replace(*moved, 1) for native, file in natives_of(syntax).items()}
            modules[name] = compile(syntax, f"{final}/{relative}", "exec", dont_inherit=True, optimize=2)

    def run(names: list[str]) -> Run:
        own = {native: file for name in names for native, file in natives[name].items()}
        return list(own.items()), [(name, modules[name]) for name in names]

    runs = {name: run(order_of((LAUNCH, plugin), modules)) for name, plugin in PLUGINS.items()}
    for name, extra in EXTRA.items():
        runs[name] = run(order_of((LAUNCH, PLUGINS[name.partition(" ")[0]], *extra), modules))
    later = {name: run(order_of(imports, modules, (LAUNCH, *before))) for name, (imports, before) in LATER.items()}
    libraries = {name: file for of_module in natives.values() for name, file in of_module.items() if file}
    return _lay_out(modules, runs, later, libraries)


def _lay_out(
    modules: dict[str, CodeType], runs: dict[str, Run], later: dict[str, Run], libraries: dict[str, str]
) -> bytes:
    length = 0
    while True:  # the head's length depends on the offsets, and these on the length
        content = bytearray()

        def put(value: Any, content: bytearray = content, start: int = 8 + length) -> Place:
            data = marshal.dumps(value)
            offset = start + len(content)
            content.extend(data)
            return len(data), offset, digest(data)

        places = [{name: put(run) for name, run in group.items()} for group in (runs, later)]
        index = put({name: put(code) for name, code in modules.items()})
        body = marshal.dumps((modules["shared.preload"], places[0], index, places[1], libraries))
        head = digest(body) + body
        if len(head) == length:
            return b"%08d" % length + head + content
        length = len(head)


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(build(Path(sys.argv[1]), sys.argv[2]))
