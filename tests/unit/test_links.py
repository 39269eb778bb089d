"""Deleting many links: the requests to the kernel, and the reaction if it refuses."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from shared.net import links
from shared.net.netlink import NetlinkError
from shared.net.wire import NLM_F_ACK, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK
from tests.unit.kernel_end import KernelEnd, by_pyroute2, done, error, read_by_pyroute2

DOOMED = (3, 4, 5)


class Kernel:
    """Links 1 to 7 in the groups 0 and 77. Others take one at the given moment."""

    def __init__(
        self, *, groups: bool = True, stubborn: int = 0, taken_by_others: int = 0, renamed_by_others: int = 0
    ) -> None:
        self.links = {index: 77 if index == 7 else 0 for index in range(1, 8)}
        self.groups = groups
        self.stubborn = stubborn
        self.taken_by_others = taken_by_others
        self.renamed_by_others = renamed_by_others
        self.gone = 0
        self.asked: list[dict[str, Any]] = []

    def __call__(self, kind: int, sequence: int, request: bytes) -> list[bytes]:
        (flags,) = struct.unpack_from("=H", request, 6)
        message = read_by_pyroute2(kind, request)
        if kind == RTM_GETLINK:
            shown = [
                {"index": index, "IFLA_GROUP": group, "IFLA_IFNAME": f"link{index}"}
                for index, group in self.links.items()
            ]
            for link in shown:
                if link["index"] == self.renamed_by_others and self.asked:
                    link["IFLA_IFNAME"] = "another"
            return [*(by_pyroute2(RTM_NEWLINK, 2, sequence, link) for link in shown), done(sequence)]
        self.asked.append({"kind": kind, **message})
        number = self._change(kind, message)
        return [error(number, sequence, request[:16])] if number or flags & NLM_F_ACK else []

    def _change(self, kind: int, message: dict[str, Any]) -> int:
        index = message["index"]
        if index == self.gone and kind == RTM_DELLINK:
            self.links.pop(index, None)
        if kind == RTM_NEWLINK:
            if index == self.taken_by_others:
                self.links.pop(index, None)
            if index not in self.links:
                return errno.ENODEV
            self.links[index] = message["IFLA_GROUP"]
            return 0
        if not index and not self.groups:
            return errno.EINVAL
        gone = [
            one for one, group in self.links.items() if one == index or (not index and group == message["IFLA_GROUP"])
        ]
        if self.stubborn in gone:
            return errno.EBUSY
        for one in gone:
            del self.links[one]
        return 0 if gone else errno.ENODEV


def delete(kernel: Kernel, *doomed: int) -> list[dict[str, Any]]:
    """Return the requests that delete these links."""
    with KernelEnd(kernel) as end:
        links.delete_all(end.netlink, lambda link: link["IFLA_IFNAME"] in {f"link{index}" for index in doomed})
    return [message for message in kernel.asked if message["kind"] == RTM_DELLINK]


@pytest.mark.parametrize(("number", "expected"), [(errno.EINVAL, False), (errno.ENODEV, True), (errno.EPERM, True)])
def test_whose_namespace_is_alive(number: int, expected: bool) -> None:
    """The kernel no longer knows a deleted namespace's number. No other answer proves that it is deleted."""
    with KernelEnd(lambda _kind, sequence, _request: [error(number, sequence)]) as end:
        link = {"IFLA_LINK": 5, "IFLA_LINK_NETNSID": 0}
        assert links.leads_to_pod(end.netlink, link) == expected
        assert links.is_doomed(end.netlink, link) != expected
        assert not links.leads_to_pod(end.netlink, {}) and not links.is_doomed(end.netlink, {})


def test_one_request_for_all() -> None:
    """The links are put into a group that has no other link."""
    kernel = Kernel()
    (deletion,) = delete(kernel, *DOOMED)
    assert sorted(kernel.links) == [1, 2, 6, 7]
    assert deletion["IFLA_GROUP"] not in (0, 77) and deletion["index"] == 0


def test_one_link_needs_no_group() -> None:
    kernel = Kernel()
    assert [message["index"] for message in delete(kernel, 3)] == [3]
    assert len(kernel.asked) == 1


def test_no_link() -> None:
    assert delete(Kernel()) == []


@pytest.mark.parametrize("taken", DOOMED)
def test_a_link_that_another_call_deletes_meanwhile(taken: int) -> None:
    kernel = Kernel(taken_by_others=taken)
    delete(kernel, *DOOMED)
    assert sorted(kernel.links) == [1, 2, 6, 7]


@pytest.mark.parametrize("doomed", [(3,), DOOMED])
def test_a_link_that_is_gone_when_it_is_deleted(doomed: tuple[int, ...]) -> None:
    """Another GC does the same at the same time."""
    kernel = Kernel(groups=False)
    kernel.gone = 3
    delete(kernel, *doomed)
    assert not set(doomed) & set(kernel.links)


def test_a_link_that_is_another_ones_meanwhile_stays() -> None:
    kernel = Kernel(groups=False, renamed_by_others=4)
    delete(kernel, *DOOMED)
    assert sorted(kernel.links) == [1, 2, 4, 6, 7]


def test_a_group_in_which_others_are_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of all links, which is 0, is not used either."""
    drawn = iter([(77).to_bytes(4, "big"), bytes(4), (78).to_bytes(4, "big")])
    monkeypatch.setattr("posix.urandom", lambda _: next(drawn))
    kernel = Kernel()
    (deletion,) = delete(kernel, *DOOMED)
    assert deletion["IFLA_GROUP"] == 78 and sorted(kernel.links) == [1, 2, 6, 7]


def test_a_kernel_that_deletes_no_groups() -> None:
    kernel = Kernel(groups=False)
    assert [message["index"] for message in delete(kernel, *DOOMED)] == [0, *DOOMED]
    assert sorted(kernel.links) == [1, 2, 6, 7]


def test_a_link_that_cannot_be_deleted() -> None:
    """The other links are deleted all the same, and the error is raised."""
    kernel = Kernel(stubborn=4)
    with pytest.raises(NetlinkError) as raised:
        delete(kernel, *DOOMED)
    assert raised.value.errno == errno.EBUSY and raised.value.message == {"index": 4}
    assert sorted(kernel.links) == [1, 2, 4, 6, 7]
