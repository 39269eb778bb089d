"""Row 28: more host ports, routes and exempt networks than a socket's buffer holds, in time linear in their number."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.pretend import Answer, PretendHost
from tests.system.hostport_nodes import HOST, HOST_6, Node, Plain, left, of_pods, rules

pytestmark = pytest.mark.row(28)

PORTS, ROUTES, CIDRS = 2_500, 6_000, 1_000
FIRST = 10_000
EITHER = pytest.mark.parametrize("backend", ["nftables", "iptables"])
BRIDGE: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge", "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}  # fmt: skip
# A plugin's executable with its function calls counted: argv is the file for the count, then the launcher.
COUNTING = """
import posix, sys
counter, launcher = sys.argv[1:]
sys.argv, count, leave = [launcher], 0, posix._exit

def counted(frame, event, argument):
    global count
    count += event in ("call", "c_call")

def exit_(status):
    sys.setprofile(None)
    with open(counter, "w") as file:
        file.write(str(count))
    leave(status)

posix._exit = exit_
code = compile(open(launcher).read(), launcher, "exec")
sys.setprofile(counted)
exec(code, {"__name__": "__main__"})
"""

# Runs a plugin on a host that has what the call needs, with the network namespace of a child as its pod; prints to
# stderr how many host ports there are.
ROOTLESS = """
import os, subprocess, sys
def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True, env={"PATH": os.defpath + ":/usr/sbin:/sbin"}).stdout
run("ip", "link", "set", "lo", "up")
run("ip", "link", "add", "br0", "up", "type", "bridge")
run("ip", "addr", "add", "10.1.0.1/16", "dev", "br0")
pod = subprocess.Popen(["unshare", "--net", "sleep", "100"], env={"PATH": os.defpath})
while os.readlink(f"/proc/{pod.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
    pass
done = subprocess.run(sys.argv[1:], env={**os.environ, "CNI_NETNS": f"/proc/{pod.pid}/ns/net"})
pod.kill()
pod.wait()
maps = [run("nft", "list", "map", "inet", "pycni", f"hostports{version}") for version in "46"]
print("".join(maps).count('comment "net/c1/eth0"'), file=sys.stderr)
sys.exit(done.returncode)
"""


def mapping_keys(count: int, host_ip: str = "", **keys: Any) -> dict[str, Any]:
    """Return the keys that map so many host ports, of TCP and UDP in turn, each to the same number in the pod."""
    entries = [
        {"hostPort": FIRST + number // 2, "containerPort": FIRST + number // 2, "protocol": ("tcp", "udp")[number % 2]}
        for number in range(count)
    ]
    return {"runtimeConfig": {"portMappings": [{**one, "hostIP": host_ip} for one in entries]}, **keys}


def routed_config(count: int, gateway: str = "") -> dict[str, Any]:
    """Return bridge's configuration with so many routes, half of them IPv6 unless a gateway is named."""
    half = count if gateway else count // 2
    routes: list[dict[str, str]] = [{"dst": f"20.{n >> 8}.{n & 255}.0/24"} for n in range(half)]
    routes += [{"dst": f"fd01:{n:x}::/32"} for n in range(count - half)]
    extra = {"gw": gateway} if gateway else {}
    return {**BRIDGE, "ipam": {**BRIDGE["ipam"], "routes": [{**route, **extra} for route in routes]}}


def exempting_config(count: int, backend: str) -> dict[str, Any]:
    """Return bridge's configuration with so many networks that are not masqueraded."""
    networks = [f"fd02:{n:x}::/32" if n % 2 else f"172.{16 + (n >> 8)}.{n & 255}.0/24" for n in range(count)]
    return {**BRIDGE, "ipMasq": True, "ipMasqBackend": backend, "nonMasqueradeCIDRs": networks}


class Pod:
    """A host with one pod for bridge to attach."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        self.netns = host.netns("pod")
        self.result: dict[str, Any] = {}

    def call(self, verb: str, config: dict[str, Any], **how: Any) -> Answer:
        previous = {"prevResult": self.result} if self.result and verb in ("CHECK", "DEL") else {}
        answer = self.host.cni("bridge", verb, {**config, **previous}, netns=self.netns, **how)
        self.result = answer.json if verb == "ADD" and answer.status == 0 else self.result
        return answer


def ok(answer: Answer) -> Answer:
    assert answer.status == 0, answer.stdout[:2000] + answer.stderr
    assert "could not" not in answer.stderr  # iptables warns of others' tables there
    return answer


def nothing_left(plain: Plain) -> bool:
    return not left(plain.host) and not of_pods(plain.host)


# -- the whole is done, and undone


@EITHER
def test_host_ports(host: PretendHost, backend: str) -> None:
    """The test sends a packet through the last port, runs CHECK and DEL; a UDP entry from before is deleted."""
    node = Node(host, backend)
    keys, last = mapping_keys(PORTS), FIRST + PORTS // 2 - 1
    ok(node.call("ADD", "a", keys))
    ok(node.call("CHECK", "a", keys))
    every = [("out", protocol, address, last) for protocol in ("tcp", "udp") for address in (HOST, HOST_6)]
    answers = node.probe([("a", "tcp", last), ("a", "udp", last)], every)
    assert [answer[0] for answer in answers] == ["a"] * 4
    ok(node.call("DEL", "a", keys))
    assert "pycni" not in rules(host) or not left(host)
    tracked = host.run("cat", "/proc/net/nf_conntrack").stdout
    assert not [line for line in tracked.splitlines() if " udp " in line and f"dport={last} " in line]


@EITHER
def test_networks_that_are_not_masqueraded(host: PretendHost, backend: str) -> None:
    pod, config = Pod(host), exempting_config(CIDRS, backend)
    ok(pod.call("ADD", config))
    programs = ("iptables-save", "ip6tables-save") if backend == "iptables" else ()
    shown = "".join(host.run(program).stdout for program in programs) if programs else rules(host)
    assert all(network in shown for network in config["nonMasqueradeCIDRs"])
    ok(pod.call("CHECK", config))
    ok(pod.call("DEL", config))
    shown = "".join(host.run(program).stdout for program in programs) if programs else rules(host)
    assert "172.16.0.0/24" not in shown or backend == "nftables"  # a chain that pods share goes with GC
    host.cni("bridge", "GC", {**config, "cni.dev/valid-attachments": []})
    assert "172.16.0.0/24" not in rules(host)


def test_routes(host: PretendHost) -> None:
    pod, config = Pod(host), routed_config(ROUTES)
    ok(pod.call("ADD", config))
    for family, wanted in (("-4", "20."), ("-6", "fd01:")):
        shown = host.run("ip", "-n", "pod", family, "route", "show").stdout.splitlines()
        assert sum(line.startswith(wanted) for line in shown) == ROUTES // 2
    ok(pod.call("CHECK", config))
    host.run("ip", "-n", "pod", "route", "delete", "20.3.7.0/24")
    assert pod.call("CHECK", config).json["details"].count("20.3.7.0/24") == 1
    ok(pod.call("DEL", config))


def test_routes_that_the_kernel_refuses(host: PretendHost) -> None:
    """The error names the first, however many refusals come, and everything is rolled back."""
    pod, before = Pod(host), host.snapshot(["pod"])
    answer = pod.call("ADD", routed_config(ROUTES, gateway="203.0.113.1"))
    assert answer.code == 999 and all(word in answer.json["msg"] for word in ("RTA_DST=20.0.0.0", "ENETUNREACH")), (
        answer.stdout
    )
    assert "could not" not in answer.stderr
    after = host.snapshot(["pod"])
    assert (after["host"], after["pods"]) == (before["host"], before["pods"])


# -- refusals, kills


@EITHER
def test_a_conflict_at_the_last_port(host: PretendHost, backend: str) -> None:
    plain, last = Plain(host, backend), FIRST + PORTS // 2 - 1
    plain.add(
        {"runtimeConfig": {"portMappings": [{"hostPort": last, "containerPort": 1, "protocol": "udp"}]}}, "kept", 9
    )
    plain.refused(mapping_keys(PORTS), 999, f"host port {last}/udp of every IPv4 address is taken by net/kept/eth0")


@EITHER
def test_a_conflict_at_every_port(host: PretendHost, backend: str) -> None:
    """The kernel's refusals are more than the buffer holds; those left in it disturb no later answer."""
    plain = Plain(host, backend)
    plain.add(mapping_keys(PORTS), "kept", 9)
    plain.refused(mapping_keys(PORTS), 999, f"host port {FIRST}/tcp of every IPv4 address is taken by net/kept/eth0")


@EITHER
@pytest.mark.row(1, 2, 3)
def test_killed(host: PretendHost, backend: str) -> None:
    """It is killed before and after the transaction that makes, or removes, them all; then DEL."""
    plain, keys = Plain(host, backend), mapping_keys(PORTS // 2 if backend == "nftables" else 100)
    system_call = "sendto" if backend == "nftables" else "write"
    for verb, places in (("ADD", (0.5, 1)), ("DEL", (0.97, 1))):
        if verb == "DEL":
            plain.add(keys)
        trace = ("strace", "-qq", "-o", "/run/trace", "-e", f"trace={system_call}")
        ok(plain.call(verb, keys, prefix=trace))
        count = len(host.run("cat", "/run/trace").stdout.splitlines())
        ok(plain.call("DEL", keys))
        for place in places:
            if verb == "DEL":
                plain.add(keys)
            strike = f"inject={system_call}:signal=KILL:when={max(round(count * place), 1)}"
            plain.call(verb, keys, prefix=("strace", "-qq", "-o", "/dev/null", "-e", strike))
            ok(plain.call("DEL", {"prevResult": None}, netns=""))
            assert nothing_left(plain), (verb, place)


def test_without_privilege(host: PretendHost) -> None:
    """In a user namespace the buffer grows as far as net.core.wmem_max allows."""
    plain = Plain(host, "nftables")
    rootless = ("unshare", "--user", "--map-root-user", "--net", "--", sys.executable, "-c", ROOTLESS)
    answer = plain.call("ADD", mapping_keys(PORTS), netns="/proc/self/ns/net", prefix=rootless)
    assert answer.status == 0, answer.stdout
    assert answer.stderr.strip() == str(2 * PORTS)


@pytest.mark.parametrize("what", ["portMappings", "nonMasqueradeCIDRs"])
def test_a_buffer_that_cannot_grow(host: PretendHost, what: str) -> None:
    """The error names the key, the size and the sysctl, and nothing is left."""
    fixed = ("strace", "-qq", "-o", "/dev/null", "-e", "inject=setsockopt:retval=0")
    before = host.snapshot()
    if what == "portMappings":
        answer = Plain(host, "nftables").call("ADD", mapping_keys(PORTS), prefix=fixed)
    else:
        # IPv4 alone: for an IPv6 address ADD waits for news of the kernel, which would not come either
        ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
        answer = Pod(host).call("ADD", {**exempting_config(2 * CIDRS, "nftables"), "ipam": ipam}, prefix=fixed)
        assert host.snapshot()["host"] == before["host"]
    count = 2 * (PORTS if what == "portMappings" else CIDRS)
    assert answer.code == 999 and re.search(
        rf'"[\w.]*{what}" has {count} entries: the transaction has \d+ bytes, the socket\'s send buffer takes \d+: '
        r"set net.core.wmem_max to at least \d+",
        answer.json["msg"],
    ), answer.stdout
    assert "could not" not in answer.stderr and not left(host)


# -- linear


def count_work(host: PretendHost, call: Callable[..., Answer]) -> dict[str, int]:
    """Return the number of functions that a call executes, and of messages that it and its programs send and write."""
    trace = ("strace", "-f", "--seccomp-bpf", "-qq", "-o", "/run/trace", "-e", "trace=sendto,sendmsg,write,execve")
    ok(call(prefix=(*trace, "--", sys.executable, "-IS", "-c", COUNTING, "/run/count")))
    lines = host.run("cat", "/run/trace").stdout.splitlines()
    return {"functions": int(host.run("cat", "/run/count").stdout), "messages": len(lines)}


def assert_linear(small: dict[str, dict[str, int]], large: dict[str, dict[str, int]]) -> None:
    wrong = {
        (verb, what): (count, large[verb][what])
        for verb, found in small.items()
        for what, count in found.items()
        if large[verb][what] > 2.2 * count + FIXED
    }
    assert not wrong, wrong


FIXED = 50  # messages to learn which part of the rule set exists: more of it the second time
VERBS = ("ADD", "CHECK", "DEL")


@pytest.mark.parametrize("address", ["", HOST])
@EITHER
def test_host_ports_are_linear(host: PretendHost, backend: str, address: str) -> None:
    plain, found = Plain(host, backend), []
    for count in (300, 600):
        keys = mapping_keys(count, address, conditionsV4=["!", "-s", "192.0.2.77"])
        one = {verb: count_work(host, partial(plain.call, verb, keys)) for verb in VERBS}
        plain.add(keys)
        gc = {**plain.config(keys), "cni.dev/valid-attachments": []}
        del gc["prevResult"]
        one["GC"] = count_work(host, partial(host.cni, "portmap", "GC", gc))
        assert nothing_left(plain)
        found.append(one)
    assert_linear(*found)


@pytest.mark.parametrize("what", ["routes", "nftables", "iptables"])
def test_routes_and_networks_are_linear(host: PretendHost, what: str) -> None:
    pod, found = Pod(host), []
    for count in (1_000, 2_000):
        config = routed_config(count) if what == "routes" else exempting_config(count, what)
        found.append({verb: count_work(host, partial(pod.call, verb, config)) for verb in VERBS})
    assert_linear(*found)


def test_elements_that_are_taken_over(host: PretendHost) -> None:
    """All are taken over at once, however many: the kernel names one in each try."""
    said = host.python("""
from shared.net.owner import Owner
from shared.nft import registry, transaction, wire
from shared.hostports.nftables_rules import ANY, ruleset
kernel = transaction.Nfnetlink()
transactions = []
commit = kernel.commit
kernel.commit = lambda requests, **how: transactions.append(len(requests)) or commit(requests, **how)
elements = [ANY[4].element("tcp", str(port), to=("10.1.0.5", "80")) for port in range(1, 2501)]
for name in ("c1", "c2"):
    registry.add(kernel, ruleset(), Owner("net", name, "eth0"), elements, replace=True)
print(len(transactions), {*registry.holders(kernel, elements)})
commit([part.remove_request() for name in ("c1", "c2") for part in registry._registered(kernel, ruleset(), f"net/{name}/eth0")[0]])
transactions.clear()
registry.collect(kernel, ruleset(), "net", set())
print(sum(map(bool, transactions)) < 9, {*registry.holders(kernel, elements)})
""")
    assert said.splitlines() == ["4 {'net/c2/eth0'}", "True {''}"]
