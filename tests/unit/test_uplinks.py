"""A failing ADD and its uplink, if others have come to the bridge or taken the uplink in the meantime."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from shared.net import uplinks
from shared.net.wire import IFF_UP, NLM_F_DUMP, RTM_GETLINK, RTM_NEWLINK
from shared.undo import Undo
from tests.unit.kernel_end import KernelEnd, by_pyroute2, done, error, read_by_pyroute2

BRIDGE, UPLINK, OWN, OTHER = 4, 9, 50, 60


class Kernel:
    """A bridge, the call's own port, the uplink, and another pod's port that appears at the n-th look for it."""

    def __init__(self, master: int = 0, flags: int = 0, comes: int = 0) -> None:
        self.master, self.flags = master, flags
        self.comes = comes
        self.looks = 0
        self.masters: list[int] = []

    def __call__(self, kind: int, sequence: int, request: bytes) -> list[bytes]:
        message = read_by_pyroute2(kind, request)
        (flags,) = struct.unpack_from("=H", request, 6)
        uplink: dict[str, Any] = {"index": UPLINK, "flags": self.flags, "IFLA_IFNAME": "up0"}
        if self.master:
            uplink["IFLA_MASTER"] = self.master
        if kind == RTM_GETLINK and flags & NLM_F_DUMP == NLM_F_DUMP:
            self.looks += 1
            there = [OWN, *([OTHER] if 0 < self.comes <= self.looks else [])]
            found: list[dict[str, Any]] = [*({"index": index, "IFLA_MASTER": BRIDGE} for index in there), uplink]
            return [*(by_pyroute2(RTM_NEWLINK, 2, sequence, one) for one in found), done(sequence)]
        if kind == RTM_GETLINK:
            return [by_pyroute2(RTM_NEWLINK, 0, sequence, uplink) if self.flags >= 0 else error(errno.ENODEV, sequence)]
        if "IFLA_MASTER" in message:
            self.master = message["IFLA_MASTER"]
            self.masters.append(self.master)
        self.flags = self.flags & ~message["change"] | message["flags"] & message["change"]
        return []


def join_and_fail(kernel: Kernel, meanwhile: Any = None) -> tuple[int, bool]:
    """Return the uplink's master and whether it is up, after it has joined and its call has failed."""
    known: list[dict[str, Any]] = [{"index": UPLINK, "IFLA_IFNAME": "up0"}]
    bridge = {"index": BRIDGE, "IFLA_IFNAME": "cni0"}
    with KernelEnd(kernel) as end:
        undo = Undo()
        uplinks.join(end.netlink, undo, bridge, known, (OWN, UPLINK))
        assert kernel.master == BRIDGE and kernel.flags & IFF_UP
        kernel.masters.clear()
        if meanwhile is not None:
            kernel.master = meanwhile
        for _, step in reversed(undo.steps):
            step()
    return kernel.master, bool(kernel.flags & IFF_UP)


@pytest.mark.parametrize("flags", [0, IFF_UP])
def test_it_is_as_it_was(flags: int) -> None:
    assert join_and_fail(Kernel(flags=flags)) == (0, bool(flags))
    assert join_and_fail(Kernel(master=BRIDGE, flags=flags)) == (BRIDGE, bool(flags))


def test_another_pod_that_uses_the_bridge_keeps_it() -> None:
    """It keeps it all the time: its frames are not lost for a moment."""
    kernel = Kernel(comes=1)
    assert join_and_fail(kernel) == (BRIDGE, True)
    assert kernel.masters == []


def test_another_pod_that_comes_while_it_is_taken_out_gets_it_back() -> None:
    """That pod's call has seen the uplink in its place, and does not look again."""
    kernel = Kernel(comes=2)
    assert join_and_fail(kernel) == (BRIDGE, True)
    assert kernel.masters == [0, BRIDGE]


@pytest.mark.parametrize("comes", [0, 1])
def test_a_bridge_to_which_somebody_has_moved_it_keeps_it(comes: int) -> None:
    kernel = Kernel(comes=comes)
    assert join_and_fail(kernel, meanwhile=77) == (77, True)
    assert kernel.masters == []
