"""The settings of the agent's cluster duty, and their declared keys."""

from __future__ import annotations

import json
import os
import socket
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from shared.cluster import conflist
from shared.cluster.codec import Unreadable, is_unicast, to_name
from shared.cluster.look import Place
from shared.cluster.model import Address, Cidr
from shared.cni import config
from shared.cni.config import (
    Config,
    Invalid,
    Kind,
    absolute_path,
    boolean,
    choice,
    field,
    integer,
    list_of,
    section,
    text,
)
from shared.cni.errors import CniError

PATH = Path("/etc/cni/pycni-cluster.json")
TEMPLATES = "/etc/cni/pycni/{}.conflist"
CONFLISTS = "/etc/cni/net.d/10-{}.conflist"
NODE_NAME = "NODE_NAME"  # the variable in which a DaemonSet gives its pod the Node's name
ETCD, KUBERNETES = "etcd", "kubernetes"
OBJECTS, NODES = "objects", "nodes"
TUNNELS = {"auto": None, "always": True, "never": False}
WIREGUARD = "wireguard"


class Section(Config):
    """An object without other keys than the declared ones."""

    def __init__(self, raw: dict[str, Any]) -> None:
        """Raise Invalid for an unknown key, too."""
        for key in raw:
            if key not in self.fields:
                raise Invalid(key, None, f"is not a key; the keys are {', '.join(self.fields)}")
        super().__init__(raw)


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError("must be a number above 0 and up to 1")
    return float(value)


def _address(value: Any) -> Address:
    try:
        return ip_address(text.parse(value))
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None


def _addresses(value: Any) -> tuple[Address, ...]:
    found = tuple(list_of(_ADDRESS).parse(value))
    if not all(is_unicast(one) for one in found):
        raise ValueError("must have unicast addresses that other nodes can reach")
    if len({one.version for one in found}) < len(found):
        raise ValueError("must have at most one address of each family")
    return found


def _cidr(value: Any) -> Cidr:
    try:
        return ip_network(text.parse(value))
    except ValueError:
        raise ValueError("must be a network in CIDR notation without host bits, such as 10.244.0.0/16") from None


_ADDRESS = Kind(_address, {"type": "string", "format": "ip"})
_CIDR = Kind(_cidr, {"type": "string", "format": "cidr"})


class EtcdKeys(Section):
    """How to reach etcd."""

    endpoints: list[str] = field(list_of(text), [], "URLs of its members, such as https://10.0.0.1:2379")
    caFile: str = field(absolute_path, "", "certificates of the authority; the system's by default")  # noqa: N815
    certificateFile: str = field(absolute_path, "", "the client's certificate")  # noqa: N815
    keyFile: str = field(absolute_path, "", "its key")  # noqa: N815
    serverName: str = field(text, "", "the name in the members' certificates, if it is not their host")  # noqa: N815
    user: str = field(text, "", "the name of an etcd user")
    passwordFile: str = field(absolute_path, "", "the file with the user's password")  # noqa: N815
    prefix: str = field(text, "/pycni/v1/", "the beginning of all keys")


class KubernetesKeys(Section):
    """How to reach the Kubernetes API, and its objects that are used."""

    kubeconfig: str = field(absolute_path, "", "a kubeconfig file; the pod's ServiceAccount by default")
    context: str = field(text, "", "its context; the current one by default")
    server: str = field(text, "", "the API server's URL, in place of the kubeconfig's or the service's")
    blocks: bool = field(boolean, True, "claim blocks of the pools; false: the Nodes' podCIDRs are all ranges")
    peers: str = field(
        choice(OBJECTS, NODES), OBJECTS, f'peers are objects of their own, or with "{NODES}" the Nodes themselves'
    )


class NetworkKeys(Section):
    """One network of this node."""

    template: str = field(absolute_path, "", f"the administrator's conflist; {TEMPLATES.format('NAME')} by default")
    conflist: str = field(absolute_path, "", f"the file to write; {CONFLISTS.format('NAME')} by default")
    podCIDRs: bool = field(boolean, False, "the ranges are the Kubernetes Node's podCIDRs")  # noqa: N815
    clusterCIDRs: list[Cidr] = field(  # noqa: N815
        list_of(_CIDR), [], "networks whose pods see the source address; with podCIDRs there is no pool that says it"
    )


def _networks(value: Any) -> dict[str, NetworkKeys]:
    found = {}
    for name, raw in config.obj.parse(value).items():
        try:
            to_name(name, "network")
            found[name] = section(NetworkKeys).parse(raw)
        except Invalid as error:
            raise Invalid(f"{name}.{error.path}", error.value, error.reason) from None
        except Unreadable as error:
            raise Invalid(name, None, str(error)) from None
        except ValueError as error:
            raise Invalid(name, raw, str(error)) from None
    if not found:
        raise ValueError('must name a network, as in {"pods": {}}')
    if sum(one.podCIDRs for one in found.values()) > 1:
        raise ValueError("must have one network with podCIDRs at most")
    return found


class Settings(Section):
    """The keys of the file."""

    engine: str = field(choice(ETCD, KUBERNETES), "", "the cluster's store", required=True)
    node: str = field(text, "", f"the node's name; ${NODE_NAME} by default, else the host's name in lower case")
    addresses: tuple[Address, ...] = field(
        Kind(_addresses, {"type": "array", "items": _ADDRESS.schema, "maxItems": 2}), (),
        "the node's own addresses; the sources of its default routes by default",
    )  # fmt: skip
    etcd: EtcdKeys = field(section(EtcdKeys), EtcdKeys({}), "how to reach etcd")
    kubernetes: KubernetesKeys = field(section(KubernetesKeys), KubernetesKeys({}), "how to reach the Kubernetes API")
    networks: dict[str, NetworkKeys] = field(
        Kind(_networks, {"type": "object", "additionalProperties": {"type": "object", "config": NetworkKeys}}), {},
        "the networks of this node, by name", required=True,
    )  # fmt: skip
    tunnels: str = field(
        choice(*TUNNELS), "auto", "use VXLAN to nodes that are on no link of this one, to all, or none"
    )
    encryption: str = field(choice(WIREGUARD), "", f'"{WIREGUARD}" encrypts the packets between nodes')
    low: float = field(
        Kind(_fraction, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}), 0.25,
        "claim another block if less than this part of a block is free",
    )  # fmt: skip
    graceSeconds: int = field(  # noqa: N815
        integer(60, 86_400), 300, "age in seconds of an empty block that is given back; longer than any ADD"
    )
    raiseNeighbourLimit: bool = field(  # noqa: N815
        boolean, False, "set net.ipv4 and ipv6.neigh.default.gc_thresh3 for the number of peers"
    )

    def node_name(self) -> str:
        """Return the node's name, which for Kubernetes is that of the Node object. Raise ValueError if it is none."""
        return to_name(self.node or os.environ.get(NODE_NAME, "") or socket.gethostname().lower(), "node")

    def pod_cidr_network(self) -> str:
        """Return the network with podCIDRs, empty if there is none."""
        return next((name for name, one in self.networks.items() if one.podCIDRs), "")

    def template(self, network: str) -> Path:
        """Return the path of a network's template."""
        return Path(self.networks[network].template or TEMPLATES.format(network))

    def target(self, network: str) -> Path:
        """Return the path of a network's conflist."""
        return Path(self.networks[network].conflist or CONFLISTS.format(network))

    def places(self) -> dict[str, Place]:
        """Return the files of each network. Leave out a network if its directory of leases is not known.

        ADDs follow the conflist, so that its directory comes before the template's.
        """
        found = {}
        for name in self.networks:
            target = self.target(name)
            data_dir = conflist.data_dir(target)
            if data_dir is None:
                try:
                    data_dir = conflist.read(self.template(name), name).data_dir
                except CniError:
                    continue
            found[name] = Place(target, data_dir)
        return found


def parse(raw: object) -> Settings:
    """Return the settings in an object. Raise ValueError that names the key."""
    try:
        settings = Settings(config.obj.parse(raw))
        _check(settings)
    except Invalid as error:
        raise ValueError(f'"{error.path}"{"" if error.value is None else ":"} {_described(error)}') from None
    return settings


def _described(error: Invalid) -> str:
    return config.described(error.value, error.reason)


def _check(settings: Settings) -> None:
    """Raise Invalid for keys that do not fit together."""
    targets: dict[Path, str] = {}
    for name in settings.networks:
        target = settings.target(name)
        if targets.setdefault(target, name) != name:
            raise Invalid(f"networks.{name}.conflist", str(target), f"must not be that of network {targets[target]}")
    network = settings.pod_cidr_network()
    if settings.engine == ETCD:
        _check_etcd(settings.etcd)
        if network:
            raise Invalid(f"networks.{network}.podCIDRs", None, "needs the engine kubernetes")
    elif not network:
        for key, is_wrong in (
            ("blocks", not settings.kubernetes.blocks),
            ("peers", settings.kubernetes.peers == NODES),
        ):
            if is_wrong:
                raise Invalid(f"kubernetes.{key}", None, "needs a network with podCIDRs, as there is no pool for it")


def _check_etcd(keys: EtcdKeys) -> None:
    if not keys.endpoints:
        raise Invalid("etcd.endpoints", None, "is required with the engine etcd")
    if bool(keys.certificateFile) != bool(keys.keyFile):
        raise Invalid("etcd", None, "must have both certificateFile and keyFile, or none of them")
    if bool(keys.user) != bool(keys.passwordFile):
        raise Invalid("etcd", None, "must have both user and passwordFile, or none of them")


def read(path: Path = PATH) -> Settings:
    """Return the settings of the file. Raise ValueError that names the file and the key."""
    try:
        return parse(json.loads(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
