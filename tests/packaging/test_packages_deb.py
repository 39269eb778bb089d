"""The Debian packages: installed, upgraded under calls, rolled back, removed; and the reference's package beside them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.releases import BRIDGE, NEWER, PackageNode, newer
from tests.pretend import until
from tests.system.agent_node import FAKE_SYSTEMCTL
from tests.systems import SystemHost

__all__ = ["newer"]
pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.slow]
BIN = "/usr/lib/cni"
SETTINGS = "etc/cni/pycni-agent.json"
# A package manager's own notes, and its log.
NOTES = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/var/lib/apt/")
PURGED = "leases under /var/lib/cni, and the machine's part in a cluster under /var/lib/pycni, stay"


@pytest.fixture
def node(request: pytest.FixtureRequest, artefacts: Path, newer: Path, tmp_path: Path) -> Iterator[PackageNode]:
    """Return a host of Debian 13, or of the test's parameter."""
    shares = {"/packages": artefacts, "/newer": newer, "/other": tmp_path}
    with SystemHost(getattr(request, "param", "trixie"), shares=shares) as host:
        yield PackageNode(host, BIN, artefacts, newer)


def left_behind(before: dict[str, tuple[object, ...]], after: dict[str, tuple[object, ...]]) -> set[str]:
    """Return the paths that are new, gone or changed, without the notes of dpkg."""
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {path for path in changed if not path.startswith(NOTES) and path not in {"/var/log", "/var/lib/dpkg"}}


def test_upgrade_and_rollback_under_calls(node: PackageNode) -> None:
    """No call fails while dpkg installs a newer release, and the older one again; settings stay."""
    before = node.host.files()
    node.run("dpkg", "-i", node.path("pycni_*_amd64.deb"))
    first = node.version()
    settings = node.host.root / SETTINGS
    assert json.loads(settings.read_text()) == {}
    settings.write_text('{"workers": 3}\n')
    pod = node.netns("pod")
    assert node.call("ADD", BRIDGE, "c1", pod) == []
    node.start_agent()

    with node.load():
        for path, release in (
            (node.newer_path("pycni_*_amd64.deb"), NEWER),
            (node.path("pycni_*_amd64.deb"), first),
        ):
            node.run("dpkg", "-i", path)
            assert node.version() == release
            assert node.has_removed() == (release != NEWER)
            until(lambda release=release: f"/{release}-" in node.agent_tree())  # type: ignore[misc]
    assert settings.read_text() == '{"workers": 3}\n'
    assert node.pings(pod)

    removed = node.run("dpkg", "--remove", "pycni").stdout
    assert "removed from /usr/lib/cni" in removed
    assert node.agent is not None and node.agent.wait(60) == 0
    assert node.pings(pod)
    assert settings.read_text() == '{"workers": 3}\n'
    assert PURGED in node.run("dpkg", "--purge", "pycni").stdout
    state = ("/var/lib/cni", "/run/")
    assert {path for path in left_behind(before, node.host.files()) if not path.startswith(state)} == set()


@pytest.mark.parametrize("node", ["bookworm", "trixie", pytest.param("forky", marks=pytest.mark.faults)], indirect=True)
def test_tools(node: PackageNode) -> None:
    """Both packages at once, the tools with their libraries, and the plugins without them again."""
    before = node.host.files()
    node.run("dpkg", "-i", node.path("pycni_*_amd64.deb"), node.path("pycni-tools_*.deb"))
    assert node.run("dpkg", "--audit").stdout == ""
    assert "no pods" in node.run("cnitool", "show", "--seconds", "0").stdout
    node.run("dpkg", "--remove", "pycni-tools")
    assert "this command needs pyroute2" in node.run("cnitool", "show", check=False).stderr
    assert node.call("ADD", BRIDGE, "c1", node.netns("pod")) == []
    assert node.call("DEL", BRIDGE, "c1", "pod") == []
    node.run("dpkg", "--purge", "pycni")
    state = ("/var/lib/cni", "/run/")
    assert {path for path in left_behind(before, node.host.files()) if not path.startswith(state)} == set()


@pytest.mark.parametrize("node", ["bullseye"], indirect=True)
def test_python_is_too_old_for_the_tools(node: PackageNode) -> None:
    """The plugins work, and the package of the tools says what is missing."""
    node.run("dpkg", "-i", node.path("pycni_*_amd64.deb"))
    done = node.run("dpkg", "-i", node.path("pycni-tools_*.deb"))
    assert "it needs Python 3.11 or newer" in done.stderr and "Or use the bundle" in done.stderr
    assert node.run("dpkg", "--audit").stdout == ""
    assert node.call("ADD", BRIDGE, "c1", node.netns("pod")) == []
    assert node.pings("pod")


def test_failed_upgrade(node: PackageNode) -> None:
    """The former release serves on, and dpkg ends the upgrade when the reason is gone."""
    node.run("dpkg", "-i", node.path("pycni_*_amd64.deb"))
    first = node.version()
    pod = node.netns("pod")
    node.run("chmod", "o+w", "/usr/lib/pycni")
    failed = node.run("dpkg", "-i", node.newer_path("pycni_*_amd64.deb"), check=False)
    assert failed.returncode == 1 and "writable for others than root" in failed.stderr
    assert node.version() == first
    assert node.call("ADD", BRIDGE, "c1", pod) == []
    node.run("chmod", "o-w", "/usr/lib/pycni")
    node.run("dpkg", "--configure", "--pending")
    assert node.version() == NEWER
    assert node.pings(pod)
    assert node.call("DEL", BRIDGE, "c1", pod) == []

    # The words with which dpkg undoes what failed: each run leaves the installation as it is.
    scripts = "/var/lib/dpkg/info/pycni"
    for words in ("postinst abort-upgrade 9", "postinst abort-remove", "postinst triggered /usr/bin/python3",
                  "prerm upgrade 9", "prerm failed-upgrade 9", "prerm deconfigure in-favour x 1 removing y 2",
                  "postrm upgrade 9", "postrm abort-install", "postrm disappear x 1"):  # fmt: skip
        script, *arguments = words.split()
        node.run(f"{scripts}.{script}", *arguments)
        assert node.version() == NEWER, words
        assert node.call("ADD", BRIDGE, "c1", pod) == node.call("DEL", BRIDGE, "c1", pod) == []


def test_units(node: PackageNode) -> None:
    """An upgrade tells systemd of the new files; a removal stops the units and disables them."""
    systemctl = node.host.root / "usr/bin/systemctl"
    systemctl.write_text(FAKE_SYSTEMCTL)
    systemctl.chmod(0o755)
    node.run("mkdir", "-p", "/run/systemd/system")
    log = node.host.root / "run/systemctl"

    def calls() -> list[str]:
        text = log.read_text()
        log.unlink()
        return [line.removeprefix("--quiet ") for line in text.splitlines()]

    node.run("dpkg", "-i", node.path("pycni_*_amd64.deb"))
    assert calls() == ["daemon-reload", "try-restart cni-dhcp.service"]
    unit = (node.host.root / "usr/lib/systemd/system/pycni-agent.service").read_text()
    assert f"\nExecStart={BIN}/pycni-agent\n" in unit and "/opt/" not in unit
    assert f"ExecStart={BIN}/dhcp daemon" in (node.host.root / "usr/lib/systemd/system/cni-dhcp.service").read_text()
    assert not list((node.host.root / "etc/systemd").rglob("*cni*"))
    node.run("dpkg", "--purge", "pycni")
    assert calls() == [
        "disable --now cni-dhcp.socket cni-dhcp.service pycni-agent.service",
        "daemon-reload",
        "daemon-reload",
    ]


def make_reference(directory: Path) -> list[str]:
    """Pack the machine's reference plugins as Debian does, and a package that depends on the stack; return the names."""
    stage = directory / "reference"
    listed = subprocess.run(
        ["dpkg-query", "--listfiles", "containernetworking-plugins"], capture_output=True, text=True, check=True
    ).stdout
    for path in map(Path, listed.splitlines()):
        if path.is_file() and "doc" not in path.parts:
            target = stage / "usr/lib" / path.relative_to("/usr/lib" if path.is_relative_to("/usr") else "/lib")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            target.chmod(0o755 if "cni" in path.parts else 0o644)
    form = "Package: ${Package}\nVersion: ${Version}\nArchitecture: ${Architecture}\nMaintainer: ${Maintainer}\n"
    form += "Provides: ${Provides}\nDescription: ${Description}\n"
    fields = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={form}", "containernetworking-plugins"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    dependent = "Package: golang-github-containers-common\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x.org>\n"
    dependent += "Depends: container-network-stack\nDescription: as podman needs it\n"
    for place, text in ((stage, fields), (directory / "dependent", dependent)):
        (place / "DEBIAN").mkdir(parents=True)
        (place / "DEBIAN/control").write_text(text)
        subprocess.run(["dpkg-deb", "--build", "-Znone", place, f"{place}.deb"], check=True, capture_output=True)
    return ["/other/reference.deb", "/other/dependent.deb"]


def test_replaces_the_reference_and_back(node: PackageNode, tmp_path: Path) -> None:
    """A package that needs a network stack stays, as podman does, and so does a pod's network."""
    reference, dependent = make_reference(tmp_path)
    node.run("dpkg", "-i", reference, dependent)
    pod = node.netns("pod")
    assert node.call("ADD", BRIDGE, "c1", pod) == [] and node.pings(pod)
    apt = ("apt-get", "--yes", "--no-install-recommends", "install")
    assert "REMOVED:\n  containernetworking-plugins" in node.run(*apt, node.path("pycni_*_amd64.deb")).stdout
    assert node.run("dpkg", "--audit").stdout == ""
    installed = node.run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Package} ").stdout
    assert "ii golang-github-containers-common " in installed and "ii pycni " in installed
    assert node.pings(pod)
    node.version()
    assert node.call("DEL", BRIDGE, "c1", pod) == []

    assert node.call("ADD", BRIDGE, "c1", pod) == []
    assert "REMOVED:\n  pycni" in node.run(*apt, reference).stdout
    assert node.pings(pod)
    assert node.call("DEL", BRIDGE, "c1", pod) == []


def test_podman_stays_on_the_machine(artefacts: Path) -> None:
    """apt's plan for the machine's own packages, of which podman needs a network stack."""
    (package,) = artefacts.glob("pycni_*_amd64.deb")
    words = ["apt-get", "--simulate", "--option", "Debug::NoLocking=1", "install", str(package)]
    plan = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    removed = [line.split()[1] for line in plan if line.startswith("Remv")]
    assert removed == ["containernetworking-plugins"], plan
