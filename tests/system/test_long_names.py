"""Container IDs and networks of any length, through the whole life of a chain: the derived names fit."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.pretend import PATH, Answer, PretendHost

LENGTHS = [1, 64, 200, 242, 255, 300, 5000, 100_000]
IFNAME = "eth0.if-of-15-b"
BRIDGE: dict[str, Any] = {
    "type": "bridge", "isGateway": True, "ipMasq": True, "macspoofchk": True, "promiscMode": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}  # fmt: skip
PORT = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
LIMITS = dict.fromkeys(("ingressRate", "ingressBurst", "egressRate", "egressBurst"), 10**6)
TUNING = {"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}


def chain(backend: str) -> list[dict[str, Any]]:
    return [
        {**BRIDGE, "ipMasqBackend": backend},
        {"type": "portmap", "backend": backend, "capabilities": {"portMappings": True}},
        {"type": "firewall", "backend": backend, "ingressPolicy": "same-bridge"},
        {"type": "bandwidth", **LIMITS},
        TUNING,
    ]


class Pod:
    """An attachment of a container with a name of some length."""

    def __init__(self, host: PretendHost, plugins: list[dict[str, Any]], container_id: str, network: str) -> None:
        self.host, self.plugins, self.id, self.network = host, plugins, container_id, network
        self.netns = host.netns("pod")
        self.result: Any = None

    def call(self, verb: str, plugin: dict[str, Any], **more: Any) -> Answer:
        keys = dict(plugin)
        if keys.pop("capabilities", None):
            keys["runtimeConfig"] = {"portMappings": [PORT]}
        config = {"cniVersion": "1.1.0", "name": self.network, **keys, **more}
        answer = self.host.cni(
            plugin["type"], verb, config, netns=self.netns, container_id=self.id, ifname=IFNAME
        )  # fmt: skip
        assert answer.status == 0, (verb, plugin["type"], answer)
        return answer

    def add(self) -> None:
        for plugin in self.plugins:
            self.result = self.call("ADD", plugin, **({"prevResult": self.result} if self.result else {})).json

    def check(self) -> None:
        for plugin in self.plugins:
            self.call("CHECK", plugin, prevResult=self.result)

    def delete(self, **more: Any) -> None:
        for plugin in reversed(self.plugins):
            self.call("DEL", plugin, **more)

    def collect(self, *valid: str) -> None:
        listed = [{"containerID": one, "ifname": IFNAME} for one in valid]
        for plugin in self.plugins:
            self.call("GC", plugin, **{"cni.dev/valid-attachments": listed})


def left(host: PretendHost) -> Any:
    """Return a pod's links, files, elements of nf_tables, and rules of iptables."""
    shown = json.loads(host.run("nft", "--json", "list", "ruleset").stdout)["nftables"]
    held = [thing["name"] for entry in shown for thing in entry.values() if thing.get("elem")]
    files = [path for path in host.snapshot()["files"] if not path.endswith(("/lock", "/boot"))]
    rules = host.run("iptables-save").stdout + host.run("ip6tables-save").stdout
    own = [line for line in rules.splitlines() if "name: " in line or line.startswith("-A CNI-FORWARD -")]
    return (
        sorted(link["ifname"] for link in host.ip("link")),
        held,
        [path for path in files if "/last_reserved_ip." not in path],
        [line for line in own if "CNI-ADMIN" not in line],
    )


def prepare(host: PretendHost, plugins: list[dict[str, Any]]) -> Any:
    """Attach and detach one pod; return the state that is left."""
    pod = Pod(host, plugins, "first", "net")
    pod.add()
    pod.delete()
    host.drop_netns("pod")
    return left(host)


@pytest.mark.parametrize(
    ("length", "backend"),
    [*((length, "nftables") for length in LENGTHS), *((length, "iptables") for length in (101, 200, 255, 5000))],
)
def test_container_ids(host: PretendHost, length: int, backend: str) -> None:
    plugins = chain(backend)
    before = prepare(host, plugins)
    others = before[2]
    for end in ("DEL", "GC"):
        pod = Pod(host, plugins, "c" * length, "net")
        pod.add()
        assert set(left(host)[2]) > set(others)
        pod.check()
        pod.collect(pod.id)
        pod.check()
        host.drop_netns("pod")
        if end == "DEL":
            pod.delete()
            pod.delete(prevResult=pod.result)
        else:
            pod.collect("d" * length)
        assert left(host) == before, end


@pytest.mark.parametrize("length", [64, 240, 300, 5000])
def test_two_ids_with_one_beginning_are_two(host: PretendHost, length: int) -> None:
    """GC and DEL of one leave the other as it is."""
    plugins = [BRIDGE, {"type": "bandwidth", **LIMITS}, TUNING]
    one = Pod(host, plugins, "c" * length + "1", "net")
    one.add()
    host.run("mv", "/run/netns/pod", "/run/netns/one", check=False)
    host.run("sh", "-ec", "touch /run/netns/one; mount --bind /run/netns/pod /run/netns/one; umount /run/netns/pod")
    host.run("rm", "/run/netns/pod")
    one.netns = "/run/netns/one"
    state = left(host)
    for end in ("DEL", "GC"):
        two = Pod(host, plugins, "c" * length + "2", "net")
        two.add()
        one.check()
        two.delete() if end == "DEL" else two.collect(one.id)
        one.check()
        host.drop_netns("pod")
        assert left(host) == state


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("length", [101, 255, 300, 5000])
def test_networks(host: PretendHost, length: int, backend: str) -> None:
    """Only host-local's directory sets a limit, and the error says so; DEL and GC then have nothing to do."""
    plugins = chain(backend)
    before = prepare(host, plugins)
    pod = Pod(host, plugins, "c" * 300, "n" * length)
    if length > 255:
        config = {"cniVersion": "1.1.0", "name": pod.network, **BRIDGE}
        refused = host.cni("bridge", "ADD", config, netns=pod.netns, container_id=pod.id, ifname=IFNAME)
        assert refused.code == 7 and '"name"' in refused.json["msg"]
        pod.delete()
        plugins[0] = {key: value for key, value in plugins[0].items() if key not in ("ipam", "ipMasq", "isGateway")}
        pod.plugins = [plugins[0], plugins[3], TUNING]
    pod.add()
    pod.check()
    pod.collect(pod.id)
    pod.check()
    pod.collect("d")
    pod.delete()
    assert left(host) == before


def test_records_of_tuning_keep_the_references_name_where_it_fits(host: PretendHost) -> None:
    """The suffix of a file during its writing must fit as well. Longer names become a digest, with the names inside."""
    directory = host.root / "run/cni/tuning"
    for length in (64, 230, 231, 255):
        pod = Pod(host, [BRIDGE, TUNING], "c" * length, "net")
        pod.add()
        (name,) = os.listdir(directory)
        plain = f"{pod.id}_{IFNAME}.json"
        assert len(plain) == length + 21
        assert (name == plain) == (length <= 230) and len(name) <= 251
        noted = json.loads((directory / name).read_text())["pycni"]
        assert {"network": "net", "containerID": pod.id, "ifname": IFNAME}.items() <= noted.items()
        pod.delete()
        host.drop_netns("pod")


@pytest.mark.parametrize("length", [1, 64, 238, 239, 255, 300, 5000, 100_000])
def test_cnitool_and_the_library(host: PretendHost, installed: Any, length: int) -> None:
    """The runtime's cache has a name for each, and finds it again."""
    script = "import sys; from shared.cli.cnitool import run; sys.exit(run('/none', sys.argv[1:]))"
    env = {"PATH": PATH, "PYTHONPATH": str(ROOT), "CNI_PATH": str(installed), "CNI_IFNAME": IFNAME}
    network = {"cniVersion": "1.1.0", "name": "net", "plugins": [{**BRIDGE, "promiscMode": False}, TUNING]}
    (host.root / "etc/cni/net.d").mkdir(exist_ok=True)
    (host.root / "etc/cni/net.d/net.conflist").write_text(json.dumps(network))

    def cnitool(*words: str) -> str:
        return host.run(sys.executable, "-c", script, *words, env=env).stdout

    def cached() -> list[str]:
        return os.listdir(host.root / "var/lib/cni/results")

    container_id = "c" * length
    path = host.netns("pod")
    for end in ("del", "gc"):
        cnitool("add", "net", path, "--container-id", container_id)
        cnitool("check", "net", path, "--container-id", container_id)
        plain = f"net-{container_id}-{IFNAME}"
        assert (cached() == [plain]) == (len(plain) <= 255) and len(cached()) == 1
        cnitool("gc", "net")
        assert len(cached()) == 1
        if end == "del":
            cnitool("del", "net", path, "--container-id", container_id)
        else:
            host.drop_netns("pod")
            cnitool("gc", "net")
        assert cached() == []
    leases = [name for name in os.listdir(host.root / "var/lib/cni/networks/net") if name[0] in "1f"]
    assert leases == [] and not os.listdir(host.root / "run/cni/tuning")
