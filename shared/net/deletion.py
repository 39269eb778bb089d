"""Delete links without waiting for the kernel's answer, which takes 10 to 25 ms.

The kernel answers RTM_DELLINK when it has freed the link, after it has waited for RCU (netdev_run_todo() in
net/core/dev.c). About a millisecond after the request the link is unregistered. Its name is free then, its addresses
and routes are gone, and the kernel reports that to RTNLGRP_LINK. A child sends the request (shared/handover.py). The
call reads the report from the same socket, and a refusal as well.
"""

from __future__ import annotations

from time import monotonic

from shared import handover
from shared.net import messages
from shared.net.netlink import KERNEL, NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, TICK_SECONDS, Netlink
from shared.net.wire import AF_UNSPEC, NLMSG_ERROR, RTM_DELLINK, RTNLGRP_LINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.net.netlink import Request

LINK_HEADER_BYTES = 16  # struct ifinfomsg in linux/rtnetlink.h


def is_reported(request: Request, indexes: Iterable[int]) -> bool:
    """Have a child send a request that deletes links of these indexes, and wait until the kernel reports their end.

    Return False if that is uncertain: without a child, without a report within a second, or if reports are lost. The
    caller then looks which links are left, and deletes them itself. Raises NetlinkError if the kernel refuses the
    request.

    The links must be in the thread's network namespace.
    """
    if not handover.is_executable:
        return False
    try:
        deletion = _Deletion(request, set(indexes))
    except OSError:  # EMFILE, ENOMEM
        return False
    try:
        return deletion.is_reported()
    finally:
        deletion.close()


class _Deletion(Netlink):
    """A socket that gets the reports about links and the answer to a request that a child sends."""

    def __init__(self, request: Request, waiting: set[int]) -> None:
        super().__init__()
        self.deleting = request
        self.waiting = waiting
        self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK)

    def is_reported(self) -> bool:
        number = self.sequence + 1
        if not handover.start(lambda: self._send([self.deleting]), self.socket.fileno()):
            return False
        deadline = monotonic() + TICK_SECONDS
        is_answered = False
        while self.waiting and not is_answered and monotonic() < deadline:
            try:
                data, sender = self.socket.recvfrom(self.room)
            except OSError:  # EAGAIN after TICK_SECONDS; ENOBUFS: reports are lost
                return False
            is_answered = sender[0] == KERNEL and self._is_answered(data, number)
        return not self.waiting

    def _is_answered(self, data: bytes, number: int) -> bool:
        """Note the reported links. Return True if the kernel has answered the request, and reports no more."""
        for kind, sequence, flags, body, start, end in messages.split(data):
            if kind == NLMSG_ERROR and sequence == number:
                failure = self._refusal(self.deleting, flags, body, start, end)
                if failure:
                    raise failure
                return True
            if kind == RTM_DELLINK:
                link = messages.decode(kind, body, start, start + LINK_HEADER_BYTES, self.tables)
                # Before its end, a port's link leaves its bridge, which is a message of AF_BRIDGE.
                if link["family"] == AF_UNSPEC:
                    self.waiting.discard(link["index"])
        return False
