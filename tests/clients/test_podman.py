"""podman with its CNI backend runs containers on the installed plugins, also after a reboot, and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.container_host import (
    ARCHIVE,
    CONF_DIR,
    HOST,
    HOST_6,
    IMAGE,
    PORT,
    SERVER,
    ContainerHost,
    chain,
    require,
)
from tests.pretend import PATH

require("podman", "conmon", "runc")

CONFIG = """
[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin_dir}"]
network_config_dir = "{conf_dir}"
default_network = "front"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[containers]
apparmor_profile = "unconfined"
cgroups = "no-conmon"
pids_limit = 0
"""
STORAGE = """
[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"""
# `back` has room for one container. `lan` is the network of the client, which reaches the container without the host.
IN_LAN, IN_LAN_6 = "192.0.2.100", "fd00:2::100"
LAN = {
    "cniVersion": "1.0.0",
    "name": "lan",
    "plugins": [
        {
            "type": "macvlan",
            "master": "out",
            "ipam": {
                "type": "host-local",
                "ranges": [
                    [{"subnet": "192.0.2.0/24", "rangeStart": IN_LAN, "gateway": HOST}],
                    [{"subnet": "fd00:2::/64", "rangeStart": IN_LAN_6, "gateway": HOST_6}],
                ],
            },
        },
        {"type": "sbr"},
    ],
}
NETWORKS = (
    chain("front", 0, "cni-front"),
    chain("back", 1, "cni-back", rangeStart="10.44.1.7", rangeEnd="10.44.1.7"),
    LAN,
)
RUN = ("run", "--detach", "--name", "web", "--hostname", "web", "--publish", f"9090:{PORT}")


class Node(ContainerHost):
    """A host with podman, its two networks, and IMAGE if it is there already; `empty` is its state without containers."""

    def __init__(self, bin_dir: Path, state: Path) -> None:
        super().__init__(bin_dir, state)
        for network in NETWORKS:
            self.configure(network)
        self.variables = {
            "PATH": PATH,
            "CONTAINERS_CONF": self.write("/run/containers.conf", CONFIG.format(bin_dir=bin_dir, conf_dir=CONF_DIR)),
            "CONTAINERS_STORAGE_CONF": self.write("/run/storage.conf", STORAGE),
        }
        self.start_agent()
        self.empty = self.kept()

    def podman(self, *argv: str) -> str:
        return self.run("podman", *argv, env=self.variables).stdout.strip()

    def is_serving(self) -> bool:
        """Return True if the published port answers outside, in both families, and here."""
        outside = [self.answer(at, 9090, "client") for at in (HOST, HOST_6)]
        return [*outside, self.answer("127.0.0.1", 9090)] == ["web"] * 3

    def assert_nothing_left(self) -> None:
        assert self.podman("ps", "--all", "--quiet") == ""
        assert self.kept() == self.empty


@pytest.fixture
def node(bin_dir: Path, tmp_path: Path) -> Iterator[Node]:
    with Node(bin_dir, tmp_path) as node:
        node.podman("load", "--input", ARCHIVE)
        yield node
        node.assert_agent_served()


def test_a_container(node: Node) -> None:
    node.podman(*RUN, IMAGE, *SERVER)
    assert node.is_serving()
    assert node.answer("10.44.0.2", PORT) == node.answer("fd00:44::2", PORT) == "web"
    node.podman("rm", "--force", "--time", "0", "web")
    node.assert_nothing_left()


@pytest.mark.slow
def test_two_networks(node: Node) -> None:
    """podman asks for the published port with each of them, in any order."""
    node.podman(*RUN, "--network", "front", "--network", "back", IMAGE, *SERVER)
    for is_started_again in (False, True):
        if is_started_again:
            node.podman("stop", "--time", "0", "web")
            assert node.kept() == node.empty
            node.podman("start", "web")
        assert node.is_serving()
        (front,) = {lease.partition("/")[2] for lease in node.leases() if lease.startswith("front/10.")}
        for at in (front, "10.44.1.7"):
            assert node.answer(at, PORT) == "web"
    node.podman("rm", "--force", "--time", "0", "web")
    node.assert_nothing_left()


@pytest.mark.slow
def test_bridge_and_macvlan(node: Node) -> None:
    """The published port answers by way of the bridge, and the LAN reaches the container's own address in it."""
    node.podman(*RUN, "--network", "front", "--network", "lan", IMAGE, *SERVER)
    assert node.answer(IN_LAN, PORT, "client") == node.answer(IN_LAN_6, PORT, "client") == "web"
    assert node.is_serving()
    node.podman("network", "disconnect", "lan", "web")
    assert node.is_serving() and not any(lease.startswith("lan/") for lease in node.leases())
    node.podman("rm", "--force", "--time", "0", "web")
    node.assert_nothing_left()


def test_a_network_that_is_connected_later(node: Node) -> None:
    node.podman(*RUN, IMAGE, *SERVER)
    node.podman("network", "connect", "back", "web")
    assert node.is_serving() and node.answer("10.44.1.7", PORT) == "web"
    node.podman("network", "disconnect", "back", "web")
    assert node.is_serving()
    node.podman("rm", "--force", "--time", "0", "web")
    node.assert_nothing_left()


@pytest.mark.slow
def test_reboot(bin_dir: Path, tmp_path: Path) -> None:
    """The host goes without a DEL: its leases, of the only address too, are free for the same container afterwards."""
    with Node(bin_dir, tmp_path) as node:
        node.podman("load", "--input", ARCHIVE)
        node.podman(*RUN, "--network", "back", IMAGE, *SERVER)
        node.podman("run", "--detach", "--name", "gone", "--network", "front", IMAGE)
        identity = node.podman("inspect", "--format", "{{.Id}}", "web")
        assert len(node.leases()) == 4
    with Node(bin_dir, tmp_path) as node:
        assert len(node.leases()) == 4
        node.podman("start", "web")
        assert node.podman("inspect", "--format", "{{.Id}}", "web") == identity
        assert node.is_serving() and node.answer("10.44.1.7", PORT) == "web"
        node.podman("start", "gone")
        node.podman("rm", "--force", "--time", "0", "gone", "web")
        assert node.leases() == set()
        assert node.podman("ps", "--all", "--quiet") == ""
        assert node.kept() == {**node.empty, "files": set()}
