"""The DaemonSet's pod on a pretend host with containerd, as a kubelet starts it from the manifests."""

from __future__ import annotations

import functools
import json
import socket
import time
from pathlib import Path
from typing import Any

from tests.clients.container_host import ContainerHost
from tests.clients.containerd import Containerd
from tests.packaging import manifests
from tests.pretend import PATIENCE, until

BIN_DIR, LIB_DIR = "/opt/cni/bin", "/opt/cni/lib/pycni"
ENTRY = ("/pycni/python/bin/python3", "-IB", "/pycni/container.py")
LOGS = "/run/logs"
VOLUMES = {"config": "/run/given", "credentials": "/run/credentials"}
FIELDS = {"spec.nodeName": "node-1", "status.hostIP": "fd00:2::1"}
KUBELETS = {"KUBERNETES_SERVICE_HOST": "fd00:96::1", "KUBERNETES_SERVICE_PORT": "443"}
INSTALL_SECONDS = 240  # of two at once


@functools.cache
def daemon_set(*components: str) -> list[manifests.Object]:
    """Return the manifests' objects."""
    return manifests.objects(*components)


class ImageHost(ContainerHost):
    """A host with nothing of pycni, and the volumes that a kubelet would make."""

    def __init__(self, state: Path) -> None:
        super().__init__(BIN_DIR, state)
        self.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/opt")
        for directory in (*VOLUMES.values(), LOGS):
            self.path(directory).mkdir()

    def give(self, volume: str, name: str, text: str) -> None:
        """Write a file of a volume as the kubelet does: a new directory with all files, then one rename of `..data`."""
        top = self.path(VOLUMES[volume])
        old, new = top / "..data", top / f"..{time.monotonic_ns()}"
        new.mkdir()
        for file in old.iterdir() if old.exists() else ():
            (new / file.name).write_bytes(file.read_bytes())
        (new / name).write_text(text)
        (top / "..data_tmp").symlink_to(new.name)
        (top / "..data_tmp").rename(old)
        if not (top / name).is_symlink():
            (top / name).symlink_to(f"..data/{name}")

    def status(self) -> Any:
        """Ask the agent."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(10 * PATIENCE)
            control.connect(str(self.path("/run/pycni/control.sock")))
            control.send(b"status")
            return json.loads(control.recv(1 << 20))

    def release(self) -> str:
        """Return the release of the agent that answers, empty if there is none."""
        try:
            return str(self.status()["release"])
        except (OSError, ValueError):
            return ""

    def served(self) -> int:
        """Return the number of calls that workers have served."""
        return sum(sum(codes.values()) for verbs in self.status()["calls"].values() for codes in verbs.values())

    def files(self) -> set[str]:
        """Return the paths of all files that an installation can leave, without state."""
        tops = [self.path(top) for top in ("/opt", "/etc/cni", "/run/pycni")]
        return {str(path.relative_to(self.root)) for top in tops for path in top.rglob("*") if not path.is_dir()}


class DaemonPod:
    """One pod of the manifests, or the Job's. Its containers run until they are stopped."""

    def __init__(self, containerd: Containerd, image: str, uid: str, specification: manifests.Object) -> None:
        host = containerd.host
        assert isinstance(host, ImageHost)
        self.host, self.containerd, self.image, self.specification = host, containerd, image, specification
        self.logs = f"{LOGS}/{uid}"
        self.config = {**manifests.sandbox_config(specification, f"pycni-{uid}"), "log_directory": self.logs}
        for directory in (self.logs, *manifests.directories(specification)):
            host.path(directory).mkdir(parents=True, exist_ok=True)
        self.pod = containerd.ask("RunPodSandbox", config=self.config).pod_sandbox_id
        self.attempt = 0
        self.running: dict[str, str] = {}

    def start(self, name: str, *arguments: str) -> str:
        """Start a container; `arguments` follow those of the manifest. Return its id."""
        self.attempt += 1
        config = manifests.container_config(self.specification, name, volumes=VOLUMES, fields=FIELDS, **KUBELETS)
        config["args"] += arguments
        config["metadata"]["attempt"] = self.attempt
        config["image"]["image"] = self.image
        config["log_path"] = f"{name}-{self.attempt}.log"
        self.running[name] = self.containerd.start_container(self.pod, self.config, config)
        return self.running[name]

    def log(self, name: str) -> str:
        """Return the words of all containers of that name."""
        files = sorted(self.host.path(self.logs).glob(f"{name}-*.log"))
        return "".join(line.split(" ", 3)[3] for file in files for line in file.read_text().splitlines(keepends=True))

    def wait(self, name: str) -> int:
        """Wait for a container's end. Return its status."""
        container = self.running[name]
        until(lambda: self.containerd.exit_code(container) is not None, seconds=INSTALL_SECONDS)
        return self.containerd.exit_code(container) or 0

    def run(self, name: str, *arguments: str) -> str:
        """Run an init container or a Job to its end. Fail with its words if its status is not 0; else return them."""
        self.start(name, *arguments)
        status = self.wait(name)
        assert status == 0, self.log(name)
        return self.log(name)

    def run_agent(self, release: str) -> str:
        """Start the agent and wait until it answers. Return its container's id."""
        container = self.start("agent")
        until(lambda: self.host.release() == release or self.containerd.exit_code(container) is not None)
        assert self.containerd.exit_code(container) is None, self.log("agent")
        return container

    def probe(self, kind: str = "livenessProbe") -> tuple[int, str]:
        """Return the status of the agent's probe, and its words."""
        command = manifests.probe(manifests.containers(self.specification)["agent"], kind)
        return self.containerd.execute(self.running["agent"], *command)

    def end(self) -> None:
        """Stop its containers and remove it, as a kubelet does when the pod is deleted."""
        for container in self.running.values():
            seconds = self.specification.get("terminationGracePeriodSeconds", 30)
            self.containerd.ask("StopContainer", container_id=container, timeout=seconds)
        self.containerd.remove([self.pod])
