"""containerd's CRI on a host without systemd, driven by gRPC as a kubelet drives it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Self

import grpc

from tests.clients.container_host import ARCHIVE, CONF_DIR, IMAGE, SERVER, ContainerHost
from tests.pretend import PATH, PATIENCE

PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
# All that the daemon's PATH leads to: no iptables, no nft, no ip.
BIN_DIR = "/run/bin"
SOCKET = "/run/containerd/containerd.sock"
LIMIT = 60 * PATIENCE  # seconds for a call

CONFIG = """
version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  disable_cgroup = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{bin_dir}"
  conf_dir = "{conf_dir}"
"""

protos, services = grpc.protos_and_services("tests/clients/cri.proto")


class Containerd:
    """The daemon with IMAGE; a context manager."""

    def __init__(self, host: ContainerHost) -> None:
        self.host = host
        self._config = host.write(
            "/run/containerd.toml", CONFIG.format(image=IMAGE, bin_dir=host.bin_dir, conf_dir=CONF_DIR)
        )
        host.path(BIN_DIR).mkdir()
        for program in PROGRAMS:
            found = shutil.which(program, path=PATH)
            assert found
            host.path(f"{BIN_DIR}/{program}").symlink_to(found)
        self.start()
        self.command("ctr", "--namespace", "k8s.io", "images", "import", ARCHIVE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the daemon and wait until it can make pods."""
        with self.host.path("/run/containerd.log").open("ab") as log:
            self._daemon = self.host.popen(
                f"{BIN_DIR}/containerd", "--config", self._config,
                env={"PATH": BIN_DIR}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        reconnect = ("initial", "min", "max")
        options = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in reconnect]
        self._channel = grpc.insecure_channel(f"unix:{self.host.path(SOCKET)}", options=options)
        self._stub = services.RuntimeServiceStub(self._channel)
        deadline = time.monotonic() + LIMIT
        while not self._is_ready():
            assert self._daemon.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        try:
            conditions = self.ask("Status").status.conditions
        except grpc.RpcError:
            return False
        return all(condition.status for condition in conditions)

    def kill(self) -> None:
        """Kill the daemon with SIGKILL. Its unfinished work stays as it is, and containers go on."""
        self._daemon.kill()
        self._daemon.communicate()
        self._channel.close()  # not before: a call that is cancelled would be taken back

    @property
    def log(self) -> str:
        """Return the whole log."""
        return self.host.path("/run/containerd.log").read_text()

    def command(self, *argv: str) -> str:
        """Run one of PROGRAMS as an administrator of the daemon."""
        return self.host.run(f"{BIN_DIR}/{argv[0]}", *argv[1:], env={"PATH": BIN_DIR}).stdout

    def ask(self, method: str, **fields: Any) -> Any:
        """Call a method of runtime.v1's RuntimeService. Raise grpc.RpcError if it fails."""
        return self.begin(method, **fields).result()

    def begin(self, method: str, **fields: Any) -> Any:
        """Begin such a call. Return its future."""
        request = getattr(protos, f"{method}Request")(**fields)
        return getattr(self._stub, method).future(request, timeout=LIMIT)

    def addresses(self, pod: str) -> list[str]:
        """Return the pod's addresses, as a kubelet gets them."""
        network = self.ask("PodSandboxStatus", pod_sandbox_id=pod).status.network
        return [network.ip, *(further.ip for further in network.additional_ips)]

    def serve(self, pod: str, config: dict[str, Any]) -> None:
        """Start a container in the pod that runs SERVER."""
        container = {"metadata": {"name": "server"}, "image": {"image": IMAGE}, "command": SERVER}
        self.start_container(pod, config, container)

    def start_container(self, pod: str, config: dict[str, Any], container: dict[str, Any]) -> str:
        """Create a container of the pod with that description, and start it. Return its id."""
        made = self.ask("CreateContainer", pod_sandbox_id=pod, config=container, sandbox_config=config)
        self.ask("StartContainer", container_id=made.container_id)
        return str(made.container_id)

    def exit_code(self, container: str) -> int | None:
        """Return the exit status of a container, None if it runs."""
        status = self.ask("ContainerStatus", container_id=container).status
        return status.exit_code if status.state == protos.CONTAINER_EXITED else None

    def execute(self, container: str, *argv: str) -> tuple[int, str]:
        """Execute a command in a container, as a probe is. Return its status and its words."""
        done = self.ask("ExecSync", container_id=container, cmd=argv, timeout=10)
        return done.exit_code, (done.stdout + done.stderr).decode()

    def remove(self, pods: Sequence[str]) -> None:
        """Stop and remove pods, all at once."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            for call in [self.begin(method, pod_sandbox_id=pod) for pod in pods]:
                call.result()

    def pods(self) -> set[str]:
        """Return the ids of its pods."""
        return {pod.id for pod in self.ask("ListPodSandbox").items}


def pod_config(name: str, *, ports: Sequence[tuple[int, int]] = (), **annotations: str) -> dict[str, Any]:
    """Return a kubelet's description of a pod.

    `ports` are (host port, container port), annotations are of kubernetes.io.
    """
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "default"},
        "hostname": name,
        "port_mappings": [{"host_port": host, "container_port": container} for host, container in ports],
        "annotations": {f"kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()},
    }
