"""Fixtures of the tests of the call server and its workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.calls import Calls
from tests.pretend import PretendHost


@pytest.fixture
def node_host(installed_with_agent: Path) -> Iterator[PretendHost]:
    """Return a host with the agent installed; it does not run."""
    with PretendHost(installed_with_agent) as host:
        yield host


@pytest.fixture
def calls(node_host: PretendHost) -> Iterator[Calls]:
    """Return a host with a running agent."""
    node_host.netns("pod")
    found = Calls(node_host)
    yield found
    found.close()
