"""The pages on clusters, done step by step as a reader does them: the duty runs with them, and a pod gets addresses.

The page on etcd runs with real etcd, etcdctl and openssl, that on kubeadm with the tests' API server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import plain_yaml
from shared.net.netns import open_netns
from tests import certificates
from tests.conftest import ROOT
from tests.kube_server import KubeServer, agent
from tests.pretend import PATH, PretendHost, read_line, until
from tests.system.test_documents import blocks, put_cnitool, put_tool

ETCD, KUBEADM, WHEREABOUTS = (ROOT / f"docs/how-to/cluster-{name}.md" for name in ("etcd", "kubeadm", "whereabouts"))
SERVER, NODE = "192.0.2.11", "192.0.2.21"  # the page's, and one for the node
CONFLIST = "etc/cni/net.d/10-pods.conflist"

# As systemd does with the unit of Debian's package: the variables of its file are etcd's options.
SYSTEMCTL = """#!/bin/sh -eu
[ "$2" = etcd ]
if [ -e /run/etcd.pid ] && [ "$1" != start ]; then
    kill "$(cat /run/etcd.pid)"
    while kill -0 "$(cat /run/etcd.pid)" 2>/dev/null; do sleep 0.05; done
    rm /run/etcd.pid
fi
[ "$1" != stop ] || exit 0
set -a
. /etc/default/etcd
ETCD_LOGGER=zap ETCD_LOG_LEVEL=error ETCD_BCRYPT_COST=4 setsid etcd >>/run/etcd.log 2>&1 3>&- &
echo $! >/run/etcd.pid
until ss -Hltn | grep -q :2379; do kill -0 "$(cat /run/etcd.pid)"; sleep 0.05; done
"""
# An overlay keeps the machine's own /etc as it is; etcd's data and the directory of networks are empty.
MOUNTS = """
mkdir -p /run/etc/upper /run/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
mount -t tmpfs tmpfs /etc/cni
mount -t tmpfs tmpfs /var/lib/etcd
mkdir -p /etc/cni/net.d /etc/cni/pycni
"""
RIGHTS = {
    "blocks/pods/10.244.0.0/24": True,
    "nodes/node-1": True,
    "alive/node-1/id": True,
    "nodes/node-2": False,
    "alive/node-2/id": False,
    "pools/pods": False,
}  # of node-1, to write
DUTY = """
import sys
sys.path.insert(0, sys.argv[1])
from shared.cluster.duty import Duty
from shared.cluster.settings import read
Duty(read(), lambda text: print(text, flush=True)).run()
"""


class Reader:
    """A reader's shell, which keeps its variables from one block of the page to the next."""

    def __init__(self, host: PretendHost) -> None:
        self._log = host.root / "run/page.log"
        env = {"PATH": f"/run/tools:{PATH}"}
        self._shell = host.popen("bash", "-eu", stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._send("exec 3>&1 >/run/page.log 2>&1")

    def _send(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\n".encode())
        self._shell.stdin.flush()

    def do(self, block: str) -> None:
        """Execute a block. Each of its commands must succeed."""
        self._send(f"{block}\necho done >&3")
        assert read_line(self._shell) == b"done\n", self._log.read_text(errors="replace")

    def value(self, key: str) -> Any:
        """Return the JSON value of a key below the suite's prefix, None without one."""
        text = self._get(f"--print-value-only /pycni/v1/{key}")
        return json.loads(text) if text else None

    def has_keys(self, prefix: str) -> bool:
        """Return True if there are keys with a prefix below the suite's own."""
        return bool(self._get(f"--prefix --keys-only /pycni/v1/{prefix}"))

    def _get(self, arguments: str) -> str:
        self.do(f"etcdctl get {arguments} >/run/answer")
        return (self._log.parent / "answer").read_text()


@pytest.fixture
def page_host(installed: Path) -> Iterator[PretendHost]:
    """Return a host with the page's address and a default route, in which the page may write to /etc."""
    with PretendHost(installed) as host:
        host.run("sh", "-eu", "-c", MOUNTS)
        put_tool(host, "systemctl", SYSTEMCTL)
        put_cnitool(host)
        for command in (
            f"address add {SERVER}/32 dev lo",
            "link add eth0 type veth peer name eth0-peer",
            f"address add {NODE}/24 dev eth0",
            "link set eth0 up",
            "link set eth0-peer up",
            "route add default via 192.0.2.1 dev eth0",
        ):
            host.run("ip", *command.split())
        yield host


def ranges(host: PretendHost) -> list[str]:
    """Return the subnets that pods get addresses of, of both families; none before the conflist is there."""
    try:
        found = json.loads((host.root / CONFLIST).read_text())["plugins"][0]["ipam"]["ranges"]
    except FileNotFoundError:
        return []
    return [entry["subnet"] for each in found for entry in each]


def begin(host: PretendHost, template: str, settings: str) -> None:
    """Start the duty with a page's files."""
    host.run("tee", f"/etc/cni/pycni/{json.loads(template)['name']}.conflist", input=template)
    host.run("tee", "/etc/cni/pycni-cluster.json", input=settings)
    with (host.root / "run/duty.log").open("wb") as log:
        host.popen(sys.executable, "-c", DUTY, str(ROOT), stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def attach(host: PretendHost, path: str = CONFLIST) -> list[IPv4Interface | IPv6Interface]:
    """Attach a pod by a conflist's main plugin, and return its addresses."""
    conflist = json.loads((host.root / path).read_text())
    main = {"cniVersion": conflist["cniVersion"], "name": conflist["name"], **conflist["plugins"][0]}
    result = host.cni(main["type"], "ADD", main, netns=host.netns("pod")).json
    return [ip_interface(one["address"]) for one in result["ips"]]


def test_the_page_of_etcd(page_host: PretendHost) -> None:
    """The page leads to a pod with addresses, and nodes have the rights that it names.

    Claims that are newer than the backup are made again after its restore.
    """
    reader = Reader(page_host)
    certificates, start, users, pool, look, back_up, restore = blocks(ETCD, "sh")
    for block in (certificates, start, users, pool, back_up):
        reader.do(block)
    for key, is_allowed in RIGHTS.items():
        put = f"ETCDCTL_USER=node-1:$(cat node-1.password) etcdctl put /pycni/v1/{key} {{}}"
        reader.do(put if is_allowed else f"! {put}")
    reader.do("for kind in blocks nodes alive; do etcdctl del --prefix /pycni/v1/$kind/; done")
    template, settings = blocks(ETCD, "json")
    reader.do("cp ca.crt node.crt node.key node-1.password /etc/cni/pycni/; chmod 600 /etc/cni/pycni/*")
    begin(page_host, template, settings)
    until(lambda: len(ranges(page_host)) == 2)
    assert len(attach(page_host)) == 2
    reader.do(look)
    until(lambda: reader.has_keys("alive/node-1/"))
    claimed = ranges(page_host)
    keys = [f"blocks/pods/{cidr}" for cidr in claimed]
    assert [reader.value(key)["node"] for key in keys] == ["node-1", "node-1"]
    reader.do(restore)
    until(lambda: all(reader.value(key) for key in keys))
    assert ranges(page_host) == claimed
    assert reader.value("nodes/node-1")["cidrs"] == {"pods": claimed}


@pytest.fixture
def api(page_host: PretendHost, tmp_path: Path) -> Iterator[KubeServer]:
    """Run an API server in the host, and write a node's credentials as the page on kubeadm names them."""
    authority = certificates.make(tmp_path)
    certificate, key = authority.issue("server")
    netns = open_netns(f"/proc/{page_host.first_pid}/ns/net")
    server = KubeServer(certificate, key, authority.certificate)
    try:
        with netns:
            server.start()
        server.tokens["the-token"] = agent("node-1")
        [kubeconfig] = [text for text in blocks(KUBEADM, "yaml") if "kind: Config" in text]
        page_host.run(
            "tee", "/etc/cni/pycni/kubeconfig", input=kubeconfig.replace("https://192.0.2.10:6443", server.url)
        )
        page_host.run("tee", "/etc/cni/pycni/token", input="the-token\n")
        page_host.run("tee", "/etc/cni/pycni/ca.crt", input=authority.certificate.read_bytes())
        yield server
    finally:
        server.stop()
        netns.close()


@pytest.mark.parametrize("mode", ["podCIDRs", "blocks"])
def test_the_page_of_kubeadm(mode: str, page_host: PretendHost, api: KubeServer) -> None:
    """Both ways to give addresses lead to a pod, with the rights of the manifests."""
    template, pod_cidrs, claims = blocks(KUBEADM, "json")
    if mode == "blocks":
        [pool] = [text for text in blocks(KUBEADM, "yaml") if "kind: Pool" in text]
        api.add("pools", plain_yaml.parse(pool))
        begin(page_host, template, claims)
    else:
        spec = {"podCIDRs": ["10.244.7.0/24"]}
        api.add("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": spec})
        begin(page_host, template, pod_cidrs)
    until(lambda: len(ranges(page_host)) == (2 if mode == "blocks" else 1))
    addresses = attach(page_host)
    assert [str(one.network) for one in addresses] == ranges(page_host)
    assert list(api.store.objects[api.resource("peers")]) == ["node-1"]
    assert len(api.store.objects.get(api.resource("blocks"), {})) == (2 if mode == "blocks" else 0)
    assert mode == "blocks" or ranges(page_host) == ["10.244.7.0/24"]


def test_the_page_of_whereabouts(page_host: PretendHost, api: KubeServer) -> None:
    """Pods of the segment have its prefix length, and no reserved address."""
    page_host.run("ip", "link", "add", "eth1", "up", "type", "veth", "peer", "name", "eth1-peer")
    api.tokens["the-token"] = agent("pretend")
    own = [text for text in blocks(WHEREABOUTS, "yaml") if "pycni.internal" in text]
    for one in map(plain_yaml.parse, own):
        api.add(f"{one['kind'].lower()}s", one)
    template, settings = blocks(WHEREABOUTS, "json")
    begin(page_host, template, settings)
    path = json.loads(settings)["networks"]["lan"]["conflist"].lstrip("/")
    until((page_host.root / path).exists)
    [address] = attach(page_host, path)
    assert address.network == ip_network("192.168.20.0/24") and address.ip not in ip_network("192.168.20.0/26")
