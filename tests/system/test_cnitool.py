"""cnitool's calls by hand, as users type them, on a pretend host with the installed plugins."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.cli.commands import COMMANDS
from shared.net.owner import Owner
from tests.conftest import ROOT
from tests.pretend import PATH, PretendHost

CONF_DIR = "/etc/cni/net.d"
NETWORK: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.45.0.0/24"}], [{"subnet": "fd00:45::/64"}]]},
        }
    ],
}
# the first ten bytes of SHA-512 of /run/netns/web
WEB_ID = "cnitool-82e215debf7df4651d36"


# required arguments
ARGUMENTS: dict[str, tuple[str, ...]] = {"explain": ("x.conflist",)}


class Tool:
    """cnitool on a pretend host."""

    def __init__(self, host: PretendHost) -> None:
        self.host = host
        host.run("mkdir", "-p", CONF_DIR)
        self.configure(NETWORK)

    def configure(self, network: dict[str, Any]) -> None:
        self.host.run("tee", f"{CONF_DIR}/10-pods.conflist", input=json.dumps(network))

    def __call__(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.host.run(f"{self.host.bin_dir}/cnitool", *args, env={"PATH": PATH, **variables}, check=False)

    def good(self, *args: str, **variables: str) -> str:
        done = self(*args, **variables)
        assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
        return done.stdout

    def refused(self, *args: str, **variables: str) -> str:
        done = self(*args, **variables)
        assert done.returncode == 1 and done.stdout == "", done.stdout + done.stderr
        return done.stderr

    def results(self) -> set[str]:
        return {path.name for path in (self.host.root / "var/lib/cni/results").glob("*")}


@pytest.fixture
def tool(installed: Path) -> Iterator[Tool]:
    with PretendHost(installed) as host:
        yield Tool(host)


def test_add_check_del(tool: Tool) -> None:
    netns = tool.host.netns("web")
    result = json.loads(tool.good("add", "pods", netns))
    assert [ip["address"] for ip in result["ips"]] == ["10.45.0.2/24", "fd00:45::2/64"]
    assert tool.results() == {f"pods-{WEB_ID}-eth0"}
    assert tool.good("check", "pods", netns) == ""
    tool.host.run("ip", "-n", "web", "link", "set", "eth0", "down")
    assert "eth0 is down" in tool.refused("check", "pods", netns)
    assert tool.good("del", "pods", netns) == ""
    assert tool.good("del", "pods", netns) == ""
    assert tool.results() == set()
    assert [link["ifname"] for link in tool.host.ip("link", netns="web")] == ["lo"]


def test_variables_of_the_go_cnitool(tool: Tool) -> None:
    netns = tool.host.netns("web")
    tool.host.run("mkdir", "/run/conf")
    plugin = {"cniVersion": "1.0.0", "name": "other", "type": "bridge", "capabilities": {"mac": True}}
    tool.host.run("tee", "/run/conf/a.conf", input=json.dumps(plugin))
    variables = {
        "NETCONFPATH": "/run/conf",
        "CNI_PATH": tool.host.bin_dir,
        "CAP_ARGS": '{"mac": "02:00:00:00:00:07"}',
        "CNI_ARGS": "IgnoreUnknown=1;A=B",
        "CNI_IFNAME": "net7",
    }
    tool.good("add", "other", netns, **variables)
    (link,) = tool.host.ip("link", "show", "net7", netns="web")
    assert link["address"] == "02:00:00:00:00:07"
    tool.good("del", "other", netns, **variables)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"CNI_PATH": "bin"}, "CNI_PATH"),
        ({"CAP_ARGS": "{"}, "CAP_ARGS"),
        ({"CAP_ARGS": "[]"}, "CAP_ARGS"),
        ({"CNI_ARGS": "a"}, "CNI_ARGS"),
        ({"CNI_IFNAME": "a/b"}, "ifname 'a/b'"),
        ({"NETCONFPATH": "/nowhere"}, "/nowhere"),
        ({"CNI_PATH": "/nowhere"}, "plugin bridge not found in /nowhere"),
    ],
)
def test_variable_that_cannot_be_used_is_named(tool: Tool, variables: dict[str, str], named: str) -> None:
    netns = tool.host.netns("web")
    before = tool.host.snapshot(["web"])
    assert named in tool.refused("add", "pods", netns, **variables)
    assert tool.host.snapshot(["web"]) == before


def test_unknown_network_and_invalid_file_beside_it(tool: Tool) -> None:
    tool.host.run("tee", f"{CONF_DIR}/05-broken.conflist", input="{")
    told = tool.refused("add", "nets", tool.host.netns("web"))
    assert "warning: " in told and "05-broken.conflist: not JSON" in told
    assert "no network nets in /etc/cni/net.d: there is pods" in told


def test_errors_as_json(tool: Tool) -> None:
    done = tool("add", "pods", "/run/netns/absent", "--json")
    error = json.loads(done.stdout)
    assert done.returncode == 1 and error["code"] == 3 and "/run/netns/absent" in error["msg"]


def test_gc_keeps_the_living(tool: Tool) -> None:
    for name in ("live", "dead"):
        tool.good("add", "pods", tool.host.netns(name), "--container-id", name)
    tool.host.cni(
        "bridge", "ADD", {**NETWORK["plugins"][0], "cniVersion": "1.1.0", "name": "pods"},
        netns=tool.host.netns("unknown"), container_id="unknown",
    )  # fmt: skip
    tool.good("add", "pods", tool.host.netns("lost"), "--container-id", "lost")
    tool.host.run("rm", "/var/lib/cni/results/pods-lost-eth0")
    for name in ("dead", "lost"):
        tool.host.drop_netns(name)
    before = tool.host.snapshot()
    plan = tool.good("gc", "pods", "--dry-run")
    assert "DEL dead eth0: its namespace /run/netns/dead is gone" in plan and "keep: live eth0" in plan
    assert tool.host.snapshot()["files"] == before["files"]
    told = json.loads(tool.good("gc", "pods", "--json"))
    assert [one["containerID"] for one in told["remove"]] == ["dead"]
    assert tool.results() == {"pods-live-eth0"}
    leases = [path for path in tool.host.snapshot()["files"] if path.startswith("/var/lib/cni/networks/pods/")]
    # a pod that no runtime remembers lives as well
    assert {Path(path).name for path in leases} >= {"10.45.0.2", "fd00:45::2", "10.45.0.4", "fd00:45::4"}
    assert not {Path(path).name for path in leases} & {"10.45.0.3", "10.45.0.5"}
    assert len(tool.host.ip("address", "show", "eth0", netns="unknown")) == 1
    assert tool.good("check", "pods", "/run/netns/live", "--container-id", "live") == ""


def slow_gc(tool: Tool, meanwhile: Callable[[], object]) -> str:
    """Run `cnitool gc` with a slow DEL of a dead pod, so that an event follows the plan; return its stderr."""
    tool.good("add", "pods", tool.host.netns("dead"), "--container-id", "dead")
    tool.host.drop_netns("dead")
    slow = '[ "$CNI_COMMAND" != DEL ] || { : >/run/begun; read line </run/may; }\n'
    script = f"#!/bin/sh\n{slow}exec {tool.host.bin_dir}/bridge\n"
    tool.host.run("install", "-D", "-m755", "/dev/stdin", "/run/slow/bridge", input=script)
    tool.host.run("mkfifo", "/run/may")
    env = {"PATH": PATH, "CNI_PATH": f"/run/slow:{tool.host.bin_dir}"}
    with tool.host.popen(f"{tool.host.bin_dir}/cnitool", "gc", "pods", env=env) as gc:
        tool.host.run("sh", "-ec", "until [ -e /run/begun ]; do sleep 0.02; done")
        meanwhile()
        tool.host.run("sh", "-c", "echo >/run/may")
        out, err = gc.communicate()
    assert gc.returncode == 0, out + err
    return err.decode()


def test_gc_keeps_a_pod_whose_add_began_since_the_plan(tool: Tool) -> None:
    for name in ("live", "new"):
        tool.host.netns(name)
    tool.good("add", "pods", "/run/netns/live", "--container-id", "live")
    assert slow_gc(tool, lambda: tool.good("add", "pods", "/run/netns/new", "--container-id", "new")) == ""
    assert tool.results() == {"pods-live-eth0", "pods-new-eth0"}
    for name in ("live", "new"):
        assert tool.good("check", "pods", f"/run/netns/{name}", "--container-id", name) == ""


def test_gc_asks_no_plugin_if_a_stranger_came_since_the_plan(tool: Tool) -> None:
    """A host link without alias belongs to an ADD that has just made it. GC leaves its own work for the next time."""
    tool.good("add", "pods", tool.host.netns("lost"), "--container-id", "lost")
    tool.host.run("rm", "/var/lib/cni/results/pods-lost-eth0")
    tool.host.drop_netns("lost")
    tool.host.netns("early")
    link = Owner("pods", "early", "eth0").host_link
    make = ("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", "early")
    said = slow_gc(tool, lambda: tool.host.run(*make))
    assert f"host link {link}: in use by an unknown pod, so plugins are not asked to clean up" in said
    store = tool.host.root / "var/lib/cni/networks/pods"
    assert {path.name for path in store.glob("10.*")} == {"10.45.0.2"} and tool.results() == set()
    tool.host.drop_netns("early")
    tool.good("gc", "pods")
    assert not list(store.glob("10.*"))


def test_gc_leaves_a_network_with_disable_gc_alone(tool: Tool) -> None:
    tool.configure({**NETWORK, "disableGC": True})
    tool.good("add", "pods", tool.host.netns("dead"), "--container-id", "dead")
    tool.host.drop_netns("dead")
    before = tool.host.snapshot()["files"]
    done = tool("gc", "pods")
    assert done.returncode == 0 and "disableGC" in done.stderr and done.stdout == ""
    assert tool.host.snapshot()["files"] == before


def counted(tool: Tool) -> str:
    """Return a bin dir with plugins that note each call in /run/calls."""
    directory = "/run/counted"
    for plugin in ("loopback", "bridge", "host-local"):
        script = f"#!/bin/sh\necho {plugin} $CNI_COMMAND >>/run/calls\nexec {tool.host.bin_dir}/{plugin}\n"
        tool.host.run("install", "-D", "-m755", "/dev/stdin", f"{directory}/{plugin}", input=script)
    return directory


def calls(tool: Tool) -> list[str]:
    noted = tool.host.root / "run/calls"
    found = noted.read_text().splitlines() if noted.exists() else []
    tool.host.run("rm", "-f", "/run/calls")
    return [line for line in found if not line.startswith("host-local")]


@pytest.mark.parametrize("lost", [False, True], ids=["remembered", "cache lost"])
def test_add_twice_is_refused_before_any_plugin_runs(tool: Tool, *, lost: bool) -> None:
    path = counted(tool)
    netns = tool.host.netns("web")
    tool.good("add", "pods", netns, CNI_PATH=path)
    if lost:
        tool.host.run("rm", "-r", "/var/lib/cni/results")
    before, _ = tool.host.snapshot(["web"]), calls(tool)
    told = tool.refused("add", "pods", netns, CNI_PATH=path)
    assert f"`cnitool del pods /run/netns/web --container-id {WEB_ID}` first" in told
    assert lost or f"/var/lib/cni/results/pods-{WEB_ID}-eth0 remembers it" in told
    assert "eth0 is in /run/netns/web" in told
    told = tool.refused("add", "pods", tool.host.netns("other"), "--container-id", WEB_ID, CNI_PATH=path)
    assert "leads to a pod" in told or "remembers it" in told
    told = tool.refused("pod", "up", netns, CNI_PATH=path)
    assert "eth0 is in /run/netns/web" in told
    assert calls(tool) == []
    assert tool.host.snapshot(["web"]) == before
    if not lost:
        assert tool.good("check", "pods", netns, CNI_PATH=path) == ""


def test_pod_up_twice_leaves_the_pod_as_it_is(tool: Tool) -> None:
    path = counted(tool)
    netns = tool.host.netns("web")
    tool.good("pod", "up", netns, CNI_PATH=path)
    before, made = tool.host.snapshot(["web"]), calls(tool)
    assert made == ["bridge STATUS", "loopback ADD", "bridge ADD"]
    assert "remembers it" in tool.refused("pod", "up", netns, CNI_PATH=path)
    tool.configure({**NETWORK, "name": "newer"})  # the pod's network is not the default one any more
    assert "pods-" in tool.refused("pod", "up", netns, CNI_PATH=path)
    assert calls(tool) == []
    assert tool.host.snapshot(["web"]) == before


def test_failing_add_takes_back_no_more_than_it_made(tool: Tool) -> None:
    """Another program's eth0, and another network's attachment, stay as they are."""
    netns = tool.host.netns("web")
    tool.host.run("ip", "link", "add", "foreign", "type", "veth", "peer", "name", "eth0", "netns", "web")
    before = tool.host.snapshot(["web"])
    assert "interface eth0 is in /run/netns/web already" in tool.refused("add", "pods", netns)
    assert tool.host.snapshot(["web"]) == before
    tool.good("add", "pods", netns, CNI_IFNAME="net1")
    before = tool.host.snapshot(["web"])
    second = {"type": "tuning", "sysctl": {"net.ipv4.conf.nowhere.forwarding": "1"}}
    tool.configure({**NETWORK, "plugins": [*NETWORK["plugins"], second]})
    assert "tuning ADD" in tool.refused("add", "pods", netns, CNI_IFNAME="net2")
    after = tool.host.snapshot(["web"])
    assert (after["pods"], after["host"]) == (before["pods"], before["host"])
    assert {path for path in after["files"] if "/10.45." in path} == {
        path for path in before["files"] if "/10.45." in path
    }


def test_add_after_the_namespace_was_lost_or_replaced(tool: Tool) -> None:
    path = counted(tool)
    netns = tool.host.netns("web")
    tool.good("add", "pods", netns, CNI_PATH=path)
    tool.host.drop_netns("web")
    tool.host.netns("web")
    calls(tool)
    result = json.loads(tool.good("add", "pods", netns, CNI_PATH=path))
    assert calls(tool) == ["bridge DEL", "bridge ADD"]
    leases = [path for path in tool.host.snapshot()["files"] if path.startswith("/var/lib/cni/networks/pods/10.")]
    assert leases == [f"/var/lib/cni/networks/pods/{result['ips'][0]['address'].partition('/')[0]}"]
    assert tool.good("check", "pods", netns) == ""


@pytest.mark.parametrize("change", ["gone", "another", "broken"])
def test_check_and_del_use_the_configuration_that_add_had(tool: Tool, change: str) -> None:
    netns = tool.host.netns("web")
    masquerading = {**NETWORK, "plugins": [{**NETWORK["plugins"][0], "ipMasq": True}]}
    tool.configure(masquerading)
    tool.good("add", "pods", netns)
    if change == "gone":
        tool.host.run("rm", f"{CONF_DIR}/10-pods.conflist")
    elif change == "another":
        tool.configure({**NETWORK, "plugins": [{"type": "bridge", "bridge": "other"}]})
    else:
        tool.host.run("tee", f"{CONF_DIR}/10-pods.conflist", input="{")
    assert tool.good("check", "pods", netns) == ""
    assert tool.good("del", "pods", netns) == ""
    assert tool.results() == set()
    assert "10.45.0.2" not in tool.host.run("nft", "list", "ruleset").stdout
    assert not [path for path in tool.host.snapshot()["files"] if path.endswith("/10.45.0.2")]
    if change != "another":  # nothing is known of it any more
        tool.refused("del", "pods", netns)


def test_status_and_version(tool: Tool) -> None:
    assert tool.good("status", "pods") == ""
    version = tool.good("version", "bridge", "host-local")
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version.startswith(f"cnitool {release}\n") and "\nbridge: CNI 0.1.0, " in version and ", 1.1.0\n" in version
    small = {"type": "host-local", "subnet": "10.45.9.0/30"}
    tool.configure({**NETWORK, "plugins": [{**NETWORK["plugins"][0], "ipam": small}]})
    tool.good("add", "pods", tool.host.netns("web"))
    told = json.loads(tool("status", "pods", "--json").stdout)
    assert told["code"] == 50 and "10.45.9" in told["msg"]


def test_pod_in_a_kubelets_way(tool: Tool) -> None:
    netns = tool.host.netns("web")
    expected = " on pods: 10.45.0.2 fd00:45::2\n"
    told = tool.good("pod", "up", netns, "--namespace", "shop", "--name", "web-1")
    assert told.startswith("shop/web-1 (cnitool-") and told.endswith(expected)
    assert "UP" in tool.host.ip("link", "show", "lo", netns="web")[0]["flags"]
    assert tool.good("pod", "status", netns).endswith(expected)
    assert json.loads(tool.good("pod", "status", netns, "--json"))["addresses"] == ["10.45.0.2", "fd00:45::2"]
    tool.good("pod", "down", netns)
    assert "there is no link eth0" in tool.refused("pod", "status", netns)
    tool.host.drop_netns("web")
    tool.good("pod", "down", netns)


def test_help_names_every_command_and_variable(tool: Tool) -> None:
    told = tool.good("--help")
    for word in ("add", "check", "del", "gc", "status", "pod", "NETCONFPATH", "CNI_PATH", "CAP_ARGS", "CNI_IFNAME"):
        assert word in told
    assert "--container-id" in tool.good("add", "--help")


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin directory of an installation with the tools."""
    directory = tmp_path_factory.mktemp("tools")
    argv: list[str | Path] = [
        ROOT / "install.sh",
        "--bin-dir",
        directory / "bin",
        "--lib-dir",
        directory / "lib",
        "--with-tools",
    ]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "bin"


def test_without_the_tools_their_commands_say_so_in_one_sentence(tool: Tool) -> None:
    wanted = [command.name for command in COMMANDS if command.needs_tools]
    assert wanted
    for name in wanted:
        done = tool(name, *ARGUMENTS.get(name, ()))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"cnitool {name}: this command needs pyroute2 and ")
        assert done.stderr.endswith("; install with `./install.sh --with-tools`\n")


def test_completion_completes(tools: Path) -> None:
    script = (
        f"source <({tools}/cnitool completion); COMP_WORDS=(cnitool a); COMP_CWORD=1; COMP_TYPE=9; "
        '$(complete -p cnitool | sed "s/.*-F \\([^ ]*\\).*/\\1/") cnitool a cnitool; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "add" in done.stdout.split() and "del" not in done.stdout.split()


def test_manual_is_one_that_man_can_read(tools: Path) -> None:
    page = subprocess.run([tools / "cnitool", "manual"], capture_output=True, text=True, check=True).stdout
    read = subprocess.run(["man", "-l", "--warnings=w", "-"], input=page, capture_output=True, text=True, check=True)
    assert read.stderr == ""
    for command in COMMANDS:
        assert f"cnitool {command.name}" in read.stdout
    assert "NETCONFPATH" in read.stdout
