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
    from shared.net import discovery
    from shared.net.discovery import ARPOP_REPLY, ARPOP_REQUEST, NOBODY

    own = address.packed
    if address.version == 6:
        return [discovery.advertisement(mac, own)] * 2
    # Linux treats a reply as gratuitous only if the target's MAC is the sender's (arp_is_garp). Other replies do not
    # replace an entry that was confirmed a moment ago.
    return [discovery.arp(ARPOP_REQUEST, mac, own, NOBODY, own), discovery.arp(ARPOP_REPLY, mac, own, mac, own)]
