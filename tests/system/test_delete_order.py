"""bridge's DEL frees the address last: while a rule or the link is left, it stays leased, and DEL reports it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretend import PATH, Answer
from tests.system.chain_node import BRIDGE, Node

BROKEN = "/run/broken"
KEYS: dict[str, dict[str, Any]] = {
    "iptables": {"ipMasq": True, "ipMasqBackend": "iptables"},
    "nftables": {"ipMasq": True},
    "macspoofchk": {"macspoofchk": True},
    "promiscMode": {"promiscMode": True},
    "link": {},
}


def leases(node: Node) -> set[str]:
    return {path.rpartition("/")[2] for path in node.left()[2] if "/networks/net/" in path}


def failing_iptables(node: Node) -> dict[str, str]:
    """Return an environment in which iptables-restore fails."""
    script = "mkdir -p {0}; for six in '' 6; do printf '#!/bin/sh\\necho no such luck >&2\\nexit 3\\n' >{0}/ip${{six}}tables{1}-restore; done; chmod +x {0}/*"
    for variant in ("", "-nft", "-legacy"):
        node.host.run("sh", "-ec", script.format(BROKEN, variant))
    return {"PATH": f"{BROKEN}:{PATH}"}


def injecting(kind: str, call: str = "sendto") -> tuple[str, ...]:
    """Return a tracer with which the kernel refuses messages from the n-th on."""
    return (
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error=EPERM:when={kind}",
    )


def delete(node: Node, keys: dict[str, Any], **how: Any) -> Answer:
    config = {"cniVersion": "1.1.0", "name": "net", **BRIDGE, **keys}
    return node.host.cni("bridge", "DEL", config, container_id="a", **{"netns": "/run/netns/a", **how})


@pytest.mark.parametrize("state", ["whole", "netns gone", "netns empty"])
@pytest.mark.parametrize("is_configured", [True, False])
def test_iptables_that_fails(node: Node, state: str, is_configured: bool) -> None:
    """DEL deletes the link all the same; a repeated DEL with working iptables frees the address."""
    before = node.left()
    node.up("a", [{**BRIDGE, **KEYS["iptables"]}])
    leased, rules = leases(node), node.iptables()
    assert len(leased) == 2 and rules
    if state == "netns gone":
        node.kill("a")
    keys = KEYS["iptables"] if is_configured else {}
    how = {"netns": ""} if state == "netns empty" else {}
    for _ in range(2):
        failed = delete(node, keys, env=failing_iptables(node), **how)
        assert failed.code == 999 and "restore failed on table nat" in failed.json["msg"], failed
        assert "the address stays leased" in failed.json["details"] and "no such luck" in failed.json["details"]
        assert leases(node) == leased and node.iptables() == rules
        assert not [link for link in node.host.ip("link") if link["ifname"].startswith("veth")]
    done = delete(node, keys, **how)
    assert (done.status, done.stdout) == (0, "")
    assert node.left() == before


@pytest.mark.parametrize("key", KEYS)
def test_a_message_that_is_refused(node: Node, key: str) -> None:
    """The kernel refuses each message in turn: the lease stays while anything is left; a repeated DEL frees it."""
    refused = 0
    for number in range(1, 40):
        if not number % 2:
            node.host.run("true")
        node.up("a", [{**BRIDGE, **KEYS[key]}])
        answer = delete(node, KEYS[key], prefix=injecting(str(number)))
        left = node.left()
        is_left = len(left[0]) > 1 or left[3] or left[4]
        if is_left:
            assert answer.status == 1 and "the address stays leased" in answer.json["details"], (number, answer)
            assert len(leases(node)) == 2
            refused += 1
        if answer.status == 0:
            assert not leases(node) and not is_left
        done = delete(node, {})
        assert (done.status, done.stdout) == (0, ""), done
        left = node.left()
        assert len(left[0]) == 1 and not leases(node) and not left[3] and not left[4]
        if answer.status == 0 and number > 8:
            break
    assert refused > 0
    config = {"cniVersion": "1.1.0", "name": "net", **BRIDGE, "ipam": {}, "isDefaultGateway": False}
    node.host.netns("b")
    assert node.host.cni("bridge", "ADD", config, netns="/run/netns/b", container_id="b").status == 0
    failed = node.host.cni("bridge", "DEL", config, netns="/run/netns/b", container_id="b", prefix=injecting("2+"))
    assert failed.status == 1 and "leased" not in failed.stdout  # nothing was


def test_all_steps_are_tried(node: Node) -> None:
    """DEL removes the rules of nf_tables although iptables fails, and the details have every failure."""
    node.up("a", [{**BRIDGE, **KEYS["iptables"]}])
    node.host.run("rm", "-rf", "/var/lib/cni/networks")
    node.kill("a")
    node.up("a", [{**BRIDGE, **KEYS["iptables"], "macspoofchk": True, "promiscMode": True}])
    failed = delete(node, {}, env=failing_iptables(node))
    assert failed.status == 1 and node.left()[3] == set() and node.iptables()
    assert delete(node, {}).status == 0
    assert node.left()[2:] == (set(), set(), set())
