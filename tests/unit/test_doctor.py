"""doctor: its report of its checks, and its knowledge of a kernel's features."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.cli import doctor
from shared.cli.cluster import state
from shared.cli.doctor import cluster, findings, kernel
from shared.cli.doctor.findings import Finding
from shared.cli.doctor.network import Network
from shared.cluster import settings as cluster_settings
from shared.runtime.conflist import parse

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *looks: list[Finding | Exception]
) -> tuple[int, Any]:
    """Run doctor with one check that returns these findings at each look."""
    left = list(looks)

    def check(_node: object) -> Iterator[Finding]:
        for found in left.pop(0):
            if isinstance(found, Exception):
                raise found
            yield found

    monkeypatch.setattr(doctor, "CHECKS", (("one", check),))
    monkeypatch.setattr(doctor, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    status = doctor.run(argparse.Namespace(json=True, bin_dir=["/nonexistent"], conf_dir="/nonexistent"))
    assert left == []
    return status, json.loads(capsys.readouterr().out)["findings"]


LASTING, PASSING = findings.warning("this", "lasts", "do"), findings.error("that", "passes", "do")
NOTE = findings.note("here", "is good to know", "nothing")


def test_what_passes_by_itself_is_no_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = run(monkeypatch, capsys, [LASTING, PASSING], [LASTING])
    assert (status, [one["where"] for one in found]) == (1, ["this"])
    status, found = run(monkeypatch, capsys, [LASTING], [PASSING])
    assert (status, found) == (0, [])


def test_notes_need_one_look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = run(monkeypatch, capsys, [NOTE, NOTE])
    assert (status, [one["severity"] for one in found]) == (0, ["note"])


def test_failing_check_keeps_what_it_found_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look: list[Finding | Exception] = [LASTING, ValueError("no such luck")]
    status, found = run(monkeypatch, capsys, look, look)
    assert (status, [one["where"] for one in found]) == (2, ["check one", "this"])
    assert found[0]["what"] == "failed: ValueError: no such luck"


def test_only_root_is_served(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert doctor.run(argparse.Namespace(json=False, bin_dir=None, conf_dir=None)) == 2
    assert "only root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "module_list", "expected"),
    [
        ("y", None, True),
        ("n", "kernel/none-such.ko.xz:", False),
        ("m", None, None),
        ("m", "kernel/net/none-such.ko.xz: kernel/other.ko", True),
        ("m", "kernel/net/not-none-such-it.ko:", False),
        (None, None, None),
        (None, "kernel/net/none-such.ko:", True),
        (None, "kernel/net/other.ko:", False),
    ],
)
def test_what_a_kernel_has(tmp_path: Path, option: str | None, module_list: str | None, expected: bool | None) -> None:
    feature = kernel.Feature("none such", "CONFIG_NONE_SUCH", "none-such", lambda _network: False)
    options = {} if option is None else {"CONFIG_OTHER": "y", "CONFIG_NONE_SUCH": option}
    if module_list is not None:
        (tmp_path / "modules.dep").write_text(module_list)
        (tmp_path / "modules.builtin").write_text("kernel/net/built-in.ko\n")
    assert kernel.has_feature(feature, options, tmp_path) is expected


def test_doctor_knows_every_option_that_the_documents_name() -> None:
    named = {option for page in REFERENCE.rglob("*.md") for option in re.findall(r"CONFIG_\w+", page.read_text())}
    assert named and named <= {feature.option for feature in kernel.FEATURES}


def test_tunnels_and_encryption_need_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of the cluster's settings need them, and no others."""
    raw = {"engine": "etcd", "etcd": {"endpoints": ["https://10.0.0.1:2379"]}, "networks": {"pods": {}}}
    chosen = cluster_settings.parse({**raw, "tunnels": "always", "encryption": "wireguard"})
    monkeypatch.setattr(cluster_settings, "read", lambda: chosen)
    assert not cluster.needs("pods", "tunnels", "always")  # the machine's agent has no "cluster": true
    monkeypatch.setattr(state, "is_wanted", lambda: True)
    assert cluster.needs("pods", "tunnels", "always") and cluster.needs("pods", "encryption", "wireguard")
    assert not cluster.needs("lan", "tunnels", "always") and not cluster.needs("pods", "tunnels", "never")


NF_TABLES = {"NF_TABLES", "NF_TABLES_INET"}
NAT = {*NF_TABLES, "NFT_NAT", "NFT_MASQ"}
LIMITS = {"IFB", "NET_SCH_TBF", "NET_SCH_INGRESS", "NET_CLS_U32", "NET_ACT_MIRRED"}
BRIDGE = {"VETH", "BRIDGE"}


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        ({"type": "bridge"}, BRIDGE),
        ({"type": "bridge", "macspoofchk": True}, {*BRIDGE, "NF_TABLES", "NF_TABLES_BRIDGE"}),
        ({"type": "bridge", "ipMasq": True}, {*BRIDGE, *NAT}),
        ({"type": "bridge", "ipMasq": True, "ipMasqBackend": "iptables", "nonMasqueradeCIDRs": ["10.0.0.0/8"]}, BRIDGE),
        ({"type": "bridge", "ipMasq": True, "nonMasqueradeCIDRs": ["10.0.0.0/8"]}, {*BRIDGE, *NAT, "NFT_FIB_INET"}),
        ({"type": "portmap"}, {*NAT, "NFT_FIB_INET", "NFT_CT", "NF_CONNTRACK_LABELS"}),
        ({"type": "portmap", "backend": "iptables"}, set()),
        ({"type": "firewall"}, set()),
        ({"type": "firewall", "backend": "nftables"}, NF_TABLES),
        ({"type": "firewall", "ingressPolicy": "same-bridge"}, {*NF_TABLES, "NFT_CT"}),
        (
            {"type": "firewall", "ingressPolicy": "isolated"},
            {*NF_TABLES, "NFT_CT", "NF_TABLES_BRIDGE", "NF_CONNTRACK_LABELS"},
        ),
        ({"type": "ptp"}, {"VETH"}),
        ({"type": "macvlan"}, {"MACVLAN"}),
        ({"type": "macvlan", "ipam": {"type": "dhcp"}}, {"MACVLAN", "PACKET"}),
        ({"type": "ipvlan"}, {"IPVLAN"}),
        ({"type": "vlan"}, {"VLAN_8021Q"}),
        ({"type": "dummy"}, {"DUMMY"}),
        ({"type": "tap"}, {"TUN"}),
        ({"type": "host-device"}, set()),
        ({"type": "host-device", "ipam": {"type": "static", "probeSeconds": 1}}, {"PACKET"}),
        ({"type": "sbr"}, {"IP_MULTIPLE_TABLES", "IPV6_MULTIPLE_TABLES"}),
        ({"type": "vrf"}, {"NET_VRF"}),
        ({"type": "bandwidth"}, LIMITS),
        ({"type": "bandwidth", "shapedSubnets": ["10.0.0.0/8"]}, {*LIMITS, "NET_SCH_HTB"}),
        ({"type": "tap", "redirect": "tap0"}, {"TUN", "NET_SCH_INGRESS", "NET_CLS_U32", "NET_ACT_MIRRED"}),
    ],
)
def test_options_that_a_network_needs(
    monkeypatch: pytest.MonkeyPatch, plugin: dict[str, Any], expected: set[str]
) -> None:
    monkeypatch.setattr("shared.cli.doctor.network.own_name", lambda name: name)
    network = Network(parse({"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]}))
    needed = {feature.option for feature in kernel.FEATURES if feature.needed(network)}
    assert needed == {f"CONFIG_{option}" for option in expected}
