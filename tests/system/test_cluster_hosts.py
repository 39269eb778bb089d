"""Whole clusters: hosts on a fabric with real agents and a real etcd, by packets of their pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_node import Site, site, together
from tests.fabric import silent_pods

pytestmark = pytest.mark.kernel_vxlan


@pytest.fixture
def small(installed_with_agent: Path, tmp_path: Path) -> Iterator[Site]:
    """Have three nodes, a and b on a link, c behind the router."""
    with site(installed_with_agent, tmp_path) as found:
        found.add("ab", 0)
        found.add("c", 1)
        found.start()
        yield found


def test_small(small: Site) -> None:
    for node in small.nodes.values():
        node.add(f"{node.name}1")
    small.await_routes()
    assert silent_pods(small.nodes.values()) == []
