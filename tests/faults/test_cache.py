"""The runtime's cache damaged or lost under running pods, and gc after it: living pods keep everything, dead ones go."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pretend import PATH, TREE, PretendHost, read_line

NETWORK: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge", "isDefaultGateway": True, "ipMasq": True, "macspoofchk": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.45.0.0/24"}], [{"subnet": "fd00:45::/64"}]]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
        {"type": "bandwidth", "ingressRate": 8_000_000_000, "ingressBurst": 8_000_000_000},
    ],
}  # fmt: skip
RESULTS = "/var/lib/cni/results"
ENTRY = f"{RESULTS}/pods-a-1-eth0"  # a name that can be split in more ways than one
LIVING = {"a-1": "10.45.0.2", "b": "10.45.0.3"}
DEAD = {"dead": "10.45.0.4", "lost": "10.45.0.5"}  # the cache remembers the first alone
SERVER = """
import socket
server = socket.create_server(("", 80))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
CONNECT = "import socket, sys; [socket.create_connection(('10.45.0.1', int(port)), 5).close() for port in sys.argv[1:]]"
LIBRARY = """
import sys
from shared.runtime import conflist
from shared.runtime.client import Client
network = conflist.named("/etc/cni/net.d", "pods", sys.exit)
Client([sys.argv[1]]).gc(network, [tuple(one.split("/")) for one in sys.argv[2:]])
"""

# A main plugin by others: its links have names of its own, no alias, and it has host-local assign the addresses.
OTHER = """#!{python} -I
import json, os, subprocess, sys
config = sys.stdin.read()
answer = subprocess.run(["{bin_dir}/host-local"], input=config, capture_output=True, text=True, check=True).stdout
if os.environ["CNI_COMMAND"] == "ADD":
    result, pod = json.loads(answer), os.environ["CNI_NETNS"]
    link = "other" + os.environ["CNI_CONTAINERID"]
    subprocess.run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", os.path.basename(pod)])
    for ip in result["ips"]:
        subprocess.run(["nsenter", "--net=" + pod, "ip", "address", "add", ip["address"], "dev", "eth0"])
    result["interfaces"] = [{{"name": link}}, {{"name": "eth0", "sandbox": pod}}]
    for ip in result["ips"]:
        ip["interface"] = 1
    print(json.dumps(result))
"""


class Node:
    """Two pods that live and two that died without DEL, each with links, leases, masquerade, a host port, a limit."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        host.run("mkdir", "-p", "/etc/cni/net.d")
        host.run("tee", "/etc/cni/net.d/pods.conflist", input=json.dumps(NETWORK))
        for number, name in enumerate([*LIVING, *DEAD]):
            ports = {"portMappings": [{"hostPort": 8080 + number, "containerPort": 80, "protocol": "tcp"}]}
            self.cnitool("add", "pods", host.netns(name), "--container-id", name, CAP_ARGS=json.dumps(ports))
        for name in LIVING:
            enter = ("nsenter", f"--net=/run/netns/{name}")
            server = host.popen(*enter, sys.executable, "-c", SERVER, stdin=subprocess.DEVNULL, stderr=None)
            assert server.stdout is not None
            with server.stdout:
                assert read_line(server) == b"ready\n"
        for name in DEAD:
            host.drop_netns(name)
        host.run("rm", f"{RESULTS}/pods-lost-eth0")

    def cnitool(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.host.run(f"{self.host.bin_dir}/cnitool", *args, env={"PATH": PATH, **variables})

    def library(self, *valid: str) -> None:
        env = {"PATH": PATH, "PYTHONPATH": TREE, "PYTHONDONTWRITEBYTECODE": "1"}
        self.host.run(sys.executable, "-c", LIBRARY, self.host.bin_dir, *valid, env=env)

    def kept(self, names: dict[str, str]) -> dict[str, list[str]]:
        """Return the host's things of some pods: leases, elements of nf_tables, links by their alias."""
        marks = [f"pods/{name}/eth0" for name in names]
        rules = re.split(r"[{},\n]", self.host.run("nft", "list", "ruleset").stdout)
        links = [link["ifalias"] for link in self.host.ip("link") if "ifalias" in link]
        leases = [path.name for path in (self.host.root / "var/lib/cni/networks/pods").iterdir()]
        return {
            "leases": sorted(name for name in leases if name in names.values()),
            "rules": sorted(line.strip() for line in rules if any(mark in line for mark in marks)),
            "links": sorted(link for link in links if any(mark in link for mark in marks)),
        }

    def assert_living(self, before: dict[str, list[str]]) -> None:
        assert self.kept(LIVING) == before
        assert before["leases"] == [*LIVING.values()] and len(before["links"]) >= 2 and len(before["rules"]) > 4
        for address in LIVING.values():
            self.host.run("ping", "-c1", "-W5", address)
        self.host.run("ip", "netns", "exec", "b", sys.executable, "-c", CONNECT, "8080")
        self.host.run("ip", "netns", "exec", "a-1", sys.executable, "-c", CONNECT, "8081")


@pytest.fixture
def node(installed: Path) -> Iterator[Node]:
    with PretendHost(installed) as host:
        yield Node(host)


DAMAGE = {
    "empty": ": >$ENTRY",
    **{f"cut at {place}": f"truncate -s $(($(stat -c %s $ENTRY) * {place} / 100)) $ENTRY" for place in (1, 50, 99)},
    "garbage": "head -c 300 /dev/urandom >$ENTRY",
    "zeros": "truncate -s 0 $ENTRY; truncate -s 900 $ENTRY",
    "a number": "echo 7 >$ENTRY",
    "another kind": "sed -i s/cniCacheV1/cniCacheV2/ $ENTRY",
    "a bare result": 'echo \'{"cniVersion": "1.1.0"}\' >$ENTRY',
    "another's words": "cp $RESULTS/pods-dead-eth0 $ENTRY",
    "half a word": 'sed -i \'s/"containerId": "a-1"/"containerId": 1/\' $ENTRY',
    "input/output error": "mount --bind /proc/1/mem $ENTRY",
    "directory": "rm $ENTRY; mkdir $ENTRY",
    "symbolic link": "mv $ENTRY /run/away; ln -s /run/away $ENTRY",
    "FIFO": "rm $ENTRY; mkfifo $ENTRY",
}
LOSS = {
    "file gone": "rm $ENTRY",
    "no directory": "rm -r $RESULTS",
    "nothing in it": "rm $RESULTS/*",
    "a file in its place": "rm -r $RESULTS; : >$RESULTS",
    "a loop in its place": "rm -r $RESULTS; ln -s results $RESULTS",
    "its namespace elsewhere": "sed -i s,/run/netns/a-1,/run/netns/none,g $ENTRY",
    "no namespace named": "sed -i s,/run/netns/a-1,,g $ENTRY",
}


@pytest.mark.row(27)
@pytest.mark.parametrize("how", [*DAMAGE, *LOSS])
def test_gc_touches_no_living_pod(node: Node, how: str) -> None:
    before, dead = node.kept(LIVING), node.kept(DEAD)
    assert dead["leases"] and dead["rules"]
    node.host.run("sh", "-ec", (DAMAGE | LOSS)[how], env={"PATH": PATH, "ENTRY": ENTRY, "RESULTS": RESULTS})
    look = ("find", "/var/lib/cni", "/run/netns", "-printf", r"%p %m %s %T@ %l\n")
    files = node.host.run(*look).stdout

    planned = node.cnitool("gc", "pods", "--dry-run", "--json")
    assert node.host.run(*look).stdout == files
    assert node.kept({**LIVING, **DEAD})["rules"] == sorted(before["rules"] + dead["rules"])
    done = node.cnitool("gc", "pods", "--json")
    assert (done.stdout, done.stderr) == (planned.stdout, planned.stderr)

    node.assert_living(before)
    assert node.kept(DEAD) == {"leases": [], "rules": [], "links": []}
    assert (ENTRY in done.stderr) == (how in DAMAGE)
    plan = json.loads(done.stdout)
    assert {"a-1", "b"} <= {one["containerID"] for one in plan["valid"]}
    assert not {"dead", "lost"} & {one["containerID"] for one in plan["valid"]}
    again = json.loads(node.cnitool("gc", "pods", "--json").stdout)
    assert (again["remove"], again["leftovers"]) == ([], [])


@pytest.mark.row(27)
@pytest.mark.parametrize("how", ["empty", "another kind", "input/output error", "directory"])
def test_the_librarys_gc_keeps_what_it_cannot_read(node: Node, how: str) -> None:
    before = node.kept(LIVING)
    node.host.run("sh", "-ec", DAMAGE[how], env={"PATH": PATH, "ENTRY": ENTRY, "RESULTS": RESULTS})
    node.library("b/eth0")
    node.assert_living(before)
    assert node.kept(DEAD) == {"leases": [], "rules": [], "links": []}
    assert (node.host.root / ENTRY[1:]).is_symlink() or (node.host.root / ENTRY[1:]).exists()
    node.library()
    assert node.kept({"b": LIVING["b"]}) == {
        "leases": [],
        "rules": [],
        "links": [],
    }  # the caller's list is the last word


@pytest.mark.row(27)
def test_an_entry_that_root_may_not_read(node: Node) -> None:
    before = node.kept(LIVING)
    node.host.run("chmod", "000", ENTRY)
    bound = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    done = node.host.run(*bound, f"{node.host.bin_dir}/cnitool", "gc", "pods")
    assert f"{ENTRY}: Permission denied" in done.stderr
    node.assert_living(before)


@pytest.mark.row(27)
def test_a_pod_without_a_name_for_its_namespace_lives(node: Node) -> None:
    """Its server keeps the namespace, which has lost its path; the cache is lost, or names that path."""
    before = node.kept(LIVING)
    node.host.run("umount", "/run/netns/a-1")
    node.cnitool("gc", "pods")
    node.host.run("rm", "/run/netns/a-1")
    node.cnitool("gc", "pods")
    node.host.run("rm", "-r", RESULTS)
    node.cnitool("gc", "pods")
    assert node.kept(LIVING) == before
    assert node.kept(DEAD)["leases"] == []


@pytest.mark.row(27)
def test_an_add_that_is_running_is_not_collected(node: Node) -> None:
    """Its IPAM plugin waits for a word before it answers: the pod has a link, and no record has it yet."""
    script = (
        '#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\n: >/run/begun\nread line </run/may\n'
        'echo \'{"cniVersion": "1.1.0", "ips": [{"address": "10.45.0.9/24"}]}\'\n'
    )
    bin_dir = "/run/bin"
    node.host.run("sh", "-ec", f"mkdir {bin_dir}; mkfifo /run/may; ln -s {node.host.bin_dir}/* {bin_dir}")
    node.host.run("tee", f"{bin_dir}/slow-ipam", input=script)
    node.host.run("chmod", "755", f"{bin_dir}/slow-ipam")
    bridge = {**NETWORK["plugins"][0], "ipam": {"type": "slow-ipam"}}
    slow = {**NETWORK, "plugins": [bridge, *NETWORK["plugins"][1:]]}
    node.host.run("tee", "/etc/cni/net.d/pods.conflist", input=json.dumps(slow))
    env = {"PATH": PATH, "CNI_PATH": bin_dir}
    gc = ("gc", "pods", "--json")
    late = ("add", "pods", node.host.netns("late"), "--container-id", "late")
    with node.host.popen(f"{node.host.bin_dir}/cnitool", *late, env=env) as add:
        node.host.run("sh", "-ec", "until [ -e /run/begun ]; do sleep 0.05; done")
        plan = json.loads(node.cnitool(*gc, CNI_PATH=bin_dir).stdout)
        assert ("late", "eth0") in {(one["containerID"], one["ifname"]) for one in plan["valid"]}
        again = node.host.run(f"{node.host.bin_dir}/cnitool", *late, env=env, check=False)
        assert again.returncode == 1 and "another call is attaching it" in again.stderr
        node.host.run("sh", "-c", "echo >/run/may")
        out, err = add.communicate()
    assert add.returncode == 0, out + err
    assert len(node.kept({"late": "10.45.0.9"})["links"]) >= 1
    node.host.run("ip", "netns", "exec", "late", "ip", "link", "show", "eth0")


def make_foreign_pods(host: PretendHost, *names: str) -> dict[str, str]:
    """Make pods with another suite's main plugin, each with a host port. Return the environment for cnitool."""
    bin_dir = "/run/bin"
    host.run("sh", "-ec", f"mkdir -p {bin_dir} /etc/cni/net.d; ln -s {host.bin_dir}/* {bin_dir}")
    script = OTHER.format(python=sys.executable, bin_dir=bin_dir)
    host.run("install", "-m755", "/dev/stdin", f"{bin_dir}/other", input=script)
    bridge, *rest = NETWORK["plugins"][:2]
    content = {**NETWORK, "plugins": [{"type": "other", "ipam": bridge["ipam"]}, *rest]}
    host.run("tee", "/etc/cni/net.d/pods.conflist", input=json.dumps(content))
    env = {"PATH": PATH, "CNI_PATH": bin_dir}
    for number, name in enumerate(names):
        ports = {"portMappings": [{"hostPort": 8080 + number, "containerPort": 80, "protocol": "tcp"}]}
        add = (f"{host.bin_dir}/cnitool", "add", "pods", host.netns(name), "--container-id", name)
        host.run(*add, env={**env, "CAP_ARGS": json.dumps(ports)})
    return env


@pytest.mark.row(27)
@pytest.mark.parametrize("evidence", ["its address", "its entry that cannot be read", "its young lease"])
def test_one_evidence_is_enough(host: PretendHost, evidence: str) -> None:
    """A pod of another main plugin without any other sign of life."""
    env = make_foreign_pods(host, "a")
    lease, entry = host.root / "var/lib/cni/networks/pods/10.45.0.2", host.root / f"{RESULTS[1:]}/pods-a-eth0"
    age = "sleep 1; touch --date='1 hour ago' /var/lib/cni/networks/pods/*"
    keeper = None
    if evidence == "its address":  # in a namespace that only a process keeps; the result names no host link
        raw = json.loads(entry.read_text())
        raw["result"]["interfaces"][0]["name"] = "unknown"
        entry.write_text(json.dumps(raw))
        keeper = host.popen("ip", "netns", "exec", "a", "sh", "-c", "echo; exec cat")
        assert read_line(keeper)
        host.run("sh", "-c", age)
    elif evidence == "its entry that cannot be read":
        entry.write_text("{")
        host.run("sh", "-c", age)
    else:
        entry.unlink()
    host.drop_netns("a")
    for _ in range(2):
        host.run(f"{host.bin_dir}/cnitool", "gc", "pods", env=env)
        assert lease.exists() and "pods/a/eth0" in host.run("nft", "list", "ruleset").stdout
    if keeper is not None:
        keeper.kill()
        keeper.communicate()
    host.run("rm", "-rf", RESULTS)
    host.run("sh", "-c", age)
    host.run(f"{host.bin_dir}/cnitool", "gc", "pods", env=env)
    assert not lease.exists() and "pods/a/eth0" not in host.run("nft", "list", "ruleset").stdout


@pytest.mark.row(27)
def test_a_host_link_is_enough_evidence(node: Node) -> None:
    """The cache is lost, and the interface has another name in the pod."""
    before = node.kept(LIVING)
    node.host.run("rm", "-r", RESULTS)
    node.host.run("sh", "-ec", "ip -n b link set eth0 down; ip -n b link set eth0 name moved")
    node.cnitool("gc", "pods")
    assert node.kept(LIVING) == before


@pytest.mark.row(27)
@pytest.mark.parametrize("age", ["1 hour ago", "now"])
def test_pods_of_another_main_plugin_are_known_by_their_addresses(host: PretendHost, age: str) -> None:
    """A fresh lease may be of an ADD that is running, whose pod has no address yet."""
    cnitool = f"{host.bin_dir}/cnitool"
    env = make_foreign_pods(host, "a", "b", "dead")
    host.drop_netns("dead")
    host.run("ip", "-n", "b", "address", "flush", "dev", "eth0")  # it may be anybody's then
    host.run("rm", "-r", RESULTS)
    host.run("sh", "-c", f"touch --date='{age}' /var/lib/cni/networks/pods/*:* /var/lib/cni/networks/pods/10.*")
    host.run(cnitool, "gc", "pods", env=env)
    leases = {path.name for path in (host.root / "var/lib/cni/networks/pods").iterdir() if path.name.startswith("10.")}
    rules = host.run("nft", "list", "ruleset").stdout
    kept = {name for name in ("a", "b", "dead") if f"pods/{name}/eth0" in rules}
    if age == "now":
        assert (leases, kept) == ({"10.45.0.2", "10.45.0.3", "10.45.0.4"}, {"a", "b", "dead"})
    else:
        # b's interface could be dead's as well: it has no address
        assert {"10.45.0.2", "10.45.0.3"} <= leases and {"a", "b"} <= kept
        host.run("ip", "-n", "b", "address", "add", "10.45.0.3/24", "dev", "eth0")
        host.run(cnitool, "gc", "pods", env=env)
        assert "pods/dead/eth0" not in host.run("nft", "list", "ruleset").stdout
        assert not (host.root / "var/lib/cni/networks/pods/10.45.0.4").exists()


@pytest.mark.row(27)
def test_plugins_are_not_asked_where_a_pod_cannot_be_told(node: Node) -> None:
    """The host link has no alias: an ADD has just made it, or its names are too long."""
    host = node.host
    script = "from shared.net.owner import Owner; print(Owner('pods', 'early', 'eth0').host_link)"
    link = host.python(script).strip()
    host.netns("early")
    host.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", "early")
    told = node.cnitool("gc", "pods")
    assert f"host link {link}: in use by an unknown pod, so plugins are not asked to clean up" in told.stderr
    assert link in {one["ifname"] for one in host.ip("link")}
    assert node.kept({"dead": DEAD["dead"]})["leases"] == []
    assert node.kept({"lost": DEAD["lost"]})["leases"] == [DEAD["lost"]]
    host.drop_netns("early")
    node.cnitool("gc", "pods")
    assert node.kept(DEAD) == {"leases": [], "rules": [], "links": []}
