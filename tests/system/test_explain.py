"""cnitool explain: it prints the effects of an ADD, and touches nothing of the host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugins import SAMPLES, links, params
from tests.pretend import PretendHost

ID, IFNAME = "explain", "eth0"
TOOL = """
import sys
sys.path.insert(0, {tree!r})
from shared.cli.cnitool import main
sys.exit(main({tree!r}))
"""
# The rehearsal with a witness at the codec, beside the recording at the sockets.
WITNESSED = """
import json, sys
sys.path.insert(0, {tree!r})
from shared.cli.explain import command as explain
from shared.cli.commands import parser
explain.REHEARSAL = '''
import json, sys
sys.path[:] = {{!r}}
from shared.net import messages
encode = messages.encode
def witness(kind, flags, sequence, message, *tables):
    print("SENT", json.dumps([kind, message]), file=sys.stderr, flush=True)
    return encode(kind, flags, sequence, message, *tables)
messages.encode = witness
from shared.cli.explain.rehearsal import main
main()
'''
sys.exit(explain.run(parser().parse_args()))
"""
RTM_NAMES = {
    16: "RTM_NEWLINK",
    17: "RTM_DELLINK",
    19: "RTM_SETLINK",
    20: "RTM_NEWADDR",
    21: "RTM_DELADDR",
    24: "RTM_NEWROUTE",
}
BRIDGE: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "hairpinMode": True,
    "mtu": "auto",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}
V4_ONLY = {**BRIDGE, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}


def network(*plugins: dict[str, Any], version: str = "1.0.0") -> dict[str, Any]:
    return {"cniVersion": version, "name": "pods", "plugins": list(plugins)}


@pytest.fixture
def node(host: PretendHost) -> PretendHost:
    """Return a host with an uplink of MTU 1400 and a default route."""
    prepare(host)
    return host


def prepare(host: PretendHost) -> None:
    for command in (
        "ip link add up0 mtu 1400 type veth peer name far0",
        "ip address add 192.0.2.2/24 dev up0",
        "ip link set up0 up",
        "ip route add default via 192.0.2.1",
    ):
        host.run(*command.split())


def explain(
    host: PretendHost,
    config: dict[str, Any],
    *options: str,
    bin_dirs: tuple[str, ...] = (),
    program: str = TOOL,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the installed tree's tool in the host."""
    (tree,) = (path.parent for path in (Path(host.bin_dir).parent / "lib").glob("*-*/shared"))
    file = host.root / "etc/cni/pods.conflist"
    file.write_text(json.dumps(config))
    dirs = [word for directory in (*bin_dirs, host.bin_dir) for word in ("--bin-dir", directory)]
    code = program.format(tree=str(tree))
    command = [sys.executable, "-I", "-B", "-c", code, "explain", "/etc/cni/pods.conflist", *dirs, *options]
    return host.run(*command, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})})


def story(host: PretendHost, config: dict[str, Any], *options: str, status: int = 0, **how: Any) -> dict[str, Any]:
    done = explain(host, config, "--json", *options, **how)
    assert done.returncode == status, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def texts(told: dict[str, Any], **wanted: Any) -> list[str]:
    return [step["text"] for step in told["steps"] if all(step[key] == value for key, value in wanted.items())]


def everything(host: PretendHost, netns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the snapshot and all else that could be touched: sysctls, /run, /etc/cni, mounts, namespaces, rules."""
    listing = "find /run /etc/cni /var/lib/cni -printf '%p %y %m %s %l\\n' | sort"
    sysctls = "cd /proc/sys && grep -r . net kernel/hostname vm/swappiness 2>/dev/null | grep -v conntrack_count | sort"
    return {
        **host.snapshot(netns),
        "listing": host.run("sh", "-c", listing).stdout,
        "sysctls": host.run("sh", "-c", sysctls, check=False).stdout,
        "mounts": host.run("cat", "/proc/self/mountinfo").stdout,
        "links": host.run("ip", "-j", "link").stdout,
        "rules": host.run("nft", "list", "ruleset").stdout,
    }


def add(host: PretendHost, config: dict[str, Any], container_id: str = ID, *, netns: str = "explain") -> dict[str, Any]:
    """Call a real ADD of a list with one plugin."""
    request = {**config["plugins"][0], "name": config["name"], "cniVersion": config["cniVersion"]}
    answer = host.cni(
        request["type"], "ADD", request, netns=host.netns(netns), container_id=container_id, ifname=IFNAME
    )
    assert answer.status == 0, answer.stdout
    result: dict[str, Any] = answer.json
    return result


# -- nothing of the machine is touched


@pytest.mark.parametrize("is_new", [True, False])
def test_nothing_is_touched(node: PretendHost, is_new: bool) -> None:
    pods: tuple[str, ...] = ()
    if not is_new:
        add(node, network(BRIDGE), "other", netns="other")
        pods = ("other",)
    explain(node, network(BRIDGE), "--help")  # writes the file
    before = everything(node, pods)
    story(node, network(BRIDGE), "--del")
    assert everything(node, pods) == before


def test_an_executed_plugin_can_touch_nothing_either(node: PretendHost, tmp_path: Path) -> None:
    refused = [
        "echo x >/etc/cni/evil", f"echo x >{tmp_path}/new", "echo evil >/proc/sys/kernel/hostname",
        "cat /proc/sys/vm/swappiness | tee /proc/sys/vm/swappiness >/dev/null",
    ]  # fmt: skip
    tries = [
        *refused, "echo 1 >/proc/sys/net/ipv4/ip_forward", "mkdir -p /var/lib/cni/evil /run/evil", "hostname evil",
        "ip link add evil0 type bridge", "ip netns add evil", "ip link del up0", "umount -l /etc/cni",
    ]  # fmt: skip
    plugin = tmp_path / "evil"
    lines = [f"( {attempt} ) 2>/dev/null && done=$done,{number}" for number, attempt in enumerate(tries)]
    answer = """echo "{\\"code\\": 77, \\"msg\\": \\"$done\\"}"; exit 1"""
    plugin.write_text("\n".join(["#!/bin/sh", "cat >/dev/null", *lines, answer, ""]))
    plugin.chmod(0o755)
    config = network({"type": "evil"})
    explain(node, config, "--help")  # writes the file
    before = everything(node)
    told = story(node, config, status=1, bin_dirs=(str(tmp_path),))
    assert everything(node) == before
    assert [path.name for path in tmp_path.iterdir()] == ["evil"]
    done = [tries[int(number)] for number in told["error"]["msg"].split(",")[1:]]
    assert done == [attempt for attempt in tries if attempt not in refused]
    assert {"create link evil0", "net.ipv4.ip_forward = 1 (was 0)"} <= {text.partition(",")[0] for text in texts(told)}


# -- the account equals the effects


def test_what_is_told_is_what_happens(installed: Path, node: PretendHost) -> None:
    config = network(BRIDGE)
    told = story(node, config)
    with PretendHost(installed) as other:
        prepare(other)
        before = other.snapshot()
        result = add(other, config)
        found = other.snapshot([ID])
        links = {link["ifname"]: link for link in [*other.ip("link"), *other.ip("link", netns=ID)]}
        sysctls = {name: value_of(other, name) for name in told_sysctls(told, "host")}
        sysctls_inside = {name: value_of(other, name, ID) for name in told_sysctls(told, "pod")}

    new_links = found["host"]["links"].keys() - before["host"]["links"].keys() | found["pods"][ID]["links"].keys() - {
        "lo"
    }
    made = [step["message"] for step in told["steps"] if step["what"] == "RTM_NEWLINK" and step["flags"] & 0x400]
    assert told_links(made) == {name: links[name]["mtu"] for name in new_links}
    for where, place in (("host", found["host"]), ("pod", found["pods"][ID])):
        old = before["host"] if where == "host" else {"addresses": [], "routes": []}
        addresses = {tuple(address.split()[:2]) for address in set(place["addresses"]) - set(old["addresses"])}
        assert {
            (step["names"]["index"], f"{step['message']['IFA_LOCAL']}/{step['message']['prefixlen']}")
            for step in told["steps"]
            if step["where"] == where and step["what"] == "RTM_NEWADDR"
        } == {address for address in addresses if not address[1].startswith(("127.", "::1/"))}
        routes = {route for route in set(place["routes"]) - set(old["routes"]) if " protocol kernel" not in route}
        assert {
            (step["message"]["RTA_GATEWAY"], step["names"]["RTA_OIF"])
            for step in told["steps"]
            if step["where"] == where and step["what"] == "RTM_NEWROUTE"
        } == {match.groups() for route in routes if (match := re.search(r"gateway (\S+) dev (\S+)", route))}
    assert told_sysctls(told, "host") == sysctls
    assert told_sysctls(told, "pod") == sysctls_inside
    assert told_files(told) == found["files"]
    assert without_random_mac(told["result"]) == without_random_mac(result)


def told_links(made: list[dict[str, Any]]) -> dict[str, int]:
    peers = [peer for link in made if (peer := link["IFLA_LINKINFO"].get("IFLA_INFO_DATA", {}).get("VETH_INFO_PEER"))]
    return {link["IFLA_IFNAME"]: link["IFLA_MTU"] for link in (*made, *peers)}


def told_sysctls(told: dict[str, Any], where: str) -> dict[str, str]:
    return {
        step["name"]: step["value"] for step in told["steps"] if step["what"] == "sysctl" and step["where"] == where
    }


def value_of(host: PretendHost, name: str, netns: str | None = None) -> str:
    enter = ("ip", "netns", "exec", netns) if netns else ()
    return host.run(*enter, "cat", f"/proc/sys/{name}").stdout.strip()


def told_files(told: dict[str, Any]) -> dict[str, str]:
    files = {}
    for step in told["steps"]:
        if step["what"] == "file":
            files[step["path"]] = step["content"]
        elif step["what"] == "symlink":
            files[step["path"]] = "<l>"
        elif step["what"] == "unlink":
            del files[step["path"]]
    return files


def without_random_mac(result: dict[str, Any]) -> dict[str, Any]:
    bridge, *others = result["interfaces"]
    return {**result, "interfaces": [{**bridge, "mac": ""}, *others]}


def test_next_address_and_bridge_are_this_nodes(node: PretendHost) -> None:
    config = network(BRIDGE)
    first = add(node, config, "c1", netns="c1")
    told = story(node, config)
    assert [ip["address"] for ip in told["result"]["ips"]] == ["10.1.0.3/24", "fd00:1::3/64"]
    assert told["result"]["interfaces"][0] == first["interfaces"][0]
    kinds = [step["what"] for step in told["steps"]]
    # bridge, gateway addresses, forwarding and index are there already
    assert (
        kinds.count("RTM_NEWADDR") == 2
        and "mkdir" not in kinds
        and told_sysctls(told, "host").keys() == {f"net/ipv6/conf/{told['result']['interfaces'][1]['name']}/accept_ra"}
    )
    assert [step["path"][-12:] for step in told["steps"] if step["what"] == "symlink"] == ["explain:eth0"]
    result = add(node, config)
    assert result == told["result"]


def test_data_dir_elsewhere(node: PretendHost, tmp_path: Path) -> None:
    config = network({**V4_ONLY, "ipam": {**V4_ONLY["ipam"], "dataDir": str(tmp_path / "there/leases")}})
    told = story(node, config)
    assert f"create directory {tmp_path}/there (0755)" in texts(told, what="mkdir")
    assert list(tmp_path.iterdir()) == []
    add(node, config, "c1", netns="c1")
    before = sorted(path.lstat().st_mtime_ns for path in tmp_path.rglob("*"))
    assert story(node, config)["result"]["ips"][0]["address"] == "10.1.0.3/24"
    assert sorted(path.lstat().st_mtime_ns for path in tmp_path.rglob("*")) == before


@pytest.mark.kernel_vlan
def test_bridge_that_filters_vlans(node: PretendHost) -> None:
    config = network({**V4_ONLY, "vlan": 100})
    add(node, config, "c1", netns="c1")
    told = story(node, config)
    assert any("into VLAN 100 (native, untagged)" in text for text in texts(told))
    assert not any("create bridge" in text or "filter VLANs" in text for text in texts(told))
    assert add(node, config) == told["result"]


# -- nothing is left out


@pytest.mark.parametrize(
    ("plugin", "status"),
    [
        (BRIDGE, 0),
        ({**V4_ONLY, "portIsolation": True, "hairpinMode": False}, 0),
        ({**V4_ONLY, "ipam": {**V4_ONLY["ipam"], "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}}, 1),
        pytest.param({**V4_ONLY, "vlan": 100, "vlanTrunk": [{"minID": 5, "maxID": 9}]}, 0, marks=pytest.mark.kernel_vlan),
    ],
)  # fmt: skip
def test_every_changing_request_is_told(node: PretendHost, plugin: dict[str, Any], status: int) -> None:
    config = network(plugin)
    if status:
        add(node, config, "c1", netns="c1")  # takes the only address
    done = explain(node, config, "--json", "--del", program=WITNESSED)
    assert done.returncode == status, done.stderr
    sent = [json.loads(line.removeprefix("SENT ")) for line in done.stderr.splitlines() if line.startswith("SENT ")]
    changing = [(RTM_NAMES[kind], message) for kind, message in sent if kind in RTM_NAMES]
    assert {kind for kind, _ in sent} - RTM_NAMES.keys() <= {18, 22, 26, 2561}  # RTM_GET*, NFT_MSG_GETTABLE
    told = [(step["what"], step["message"]) for step in json.loads(done.stdout)["steps"] if "message" in step]
    assert len(changing) >= 5
    assert [what for what, _ in told] == [what for what, _ in changing]
    for (_, wanted), (_, got) in zip(changing, told, strict=True):
        assert contains(got, wanted)


RAW = re.compile(r"\b(RTM|IFLA|IFA|RTA|FRA|NDA)_\w+|\battribute \d+")
# By plugin: sentences of which each must be there.
WORDS = {
    "macvlan": ["^create macvlan veth[0-9a-f]+ in the pod on up0, mode bridge", "rename to eth0", "^neighbour 10.7.0.2 with MAC"],
    "ipvlan": ["^create ipvlan veth[0-9a-f]+ in the pod on up1, mode l2"],
    "vlan": ["^create vlan veth[0-9a-f]+ in the pod on up0, VLAN 100"],
    "dummy": ["^create dummy veth[0-9a-f]+ in the pod"],
    "tap": ["^create tap eth0, several queues, owner 1000, group 0"],
    "host-device": ["^dev0: move to the pod, rename to eth0", "^eth0: move to the host, rename to dev0"],
    "sbr": ["^rule from 10.7.0.2 lookup 100 priority 32765", "^delete rule from fd00:7::2 lookup 101"],
    "vrf": ["^create vrf blue, table 10, up", "^eth0: join blue", "^delete link blue"],
}  # fmt: skip


@pytest.mark.parametrize("plugin", params(WORDS))
def test_each_plugin_is_told_in_words(host: PretendHost, plugin: str) -> None:
    """No sentence but those about files has the kernel's names, and none is missing."""
    sample = SAMPLES[plugin]
    host.run("sh", "-ec", links([sample]))
    told = json.loads(explain(host, network(*sample.before, sample.keys), "--json", "--del").stdout)
    assert told["error"] is None and {call["executed"] for call in told["calls"]} == {False}
    assert [step["text"] for step in told["steps"] if step["where"] != "files" and RAW.search(step["text"])] == []
    for part in WORDS[plugin]:
        assert any(re.search(part, text) for text in texts(told)), (part, texts(told))


def test_a_link_without_stand_in_carrier_is_no_obstacle(node: PretendHost) -> None:
    """The node's up0 has carrier, and so has its stand-in: dhcp waits for it."""
    node.run("ip", "link", "set", "far0", "netns", node.netns("lan").rpartition("/")[2], "up")
    node.run("ip", "-n", "lan", "link", "set", "far0", "up")
    config = network({"type": "macvlan", "master": "up0", "ipam": {"type": "dhcp"}})
    assert [one["address"] for one in story(node, config)["result"]["ips"]] == ["192.0.2.2/24"]


def contains(got: Any, wanted: Any) -> bool:
    """Return True if the printed message contains all attributes that were sent; a list of one equals its item."""
    if isinstance(wanted, dict):
        return all(contains(got[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return all(map(contains, got if isinstance(got, list) else [got], wanted))
    return bool(got == wanted)


# -- failure


def test_failing_add(node: PretendHost) -> None:
    config = network({**V4_ONLY, "ipam": {**V4_ONLY["ipam"], "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}})
    add(node, config, "c1", netns="c1")
    shown = explain(node, config)
    before = everything(node, ("c1",))
    told = story(node, config, status=1)
    assert everything(node, ("c1",)) == before
    assert told["result"] is None
    assert told["error"]["code"] == 11 and "10.1.0.9" in told["error"]["msg"]
    (host_link,) = (step["message"]["IFLA_IFNAME"] for step in told["steps"] if step["text"].startswith("create veth"))
    assert texts(told, undo=True) == [f"delete link {host_link}"]
    assert [call["command"] for call in told["calls"]] == ["ADD", "ADD", "DEL", "DEL"]
    assert shown.returncode == 1
    assert "bridge ADD  rolled back" in shown.stdout
    assert "bridge ADD fails: no IP addresses available" in shown.stdout


def test_failure_of_a_later_plugin(node: PretendHost, tmp_path: Path) -> None:
    plugin = tmp_path / "fails"
    plugin.write_text(
        '#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] || { echo \'{"code": 77, "msg": "no"}\'; exit 1; }\n'
    )
    plugin.chmod(0o755)
    told = story(node, network(V4_ONLY, {"type": "fails"}), status=1, bin_dirs=(str(tmp_path),))
    assert told["error"] == {
        "plugin": "fails", "command": "ADD", "code": 77, "msg": "no", "details": "", "notes": []
    }  # fmt: skip
    assert [(call["plugin"], call["command"]) for call in told["calls"]] == [
        ("bridge", "ADD"), ("host-local", "ADD"), ("fails", "ADD"), ("fails", "DEL"), ("bridge", "DEL"), ("host-local", "DEL"),
    ]  # fmt: skip
    assert any(text.startswith("release 10.1.0.2: delete ") for text in texts(told))


@pytest.mark.parametrize(
    ("config", "options", "reason"),
    [
        (network({"type": "absent"}), (), "plugin absent not found"),
        (network({**V4_ONLY, "bridge": "up0"}), (), "link up0 already exists but is not a bridge"),
        (network({**V4_ONLY, "ipam": {**V4_ONLY["ipam"], "dataDir": "x"}}), (), "ipam.dataDir"),
    ],
)
def test_add_that_cannot_succeed(
    node: PretendHost, config: dict[str, Any], options: tuple[str, ...], reason: str
) -> None:
    told = story(node, config, *options, status=1)
    assert reason in told["error"]["msg"]


def test_what_cannot_be_explained(node: PretendHost) -> None:
    done = explain(node, {"name": "pods", "cniVersion": "1.0.0", "plugins": []})
    assert done.returncode == 1 and "a list of at least one plugin is required" in done.stderr
    done = explain(node, network(V4_ONLY), bin_dirs=("/run/bin",))
    assert done.returncode == 1 and "/run/bin is in /run, which is hidden here" in done.stderr
    above = str(Path(node.bin_dir).parent)
    for data_dir, reason in (
        (above, f" is in {above}, which is hidden here"),
        ("/no/such", "a new directory in / cannot be pretended"),
    ):
        done = explain(node, network({**V4_ONLY, "ipam": {**V4_ONLY["ipam"], "dataDir": data_dir}}))
        assert done.returncode == 1 and reason in done.stderr


# -- plugins that are not this suite's


def test_reference_plugins_are_told_by_what_they_changed(node: PretendHost, reference_bin: str, tmp_path: Path) -> None:
    (tmp_path / "tuning").symlink_to(f"{reference_bin}/tuning")
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1300}
    config = network(V4_ONLY, tuning)
    told = story(node, config, "--del", bin_dirs=(str(tmp_path), node.bin_dir))
    (call,) = (
        n for n, call in enumerate(told["calls"]) if call == {"plugin": "tuning", "command": "ADD", "executed": True}
    )
    assert set(texts(told, call=call)) >= {
        "net.ipv4.conf.eth0.arp_filter = 1 (was 0)",
        "link eth0, mtu 1300 (was 1400)",
    }

    whole = story(node, network({**V4_ONLY, "mtu": 1400}), bin_dirs=(reference_bin,))
    assert {call["executed"] for call in whole["calls"]} == {True}
    found = texts(whole)
    assert "create link cni0, " in "\n".join(found)
    assert "address 10.1.0.1/24 on cni0" in found
    assert [text for text in found if text.startswith("lease 10.1.0.2 →")]
    assert "net.ipv4.ip_forward = 1 (was 0)" in found


def test_ipam_plugin_that_is_executed(node: PretendHost, reference_bin: str, tmp_path: Path) -> None:
    (tmp_path / "fixed").symlink_to(f"{reference_bin}/static")
    fixed = {**V4_ONLY, "ipam": {"type": "fixed", "addresses": [{"address": "10.1.0.7/24"}]}}
    told = story(node, network(fixed), bin_dirs=(node.bin_dir, str(tmp_path)))
    assert {"plugin": "fixed", "command": "ADD", "executed": True} in told["calls"]
    assert "address 10.1.0.7/24 on eth0, broadcast 10.1.0.255" in texts(told, where="pod")
    shown = explain(node, network(fixed), bin_dirs=(node.bin_dir, str(tmp_path))).stdout
    assert "fixed ADD  changes nothing, not recorded: the steps are its changes" in shown


# -- for a person


def test_story_for_a_person(node: PretendHost) -> None:
    done = explain(node, network(BRIDGE), "--del", env={"CNI_IFNAME": "net7"})
    assert done.returncode == 0 and done.stderr == ""
    told = story(node, network(BRIDGE), "--del", env={"CNI_IFNAME": "net7"})
    bridge_mac = re.compile(r"MAC \S+")
    lines = [bridge_mac.sub("MAC", line[12:]) for line in done.stdout.splitlines() if re.match(r" {0,3}\d+  \w", line)]
    assert lines == [bridge_mac.sub("MAC", text) for text in texts(told)]
    assert re.search(
        r"create veth veth\w+ on the host, net7 in the pod \(MAC [\w:]+\), MAC [\w:]+, MTU 1400, transmit queues 1",
        done.stdout,
    )
    for line in (
        "host  net.ipv4.ip_forward = 1 (was 0)",
        "pod   route default via 10.1.0.1 dev net7",
        "hairpin on, isolation off",
    ):
        assert line in done.stdout
    headings = re.findall(r"^\S+ (?:ADD|DEL).*$", done.stdout, re.MULTILINE)
    assert headings == ["bridge ADD", "host-local ADD", "bridge ADD  continued", "bridge DEL", "host-local DEL"]
    result = json.loads(done.stdout.partition("\nresult\n")[2])
    assert without_random_mac(result) == without_random_mac(told["result"])


def test_arguments_of_the_runtime_reach_the_plugins(node: PretendHost) -> None:
    config = network({**V4_ONLY, "capabilities": {"ips": True}})
    told = story(
        node, config, env={"CAP_ARGS": '{"ips": ["10.1.0.77"]}', "CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:77"}
    )
    assert told["result"]["ips"][0]["address"] == "10.1.0.77/24"
    assert told["result"]["interfaces"][2]["mac"] == "02:00:00:00:00:77"
    done = explain(node, config, env={"CAP_ARGS": "{"})
    assert done.returncode == 1 and "CAP_ARGS" in done.stderr


def test_help_is_enough(node: PretendHost) -> None:
    done = explain(node, network(V4_ONLY), "--help")
    assert done.returncode == 0
    for word in ("CONFLIST", "--json", "--bin-dir", "--ifname", "--del", "Exit status", "without changing the node"):
        assert word in done.stdout


def test_a_lease_of_dhcp_is_made_up(node: PretendHost) -> None:
    """No rehearsal reaches a daemon or a server, whether they run or not."""
    dhcp = {**BRIDGE, "isDefaultGateway": False, "ipam": {"type": "dhcp"}}
    told = story(node, network(dhcp), "--del")
    (step,) = texts(told, what="dhcp", operation="acquire")
    assert step == "lease an address through the dhcp daemon at /run/cni/dhcp.sock; here 192.0.2.2/24 stands for it"
    assert texts(told, what="dhcp", operation="release") != []
    assert [ip["address"] for ip in told["result"]["ips"]] == ["192.0.2.2/24"]
