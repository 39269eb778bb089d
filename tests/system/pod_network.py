"""A node with a pod network, and cnitool with the tools' libraries, for the tests of commands that show nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import tests.node
from tests.pretend import PATH, PretendHost

ROOT = Path(__file__).resolve().parents[2]
CODE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from shared.cli.cnitool import run; sys.exit(run('/none'))"
CNITOOL = (sys.executable, "-I", "-B", "-W", "error", "-c", CODE)
NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
        }
    ],
}
CONF_DIR = "/etc/cni/net.d"


class Node(tests.node.Node):
    """A pretend host with the network `pods`; a pod's namespace has the name of its container ID."""

    DEFAULTS: ClassVar[dict[str, Any]] = {"cniVersion": "1.0.0", "name": "pods", **NETWORK["plugins"][0]}

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        host.run("mkdir", "-p", CONF_DIR)
        self.configure(NETWORK)

    def configure(self, network: dict[str, Any]) -> None:
        self.host.run("tee", f"{CONF_DIR}/{network['name']}.conflist", input=json.dumps(network))

    def attach(self, pod: str, name: str = "", *, network: str = "pods", bin_dir: str | None = None) -> Any:
        """Call ADD as a runtime that remembers it, with a Kubernetes pod's name if given; return the result."""
        return self._client("add", pod, self.host.netns(pod), name, network, bin_dir)

    def detach(self, pod: str) -> None:
        self._client("del", pod, f"/run/netns/{pod}", "", "pods", None)

    def attach_without_runtime(self, pod: str, *, bin_dir: str | None = None) -> Any:
        """Call ADD without a runtime: only the kernel remembers the attachment."""
        return self.add(pod, bin_dir=bin_dir)

    def _client(self, verb: str, pod: str, netns: str, name: str, network: str, bin_dir: str | None) -> Any:
        variables = {"PATH": PATH, "CNI_PATH": bin_dir or self.host.bin_dir, "NETCONFPATH": CONF_DIR}
        if name:
            variables["CNI_ARGS"] = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}"
        args = (f"{self.host.bin_dir}/cnitool", verb, network, netns, "--container-id", pod)
        done = self.host.run(*args, env=variables)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def cnitool(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.host.run(*CNITOOL, *args, check=check)

    def show(self, *args: str) -> Any:
        """Return the output of `show --json`, which must print nothing else."""
        done = self.cnitool("show", "--json", "--seconds", "0", *args)
        assert done.stderr == ""
        return json.loads(done.stdout)
