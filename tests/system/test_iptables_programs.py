"""iptables' programs: other programs that use them at the same time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretend import PATH, Answer, PretendHost, read_line

DIRECTORY = "/run/programs"
LOCK = "/run/xtables.lock"
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge",
    "isGateway": True,
    "ipMasq": True,
    "ipMasqBackend": "iptables",
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"},
}
# The first time, another program makes the chain that is to be made, after the tables were read.
MEDDLING = """#!/bin/sh
commands=$(cat)
echo "$@" >>/run/arguments
chain=$(printf '%s\\n' "$commands" | sed -n 's/^-N //p')
if [ -n "$chain" ] && mkdir /run/meddled 2>/dev/null; then iptables -t nat -N "$chain"; fi
printf '%s\\n' "$commands" | /usr/sbin/iptables-restore "$@"
"""


def call(host: PretendHost, verb: str, **env: str) -> Answer:
    return host.cni("bridge", verb, CONFIG, netns="/run/netns/pod", env={"PATH": f"{DIRECTORY}:{PATH}", **env})


@pytest.fixture
def pod(host: PretendHost) -> PretendHost:
    host.run("mkdir", DIRECTORY)
    host.netns("pod")
    return host


def test_anothers_change_in_between(pod: PretendHost) -> None:
    pod.run("tee", f"{DIRECTORY}/iptables-restore", input=MEDDLING)
    pod.run("chmod", "+x", f"{DIRECTORY}/iptables-restore")
    answer = call(pod, "ADD")
    assert answer.status == 0, answer
    assert (pod.root / "run/meddled").is_dir()
    # releases differ in whether they wait for the lock without -w, and for how long
    assert all(" -w 30" in words for words in (pod.root / "run/arguments").read_text().splitlines())
    assert pod.run("iptables-save", "-t", "nat").stdout.count("-s 10.1.0.2/32") == 1
    assert call(pod, "DEL").status == 0
    assert "CNI-" not in pod.run("iptables-save", "-t", "nat").stdout


def test_lock_that_another_program_holds_for_a_while(pod: PretendHost) -> None:
    """The older iptables has such a lock."""
    for name in ("iptables", "iptables-save", "iptables-restore"):
        real = name.replace("iptables", "iptables-legacy")
        pod.run("ln", "-s", f"/usr/sbin/{real}", f"{DIRECTORY}/{name}")
    assert call(pod, "ADD").status == 0  # so that the table is there: reading it asks for the lock only then
    assert call(pod, "DEL").status == 0
    assert "CNI-" not in pod.run("iptables-legacy-save", "-t", "nat").stdout
    with pod.popen("flock", LOCK, "sh", "-c", "echo held; exec sleep 1.5") as held:
        assert read_line(held) == b"held\n"
        answer = call(pod, "ADD")
        assert answer.status == 0, answer
    assert held.returncode == 0
    assert "-s 10.1.0.3/32" in pod.run("iptables-legacy-save", "-t", "nat").stdout
