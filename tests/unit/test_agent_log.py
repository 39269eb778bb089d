"""The agent's log has one line for each message."""

from __future__ import annotations

import pytest

from shared.cli.agent.counts import say


def test_an_object_of_others_begins_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    say("cluster: object nodes/a\npycni-agent: all is well\x1b[2J, 10 µs \udcff")
    assert capfd.readouterr().err == (
        "pycni-agent: cluster: object nodes/a\\npycni-agent: all is well\\x1b[2J, 10 µs \\udcff\n"
    )
