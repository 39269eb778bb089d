"""Bridges that other calls change at the same moment: the requests to the kernel, and the reactions to its answers."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from shared.net import bridges
from shared.net.netlink import NetlinkError
from shared.net.wire import IFF_UP, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK
from shared.undo import Undo
from tests.unit.kernel_end import KernelEnd, by_pyroute2, done, error, read_by_pyroute2

NAME = "nosuchbridge"  # nor has the machine any sysctl of that name
PORT = 7


def shown(index: int, **more: Any) -> dict[str, Any]:
    info = {"IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge"}}
    return {"index": index, "flags": IFF_UP, "IFLA_IFNAME": NAME, "IFLA_MTU": 1500, **info, **more}


class Kernel:
    """A bridge that others delete: before the n-th request about it, for each n."""

    def __init__(self, *moments: int, refusal: int = 0) -> None:
        self.moments = moments
        self.refusal = refusal
        self.index: int | None = None
        self.made = 0
        self.asked = 0
        self.joined = 0
        self.group = 0

    def __call__(self, kind: int, sequence: int, request: bytes) -> list[bytes]:
        message = read_by_pyroute2(kind, request)
        self.asked += 1
        if self.asked in self.moments:
            self.index = None
        if kind == RTM_GETLINK:
            is_there = self.index is not None and message["index"] in (0, self.index)
            found = shown(self.index or 0, IFLA_GROUP=self.group)
            return [by_pyroute2(RTM_NEWLINK, 0, sequence, found) if is_there else error(errno.ENODEV, sequence)]
        if message.get("IFLA_IFNAME") == NAME:
            self.made += 1
            self.index = 40 + self.made
            self.group = message["IFLA_GROUP"]
        elif "IFLA_MASTER" in message:
            if self.refusal:
                return [error(self.refusal, sequence)]
            if message["IFLA_MASTER"] != self.index:
                return [error(errno.ENODEV, sequence)]
            self.joined = message["IFLA_MASTER"]
        elif message["index"] != self.index:
            return [error(errno.ENODEV, sequence)]
        else:
            self.group = message.get("IFLA_GROUP", self.group)
        return []


def attach(kernel: Kernel) -> dict[str, Any]:
    with KernelEnd(kernel) as end:
        return bridges.attach(
            end.netlink, Undo(), NAME,
            lambda bridge: bridges.join_requests(PORT, bridge["index"], alias="", hairpin=False, isolated=False),
            own=(PORT,), mtu=0, vlan_filtering=False, promisc=False, ipv6=False, dad=False,
        )  # fmt: skip


def test_a_bridge_that_nobody_deletes() -> None:
    kernel = Kernel()
    assert attach(kernel)["index"] == kernel.joined == 41 and kernel.made == 1


@pytest.mark.parametrize("moment", range(3, 6))
def test_a_bridge_that_is_deleted_in_between_is_made_anew(moment: int) -> None:
    """A concurrent ADD that fails deletes it before it is looked up, comes up, or is joined."""
    kernel = Kernel(moment)
    assert attach(kernel)["index"] == kernel.joined == 42 and kernel.made == 2


def test_another_reason_is_not_tried_again() -> None:
    kernel = Kernel(refusal=errno.EPERM)
    with pytest.raises(NetlinkError):
        attach(kernel)
    assert kernel.made == 1


@pytest.mark.parametrize(("port", "expected"), [
    ({"index": PORT}, False), ({"index": 8}, True), ({"index": 8, "IFLA_LINK": PORT}, False),
    ({"index": 8, "IFLA_LINK": PORT, "IFLA_LINK_NETNSID": 0}, True),
])  # fmt: skip
def test_ports_of_others(port: dict[str, Any], expected: bool) -> None:
    """The other end of a pod's link has a number of that pod's, which may be one of the call's own here."""

    def answer(_kind: int, sequence: int, _request: bytes) -> list[bytes]:
        return [by_pyroute2(RTM_NEWLINK, 2, sequence, {**port, "IFLA_MASTER": 4}), done(sequence)]

    with KernelEnd(answer) as end:
        assert bridges.has_other_ports(end.netlink, 4, PORT) == expected


def test_a_bridge_that_was_deleted_meanwhile_is_no_error() -> None:
    """Several ADDs fail at once, and each deletes the bridge."""

    def answer(kind: int, sequence: int, _request: bytes) -> list[bytes]:
        if kind == RTM_DELLINK:
            return [error(errno.ENODEV, sequence)]
        if len(end.requests) == 1:
            return [by_pyroute2(RTM_NEWLINK, 0, sequence, shown(4, IFLA_IFALIAS=bridges.NEW_ALIAS))]
        return [done(sequence)]

    with KernelEnd(answer) as end:
        bridges.remove_if_new(end.netlink, NAME, ())
    assert len(end.requests) == 3


@pytest.mark.parametrize(("sysfs", "is_set"), [
    ({}, False), ({"address": "02:00:00:00:00:01", "addr_assign_type": "3"}, True),
    ({"address": "02:00:00:00:00:01", "addr_assign_type": "1"}, False),
    ({"address": "02:00:00:00:00:02", "addr_assign_type": "3"}, False),
])  # fmt: skip
def test_whether_a_bridges_mac_was_set(monkeypatch: pytest.MonkeyPatch, sysfs: dict[str, str], is_set: bool) -> None:
    """sysfs may show another network namespace, with a bridge of this name but not of this MAC."""
    monkeypatch.setattr(bridges, "_sysfs", lambda _link, attribute: sysfs.get(attribute, ""))
    assert (bridges.keep_mac_requests({**shown(4), "IFLA_ADDRESS": "02:00:00:00:00:01"}) == []) == is_set
