"""cnitool monitor: real events, their owners' names, and its end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

import pytest

from tests.pretend import PretendHost, read_line, until
from tests.system.pod_network import CNITOOL, NETWORK, Node

Event = dict[str, str]
PATIENCE = 240  # seconds


class Watched:
    """A running monitor; `marks` delimit the lines printed so far."""

    def __init__(self, host: PretendHost, process: subprocess.Popen[bytes]) -> None:
        self.host, self.process = host, process
        self.marks = 0

    def line(self) -> str:
        said = read_line(self.process).decode()
        assert said.endswith("\n"), self.process.communicate()
        return said.rstrip("\n")

    def until_now(self) -> list[str]:
        """Return all lines up to the one about an event that this call causes last."""
        self.marks += 1
        mark = f"mark{self.marks}"
        self.host.run("ip", "link", "add", mark, "type", "bridge")
        lines = []
        while mark not in (line := self.line()):
            lines.append(line)
        return lines

    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.until_now()]

    def told_until(self, **wanted: str) -> list[Event]:
        """Return all events up to the first of that kind."""
        events: list[Event] = []
        while not find(events, **wanted):
            events.append(json.loads(self.line()))
        return events

    def end(self, number: int = signal.SIGTERM) -> tuple[int, bytes]:
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stderr


@contextmanager
def monitor(host: PretendHost, *args: str) -> Iterator[Watched]:
    """Start a monitor and wait until it listens."""
    process = host.popen(*CNITOOL, "monitor", *args, stdin=subprocess.DEVNULL)
    watched = Watched(host, process)
    # a missing line fails the test instead of blocking it
    limit = Timer(PATIENCE, process.kill)
    limit.start()
    try:
        first = watched.line()
        assert "started" in first
        yield watched
    finally:
        limit.cancel()
        process.kill()
        if process.stdout and not process.stdout.closed:
            process.communicate()


def find(events: list[Event], **wanted: str) -> list[Event]:
    return [event for event in events if wanted.items() <= event.items()]


def one(events: list[Event], **wanted: str) -> Event:
    (found,) = find(events, **wanted)
    return found


def test_the_life_of_a_pod(node: Node) -> None:
    with monitor(node.host, "--json") as watched:
        result = node.attach("web1", "web")
        (link,) = [entry["name"] for entry in result["interfaces"] if entry["name"].startswith("veth")]
        events = watched.events()
        pod = {"network": "pods", "containerID": "web1", "ifname": "eth0", "netns": "/run/netns/web1"}
        appeared = one(events, where="host", subject="link", change="appeared", link=link)
        assert appeared["netns"] == "/run/netns/web1"
        assert one(events, where="host", subject="link", change="appeared", link="cni0")["detail"] == "bridge, down"
        assert pod.items() <= one(events, change="joined", link=link, detail="cni0").items()
        assert pod.items() <= one(events, where="host", subject="link", change="up", link=link).items()
        for address in ("10.1.0.1/24", "fd00:1::1/64"):
            one(events, where="host", subject="address", change="added", link="cni0", detail=address)
        for address in ("10.1.0.2/24", "fd00:1::2/64"):
            there = one(events, where="pod", subject="address", change="added", detail=address)
            assert pod.items() <= there.items() and there["link"] == "eth0"
        routes = find(events, where="pod", subject="route", change="added", **pod)
        assert {"10.1.0.0/24", "default via 10.1.0.1", "default via fd00:1::1 metric 1024"} <= {
            event["detail"] for event in routes
        }
        assert all(
            re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", event["time"]) for event in events
        )
        order = [event["change"] for event in events if event.get("link") == link]
        assert order.index("appeared") < order.index("joined") < order.index("up")

        node.detach("web1")
        events = watched.events()
        named = pod | {"namespace": "default", "name": "web"}
        assert named.items() <= one(events, where="host", change="disappeared", link=link).items()
        assert named.items() <= one(events, where="host", change="down", link=link).items()
        one(events, where="pod", subject="address", change="removed", detail="10.1.0.2/24", containerID="web1")
        assert watched.end() == (0, b"")


def test_pods_that_were_there_before(node: Node) -> None:
    """Earlier state is not reported; changes carry its names."""
    node.attach("web1", "web")
    with monitor(node.host, "--json") as watched:
        assert watched.events() == []
        for command in (
            "address change 10.1.0.2/24 dev eth0 preferred_lft 1000 valid_lft 2000",
            "address del 10.1.0.2/24 dev eth0",
            "address add 10.1.0.9/24 dev eth0",
            "link set eth0 mtu 1400",
            "link set eth0 down",
            "link set eth0 name net0",
            "link set lo up",
        ):
            node.host.run("ip", "-n", "web1", *command.split())
        events = find(watched.events(), where="pod", containerID="web1", name="web")
        told = [(event["subject"], event["change"], event["link"], event.get("detail", "")) for event in events]
        assert [entry for entry in told if entry[0] == "address" and "10.1" in entry[3]] == [
            ("address", "removed", "eth0", "10.1.0.2/24"),
            ("address", "added", "eth0", "10.1.0.9/24"),
        ]
        assert [entry for entry in told if entry[0] == "link"] == [
            ("link", "mtu", "eth0", "1500 → 1400"),
            ("link", "down", "eth0", ""),
            ("link", "renamed", "net0", "from eth0"),
            ("link", "up", "lo", ""),
        ]


def test_lines_for_people(node: Node) -> None:
    node.attach("web1", "web")
    with monitor(node.host) as watched:
        node.host.run("ip", "-n", "web1", "address", "add", "10.9.9.9/32", "dev", "eth0")
        node.host.run("ip", "address", "add", "10.9.9.8/32", "dev", "cni0")
        lines = watched.until_now()
    time = r"\d\d:\d\d:\d\d\.\d{3}"
    assert any(
        re.fullmatch(rf"{time}  pod   eth0 +address added 10\.9\.9\.9/32  \[pods/web1/eth0 default/web\]", line)
        for line in lines
    )
    assert any(re.fullmatch(rf"{time}  host  cni0 +address added 10\.9\.9\.8/32", line) for line in lines)
    assert not any("\033" in line for line in lines)


def test_strangers_are_not_told_of(node: Node) -> None:
    with monitor(node.host, "--json") as watched:
        for command in (
            "link add s0 type veth peer name s1",
            "link set s0 up",
            "address add 10.9.9.9/24 dev s0",
            "route add 10.8.0.0/24 dev s0",
            "link set lo mtu 2000",
            "link del s0",
        ):
            node.host.run("ip", *command.split())
        node.host.netns("alone")
        node.host.run("ip", "-n", "alone", "link", "set", "lo", "up")
        assert watched.events() == []


def test_ports_that_are_no_pods(node: Node) -> None:
    node.host.run("ip", "link", "add", "br7", "type", "bridge")
    node.host.run("ip", "link", "add", "s0", "type", "veth", "peer", "name", "s1")
    with monitor(node.host, "--json") as watched:
        for command in ("link set s0 master br7", "link set s0 nomaster", "link del br7"):
            node.host.run("ip", *command.split())
        told = [(event["change"], event["link"], event.get("detail")) for event in watched.events()]
        for expected in (("joined", "s0", "br7"), ("left", "s0", "br7"), ("disappeared", "br7", None)):
            assert expected in told


def test_the_references_pod(node: Node, reference_bin: str) -> None:
    """Its owner is printed once the runtime has cached it."""
    with monitor(node.host, "--json") as watched:
        result = node.attach("theirs", "db", bin_dir=reference_bin)
        link = result["interfaces"][1]["name"]
        events = watched.events()
        assert find(events, change="appeared", link=link, netns="/run/netns/theirs")
        node.host.run("ip", "link", "set", link, "down")
        assert find(watched.events(), change="down", link=link, network="pods", containerID="theirs", name="db")


def test_one_network(node: Node) -> None:
    other = {**NETWORK, "name": "other", "plugins": [{**NETWORK["plugins"][0], "bridge": "cni1"}]}
    other["plugins"][0]["ipam"] = {"type": "host-local", "subnet": "10.2.0.0/24"}
    node.configure(other)
    node.attach("db0", network="other")
    with monitor(node.host, "--json", "other") as watched:
        node.attach("web1")
        node.attach("db1", network="other")
        node.host.run("ip", "address", "add", "10.9.9.9/32", "dev", "cni0")
        node.host.run("ip", "address", "add", "10.9.9.8/32", "dev", "cni1")
        node.host.run("ip", "netns", "add", "last")
        node.attach("db2", network="other")
        events: list[Event] = []
        while not events or events[-1].get("containerID") != "db2":
            events.append(json.loads(watched.line()))
    assert {event["containerID"] for event in events if "containerID" in event} == {"db1", "db2"}
    assert {event.get("network") for event in events if event["link"] != "cni1"} == {"other"}
    assert find(events, link="cni1", detail="10.9.9.8/32") and not find(events, link="cni0")


def test_an_id_that_another_namespace_gets(node: Node) -> None:
    """The kernel assigns the lowest free ID: all data about it must be forgotten with its namespace."""
    node.attach("web1", "web")
    with monitor(node.host, "--json") as watched:
        node.host.drop_netns("web1")
        watched.events()
        node.attach_without_runtime("bare")
        events = find(watched.events(), where="pod")
        assert events and not find(events, containerID="web1")
        assert find(events, containerID="bare", change="added", detail="10.1.0.3/24")


def test_more_at_once_than_the_kernel_keeps(node: Node) -> None:
    node.attach("web1")
    with monitor(node.host, "--json") as watched:
        watched.process.send_signal(signal.SIGSTOP)
        changes = "".join(f"link set cni0 mtu {1400 + number % 50}\n" for number in range(1500))
        node.host.run("ip", "-batch", "-", input=changes)
        node.host.run("ip", "link", "set", "cni0", "mtu", "1300")
        watched.process.send_signal(signal.SIGCONT)
        events = [json.loads(watched.line())]
        while not find(events, change="missed"):
            events.append(json.loads(watched.line()))
        node.host.run("ip", "link", "set", "cni0", "mtu", "1299")
        assert one(watched.events(), change="mtu", link="cni0")["detail"] == "1300 → 1299"
        assert watched.end() == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(node: Node, number: int) -> None:
    with monitor(node.host) as watched:
        assert watched.end(number) == (0, b"")


def close(watched: Watched) -> None:
    assert watched.process.stdout
    watched.process.stdout.close()


def test_it_ends_when_nobody_reads(node: Node) -> None:
    with monitor(node.host) as watched:
        close(watched)
        assert watched.process.wait(timeout=60) == 0
        assert watched.process.stderr and watched.process.stderr.read() == b""
        watched.process.stderr.close()


UP0 = "ip link add up0 type veth peer name far0; ip link set up0 up; ip link set far0 up"
MACVLAN = {"type": "macvlan", "master": "up0", "ipam": {"type": "host-local", "subnet": "10.2.0.0/24"}}
TAP = {"type": "tap", "ipam": {"type": "host-local", "subnet": "10.2.0.0/24"}}


@pytest.mark.parametrize("plugins", [[MACVLAN, {"type": "sbr"}], [TAP]])
def test_a_pod_without_a_link_on_the_host(node: Node, plugins: list[dict[str, Any]]) -> None:
    """Its own link tells the pod, also of rules. A namespace of nobody is not told of."""
    node.host.run("sh", "-ec", UP0)
    node.configure({**NETWORK, "name": "lan", "plugins": plugins})
    with monitor(node.host, "--json") as watched:
        node.host.netns("stranger")
        node.host.run("ip", "-n", "stranger", "link", "set", "lo", "up")
        node.attach("a", network="lan")
        node.host.run("ip", "-n", "a", "link", "set", "eth0", "mtu", "1400")
        events = watched.told_until(change="mtu")
        node.call("DEL", "a", plugins[0], name="lan")
        events += watched.told_until(change="disappeared")
    assert find(events, netns="/run/netns/stranger") == []
    own = {"where": "pod", "network": "lan", "containerID": "a", "ifname": "eth0", "netns": "/run/netns/a"}
    kind, state = find(events, change="appeared", link="eth0", **own)[0]["detail"].split(", ")
    states = {state} | {event["change"] for event in find(events, subject="link", **own)}
    assert (kind, states & {"up", "no carrier"}) in (("macvlan", {"up"}), ("tun", {"no carrier"}))
    assert one(events, subject="address", change="added", detail="10.2.0.2/24", **own)["link"] == "eth0"
    assert one(events, subject="route", change="added", detail="10.2.0.0/24", **own)["link"] == "eth0"
    rules = find(events, subject="rule", change="added", detail="from 10.2.0.2 lookup 100", **own)
    assert len(rules) == len(plugins) - 1
    assert one(events, change="disappeared", **own)


def test_a_namespace_with_the_path_and_the_inode_of_another_one(node: Node) -> None:
    """The kernel gives the inode number of a deleted namespace to the next one. Both pods are told of."""
    place, hidden = node.host.root / "run", iter(range(10_000))

    def has_inode(inode: int) -> bool:
        """Make a namespace that is left there, as each takes the lowest number that is free."""
        other = f"other{next(hidden)}"
        (place / other).touch()
        node.host.run("unshare", f"--net=/run/{other}", "true")
        if (place / other).stat().st_ino != inode:
            return False
        (place / "netns/a").touch()
        node.host.run("mount", "--bind", f"/run/{other}", "/run/netns/a")
        return True

    def is_reused() -> bool:
        """Delete a pod, and try to be the first to have its number: tests beside this one make namespaces, too."""
        if not (place / "netns/a").exists():
            node.host.netns("a")
        node.add("a", TAP, name="lan", bridge="")
        watched.told_until(subject="address", change="added", netns="/run/netns/a")
        node.call("DEL", "a", TAP, name="lan", bridge="")
        inode = (place / "netns/a").stat().st_ino
        node.host.drop_netns("a")
        return any(has_inode(inode) for _ in range(50))

    with monitor(node.host, "--json") as watched:
        until(is_reused, seconds=120)
        node.add("a", TAP, name="lan", bridge="")
        watched.told_until(subject="address", change="added", netns="/run/netns/a")


def test_one_pod_in_two_networks(node: Node) -> None:
    """Each event names the attachment of its link."""
    node.host.run("sh", "-ec", UP0)
    with monitor(node.host, "--json") as watched:
        node.attach_without_runtime("a")
        node.add("a", MACVLAN, name="lan", ifname="net1")
        node.host.run("ip", "-n", "a", "link", "set", "net1", "down")
        events = watched.told_until(change="down", link="net1")
    assert {event.get("network", "") for event in find(events, where="pod", link="eth0")} <= {"pods", ""}
    assert {event["network"] for event in find(events, where="pod", link="net1", subject="route")} == {"lan"}
    assert one(events, where="pod", subject="address", detail="10.2.0.2/24", link="net1")["network"] == "lan"


@pytest.mark.kernel_vrf
def test_a_link_that_joins_a_vrf(node: Node) -> None:
    node.attach_without_runtime("a")
    with monitor(node.host, "--json") as watched:
        node.add("a", type="vrf", vrfname="blue", prevResult=node.results["a"])
        events = watched.events()
    assert one(events, where="pod", change="joined", link="eth0")["detail"] == "blue"


def test_without_ipv6(node: Node) -> None:
    node.host.run("tee", "/proc/sys/net/ipv6/conf/default/disable_ipv6", input="1")
    node.configure(
        {**NETWORK, "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.2.0.0/24"}}]}
    )
    with monitor(node.host, "--json") as watched:
        node.attach("web1")
        assert find(watched.events(), where="pod", change="added", detail="10.2.0.2/24", containerID="web1")


def test_hostile_names(node: Node) -> None:
    with monitor(node.host) as watched:
        node.host.run("ip", "link", "add", b"b\xff\x1b[1m", "type", "bridge")  # type: ignore[arg-type]
        lines = watched.until_now()
        assert any("b�" in line for line in lines) and not any("\033" in line for line in lines)
