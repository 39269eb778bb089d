"""containerd runs the DaemonSet's pod from the image: it installs, serves, is replaced, and is removed by the Job alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from artifacts import image
from artifacts.context import ARCHITECTURES

from tests.clients.container_host import PORT, chain, require
from tests.clients.containerd import PROGRAMS, Containerd
from tests.packaging import manifests
from tests.packaging.conftest import EPOCH
from tests.packaging.daemon_pod import BIN_DIR, LIB_DIR, VOLUMES, DaemonPod, ImageHost
from tests.packaging.image_node import RELEASE, Calls, Node
from tests.pretend import until

require(*PROGRAMS)

NEXT = "99.1"  # of the image that replaces this tree's
MOST_BYTES = 80_000_000


@pytest.fixture(scope="session")
def archive(artefacts: Path) -> Path:
    """Return the image's archive as packaging/build makes it."""
    return artefacts / f"pycni-{RELEASE}-image-linux-amd64.tar"


@pytest.fixture(scope="session")
def next_archive(artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive of a later release: the same bundle with another version."""
    directory = tmp_path_factory.mktemp("next")
    bundle = artefacts / f"pycni-{RELEASE}-linux-amd64.tar.gz"
    subprocess.run(["tar", "--extract", "--file", bundle, "--directory", directory], check=True)
    (unpacked,) = directory.iterdir()
    project = unpacked / "pyproject.toml"
    project.write_text(project.read_text().replace(f'version = "{RELEASE}"', f'version = "{NEXT}"'))
    target = directory / "next.tar"
    image.write(unpacked, ARCHITECTURES["amd64"], target, int(EPOCH))
    shutil.rmtree(unpacked)
    return target


@pytest.fixture
def node(archive: Path, tmp_path: Path) -> Iterator[Node]:
    with ImageHost(tmp_path) as host:
        host.configure(chain("pods", 0, "cni0"))
        with Containerd(host) as containerd:
            node = Node(host, containerd)
            node.load(archive)
            yield node


def test_archive(archive: Path) -> None:
    """It is an OCI layout of two layers, root's, without the host's directories, and small."""
    assert archive.stat().st_size < MOST_BYTES
    with tarfile.open(archive) as layout:

        def document(name: str) -> Any:
            file = layout.extractfile(name)
            assert file
            return json.load(file)

        (manifest,) = document("index.json")["manifests"]
        assert manifest["annotations"]["org.opencontainers.image.ref.name"] == f"localhost/pycni:{RELEASE}"
        layers = document(f"blobs/sha256/{manifest['digest'].removeprefix('sha256:')}")["layers"]
        assert len(layers) == 2
        size = 0
        for layer in layers:
            file = layout.extractfile(f"blobs/sha256/{layer['digest'].removeprefix('sha256:')}")
            with tarfile.open(fileobj=file, mode="r:gz") as entries:
                for entry in entries:
                    size += entry.size
                    assert (entry.uid, entry.gid, entry.mtime) == (0, 0, int(EPOCH)), entry.name
                    assert entry.mode & 0o6022 == 0 or entry.issym() or entry.name == "tmp", entry.name
    assert size < MOST_BYTES


def test_settings_that_cannot_be_written(node: Node) -> None:
    """The message names the file. Nothing is written."""
    host = node.host
    pod = node.daemon()
    before = host.files()
    own = host.path("/etc/cni/pycni-agent.json")
    for text, mine, words in (
        ('{"name": "${NODE_NAME}${NO_SUCH}"}', "", "/etc/pycni/pods.conflist: ${NO_SUCH} is not set"),
        ('{"name": ', "", "/etc/pycni/pods.conflist: "),
        ("{}", '{"workers": 9}', "not of a container of pycni, with other content: /etc/cni/pycni-agent.json"),
    ):
        host.give("config", "pods.conflist", text)
        if mine:
            own.write_text(mine)
        pod.start("install")
        assert pod.wait("install") == 1 and words in pod.log("install")
        assert own.exists() == bool(mine)
    assert own.read_text() == '{"workers": 9}'
    own.unlink()
    assert host.files() <= before


def test_life(node: Node) -> None:
    """The pod's own end removes nothing. The Job removes all, and running pods keep their network."""
    host = node.host
    before = host.files()
    host.give("credentials", "token", "first")
    host.give("credentials", "ca.crt", "authority")
    pod = node.daemon(RELEASE, "kubernetes")
    # The agent's duty would ask an API server, and there is none.
    host.give("config", "pycni-agent-cluster.json", '{"cluster": false}')
    pod.run("install")
    pod.run_agent(RELEASE)
    pod.start("credentials")
    assert_settings(node)
    assert_place_and_rights(node, pod)
    assert_probe_tells(node, pod)
    _, address = node.serving_pod("web")
    assert host.served() >= 4 and host.status()["fallbacks"] == 0
    assert_token_is_renewed(node, pod)
    assert_agent_restarts(node, pod)

    kept = {file for file in host.files() if not file.startswith("run/")}
    pod.end()
    assert host.release() == "" and host.files() >= kept
    second, _ = node.serving_pod("second")  # by executed plugins
    node.containerd.remove([second])

    # As the agent's duty writes it by the settings.
    host.write("/etc/cni/net.d/10-pods.conflist", host.path("/etc/cni/net.d/pods.conflist").read_bytes())
    words = node.uninstall()
    assert f"removed from {BIN_DIR}: " in words and "removed /etc/cni/pycni/token" in words
    assert host.files() == before
    assert not any(host.path(path).exists() for path in ("/etc/cni/pycni", "/run/pycni", LIB_DIR))
    assert host.answer(address, PORT) == "web"
    assert host.path("/var/lib/cni/networks/pods/10.44.0.2").exists()
    assert "nothing, no pycni there" in node.uninstall("--forget-node")


def assert_settings(node: Node) -> None:
    """Assert that the files are filled in, and for root alone."""
    top = node.host.path("/etc/cni")
    assert json.loads((top / "pycni-agent.json").read_text()) == {"cluster": False}
    assert json.loads((top / "pycni-cluster.json").read_text())["engine"] == "kubernetes"
    assert "server: https://[fd00:96::1]:443" in (top / "pycni/kubeconfig").read_text()
    written = [path for path in top.rglob("*") if path.is_file() and path.parent.name != "net.d"]
    assert {path.name for path in written} == {
        "pycni-agent.json", "pycni-cluster.json", "kubeconfig", "pods.conflist", "token", "ca.crt", ".container-files",
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    assert (top / "pycni").stat().st_mode & 0o777 == 0o700


def assert_place_and_rights(node: Node, pod: DaemonPod) -> None:
    """Assert that the agent is in the host's namespaces, with the installed Python and the manifest's rights."""
    number = node.host.status()["pid"]
    process = node.host.path(f"/proc/{number}")
    for kind in ("mnt", "pid", "net", "user"):
        assert (process / "ns" / kind).readlink() == node.host.path(f"/proc/1/ns/{kind}").readlink()
    seen = node.host.run("readlink", f"/proc/{number}/exe", f"/proc/{number}/root").stdout.split()
    assert seen[0].startswith(f"{LIB_DIR}/{RELEASE}-") and seen[1] == "/"
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    wanted = manifests.containers(pod.specification)["agent"]["securityContext"]["capabilities"]["add"]
    assert status["CapEff"] == status["CapBnd"] and int(status["CapEff"], 16).bit_count() == len(wanted)
    assert status["Seccomp"].strip() == "2"  # a filter


def assert_probe_tells(node: Node, pod: DaemonPod) -> None:
    """Assert that the probe fails if the agent does not answer, or is of another release than the installed one."""
    assert pod.probe() == (0, "")
    number = str(node.host.status()["pid"])
    node.host.run("kill", "-STOP", number)
    status, words = pod.probe()
    node.host.run("kill", "-CONT", number)
    assert status == 1 and "the agent does not answer" in words
    current = node.host.path(f"{LIB_DIR}/current")
    tree = current.readlink()
    for target, wanted in (("1.0-000000000000", "but 1.0-000000000000 is installed"), (str(tree), "")):
        current.unlink()
        current.symlink_to(target)
        status, words = pod.probe()
        assert status == bool(wanted) and wanted in words


def assert_token_is_renewed(node: Node, pod: DaemonPod) -> None:
    """Assert that the copies follow the volume, and that another pod's copy is replaced."""
    token = node.host.path("/etc/cni/pycni/token")
    for _ in range(2):
        node.host.give("credentials", "token", "second")
        until(lambda: token.read_text() == "second")
        assert token.stat().st_mode & 0o777 == 0o600
        token.write_text("of an earlier pod")
    assert "second" not in pod.log("credentials")


def assert_agent_restarts(node: Node, pod: DaemonPod) -> None:
    """Assert that a killed agent ends its container, so that the kubelet starts another. A call meanwhile is executed."""
    container = pod.running["agent"]
    node.host.run("kill", "-KILL", str(node.host.status()["pid"]))
    assert pod.wait("agent") == 137
    meanwhile, _ = node.serving_pod("meanwhile")
    pod.run_agent(RELEASE)
    assert pod.running["agent"] != container
    served = node.host.served()
    node.containerd.remove([meanwhile])
    assert node.host.served() > served
    # The container's first process can be killed, too, for want of memory.
    node.host.run("pkill", "-KILL", "-f", "container.py agent")
    assert pod.wait("agent") == 137
    until(lambda: node.host.release() == "")
    pod.run_agent(RELEASE)


def test_upgrade_and_rollback(node: Node, next_archive: Path) -> None:
    """No call fails while the pod is replaced, neither after the old one's end nor beside it (maxSurge 1)."""
    host = node.host
    node.load(next_archive)
    pod = node.daemon(RELEASE)
    host.give("config", "former.conflist", "{}")
    pod.run("install")
    former = host.path("/etc/cni/pycni/former.conflist")
    assert former.exists()
    host.path(f"{VOLUMES['config']}/former.conflist").unlink()
    pod.run_agent(RELEASE)
    with Calls(node) as calls:
        calls.go_on()
        pod.end()
        replaced = node.daemon(NEXT)
        replaced.run("install")
        calls.go_on()
        replaced.run_agent(NEXT)
        assert node.releases() == {NEXT} and not former.exists()
        calls.go_on()
        served = host.served()
        assert served

        beside = node.daemon(RELEASE)
        beside.run("install")
        until(lambda: host.release() == RELEASE)  # the old pod's agent goes on with the installed release
        assert replaced.probe() == (0, "")
        number = host.status()["pid"]
        beside.start("agent")
        until(lambda: "another agent runs" in beside.log("agent"))
        assert beside.probe("readinessProbe") == (0, "") and host.status()["pid"] == number
        calls.go_on()
        replaced.end()
        until(lambda: host.release() == RELEASE and host.status()["pid"] != number)
        calls.go_on()
    assert calls.failed == [] and calls.done >= 50
    assert host.served() > 0
    assert node.releases() == {RELEASE}
    assert beside.probe() == (0, "")
    beside.end()
    assert host.run("pgrep", "-af", f"{LIB_DIR}|container.py", check=False).stdout == ""


def test_installs_that_are_killed_or_meet(node: Node, next_archive: Path) -> None:
    """A killed install leaves nothing that the next one does not sweep up. Of two at once, each is whole."""
    host = node.host
    node.load(next_archive)
    pod = node.daemon(RELEASE)
    before = time.monotonic()
    pod.run("install")
    seconds = time.monotonic() - before
    for part in (0.4, 0.8):
        later = node.daemon(NEXT)
        container = later.start("install")
        time.sleep(seconds * part)
        node.containerd.ask("StopContainer", container_id=container, timeout=0)
        assert node.releases() <= {RELEASE, NEXT}
        answer = host.cni("bridge", "VERSION", '{"cniVersion": "1.0.0"}')
        assert answer.status == 0, answer
        later.end()
    pods = [node.daemon(release) for release in (RELEASE, NEXT)]
    for each in pods:
        each.start("install")
    for each in pods:
        assert each.wait("install") == 0, each.log("install")
    (release,) = node.releases()
    assert not [
        file for file in host.files() if ".pycni-new." in file or ".pycni-old." in file or file.endswith(".new")
    ]
    pods[0].run_agent(release)
    node.containerd.remove([node.serving_pod("web")[0]])
    assert host.served() >= 2
