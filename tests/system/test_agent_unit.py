"""The agent's systemd unit suffices for every call, and gives workers no mounts of their own."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.agent.server import BUSY_SECONDS
from tests import dhcp_lan
from tests.conftest import ROOT
from tests.kernel.features import has
from tests.plugins import BRIDGE, PORTS, SAMPLES, Sample, links
from tests.pretend import PretendHost
from tests.system.agent_node import AgentNode
from tests.system.test_install import make_site

UNIT = ROOT / "shared/agent/pycni-agent.service"
# systemd.exec(5): these, and Protect… and Private…, give a service a mount namespace, or network and users of its own.
MOUNTS = (
    "RootDirectory", "RootImage", "MountAPIVFS", "BindPaths", "BindReadOnlyPaths", "MountImages", "ExtensionImages",
    "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "TemporaryFileSystem",
    "DynamicUser", "NetworkNamespacePath", "IPCNamespacePath", "MountFlags", "LogNamespace", "RestrictFileSystems",
    "RestrictNamespaces", "User", "ProcSubset",
)  # fmt: skip
# The options of the unit that forbid certain arguments, and calls of the agent with them.
WRITABLE_CODE = re.compile(r"\b(?:mmap|mprotect|pkey_mprotect)\(.*PROT_WRITE\|PROT_EXEC")
FAMILY = re.compile(r"\bsocket(?:pair)?\((AF_\w+)")
SET_ID = re.compile(r"\b(?:f?chmod|fchmodat|mkdir|mkdirat|open|openat)\(.*, 0[2467]\d{3}\)")
SYSTEM_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)", re.MULTILINE)
PROGRAMS = {
    "portmap by iptables": Sample(
        {"type": "portmap", "backend": "iptables", "runtimeConfig": {"portMappings": PORTS}}, (BRIDGE,)
    ),
    "firewall by iptables": Sample({"type": "firewall", "backend": "iptables"}, (BRIDGE,)),
}


def options() -> dict[str, list[str]]:
    """Return the words of each option of the unit; those of a repeated option add up."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, words = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).extend(words.split())
    return found


def test_workers_are_in_the_hosts_namespaces() -> None:
    unit = options()
    assert [name for name in unit if name.startswith(("Protect", "Private")) or name in MOUNTS] == []
    assert unit["NoNewPrivileges"] == unit["MemoryDenyWriteExecute"] == ["yes"]


def test_the_end_waits_for_calls() -> None:
    unit = options()
    assert unit["KillMode"] == ["process"] and int(unit["TimeoutStopSec"][0]) > BUSY_SECONDS


@pytest.fixture
def node(tmp_path: Path) -> Iterator[AgentNode]:
    with PretendHost() as host:
        yield AgentNode(host, make_site(tmp_path))


def life(node: AgentNode, sample: Sample, pod: str) -> int:
    """Call a plugin, and those before it in a list, with each verb; return the number of calls."""
    netns, result, calls = node.host.netns(pod), None, 0
    chain = (*sample.before, sample.keys)
    if sample.is_served:
        dhcp_lan.prepare(node.host, pod)
    common = {"cniVersion": "1.1.0", "name": "net"}
    for verb in ("STATUS", "ADD", "CHECK", "GC", "DEL"):
        for keys in reversed(chain) if verb == "DEL" else chain:
            config: dict[str, Any] = {**common, **keys, "cni.dev/valid-attachments": [], "prevResult": result}
            if result is None:
                del config["prevResult"]
            answer = node.host.cni(str(keys["type"]), verb, config, netns=netns, container_id=pod)
            assert answer.status == 0, (verb, keys["type"], answer)
            result = answer.json if verb == "ADD" else result
            calls += 1
    return calls


def forbidden_calls(groups: list[str]) -> set[str]:
    """Return the system calls in groups of systemd's; none if systemd cannot be asked."""
    if shutil.which("systemd-analyze") is None:
        return set()
    command = ["systemd-analyze", "syscall-filter", "--no-pager", *groups]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(re.findall(r"^ +(\w+)$", done.stdout, re.MULTILINE))


def test_each_call_works_with_these_rights(node: AgentNode) -> None:
    """Workers serve every call with the unit's capabilities; neither they nor the duties do a thing that it forbids."""
    node.install("--agent")
    node.host.run("tee", "/etc/cni/pycni-agent.json", input="{}")
    unit = options()
    bounding = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in unit["CapabilityBoundingSet"])])
    node.start("setpriv", f"--bounding-set={bounding}", "--no-new-privs", "strace", "-f", "-qq", "-o", "/run/trace")
    samples = {name: sample for name, sample in {**SAMPLES, **PROGRAMS}.items() if has(sample.needs)}
    node.host.run("sh", "-ec", links(samples.values()))
    calls = sum(life(node, sample, f"pod{number}") for number, sample in enumerate(samples.values()))
    state = node.state()
    assert (state["fallbacks"], state["declined"], node.served()) == (0, 0, calls), state
    assert state["duties"]["pid"] and not state["duties"]["restarts"], state
    trace = (node.host.root / "run/trace").read_text(errors="replace")
    assert set(FAMILY.findall(trace)) <= set(unit["RestrictAddressFamilies"])
    assert [form.pattern for form in (WRITABLE_CODE, SET_ID) if form.search(trace)] == []
    names = set(SYSTEM_CALL.findall(trace))
    assert {"setns", "sendmsg", "execve"} <= names and not {"personality", "sched_setscheduler"} & names
    assert unit["SystemCallFilter"][0].startswith("~")
    assert names & forbidden_calls([one.removeprefix("~") for one in unit["SystemCallFilter"]]) == set()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(node: AgentNode, tmp_path: Path) -> None:
    """The path of the directory has spaces and percent signs."""
    node.site.bin = tmp_path / "100%n of it"
    node.install("--agent", path=node.add_systemd(tmp_path))
    assert "100%%n of it" in (node.host.root / "etc/systemd/system/pycni-agent.service").read_text()
    said = node.host.run("systemd-analyze", "verify", "/etc/systemd/system/pycni-agent.service", check=False)
    assert (said.returncode, said.stderr) == (0, "")
