"""Many links: a bridge without room for ports, and garbage collection of hundreds at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.net.owner import Owner
from tests.node import Network, host_local
from tests.pretend import PretendHost

MOST_PORTS = 1023
STALE = 200


def links_of(host: PretendHost) -> set[str]:
    return {link["ifname"] for link in host.ip("link", "show")}


def fill(host: PretendHost, number: int, *, master: str = "cni0") -> None:
    """Make that many links ports of a new bridge."""
    ports = [f"link add p{n} type ifb\nlink set p{n} master {master}" for n in range(number)]
    commands = [f"link add {master} type bridge", f"link set {master} up", *ports]
    host.run("ip", "-batch", "-", input="\n".join(commands) + "\n", timeout=300)


def leave_behind(host: PretendHost, kind: str, network: str, number: int) -> set[str]:
    """Make host links as killed ADDs of a network leave them."""
    owners = [Owner(network, f"stale{n}", "eth0") for n in range(number)]
    names = [owner.host_link if kind == "veth" else owner.ifb for owner in owners]
    commands = []
    for place, (owner, name) in enumerate(zip(owners, names, strict=True)):
        peer = f" peer name {network}peer{place}" if kind == "veth" else ""
        commands += [f"link add {name} type {kind}{peer}", f"link set {name} alias {owner.alias}"]
    host.run("ip", "-batch", "-", input="\n".join(commands) + "\n", timeout=300)
    return set(names)


@pytest.mark.row(16)
def test_a_full_bridge(host: PretendHost) -> None:
    """ADD fails with code 11 and the number and leaves nothing; STATUS reports it. With one port less, ADD succeeds."""
    net = Network(host, isGateway=True, ipam=host_local("10.1.0.0/24"))
    fill(host, MOST_PORTS)
    status = net.call("STATUS", "a")
    assert status.code == 50 and "cni0 is full: it has 1023 ports" in status.json["msg"], status
    net.refused("a", 11, "bridge cni0 is full: it has 1023 ports, the most that Linux allows; delete pods")
    host.run("ip", "link", "del", "p0")
    assert net.call("STATUS", "a").status == 0
    net.add("a")
    assert net.pings("a", "10.1.0.1") and net.call("STATUS", "a").code == 50
    net.delete("a")
    assert net.call("STATUS", "a").status == 0


def test_uplinks_need_room(host: PretendHost) -> None:
    """Two uplinks and the pod's port need three places."""
    net = Network(host, uplinks=["up0", "up1"], ipam=...)
    fill(host, MOST_PORTS - 2)
    host.run("sh", "-ec", "for n in 0 1; do ip link add up$n type ifb; done")
    assert net.call("STATUS", "a").code == 50
    answer = net.call("ADD", "a")
    assert answer.code == 11 and "cni0 is full" in answer.json["msg"], answer
    assert not host.ip("link", "show", "type", "veth")
    host.run("ip", "link", "del", "p0")
    assert net.call("STATUS", "a").status == 0
    net.add("a")


@pytest.mark.row(16)
@pytest.mark.parametrize(("plugin", "kind"), [("bridge", "veth"), ("bandwidth", "ifb")])
def test_garbage_collection_deletes_all_at_once(host: PretendHost, plugin: str, kind: str) -> None:
    """One request deletes all, so the kernel waits for its readers once; links of other networks stay."""
    leave_behind(host, kind, "net", STALE)
    others = leave_behind(host, kind, "other", 2)
    before = links_of(host)
    valid = [{"containerID": "stale7", "ifname": "eth0"}]
    kept = Owner("net", "stale7", "eth0").host_link if kind == "veth" else Owner("net", "stale7", "eth0").ifb
    config = {"cniVersion": "1.1.0", "name": "net", "type": plugin, "cni.dev/valid-attachments": valid}
    prefix = ("strace", "-f", "-qq", "-v", "-s", "65536", "-o", "/run/trace", "-e", "trace=sendto,sendmsg")
    answer = host.cni(plugin, "GC", config, prefix=prefix)
    assert (answer.status, answer.stdout) == (0, ""), answer
    gone = before - links_of(host)
    assert kept not in gone and not others & gone
    assert len(gone) == (STALE - 1) * (2 if kind == "veth" else 1)
    assert host.run("cat", "/run/trace").stdout.count("nlmsg_type=RTM_DELLINK") == 1
    assert {link["ifname"] for link in host.ip("link", "show") if link["group"] != "default"} == set()


def test_garbage_collection_by_several_at_once(host: PretendHost) -> None:
    """Each may delete links that another has put into its group: no error, and nothing left."""
    config: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "cni.dev/valid-attachments": []}
    gc = f"CNI_COMMAND=GC CNI_PATH={host.bin_dir} {host.bin_dir}/bridge </run/config >>/run/said"
    delete = f"CNI_COMMAND=DEL CNI_CONTAINERID=stale$n CNI_IFNAME=eth0 CNI_PATH={host.bin_dir} {host.bin_dir}/bridge"
    (host.root / "run/config").write_text(json.dumps(config))
    for _ in range(3):
        leave_behind(host, "veth", "net", 60)
        dels = f"for n in $(seq 0 19); do {delete} </run/config >>/run/said || echo failed $n; done"
        done = host.run("sh", "-c", f"{{ {gc} || echo failed; }} & {{ {gc} || echo failed; }} & {dels}; wait")
        assert done.stdout == "" and (host.root / "run/said").read_text() == ""
        assert links_of(host) == {"lo"}
