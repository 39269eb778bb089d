"""The allowed imports between modules, the executables' allowed imports, and forbidden text in files."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("plugins", "ipam", "shared")
# Modules directly in `shared` are under everything else; only the launcher is above.
BASE = "base"
KERNEL = {BASE, "shared.cni", "shared.net"}
FILTERS = {*KERNEL, "shared.nft", "shared.iptables", "shared.dbus"}
MECHANISMS = {"shared.masquerade", "shared.hostports", "shared.admission", "shared.frames"}
BELOW = {
    BASE: {BASE},
    "shared.cni": {BASE, "shared.cni"},
    "shared.net": KERNEL,
    "shared.nft": {*KERNEL, "shared.nft"},
    "shared.iptables": {*KERNEL, "shared.nft", "shared.iptables"},  # reads the rules that iptables has in nf_tables
    "shared.dbus": {*KERNEL, "shared.dbus"},
    **{mechanism: {*FILTERS, mechanism} for mechanism in MECHANISMS},
    "shared.pod": {*FILTERS, *MECHANISMS, "shared.pod"},
    "plugins": {*FILTERS, *MECHANISMS, "shared.pod"},
    "shared.dhcp": {*KERNEL, "shared.dhcp"},
    "ipam": {*KERNEL, "shared.nft", "shared.dhcp"},
    "shared.launch": {BASE, "shared.cni"},  # plugins and ipam by name only
    "shared.agent": {*KERNEL, "shared.agent"},  # plugins and ipam by name only
    "shared.cluster": {*KERNEL, "shared.cluster"},
    "shared.runtime": {BASE, "shared.cni", "shared.runtime"},
    "shared.build": {BASE, "shared.build"},
    "shared.cli": {*KERNEL, "shared.cluster", "shared.dhcp", "shared.runtime", "shared.cli"},
}
BELOW_ONE = {
    "shared.cni.repair": {"shared.net"},  # looks if the pod is still the one that ADD attached
    "shared.runtime.pods": {"shared.net"},  # looks into the pod
    "shared.runtime.presence": {"shared.net"},  # the same, and for the pod's link on the host, before an ADD
    # read rules as the suite's own types and numbers have them
    "shared.cli.explain.nft_words": {"shared.nft"},
    "shared.cli.explain.nft_expressions": {"shared.nft"},
    "shared.cli.config.reading": {"ipam"},  # has host-local read a configuration, and tells its ranges
    "shared.agent.warm_up": {"shared.hostports"},  # makes the rules that are the same in each call
    "shared.cli.demo.agent": {"shared.agent"},  # writes the agent's settings
    # find the remains of attachments: leases, rules, notes
    "shared.cli.leases.traces": {"ipam", "shared.nft", *MECHANISMS},
    # tells rules with short labels from those of known attachments
    "shared.cli.leases.living": {"shared.nft", *MECHANISMS},
    "shared.cli.leases.pools": {"ipam"},  # reads and frees leases as host-local does
    "shared.cluster.leases": {"ipam"},  # reads the names of host-local's files
    "shared.cli.agent.duties": {"shared.agent"},  # reads the agent's settings
    "shared.cli.doctor.cluster": {"shared.agent"},  # reads the agent's settings
    "shared.cli.cluster.state": {"shared.agent"},  # reads the agent's settings
    "shared.cli.agent.events": {"shared.nft"},  # knows the suite's tables and the kernel's numbers
    "shared.cli.agent.reloads": {"shared.dbus"},
    # read configurations and leases as the plugins do, by the plugins' own code
    "shared.cli.doctor.files": {"ipam"},
    "shared.cli.doctor.network": {"plugins", "ipam"},
    "shared.cli.doctor.node": {"ipam"},
    "shared.cli.doctor.state": {"ipam", "shared.admission"},
    "shared.cli.doctor.switches": {"shared.hostports", "shared.iptables", "shared.nft"},  # looks for portmap's rules
}
ACCELERATORS = {"_sha2", "_sha512"}  # the same, before and from Python 3.12: no version has both
LONGEST_MODULE, LONGEST_PLUGIN, LONGEST_FUNCTION = 400, 350, 40  # lines
OPERATOR_TIER = ("shared.runtime", "shared.build", "shared.cli", "shared.cluster")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports anywhere.

    `from package import name` is package.name if that is a module.
    """
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def layer(module: str) -> str:
    parts = module.split(".")
    for name in (module, ".".join(parts[:2]), parts[0]):
        if name in BELOW:
            return name
    return BASE


def unit(module: str) -> str:
    """Return the part that plugins must not share: one executable's own modules."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module: str) -> None:
    allowed = BELOW[layer(module)] | BELOW_ONE.get(module, set())
    for imported in imports(MODULES[module]):
        if imported.partition(".")[0] in PACKAGES and imported not in PACKAGES:
            same_plugin = layer(module) in ("plugins", "ipam") and unit(imported) == unit(module)
            assert same_plugin or layer(imported) in allowed, f"{module} imports {imported}"


def test_no_circles() -> None:
    """No module imports itself through others, even if an import stands in a function or serves types alone."""
    waiting = {module: {one for one in imports(path) if one in MODULES} - {module} for module, path in MODULES.items()}
    while free := [module for module, needed in waiting.items() if not needed & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert waiting == {}


@pytest.mark.parametrize("module", MODULES)
def test_sizes(module: str) -> None:
    """Modules and functions stay short enough to be read at once; the netlink tables are generated."""
    text = MODULES[module].read_text()
    if not MODULES[module].name.endswith("wire.py"):
        assert text.count("\n") <= (LONGEST_PLUGIN if module.startswith("plugins.") else LONGEST_MODULE)
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION} == {}


def test_executables_need_only_the_standard_library() -> None:
    foreign = {
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in imports(path)
        if not module.startswith(OPERATOR_TIER)
        and imported.partition(".")[0] not in {*PACKAGES, *sys.stdlib_module_names, *ACCELERATORS}
    }
    assert not foreign


def test_each_private_accelerator_is_used_in_one_file() -> None:
    users = defaultdict(set)
    for module, path in MODULES.items():
        for imported in imports(path):
            if imported.startswith("_") and imported != "__future__":
                users[imported].add(module)
    assert {name: modules for name, modules in users.items() if len(modules) > 1} == {}


def test_no_name_hides_a_standard_module() -> None:
    names = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert names & sys.stdlib_module_names == set()


def test_no_file_names_the_place_of_this_checkout() -> None:
    if len(ROOT.parts) < 3:
        pytest.skip(f"{ROOT} is too short a path to look for")
    place = re.compile(rf"(?<![\w./-]){re.escape(str(ROOT))}(?![\w.-])".encode())
    found = []
    for folder, directories, files in os.walk(ROOT):
        directories[:] = [name for name in directories if name == ".ci" or not name.startswith((".", "__pycache__"))]
        if folder == str(ROOT):
            directories[:] = set(directories) - {"build", "dist"}  # of packaging/build
        found += [path for name in files if place.search((path := Path(folder, name)).read_bytes())]
    assert found == []


def test_there_is_something_to_look_at() -> None:
    assert {"shared.launch", "shared.cni.plugin", "shared.net.netlink", "plugins.bridge", "ipam.host_local"} <= set(
        MODULES
    )
    assert {"posix", "shared.cni.plugin"} <= set(imports(MODULES["shared.launch"]))


def test_each_list_of_the_operator_tier_has_the_same_rooms() -> None:
    """A room that one of them lacks is loaded into the call server, compiled by too old a Python, or in the bundle."""
    from shared.agent.server import OPERATOR_ROOMS
    from shared.build import bundle

    rooms = {name.removeprefix("shared.") for name in OPERATOR_TIER}
    paths = (ROOT / "install.sh", ROOT / "shared/build/tree.py", ROOT / "pyproject.toml")
    installer, compiler, project = (path.read_text() for path in paths)
    proof = re.search(r"room\.name not in \((.*?)\)\]", installer)
    compiled = re.search(r're\.compile\("/shared/\((.*?)\)/"\)', compiler)
    linted = re.search(r'"shared/\{(.*?)\}/\*\*" = "py311"', project)
    assert proof and compiled and linted
    assert set(OPERATOR_ROOMS) - {"agent"} == rooms  # the agent's own modules are there already
    assert {one.split("/")[1] for one in bundle.OPERATOR_TIER if one.endswith("/")} == rooms
    assert set(re.findall(r"\w+", proof[1])) == set(linted[1].split(",")) == rooms
    assert set(compiled[1].split("|")) == rooms - {"build"}  # which is not installed
