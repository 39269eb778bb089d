"""install.sh --offline: the operator tools' libraries from files, on hosts without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.build.libraries import pins
from tests.conftest import ROOT
from tests.pretend import PretendHost
from tests.pythons import OLDEST, OLDEST_OF_TOOLS
from tests.system.agent_node import AgentNode
from tests.system.small_bundle import BareHost, make_bundle
from tests.system.test_install import content, interpreters, make_site, sentence

PINS = ROOT / "shared" / "cli" / "tools.txt"

pytestmark = pytest.mark.xdist_group("offline")  # one worker fetches the files


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the files, fetched as docs/how-to/air-gapped.md says."""
    directory = tmp_path_factory.mktemp("fetched")
    options = ("--disable-pip-version-check", "-q", "--no-deps", "--require-hashes", "-r", PINS, "-d", directory)
    subprocess.run([sys.executable, "-m", "pip", "download", *options], check=True)
    return directory


@pytest.fixture
def files(fetched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fetched, tmp_path / "files"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[AgentNode]:
    with PretendHost() as host:
        yield AgentNode(host, make_site(tmp_path))


def test_tools_from_files(node: AgentNode, files: Path) -> None:
    """They are those that pip installs, and work; a later run replaces them."""
    for _ in range(2):
        said = node.install("--with-tools", "--offline", str(files)).stdout
        assert f"  tools   {node.site.lib}/tools (" in said
        assert node.site.leftovers() == []
    assert node.host.run(f"{node.site.bin}/cnitool", "manual").stdout.startswith(".TH CNITOOL")
    assert "complete" in node.host.run(f"{node.site.bin}/cnitool", "completion").stdout
    assert "no pods" in node.host.run(f"{node.site.bin}/cnitool", "show").stdout
    (packages,) = node.site.lib.glob("tools/lib/python3*/site-packages")
    for path in packages.rglob("*.py"):
        assert list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")), f"{path} is not compiled"
    before = content(packages)
    node.host.run(f"{node.site.bin}/cnitool", "show")
    assert content(packages) == before
    node.install()
    assert packages.is_dir(), "a run without the option keeps them"
    node.install("--uninstall")
    assert not node.site.lib.exists()


def test_release_that_brings_the_files(node: AgentNode, files: Path) -> None:
    """A package of the tools does."""
    files.rename(node.site.source / "wheels")
    assert "tools" not in node.install().stdout
    assert not (node.site.lib / "tools").exists()
    assert "tools" in node.install("--with-tools").stdout
    node.host.run(f"{node.site.bin}/cnitool", "manual")


def test_bundle_installs_the_tools(tmp_path: Path, fetched: Path) -> None:
    """Another run leaves them alone, for programs may be at work with them, unless the administrator names them."""
    site = make_bundle(tmp_path)
    shutil.copytree(fetched, site.source / "wheels")
    with BareHost(site.source) as host:
        host.install()
        assert host.bare("/opt/cni/bin/cnitool", "manual").stdout.startswith(".TH CNITOOL")
        assert "no pods" in host.bare("/opt/cni/bin/cnitool", "show").stdout
        tools = host.files / "opt/cni/lib/pycni/tools"
        first = tools.stat().st_ino
        host.install()
        assert tools.stat().st_ino == first
        host.install("--with-tools")
        assert tools.stat().st_ino != first
        host.install("--uninstall")
        assert not (host.files / "opt/cni/lib/pycni").exists()


def test_missing_or_wrong_file_changes_nothing(node: AgentNode, files: Path, tmp_path: Path) -> None:
    node.install()
    node.site.change("newer")
    before = content(node.site.bin, node.site.lib)

    def refused(directory: Path) -> str:
        said = sentence(node.install("--with-tools", "--offline", str(directory), check=False))
        assert content(node.site.bin, node.site.lib) == before
        return said

    for name, version, _ in pins(PINS.read_text()):
        (path,) = files.glob(f"{name.replace('-', '_')}-{version}*")
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert f"{path.name} is not the file that shared/cli/tools.txt pins" in refused(files)
        path.rename(tmp_path / path.name)
        assert f"there is no {name.replace('-', '_')}-{version}-py3-none-any.whl" in refused(files)
        path.write_bytes(whole)
    assert f"take the tools' libraries from {tmp_path}/none: there is no " in refused(tmp_path / "none")


def test_files_without_the_tools(node: AgentNode, files: Path) -> None:
    assert "--offline needs --with-tools" in sentence(node.install("--offline", str(files), check=False), 2)
    assert not node.site.bin.exists()


def test_the_newer_python_gets_the_tools(node: AgentNode, files: Path) -> None:
    old = [path for number, path in interpreters().items() if OLDEST <= number < OLDEST_OF_TOOLS]
    if not old:
        pytest.skip("no Python that is too old for cnitool on this machine")
    node.install("--python", old[0], "--with-tools", "--offline", str(files))
    node.host.run(f"{node.site.bin}/cnitool", "manual")
