"""The two ways in which a runtime's calls are served."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["executed", "agent"])
def bin_dir(request: pytest.FixtureRequest) -> Path:
    """Return the bin directory of an installation without or with the agent."""
    directory: Path = request.getfixturevalue("installed" if request.param == "executed" else "installed_with_agent")
    return directory
