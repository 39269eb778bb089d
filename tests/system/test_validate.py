"""cnitool validate and the installed plugins agree on which configurations can be used; so do the printed schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from shared.cli.cnitool import run
from shared.cli.config.validate import ERROR, findings
from shared.executables import PLUGINS
from tests.pretend import PretendHost

IPAM = {"type": "host-local", "subnet": "10.1.0.0/24"}
KEYS: list[dict[str, Any]] = [
    {}, {"mtu": "auto"}, {"mtu": "big"}, {"mtu": 67}, {"uplinks": ["cni0"]}, {"uplinks": []}, {"isGatway": True}, {"MTU": 70000}, {"hairpinMode": True, "promiscMode": True}, {"ipMasq": True},
    {"vlanTrunk": [{"minID": 7}]}, {"vlanTrunk": [{"minID": 7, "maxID": 6}]},
    {"bridge": "abcdefghijklmno", "vlan": 100, "isGateway": True}, {"bridge": "a/b"}, {"dns": {"search": "x"}}, {"macspoofchk": True}, {"bridgeNfCallIptables": "yes"},
    {"ipMasq": True, "ipMasqBackend": "iptables"}, {"macspoofchk": True, "promiscMode": True},
    {"disableContainerInterface": True}, {"disableContainerInterface": True, "ipam": None}, {"ipam": {}}, {"ipam": []},
    {"ipam": {**IPAM, "subnet": "10.1.0.5/24"}}, {"ipam": {**IPAM, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}}, {"ipam": {"type": "host-local"}},
    {"ipam": {**IPAM, "ranges": [[{"subnet": "10.1.0.0/25"}]]}}, {"ipam": {**IPAM, "ranges": [[{"subnet": "10.2.0.0/25"}, {"subnet": "fd00::/64"}]]}},
    {"ipam": {**IPAM, "routes": [{"dst": "x"}]}}, {"ipam": {**IPAM, "dataDir": "relative"}}, {"ipam": {**IPAM, "type": "absent"}},
    {"runtimeConfig": {"ips": ["10.1.0.9"]}}, {"runtimeConfig": {"ips": ["x"]}}, {"args": {"cni": {"mac": "01:00:00:00:00:01"}}},
]  # fmt: skip


VLANS: dict[str, Any] = {"vlan": 5, "vlanTrunk": [{"minID": 7, "maxID": 9}]}
NEEDS_VLANS = pytest.param(VLANS, marks=pytest.mark.kernel_vlan)  # elsewhere STATUS has something against the node


@pytest.mark.parametrize("keys", [*KEYS, NEEDS_VLANS], ids=json.dumps)
def test_an_error_is_what_the_plugin_refuses(host: PretendHost, tmp_path: Path, keys: dict[str, Any]) -> None:
    plugin = {"type": "bridge", "ipam": IPAM, **keys}
    path = tmp_path / "net.conflist"
    path.write_text(json.dumps({"cniVersion": "1.1.0", "name": "net", "plugins": [plugin]}))
    answer = host.cni("bridge", "STATUS", {"cniVersion": "1.1.0", "name": "net", **plugin})
    errors = [str(one) for one in findings(path, [Path(host.bin_dir)]) if one.severity == ERROR]
    assert (answer.status != 0) == bool(errors), (answer, errors)


def test_the_references_plugins_are_recognised(host: PretendHost, reference_bin: str, tmp_path: Path) -> None:
    path = tmp_path / "net.conflist"
    path.write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "mtu": "big", "ipam": IPAM}]})
    )
    assert [one.severity for one in findings(path, [Path(reference_bin), Path(host.bin_dir)])] == ["note", "note"]
    assert [one.severity for one in findings(path, [Path(host.bin_dir), Path(reference_bin)])] == ["error"]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_printed_schemas_are_valid_ones(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("/nowhere", ["schema", plugin]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(printed)


@pytest.mark.parametrize(("plugin", "conf", "wrong"), [
    ("bridge", {"type": "bridge", "mtu": "auto", "vlan": None, "vlanTrunk": [{"id": 5}], "own": 1}, []),
    ("bridge", {"mtu": "big", "vlan": 4095, "vlanTrunk": [{"id": 0}], "args": {"cni": {"mac": "x"}}}, ["args", "mtu", "vlan", "vlanTrunk"]),
    ("host-local", {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}, []),
    ("host-local", {"ipam": {"subnet": 5}}, ["ipam"]),
    ("host-local", {}, [""]),
    ("loopback", {"type": "loopback"}, []),
])  # fmt: skip
def test_the_printed_schemas_judge(
    plugin: str, conf: Any, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run("/nowhere", ["schema", plugin])
    errors = Draft202012Validator(json.loads(capsys.readouterr().out)).iter_errors(conf)
    assert sorted({str(error.path[0]) if error.path else "" for error in errors}) == wrong
