"""Packages of this release and of a newer one, and the calls of a runtime on a host that has them."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.packaging.conftest import KEPT, digest_of_source, run_build
from tests.pretend import until
from tests.system.test_install import Watcher
from tests.systems import SystemHost

NEWER = "99.0"
REMOVED = "shared/cluster/manifests/access.yaml"  # a file that the newer release does not have
BRIDGE = {
    "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"},
}  # fmt: skip
GATEWAY = "10.1.0.1"
AGENT_SOCKET = "run/pycni/agent.sock"


def package(directory: Path, pattern: str) -> str:
    """Return the name of the one file there that fits."""
    (found,) = directory.glob(pattern)
    return found.name


def _build_newer(directory: Path) -> None:
    """Build packages of a copy of this tree, with another version, another module and without a file."""
    tree = directory / "tree"
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in sorted(set(listed.split("\0")) - {""}):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    project = (tree / "pyproject.toml").read_text()
    current = next(line for line in project.splitlines() if line.startswith("version = "))
    (tree / "pyproject.toml").write_text(project.replace(current, f'version = "{NEWER}"'))
    with (tree / "shared/launch.py").open("a") as file:
        file.write("# newer\n")
    (tree / REMOVED).unlink()
    (tree / "build").mkdir()
    (tree / "build/packaging-env").symlink_to(ROOT / "build/packaging-env")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "newer"]):
        subprocess.run([*git, *command], cwd=tree, check=True, capture_output=True)
    done = run_build(tree, directory, "--arch", "amd64", "deb", "rpm", "apk")
    if done.returncode:
        pytest.fail(f"packaging/build: status {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
    shutil.rmtree(tree)


@pytest.fixture(scope="session")
def newer(artefacts: Path) -> Path:
    """Return a directory with the packages of a newer release; they are kept as the artefacts are."""
    target = artefacts.parent / f"newer-{digest_of_source()}"
    with (KEPT / ".newer-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for old in KEPT.glob("newer-*"):
                shutil.rmtree(old)
            unfinished = KEPT / ".newer-new"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            _build_newer(unfinished)
            unfinished.rename(target)
    return target


class PackageNode:
    """A host with packages of both releases at /packages and /newer."""

    def __init__(self, host: SystemHost, bin_dir: str, this: Path, newer: Path) -> None:
        self.host, self.bin_dir, self.this, self.newer = host, bin_dir, this, newer
        host.bin_dir = bin_dir
        self.agent: subprocess.Popen[bytes] | None = None

    def path(self, pattern: str) -> str:
        """Return the path in the host of a package of this release."""
        return f"/packages/{package(self.this, pattern)}"

    def newer_path(self, pattern: str) -> str:
        """Return the path in the host of a package of the newer release."""
        return f"/newer/{package(self.newer, pattern)}"

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of the host, with the time that an installation takes on a busy machine."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        return self.host.run(*argv, check=check, timeout=300, env=env)

    def netns(self, name: str) -> str:
        """Make a pod's namespace; not each system has iproute2."""
        self.host.run("mkdir", "-p", "/run/netns")
        self.host.run("touch", f"/run/netns/{name}")
        self.host.run("unshare", f"--net=/run/netns/{name}", "true")
        return name

    def pings(self, pod: str) -> bool:
        """Return True if the bridge answers the pod."""
        words = ["nsenter", f"--net={self.host.root}/run/netns/{pod}", "ping", "-c1", "-W5", GATEWAY]
        return subprocess.run(words, stdout=subprocess.DEVNULL).returncode == 0

    def version(self) -> str:
        """Return the release that the executables run, which all are of one."""
        texts = {path.read_bytes().rpartition(b"code is in ")[2].split()[0] for path in self.executables()}
        (tree,) = texts
        return tree.decode().rpartition("/")[2].rpartition("-")[0]

    def has_removed(self) -> bool:
        """Return True if the installed code has the file that the newer release lacks."""
        return (self.host.root / "usr/lib/pycni/current" / REMOVED).exists()

    def executables(self) -> list[Path]:
        """Return the executables' paths."""
        return sorted((self.host.root / self.bin_dir.lstrip("/")).iterdir())

    def call(self, verb: str, config: dict[str, Any], container: str, pod: str) -> list[str]:
        """Return what is wrong with a call."""
        answer = self.host.cni(config["type"], verb, config, container_id=container, netns=f"/run/netns/{pod}")
        return [f"{verb}: {answer}"] if answer.status else []

    @contextmanager
    def load(self) -> Iterator[None]:
        """Add and delete a pod's network all the time; no call may fail."""
        pod = self.netns("load")
        with Watcher(
            lambda: [line for verb in ("ADD", "DEL") for line in self.call(verb, BRIDGE, "load", pod)]
        ) as calls:
            until(lambda: calls.rounds > 0)
            yield
        assert calls.complaints == [] and calls.rounds > 3

    def start_agent(self) -> None:
        """Start the installed agent, and wait until it serves."""
        self.agent = self.host.popen(f"{self.bin_dir}/pycni-agent", stdin=subprocess.DEVNULL, stdout=None, stderr=None)
        until((self.host.root / AGENT_SOCKET).exists)

    def agent_tree(self) -> str:
        """Return the release's directory that the agent runs."""
        done = self.host.run(f"{self.bin_dir}/cnitool", "agent", "status", "--json")
        return str(json.loads(done.stdout)["tree"])
