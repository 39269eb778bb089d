"""A pretend host for a container runtime, as after a boot, and an image that needs no registry."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.running import PROGRAM, Agent
from tests.pretend import PATH, PATIENCE, PretendHost
from tests.system.hostport_nodes import elements

BUSYBOX = Path("/bin/busybox")  # Debian package busybox-static
IMAGE = "localhost/pod:latest"
ARCHIVE = "/run/image.tar"
PORT = 8080  # of SERVER
IDLE = ("/bin/busybox", "sleep", "1000000")
SERVER = ("/bin/busybox", "httpd", "-f", "-p", str(PORT), "-h", "/etc")  # /etc/hostname names the pod that answers
CGROUPS = "/run/cgroups"
CONF_DIR = "/etc/cni/net.d"
HOST, HOST_6, CLIENT, CLIENT_6 = "192.0.2.1", "fd00:2::1", "192.0.2.9", "fd00:2::9"
# host-local's files, whether or not there are leases
KEPT = {"lock", "last_reserved_ip.0", "last_reserved_ip.1", "boot"}
RESTING = {".", "libpod_parent"}  # cgroups without containers


def chain(name: str, number: int, bridge: str, **ranges: str) -> dict[str, Any]:
    """Return a network of all plugins in a list, of both families; `ranges` are further keys of its IPv4 range."""
    first = {"subnet": f"10.44.{number}.0/24", **ranges}
    ipam = {"type": "host-local", "ranges": [[first], [{"subnet": f"fd00:44:0:{number}::/64"}]]}
    keys = {"isDefaultGateway": True, "ipMasq": True, "hairpinMode": True}
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "plugins": [
            {"type": "bridge", "bridge": bridge, **keys, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
            {"type": "firewall"},
        ],
    }


def require(*programs: str) -> None:
    """Skip the module if a program is missing, which in CI is a failure."""
    missing = [program for program in programs if shutil.which(program, path=PATH) is None]
    if missing and os.environ.get("CI") == "true":
        raise RuntimeError(f"{', '.join(missing)} missing: tests/run installs what has them")
    if missing:
        pytest.skip(f"{', '.join(missing)} missing", allow_module_level=True)


class ContainerHost(PretendHost):
    """A host for a runtime.

    `state` is its /var/lib, which outlives it, as a disk does a boot; its kernel has its own boot_id.

    Its /sys/fs/cgroup is a group below the machine's unified hierarchy, which ends with the host. Outside is a client,
    which has no route to pods.
    """

    def __init__(self, bin_dir: str | Path, state: Path) -> None:
        super().__init__(bin_dir)
        self.agent: Agent | None = None
        self._group = f"pycni-tests-{self.first_pid}"
        self._hierarchy = -1
        (state / "cni").mkdir(parents=True, exist_ok=True)
        try:
            self._make(state)
        except BaseException:
            self.close()
            raise

    def _make(self, state: Path) -> None:
        self.run("mount", "--bind", str(state), "/var/lib")
        boot_id = self.write("/run/boot_id", f"{uuid.uuid4()}\n")
        self.run("mount", "--bind", boot_id, "/proc/sys/kernel/random/boot_id")
        self.run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")  # podman's locks
        self.run("mkdir", CGROUPS)
        self.run("mount", "-t", "cgroup2", "cgroup2", CGROUPS)
        self._hierarchy = os.open(self.path(CGROUPS), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path(f"{CGROUPS}/{self._group}").mkdir()
        self.run("mount", "--bind", f"{CGROUPS}/{self._group}", "/sys/fs/cgroup")
        self.write(ARCHIVE, image())
        self.netns("client")
        self.run("ip", "link", "add", "out", "type", "veth", "peer", "eth0", "netns", "client")
        for where, link, *addresses in ((), "out", HOST, HOST_6), (("-n", "client"), "eth0", CLIENT, CLIENT_6):
            for address in addresses:
                length = "/64" if ":" in address else "/24"
                self.run("ip", *where, "address", "add", f"{address}{length}", "dev", link, "nodad")
            self.run("ip", *where, "link", "set", link, "up")

    def start_agent(self) -> None:
        """Start the agent if it is installed."""
        if Path(self.bin_dir, PROGRAM).exists():
            self.agent = Agent(self)

    def assert_agent_served(self) -> None:
        """Without this, a test of the agent would pass by executed calls. A few are, if the machine is busy."""
        if self.agent is not None:
            status = self.agent.status()
            assert self.agent.taken() > 2 * status["fallbacks"], status

    def is_idle(self) -> bool:
        """Return True if no plugin runs, neither executed nor in a worker."""
        if self.agent is not None and self.agent.status()["workers"]["busy"]:
            return False
        running = self.run("pgrep", "-af", self.bin_dir, check=False).stdout.splitlines()
        return all(PROGRAM in line or "cnitool" in line for line in running)  # the agent and its duties

    def close(self) -> None:
        """End the host, then remove its groups, in which no process is left."""
        super().close()
        if self._hierarchy < 0:
            return
        for path, _, _, _ in os.fwalk(self._group, topdown=False, dir_fd=self._hierarchy):
            os.rmdir(path, dir_fd=self._hierarchy)
        os.close(self._hierarchy)
        self._hierarchy = -1

    def path(self, inside: str) -> Path:
        """Return the path of a file of the host for the tests."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes) -> str:
        """Write a file of the host, and the directories that it needs. Return its path inside."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return inside

    def configure(self, network: dict[str, Any]) -> None:
        """Write a network's configuration, once: runtimes watch the directory."""
        self.write(f"{CONF_DIR}/{network['name']}.conflist", json.dumps(network))

    def wait_for(self, what: str, happens: Callable[[], bool]) -> None:
        """Wait until the condition holds. Fail with `what` at the deadline."""
        deadline = time.monotonic() + 30 * PATIENCE
        while not happens():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.001)

    def answer(self, at: str, port: int, netns: str = "") -> str:
        """Return SERVER's host name from its answer. Wait until it listens."""
        where = ("ip", "netns", "exec", netns) if netns else ()
        url = f"http://[{at}]:{port}/hostname" if ":" in at else f"http://{at}:{port}/hostname"
        answers = []

        def is_answered() -> bool:
            done = self.run(*where, "busybox", "wget", "-qO-", url, check=False)
            answers.append((done.stdout + done.stderr).strip())
            return "refused" not in answers[-1]

        self.wait_for(f"an answer at {url}", is_answered)
        return answers[-1]

    def leases(self) -> set[str]:
        """Return the files of leases: network/address."""
        top = self.path("/var/lib/cni/networks")
        return {str(file.relative_to(top)) for file in top.glob("[!.]*/*") if file.name not in KEPT}

    def kept(self) -> dict[str, set[str]]:
        """Return all that the host has for containers, in words."""
        snapshot = self.snapshot()
        groups = str(self.path("/sys/fs/cgroup"))
        return {
            "links": {name for name, link in snapshot["host"]["links"].items() if link["kind"] != "bridge"},
            "elements": {f"{name} {owner}" for name, owners in elements(self).items() for owner in owners},
            "files": {path for path in snapshot["files"] if Path(path).name not in KEPT},
            "namespaces": {path.name for path in self.path("/run/netns").iterdir()},
            "groups": {os.path.relpath(path, groups) for path, _, _ in os.walk(groups)} - RESTING,
        }


def image() -> bytes:
    """Make the image IMAGE, with busybox, which idles: an archive in OCI's layout."""
    layer = _archive({"bin/busybox": BUSYBOX.read_bytes(), "etc/passwd": b"root:x:0:0:root:/:/bin/sh\n"})
    blobs = [layer]

    def described(kind: str, blob: bytes) -> dict[str, Any]:
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": _digest(blob), "size": len(blob)}

    def document(value: dict[str, Any]) -> bytes:
        blobs.append(json.dumps(value).encode())
        return blobs[-1]

    platform = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine], "os": "linux"}
    rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
    config = document({**platform, "config": {"Cmd": IDLE}, "rootfs": rootfs})
    described_layer = described("layer.v1.tar", layer)
    manifest = document(
        {"schemaVersion": 2, "config": described("config.v1+json", config), "layers": [described_layer]}
    )
    name = {"io.containerd.image.name": IMAGE, "org.opencontainers.image.ref.name": IMAGE}
    index = {"schemaVersion": 2, "manifests": [{**described("manifest.v1+json", manifest), "annotations": name}]}
    files = {f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}": blob for blob in blobs}
    layout = {"imageLayoutVersion": "1.0.0"}
    return _archive({"oci-layout": json.dumps(layout).encode(), "index.json": json.dumps(index).encode(), **files})


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _archive(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, len(content)
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()
