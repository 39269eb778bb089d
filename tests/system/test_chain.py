"""The usual chain, bridge (ipMasq) + portmap + firewall + bandwidth + tuning, on a host without other programs."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.pretend import Answer, PretendHost
from tests.system import hostport_nodes
from tests.system.hostport_nodes import HOST, HOST_6, OUT, OUT_6

NO_PROGRAMS = "/nonexistent"
RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
CHAIN: list[dict[str, Any]] = [
    {"type": "bridge", "isDefaultGateway": True, "ipMasq": True, "macspoofchk": True,
     "ipam": {"type": "host-local", "ranges": RANGES}},
    {"type": "portmap"},
    {"type": "firewall", "ingressPolicy": "same-bridge"},
    {"type": "bandwidth", "ingressRate": 10**9, "ingressBurst": 10**8, "egressRate": 10**9, "egressBurst": 10**8},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
]  # fmt: skip
TRACE = (
    "/usr/bin/strace",
    "-f",
    "-qq",
    "-o",
    "/run/trace",
    "-e",
    "trace=execve,fork,vfork,clone,clone3",
    "-e",
    "status=successful",
)


class Node(hostport_nodes.Node):
    """hostport_nodes' node, with pods on the whole chain."""

    def __init__(self, host: PretendHost) -> None:
        super().__init__(host)
        for pod in "ab":
            config = {
                "cniVersion": "1.1.0",
                "name": "net",
                "type": "bridge",
                "ipam": {"type": "host-local", "ranges": RANGES},
            }
            assert host.cni("bridge", "DEL", config, netns=self.where[pod], container_id=pod).status == 0
        self.results = {}

    def one(self, verb: str, pod: str, plugin: dict[str, Any], **more: Any) -> Answer:
        """Call a verb of a plugin; it must succeed and execute nothing."""
        keys = dict(plugin)
        if plugin["type"] == "portmap":
            mapping = {"hostPort": 8080 + ord(pod), "containerPort": 80, "protocol": "tcp"}
            keys["runtimeConfig"] = {"portMappings": [mapping]}
        config = {"cniVersion": "1.1.0", "name": "net", **keys, **more}
        answer = self.host.cni(
            plugin["type"],
            verb,
            config,
            netns=self.where[pod],
            container_id=pod,
            env={"PATH": NO_PROGRAMS},
            prefix=TRACE,
        )
        assert answer.status == 0, answer.stdout
        calls = re.findall(r"^\d+ +(\w+)", self.host.run("cat", "/run/trace").stdout, re.MULTILINE)
        # the kernel's waits for deleted objects are a child's: for links, and for rules deleted after them
        assert calls[0] == "execve" and len(calls) <= {"DEL": 2, "GC": 3}.get(verb, 1), (verb, plugin["type"], calls)
        assert set(calls[1:]) <= {"clone"}, (verb, plugin["type"], calls)
        return answer

    def up(self, pod: str) -> None:
        result = None
        for plugin in CHAIN:
            result = self.one("ADD", pod, plugin, **({"prevResult": result} if result else {})).json
        self.results[pod] = result

    def down(self, pod: str, **more: Any) -> None:
        for plugin in reversed(CHAIN):
            self.one("DEL", pod, plugin, **more)

    def left(self) -> tuple[Any, ...]:
        """Return links, elements of nf_tables' sets and maps, and the files of leases and records."""
        shown = json.loads(self.host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]
        held = [thing["name"] for entry in shown for thing in entry.values() if thing.get("elem")]
        files = [
            path for path in self.host.snapshot()["files"] if not re.search(r"/(lock|last_reserved_ip\.\d)$", path)
        ]
        return sorted(link["ifname"] for link in self.host.ip("link")), held, files


def test_without_iptables_and_nft(node: Node) -> None:
    before = node.left()
    for pod in "ab":
        node.up(pod)
    for pod in "ab":
        for plugin in CHAIN:
            node.one("CHECK", pod, plugin, prevResult=node.results[pod])
    for plugin in CHAIN:
        node.one("STATUS", "a", plugin)
    port = {pod: 8080 + ord(pod) for pod in "ab"}
    servers = [("a", "tcp", 80), ("b", "tcp", 80), ("out", "tcp", 7)]
    flows = [(origin, "tcp", address, port[pod]) for pod in "ab" for address in (HOST, HOST_6)
             for origin in ("out", "host", "a", "b") if origin != pod]  # fmt: skip
    answers = node.probe(servers, flows)
    assert [answer[0] for answer in answers] == ["a"] * 6 + ["b"] * 6
    # clients from outside keep their addresses; outside, pods have the node's
    assert {answer[1] for answer, flow in zip(answers, flows, strict=True) if flow[0] == "out"} == {OUT, OUT_6}
    assert [answer[1] for answer in node.probe(servers, [("a", "tcp", OUT, 7), ("a", "tcp", OUT_6, 7)])] == [
        HOST,
        HOST_6,
    ]
    qdiscs = [one["kind"] for one in json.loads(node.host.run("tc", "-j", "qdisc").stdout)]
    assert (qdiscs.count("tbf"), qdiscs.count("ingress")) == (4, 2)
    assert node.host.run("ip", "netns", "exec", "a", "sysctl", "-n", "net.ipv4.conf.eth0.arp_filter").stdout == "1\n"

    node.down("a", prevResult=node.results["a"])
    refused = node.probe(servers, [("out", "tcp", HOST, port["a"]), ("out", "tcp", HOST, port["b"])])
    assert refused[0] == "ConnectionRefusedError" and refused[1][0] == "b"
    node.host.drop_netns("b")
    for plugin in CHAIN:
        node.one("GC", "b", plugin, **{"cni.dev/valid-attachments": []})
    node.down("b")
    assert node.left() == before


def test_a_chain_that_fails_at_its_end(node: Node) -> None:
    """DEL of all plugins, without a result or namespace, leaves nothing."""
    before = node.left()
    node.up("a")
    assert all(now != then for now, then in zip(node.left(), before, strict=True))
    node.host.drop_netns("a")
    for _ in range(2):
        node.down("a")
    assert node.left() == before
