"""cnitool validate and the installed plugins agree on which configurations can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.cli.validate import ERROR, findings
from tests.pretend import PretendHost

IPAM = {"type": "host-local", "subnet": "10.1.0.0/24"}
PLUGINS: list[dict[str, Any]] = [
    {}, {"mtu": "auto"}, {"mtu": "big"}, {"isGatway": True}, {"MTU": 70000}, {"hairpinMode": True, "promiscMode": True}, {"ipMasq": True},
    {"vlan": 5, "vlanTrunk": [{"minID": 7, "maxID": 9}]}, {"vlanTrunk": [{"minID": 7}]}, {"vlanTrunk": [{"minID": 7, "maxID": 6}]},
    {"bridge": "abcdefghijklmno", "vlan": 100, "isGateway": True}, {"bridge": "a/b"}, {"dns": {"search": "x"}}, {"macspoofchk": True},
    {"disableContainerInterface": True}, {"disableContainerInterface": True, "ipam": None}, {"ipam": {}}, {"ipam": []},
    {"ipam": {**IPAM, "subnet": "10.1.0.5/24"}}, {"ipam": {**IPAM, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}}, {"ipam": {"type": "host-local"}},
    {"ipam": {**IPAM, "ranges": [[{"subnet": "10.1.0.0/25"}]]}}, {"ipam": {**IPAM, "ranges": [[{"subnet": "10.2.0.0/25"}, {"subnet": "fd00::/64"}]]}},
    {"ipam": {**IPAM, "routes": [{"dst": "x"}]}}, {"ipam": {**IPAM, "dataDir": "relative"}}, {"ipam": {**IPAM, "type": "absent"}},
    {"runtimeConfig": {"ips": ["10.1.0.9"]}}, {"runtimeConfig": {"ips": ["x"]}}, {"args": {"cni": {"mac": "01:00:00:00:00:01"}}},
]  # fmt: skip


@pytest.mark.parametrize("keys", PLUGINS, ids=json.dumps)
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
        json.dumps(
            {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "ipMasq": True, "ipam": IPAM}]}
        )
    )
    assert [one.severity for one in findings(path, [Path(reference_bin), Path(host.bin_dir)])] == ["note", "note"]
    assert [one.severity for one in findings(path, [Path(host.bin_dir), Path(reference_bin)])] == ["error"]
