"""A configuration names links by their alternative names: the links' own names are used everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.pretend import Answer, PretendHost
from tests.system.hostport_nodes import TCP, Plain, ports
from tests.system.pod_network import CNITOOL

pytestmark = pytest.mark.row("hidden-sysctl")

RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
OWN, ALTERNATIVE = "br0", "lan"


@pytest.fixture
def lan(host: PretendHost) -> PretendHost:
    host.run("sh", "-ec", f"ip link add {OWN} up type bridge; ip link property add dev {OWN} altname {ALTERNATIVE}")
    return host


def config(bridge: str, **keys: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": RANGES}
    return {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "ipam": ipam,
        **keys,
    }


def call(host: PretendHost, verb: str, bridge: str = ALTERNATIVE, pod: str = "a", **keys: Any) -> Answer:
    return host.cni("bridge", verb, config(bridge, **keys), netns=f"/run/netns/{pod}", container_id=pod)


def attach(host: PretendHost, bridge: str = ALTERNATIVE, pod: str = "a", **keys: Any) -> Any:
    host.netns(pod)
    answer = call(host, "ADD", bridge, pod, **keys)
    assert answer.status == 0, answer
    return answer.json


def sysctl(host: PretendHost, path: str) -> str:
    return host.run("cat", f"/proc/sys/net/{path}").stdout.strip()


def without_pod(state: Any) -> str:
    """Return the state that an attachment leaves on the host, without MACs and indexes, which differ between pods."""
    return json.dumps(state["host"]["addresses"])


def test_both_names_are_one_bridge(lan: PretendHost) -> None:
    """Sysctls, result, CHECK, STATUS and DEL are the same with either name."""
    result = attach(lan)
    assert result["interfaces"][0]["name"] == OWN
    assert sysctl(lan, f"ipv6/conf/{OWN}/accept_ra") == "0"
    addresses = without_pod(lan.snapshot())
    attach(lan, OWN, "b")
    assert without_pod(lan.snapshot()) == addresses
    for bridge in (OWN, ALTERNATIVE):
        check = call(lan, "CHECK", bridge, prevResult=result)
        assert check.status == 0, check
        assert call(lan, "STATUS", bridge).status == 0
    assert [link["ifname"] for link in lan.ip("link", "show", "type", "bridge")] == [OWN]
    assert call(lan, "DEL").status == 0 and len(lan.ip("link", "show", "type", "veth")) == 1


def test_a_bridge_on_which_ipv6_is_disabled(lan: PretendHost) -> None:
    """ADD finds the bridge's own sysctl and refuses, before anything is touched."""
    lan.run("sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{OWN}/disable_ipv6")
    lan.netns("a")
    for verb, code in (("ADD", 999), ("STATUS", 50)):
        answer = call(lan, verb)
        assert answer.code == code and f"net.ipv6.conf.{OWN}.disable_ipv6" in answer.json["msg"], answer


def test_uplinks(lan: PretendHost) -> None:
    """An uplink is a port already, of the bridge's other name; the bridge itself is no uplink."""
    lan.run(
        "sh",
        "-ec",
        "ip link add up0 type veth peer up9; ip link property add dev up0 altname wan; ip link set up0 master br0",
    )
    attach(lan, uplinks=["wan", "up0"])
    attach(lan, OWN, "b", uplinks=["wan"])
    assert lan.ip("link", "show", "up0")[0]["master"] == OWN
    lan.netns("c")
    for bridge, uplink in ((ALTERNATIVE, OWN), (OWN, ALTERNATIVE), (ALTERNATIVE, ALTERNATIVE)):
        answer = call(lan, "ADD", bridge, "c", uplinks=[uplink])
        assert answer.code == 7 and "is the bridge's own link" in answer.json["msg"], answer


def test_mtu_of_the_uplinks(lan: PretendHost) -> None:
    """mtu "auto" counts an uplink that is down, and not the bridge."""
    lan.run("sh", "-ec", f"ip link add up0 mtu 1400 type veth peer up9; ip link property add dev up0 altname wan; ip link set {OWN} mtu 1300; "
                         "ip link add other mtu 1450 up type veth peer other9")  # fmt: skip
    result = attach(lan, mtu="auto", uplinks=["wan"])
    assert [one["mtu"] for one in result["interfaces"][1:]] == [1400, 1400]


@pytest.mark.kernel_vlan
def test_a_vlans_gateway_port(lan: PretendHost) -> None:
    """Its name derives from the bridge's own name, so that pods of both spellings share it."""
    for pod, bridge in (("a", ALTERNATIVE), ("b", OWN)):
        result = attach(lan, bridge, pod, vlan=7)
        assert result["interfaces"][3]["name"] == f"{OWN}.7"
        assert call(lan, "CHECK", bridge, pod, vlan=7, prevResult=result).status == 0


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize(
    "words", [["-i", "wan"], ["iifname", "wan"], ["iifname", "{", "wan,", "br0", "}"], ["!", "-i", "wan"]], ids=" ".join
)
def test_conditions(host: PretendHost, backend: str, words: list[str]) -> None:
    """Rules match packets, which have the link's own name."""
    plain = Plain(host, backend)
    host.run("sh", "-ec", "ip link add up0 type veth peer up9; ip link property add dev up0 altname wan")
    keys = {**TCP, "conditionsV4": words}
    plain.add(keys)
    assert plain.problems(keys) == ""
    shown = host.run("sh", "-c", "nft list ruleset; iptables-save").stdout
    assert "up0" in shown and "wan" not in shown
    plain.add({**ports((8081, 80)), "conditionsV4": ["-i", "no*" if backend == "" else "none"]}, "c2", number=6)


def test_host_ports_by_a_result_with_the_other_name(host: PretendHost) -> None:
    """Another plugin's result names the bridge by its alternative name."""
    plain = Plain(host)
    host.run("ip", "link", "property", "add", "dev", "br0", "altname", ALTERNATIVE)
    keys = plain.config(TCP)
    keys["prevResult"]["interfaces"][0]["name"] = ALTERNATIVE
    answer = host.cni("portmap", "ADD", keys, netns=plain.netns, container_id="c1")
    assert answer.status == 0 and answer.stderr == "", answer
    assert sysctl(host, "ipv4/conf/br0/route_localnet") == "1"
    host.run("nft", "delete", "table", "inet", "pycni")
    keys["runtimeConfig"] = {}
    assert host.cni("portmap", "ADD", keys, netns=plain.netns, container_id="c2").status == 0
    assert "saddr 127.0.0.0/8" in host.run("nft", "list", "ruleset").stdout


def test_doctor_and_explain(lan: PretendHost) -> None:
    lan.run("mkdir", "-p", "/etc/cni/net.d")
    plugins = [{key: value for key, value in config(ALTERNATIVE).items() if key not in ("cniVersion", "name")}]
    text = json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": plugins})
    lan.run("tee", "/etc/cni/net.d/10-net.conflist", input=text)
    attach(lan)
    found = json.loads(
        lan.run(*CNITOOL, "doctor", "--json", "--bin-dir", lan.bin_dir, check=False, timeout=120).stdout
    )["findings"]
    assert [one for one in found if one["check"] in ("bridges", "ports", "mtu")] == []
    told = lan.run(*CNITOOL, "explain", "/etc/cni/net.d/10-net.conflist", "--bin-dir", lan.bin_dir, timeout=120).stdout
    assert ALTERNATIVE not in told.replace("10-net", "") and "create bridge" not in told
