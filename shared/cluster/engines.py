"""Connect to the engine of the settings."""

from __future__ import annotations

from pathlib import Path

from shared.cluster import kube_access
from shared.cluster.connection import Tls
from shared.cluster.engine import Engine
from shared.cluster.etcd import Etcd
from shared.cluster.etcd import Settings as EtcdSettings
from shared.cluster.kube_follow import Scope
from shared.cluster.kubernetes import Kubernetes
from shared.cluster.settings import ETCD, NODES, EtcdKeys, Settings


def connect(settings: Settings, node: str) -> Engine:
    """Return the engine for a node. Raise ValueError for settings or files that cannot be used.

    Nothing is sent before the first request, so that an engine may be down.
    """
    if settings.engine == ETCD:
        return Etcd(_etcd(settings.etcd))
    keys = settings.kubernetes
    if keys.kubeconfig:
        access = kube_access.from_kubeconfig(Path(keys.kubeconfig), context=keys.context, server=keys.server)
    else:
        access = kube_access.in_cluster(keys.server)
    scope = Scope(
        claims_blocks=keys.blocks, pod_cidr_network=settings.pod_cidr_network(), peers_from_nodes=keys.peers == NODES
    )
    return Kubernetes(access, node, scope)


def _etcd(keys: EtcdKeys) -> EtcdSettings:
    tls = Tls(
        ca_file=keys.caFile, certificate_file=keys.certificateFile, key_file=keys.keyFile, server_name=keys.serverName
    )
    return EtcdSettings(tuple(keys.endpoints), tls, keys.user, _password(keys.passwordFile), keys.prefix)


def _password(path: str) -> str:
    """Return the first line of a file. Raise ValueError if it has none."""
    if not path:
        return ""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"etcd.passwordFile {path}: {getattr(error, 'strerror', error)}") from None
    if not lines or not lines[0]:
        raise ValueError(f"etcd.passwordFile {path}: the first line is empty, expected the password of the etcd user")
    return lines[0]
