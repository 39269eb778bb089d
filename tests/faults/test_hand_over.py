"""A live node changes from the reference to this suite and back, from one release to the next, and is uninstalled.

The tests use whole chains, and compare whole states.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.faults.test_leftovers import BOOKKEEPING
from tests.pretend import PretendHost, read_line
from tests.system import chain_node
from tests.system.test_install import Site, is_launcher, make_site

NETWORK = "net"
BRIDGE: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "hairpinMode": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]},
}
NOTES = (*BOOKKEEPING, "/run/cni/firewall/", "/run/cni/portmap/")
POD_ADDRESS = re.compile(r"10\.7\.0\.[2-9]|fd00:7::[2-9]")
# True: portmap is in the chains that go from one suite to the other. It must delete the rules of the reference's iptables backend.
PORTMAP_GOES_OVER = True


def native(port: int) -> list[dict[str, Any]]:
    """Return the whole chain with the suite's own rules, and a host port."""
    return [BRIDGE, _portmap(port), {"type": "firewall"}]


def goes_over(backend: str, port: int) -> list[dict[str, Any]]:
    """Return this suite's configuration for a pod that the reference made or will delete; it has iptables only."""
    portmap = [{**_portmap(port), "backend": backend}] if PORTMAP_GOES_OVER else []
    return [{**BRIDGE, "ipMasqBackend": backend}, *portmap, {"type": "firewall", "backend": backend}]


def _portmap(port: int) -> dict[str, Any]:
    mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
    return {"type": "portmap", "runtimeConfig": {"portMappings": [mapping]}}


class Node(chain_node.Node):
    """A pretend host on which chains are executed as a runtime does, each time by one of the suites."""

    DEFAULTS: ClassVar[dict[str, Any]] = {"cniVersion": "1.0.0", "name": NETWORK}

    def check_chain(self, pod: str, chain: Sequence[dict[str, Any]], bin_dir: str) -> None:
        for plugin in chain:
            assert self.check(pod, plugin, bin_dir=bin_dir) == "", (plugin["type"], bin_dir)

    def remove(self, pod: str, chain: Sequence[dict[str, Any]], bin_dir: str) -> None:
        self.down(pod, chain, bin_dir=bin_dir, prevResult=self.results[pod])
        self.host.drop_netns(pod)

    def state(self) -> dict[str, Any]:
        """Return links, addresses, routes, leases and every rule, without this suite's notes: others do not know them."""
        found = self.host.snapshot()
        files = {name: text for name, text in found["files"].items() if not any(part in name for part in NOTES)}
        saved = [self.host.run(f"{family}tables-{variant}-save").stdout for family in ("ip", "ip6") for variant in ("nft", "legacy")]  # fmt: skip
        return {
            **found,
            "files": files,
            "nftables": self.host.run("nft", "--stateless", "list", "ruleset").stdout.splitlines(),
            "iptables": [
                re.sub(r"\[\d+:\d+\]", "", line) for text in saved for line in text.splitlines() if line[0] != "#"
            ],
        }


@pytest.mark.parametrize(
    ("first", "backend"), [("reference", "iptables"), ("reference", "nftables"), ("ours", "iptables")]
)
def test_a_pod_goes_to_the_other_suite(
    node: Node, installed: Path, reference_bin: str, first: str, backend: str
) -> None:
    """The node has pods of both. The first makes a pod and the other deletes it: the state is as before."""
    one, other = (reference_bin, str(installed)) if first == "reference" else (str(installed), reference_bin)
    kept1, kept2, chain = (goes_over(backend, port) for port in (8081, 8082, 8080))
    node.up("kept1", kept1, bin_dir=one)
    node.up("kept2", kept2, bin_dir=other)
    before = node.state()
    node.up("pod", chain, bin_dir=one)
    made = node.state()
    assert all(made[part] != before[part] for part in ("host", "files", "iptables"))
    if backend == "iptables":
        # portmap's CHECK looks for its own comments, with the interface in them
        node.check_chain("pod", [plugin for plugin in chain if plugin["type"] != "portmap"], str(installed))
    node.remove("pod", chain, other)
    assert node.state() == before
    node.remove("kept1", kept1, other)
    node.remove("kept2", kept2, one if backend == "iptables" else other)
    assert not POD_ADDRESS.search(json.dumps(node.state()))


# -- another release


# Attaches and deletes one pod after the other until its standard input ends; a line for each, empty or with the failure.
WORKER = """
import json, os, select, subprocess, sys
chain, pod, bin_dir = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
def call(verb, plugin, container, previous):
    env = {
        "PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": "/run/netns/" + pod,
        "CNI_IFNAME": "eth0", "CNI_PATH": bin_dir,
    }
    config = {"cniVersion": "1.0.0", "name": "net", **plugin, **previous}
    done = subprocess.run([bin_dir + "/" + plugin["type"]], input=json.dumps(config), env=env, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise RuntimeError(f"{verb} {plugin['type']}: {done}")
    return {"prevResult": json.loads(done.stdout)} if verb == "ADD" else previous
number = 0
while not select.select([0], [], [], 0)[0]:
    number += 1
    container, previous, complaint = f"{pod}-{number}", {}, ""
    try:
        for verb, plugins in (("ADD", chain), ("CHECK", chain), ("DEL", chain[::-1])):
            for plugin in plugins:
                previous = call(verb, plugin, container, previous)
    except Exception as error:
        complaint = repr(error)
    print(complaint, flush=True)
"""
WORKERS = 3


def change_version(site: Site, version: str) -> None:
    """Make the source that of another version."""
    path = site.source / "pyproject.toml"
    path.write_text(re.sub(r'(?m)^version = ".*"', f'version = "{version}"', path.read_text(), count=1))
    site.change(version)


@pytest.mark.slow
def test_an_upgrade_under_calls(host: PretendHost, tmp_path: Path) -> None:
    """The upgrade is to the same release, to newer ones, and back. No call fails, and the last pod leaves nothing."""
    site = make_site(tmp_path)
    site.run()
    node = Node(host)
    node.up("kept", native(8080), bin_dir=str(site.bin))
    before = node.state()
    workers = []
    for number in range(WORKERS):
        chain = native(8081 + number)
        host.netns(f"pod{number}")
        workers.append(host.popen(sys.executable, "-c", WORKER, json.dumps(chain), f"pod{number}", str(site.bin)))
    complaints = [read_line(worker).decode() for worker in workers]
    trees: set[Path] = set()
    for version in ("0.1.0", "0.2.0", "0.3.0", "0.1.0"):
        if version != "0.1.0" or trees:
            change_version(site, version)
        site.run()
        trees.add(site.tree())
        # the call that a worker began before has ended then, and one more has begun
        complaints += [read_line(worker).decode() for worker in workers for _ in range(2)]
    for worker in workers:
        out, err = worker.communicate()
        complaints += [*out.decode().splitlines(keepends=True), err.decode()]
    assert {complaint.strip() for complaint in complaints} == {""}
    assert len(trees) == 4 and len(complaints) > 4 * 2 * WORKERS
    for number in range(WORKERS):
        host.drop_netns(f"pod{number}")
    assert node.state() == before
    node.check_chain("kept", native(8080), str(site.bin))


# -- an uninstall


def reaches(node: Node, pod: str) -> bool:
    """Return True if the pod's gateway answers it, in both families."""
    return all(
        node.host.run("ip", "netns", "exec", pod, "ping", "-c", "1", "-W", "5", address, check=False).returncode == 0
        for address in ("10.7.0.1", "fd00:7::1")
    )


@pytest.mark.parametrize("then", ["installation", "reference"])
def test_an_uninstall_with_a_pod(host: PretendHost, tmp_path: Path, reference_bin: str, then: str) -> None:
    """The pod keeps its network.

    Another installation deletes it, and so does the reference if the rules are in its chains.
    """
    site = make_site(tmp_path)
    site.run()
    node = Node(host)
    kept, chain = (native(port) if then == "installation" else goes_over("iptables", port) for port in (8080, 8081))
    node.up("kept", kept, bin_dir=str(site.bin))
    before = node.state()
    node.up("pod", chain, bin_dir=str(site.bin))
    made = node.state()
    site.run("--uninstall")
    assert not any(is_launcher(path) for path in site.bin.glob("*"))
    assert node.state() == made and reaches(node, "pod")
    if then == "installation":
        site.run()
        node.check_chain("pod", chain, str(site.bin))
    node.remove("pod", chain, reference_bin if then == "reference" else str(site.bin))
    assert node.state() == before and reaches(node, "kept")
