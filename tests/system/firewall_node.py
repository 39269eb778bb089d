"""A node with pods behind this suite's bridge and a neighbour outside, for the tests of firewall's backends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import tests.node
from tests.pretend import Answer, PretendHost

CONFIG: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "firewall"}
OUTSIDE = """
ip netns add outside
ip link add uplink type veth peer name eth0 netns outside
ip address add 192.0.2.1/24 dev uplink
ip -6 address add fd00:99::1/64 dev uplink nodad
ip link set uplink up
ip -n outside link set lo up
ip -n outside address add 192.0.2.2/24 dev eth0
ip -n outside address add fd00:99::2/64 dev eth0 nodad
ip -n outside link set eth0 up
ip -n outside route add 10.0.0.0/8 via 192.0.2.1
ip -n outside route add fd00::/8 via fd00:99::1
"""
OUTSIDE_ADDRESSES = ("192.0.2.2", "fd00:99::2")
# Answers on every address, later ones included.
SERVER = """
import socket
server = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
print("ready", flush=True)
while True:
    client, _ = server.accept()
    client.close()
"""
# Prints the addresses that answer; a dropped connection times out.
CLIENT = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def answers(address):
    try:
        socket.create_connection((address, 7), timeout=3).close()
    except OSError:
        return ""
    return address
with ThreadPoolExecutor() as pool:
    print(*pool.map(answers, sys.argv[1:]))
"""


class Node(tests.node.Node):
    """A pretend host with a neighbour and pods; this suite's bridge attaches each to a bridge with its own network."""

    DEFAULTS = CONFIG

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        host.run("sh", "-ec", OUTSIDE)
        self.serve("outside")

    def serve(self, netns: str, script: str = SERVER, *args: str) -> Any:
        return super().serve(netns, script, *args)

    def pod(self, pod: str, bridge: int = 1) -> None:
        """Attach a pod by the bridge plugin."""
        ranges = [[{"subnet": f"10.{bridge}.0.0/24"}], [{"subnet": f"fd00:{bridge}::/64"}]]
        keys = {
            "cniVersion": "1.0.0", "name": f"bridge{bridge}", "bridge": f"cni{bridge}", "isDefaultGateway": True,
            "ipam": {"type": "host-local", "ranges": ranges},
        }  # fmt: skip
        answer = self.host.cni("bridge", "ADD", keys, netns=self.netns(pod), container_id=pod)
        assert answer.status == 0, answer
        self.results[pod] = answer.json
        self.serve(pod)

    def call(self, verb: str, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> Answer:
        previous = {"prevResult": self.results[pod]} if verb in ("ADD", "CHECK") else {}
        return super().call(verb, pod, {**previous, **keys}, **more)

    def add(self, pod: str, keys: Mapping[str, Any] = {}, /, *, bridge: int = 1, **more: Any) -> Any:
        if pod not in self.results:
            self.pod(pod, bridge)
        previous = self.results[pod]
        assert super().add(pod, keys, **more) == previous
        return previous

    def collect(self, *valid: str, **more: Any) -> None:
        super().collect(*valid, **{"cniVersion": "1.1.0", **more})

    def reaches(self, pod: str, other: str) -> list[int]:
        """Return the families, 4 and 6, in which a pod reaches another one or the neighbour."""
        wanted = OUTSIDE_ADDRESSES if other == "outside" else self.addresses(other)
        out = self.host.run("ip", "netns", "exec", pod, sys.executable, "-c", CLIENT, *wanted).stdout
        return [6 if ":" in address else 4 for address in out.split()]

    def elements(self) -> dict[str, int]:
        """Return the number of elements of each set and map in the suite's tables."""
        entries = json.loads(self.host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]
        found: dict[str, int] = {}
        for one in (entry[kind] for entry in entries for kind in ("set", "map") if kind in entry):
            found[one["name"]] = found.get(one["name"], 0) + len(one.get("elem", []))
        return {name: number for name, number in found.items() if number}

    def filter(self, family: str = "ip", variant: str = "") -> list[str]:
        """Return the rules and chains of iptables' table filter."""
        text = self.host.run(f"{family}tables{variant}-save", "-t", "filter").stdout
        lines = [line for line in text.splitlines() if line.startswith(("-A", ":"))]
        return [line.partition(" [")[0] if line.startswith(":") else line for line in lines]  # without counters

    def pod_rules(self) -> list[str]:
        lines = self.filter() + self.filter("ip6")
        return [line for line in lines if re.match("-A CNI-FORWARD -[sd] ", line)]

    def records(self) -> list[str]:
        directory = self.host.root / "run/cni/firewall"
        return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []

    def traced(self, command: str, pod: str, **keys: Any) -> list[str]:
        """Return the programs that a call executes; no directory in PATH has iptables or nft."""
        prefix = ("/usr/bin/strace", "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork,execve", "-e", "status=successful", "-o", "/run/trace")  # fmt: skip
        answer = self.call(command, pod, prefix=prefix, env={"PATH": "/none"}, **keys)
        assert answer.status == 0, answer
        return [line.split(maxsplit=1)[1] for line in self.host.run("cat", "/run/trace").stdout.splitlines()]
