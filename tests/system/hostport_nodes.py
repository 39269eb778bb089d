"""Hosts for portmap's tests: one with mere results of pods, and one with pods and peers that send packets."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tests.node
from tests.pretend import PATH, Answer, PretendHost

PROBES = str(Path(__file__).with_name("probes.py"))
PROTOCOLS = ("tcp", "udp", "sctp")
HOST, HOST_6, OTHER, OTHER_6 = "192.0.2.1", "fd00:2::1", "192.0.2.2", "fd00:2::2"
OUT, OUT_6, GATEWAY, GATEWAY_6 = "192.0.2.9", "fd00:2::9", "10.1.0.1", "fd00:1::1"
LOCALHOST = "127.0.0.1"
ANY = "0.0.0.0"  # noqa: S104
REFUSED = "ConnectionRefusedError"


def ports(*pairs: Any, **keys: Any) -> dict[str, Any]:
    """Return the keys that map host ports to pod ports; a pair is (host port, pod port, protocol, host address)."""
    names = ("hostPort", "containerPort", "protocol", "hostIP")
    return {"runtimeConfig": {"portMappings": [dict(zip(names, pair, strict=False)) for pair in pairs]}, **keys}


ALL = ports(*((8080, 80, protocol) for protocol in PROTOCOLS))
TCP = ports((8080, 80, "tcp"))


def elements(host: PretendHost) -> dict[str, list[str]]:
    """Return the comments of the elements of each set and map of the suite's table that has any."""
    shown = json.loads(host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]
    found = {}
    for entry in shown:
        for thing in entry.values():
            held = thing.get("elem", []) if thing.get("table") == "pycni" else []
            if held:
                found[thing["name"]] = sorted((one if "elem" in one else one[0])["elem"]["comment"] for one in held)
    return found


def rules(host: PretendHost) -> str:
    return host.run("nft", "--stateless", "list", "ruleset").stdout


PROGRAMS = [f"ip{six}tables{variant}" for variant in ("-nft", "-legacy") for six in ("", "6")]


def of_pods(host: PretendHost) -> list[str]:
    """Return iptables' rules and chains that belong to containers."""
    lines = [line for program in PROGRAMS for line in host.run(f"{program}-save", "-t", "nat").stdout.splitlines()]
    return [line.removesuffix(" [0:0]") for line in lines if "CNI-DN-" in line]


def left(host: PretendHost) -> dict[str, list[str]]:
    """Return the elements, rules and chains that attachments have, of both backends."""
    by_iptables = of_pods(host)
    return {**elements(host), **({"iptables": by_iptables} if by_iptables else {})}


# The backends of portmap; "legacy" is the iptables backend on a host with the older iptables.
EITHER = pytest.mark.parametrize("backend", ["nftables", "iptables"], indirect=True)
EVERY = pytest.mark.parametrize("backend", ["nftables", "iptables", "legacy"], indirect=True)
BY_IPTABLES = pytest.mark.parametrize("backend", ["iptables", "legacy"], indirect=True)
LEGACY = "/run/legacy"


def prepare(host: PretendHost, backend: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keys and the environment with which a backend is called."""
    if backend != "legacy":
        return ({"backend": backend} if backend else {}), {}
    links = (
        f"ln -s $(command -v ip{six}tables-legacy{verb}) {LEGACY}/ip{six}tables{verb}"
        for six in ("", "6")
        for verb in ("", "-save", "-restore")
    )
    host.run("sh", "-ec", "; ".join([f"mkdir {LEGACY}", *links]))
    return {"backend": "iptables"}, {"env": {"PATH": f"{LEGACY}:{PATH}"}}


class Plain:
    """A host with one link and results of pods that no test needs to reach."""

    def __init__(self, host: PretendHost, backend: str = "") -> None:
        self.host = host
        self.keys, self.environment = prepare(host, backend)
        self.netns = host.netns("pod")
        host.run("sh", "-ec", "ip link add br0 up type bridge; ip addr add 10.1.0.1/24 dev br0; "
                              "ip addr add fd00:1::1/64 dev br0 nodad; ip addr add 192.0.2.1/32 dev br0")  # fmt: skip

    def config(self, keys: dict[str, Any], number: int = 5, ifname: str = "eth0") -> dict[str, Any]:
        previous = {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "br0"}, {"name": ifname, "sandbox": self.netns}],
            "ips": [{"address": GATEWAY + "/24", "interface": 0},
                    {"address": f"10.1.{number // 250}.{number % 250 + 1}/16", "interface": 1},
                    {"address": f"fd00:1::{number:x}/64", "interface": 1}],
        }  # fmt: skip
        return {"cniVersion": "1.1.0", "name": "net", "type": "portmap", "prevResult": previous, **self.keys, **keys}

    def call(self, verb: str, keys: dict[str, Any], name: str = "c1", number: int = 5, **more: Any) -> Answer:
        config = self.config(keys, number, more.get("ifname", "eth0"))
        more = {"netns": self.netns, "container_id": name, **self.environment, **more}
        return self.host.cni("portmap", verb, config, **more)

    def add(self, keys: dict[str, Any], name: str = "c1", number: int = 5, **more: Any) -> Any:
        answer = self.call("ADD", keys, name, number, **more)
        assert answer.status == 0, answer.stdout
        return answer.json

    def refused(self, keys: dict[str, Any], code: int, words: str, name: str = "c1", **more: Any) -> None:
        """Call an ADD that must fail and change nothing."""
        before = (rules(self.host), self.host.snapshot())
        answer = self.call("ADD", keys, name, **more)
        assert answer.code == code and words in answer.json["msg"] + answer.json.get("details", ""), answer.stdout
        assert (rules(self.host), self.host.snapshot()) == before

    def problems(self, keys: dict[str, Any], name: str = "c1", number: int = 5, **more: Any) -> str:
        answer = self.call("CHECK", keys, name, number, **more)
        return "" if answer.status == 0 else str(answer.json["details"])


class Node(tests.node.Node):
    """A host with a peer outside and two pods on a bridge; `far` is a host that routes to it."""

    def __init__(self, host: PretendHost, backend: str = "", **bridge: Any) -> None:
        self.keys, self.environment = prepare(host, backend)
        super().__init__(host, type="portmap", **self.keys)
        self.where = {"host": "", **{name: host.netns(name) for name in ("out", "far", "a", "b")}}
        lines = []
        for name, net in (("out", "2"), ("far", "3")):
            lines += [
                f"link add {name}0 type veth peer eth0 netns {name}", f"link set {name}0 up",
                *(f"addr add {address} dev {name}0 nodad" for address in (f"192.0.{net}.1/24", f"fd00:{net}::1/64")),
                f"-n {name} link set lo up", f"-n {name} link set eth0 up",
                *(f"-n {name} addr add {address} dev eth0 nodad" for address in (f"192.0.{net}.9/24", f"fd00:{net}::9/64")),
                *(f"-n {name} route add default via {address}" for address in (f"192.0.{net}.1", f"fd00:{net}::1")),
            ]  # fmt: skip
        # deprecated: answers use the address only if it was asked
        lines += [f"addr add {OTHER}/24 dev out0", f"addr add {OTHER_6}/64 dev out0 nodad preferred_lft 0"]
        host.run("sh", "-ec", "\n".join(f"ip {line}" for line in lines))
        # the kernel must report each closed port, without a limit
        host.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        config = {**tests.node.BRIDGE, "bridge": ..., "backend": ..., "isDefaultGateway": True, **bridge}
        for name in "ab":
            answer = super().call("ADD", name, config, **self.environment)
            assert answer.status == 0, answer.stdout
            self.results[name] = answer.json

    def call(self, verb: str, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> Answer:
        return super().call(verb, pod, {"prevResult": self.results[pod], **keys}, **{**self.environment, **more})

    def add(self, pod: str, keys: Mapping[str, Any] = {}, /, **more: Any) -> Any:
        previous = self.results[pod]
        assert super().add(pod, keys, **more) == previous
        return previous

    def probe(
        self, servers: list[tuple[str, str, int]], probes: list[tuple[Any, ...]], *, silence: bool = False
    ) -> list[Any]:
        """Return the answer to each (from, protocol, address, port[, own port]); servers are (pod, protocol, port)."""
        job = {
            "servers": [[self.where[pod], protocol, port, pod] for pod, protocol, port in servers],
            "probes": [[self.where[origin], *rest, *([] if len(rest) > 3 else [0])] for origin, *rest in probes],
            "silence": silence,
        }
        done = self.host.run(sys.executable, PROBES, input=json.dumps(job), env={"PATH": PATH}, timeout=120)
        return list(json.loads(done.stdout))
