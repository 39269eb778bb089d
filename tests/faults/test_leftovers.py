"""Rows 3, 7, 11, 15 and SIGTERM: a call that fails or is killed leaves nothing, at the latest after DEL; strangers' things stay."""

from __future__ import annotations

import random
import signal
import statistics
from typing import Any

import pytest

from shared.net.owner import Owner
from tests.faults import batch
from tests.faults.batch import Call, Outcome
from tests.pretend import PretendHost

NETWORK = "net"
STORE = f"/var/lib/cni/networks/{NETWORK}"
INDEX = f"/var/lib/cni/networks/.pycni/{NETWORK}"
BOOKKEEPING = ("/lock", "/last_reserved_ip.", "/.pycni/")  # host-local's own, which outlives a lease
TRIES = 60
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": NETWORK,
    "type": "bridge",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]},
}


def _ipam(**keys: Any) -> dict[str, Any]:
    return {**CONFIG, "ipam": {"type": "host-local", "subnet": "10.7.0.0/24", **keys}}


def _state(host: PretendHost, *pods: str) -> dict[str, Any]:
    state = host.snapshot(pods)
    state["files"] = {
        name: text for name, text in state["files"].items() if not any(part in name for part in BOOKKEEPING)
    }
    return state


HOST_LINK = Owner(NETWORK, "c1", "eth0").host_link
FULL_STORE = f"mkdir -p -m 700 {STORE}; for n in $(seq 2 6); do printf 'other\\r\\neth0' >{STORE}/10.7.0.$n; done"
# the failure: its cause, the configuration, the fitting codes
FAILURES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "ifname is taken": ("ip -n pod link add eth0 type bridge", CONFIG, (999,)),
    "host link's name is taken": (f"ip link add {HOST_LINK} type bridge", CONFIG, (999,)),
    "bridge is another link": ("ip link add br0 type veth peer name other", CONFIG, (999,)),
    "bridge has another address": ("ip link add br0 up type bridge; ip address add 192.0.2.1/24 dev br0", CONFIG, (999,)),
    "bridge has an overlapping IPv6 address": ("ip link add br0 up type bridge; ip address add fd00:7::99/48 dev br0", CONFIG, (999,)),
    "MTU that the kernel refuses": (":", {**CONFIG, "mtu": 10}, (7, 999)),
    "route by a gateway nobody reaches": (":", _ipam(routes=[{"dst": "192.0.2.0/24", "gw": "203.0.113.9"}]), (999,)),
    "no address is free": (FULL_STORE, _ipam(subnet="10.7.0.0/29"), (11,)),
    "second set is full": (FULL_STORE, _ipam(subnet="10.8.0.0/24", ranges=[[{"subnet": "10.7.0.0/29"}]]), (11,)),
    "address asked for is taken": (FULL_STORE, {**_ipam(), "args": {"cni": {"ips": ["10.7.0.3"]}}}, (11,)),
    "resolv.conf is missing": (":", _ipam(resolvConf="/does/not/exist"), (7,)),
    "store is a file": ("mkdir -p /var/lib/cni/networks; : >/var/lib/cni/networks/net", _ipam(), (5,)),
    "store is read-only": ("mount -o remount,ro /var/lib/cni", _ipam(), (5,)),
    "lock is a directory": (f"mkdir -p -m 700 {STORE}/lock", _ipam(), (5,)),
    "result has no place in the version": (":", {**{k: v for k, v in CONFIG.items() if k != "ipam"}, "cniVersion": "0.2.0"}, (1,)),
    "gateway has no place in the version": (":", {**CONFIG, "cniVersion": "0.2.0", "ipam": {"type": "host-local", "ranges": [
        [{"subnet": "10.7.0.0/24"}], [{"subnet": "10.8.0.0/24"}]]}}, (7,)),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.row(11)
def test_a_failed_add_leaves_nothing(host: PretendHost, what: str) -> None:
    preparation, config, codes = FAILURES[what]
    netns = host.netns("pod")
    host.run("sh", "-ec", preparation)
    before = _state(host, "pod")
    answer = host.cni("bridge", "ADD", config, netns=netns)
    assert answer.status == 1 and answer.code in codes, answer
    assert "unexpected" not in answer.json["msg"] and "could not" not in answer.stderr, answer
    assert _state(host, "pod") == before


# -- the host's own namespace


@pytest.mark.parametrize("plugin", ["bridge", "loopback"])
@pytest.mark.parametrize("path", ["/proc/1/ns/net", "/proc/self/ns/net", "/run/netns/host"])
@pytest.mark.row(7)
def test_nothing_is_touched_in_the_hosts_own_namespace(host: PretendHost, plugin: str, path: str) -> None:
    """ADD and CHECK refuse it. To DEL the pod is gone."""
    host.run("ip", "link", "add", "uplink", "up", "type", "veth", "peer", "name", "far")
    host.run("sh", "-ec", "mkdir -p /run/netns; : >/run/netns/host; mount --bind /proc/1/ns/net /run/netns/host")
    before = _state(host)
    for verb in ("ADD", "CHECK", "DEL"):
        for ifname in ("uplink", "lo", "new"):
            config = {
                **CONFIG,
                "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": ifname, "sandbox": path}]},
            }
            answer = host.cni(plugin, verb, config, netns=path, ifname=ifname)
            wanted = (0, None) if verb == "DEL" else (1, 8)
            assert (answer.status, answer.code) == wanted, (verb, ifname, answer)
    assert _state(host) == before


# -- ADD twice, two interfaces


@pytest.mark.row(15)
def test_add_twice(host: PretendHost) -> None:
    netns = host.netns("pod")
    first = host.cni("bridge", "ADD", CONFIG, netns=netns)
    assert first.status == 0, first
    before = host.snapshot(["pod"])
    second = host.cni("bridge", "ADD", CONFIG, netns=netns)
    assert second.status == 1 and second.code == 999, second
    assert "eth0" in second.json["msg"]
    assert host.snapshot(["pod"]) == before
    check = host.cni("bridge", "CHECK", {**CONFIG, "prevResult": first.json}, netns=netns)
    assert check.status == 0, check


@pytest.mark.row(15)
def test_add_again_in_another_namespace_leaves_the_first(host: PretendHost) -> None:
    """A runtime that lost track of the first pod calls with the same id and a new namespace."""
    netns, other = host.netns("pod"), host.netns("other")
    first = host.cni("bridge", "ADD", CONFIG, netns=netns)
    before = host.snapshot(["pod", "other"])
    assert host.cni("bridge", "ADD", CONFIG, netns=other).status == 1
    assert host.snapshot(["pod", "other"]) == before
    assert host.cni("bridge", "CHECK", {**CONFIG, "prevResult": first.json}, netns=netns).status == 0


@pytest.mark.row(15)
def test_del_of_one_of_two_interfaces(host: PretendHost) -> None:
    netns = host.netns("pod")
    config = _ipam()
    results = {
        ifname: host.cni("bridge", "ADD", config, netns=netns, ifname=ifname).json for ifname in ("eth0", "eth1")
    }
    assert host.cni("bridge", "DEL", config, netns=netns, ifname="eth0").status == 0
    check = host.cni("bridge", "CHECK", {**config, "prevResult": results["eth1"]}, netns=netns, ifname="eth1")
    assert check.status == 0, check
    assert [link["ifname"] for link in host.ip("link", netns="pod")] == ["lo", "eth1"]
    files = host.snapshot()["files"]
    assert [text for name, text in files.items() if name.startswith(f"{STORE}/10.")] == ["c1\r\neth1"]


# -- DEL with nothing to go by


@pytest.mark.parametrize("gone", ["namespace", "variable", "file left behind", "never there"])
@pytest.mark.row(3)
def test_del_with_nothing_to_go_by(host: PretendHost, gone: str) -> None:
    """DEL runs twice, without prevResult, the namespace gone or not named: nothing is left, and both succeed."""
    netns = host.netns("pod")
    host.netns("kept")
    assert host.cni("bridge", "ADD", CONFIG, netns="/run/netns/kept", container_id="kept").status == 0
    before = _state(host, "kept")
    if gone != "never there":
        assert host.cni("bridge", "ADD", CONFIG, netns=netns).status == 0
    if gone == "namespace":
        host.drop_netns("pod")
    elif gone == "file left behind":
        host.run("umount", netns)
    for _ in range(2):
        answer = host.cni("bridge", "DEL", CONFIG, netns="" if gone == "variable" else netns)
        assert (answer.status, answer.stdout) == (0, ""), answer
    assert _state(host, "kept") == before


@pytest.mark.row(3, "foreign-rules")
def test_del_of_a_reference_made_attachment_leaves_the_strangers(host: PretendHost) -> None:
    """DEL deletes nothing that ADD did not make, such as a link of the pod that has no end on this host."""
    netns = host.netns("pod")
    host.run("ip", "-n", "pod", "link", "add", "eth0", "type", "veth", "peer", "name", "inner")
    host.run("ip", "-n", "pod", "link", "add", "eth1", "type", "bridge")
    before = _state(host, "pod")
    for ifname in ("eth0", "eth1"):
        assert host.cni("bridge", "DEL", CONFIG, netns=netns, ifname=ifname).status == 0
    assert _state(host, "pod") == before


# -- signals


def _call(verb: str, number: int, death: tuple[int, float] | None = None, **env: str) -> Call:
    variables = {"CNI_CONTAINERID": f"c{number}", "CNI_IFNAME": f"eth{number}", **env}
    return Call("bridge", verb, CONFIG, variables, signal=death, observe=("/sys/class/net", STORE, INDEX))


def _warmed_up(host: PretendHost) -> float:
    """Make the bridge and the store. Return the seconds that an ADD takes."""
    batch.make_pods(host, 1)
    seconds = []
    for _ in range(5):
        added, deleted = batch.run(host, [_call("ADD", 999), _call("DEL", 999)], at_once=1)
        assert added.status == deleted.status == 0, (added, deleted)
        seconds.append(added.seconds)
    return statistics.median(seconds)


def _moments(seconds: float) -> list[float]:
    """Return moments all over a call, in no order; a bit beyond its end, too."""
    moments = [seconds * 1.3 * (number + random.random()) / TRIES for number in range(TRIES)]
    random.shuffle(moments)
    return moments


def _left(number: int, answer: Outcome) -> list[str]:
    """Return the remains of an attachment after a call: its host link and its index entry.

    Leases are counted at the end.
    """
    mine = (Owner(NETWORK, f"c{number}", f"eth{number}").host_link, f"c{number}:eth{number}")
    return [name for name in (*answer.seen["/sys/class/net"], *answer.seen[INDEX]) if name in mine]


@pytest.mark.row(11)
def test_terminated_add(host: PretendHost) -> None:
    """SIGTERM comes at 60 moments: an ADD that does not succeed leaves nothing; one that does is whole."""
    moments = _moments(_warmed_up(host))
    before = _state(host, "pod0")
    adds = batch.run(
        host, [_call("ADD", number, (signal.SIGTERM, moment)) for number, moment in enumerate(moments)], at_once=1
    )
    whole = [number for number, answer in enumerate(adds) if answer.status == 0]
    complaints = []
    for number, answer in enumerate(adds):
        left = _left(number, answer)
        if answer.status == 0 and len(left) != 2:
            complaints.append(f"{moments[number] * 1000:.1f} ms: succeeded, but there is only {left}")
        elif answer.status != 0 and left:
            complaints.append(f"{moments[number] * 1000:.1f} ms: left {left}: {answer}")
        elif answer.status not in (0, 1, -signal.SIGTERM) or (answer.status == 1 and answer.code != 999):
            complaints.append(f"{moments[number] * 1000:.1f} ms: {answer}")
        elif answer.status == -signal.SIGTERM and answer.stdout:
            complaints.append(f"{moments[number] * 1000:.1f} ms: answered and killed: {answer}")
    assert not complaints, "\n".join(complaints)
    leased = [
        text.split()[0]
        for name, text in host.snapshot()["files"].items()
        if name.startswith((f"{STORE}/10.", f"{STORE}/fd"))
    ]
    assert sorted(leased) == sorted(2 * [f"c{number}" for number in whole])
    assert len(whole) < TRIES
    checks = batch.run(
        host,
        [
            Call(
                "bridge",
                "CHECK",
                {**CONFIG, "prevResult": adds[number].json},
                {"CNI_CONTAINERID": f"c{number}", "CNI_IFNAME": f"eth{number}"},
            )
            for number in whole
        ],
        at_once=1,
    )
    # one pod has one default route, whichever of its many interfaces came first
    assert all(answer.status == 0 or "route to" in answer.json["details"] for answer in checks), checks
    dels = batch.run(host, [_call("DEL", number) for number in whole], at_once=1)
    assert {answer.status for answer in dels} <= {0}
    assert _state(host, "pod0") == before


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.row(1, 2, 3)
def test_killed_then_del(host: PretendHost, verb: str) -> None:
    """SIGKILL comes at 60 moments of ADD, or of DEL; then DEL runs twice.

    The namespace is there, its path is gone, or the call names none.
    """
    moments = _moments(_warmed_up(host))
    before = _state(host, "pod0")
    ends: tuple[dict[str, str], ...] = ({}, {"CNI_NETNS": "/run/netns/gone"}, {"CNI_NETNS": ""})
    calls = []
    for number, moment in enumerate(moments):
        if verb == "DEL":
            calls.append(_call("ADD", number))
        calls += [_call(verb, number, (signal.SIGKILL, moment))]
        calls += [_call("DEL", number, None, **ends[number % 3])] * 2
    answers = batch.run(host, calls, at_once=1)
    each = len(calls) // TRIES
    assert any(answer.status == -signal.SIGKILL for answer in answers)
    complaints = [
        f"{moments[place // each] * 1000:.1f} ms: {answer}"
        for place, answer in enumerate(answers)
        if place % each >= each - 2 and (answer.status != 0 or answer.stdout or _left(place // each, answer))
    ]
    assert not complaints, "\n".join(complaints)
    assert _state(host, "pod0") == before
