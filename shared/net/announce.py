"""Announce a link's addresses, so that neighbours replace the MAC that they remember (RFC 5227, RFC 4861).

If two sysctls are on, the kernel announces the addresses of a link when its MAC is set, even to the same value. That
costs one message. A packet socket works without the sysctls, but closing it takes 8 to 16 ms: the kernel waits for RCU.
"""

from __future__ import annotations

from shared.net import sysctl
from shared.net.netlink import NetlinkError
from shared.net.wire import RTM_NEWLINK
from shared.sockets import native as socket
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.ip import Address
    from shared.net.netlink import Message, Netlink

NOTIFY = ("ipv4/conf/{}/arp_notify", "ipv6/conf/{}/ndisc_notify")
ETH_P_ARP, ETH_P_IPV6 = bytes.fromhex("0806"), bytes.fromhex("86dd")  # linux/if_ether.h
ARP_ETHERNET_IPV4 = bytes.fromhex("0001 0800 06 04")  # kinds and lengths of the addresses
ARPOP_REQUEST, ARPOP_REPLY = bytes.fromhex("0001"), bytes.fromhex("0002")  # linux/if_arp.h
IPV6_VERSION = bytes.fromhex("60000000")
HOP_LIMIT = 255  # neighbours ignore an advertisement with a lower limit, which a router has forwarded
NEIGHBOUR_ADVERTISEMENT, OVERRIDE = bytes.fromhex("8800"), bytes.fromhex("20000000")  # RFC 4861
TARGET_LINK_LAYER_ADDRESS = bytes.fromhex("0201")  # an option of eight bytes
BROADCAST = bytes.fromhex("ffffffffffff")
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_NODES_MAC = bytes.fromhex("333300000001")


def prepare(netlink: Netlink, link: Message, own: list[Address]) -> Callable[[], None]:
    """Set the sysctls for announcements; return a function that announces a link's addresses once.

    The function works from any network namespace. If the sysctls cannot be set, it sends the announcements itself.
    """
    name, mac = link["IFLA_IFNAME"], link["IFLA_ADDRESS"]
    paths = [path.format(name) for path in NOTIFY] if own else []
    failed = [path for path in paths if not sysctl.prefer(path, "1")]
    # A kernel without IPv6 lacks the second: it reads as None.
    if not own or any(sysctl.read(path) == "0" for path in failed):
        return Announcement(name, mac, own).send

    def announce() -> None:
        try:
            netlink.request(RTM_NEWLINK, {"index": link["index"], "IFLA_ADDRESS": mac})
        except NetlinkError as error:
            _complain(name, error)

    return announce


class Announcement:
    """The frames that announce a link's addresses, and a packet socket for them.

    The socket belongs to the thread's network namespace at the time of creation. `send` works from any namespace.
    """

    def __init__(self, link: str, mac: str, addresses: list[Address]) -> None:
        self.link = link
        own = bytes.fromhex(mac.replace(":", ""))
        self.frames = [frame for address in addresses for frame in _frames(own, address)]
        if not self.frames:
            return
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
            self.socket.bind((link, 0))  # without a protocol, so that it receives nothing
        except OSError as error:
            self.frames = []
            _complain(link, error)

    def send(self) -> None:
        """Send the frames. Report a failure on stderr only: neighbours learn the MAC later by themselves."""
        try:
            for frame in self.frames:
                self.socket.send(frame)
        except OSError as error:
            _complain(self.link, error)


def _complain(link: str, error: Exception) -> None:
    complain(f"cannot announce the addresses of {link}: {error}")


def _frames(mac: bytes, address: Address) -> list[bytes]:
    """Return two frames for an address: one may get lost, and some neighbours accept only one kind of ARP message."""
    if address.version == 6:
        return [_neighbour_advertisement(mac, address.packed)] * 2
    # Linux treats a reply as gratuitous only if the target's MAC is the sender's (arp_is_garp). Other replies do not
    # replace an entry that was confirmed a moment ago.
    return [_arp(ARPOP_REQUEST, mac, address.packed, bytes(6)), _arp(ARPOP_REPLY, mac, address.packed, mac)]


def _arp(operation: bytes, mac: bytes, address: bytes, target: bytes) -> bytes:
    return BROADCAST + mac + ETH_P_ARP + ARP_ETHERNET_IPV4 + operation + mac + address + target + address


def _neighbour_advertisement(mac: bytes, address: bytes) -> bytes:
    body = OVERRIDE + address + TARGET_LINK_LAYER_ADDRESS + mac
    length = 4 + len(body)
    pseudo_header = address + ALL_NODES + length.to_bytes(4, "big") + socket.IPPROTO_ICMPV6.to_bytes(4, "big")
    message = NEIGHBOUR_ADVERTISEMENT + _checksum(pseudo_header + NEIGHBOUR_ADVERTISEMENT + body) + body
    header = IPV6_VERSION + length.to_bytes(2, "big") + bytes([socket.IPPROTO_ICMPV6, HOP_LIMIT]) + address + ALL_NODES
    return ALL_NODES_MAC + mac + ETH_P_IPV6 + header + message


def _checksum(data: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2))
    return (0xFFFF - (total % 0xFFFF or 0xFFFF)).to_bytes(2, "big")
