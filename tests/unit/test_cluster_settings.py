"""The cluster duty's settings, and the engines that they describe."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import engines, settings
from shared.cluster.conflist import DATA_DIR
from shared.cluster.etcd import Etcd
from shared.cluster.kubernetes import Kubernetes
from shared.cluster.look import Place
from shared.cluster.node import NodeHost

ETCD = {"engine": "etcd", "etcd": {"endpoints": ["http://127.0.0.1:2379"]}, "networks": {"pods": {}}}
KUBERNETES = {"engine": "kubernetes", "networks": {"pods": {"podCIDRs": True}}}


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings.parse(ETCD)
    assert (found.low, found.graceSeconds, found.tunnels, found.encryption) == (0.25, 300, "auto", "")
    assert found.etcd.prefix == "/pycni/v1/" and found.kubernetes.blocks and not found.addresses
    assert str(found.template("pods")) == "/etc/cni/pycni/pods.conflist"
    assert str(found.target("pods")) == "/etc/cni/net.d/10-pods.conflist"
    monkeypatch.setattr("socket.gethostname", lambda: "Node-1")
    monkeypatch.delenv("NODE_NAME", raising=False)
    assert found.node_name() == "node-1"
    monkeypatch.setenv("NODE_NAME", "node-2")
    assert found.node_name() == "node-2"
    assert settings.parse({**ETCD, "node": "Node_3"}).node_name() == "Node_3"
    with pytest.raises(ValueError, match="node is 'a/b'; a name has"):
        settings.parse({**ETCD, "node": "a/b"}).node_name()


def test_values() -> None:
    keys = {"podCIDRs": True, "clusterCIDRs": ["10.0.0.0/8", "fd00::/16"]}
    found = settings.parse({**KUBERNETES, "networks": {"pods": keys}, "addresses": ["fd00::1", "10.0.0.1"], "low": 1})
    assert found.addresses == (ip_address("fd00::1"), ip_address("10.0.0.1"))
    assert found.networks["pods"].clusterCIDRs == [ip_network("10.0.0.0/8"), ip_network("fd00::/16")]
    assert found.pod_cidr_network() == "pods" and settings.parse(ETCD).pod_cidr_network() == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": ...}, '"engine" is required'),
        ({"engine": "consul"}, '"engine": "consul" must be one of etcd, kubernetes'),
        ({"network": {}}, '"network" is not a key; the keys are engine, node,'),
        ({"networks": {}}, '"networks": {} must name a network'),
        ({"addresses": ["127.0.0.1"]}, '"addresses": [ "127.0.0.1" ] must have unicast addresses that other nodes'),
        ({"addresses": ["fe80::1"]}, '"addresses": [ "fe80::1" ] must have unicast addresses that other nodes'),
        ({"networks": {"pods": {"pool": 1}}}, '"networks.pods.pool" is not a key; the keys are template,'),
        ({"networks": {"pods": {"template": "x"}}}, '"networks.pods.template": "x" must be an absolute path'),
        ({"networks": {"pods": []}}, '"networks.pods": [] must be an object'),
        ({"networks": {"a/b": {}}}, "'a/b'; a name has"),
        (
            {"networks": {"pods": {"clusterCIDRs": ["10.0.0.1/8"]}}},
            '"networks.pods.clusterCIDRs[0]": "10.0.0.1/8" must be',
        ),
        ({"networks": {"pods": {"podCIDRs": True}}}, '"networks.pods.podCIDRs" needs the engine kubernetes'),
        (
            {"networks": {"a": {"conflist": "/x"}, "b": {"conflist": "/x"}}},
            '"networks.b.conflist": "/x" must not be that of network a',
        ),
        ({"etcd": {}}, '"etcd.endpoints" is required with the engine etcd'),
        ({"etcd": {"endpoint": "x"}}, '"etcd.endpoint" is not a key; the keys are endpoints,'),
        ({"etcd": {"endpoints": ["http://[::1]:2379"], "user": "u"}}, '"etcd" must have both user and passwordFile'),
        ({"etcd": {"endpoints": ["http://[::1]:2379"], "keyFile": "/k"}}, '"etcd" must have both certificateFile'),
        ({"addresses": ["10.0.0.1", "10.0.0.2"]}, "at most one address of each family"),
        ({"addresses": ["node-1"]}, '"addresses[0]": "node-1" must be an IPv4 or IPv6 address'),
        ({"low": 0}, '"low": 0 must be a number above 0'),
        ({"low": True}, '"low": true must be a number above 0'),
        ({"graceSeconds": 1}, '"graceSeconds": 1 must be a whole number from 60'),
        ({"tunnels": "gre"}, '"tunnels": "gre" must be one of auto, always, never'),
        ({"encryption": "ipsec"}, '"encryption": "ipsec" must be one of wireguard'),
        (
            {"engine": "kubernetes", "kubernetes": {"blocks": False}},
            '"kubernetes.blocks" needs a network with podCIDRs',
        ),
        (
            {"engine": "kubernetes", "kubernetes": {"peers": "nodes"}},
            '"kubernetes.peers" needs a network with podCIDRs',
        ),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], words: str) -> None:
    raw = {key: value for key, value in {**ETCD, **changes}.items() if value is not ...}
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the text is compared)
        settings.parse(raw)
    assert words in str(caught.value)


def test_two_networks_with_pod_cidrs() -> None:
    with pytest.raises(ValueError, match="one network with podCIDRs at most"):
        settings.parse({**KUBERNETES, "networks": {"pods": {"podCIDRs": True}, "more": {"podCIDRs": True}}})


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "No such file"), ("{", "property name"), ("[]", "must be an object"), ('{"engine": 1}', "engine")],
)
def test_the_file_is_named(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json") as caught:
        settings.read(path)
    assert words in str(caught.value)


def test_places_come_from_the_conflist_then_the_template(tmp_path: Path) -> None:
    """A network without either has none: its leases cannot be counted."""
    template, target = tmp_path / "template", tmp_path / "target"
    keys = {"template": str(template), "conflist": str(target)}
    found = settings.parse({**ETCD, "networks": {"pods": keys}})
    assert found.places() == {}
    plugin = {"type": "bridge", "ipam": {"type": "host-local", "dataDir": "/new"}}
    template.write_text(json.dumps({"name": "pods", "plugins": [plugin]}))
    assert found.places() == {"pods": Place(target, "/new")}
    ipam = {"type": "host-local", "dataDir": "/old", "ranges": [[{"subnet": "10.0.0.0/24"}]]}
    target.write_text(json.dumps({"plugins": [{"type": "bridge", "ipam": ipam}]}))
    assert found.places() == {"pods": Place(target, "/old")}
    del ipam["dataDir"]
    target.write_text(json.dumps({"plugins": [{"type": "bridge", "ipam": ipam}]}))
    assert found.places() == {"pods": Place(target, DATA_DIR)}


def test_engines(tmp_path: Path) -> None:
    """Nothing is sent: the engine may be down."""
    assert isinstance(engines.connect(settings.parse(ETCD), "node-1"), Etcd)
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(json.dumps({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [{"name": "u", "user": {}}],
    }))  # fmt: skip
    keys = {"kubeconfig": str(kubeconfig), "blocks": False, "peers": "nodes"}
    assert isinstance(engines.connect(settings.parse({**KUBERNETES, "kubernetes": keys}), "node-1"), Kubernetes)
    with pytest.raises(ValueError, match="nowhere: No such file"):
        engines.connect(settings.parse({**KUBERNETES, "kubernetes": {"kubeconfig": "/nowhere"}}), "node-1")
    with pytest.raises(ValueError, match="'etcd:2379' is not a URL"):
        engines.connect(settings.parse({**ETCD, "etcd": {"endpoints": ["etcd:2379"]}}), "node-1")


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("", "the first line is empty"), ("\nx", "empty")]
)
def test_a_password_is_the_first_line_of_its_file(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "password"
    keys = {"endpoints": ["http://127.0.0.1:2379"], "user": "node", "passwordFile": str(path)}
    chosen = settings.parse({**ETCD, "etcd": keys})
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"passwordFile .*password") as caught:
        engines.connect(chosen, "node-1")
    assert words in str(caught.value)
    path.write_text("secret\n")
    engines.connect(chosen, "node-1")


def test_a_copied_disk_does_not_copy_the_address_of_the_tunnels_end(tmp_path: Path) -> None:
    """Forwarding entries have one node for each MAC: packets to the one would go to the other."""
    found = {name: NodeHost(settings.parse(ETCD), name, "0" * 32, directory=tmp_path).mac for name in ("one", "two")}
    assert found["one"] != found["two"]
