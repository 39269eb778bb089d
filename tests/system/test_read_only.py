"""State directories are read-only or missing: verbs that change nothing create nothing, and succeed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pretend import TURNS, Answer, PretendHost

STORE = "/var/lib/cni/networks/net"
CONFIG: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": {"type": "host-local", "subnet": "10.1.0.0/29"}}  # fmt: skip
BRIDGE = {**CONFIG, "type": "bridge"}
PREVIOUS = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/29"}]}
CHAINED: dict[str, dict[str, Any]] = {
    "portmap": {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}},
    "portmap by iptables": {"type": "portmap", "backend": "iptables"},
    "firewall": {},
    "firewall by iptables": {"type": "firewall", "backend": "iptables"},
    "bandwidth": {"ingressRate": 10**6, "ingressBurst": 10**6, "egressRate": 10**6, "egressBurst": 10**6},
    "tuning": {"mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
    "loopback": {},
}


def files(host: PretendHost) -> dict[str, Any]:
    """Return every file and directory of the state with all that a write would change, except times of access."""

    def every(top: Path) -> Iterator[Path]:
        for folder, directories, names in os.walk(top):
            yield Path(folder)
            yield from (Path(folder, name) for name in (*directories, *names))

    turns = host.root / TURNS[1:]
    if not turns.exists():  # each call leaves this file, and DEL writes to it
        host.run("sh", "-c", f"umask 77; mkdir -p {Path(TURNS).parent} && : >{TURNS}", check=False)
    found = {}
    for top in ("var/lib/cni", "run"):
        for path in every(host.root / top):
            if path == turns:
                continue
            held = path.lstat()
            found[str(path)] = (held.st_mode, held.st_ino, held.st_size, held.st_mtime_ns, held.st_nlink)
    return found


def host_local(host: PretendHost, verb: str, pod: str = "a", **keys: Any) -> Answer:
    return host.cni("host-local", verb, {**CONFIG, **keys}, netns="/run/netns/none", container_id=pod)


def make_read_only(host: PretendHost, how: str) -> None:
    if how == "remounted":
        host.run("mount", "-o", "remount,ro", "/var/lib/cni")
    elif how == "bind mount":
        host.run("mount", "--bind", "/var/lib/cni", "/var/lib/cni")
        host.run("mount", "-o", "remount,bind,ro", "/var/lib/cni")


STATES = {
    "as it was left": ":",
    "unsealed": f"touch {STORE}",
    "without index": "rm -r /var/lib/cni/networks/.pycni",
    "without lock": f"rm {STORE}/lock",
    "as the reference leaves it": f"rm -r /var/lib/cni/networks/.pycni; touch {STORE}",
    "rewritten": f"printf a >{STORE}/10.1.0.2",
    "garbled": f": >{STORE}/10.1.0.4",
}


@pytest.mark.parametrize("how", ["remounted", "bind mount"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.row(10, 16)
def test_a_store_that_cannot_be_written(host: PretendHost, state: str, how: str) -> None:
    """CHECK reports the truth, DEL without a lease succeeds, and a DEL that cannot free its lease fails."""
    for pod in "ab":
        assert host_local(host, "ADD", pod).status == 0
    host.run("sh", "-ec", STATES[state])
    make_read_only(host, how)
    before = files(host)
    check = host_local(host, "CHECK", prevResult=PREVIOUS)
    assert check.status == 0, check
    missing = host_local(host, "CHECK", "c", prevResult=PREVIOUS)
    assert missing.code == 999 and "has no lease in" in missing.json["msg"]
    nothing = host_local(host, "DEL", "c")
    assert (nothing.status, nothing.stdout) == (0, ""), nothing
    kept = host_local(host, "DEL")
    assert kept.code == 5 and "cannot release 10.1.0.2" in kept.json["msg"], kept
    assert "Read-only file system" in kept.json["details"]
    assert host_local(host, "ADD", "c").code == 5
    assert host_local(host, "STATUS").code == 50
    assert files(host) == before


@pytest.mark.parametrize("state", STATES)
@pytest.mark.row(16)
def test_who_only_looks_changes_nothing(host: PretendHost, state: str) -> None:
    """CHECK and STATUS write nothing, even if they could."""
    for pod in "ab":
        assert host_local(host, "ADD", pod).status == 0
    host.run("sh", "-ec", STATES[state])
    before = files(host)
    assert host_local(host, "CHECK", prevResult=PREVIOUS).status == 0
    assert host_local(host, "CHECK", "c", prevResult=PREVIOUS).code == 999
    assert host_local(host, "STATUS").status == 0
    assert files(host) == before


@pytest.mark.parametrize("data_dir", ["/var/lib/cni/networks", "/run/none/at/all", "/etc/passwd/x"])
@pytest.mark.row(16)
def test_a_store_that_is_not_there(host: PretendHost, data_dir: str) -> None:
    before = files(host)
    keys = {**CONFIG["ipam"], "dataDir": data_dir}
    check = host_local(host, "CHECK", prevResult=PREVIOUS, ipam=keys)
    assert check.code == 999 and "has no lease in" in check.json["msg"], check
    assert host_local(host, "DEL", ipam=keys).status == 0
    assert host_local(host, "STATUS", ipam=keys).status == (1 if data_dir.startswith("/etc") else 0)
    assert files(host) == before


@pytest.mark.row(16)
def test_a_look_waits_for_the_lock(host: PretendHost) -> None:
    """CHECK sees no partial state of a call; a lock that is no file is an error, as for any call."""
    assert host_local(host, "ADD").status == 0
    host.run("sh", "-ec", f"rm {STORE}/lock; mkfifo {STORE}/lock")
    assert host_local(host, "CHECK", prevResult=PREVIOUS).code == 5
    assert host_local(host, "STATUS").code == 50


def test_bridge_on_a_read_only_store(host: PretendHost) -> None:
    netns = host.netns("pod")
    added = host.cni("bridge", "ADD", BRIDGE, netns=netns)
    host.run("mount", "-o", "remount,ro", "/var/lib/cni")
    assert host.cni("bridge", "CHECK", {**BRIDGE, "prevResult": added.json}, netns=netns).status == 0
    assert host.cni("bridge", "DEL", BRIDGE, container_id="nothing").status == 0
    refused = host.cni("bridge", "DEL", BRIDGE, netns=netns)
    assert refused.code == 5 and "10.1.0.2" in refused.json["msg"]
    host.run("mount", "-o", "remount,rw", "/var/lib/cni")
    assert host.cni("bridge", "DEL", BRIDGE, netns=netns).status == 0


@pytest.mark.parametrize("what", CHAINED)
@pytest.mark.parametrize("before", ["nothing", "others"])
@pytest.mark.row(10, 16)
def test_other_plugins_with_a_read_only_run(host: PretendHost, what: str, before: str) -> None:
    """CHECK and STATUS of an attachment, and DEL without one, with or without directories of other pods."""
    keys = {"type": what, **CHAINED[what]}
    plugin = keys["type"]

    def call(verb: str, pod: str, **more: Any) -> Answer:
        config = {"cniVersion": "1.1.0", "name": "net", **keys, **more}
        return host.cni(plugin, verb, config, netns=f"/run/netns/{pod}", container_id=pod)

    results = {
        pod: host.cni("bridge", "ADD", BRIDGE, netns=host.netns(pod), container_id=pod).json for pod in ("a", "b")
    }
    if before == "others":
        added = call("ADD", "a", prevResult=results["a"])
        assert added.status == 0, added
        results["a"] = added.json
    host.run("mount", "-o", "remount,ro", "/run")
    state = files(host)
    if before == "others":
        check = call("CHECK", "a", prevResult=results["a"])
        assert check.status == 0, check
    status = call("STATUS", "a")
    assert status.status == 0 or "iptables" in what, status
    for result in ({"prevResult": results["b"]}, {}):
        for _ in range(2):
            nothing = call("DEL", "b", **result)
            assert (nothing.status, nothing.stdout) == (0, ""), nothing
    assert call("GC", "b", **{"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}).status == 0
    assert files(host) == state
