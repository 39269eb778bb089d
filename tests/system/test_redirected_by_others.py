"""portmap masquerades the connections that it redirected itself, and leaves those of other tables as they are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretend import PretendHost
from tests.system.hostport_nodes import EITHER, GATEWAY, GATEWAY_6, HOST, HOST_6, OUT, OUT_6, TCP, Node, ports

VIRTUAL, VIRTUAL_6 = "203.0.113.7", "fd00:7::7"  # a service's addresses, which no link has
FAR = "192.0.3.9"
EARLIER, LATER = -110, -90  # than the plugin's own chains
SERVERS = [("a", "tcp", 80), ("b", "tcp", 80)]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def node(host: PretendHost, backend: str) -> Node:
    return Node(host, backend)


def address(node: Node, pod: str, version: int) -> str:
    return str(node.results[pod]["ips"][0 if version == 4 else 1]["address"].partition("/")[0])


def redirect(node: Node, pod: str, *places: tuple[str, int], priority: int = LATER, more: str = "") -> None:
    """Create a stranger's table that redirects addresses with ports to port 80 of a pod."""
    rules = "\n".join(
        f"{'ip6' if ':' in place else 'ip'} daddr {place} tcp dport {port} "
        + (f"dnat ip6 to [{address(node, pod, 6)}]:80" if ":" in place else f"dnat ip to {address(node, pod, 4)}:80")
        for place, port in places
    )
    chains = "\n".join(
        f"chain {hook} {{ type nat hook {hook} priority {priority}\n{rules}\n}}" for hook in ("prerouting", "output")
    )
    node.host.run("nft", "-f", "-", input=f"table inet stranger {{\n{chains}\n{more}\n}}")


@EITHER
@pytest.mark.row("source-address")
@pytest.mark.parametrize("priority", [EARLIER, LATER])
@pytest.mark.parametrize("masq_all", [True, False])
def test_a_strangers_services_keep_their_clients_addresses(node: Node, masq_all: bool, priority: int) -> None:
    """A virtual address has the numbers of the host port, and a port of the node; only the host port is masqueraded."""
    node.add("a", {**TCP, "masqAll": masq_all})
    redirect(node, "a", (VIRTUAL, 8080), (VIRTUAL_6, 8080), (HOST, 9090), (HOST_6, 9090), priority=priority)
    in_b, in_b6 = address(node, "b", 4), address(node, "b", 6)
    theirs: dict[tuple[Any, ...], str] = {
        (origin, "tcp", place, port): seen
        for origin, seen, seen_6 in (("out", OUT, OUT_6), ("far", FAR, "fd00:3::9"), ("b", in_b, in_b6))
        for place, port, seen in (
            (VIRTUAL, 8080, seen), (VIRTUAL_6, 8080, seen_6), (HOST, 9090, seen), (HOST_6, 9090, seen_6),
        )
    }  # fmt: skip
    own: dict[tuple[Any, ...], str] = {
        ("out", "tcp", HOST, 8080): GATEWAY if masq_all else OUT,
        ("out", "tcp", HOST_6, 8080): GATEWAY_6 if masq_all else OUT_6,
        ("b", "tcp", HOST, 8080): GATEWAY, ("b", "tcp", HOST_6, 8080): GATEWAY_6,
        ("host", "tcp", "127.0.0.1", 8080): GATEWAY,
    }  # fmt: skip
    expected = {**theirs, **own}
    probes = list(expected)
    assert dict(zip(probes, node.probe(SERVERS, probes), strict=True)) == {
        probe: ["a", seen] for probe, seen in expected.items()
    }


@EITHER
@pytest.mark.row("source-address")
def test_a_strangers_redirection_of_the_host_port_itself(node: Node) -> None:
    """It comes first: the connection is the stranger's, although port, pod and address equal the mapping's."""
    node.add("a", {**TCP, "masqAll": True})
    redirect(node, "a", (HOST, 8080), (HOST_6, 8080), priority=EARLIER)
    probes = [("out", "tcp", HOST, 8080), ("out", "tcp", HOST_6, 8080)]
    assert node.probe(SERVERS, probes) == [["a", OUT], ["a", OUT_6]]
    node.host.run("nft", "delete table inet stranger")
    assert node.probe(SERVERS, probes) == [["a", GATEWAY], ["a", GATEWAY_6]]


@EITHER
@pytest.mark.row("source-address")
@pytest.mark.parametrize("conditions", [["-s", OUT], ["!", "-s", FAR]])
def test_a_stranger_redirects_what_does_not_meet_the_conditions(node: Node, conditions: list[str]) -> None:
    node.add("a", {**ports((8080, 80), (8080, 80, "tcp", HOST)), "masqAll": True, "conditionsV4": conditions})
    redirect(node, "a", (HOST, 8080))
    probes = [("out", "tcp", HOST, 8080), ("far", "tcp", HOST, 8080)]
    assert node.probe(SERVERS, probes) == [["a", GATEWAY], ["a", FAR]]


MARKS = """
chain theirs { type filter hook prerouting priority -150
    meta mark set 0x2000
    ct mark set 0x2000
}
set changed { type mark . mark; flags dynamic; size 100; }
chain seen { type filter hook postrouting priority 300
    oifname "cni0" meta mark != 0x2000 add @changed { meta mark . ct mark }
    oifname "cni0" ct mark != 0x2000 add @changed { meta mark . ct mark }
}
"""


@pytest.mark.parametrize("backend", ["nftables"], indirect=True)
@pytest.mark.row("source-address")
def test_marks_are_others(node: Node) -> None:
    """Marks of packets and connections decide nothing here, and stay as they are."""
    node.add("a", {**TCP, "masqAll": True})
    redirect(node, "a", (VIRTUAL, 8080), more=MARKS)
    probes = [("out", "tcp", VIRTUAL, 8080), ("out", "tcp", HOST, 8080), ("b", "tcp", HOST, 8080)]
    assert node.probe(SERVERS, probes) == [["a", OUT], ["a", GATEWAY], ["a", GATEWAY]]
    assert "elements" not in node.host.run("nft", "list", "set", "inet", "stranger", "changed").stdout


@pytest.mark.parametrize("backend", ["nftables"], indirect=True)
def test_chains_of_conditions_from_the_release_before(node: Node) -> None:
    """Their rules name no label: a pod that has them is masqueraded as before."""
    node.add("a", {**TCP, "masqAll": True, "conditionsV4": ["-s", OUT], "conditionsV6": ["-s", OUT_6]})
    listed = node.host.run("nft", "--stateless", "list", "ruleset").stdout
    chains = [part for part in listed.split("chain ")[1:] if part.startswith("hostport-")]
    assert chains and not any("label" in chain for chain in chains)
    probes = [("out", "tcp", HOST, 8080), ("out", "tcp", HOST_6, 8080)]
    assert node.probe(SERVERS, probes) == [["a", GATEWAY], ["a", GATEWAY_6]]
