"""The long tests of this directory come first, so that they run beside the many short ones."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not (item.path.parent == HERE and item.get_closest_marker("slow")))
