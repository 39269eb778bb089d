"""Look for hosts that have an address already, before it is given to a link (RFC 5227, RFC 4862).

A packet socket sends the questions, so that they come from no address of the link, and hears the answers. It also hears
others that probe the same address at the same time.
"""

from __future__ import annotations

import sys

from shared import signals
from shared.net import discovery
from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.cni.ip import Address

ETH_P_ALL = 0x0003  # linux/if_ether.h
SOL_PACKET = 263  # include/linux/socket.h
PACKET_ADD_MEMBERSHIP, PACKET_AUXDATA, PACKET_MR_MULTICAST = 1, 8, 0  # linux/if_packet.h
AUXDATA_BYTES, STATUS, VLAN_TCI = 20, slice(0, 4), slice(16, 18)  # struct tpacket_auxdata
TP_STATUS_VLAN_VALID = 0x10  # linux/if_packet.h
VLAN_MASK = 0xFFF
FRAME_BYTES = 128  # more than any part that is read
MOST_FRAMES = 1000  # that are read at a time; more than the socket's buffer holds
ROUNDS = 3  # of questions: one may get lost


class Probe:
    """Questions for addresses, and a packet socket for them on a link that is up, in the thread's network namespace.

    The link must have carrier: without it nobody could answer. Raises OSError.
    """

    def __init__(self, name: str, mac: str, own: Sequence[Address]) -> None:
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.own = frozenset(own)
        self.frames = [_question(self.mac, address) for address in own]
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        try:
            self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self.socket.bind((name, ETH_P_ALL))
            index = socket.if_nametoindex(name)
            groups = {discovery.ALL_NODES_MAC, *(frame[:6] for frame in self.frames)} - {discovery.BROADCAST}
            for group in groups if any(address.version == 6 for address in own) else ():
                self.socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, _membership(index, group))
        except OSError:
            self.close()
            raise

    def send(self) -> None:
        """Ask for each address once. Raise OSError."""
        for frame in self.frames:
            self.socket.send(frame)

    def read(self) -> dict[Address, str]:
        """Return the addresses that others claimed by now, with their MACs. Do not wait. Raise OSError.

        Frames may come faster than they are read: the rest stays for the next call.
        """
        found: dict[Address, str] = {}
        try:
            for _ in range(MOST_FRAMES):
                found.update(self._claims(socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        return found

    def await_claim(self) -> dict[Address, str]:
        """Wait until somebody claims one of the addresses. Return it, with his MAC. Raise OSError."""
        found: dict[Address, str] = {}
        while not found:
            found = self._claims(0)
        return found

    def _claims(self, flags: int) -> dict[Address, str]:
        """Receive a frame. Return the address of ours that another claims by it, with his MAC."""
        frame, attached, _, _ = self.socket.recvmsg(FRAME_BYTES, socket.CMSG_SPACE(AUXDATA_BYTES), flags)
        claim = None if any(_is_tagged(data) for _, _, data in attached) else discovery.claim(frame)
        if claim is None or claim[0] not in self.own or claim[1] == self.mac:  # the socket hears its own frames, too
            return {}
        return {claim[0]: ":".join(f"{byte:02x}" for byte in claim[1])}

    def fileno(self) -> int:
        """Return the socket's descriptor, which is readable when a frame has arrived."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def _question(mac: bytes, address: Address) -> bytes:
    if address.version == 6:
        return discovery.solicitation(mac, address.packed)
    return discovery.arp(discovery.ARPOP_REQUEST, mac, bytes(4), discovery.NOBODY, address.packed)


def _membership(index: int, group: bytes) -> bytes:
    """Return a struct packet_mreq (packet(7)) for a multicast group of Ethernet."""
    numbers = ((index, 4), (PACKET_MR_MULTICAST, 2), (len(group), 2))
    return b"".join(number.to_bytes(size, sys.byteorder) for number, size in numbers) + group.ljust(8, b"\0")


def _is_tagged(data: bytes) -> bool:
    """Return True if a struct tpacket_auxdata is of a frame in a VLAN, which is none of the link's own network."""
    status, tag = (int.from_bytes(data[place], sys.byteorder) for place in (STATUS, VLAN_TCI))
    return bool(status & TP_STATUS_VLAN_VALID and tag & VLAN_MASK)


def find_holders(name: str, mac: str, own: Sequence[Address], seconds: float) -> dict[Address, str]:
    """Ask for addresses on a link for some seconds. Return those that others have, with their MACs.

    Return at the first answer: there may be more. The link, with its MAC, is as `Probe` needs it. Raises OSError.
    """
    probe = Probe(name, mac, own)
    try:
        for _ in range(ROUNDS):
            probe.send()
            try:
                with signals.interruptible(seconds / ROUNDS):
                    return probe.await_claim()
            except signals.DeadlineExpired:
                continue
        return {}
    finally:
        probe.close()
