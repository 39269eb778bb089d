"""The launcher and the workers have the same constants."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.agent.launcher_node import SOURCE

protocol: Any = pytest.importorskip("shared.agent.protocol")


def test_constants() -> None:
    text = SOURCE.read_text()
    constants = dict(re.findall(r'^(?:#define |\t)([A-Z_]+)(?: =)? ("[^"]*"|[^\s,]+)', text, re.MULTILINE))
    assert constants["SOCKET_PATH"] == f'"{protocol.SOCKET}"'
    assert constants["FALLBACKS_PATH"] == f'"{protocol.FALLBACKS}"'
    assert constants["MAGIC"] == f'"{protocol.MAGIC.decode()}"'
    assert constants["TAKEN"] == repr(protocol.TAKEN.decode())
    assert constants["GO"] == repr(protocol.GO.decode())
    assert int(constants["DESCRIPTORS"]) == protocol.DESCRIPTORS
    assert int(constants["ANSWER_MILLISECONDS"]) == protocol.ANSWER_SECONDS * 1000
    assert protocol.DECLINED not in (protocol.TAKEN, protocol.GO)
