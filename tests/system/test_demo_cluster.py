"""./install.sh --demo-cluster: its words, its failures, and that it leaves nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shared.cli.demo import cluster, nodes
from tests.pretend import PATIENCE

pytestmark = pytest.mark.kernel_vxlan
TREE = Path(__file__).resolve().parents[2]
DEMO = TREE / "shared/cli/demo/cluster.py"


def touched(directory: str) -> dict[str, list[str]]:
    """Return the links, files and namespaces with names of the demo, and programs that name a directory of this test."""
    names = {*cluster.PLACES, "link1", "link2", "cni0", "pycni.vxlan"}
    files = [
        "/var/lib/pycni",
        "/var/lib/cni/networks/pods",
        "/etc/cni/pycni",
        "/etc/cni/pycni-cluster.json",
        "/run/disk",
    ]
    return {
        "links": sorted(names & set(os.listdir("/sys/class/net"))),
        "files": [one for one in (*files, cluster.CONFLIST, "/run/pycni/cluster.json") if Path(one).exists()],
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("pod[1-5]")),
        "programs": [words for words in programs() if directory in words],
    }


def programs() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def run(*argv: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120 * PATIENCE, env=env)


def run_demo(bin_dir: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-I", "-B", DEMO, "--bin-dir", bin_dir, env=env)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory = str(tmp_path_factory.getbasetemp())
    before = touched(directory)
    yield
    assert touched(directory) == before


def test_install_and_demo(tmp_path: Path) -> None:
    done = run(TREE / "install.sh", "--bin-dir", tmp_path / "bin", "--lib-dir", tmp_path / "lib", "--demo-cluster")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("SUCCESS")
    for pattern in (
        r"  pool pods is written\n",
        r"    pods +10\.244\.[\d.]+/28 +node3 +owned ",
        r"  pod1 [\d.]+ +pod2 [\d.]+ +[\d.]+ ms +[\d.]+ ms +direct\n",
        r"  pod3 [\d.]+ +pod1 [\d.]+ +[\d.]+ ms +[\d.]+ ms +VXLAN\n",
        r"ok node2# cnitool add pods /run/netns/pod4: \d+ ms, from node2's own block\n",
        r"  pod5 [\d.]+ +pod4 [\d.]+ +[\d.]+ ms +[\d.]+ ms +VXLAN\n",
        r"  engine +etcd, synchronised ",
    ):
        assert re.search(pattern, done.stdout), (pattern, done.stdout)
    assert "\033" not in done.stdout


def test_a_program_that_is_missing(installed: Path, tmp_path: Path) -> None:
    for program in ("ip", "nsenter", "sh"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    done = run_demo(installed, {"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == "FAILED: the demo needs the program etcd: install it with `apt-get install etcd-server`\n"


def test_an_etcd_that_does_not_start(installed: Path, tmp_path: Path) -> None:
    etcd = tmp_path / "etcd"
    etcd.write_text("#!/bin/sh\necho not today\nexit 1\n")
    etcd.chmod(0o755)
    done = run_demo(installed, {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == 1
    assert done.stderr == "FAILED: etcd does not start: not today\n"


def test_a_plugin_that_is_missing(installed: Path, tmp_path: Path) -> None:
    for plugin in ("host-local", "cnitool"):
        (tmp_path / plugin).symlink_to(installed / plugin)
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert re.search(r"FAILED: node1: .*cnitool add .*bridge", done.stderr), done.stderr
    assert "SUCCESS" not in done.stdout


def test_pods_that_do_not_reach_each_other(installed: Path, tmp_path: Path) -> None:
    """The demo reports it: here the bridge plugin takes the pod's link down again."""
    for plugin in ("host-local", "cnitool"):
        (tmp_path / plugin).symlink_to(installed / plugin)
    bridge = tmp_path / "bridge"
    bridge.write_text(f'#!/bin/sh\n{installed}/bridge && nsenter --net="$CNI_NETNS" ip link set eth0 down\n')
    bridge.chmod(0o755)
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "FAILED: no answer to pod1 on node1 from pod2 on node2" in done.stderr


def test_own_namespaces_are_not_taken_on_trust(installed: Path) -> None:
    own = " ".join(os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "pid"))
    done = run(sys.executable, "-I", "-B", DEMO, "--bin-dir", installed, "--outside", own)
    assert done.returncode == 1
    assert "not in namespaces of its own" in done.stderr


def test_a_directory_that_the_demo_would_hide() -> None:
    done = run_demo(nodes.HIDDEN[0] / "bin")
    assert done.returncode == 1
    assert "which is hidden here" in done.stderr
