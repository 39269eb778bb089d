"""Listen to the kernel for changes that may cut pods off: deleted rules, bridges and ports that went down.

    nf_tables  NFNLGRP_NFTABLES: at the end of each transaction NFT_MSG_NEWGEN names the process
    links      RTNLGRP_LINK

The sockets are the kernel's own broadcasts, so nothing is asked while nothing changes.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from shared.executables import PLUGINS
from shared.net import messages
from shared.net.netlink import Netlink
from shared.net.owner import is_pod_link
from shared.net.wire import NETLINK_NETFILTER, NETLINK_ROUTE, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTNLGRP_LINK
from shared.nft import wire as nft
from shared.nft.registry import BRIDGE, INET

SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 4 << 20  # a flush of a large ruleset is told in thousands of messages
DATAGRAM_BYTES = 1 << 18
LOST = "events that the kernel dropped"

# linux/netfilter/nfnetlink.h and nf_tables.h
NFNLGRP_NFTABLES = 7
NFT_MSG_DELTABLE, NFT_MSG_DELSET, NFT_MSG_NEWGEN = 2562, 2571, 2575
DELETIONS = (NFT_MSG_DELTABLE, nft.NFT_MSG_DELCHAIN, nft.NFT_MSG_DELRULE, NFT_MSG_DELSET, nft.NFT_MSG_DELSETELEM)
NFGENMSG_BYTES = 4
NFTA_TABLE = 1  # the table's name, in messages of each kind
NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY = 3, 5
NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME = 2, 3
FAMILIES = {nft.NFPROTO_IPV4: "ip", nft.NFPROTO_IPV6: "ip6"}
IPTABLES = ("filter", "nat", "raw", "mangle")  # tables of iptables in nf_tables
COMM_BYTES = 15  # TASK_COMM_LEN of linux/sched.h, less the closing NUL
# The processes of a call, of the call server and of cnitool, by the kernel's name for them.
OWN = {name[:COMM_BYTES].encode() for name in (*PLUGINS, "pycni-agent", "cnitool")}

IFF_UP = 1  # linux/if.h
AF_UNSPEC = 0  # others are a bridge's view of its port


def _listen(protocol: int, group: int) -> socket.socket:
    """Return a socket that receives a group's messages. Raise OSError."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        made.bind((0, 1 << group - 1))
    except BaseException:
        made.close()
        raise
    return made


def _received(listening: socket.socket) -> Iterator[bytes | None]:
    """Return the datagrams that are there, None for dropped ones."""
    while True:
        try:
            data, sender = listening.recvfrom(DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None
            continue
        if sender[0] == 0:  # the kernel's port; a process may send, too
            yield data


class Rules:
    """The deletions in nf_tables by other programs.

    `own_pids` returns the process ids of the runners: their deletions do not count.
    """

    def __init__(self, own_pids: Callable[[], set[int]]) -> None:
        self.socket = _listen(NETLINK_NETFILTER, NFNLGRP_NFTABLES)
        self.own_pids = own_pids
        self._touched: set[str] = set()  # by the transaction whose messages arrive

    def read(self) -> Iterator[str]:
        """Return a reason for each table that lost something."""
        for datagram in _received(self.socket):
            if datagram is None:
                self._touched.clear()
                yield LOST
                continue
            for kind, _, _, data, start, end in messages.split(datagram):
                if kind != NFT_MSG_NEWGEN:
                    self._note(kind, data, start, end)
                    continue
                if self._touched and not self._is_own(dict(_attributes(data, start + NFGENMSG_BYTES, end))):
                    yield from sorted(self._touched)
                self._touched.clear()

    def _note(self, kind: int, data: bytes, start: int, end: int) -> None:
        if kind not in DELETIONS and kind != nft.NFT_MSG_NEWCHAIN:
            return
        attributes = dict(_attributes(data, start + NFGENMSG_BYTES, end))
        if kind == nft.NFT_MSG_NEWCHAIN and not _drops_forwarded(attributes):
            return
        family, table = data[start], _text(attributes.get(NFTA_TABLE, b""))
        if (family, table) in ((INET.family, INET.name), (BRIDGE.family, BRIDGE.name)):
            self._touched.add(f"table {table}")
        elif family in FAMILIES and table in IPTABLES:
            self._touched.add(f"table {FAMILIES[family]} {table}")

    def _is_own(self, generation: dict[int, bytes]) -> bool:
        pid = int.from_bytes(generation.get(NFTA_GEN_PROC_PID, b""), "big")
        return generation.get(NFTA_GEN_PROC_NAME, b"").rstrip(b"\0") in OWN or pid in self.own_pids()


def _drops_forwarded(attributes: dict[int, bytes]) -> bool:
    """Return True if a chain is iptables' FORWARD and drops by default."""
    is_forward = _text(attributes.get(NFTA_CHAIN_NAME, b"")) == "FORWARD"
    return is_forward and attributes.get(NFTA_CHAIN_POLICY) == nft.NF_DROP.to_bytes(4, "big")


def _attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Return the attributes of a message by their numbers."""
    while start + 4 <= end:
        length, number = struct.unpack_from("=HH", data, start)
        if not 4 <= length <= end - start:
            return
        yield number & messages.NLA_TYPE_MASK, data[start + 4 : start + length]
        start += (length + 3) & ~3


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


@dataclass(frozen=True)
class Link:
    """A link's state as far as pods depend on it."""

    name: str
    is_up: bool
    master: int
    is_port: bool


class Links:
    """The bridges and ports of pods that went down or lost each other."""

    def __init__(self) -> None:
        self.socket = _listen(NETLINK_ROUTE, RTNLGRP_LINK)
        self._read_all()

    def _read_all(self) -> None:
        with closing(Netlink()) as host:
            found = host.dump(RTM_GETLINK)
        self._links = {message["index"]: _link(message) for message in found}
        self._bridges = {link.master for link in self._links.values() if link.is_port and link.master}

    def read(self) -> Iterator[tuple[str, bool]]:
        """Return the links' names, each with True if it needs a look, and False if it exists no more."""
        for datagram in _received(self.socket):
            if datagram is None:
                self._read_all()
                yield LOST, True
                continue
            for kind, _, _, data, start, end in messages.split(datagram):
                if kind in (RTM_NEWLINK, RTM_DELLINK) and data[start] == AF_UNSPEC:
                    message = messages.decode(kind, data, start, end)
                    yield from self._changed(kind, message["index"], _link(message))

    def _changed(self, kind: int, index: int, now: Link) -> Iterator[tuple[str, bool]]:
        before = self._links.pop(index, None)
        if kind == RTM_DELLINK:
            if index in self._bridges:
                self._bridges.discard(index)
                yield now.name, True
            elif before and before.is_port:
                yield before.name, False
            return
        self._links[index] = now
        if now.is_port and now.master:
            self._bridges.add(now.master)
        if before is None or not (now.is_port or index in self._bridges):
            return
        if (before.is_up and not now.is_up) or (before.master and now.master != before.master):
            yield now.name, True


def _link(message: messages.Message) -> Link:
    name, alias = message.get("IFLA_IFNAME", ""), message.get("IFLA_IFALIAS", "")
    return Link(name, bool(message["flags"] & IFF_UP), message.get("IFLA_MASTER", 0), is_pod_link(name, alias))
