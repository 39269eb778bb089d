"""The engine on real etcd: the contract, and everything that may go wrong between a node and it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import certificates
from tests.cluster_contract import Connect, EngineContract
from tests.etcd import Cluster, running


@pytest.fixture(scope="module")
def plain() -> Iterator[Cluster]:
    """Run one member without TLS and users."""
    with running() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run one member that demands a client's certificate and a user."""
    with running(authority=certificates.make(tmp_path_factory.mktemp("ca"))) as cluster:
        cluster.demand_users()
        yield cluster


class TestPlain(EngineContract):
    @pytest.fixture
    def connect(self, plain: Cluster) -> Connect:
        plain.empty()
        return plain.engine


class TestSecure(EngineContract):
    @pytest.fixture
    def connect(self, secure: Cluster) -> Connect:
        secure.empty()
        return lambda: secure.engine(user="node", password="the node's")  # noqa: S106
