"""A node on which chains of plugins are called, and all state of its pods."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import tests.node

Plugin = dict[str, Any]
BRIDGE: Plugin = {
    "type": "bridge", "bridge": "cni0", "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}  # fmt: skip
PORTMAP: Plugin = {
    "type": "portmap",
    "runtimeConfig": {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8081, "containerPort": 81, "protocol": "udp"},
        ]
    },
}
FIREWALL: Plugin = {"type": "firewall", "backend": "nftables"}


class Node(tests.node.Node):
    """A pretend host with chains of plugins."""

    def up(self, pod: str, plugins: Sequence[Plugin], **keys: Any) -> None:
        """Call ADD of each plugin with the previous one's result; keep the last."""
        previous: dict[str, Any] = {}
        for plugin in plugins:
            previous = {"prevResult": self.add(pod, plugin, **previous, **keys)}

    def down(self, pod: str, plugins: Sequence[Plugin], **keys: Any) -> None:
        """Call DEL of each plugin, the last first."""
        for plugin in reversed(plugins):
            self.delete(pod, plugin, **keys)

    def collect_chain(self, plugins: Sequence[Plugin], **keys: Any) -> None:
        """Call GC of each plugin with no valid attachment."""
        for plugin in plugins:
            self.collect(**plugin, **keys)

    def lose(self, pod: str) -> None:
        """Delete a pod's namespace and all leases, without DEL."""
        self.kill(pod)
        self.host.run("rm", "-rf", "/var/lib/cni/networks")

    def elements(self) -> set[str]:
        """Return the elements of all sets and maps, without the namespace numbers that differ between runs."""
        found = set()
        for entry in json.loads(self.host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]:
            for one in (entry[kind] for kind in ("set", "map") if kind in entry):
                found |= {
                    re.sub(r"\d+:\d+ /", "/", f"{one['name']} {json.dumps(element)}") for element in one.get("elem", [])
                }
        return found

    def iptables(self) -> set[str]:
        """Return the pods' rules and chains in iptables."""
        found = set()
        for six in ("", "6"):
            for table in ("nat", "filter"):
                text = self.host.run(f"ip{six}tables-save", "-t", table).stdout
                found |= {f"{six} {line.partition(' [')[0]}" for line in text.splitlines()
                          if re.search(r"CNI-(DN-)?[0-9a-f]{10}|CNI-FORWARD -[sd]", line)}  # fmt: skip
        return found

    def left(self) -> tuple[Any, ...]:
        """Return all state of pods on the host."""
        links = {
            (link["ifname"], link.get("address"))
            for link in self.host.ip("link")
            if not link["ifname"].startswith("cni")
        }
        qdiscs = {one["kind"] for one in json.loads(self.host.run("tc", "-j", "qdisc").stdout)} & {"tbf", "ingress"}
        files = {
            path for path in self.host.snapshot()["files"] if not re.search(r"/(lock|boot|last_reserved_ip\.\d)$", path)
        }
        return links, qdiscs, files, self.elements(), self.iptables()
