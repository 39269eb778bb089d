"""cnitool ipam on stores of this suite and of the reference: it shows the truth and frees dead leases only."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import tests.node
from tests.conftest import ROOT
from tests.pretend import PATH, PretendHost, until

SCRIPT = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from shared.cli.cnitool import run; sys.exit(run('/none', sys.argv[1:]))"
STORE = "/var/lib/cni/networks/net"
V4, V6 = "10.1.0.0/24", "fd00:1::/64"
BOTH: dict[str, Any] = {"ranges": [[{"subnet": V4}], [{"subnet": V6}]]}


class Node(tests.node.Node):
    """A pretend host with one network and the plugins of this suite or of the reference."""

    def __init__(self, host: PretendHost, bin_dir: str) -> None:
        super().__init__(host)
        self.bin_dir = bin_dir
        self.configure()

    def configure(self, name: str = "net", **ipam: Any) -> None:
        plugin = {"type": "bridge", "bridge": f"br-{name}", "ipam": {"type": "host-local", **(ipam or {"subnet": V4})}}
        content = {"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}
        (self.host.root / "etc/cni/net.d").mkdir(exist_ok=True)
        (self.host.root / f"etc/cni/net.d/{name}.conflist").write_text(json.dumps(content))

    def cnitool(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        env = {"PATH": PATH, "CNI_PATH": self.bin_dir}
        done = self.host.run(sys.executable, "-W", "error", "-c", SCRIPT, *arguments, env=env, check=False)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def ipam(self, *arguments: str) -> Any:
        return json.loads(self.cnitool("ipam", *arguments, "--json").stdout)

    def pod(self, name: str, network: str = "net") -> list[str]:
        """Attach a pod and return its addresses."""
        result = json.loads(self.cnitool("add", network, self.netns(name), "--container-id", name).stdout)
        return [ip["address"].partition("/")[0] for ip in result["ips"]]

    def leases(self, network: str = "net") -> list[dict[str, Any]]:
        (pool,) = self.ipam("show", network)["pools"]
        leases: list[dict[str, Any]] = pool["leases"]
        return leases

    def files(self) -> set[str]:
        return {name for name in os.listdir(self.host.root / STORE[1:]) if name[0] in "1f"}


@pytest.fixture(params=["own", "reference"])
def node(request: pytest.FixtureRequest, host: PretendHost, reference_bin: str) -> Node:
    return Node(host, host.bin_dir if request.param == "own" else reference_bin)


@pytest.fixture
def own(host: PretendHost) -> Node:
    return Node(host, host.bin_dir)


def test_pools_and_leases(node: Node) -> None:
    node.configure(**BOTH)
    assert [node.pod(name) for name in ("a", "b")] == [["10.1.0.2", "fd00:1::2"], ["10.1.0.3", "fd00:1::3"]]
    ports = {port["ifname"] for port in node.host.ip("link", "show", "type", "veth")}
    (pool,) = node.ipam("show")["pools"]
    assert pool["path"] == STORE and pool["configuration"] == "/etc/cni/net.d/net.conflist" and pool["error"] is None
    v4, v6 = pool["rangeSets"]
    assert v4 == {"ranges": ["10.1.0.1-10.1.0.254"], "size": 253, "used": 2, "free": 251}
    assert (v6["size"], v6["used"]) == (2**64 - 2, 2)
    shown = [(one["address"], one["containerID"], one["ifname"], one["netns"]["path"]) for one in pool["leases"]]
    assert shown == [
        ("10.1.0.2", "a", "eth0", "/run/netns/a"), ("10.1.0.3", "b", "eth0", "/run/netns/b"),
        ("fd00:1::2", "a", "eth0", "/run/netns/a"), ("fd00:1::3", "b", "eth0", "/run/netns/b"),
    ]  # fmt: skip
    assert {(one["netns"]["state"], one["link"]["state"], one["dead"]) for one in pool["leases"]} == {
        ("alive", "up", None)
    }
    assert {one["link"]["name"] for one in pool["leases"]} == ports
    assert all(one["ageSeconds"] < 60 for one in pool["leases"])


def test_tables_in_a_pipe_are_whole(own: Node) -> None:
    container_id = "0123456789abcdef" * 4
    own.pod(container_id)
    done = own.cnitool("ipam", "net")
    pools, leases = done.stdout.split("\n\n")
    assert pools.splitlines()[1].split() == [
        "net",
        "10.1.0.1-10.1.0.254",
        "253",
        "1",
        "252",
        "/etc/cni/net.d/net.conflist",
    ]
    assert leases.splitlines()[1].split()[:4] == ["10.1.0.2", "net", container_id, "eth0"]
    assert "alive" in leases and "\x1b" not in done.stdout and done.stderr == ""


def test_what_becomes_of_a_pod_is_seen(node: Node) -> None:
    for name in ("a", "b"):
        node.pod(name)
    node.kill("a")
    (port,) = (one["link"]["name"] for one in node.leases() if one["containerID"] == "b")
    node.host.run("ip", "link", "set", port, "down")
    seen = {one["containerID"]: (one["netns"]["state"], one["link"]["state"], one["dead"]) for one in node.leases()}
    assert seen == {"a": ("gone", "gone", "its namespace is gone"), "b": ("alive", "down", None)}


def test_garbage_collection(node: Node) -> None:
    """A full pool has room again, for both suites; living pods keep their leases."""
    node.configure(subnet="10.1.0.0/29")
    for name in "abcde":
        node.pod(name)
    node.host.netns("f")
    node.cnitool("add", "net", "/run/netns/f", status=1)
    node.kill("b")
    node.kill("d")
    before = node.host.snapshot()
    plan = node.ipam("gc", "--dry-run")
    assert [one["address"] for one in plan["dead"]] == ["10.1.0.3", "10.1.0.5"] and plan["released"] == []
    table = node.cnitool("ipam", "gc", "--dry-run").stdout
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["10.1.0.3", "10.1.0.5"]
    assert "its namespace is gone" in table
    assert node.host.snapshot() == before
    assert node.cnitool("ipam", "gc").stdout.splitlines()[-1] == "released 2 of 2"
    assert node.files() == {"10.1.0.2", "10.1.0.4", "10.1.0.6"}
    assert node.cnitool("ipam", "gc").stdout == "no lease is certainly dead\n"
    assert sorted([*node.pod("f"), *node.pod("g")]) == ["10.1.0.3", "10.1.0.5"]
    node.cnitool("del", "net", "/run/netns/a", "--container-id", "a")
    assert "10.1.0.2" not in node.files()


def test_who_may_live_keeps_its_lease(node: Node) -> None:
    """An ADD still runs, a lease is newer than the result, a process keeps a namespace, or no namespace is known."""
    for name in "abcd":
        node.pod(name)
    results = node.host.root / "var/lib/cni/results"
    (results / "net-a-eth0").unlink()
    os.utime(node.host.root / STORE[1:] / "10.1.0.3", (4e9, 4e9))
    entry = json.loads((results / "net-d-eth0").read_text())
    del entry["netns"]
    for interface in entry["result"]["interfaces"]:
        interface.pop("sandbox", None)
    (results / "net-d-eth0").write_text(json.dumps(entry))
    with node.host.popen("ip", "netns", "exec", "c", "cat", stdout=subprocess.DEVNULL) as keeper:
        until(lambda: Path(f"/proc/{keeper.pid}/cmdline").read_bytes() == b"cat\0")
        for name in ("a", "b", "c", "d"):
            node.host.drop_netns(name)
        until(lambda: len(node.host.ip("link", "show", "type", "veth")) == 1)
        assert node.ipam("gc") == {"dead": [], "released": []}
        assert node.files() == {"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"}
        seen = {one["containerID"]: (one["netns"]["state"], one["link"]["state"]) for one in node.leases()}
        assert (seen["b"], seen["c"], seen["d"][0]) == (("gone", "gone"), ("gone", "up"), "unknown")
        keeper.kill()


def test_a_lease_in_use_is_kept_whatever_the_names_say(own: Node) -> None:
    """The namespace's path and the host link's name are gone, yet a process has the address."""
    (address,) = own.pod("a")
    entry = own.host.root / "var/lib/cni/results/net-a-eth0"
    (link,) = (one["link"]["name"] for one in own.leases())
    own.host.run("ip", "link", "set", link, "down", "name", "renamed")
    entry.write_text(entry.read_text().replace(link, "unknown"))
    with own.host.popen("ip", "netns", "exec", "a", "cat", stdout=subprocess.DEVNULL) as keeper:
        until(lambda: Path(f"/proc/{keeper.pid}/cmdline").read_bytes() == b"cat\0")
        own.host.drop_netns("a")
        assert own.ipam("gc") == {"dead": [], "released": []}
        keeper.kill()
    until(lambda: all(one["ifname"] != "renamed" for one in own.host.ip("link")))
    assert own.ipam("gc")["released"] == [address]


def test_a_lease_whose_host_link_is_there_is_kept(own: Node) -> None:
    """A process keeps the namespace, which has lost its path and its interface's address."""
    (address,) = own.pod("a")
    own.host.run("ip", "-n", "a", "address", "flush", "dev", "eth0")
    with own.host.popen("ip", "netns", "exec", "a", "cat", stdout=subprocess.DEVNULL) as keeper:
        until(lambda: Path(f"/proc/{keeper.pid}/cmdline").read_bytes() == b"cat\0")
        own.host.drop_netns("a")
        assert own.ipam("gc") == {"dead": [], "released": []}
        assert own.files() == {address}
        keeper.kill()


def waits(store: Path) -> bool:
    """Return True if a call waits for a lock of the store."""
    found = [path.stat() for path in (store, *store.iterdir())]
    # other tests lock files of the same numbers on other file systems
    files = [f" {os.major(one.st_dev):02x}:{os.minor(one.st_dev):02x}:{one.st_ino} " for one in found]
    waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(file in line for line in waiting for file in files)


@pytest.mark.parametrize("what", ["its pod is back", "another pod has the address", "nothing"])
def test_gc_looks_again_with_the_lock(own: Node, what: str) -> None:
    """A lease may look dead without the lock and belong to a living pod once the lock is held."""
    (address,) = own.pod("a")
    own.kill("a")
    store = own.host.root / STORE[1:]
    with ExitStack() as held:
        for path in (store, store / "lock"):
            descriptor = os.open(path, os.O_RDONLY)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        env = {"PATH": PATH, "CNI_PATH": own.bin_dir}
        gc = own.host.popen(sys.executable, "-c", SCRIPT, "ipam", "gc", env=env)
        until(lambda: waits(store))
        if what == "its pod is back":
            own.host.netns("a")
        elif what == "another pod has the address":
            made = (store / address).stat().st_mtime  # older than the cached result, as that of the dead pod's
            (store / address).write_text("b\r\neth0")
            os.utime(store / address, (made, made))
    out, err = gc.communicate()
    said = out.decode()
    assert gc.returncode == 0 and "its namespace is gone" in said, said + err.decode()
    assert said.splitlines()[-1] == ("released 1 of 1" if what == "nothing" else "released 0 of 1")
    assert own.files() == (set() if what == "nothing" else {address})


def test_a_lease_of_old_beside_an_entry_that_cannot_be_read(own: Node) -> None:
    """The lease names no interface, so that either of the container's entries may be its own."""
    for ifname in ("eth0", "eth1"):
        env = {"PATH": PATH, "CNI_PATH": own.bin_dir, "CNI_IFNAME": ifname}
        if ifname == "eth0":
            own.host.netns("a")
        own.host.run(f"{own.bin_dir}/cnitool", "add", "net", "/run/netns/a", "--container-id", "a", env=env)
    lease = own.host.root / STORE[1:] / "10.1.0.2"
    made = lease.stat().st_mtime
    lease.write_text("a")
    os.utime(lease, (made, made))  # older than the entries
    own.host.run("rm", "-r", "/var/lib/cni/networks/.pycni")  # which knows the interface
    (own.host.root / "var/lib/cni/results/net-a-eth1").write_text("")
    own.host.drop_netns("a")
    until(lambda: not own.host.ip("link", "show", "type", "veth"))
    assert own.ipam("gc") == {"dead": [], "released": []}


def test_results_of_old(node: Node) -> None:
    """A cache entry without the namespace's path, and one that is a bare result."""
    for name in ("a", "b"):
        node.pod(name)
    results = node.host.root / "var/lib/cni/results"
    entry = json.loads((results / "net-a-eth0").read_text())
    (results / "net-b-eth0").write_text(json.dumps(json.loads((results / "net-b-eth0").read_text())["result"]))
    del entry["netns"]
    (results / "net-a-eth0").write_text(json.dumps(entry))
    seen = {one["containerID"]: (one["netns"]["path"], one["netns"]["state"]) for one in node.leases()}
    assert seen["a"] == ("/run/netns/a", "alive")
    assert seen["b"] == (None, "unknown")
    node.kill("a")
    assert node.ipam("gc")["released"] == ["10.1.0.2"]


def test_leases_of_an_earlier_boot_and_garbled_ones(own: Node) -> None:
    own.pod("a")
    store = own.host.root / STORE[1:]
    (store / "10.1.0.9").write_text("router")
    (store / "10.1.0.10").write_text("")
    own.host.run("ln", "-sfn", "6f1a3c9e-0000-4000-8000-000000000000", "/var/lib/cni/networks/.pycni/net/boot")
    before = own.host.snapshot()
    reasons = {one["address"]: one["dead"] for one in own.leases()}
    assert reasons == {
        "10.1.0.2": "of an earlier boot",
        "10.1.0.9": None,
        "10.1.0.10": "empty or garbled",
    }
    assert own.host.snapshot() == before
    assert own.ipam("gc")["released"] == ["10.1.0.2", "10.1.0.10"]
    assert own.files() == {"10.1.0.9"}


def test_release_of_an_address(node: Node) -> None:
    """The pod's other address stays, and DEL finds it."""
    node.configure(**BOTH)
    node.pod("a")
    done = node.cnitool("ipam", "release", "net", "fd00:0001::0002")
    assert done.stdout == "released fd00:1::2 of a eth0\n" and "/run/netns/a is alive" in done.stderr
    assert node.files() == {"10.1.0.2"}
    assert node.pod("b") == ["10.1.0.3", "fd00:1::3"]
    node.cnitool("del", "net", "/run/netns/a", "--container-id", "a")
    assert node.files() == {"10.1.0.3", "fd00:1::3"}


def test_release_of_a_container(node: Node) -> None:
    node.configure(**BOTH)
    for name in ("a", "b", "ab"):
        node.pod(name)
    node.kill("a")
    assert node.ipam("release", "net", "a") == {"released": ["10.1.0.2", "fd00:1::2"]}
    assert node.files() == {"10.1.0.3", "fd00:1::3", "10.1.0.4", "fd00:1::4"}
    for what in ("a", "10.1.0.2"):
        assert f"no lease of {what}" in node.cnitool("ipam", "release", "net", what, status=1).stderr
    assert "its networks: net" in node.cnitool("ipam", "release", "nett", "a", status=1).stderr
    assert node.pod("a") == ["10.1.0.5", "fd00:1::5"]


def test_stores_without_a_configuration(node: Node) -> None:
    node.configure("other", subnet="10.2.0.0/24", dataDir="/run/leases")
    node.pod("a")
    node.pod("b", "other")
    (node.host.root / "etc/cni/net.d/net.conflist").unlink()
    pools = node.ipam("show")["pools"]
    assert [(one["network"], one["path"], one["configuration"] is None) for one in pools] == [
        ("other", "/run/leases/other", False), ("net", STORE, True),
    ]  # fmt: skip
    assert [one["address"] for pool in pools for one in pool["leases"]] == ["10.2.0.2", "10.1.0.2"]
    assert f"none, but leases in {STORE}" in node.cnitool("ipam").stdout
    assert node.ipam("release", "net", "a") == {"released": ["10.1.0.2"]}


def test_a_configuration_that_cannot_be_used(own: Node) -> None:
    own.pod("a")
    own.configure(subnet="10.1.0.1/24")
    (pool,) = own.ipam("show")["pools"]
    assert '"ipam.subnet"' in pool["error"] and pool["rangeSets"] == [] and len(pool["leases"]) == 1
    assert '"ipam.subnet": "10.1.0.1/24" has host bits set' in own.cnitool("ipam").stdout


def test_a_node_without_anything(host: PretendHost) -> None:
    node = Node(host, host.bin_dir)
    (host.root / "etc/cni/net.d/net.conflist").unlink()
    before = host.snapshot()
    done = node.cnitool("ipam")
    assert (
        done.stdout == "host-local has no pools and no leases on this node\n"
        and "no valid network configuration" in done.stderr
    )
    assert node.ipam("gc") == {"dead": [], "released": []}
    assert host.snapshot() == before
