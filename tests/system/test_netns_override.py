"""CNI_NETNS_OVERRIDE: every verb of every plugin works in the plugin's own namespace, and never without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from shared.executables import PLUGINS
from shared.net.owner import Owner
from tests.conftest import ROOT
from tests.plugins import SAMPLES, params
from tests.pretend import PATH, Answer, PretendHost

OWN = "/proc/self/ns/net"
ON = {"CNI_NETNS_OVERRIDE": "1"}
BRIDGE: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": True, "ipMasq": True,
    "macspoofchk": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]},
}  # fmt: skip
# Keys of the plugins after bridge, and of those that stand alone.
OTHERS: dict[str, dict[str, Any]] = {
    name: {key: value for key, value in sample.keys.items() if key != "type"}
    for name, sample in SAMPLES.items()
    if name != "bridge" and PLUGINS[name].startswith("plugins.")
}
CHAINED = [name for name in OTHERS if SAMPLES[name].before]


class Own:
    """A place where plugins get their own network namespace as the pod's: the host's, or one entered before."""

    def __init__(self, host: PretendHost, inside: str) -> None:
        self.host = host
        self.inside = inside
        self.path = OWN
        if inside:
            self.path = host.netns(inside)
            host.run("ip", "-n", inside, "link", "set", "lo", "up")

    def call(self, plugin: str, verb: str, env: Mapping[str, str] = ON, **keys: Any) -> Answer:
        how = {name: keys.pop(name) for name in ("ifname", "netns") if name in keys}
        config = {"cniVersion": "1.1.0", "name": "net", "type": plugin, **keys}
        prefix = ("ip", "netns", "exec", self.inside) if self.inside else ()
        return self.host.cni(plugin, verb, config, **{"netns": self.path, **how}, env=env, prefix=prefix)

    def run(self, script: str) -> None:
        self.host.run(*(("ip", "netns", "exec", self.inside) if self.inside else ()), "sh", "-ec", script)

    def links(self) -> dict[str, dict[str, Any]]:
        return {link["ifname"]: link for link in self.host.ip("address", netns=self.inside or None)}

    def state(self) -> Any:
        found = self.host.snapshot([self.inside] if self.inside else [])
        found["files"] = {
            path: text
            for path, text in found["files"].items()
            if not path.endswith(("/lock", "/boot")) and "/last_reserved_ip." not in path
        }
        return found


@pytest.fixture(params=["", "entered"], ids=["host", "entered"])
def own(request: pytest.FixtureRequest, host: PretendHost) -> Own:
    return Own(host, request.param)


def test_bridge_has_both_ends_here(own: Own) -> None:
    before = own.state()
    added = own.call("bridge", "ADD", **BRIDGE)
    assert added.status == 0, added
    links = own.links()
    port = Owner("net", "c1", "eth0").host_link
    assert links[port]["master"] == "br0" and links[port]["link"] == "eth0" and links["eth0"]["link"] == port
    addresses = {one["local"] for one in links["eth0"]["addr_info"]}
    assert {"10.7.0.2", "fd00:7::2"} <= addresses
    assert added.json["interfaces"][2] | {"mac": "", "mtu": 0} == {
        "name": "eth0", "mac": "", "mtu": 0, "sandbox": own.path,
    }  # fmt: skip
    check = own.call("bridge", "CHECK", **BRIDGE, prevResult=added.json)
    assert check.status == 0, check
    second = own.call("bridge", "ADD", **BRIDGE)
    assert second.code == 999 and "eth0" in second.json["msg"]
    assert own.call("bridge", "CHECK", **BRIDGE, prevResult=added.json).status == 0
    for _ in range(2):
        assert own.call("bridge", "DEL", **BRIDGE, prevResult=added.json).status == 0
    after = own.state()
    for state in (before, after):  # the bridge stays, as it does for any pod
        for network in (state["host"], *state["pods"].values()):
            network["links"].pop("br0", None)
            for kind in ("addresses", "routes"):
                network[kind] = [line for line in network[kind] if "br0" not in line]
    assert after == before


# One place is enough for a plugin that may have to run on the slow stock kernel.
PLACES = [
    pytest.param(place, *plugin.values, marks=plugin.marks, id=f"{plugin.values[0]}-{place or 'host'}")
    for plugin in params(OTHERS)
    for place in (["entered"] if plugin.marks else ["", "entered"])
]


@pytest.mark.parametrize(("own", "plugin"), PLACES, indirect=["own"])
def test_every_verb(own: Own, plugin: str) -> None:
    keys = dict(OTHERS[plugin])
    own.run(SAMPLES[plugin].links)
    if plugin in CHAINED:
        # sbr's gateway cannot be an address of the pod's own namespace
        keys["prevResult"] = own.call("bridge", "ADD", **BRIDGE | {"isGateway": plugin != "sbr"}).json
    before = own.state()
    added = own.call(plugin, "ADD", **keys)
    if plugin in ("ptp", "host-device"):  # which need two namespaces
        assert (added.code, own.state()) == (8, before)
        return
    assert added.status == 0, added
    check = own.call(plugin, "CHECK", **{**keys, "prevResult": added.json})
    assert check.status == 0, check
    for _ in range(2):
        assert own.call(plugin, "DEL", **{**keys, "prevResult": added.json}).status == 0
    if plugin == "loopback":
        assert "UP" not in own.links()["lo"]["flags"]
        own.call(plugin, "ADD")
    assert own.state() == before


@pytest.mark.parametrize("value", ["", "0", "no", "false", "2", "TRUE ", "yes", None])
@pytest.mark.parametrize("plugin", ["bridge", *OTHERS])
@pytest.mark.row(7)
def test_nothing_without_it(host: PretendHost, plugin: str, value: str | None) -> None:
    """The host's own links, a stranger's and a missing one: code 8, or for DEL "gone". Nothing is touched."""
    own = Own(host, "")
    host.run("ip", "link", "add", "uplink", "up", "type", "veth", "peer", "name", "far")
    keys = BRIDGE if plugin == "bridge" else OTHERS[plugin]
    before = own.state()
    env = {} if value is None else {"CNI_NETNS_OVERRIDE": value}
    for verb in ("ADD", "CHECK", "DEL"):
        for ifname in ("uplink", "lo", "new"):
            previous = {
                "cniVersion": "1.1.0",
                "interfaces": [{"name": ifname, "sandbox": OWN}],
                "ips": [{"address": "10.7.0.9/24", "interface": 0}],
            }
            answer = own.call(plugin, verb, env, **keys, prevResult=previous, ifname=ifname)
            wanted = (0, None) if verb == "DEL" else (1, 8)
            assert (answer.status, answer.code) == wanted, (verb, ifname, answer)
    assert own.state() == before


@pytest.mark.parametrize("value", ["1", "true", "True", "TRUE", "tRuE"])
def test_words_for_yes(host: PretendHost, value: str) -> None:
    assert Own(host, "").call("loopback", "ADD", {"CNI_NETNS_OVERRIDE": value}).status == 0


@pytest.mark.parametrize("ifname", ["uplink", "port", "inner", "br0", "lo"])
def test_an_interface_that_is_there_is_refused_and_stays(own: Own, ifname: str) -> None:
    """bridge's ADD refuses it. The runtime then calls DEL, and no plugin touches the interface or its other end."""
    where = ("ip", "-n", own.inside) if own.inside else ("ip",)
    tc = ("tc", "-n", own.inside) if own.inside else ("tc",)
    own.host.run(*where, "link", "add", "uplink", "up", "type", "veth", "peer", "name", "far")
    own.host.run(*where, "link", "add", "br0", "up", "type", "bridge")
    own.host.run(*where, "link", "add", "port", "up", "master", "br0", "type", "veth", "peer", "name", "inner")
    for name in ("uplink", "far", "port", "inner"):
        own.host.run(*tc, "qdisc", "add", "dev", name, "ingress")
    before = own.state(), own.host.run(*tc, "qdisc").stdout
    added = own.call("bridge", "ADD", **BRIDGE, ifname=ifname)
    assert added.code == 999 and ifname in added.json["msg"], added
    for plugin in ("tuning", "bandwidth", "firewall", "portmap"):
        assert own.call(plugin, "DEL", **OTHERS[plugin], ifname=ifname).status == 0
    assert own.call("bridge", "DEL", **BRIDGE, ifname=ifname).status == 0
    assert (own.state(), own.host.run(*tc, "qdisc").stdout) == before


def test_an_interface_of_another_network_is_no_renamed_networks(own: Own) -> None:
    """Pods share the namespace, with one container and name: DEL of a network without an interface leaves it."""
    assert own.call("bridge", "ADD", **{**BRIDGE, "name": "other"}).status == 0
    before = own.state()
    for plugin in ("bridge", "bandwidth", "firewall", "portmap"):
        assert own.call(plugin, "DEL", **(BRIDGE if plugin == "bridge" else OTHERS[plugin])).status == 0
    assert own.state() == before


def test_a_namespace_of_a_pod_is_as_ever(host: PretendHost) -> None:
    """The variable does not change it."""
    netns = host.netns("pod")
    own = Own(host, "")
    added = own.call("bridge", "ADD", **BRIDGE, netns=netns)
    assert added.status == 0, added
    assert [link["ifname"] for link in host.ip("link", netns="pod")] == ["lo", "eth0"]
    assert own.call("bridge", "CHECK", **BRIDGE, netns=netns, prevResult=added.json).status == 0
    assert own.call("bridge", "DEL", **BRIDGE, netns=netns).status == 0


SCRIPT = """
import json, sys
from shared.runtime import conflist
from shared.runtime.attachment import Attachment
from shared.runtime.client import Client
client = Client([sys.argv[1]])
network = conflist.parse(json.loads(sys.argv[2]))
pod = Attachment("c1", "/proc/self/ns/net")
print(json.dumps(client.add(network, pod)))
client.check(network, pod)
client.delete(network, pod)
"""


def test_the_library_and_cnitool_pass_it_on(host: PretendHost, installed: Any) -> None:
    plugins = [{key: value for key, value in BRIDGE.items() if key not in ("cniVersion", "name")}]
    network = {"cniVersion": "1.1.0", "name": "net", "plugins": [*plugins, {"type": "firewall", "backend": "nftables"}]}
    env = {"PATH": PATH, "PYTHONPATH": str(ROOT), **ON}
    done = host.run(sys.executable, "-c", SCRIPT, str(installed), json.dumps(network), env=env)
    assert json.loads(done.stdout)["interfaces"][2]["sandbox"] == OWN

    (host.root / "etc/cni/net.d").mkdir(exist_ok=True)
    (host.root / "etc/cni/net.d/net.conflist").write_text(json.dumps(network))
    script = "import sys; from shared.cli.cnitool import run; sys.exit(run('/none', sys.argv[1:]))"
    env |= {"CNI_PATH": str(installed)}

    def cnitool(*words: str, on: bool = True) -> str:
        variables = env if on else {name: value for name, value in env.items() if name not in ON}
        return host.run(sys.executable, "-c", script, *words, env=variables).stdout

    path = "/run/netns/own"
    host.run("sh", "-ec", f"mkdir -p /run/netns; : >{path}; mount --bind {OWN} {path}")
    cnitool("add", "net", path)
    cnitool("check", "net", path)
    assert "keep" in cnitool("gc", "--dry-run", "net", on=False)
    cnitool("gc", "net", on=False)
    assert "eth0" in Own(host, "").links()
    cnitool("del", "net", path)
    assert "eth0" not in Own(host, "").links()
