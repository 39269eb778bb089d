"""cnitool doctor on a node with the agent: nothing if it serves, and a finding for each way in which it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pretend import PretendHost, until
from tests.system.agent_node import AgentNode
from tests.system.test_doctor import BrokenNode
from tests.system.test_install import make_site


class Doctor(AgentNode):
    """A node with the agent, and the doctor's findings about it."""

    def findings(self) -> list[dict[str, str]]:
        _, out = BrokenNode(self.host, self.site.bin).doctor("--json")
        return [one for one in json.loads(out)["findings"] if one["check"] == "agent"]

    def finding(self, severity: str, *words: str) -> str:
        """Return the next step of the only finding, which is about the agent's program."""
        (found,) = self.findings()
        assert (found["severity"], found["where"]) == (severity, f"{self.site.bin}/pycni-agent")
        assert all(word in found["what"] for word in words), found
        return found["todo"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Doctor]:
    with PretendHost() as host:
        yield Doctor(host, make_site(tmp_path))


def test_nothing_without_the_agent(node: Doctor) -> None:
    node.install()
    assert node.findings() == []


def test_each_state_of_the_agent(node: Doctor) -> None:
    node.install("--agent")
    assert node.finding("warning", "no agent answers", "each call starts Python").startswith("systemctl start")
    node.start()
    assert node.findings() == []

    with (node.host.root / "run/pycni/fallbacks").open("ab") as count:
        count.write(b"+" * 1000)
    assert "workers" in node.finding("note", "1000 others started Python", "declined none")

    first = node.tree()
    node.host.run("mv", "/run/pycni/lock", "/run/pycni/hidden")
    node.site.change("newer")
    node.install()
    node.host.run("mv", "/run/pycni/hidden", "/run/pycni/lock")
    (node.host.root / "run/pycni/fallbacks").write_bytes(b"")
    node.host.run("sh", "-c", node.finding("warning", f"the running agent is of {first}"))
    node.await_release()
    (node.host.root / "run/pycni/fallbacks").write_bytes(b"")  # the doctor's own calls
    assert node.findings() == []


def test_duties_that_fail(node: Doctor) -> None:
    node.install("--agent")
    node.host.run("tee", "/etc/cni/pycni-agent.json", input="{}")
    (node.site.bin / "cnitool").unlink()
    (node.site.bin / "cnitool").write_text("#!/bin/sh\nexit 1\n")
    (node.site.bin / "cnitool").chmod(0o755)
    node.start()
    until(lambda: node.state()["duties"]["restarts"] > 0)
    assert node.finding("warning", "has no duties process").startswith("journalctl")


def test_launchers_that_do_not_ask(node: Doctor, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    node.install("--agent", path=f"{tmp_path}:/usr/bin:/bin")
    node.start()
    assert "cc" in node.finding("note", "serves no call of bandwidth, bridge", "no C compiler")
