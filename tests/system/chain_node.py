"""A node on which chains of plugins are called, and all that pods have on it."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from shared.net.owner import Owner
from tests.pretend import Answer, PretendHost

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


class Node:
    """A pretend host with chains of plugins."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        self.results: dict[str, Any] = {}

    def call(self, verb: str, plugin: Plugin, pod: str, name: str = "net", **keys: Any) -> Answer:
        config = {"cniVersion": "1.1.0", "name": name, **plugin, **keys}
        return self.host.cni(plugin["type"], verb, config, netns=f"/run/netns/{pod}" if pod else "", container_id=pod)

    def up(self, pod: str, plugins: list[Plugin], name: str = "net", *, netns: bool = True) -> None:
        if netns:
            self.host.netns(pod)
        previous: dict[str, Any] = {}
        for plugin in plugins:
            answer = self.call("ADD", plugin, pod, name, **previous)
            assert answer.status == 0, answer.stdout
            previous = {"prevResult": answer.json}
        self.results[pod] = previous["prevResult"]

    def down(self, pod: str, plugins: list[Plugin], name: str = "net", **keys: Any) -> None:
        for plugin in reversed(plugins):
            answer = self.call("DEL", plugin, pod, name, **keys)
            assert (answer.status, answer.stdout) == (0, ""), answer

    def collect(self, plugins: list[Plugin], name: str = "net") -> None:
        for plugin in plugins:
            answer = self.call("GC", plugin, "", name, **{"cni.dev/valid-attachments": []})
            assert (answer.status, answer.stdout) == (0, ""), answer

    def drop(self, pod: str) -> None:
        """The namespace goes, with the veth pair."""
        self.host.drop_netns(pod)
        link = Owner("net", pod, "eth0").host_link
        for _ in range(500):  # the kernel takes it away at its own time
            if not [one for one in self.host.ip("link") if one["ifname"] == link]:
                break
            time.sleep(0.01)

    def lose(self, pod: str) -> None:
        """The same, and what was leased, and nobody calls DEL."""
        self.drop(pod)
        self.host.run("rm", "-rf", "/var/lib/cni/networks")

    def addresses(self, pod: str) -> list[str]:
        return [ip["address"].partition("/")[0] for ip in self.results[pod]["ips"]]

    def elements(self) -> set[str]:
        """What sets and maps hold, without what differs between namespaces."""
        found = set()
        for entry in json.loads(self.host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]:
            for one in (entry[kind] for kind in ("set", "map") if kind in entry):
                found |= {
                    re.sub(r"\d+:\d+ /", "/", f"{one['name']} {json.dumps(element)}") for element in one.get("elem", [])
                }
        return found

    def iptables(self) -> set[str]:
        """Pods' rules and chains."""
        found = set()
        for six in ("", "6"):
            for table in ("nat", "filter"):
                text = self.host.run(f"ip{six}tables-save", "-t", table).stdout
                found |= {f"{six} {line.partition(' [')[0]}" for line in text.splitlines()
                          if re.search(r"CNI-(DN-)?[0-9a-f]{10}|CNI-FORWARD -[sd]", line)}  # fmt: skip
        return found

    def left(self) -> tuple[Any, ...]:
        """All that is a pod's, on the host."""
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
