"""Options for the tests of the cluster's engines."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cluster")
    group.addoption("--server", default="", help="a Kubernetes API server for tests/system/test_cluster_kubernetes.py")
    group.addoption("--kubeconfig", default="", help="an administrator's credentials for --server")
