"""A path is no identity: a DEL whose CNI_NETNS names another namespace touches nothing in it and cleans up the host."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system import chain_node
from tests.system.chain_node import BRIDGE, FIREWALL, PORTMAP, Plugin
from tests.system.test_clean_up import BANDWIDTH, LOOPBACK

INGRESS: Plugin = {"type": "bandwidth", "ingressRate": 10**9, "ingressBurst": 10**8}
TUNING: Plugin = {
    "type": "tuning", "mtu": 1400, "mac": "02:00:00:00:00:09", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
}  # fmt: skip
CHAIN: list[Plugin] = [{**BRIDGE, "ipMasq": True, "macspoofchk": True}, TUNING, BANDWIDTH, PORTMAP, FIREWALL]
OTHER: list[Plugin] = [BRIDGE, {**TUNING, "mac": "02:00:00:00:00:0a"}, BANDWIDTH, FIREWALL]
ALL = [LOOPBACK, *CHAIN]
OLD = "1.0.0"  # the newest version that Debian's reference plugins speak


class Node(chain_node.Node):
    """A node on which DEL for one pod is called with the path of another namespace."""

    def remove(self, pod: str, path: str, plugins: list[Plugin], **keys: Any) -> list[str]:
        """Call DEL for a pod with a path, in the reverse order; return the texts on stderr."""
        said = []
        for plugin in reversed(plugins):
            answer = self.call("DEL", pod, plugin, netns=path, **keys)
            assert (answer.status, answer.stdout) == (0, ""), (plugin["type"], answer)
            said.append(answer.stderr)
        return said

    def loop(self, pod: str) -> None:
        """Bring the pod's lo up as a runtime does."""
        answer = self.call("ADD", pod, LOOPBACK)
        assert answer.status == 0, answer

    def inside(self, pod: str) -> Any:
        """Return the pod's state that another pod's DEL must leave: links, addresses, routes, MACs, sysctls, limits."""
        links = {
            link["ifname"]: (link.get("address"), link["mtu"], link["operstate"])
            for link in self.host.ip("link", netns=pod)
        }
        filtered = self.host.run("ip", "netns", "exec", pod, "sh", "-c", "cat /proc/sys/net/ipv4/conf/*/arp_filter")
        return links, self.host.snapshot([pod])["pods"][pod], filtered.stdout

    def limits(self) -> list[Any]:
        return [
            (one["dev"], one["kind"]) for one in json.loads(self.host.run("tc", "-j", "qdisc").stdout)
            if one["kind"] in ("tbf", "ingress")
        ]  # fmt: skip

    def by(self, bin_dir: str, verb: str, plugin: Plugin, pod: str, **keys: Any) -> Any:
        answer = self.call(verb, pod, plugin, bin_dir=bin_dir, cniVersion=OLD, **keys)
        assert answer.status == 0, answer
        return answer.json if answer.stdout else None

    def port(self, result: Any) -> str:
        """Return the host's link in a result of bridge."""
        return str(result["interfaces"][1]["name"])

    def has(self, link: str) -> bool:
        return link in {one["ifname"] for one in self.host.ip("link")}


@pytest.mark.row("path")
@pytest.mark.parametrize("path", ["/run/netns/b", "/run/link"])
@pytest.mark.parametrize("told", [True, False], ids=["prevResult", "nothing"])
def test_another_pod_at_the_path(node: Node, path: str, told: bool) -> None:
    """That pod is this suite's. The first DEL has been called or not, the pod has gone or not."""
    node.host.run("ln", "-s", "/run/netns/b", "/run/link")
    for pod, chain in (("a", CHAIN), ("b", OTHER)):
        node.up(pod, chain)
        node.loop(pod)
    keys = {"prevResult": node.results["a"]} if told else {}
    before, limits = node.inside("b"), node.limits()
    assert len(limits) == 6
    node.remove("a", path, ALL, **keys)
    assert node.inside("b") == before
    assert len(node.limits()) == 3
    left = node.host.snapshot()["files"]
    assert not [name for name, text in left.items() if '"a"' in text or "/a_" in name or text.startswith("a\r\n")]
    node.remove("a", path, ALL, **keys)
    node.kill("a")
    node.remove("a", path, ALL, **keys)
    assert node.inside("b") == before and len(node.limits()) == 3
    node.down("b", OTHER)
    assert node.limits() == []


@pytest.mark.row("path")
def test_the_same_inode_number(node: Node) -> None:
    """The kernel reuses a deleted namespace's number: the number by itself proves nothing.

    The number cannot be forced, so the test writes it into the record.
    """
    for pod in ("a", "b"):
        node.up(pod, [BRIDGE])
    for pod in ("a", "b"):
        answer = node.call("ADD", pod, {**TUNING, "mac": ""}, prevResult=node.results[pod])
        assert answer.status == 0, answer
    path = node.host.root / "run/cni/tuning/a_eth0.json"
    noted = json.loads(path.read_text())
    _, number, cookie = noted["pycni"]["namespace"].split(":")
    assert cookie.isdigit()
    device, number = node.host.run("stat", "-c", "%d %i", "/run/netns/b").stdout.split()
    noted["pycni"]["namespace"] = f"{device}:{number}:{cookie}"
    path.write_text(json.dumps(noted))
    before = node.inside("b")
    (said,) = node.remove("a", "/run/netns/b", [TUNING])
    assert node.inside("b") == before
    assert "/run/netns/b" in said and not path.exists()


@pytest.mark.row("path")
@pytest.mark.parametrize("alive", [True, False], ids=["pod there", "pod gone"])
@pytest.mark.parametrize("path", ["/proc/1/ns/net", "/proc/self/ns/net"])
def test_the_hosts_own_namespace_at_the_path(node: Node, path: str, alive: bool) -> None:
    """DEL means that the pod is gone: it cleans up on the host and succeeds."""
    node.host.run("ip", "link", "set", "lo", "up")
    node.host.run("ip", "link", "add", "eth0", "up", "type", "veth", "peer", "name", "far")
    before = node.left()
    node.up("a", CHAIN)
    if not alive:
        node.kill("a")
    node.remove("a", path, ALL)
    assert node.left() == before
    links = {link["ifname"]: link["flags"] for link in node.host.ip("link")}
    assert "UP" in links["lo"] and "UP" in links["eth0"]


@pytest.mark.row("path")
@pytest.mark.parametrize("path", ["/proc/1/ns/net", "/proc/self/ns/net"])
def test_other_verbs_refuse_the_hosts_own_namespace(node: Node, path: str) -> None:
    node.up("a", CHAIN)
    for plugin in ALL:
        for verb in ("ADD", "CHECK"):
            config = {"cniVersion": "1.1.0", "name": "net", **plugin, "prevResult": node.results["a"]}
            assert node.host.cni(plugin["type"], verb, config, netns=path, container_id="x").code == 8, plugin


# -- pods that the reference has made have no alias on the host


@pytest.mark.row("path")
@pytest.mark.parametrize("told", [True, False], ids=["prevResult", "nothing"])
def test_a_pod_of_the_references_at_the_path(node: Node, reference_bin: str, told: bool) -> None:
    results = {}
    for pod in ("a", "b"):
        node.host.netns(pod)
        results[pod] = node.by(reference_bin, "ADD", BRIDGE, pod)
    keys = {"prevResult": {**results["a"], "cniVersion": "1.1.0"}} if told else {}
    before = node.inside("b")
    node.remove("a", "/run/netns/b", [BRIDGE], **keys)
    assert node.inside("b") == before and node.has(node.port(results["b"]))
    # its own path does not help the repeated DEL, but the result does
    assert node.has(node.port(results["a"])) != told
    node.remove("a", "/run/netns/b", [BRIDGE], **keys)
    assert node.inside("b") == before


@pytest.mark.row("path")
@pytest.mark.parametrize("told", [True, False], ids=["prevResult", "lease"])
def test_a_pod_of_the_references_is_removed(node: Node, reference_bin: str, told: bool) -> None:
    node.host.netns("a")
    result = node.by(reference_bin, "ADD", BRIDGE, "a")
    node.by(node.host.bin_dir, "DEL", BRIDGE, "a", **({"prevResult": result} if told else {}))
    assert not node.has(node.port(result))
    assert [link["ifname"] for link in node.host.ip("link", netns="a")] == ["lo"]


@pytest.mark.row("path")
@pytest.mark.parametrize("bridge", ["", "other0"], ids=["no port", "port of another bridge"])
def test_a_pod_that_nobody_knows_at_the_path(node: Node, bridge: str) -> None:
    """A pod made by hand, or by a suite that has no lease here and leaves no alias."""
    node.up("a", [BRIDGE])
    node.host.netns("b")
    node.host.run("ip", "link", "add", "strange", "type", "veth", "peer", "name", "eth0", "netns", "b")
    node.host.run("ip", "-n", "b", "address", "add", "10.9.0.5/24", "dev", "eth0")
    if bridge:
        node.host.run("ip", "link", "add", bridge, "type", "bridge")
        node.host.run("ip", "link", "set", "strange", "master", bridge)
    before = node.inside("b")
    for _ in range(2):
        node.remove("a", "/run/netns/b", [LOOPBACK, BRIDGE, TUNING, BANDWIDTH])
        assert node.inside("b") == before


@pytest.mark.row("path")
@pytest.mark.parametrize("how", ["no ipam", "no address"])
def test_a_pod_of_the_references_without_a_lease_or_address(node: Node, reference_bin: str, how: str) -> None:
    """DEL removes a port of the bridge if no other pod has it."""
    plugin = {**BRIDGE, "isDefaultGateway": False, "ipam": {}} if how == "no ipam" else BRIDGE
    node.host.netns("a")
    result = node.by(reference_bin, "ADD", plugin, "a")
    node.host.run("ip", "-n", "a", "address", "flush", "dev", "eth0")
    node.by(node.host.bin_dir, "DEL", plugin, "a")
    assert not node.has(node.port(result))


@pytest.mark.row("path")
@pytest.mark.parametrize("limits", [BANDWIDTH, INGRESS], ids=["both", "ingress"])
def test_the_limit_of_the_references_pod(node: Node, reference_bin: str, limits: Plugin) -> None:
    """The ifb to which a link redirects identifies the limit's owner."""
    first: list[Any] = []
    for pod in ("a", "b"):
        first = node.limits()
        node.host.netns(pod)
        node.by(reference_bin, "ADD", limits, pod, prevResult=node.by(reference_bin, "ADD", BRIDGE, pod))
    of_b = [one for one in node.limits() if one not in first]
    assert of_b and len(of_b) == len(first)
    node.remove("a", "/run/netns/b", [limits])
    assert [one for one in node.limits() if one not in first] == of_b


@pytest.mark.row("path", "clean-up")
def test_a_pod_of_the_references_that_hides_its_interface(node: Node, reference_bin: str) -> None:
    node.host.netns("a")
    result = node.by(reference_bin, "ADD", BRIDGE, "a")
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "down")
    node.host.run("ip", "-n", "a", "link", "set", "eth0", "name", "away")
    node.by(node.host.bin_dir, "DEL", BRIDGE, "a", prevResult=result)
    assert not node.has(node.port(result))


@pytest.mark.row("path")
def test_a_result_that_names_strangers(node: Node) -> None:
    """A link is not the attachment's if its kind, MAC or owner differ, or if its other end is on the host."""
    node.up("b", [BRIDGE])
    node.host.netns("c")
    node.host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far")
    node.host.run("ip", "link", "add", "lent", "type", "veth", "peer", "name", "eth0", "netns", "c")
    links = {link["ifname"]: link["address"] for link in node.host.ip("link")}
    named = [{"name": name, "mac": mac} for name, mac in links.items() if name != "lent"]
    named += [{"name": "lent", "mac": "02:00:00:00:00:0c"}, {"name": "lent"}, {"name": "../x", "mac": links["lo"]}]
    before = node.left()
    for path in ("", "/run/netns/b", "/run/netns/c"):
        node.remove("a", path, [BRIDGE, TUNING, BANDWIDTH], prevResult={"cniVersion": "1.1.0", "interfaces": named})
    assert node.left() == before


@pytest.mark.row("path")
@pytest.mark.parametrize("first", ["ours", "reference"])
def test_a_record_of_the_references(node: Node, reference_bin: str, first: str) -> None:
    """The record does not name the namespace; the pod's link on the host does, by its alias or by the result."""
    plugin = {**TUNING, "mtu": 1350}
    for pod in ("a", "b"):
        node.host.netns(pod)
        result = node.by(node.host.bin_dir if first == "ours" else reference_bin, "ADD", BRIDGE, pod)
        node.results[pod] = node.by(reference_bin, "ADD", plugin, pod, prevResult=result)
    before = node.inside("b")
    keys = {"prevResult": {**node.results["a"], "cniVersion": "1.1.0"}}
    content = (node.host.root / "run/cni/tuning/a_eth0.json").read_text()
    node.remove("a", "/run/netns/b", [plugin], **keys)
    assert node.inside("b") == before
    (node.host.root / "run/cni/tuning/a_eth0.json").write_text(content)
    node.remove("a", "/run/netns/a", [plugin], **keys)
    assert node.inside("a")[0]["eth0"][1] == 1500


# -- loopback


@pytest.mark.row("path")
def test_a_lo_that_another_has_brought_up(node: Node) -> None:
    """DEL takes down the link that its ADD brought up, even if others asked for it later."""
    for pod in ("a", "b"):
        node.host.netns(pod)
        node.loop(pod)
    node.remove("a", "/run/netns/b", [LOOPBACK])
    again = node.host.cni(
        "loopback", "ADD", {"cniVersion": "1.1.0", "name": "other", **LOOPBACK}, netns="/run/netns/b", container_id="b"
    )
    assert again.status == 0
    assert "UP" in node.host.ip("link", "show", "lo", netns="b")[0]["flags"]
    node.remove("b", "/run/netns/b", [LOOPBACK])
    (lo,) = node.host.ip("link", "show", "lo", netns="b")
    assert "UP" not in lo["flags"] and "ifalias" not in lo


@pytest.mark.row("path")
def test_a_lo_with_long_names(node: Node) -> None:
    """An alias has no room for them: it has a digest."""
    node.host.netns("a")
    config = {"cniVersion": "1.1.0", "name": "n" * 300, **LOOPBACK}
    for verb, is_up in (("ADD", True), ("DEL", False)):
        assert node.host.cni("loopback", verb, config, netns="/run/netns/a", container_id="c" * 300).status == 0
        assert ("UP" in node.host.ip("link", "show", "lo", netns="a")[0]["flags"]) is is_up


@pytest.mark.row("path")
@pytest.mark.parametrize("name", [1, [], "x" * 300, "a/b", {}])
def test_a_bridge_that_can_be_none(node: Node, reference_bin: str, name: Any) -> None:
    """DEL needs no valid keys: the link stays until its namespace is deleted."""
    node.host.netns("a")
    node.by(reference_bin, "ADD", BRIDGE, "a")
    node.host.run("ip", "-n", "a", "address", "flush", "dev", "eth0")
    node.remove("a", "/run/netns/a", [{**BRIDGE, "bridge": name}])
