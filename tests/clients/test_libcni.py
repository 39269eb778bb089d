"""The Go libcni and cnitool on one node: each reads the other's cache, and can delete the other's attachments."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pretend import PATH, PretendHost

SOURCE = Path(__file__).parent / "libcni"
CONF_DIR = "/etc/cni/net.d"
NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "isGateway": True,
            "capabilities": {"mac": True},
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd00:44::/64"}]]},
        }
    ],
}
MAC = "02:11:22:33:44:55"
ENTRY = "/var/lib/cni/results/pods-web1-eth0"


@pytest.fixture(scope="session")
def libcni(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the program of libcni/main.go, with Debian's libcni."""
    directory = tmp_path_factory.mktemp("libcni")
    environment = {
        "PATH": PATH,
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(directory / "cache"),
        "GOFLAGS": "-buildvcs=false",
    }
    subprocess.run(["go", "build", "-o", directory / "libcni", "."], cwd=SOURCE, env=environment, check=True)
    return str(directory / "libcni")


class Node:
    """A pretend host with one network, a pod, and both clients."""

    def __init__(self, host: PretendHost, libcni: str, version: str) -> None:
        self.host, self.libcni = host, libcni
        host.run("mkdir", "-p", CONF_DIR)
        content = json.dumps({**NETWORK, "cniVersion": version})
        host.run("tee", f"{CONF_DIR}/10-pods.conflist", input=content)
        self.netns = host.netns("web")
        self.variables = {"PATH": PATH, "CNI_PATH": host.bin_dir, "NETCONFPATH": CONF_DIR}

    def go(self, verb: str, *, capabilities: bool = True, check: bool = True) -> Any:
        args = (self.libcni, verb, CONF_DIR, "pods", "web1", self.netns, "eth0")
        return self._run(args, {"CAP_ARGS": json.dumps({"mac": MAC})} if capabilities else {}, check=check)

    def ours(self, verb: str, *, capabilities: bool = True, check: bool = True) -> Any:
        args = (f"{self.host.bin_dir}/cnitool", verb, "pods", self.netns, "--container-id", "web1")
        variables = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web"}
        if capabilities:
            variables["CAP_ARGS"] = json.dumps({"mac": MAC})
        return self._run(args, variables, check=check)

    def _run(self, args: tuple[str, ...], variables: dict[str, str], *, check: bool) -> Any:
        done = self.host.run(*args, env={**self.variables, **variables}, check=check)
        if not check:
            return done
        return json.loads(done.stdout) if done.stdout.strip() else None

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = json.loads((self.host.root / ENTRY.lstrip("/")).read_text())
        return entry

    def assert_nothing_left(self) -> None:
        snapshot = self.host.snapshot(["web"])
        assert list(snapshot["pods"]["web"]["links"]) == ["lo"]
        kept = [path for path in snapshot["files"] if "/.pycni/" not in path]
        assert {Path(path).name for path in kept} <= {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}


@pytest.fixture(params=["0.4.0", "1.0.0"])
def node(installed: Path, libcni: str, request: pytest.FixtureRequest) -> Iterator[Node]:
    with PretendHost(installed) as host:
        yield Node(host, libcni, request.param)


def test_both_write_the_same_entry(node: Node) -> None:
    results, entries = [], []
    for client in (node.go, node.ours):
        results.append(client("add"))
        entry = node.entry()
        entry["config"] = None  # the bytes of the file there, the same content in our words here
        entries.append(entry)
        assert os.stat(node.host.root / ENTRY.lstrip("/")).st_mode & 0o777 == 0o600
        client("del")
    assert [entry.pop("result") for entry in entries] == results
    assert entries[1].pop("netns") == entries[0].pop("netns", node.netns) == node.netns  # from libcni 1.2 on
    assert entries[0] == entries[1]
    assert entries[0]["kind"] == "cniCacheV1" and entries[0]["capabilityArgs"] == {"mac": MAC}


@pytest.mark.parametrize("first", ["go", "ours"])
def test_what_one_began_the_other_checks_and_ends(node: Node, first: str) -> None:
    begin, end = (node.go, node.ours) if first == "go" else (node.ours, node.go)
    result = begin("add")
    assert any(interface.get("mac") == MAC for interface in result["interfaces"])
    assert end("check") is None
    node.host.run("ip", "-n", "web", "addr", "flush", "dev", "eth0")
    assert end("check", check=False).returncode == 1
    node.host.run("ip", "-n", "web", "link", "set", "eth0", "down")
    end("del")
    node.assert_nothing_left()
    end("del")


def test_go_reads_our_entry(node: Node) -> None:
    result = node.ours("add")
    cached = node.go("cached")
    assert cached["result"] == result
    assert json.loads(cached["config"])["plugins"] == NETWORK["plugins"]
    assert ["K8S_POD_NAME", "web"] in cached["args"] and cached["capabilityArgs"] == {"mac": MAC}


def test_gc_ends_what_go_began_when_the_namespace_is_gone(node: Node) -> None:
    node.go("add")
    node.host.drop_netns("web")
    args = (f"{node.host.bin_dir}/cnitool", "gc", "pods")
    told = node.host.run(*args, "--dry-run", env=node.variables).stdout
    assert f"DEL web1 eth0: its namespace {node.netns} is gone" in told
    assert node.entry()["containerId"] == "web1"
    node.host.run(*args, env=node.variables)
    node.netns = node.host.netns("web")
    node.assert_nothing_left()


def test_gc_keeps_what_it_cannot_tell(node: Node) -> None:
    """An entry that names no namespace, by a network of version 0.2.0 or so, may belong to a living pod."""
    node.ours("add")
    entry = node.entry()
    del entry["netns"]
    for interface in entry["result"]["interfaces"]:
        interface.pop("sandbox", None)
    (node.host.root / ENTRY.lstrip("/")).write_text(json.dumps(entry))
    node.host.run(f"{node.host.bin_dir}/cnitool", "gc", "pods", env=node.variables)
    assert node.ours("check") is None


def test_of_old_the_entry_was_the_bare_result(node: Node) -> None:
    result = node.ours("add")
    (node.host.root / ENTRY.lstrip("/")).write_text(json.dumps(result))
    assert node.ours("check") is None
    node.ours("del")
    node.assert_nothing_left()
