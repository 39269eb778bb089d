"""A node with pods on a chain of plugins, and the process that repairs them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from shared.cni import repair
from tests.pretend import PATH, TREE, PretendHost, read_line

BRIDGE: dict[str, Any] = {
    "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True, "macspoofchk": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]},
}  # fmt: skip
PORTMAP: dict[str, Any] = {"type": "portmap"}
FIREWALL: dict[str, Any] = {"type": "firewall", "backend": "nftables"}
BANDWIDTH: dict[str, Any] = {
    "type": "bandwidth", "ingressRate": 10**9, "ingressBurst": 10**8, "egressRate": 10**9, "egressBurst": 10**8,
}  # fmt: skip
TUNING: dict[str, Any] = {"type": "tuning", "txQLen": 500, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}
CHAIN = (BRIDGE, PORTMAP, FIREWALL, BANDWIDTH, TUNING)


class Repairs:
    """The process that repairs attachments on a host."""

    def __init__(self, host: PretendHost, preparation: str = "pass") -> None:
        script = repair.SCRIPT.replace("main()", f"{preparation}; main()")
        self.process = host.popen(sys.executable, "-IS", "-c", script, TREE, env={"PATH": PATH}, stderr=None)

    def ask(self, request: dict[str, Any]) -> Any:
        """Return the answer to a request."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(read_line(self.process))


class Node:
    """A host with pods on a chain. A pod's container id is the name of its namespace."""

    def __init__(self, host: PretendHost, *chain: dict[str, Any]) -> None:
        self.host = host
        self.chain = chain or CHAIN
        self.results: dict[str, Any] = {}
        self.ports: dict[str, int] = {}

    def keys(self, pod: str, plugin: dict[str, Any]) -> dict[str, Any]:
        """Return a plugin's configuration for a pod; a pod's host port leads to its port 80."""
        own = {"cniVersion": "1.1.0", "name": "net", **plugin}
        if plugin["type"] == "portmap":
            number = self.ports.setdefault(pod, 8000 + len(self.ports))
            mapping = {"hostPort": number, "containerPort": 80, "protocol": "tcp"}
            own["runtimeConfig"] = {"portMappings": [mapping]}
        return own

    def add(self, pod: str) -> Any:
        """Attach a new pod to the whole chain; return the result."""
        self.host.netns(pod)
        result: dict[str, Any] = {}
        for plugin in self.chain:
            keys = self.keys(pod, plugin) | result
            answer = self.host.cni(plugin["type"], "ADD", keys, netns=f"/run/netns/{pod}", container_id=pod)
            assert answer.status == 0, (plugin["type"], answer.stdout, answer.stderr)
            result = {"prevResult": answer.json}
        self.results[pod] = result
        return result["prevResult"]

    def each(self, verb: str, pod: str) -> list[str]:
        """Call DEL, or CHECK, of the whole chain; return the texts of its errors."""
        found = []
        for plugin in self.chain if verb == "CHECK" else reversed(self.chain):
            keys = self.keys(pod, plugin) | self.results[pod]
            answer = self.host.cni(plugin["type"], verb, keys, netns=f"/run/netns/{pod}", container_id=pod)
            if answer.status:
                found.append(str(answer.json.get("details") or answer.json["msg"]))
        return found

    def request(self, pod: str, plugin: dict[str, Any], **keys: Any) -> dict[str, Any]:
        """Return the request to repair a plugin's part of a pod's attachment."""
        environment = {
            "CNI_CONTAINERID": pod, "CNI_NETNS": f"/run/netns/{pod}", "CNI_IFNAME": "eth0",
            "CNI_PATH": self.host.bin_dir,
        }  # fmt: skip
        config = self.keys(pod, plugin) | self.results[pod] | keys
        return {"plugin": plugin["type"], "environment": environment, "config": config}

    def repair(self, repairs: Repairs, pods: Sequence[str] = ()) -> list[str]:
        """Repair pods, by default all; return the texts of the things made, and of errors."""
        texts: list[str] = []
        for pod in pods or self.results:
            for plugin in self.chain:
                answer = repairs.ask(self.request(pod, plugin))
                texts += answer["repaired"] + ([json.dumps(answer)] if "error" in answer else [])
        return texts
