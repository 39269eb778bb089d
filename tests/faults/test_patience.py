"""Rows 12, 13: a wait that never ends is given up in time, with an error, and nothing is left."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults import batch, fake_ipam
from tests.faults.batch import Call
from tests.faults.fake_ipam import GOOD, says
from tests.pretend import PATIENCE, PretendHost

WAITING = ("hangs", "mumbles", "leaves", "deaf", "keeps")
STORE = "/var/lib/cni/networks/locked"


def _config(kind: str, network: str = "net") -> dict[str, Any]:
    return {
        "cniVersion": "1.1.0",
        "name": network,
        "type": "bridge",
        "bridge": "br0",
        "ipam": {"type": kind, "subnet": "10.7.0.0/24"},
    }


@pytest.mark.slow
@pytest.mark.row(12, 13)
def test_no_call_waits_for_ever(host: PretendHost, tmp_path: Path) -> None:
    """All run at once, since all they do is wait: an IPAM plugin (55 seconds), the lock and stdin (20 seconds each)."""
    batch.make_pods(host, 7)
    fake_ipam.write(host, tmp_path, "hangs", "exec sleep 1000")
    fake_ipam.write(host, tmp_path, "mumbles", "while :; do echo '{'; sleep 1; done")
    # its answer is whole, but a child keeps the pipe open
    path = fake_ipam.write(host, tmp_path, "leaves", "sleep 1000 &\n" + says(GOOD))
    fake_ipam.write(host, tmp_path, "deaf", "exec >&-\nexec sleep 1000")
    fake_ipam.write(host, tmp_path, "keeps", '[ "$CNI_COMMAND" = DEL ] || exit 1\nexec sleep 1000', release="")
    host.run("mkfifo", "/run/silent")
    store = host.root / STORE.lstrip("/")
    store.mkdir(mode=0o700, parents=True)
    lock = os.open(store / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    before = host.snapshot([f"pod{number}" for number in range(7)])

    calls = [Call("bridge", "ADD", _config(kind), {"CNI_CONTAINERID": kind, "CNI_PATH": path}) for kind in WAITING]
    calls += [
        Call("bridge", "ADD", _config("host-local", "locked")),
        # opened for reading and writing, a FIFO never ends
        Call("bridge", "ADD", "", redirect="<>/run/silent"),
    ]
    try:
        outcomes = batch.run(host, calls, at_once=7)
    finally:
        os.close(lock)

    for kind, answer in zip(WAITING, outcomes, strict=False):
        assert (answer.status, answer.code) == (1, 999), (kind, answer)
        assert answer.seconds < 55 + 15 * PATIENCE, kind
        assert fake_ipam.calls(host, kind) == ["ADD", "DEL"]
    assert (outcomes[-2].status, outcomes[-2].code) == (1, 11), outcomes[-2]
    assert "lock" in outcomes[-2].json["msg"]
    assert (outcomes[-1].status, outcomes[-1].code) == (1, 5), outcomes[-1]
    assert all(answer.seconds < 20 + 10 * PATIENCE for answer in outcomes[-2:]), outcomes[-2:]
    assert fake_ipam.leases(host) == []
    assert b"sleep" not in b"".join(path.read_bytes() for path in (host.root / "proc").glob("[0-9]*/cmdline"))
    after = host.snapshot([f"pod{number}" for number in range(7)])
    assert {name for name in after["files"] if "/.pycni/" not in name} == set(before["files"])
    assert (after["host"], after["pods"]) == (before["host"], before["pods"])


@pytest.mark.row(13)
def test_stdin_without_end(host: PretendHost) -> None:
    batch.make_pods(host, 2)
    for plugin in ("bridge", "host-local", "loopback"):
        [answer] = batch.run(host, [Call(plugin, "ADD", "", redirect="</dev/zero")])
        assert (answer.status, answer.code) == (1, 5), answer
        assert answer.seconds < 20 + 10 * PATIENCE
