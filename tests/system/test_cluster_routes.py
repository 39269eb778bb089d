"""Routes between the hosts of a cluster: by packets of pods, and by the kernel's tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import routes
from shared.cluster.model import Route
from shared.cluster.routes import METRIC
from shared.cluster.tunnel import NAMES, PROTOCOL, mac_of
from tests.fabric import silent_pods
from tests.network_probes import client_seen
from tests.pretend import PretendHost, until
from tests.system.cluster_hosts import APPLY, READ_ROUTES, Member, cluster, row

BRIDGE: dict[str, Any] = {
    "type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipMasq": True, "ipam": {"type": "host-local"},
}  # fmt: skip
PTP: dict[str, Any] = {
    "type": "ptp", "ipMasq": True, "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
}  # fmt: skip


@pytest.fixture
def members(installed: Path) -> Iterator[dict[str, Member]]:
    with cluster(installed) as found:
        yield found


@pytest.fixture
def lone(host: PretendHost) -> PretendHost:
    """Return a host with two links, on which nobody answers."""
    for number in (0, 1):
        host.run("ip", "link", "add", f"up{number}", "type", "veth", "peer", f"peer{number}")
        host.run("ip", "link", "set", f"peer{number}", "up")
        host.run("ip", "address", "add", f"192.0.{number}.1/24", "dev", f"up{number}")
        host.run("ip", "address", "add", f"2001:db8:{number}::1/64", "dev", f"up{number}", "nodad")
        host.run("ip", "link", "set", f"up{number}", "up")
    return host


def words(wanted: list[Route], **keys: Any) -> str:
    rows = list(map(row, wanted))
    end = {"mac": "02:00:00:00:00:01", "addresses": ["192.0.0.1", "2001:db8::1"], "sources": [], "vni": 1}
    return json.dumps({"routes": rows, **end, **keys})


def apply(host: PretendHost, wanted: list[Route]) -> list[str]:
    """Set the routes; return the CIDRs of the missing ones."""
    missing, problems, is_read_back = json.loads(host.python(APPLY, words(wanted)))
    assert is_read_back and not problems
    return list(missing)


def route(cidr: str, via: str, node: str = "b") -> Route:
    return Route(ip_network(cidr), node, ip_address(via), is_tunnelled=False)


def to_peer(number: int, net: int = 0) -> list[Route]:
    return [
        route(f"10.{number}.0.0/24", f"192.0.{net}.{number}"), route(f"fd00:{number}::/64", f"2001:db8:{net}::{number}"),
    ]  # fmt: skip


def refuse(one: Route) -> Route:
    return replace(one, via=one.cidr.network_address, is_refused=True)


def table(host: PretendHost) -> list[str]:
    """Return the routes of the main table that no kernel made, as ip prints them."""
    both = host.run("sh", "-c", "ip -o -4 route; ip -o -6 route").stdout.splitlines()
    return sorted(" ".join(line.replace("pref medium", "").split()) for line in both if "proto kernel" not in line)


def line(one: Route, link: str = "up0") -> str:
    return f"{one.cidr} via {one.via} dev {link} proto {PROTOCOL} metric {METRIC} onlink"


@pytest.mark.parametrize("plugin", [BRIDGE, PTP], ids=["bridge", "ptp"])
def test_every_pod_reaches_every_pod(members: dict[str, Member], tmp_path: Path, plugin: dict[str, Any]) -> None:
    """By both families, from hosts of one link; their addresses stay if the network masquerades."""
    a, b = members["a"], members["b"]
    # a's first blocks have room for one pod each
    a.cidrs = [ip_network(one) for one in ("10.244.0.0/30", "fd00:244::/126", "10.244.9.0/24", "fd00:244:0:9::/64")]
    for one in (a, b):
        assert one.publish(plugin, tmp_path)
    assert a.apply(b.routes()) == b.apply(a.routes()) == ([], [])
    a.add("a1")
    assert ip_address(a.add("a2")[0]) in a.cidrs[2]
    b.add("b1")
    assert silent_pods([a, b]) == []
    assert b.silent("", a.pods["a1"] + a.pods["a2"]) == []
    assert [client_seen(b.netns("b1"), one, a.netns("a2")) for one in b.pods["b1"]] == a.pods["a2"]


def test_only_differences_are_written(lone: PretendHost) -> None:
    wanted = [*to_peer(2), *to_peer(3), *to_peer(4, net=1)]
    assert apply(lone, wanted) == []
    lines = sorted([*map(line, wanted[:4]), *(line(one, "up1") for one in wanted[4:])])
    assert table(lone) == lines
    with monitor(lone) as changes:
        assert apply(lone, wanted) == []
    assert changes == []


def test_a_peer_that_leaves_takes_its_routes_alone(lone: PretendHost) -> None:
    lone.run("ip", "route", "add", "10.9.0.0/24", "via", "192.0.0.9", "proto", "bird", "metric", str(METRIC))
    lone.run("ip", "route", "add", "fd00:9::/64", "via", "2001:db8::9", "metric", str(METRIC))
    apply(lone, [*to_peer(2), *to_peer(3)])
    before = table(lone)
    apply(lone, to_peer(3))
    assert table(lone) == sorted(set(before) - set(map(line, to_peer(2))))
    apply(lone, [])
    assert table(lone) == sorted(set(before) - set(map(line, to_peer(2) + to_peer(3))))


def test_refused_cidrs_come_and_go(lone: PretendHost) -> None:
    """One of a pool, and one in place of a route; a stranger's refusal and its route stay."""
    stranger = [["unreachable", "10.9.0.0/24"], ["unreachable", "fd00:9::/64"], ["10.8.0.0/24", "via", "192.0.0.9"]]
    for words in stranger:
        lone.run("ip", "route", "add", *words, "metric", str(METRIC))
    before = table(lone)
    refused = [refuse(route(cidr, "::")) for cidr in ("10.0.0.0/8", "fd00::/16")] + list(map(refuse, to_peer(2)))
    ping = "ping -n -c1 -W5 {} 2>&1".format
    for wanted in (to_peer(2) + refused[:2], refused, to_peer(2) + refused[:2], refused):
        assert apply(lone, wanted) == []
        clear = [one for one in wanted if not one.is_refused]
        assert [one for one in table(lone) if one not in before and "unreachable" not in one] == list(map(line, clear))
        found = [one for one in table(lone) if one not in before and "unreachable" in one]
        assert [one.split()[1] for one in found] == sorted(str(one.cidr) for one in wanted if one.is_refused)
        for address in ("10.7.7.7", "fd00:7::7"):
            out = lone.run("sh", "-c", ping(address), check=False).stdout.lower()
            assert "no route to host" in out or "unreachable" in out
    apply(lone, [])
    assert table(lone) == before


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_kill_between_a_refusal_and_its_route(lone: PretendHost, is_refused: bool) -> None:
    """Both are there. The one that is not wanted goes."""
    own = to_peer(2)
    apply(lone, own)
    for one in own:
        version = f"-{one.cidr.version}"
        lone.run("ip", version, "route", "append", "unreachable", str(one.cidr), "proto", str(PROTOCOL), "metric", str(METRIC))  # fmt: skip
    assert len(table(lone)) == 4
    assert apply(lone, list(map(refuse, own)) if is_refused else own) == []
    assert [one.split()[0] for one in table(lone)] == (
        ["unreachable"] * 2 if is_refused else [str(o.cidr) for o in own]
    )


@pytest.mark.parametrize("metric", ["", str(METRIC)])
def test_a_strangers_route_to_the_same_cidr_stays(lone: PretendHost, metric: str) -> None:
    extra = ("metric", metric) if metric else ()
    lone.run("ip", "route", "add", "10.2.0.0/24", "via", "192.0.0.9", *extra)
    lone.run("ip", "route", "add", "fd00:2::/64", "via", "2001:db8::9", *extra)
    strangers = table(lone)
    for wanted in (to_peer(2), [replace(one, via=one.via + 10) for one in to_peer(2)], []):
        missing = apply(lone, wanted)
        assert missing == ([str(one.cidr) for one in wanted] if metric else [])
        own = [] if metric else [line(one) for one in wanted]
        assert table(lone) == sorted(strangers + own)
    apply(lone, to_peer(2))
    lone.run("ip", "route", "flush", "proto", "boot")
    lone.run("ip", "-6", "route", "flush", "proto", "boot")
    assert apply(lone, to_peer(2)) == []
    assert table(lone) == sorted(map(line, to_peer(2)))


@contextmanager
def monitor(host: PretendHost) -> Iterator[list[str]]:
    """Have a list that has the kernel's changes of routes at the end, as ip prints them."""
    path = host.root / "run/monitor"

    def mark(address: str) -> None:
        host.run("ip", "route", "add", address, "dev", "up0")
        host.run("ip", "route", "del", address)

    def has(address: str) -> bool:
        return path.exists() and f"Deleted {address}" in path.read_text()

    host.popen("sh", "-c", "exec stdbuf -oL ip -o monitor route >/run/monitor")
    until(lambda: has("198.51.100.1"), lambda: mark("198.51.100.1"))
    found: list[str] = []
    before = len(path.read_text().splitlines())
    yield found
    mark("198.51.100.2")
    until(lambda: has("198.51.100.2"))
    found += [one for one in path.read_text().splitlines()[before:] if "198.51.100" not in one]


def test_a_new_next_hop_comes_before_the_old_one_goes(lone: PretendHost) -> None:
    apply(lone, to_peer(2))
    moved = [replace(one, via=one.via + 10) for one in to_peer(2)]
    with monitor(lone) as changes:
        assert apply(lone, moved) == []
    assert table(lone) == sorted(map(line, moved))
    for cidr in (str(one.cidr) for one in moved):
        (new,) = (place for place, text in enumerate(changes) if text.startswith(f"{cidr} "))
        (old,) = (place for place, text in enumerate(changes) if text.startswith(f"Deleted {cidr} "))
        assert new < old


def test_a_peer_without_a_link_keeps_nobody_waiting(lone: PretendHost) -> None:
    wanted = [*to_peer(2), *to_peer(3, net=1), *to_peer(4, net=7)]
    gone = ["10.4.0.0/24", "fd00:4::/64"]
    assert apply(lone, wanted) == gone
    lone.run("ip", "link", "set", "up1", "down")
    assert apply(lone, wanted) == ["10.3.0.0/24", *gone[:1], "fd00:3::/64", *gone[1:]]
    assert table(lone) == sorted(map(line, to_peer(2)))
    lone.run("ip", "link", "set", "up1", "up")
    lone.run("ip", "address", "replace", "2001:db8:1::1/64", "dev", "up1", "nodad")  # it went with the link
    assert apply(lone, wanted) == gone
    lone.run("ip", "link", "del", "up1")
    assert apply(lone, wanted) == ["10.3.0.0/24", *gone[:1], "fd00:3::/64", *gone[1:]]


@pytest.mark.kernel_vxlan
def test_a_host_without_ipv6(lone: PretendHost) -> None:
    """It has the routes of IPv4, and its tunnels carry both families."""
    lone.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    far = [replace(one, via=ip_address("192.0.1.3"), is_tunnelled=True, mac="02:00:00:00:00:03") for one in to_peer(3)]
    assert apply(lone, [*to_peer(2), *far]) == ["fd00:2::/64"]
    assert len(table(lone)) == 3


def test_a_peer_on_a_link_without_a_network(lone: PretendHost) -> None:
    """Clouds give hosts addresses of one host each, and routes to each other through the link."""
    lone.run("ip", "route", "add", "198.51.100.7", "dev", "up1")
    lone.run("ip", "route", "add", "198.51.100.8", "via", "192.0.1.9")
    near, far = route("10.7.0.0/24", "198.51.100.7"), route("10.8.0.0/24", "198.51.100.8")
    assert apply(lone, [near, far]) == ["10.8.0.0/24"]
    assert line(near, "up1") in table(lone)


KILLED = f"""{READ_ROUTES}
import os, signal
from shared.net import netlink
netlink.AT_ONCE = 1  # each message is sent alone
before = [Route(ip_network(c), n, ip_address(v), *more) for c, n, v, *more in raw["before"]]
real, left = netlink.Netlink._transmit, [-1]
def transmit(self, data):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(self, data)
netlink.Netlink._transmit = transmit
def state():
    return os.popen(
        "ip -4 route; ip -6 route; ip neigh show nud permanent; for one in pycni.vxlan pycni.vxlan6; do"
        " ip -o address show dev $one | cut -d' ' -f2-; bridge fdb show dev $one; done 2>/dev/null"
    ).read()
def reset():
    routes.apply(before, end)
    for one in raw["absent"]:
        os.system(f"ip link del {{one}} 2>/dev/null")
reset()
assert routes.apply(wanted, end) == routes.Outcome(frozenset())
then = before if raw["back"] else wanted
assert routes.apply(then, end) == routes.Outcome(frozenset())
goal = sorted(state().splitlines())
number = 0
while number < raw["most"]:
    reset()
    child = os.fork()
    if not child:
        left[0] = number
        routes.apply(wanted, end)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    routes.apply(then, end)
    assert sorted(state().splitlines()) == goal, (number, state(), goal)
    number += 1
print(json.dumps([number, goal]))
"""


@pytest.mark.kernel_vxlan
@pytest.mark.parametrize("case", ["onwards", "back", "without-devices"])
def test_killed_between_any_two_messages(lone: PretendHost, case: str) -> None:
    """Peer 2 stays, 3 has moved and has another MAC, 4 left, 5 came, 7 is refused and 8 is not any more.

    Or they come back before the next run.
    """
    absent = ["pycni.vxlan", "pycni.vxlan6"] if case == "without-devices" else []

    def tunnels(number: int, via: str, mac: int) -> list[Route]:
        return [replace(one, via=ip_address(via), is_tunnelled=True, mac=f"02:00:00:00:00:{mac:02x}")
                for one in to_peer(number)]  # fmt: skip

    before = [
        *to_peer(2), *to_peer(12), *tunnels(3, "192.0.1.3", 3), *tunnels(4, "192.0.1.4", 4),
        *tunnels(6, "2001:db8:1::6", 6), *to_peer(7), *map(refuse, to_peer(8)),
    ]  # fmt: skip
    wanted = [
        *to_peer(2), *to_peer(13), *tunnels(3, "192.0.1.33", 33), *tunnels(5, "192.0.1.5", 5),
        *tunnels(6, "2001:db8:1::66", 6), *map(refuse, to_peer(7)), *to_peer(8),
    ]  # fmt: skip
    rows = json.loads(words(before))["routes"]
    sources = ["10.1.0.0/24", "fd00:1::/64"]
    most = 20 if absent else 99  # the messages that make devices come first
    number, goal = json.loads(
        lone.python(KILLED, words(wanted, before=rows, absent=absent, sources=sources, most=most, back=case == "back"))
    )
    assert number == most if absent else 30 <= number < most
    assert sum(f"proto {PROTOCOL} metric" in one for one in goal) == len(wanted)
    assert sum("self permanent" in one for one in goal) == 3


RECALLED = f"""{READ_ROUTES}
import os, time
from shared.net import messages
from shared.net.wire import RTM_NEWROUTE
from shared.net.tunnel_wire import RTM_NEWNEIGH
real, count, memory = messages.decode, [0], {{}}
def decode(kind, *more):
    count[0] += kind in (RTM_NEWROUTE, RTM_NEWNEIGH)
    return real(kind, *more)
messages.decode = decode
def read():
    count[0] = 0
    found = routes.read(wanted, memory)
    return count[0], found == routes.read(wanted), found == frozenset(wanted)
assert not routes.apply(wanted, end, memory).missing
seen = [read()]
time.sleep(0.05)  # the tables tell ages in hundredths of a second
seen.append(read())
for command in raw["commands"]:
    os.system(command)
    seen.append(read())
assert not routes.apply(wanted, end, memory).missing
print(json.dumps([*seen, read()]))
"""


@pytest.mark.kernel_vxlan
def test_only_changed_entries_are_decoded(lone: PretendHost) -> None:
    """With a memory, a reading has the same result as without one, whatever others did in between."""
    wanted = to_peer(2) + [
        Route(one.cidr, one.node, ip_address("192.0.1.3"), is_tunnelled=True, mac=mac_of("b")) for one in to_peer(3)
    ]
    commands = [
        "ip route del 10.2.0.0/24", "ip route replace 10.3.0.0/24 via 192.0.0.9 dev up0 proto 112 metric 2048",
        f"bridge fdb del {mac_of('b')} dev {NAMES[4]} dst 192.0.1.3",
    ]  # fmt: skip
    first, again, *changed, last = json.loads(lone.python(RECALLED, words(wanted, commands=commands)))
    entries = 4 + 2 + 1  # routes, neighbours and forwarding
    assert first == [entries, True, True]
    assert again == [0, True, True]
    assert changed == [[0, True, False], [1, True, False], [0, True, False]]
    assert last == [3, True, True]


COUNTED = """
import json
from ipaddress import IPv4Address, IPv6Address, IPv4Network, IPv6Network
from shared.cluster import routes
from shared.cluster.model import Route
from shared.cluster.tunnel import End, mac_of
from shared.net import netlink
sent = []
real_send, real_transmit = netlink.Netlink._send, netlink.Netlink._transmit
def send(self, requests, **keys):
    sent.extend(requests)
    return real_send(self, requests, **keys)
netlink.Netlink._send = send
end = End(mac_of("me"), (IPv4Address("192.0.0.1"), IPv6Address("2001:db8::1")))
v4, v6, own = int(IPv4Address("10.0.0.0")), int(IPv6Address("fd00:1::")), int(IPv4Address("172.16.0.0"))
wanted = []
for number in range(1, 10_001):
    is_tunnelled = number > 5000
    via4, via6 = IPv4Address(own + number + 1), IPv6Address(f"2001:db8::{number + 1:x}")
    mac = mac_of(str(number)) if is_tunnelled else ""
    wanted += [
        Route(IPv4Network((v4 + (number << 8), 24)), str(number), via4, is_tunnelled, mac),
        Route(IPv6Network((v6 + (number << 64), 64)), str(number), via4 if is_tunnelled else via6, is_tunnelled, mac),
    ]
def counted(routes_wanted):
    sent.clear()
    outcome = routes.apply(routes_wanted, end)
    assert outcome == routes.Outcome(frozenset()), outcome
    return len(sent)
print(json.dumps([counted(wanted), counted(wanted), counted(wanted[:-2]), counted(wanted[2:-2]), counted([]),
                  len(routes.read(wanted))]))
"""


@pytest.mark.kernel_vxlan
def test_ten_thousand_peers(lone: PretendHost) -> None:
    """By their number of messages: half of the peers are on the link, half behind tunnels; both families."""
    lone.run("ip", "address", "add", "172.16.0.1/16", "dev", "up0")
    first, again, tunnel_gone, link_gone, none, left = json.loads(lone.python(COUNTED, timeout=120))
    routes_, entries, fixed = 20_000, 10_000 + 5_000, 40
    assert routes_ + entries <= first <= routes_ + entries + fixed
    assert again <= fixed
    assert tunnel_gone <= 2 + 3 + fixed
    assert link_gone <= 2 + fixed
    assert none <= routes_ + entries + fixed
    assert left == 0


def test_the_limit_of_neighbours_is_told(lone: PretendHost) -> None:
    script = "from shared.cluster.tunnel import *; print(neighbour_limits(Tables()))"
    limits = eval(lone.python(script))  # noqa: S307
    shown = lone.run("ip", "ntable", "show", "name", "arp_cache").stdout
    assert f"thresh3 {limits[4]} " in shown
    peers = [route(f"10.{number >> 8}.{number & 255}.0/24", f"192.0.2.{number}") for number in range(1, 9)]
    assert routes.crowding(peers, {4: 9, 6: 1}) == []
    (alarm,) = routes.crowding(peers, {4: 8, 6: 1})
    assert alarm.text == (
        "net.ipv4.neigh.default.gc_thresh3 is 8, and there are 8 peers with IPv4 addresses: set it to 16"
    )
