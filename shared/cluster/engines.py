"""Connect to the engine of the settings."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from shared.cluster import kube_access
from shared.cluster.connection import Tls
from shared.cluster.engine import Counts, Engine, EngineError
from shared.cluster.etcd import Etcd
from shared.cluster.etcd import Settings as EtcdSettings
from shared.cluster.kube_follow import Scope
from shared.cluster.kubernetes import Kubernetes
from shared.cluster.model import Snapshot
from shared.cluster.settings import ETCD, NODES, EtcdKeys, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOOK_SECONDS = 5.0  # between two looks for files that were not there


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


def connect_or_wait(settings: Settings, node: str) -> Engine:
    """Return the engine, or a late one if its files cannot be read."""
    try:
        return connect(settings, node)
    except ValueError:
        return Late(settings, node)


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


class Late:
    """An Engine without credentials yet, as after a boot. Each request fails until its files can be read.

    The node keeps its routes and blocks meanwhile. Then the real engine does everything.
    """

    def __init__(self, settings: Settings, node: str) -> None:
        self._settings, self._node = settings, node
        self._engine: Engine | None = None
        self._life: tuple[str, str] | None = None
        self._ended = Event()

    def __getattr__(self, name: str) -> Any:
        """Return the engine's own method. Raise EngineError without an engine."""
        if self._engine is None:
            raise EngineError("there is no access to the engine yet")
        return getattr(self._engine, name)

    def follow(self, take: Callable[[Snapshot], None]) -> None:
        """Wait for the files, and tell each reason once. Then follow the engine."""
        told = ""
        while not self._ended.is_set():
            try:
                engine = connect(self._settings, self._node)
            except ValueError as error:
                if str(error) != told:
                    told = str(error)
                    take(Snapshot(failure=told))
                self._ended.wait(LOOK_SECONDS)
                continue
            if self._life:
                engine.show_life(*self._life)
            self._engine = engine
            engine.follow(take)
            return

    def close(self) -> None:
        """End `follow`."""
        self._ended.set()
        if self._engine:
            self._engine.close()

    def show_life(self, node: str, uid: str) -> None:
        """Let the engine do so as soon as there is one."""
        self._life = (node, uid)

    def find_life_refusal(self) -> str:
        """Return the engine's answer; empty without an engine."""
        return self._engine.find_life_refusal() if self._engine else ""

    def counts(self) -> Counts:
        """Return the requests so far."""
        return self._engine.counts() if self._engine else Counts(0, 0, 0, 0)
