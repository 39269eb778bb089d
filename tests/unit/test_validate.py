"""cnitool validate: its findings and their keys, and configurations without findings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.cli.cnitool import run
from shared.cli.config import reading, schema
from shared.cli.config.validate import Finding, findings
from shared.executables import PLUGINS
from tests.plugins import SAMPLES

OWN = "#!/usr/bin/python3 -IS\n# pycni launcher: the code is in /nowhere\n"
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
GOOD = {"type": "bridge", "isGateway": True, "ipam": IPAM}


class Node:
    """A configuration directory, a directory with this suite's executables, one with somebody else's."""

    def __init__(self, directory: Path) -> None:
        self.conf_dir, self.own, self.foreign = (directory / name for name in ("net.d", "own", "foreign"))
        for bin_dir, content, names in (
            (self.own, OWN, PLUGINS),
            (self.foreign, "\x7fELF", (*PLUGINS, "foreign-cni")),
        ):
            bin_dir.mkdir()
            for name in names:
                (bin_dir / name).write_text(content)
                (bin_dir / name).chmod(0o755)
        self.conf_dir.mkdir()

    def write(self, content: Any, name: str = "10-net.conflist") -> Path:
        path = self.conf_dir / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def write_list(self, *plugins: Any, name: str = "net", file: str = "10-net.conflist", **keys: Any) -> Path:
        return self.write({"cniVersion": "1.0.0", "name": name, "plugins": plugins, **keys}, file)

    def findings(self, where: Path | None = None, *bin_dirs: Path) -> list[Finding]:
        return findings(where or self.conf_dir, bin_dirs or (self.own, self.foreign))

    def lines(self, where: Path | None = None, *bin_dirs: Path) -> list[str]:
        found = self.findings(where, *bin_dirs)
        return [f"{Path(one.file).name} {one.path} {one.severity} {one.message}" for one in found]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def bridge(**keys: Any) -> dict[str, Any]:
    return {**GOOD, **keys}


def ports(**keys: Any) -> dict[str, Any]:
    return {"type": "portmap", "capabilities": {"portMappings": True}, "prevResult": {}, **keys}


def ipam(**keys: Any) -> dict[str, Any]:
    return {**GOOD, "ipam": {**IPAM, **keys}}


@pytest.mark.parametrize("plugin", [
    GOOD, {"type": "bridge"}, {"type": "loopback"}, bridge(mtu="auto", vlan=5, preserveDefaultVlan=True),
    {"type": "bridge", "ISGATEWAY": True, "IPAM": {**IPAM, "Routes": [{"DST": "0.0.0.0/0"}]}},
    bridge(capabilities={"mac": True, "ips": True, "ipRanges": False}), bridge(dns={"nameservers": ["1.1.1.1"]}),
    bridge(args={"cni": {"mac": "02:00:00:00:00:01"}, "vendor": 1}), bridge(prevResult={}, mtu=None, forceAddress=True),
    ports(markMasqBit=0, backend="iptables"), ports(masqAll=True), ports(masqAll=False, snat=False), ports(externalSetMarkChain="", backend="nftables"),
    {"type": "firewall", "prevResult": {}, "firewalldZone": "x", "iptablesAdminChainName": "X"}, {"type": "firewall", "prevResult": {}, "backend": "firewalld", "firewalldZone": "x"},
    ipam(subnet="10.2.0.0/24", rangeStart="10.2.0.9"), bridge(ipMasqBackend="", preserveDefaultVlan=False),
])  # fmt: skip
def test_nothing_to_say(node: Node, plugin: Any) -> None:
    node.write_list(plugin)
    assert node.lines() == []


@pytest.mark.parametrize(("plugin", "expected"), [
    # values
    (bridge(mtu="big"), ["mtu error .big. must be a whole number"]),
    (bridge(mtu="big", vlan=4095), ["mtu error", "vlan error 4095 must"]),
    (bridge(vlanTrunk=[{"id": 0}, {"id": "x"}]), [r"vlanTrunk\[0\].id error 0 must", r"vlanTrunk\[1\].id error .x. must"]),
    (bridge(vlanTrunk=[5]), [r"vlanTrunk\[0\] error 5 must be an object"]),
    (bridge(ipam=5), ["ipam error 5 must be an object"]),
    (ipam(ranges=[[{"subnet": "10.1.0.0/24", "rangeEnd": "q"}], [{}]]), [r"ipam.ranges\[0\]\[0\].rangeEnd error", r"ipam.ranges\[1\]\[0\].subnet error is required"]),
    (ipam(ranges={}), ["ipam.ranges error {} must be a list"]),
    (bridge(args={"cni": {"mac": "x"}}), ["args.cni.mac error"]),
    (bridge(dns={"nameservers": "1.1.1.1"}), ["dns error"]),
    # keys
    (bridge(isGatway=True), ['isGatway warning unknown key; did you mean "isGateway"']),
    (bridge(pycni={"lgo": "/x"}), ['pycni.lgo warning unknown key; did you mean "log"']),
    (bridge(pycni={"log": "x"}), ['pycni.log error "x" must be an absolute path']),
    (bridge(HAIRPINMOD=True), ['HAIRPINMOD warning unknown key; did you mean "hairpinMode"']),
    (bridge(zzzzzz=1), ["zzzzzz warning unknown key$"]),
    (ipam(rangestat=1), ['ipam.rangestat warning .* "rangeStart"']),
    (ipam(routes=[{"dts": "0.0.0.0/0", "dst": "0.0.0.0/0"}]), [r'ipam.routes\[0\].dts warning .* "dst"']),
    (ipam(ranges=[[{"subnet": "10.1.0.0/24", "gatway": "x"}]]), [r'ipam.ranges\[0\]\[0\].gatway warning .* "gateway"']),
    (bridge(dns={"nameserver": []}), ['dns.nameserver warning .* "nameservers"']),
    (bridge(args={"cni": {"macc": 1}}), ['args.cni.macc warning .* "mac"']),
    (bridge(ipam={"subnet": "10.1.0.0/24"}), ["ipam.type warning is missing"]),
    # contradictions
    (bridge(hairpinMode=True, promiscMode=True), ["hairpinMode error .*promiscMode"]),
    (bridge(disableContainerInterface=True), ["disableContainerInterface error .*ipam"]),
    (bridge(vlanTrunk=[{"minID": 7}]), [r"vlanTrunk\[0\].minID error .*maxID"]),
    ({"type": "bridge", "isGateway": True}, ['isGateway warning has no effect without "ipam"']),
    (bridge(preserveDefaultVlan=True), ['preserveDefaultVlan warning .* "vlan"']),
    (ipam(rangeStart="10.1.0.9"), ['ipam.rangeStart warning .* "subnet"']),
    (ipam(ranges=[[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]]), ["ipam.ranges error .*overlaps"]),
    (ipam(subnet="10.9.0.1/24"), ["ipam.subnet error .*host bits"]),
    (ipam(ranges=[[{"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"}]]), ["ipam warning the gateway 10.2.0.1 is outside"]),
    # keys of another backend, or of a feature that is off
    (ports(markMasqBit=0), ['markMasqBit warning has no effect unless "backend" is "iptables"$']),
    (ports(externalSetMarkChain="X", backend="nftables"), ['externalSetMarkChain warning has no effect unless "backend" is "iptables"$']),
    (ports(externalSetMarkChain="X", backend="iptables", snat=False), ['externalSetMarkChain warning has no effect unless "snat" is true$']),
    (ports(masqAll=True, SNAT=False), ['masqAll warning has no effect unless "snat" is true$']),
    ({"type": "firewall", "prevResult": {}, "backend": "nftables", "firewalldZone": "x"}, ['firewalldZone warning has no effect unless "backend" is "firewalld"$']),
    ({"type": "firewall", "prevResult": {}, "backend": "firewalld", "iptablesAdminChainName": "X"}, ['iptablesAdminChainName warning .* "backend" is "iptables"$']),
    (bridge(ipMasqBackend="iptables"), ['ipMasqBackend warning has no effect without "ipMasq"']),
    # capabilities
    (bridge(capabilities={"portMappings": True}), ["capabilities.portMappings warning this plugin does not support it$"]),
    (bridge(capabilities={"ipRange": True}), ['capabilities.ipRange warning .*did you mean "ipRanges"']),
    (bridge(capabilities={"mac": "true"}), ["capabilities.mac warning .true. is read as false"]),
    (bridge(capabilities=["mac"]), ["capabilities error"]),
    (bridge(runtimeConfig={"mac": "02:00:00:00:00:01"}), ["runtimeConfig.mac warning .*capabilities"]),
    (bridge(ipam={"type": "host-local"}), ["ipam.ranges error is required"]),
    (bridge(ipam={"type": "host-local"}, capabilities={"ipRanges": True}), ["ipam.ranges note the runtime"]),
    # the installed plugins
    ({"type": "absent"}, ["type error plugin absent not found", "type note absent is not a plugin of this suite"]),
    (bridge(ipam={"type": "whereabouts", "what": 1}), ["ipam.type error plugin whereabouts not found", "ipam.type note"]),
    ({"type": "../bridge"}, ["type error .* not a file name", "type note"]),
    ({"type": "foreign-cni", "anything": 1}, ["type note .*only the general checks"]),
    ({"type": "portmap"}, ["capabilities.portMappings warning"]),
    ({"type": "portmap", "capabilities": {"portMappings": True}}, []),
    ({"type": "bandwidth"}, ["capabilities.bandwidth warning"]),
    ({"type": "bandwidth", "capabilities": {"bandwidth": True}}, []),
    ({"type": "bandwidth", "ingressRate": 8000, "ingressBurst": 80000}, []),
    ({"type": "bandwidth", "ingressRate": 8000}, ['ingressRate error 8000 needs "ingressBurst"']),
])  # fmt: skip
def test_findings_of_a_plugin(node: Node, plugin: Any, expected: list[str]) -> None:
    node.write_list({"type": "loopback"}, plugin)
    lines = node.lines()
    assert len(lines) == len(expected), lines
    for line, pattern in zip(lines, expected, strict=True):
        assert re.match(rf"10-net.conflist plugins\[1\]{'' if pattern.startswith(' ') else '.'}{pattern}", line), line


@pytest.mark.parametrize(("keys", "expected"), [
    ({"cniVersion": None}, "cniVersion warning is missing"), ({"cniVersion": "1.2.0"}, "cniVersion error .1.2.0. is not a version"),
    ({"plugin": []}, 'plugin warning .*"plugins"'), ({"disableChek": True}, 'disableChek warning .*"disableCheck"'),
    ({"name": "a b"}, " error name: a network name is required"), ({"plugins": []}, " error plugins: "), ({"disableCheck": 5}, " error disableCheck: "),
])  # fmt: skip
def test_findings_of_a_list(node: Node, keys: dict[str, Any], expected: str) -> None:
    path = node.write({"cniVersion": "1.0.0", "name": "net", "plugins": [GOOD], **keys})
    (line,) = node.lines(path)
    assert re.match(f"10-net.conflist {expected}", line), line


@pytest.mark.parametrize("plugin", SAMPLES)
def test_a_plugin_that_needs_one_before_it(node: Node, plugin: str) -> None:
    """It is refused as the first one; others are not."""
    for plugins, position in ([GOOD, {"type": plugin}], None), ([{"type": plugin}, GOOD], 0):
        node.write_list(*plugins)
        found = [line for line in node.lines() if "comes first" in line]
        if position is None or not SAMPLES[plugin].before:
            assert found == []
        else:
            assert found[0].startswith(f"10-net.conflist plugins[0].type error {plugin} comes first")


def test_version_that_a_plugin_does_not_speak(node: Node) -> None:
    node.write_list(GOOD, {"type": "bandwidth", "ingressRate": 8000, "ingressBurst": 80000}, cniVersion="0.2.0")
    (line,) = node.lines()
    assert line.startswith("10-net.conflist plugins[1] error incompatible CNI versions")
    assert "plugin supports 0.3.0, 0.3.1" in line


def test_a_file_with_one_plugin_has_its_keys_at_the_top(node: Node) -> None:
    node.write({"cniVersion": "1.0.0", "name": "net", **bridge(mtu="big", brige="x")}, "10-net.conf")
    assert [line.split()[:3] for line in node.lines()] == [
        ["10-net.conf", "brige", "warning"],
        ["10-net.conf", "mtu", "error"],
    ]


def test_keys_that_stand_twice(node: Node) -> None:
    node.write('{"cniVersion": "1.0.0", "name": "net", "type": "bridge", "mtu": 1400, "mtu": 1500}', "10-net.conf")
    assert node.lines() == ["10-net.conf mtu warning occurs twice in one object; the last value is used"]


def test_a_directory(node: Node) -> None:
    """Files that cannot be loaded are reported beside the findings of the others; files of other names are ignored."""
    node.write_list(bridge(mtu=-1))
    node.write("{", "05-broken.conf")
    node.write("{", "README")
    assert [line.split()[:3] for line in node.lines()] == [
        ["05-broken.conf", "error", "not"],
        ["10-net.conflist", "plugins[0].mtu", "error"],
    ]


def test_nothing_to_load(node: Node) -> None:
    assert node.lines() == ["net.d  error has no valid network configuration"]
    assert "no configuration directory" in node.lines(node.conf_dir / "absent")[0]


def test_networks_of_one_node(node: Node) -> None:
    """The finding is on the later file, or on the file in the command."""
    first = node.write_list(GOOD)
    second = node.write_list(
        ipam(ranges=[[{"subnet": "10.1.0.128/25"}], [{"subnet": "10.2.0.0/24"}]]), name="two", file="20-two.conflist"
    )
    node.write_list(ipam(ranges=[[{"subnet": "10.3.0.0/24"}]]), name="net", file="30-again.conflist")
    overlap = "plugins[0].ipam warning 10.1.0.129-10.1.0.254 overlaps 10.1.0.1-10.1.0.254 of network net in"
    same = "name error"
    lines = node.lines()
    assert (
        len(lines) == 2
        and lines[0].startswith(f"20-two.conflist {overlap}")
        and lines[1].startswith(f"30-again.conflist {same}")
    )
    assert [line.split()[:3] for line in node.lines(first)] == [
        ["10-net.conflist", "plugins[0].ipam", "warning"], ["10-net.conflist", "name", "error"],
    ]  # fmt: skip
    assert [line.split()[:3] for line in node.lines(second)] == [["20-two.conflist", "plugins[0].ipam", "warning"]]


def test_ranges_beside_each_other_do_not_overlap(node: Node) -> None:
    for number, (start, end) in enumerate((("10.1.0.10", "10.1.0.19"), ("10.1.0.20", "10.1.0.29"))):
        entry = {"subnet": "10.1.0.0/24", "rangeStart": start, "rangeEnd": end}
        node.write_list(ipam(ranges=[[entry]]), name=f"n{number}", file=f"{number}.conflist")
    assert node.lines() == []


def test_another_suites_plugins_get_the_general_checks(node: Node) -> None:
    """The executable decides, not its name; a pool that overlaps is reported all the same."""
    node.write_list(bridge(ipMasq=True, whatever=1, dns={"nameserver": []}))
    node.write_list(ipam(subnet="10.1.0.0/30"), name="two", file="20-two.conflist")
    lines = node.lines(None, node.foreign, node.own)
    assert [line.split()[1:3] for line in lines if "note" not in line] == [["plugins[0].dns.nameserver", "warning"]]
    assert sum("only the general checks" in line for line in lines) == 4
    (node.conf_dir / "20-two.conflist").unlink()
    node.write_list(ipam(ranges=[[{"subnet": "10.1.0.0/26"}]]), name="two", file="20-two.conflist")
    assert any("plugins[0].ipam warning 10.1.0.1-10.1.0.62 overlaps" in line for line in node.lines(None, node.foreign))


def test_exit_status_and_output(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNI_PATH", f"{node.own}:{node.foreign}")
    monkeypatch.setenv("NETCONFPATH", str(node.conf_dir))
    path = node.write_list(GOOD)
    assert (run("/nowhere", ["validate", str(path)]), capsys.readouterr().out) == (0, "")
    node.write_list({"type": "foreign-cni"})
    assert run("/nowhere", ["validate"]) == 0 and ": plugins[0].type: note: " in capsys.readouterr().out
    node.write_list(bridge(isGatway=True))
    assert run("/nowhere", ["validate"]) == 1
    assert capsys.readouterr().out == f'{path}: plugins[0].isGatway: warning: unknown key; did you mean "isGateway"?\n'
    node.write_list(bridge(mtu=-1))
    assert run("/nowhere", ["validate", "--json", "--bin-dir", str(node.own)]) == 2
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {"file": str(path), "path": "plugins[0].mtu", "severity": "error", "message": found["message"]}


def test_every_plugin_with_keys_is_asked_for_contradictions() -> None:
    assert [name for name in PLUGINS if schema.keys_of(name) and not reading.reader(name)] == []


keys = st.sampled_from(
    [
        *"ab",
        "type",
        "ipam",
        "mtu",
        "dns",
        "args",
        "cni",
        "routes",
        "ranges",
        "subnet",
        "capabilities",
        "runtimeConfig",
        "mac",
        "vlanTrunk",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["", "x", "host-local", "10.1.0.0/24", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(keys, values), st.dictionaries(keys, values))
def test_whatever_stands_there_is_judged(node: Node, plugin: dict[str, Any], section: dict[str, Any]) -> None:
    node.write_list({**plugin, "type": "bridge", "ipam": {**section, "type": "host-local"}}, plugin)
    assert all(one.severity in ("note", "warning", "error") and one.message for one in node.findings())
