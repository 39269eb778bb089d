"""A router beyond a pretend host's link: it sends the router advertisements that a test asks for."""

from __future__ import annotations

import sys

from tests.pretend import PretendHost, until

SEND = """
import socket, struct, sys
lifetime, valid = int(sys.argv[1]), int(sys.argv[2])
link = socket.if_nametoindex("eth0")
advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)  # RFC 4861, 4.2
if valid:
    prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:1::")
    advertisement += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, valid, valid, 0) + prefix  # 4.6.2: on link, autonomous
sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link)
sender.sendto(advertisement, ("ff02::1", 0, 0, link))
"""
FOREVER = 0xFFFFFFFF  # seconds


class Router:
    """The namespace `router` at the other end of the host's link."""

    def __init__(self, host: PretendHost, link: str = "up0", name: str = "router") -> None:
        self.host, self.link, self.name = host, link, name
        host.netns(name)
        inside = ("ip", "netns", "exec", name)
        for place in ((), inside):  # no other host has the addresses
            host.run(*place, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
        host.run("ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", name)
        host.run(*inside, "ip", "link", "set", "eth0", "up")
        host.run("ip", "link", "set", link, "up")

    def advertise(self, lifetime: int, valid: int = 0) -> None:
        """Send one advertisement: seconds as a default router, and of a prefix if not 0."""
        self.host.run("ip", "netns", "exec", self.name, sys.executable, "-c", SEND, str(lifetime), str(valid))

    def expires(self, link: str = "") -> int:
        """Return the seconds that the host's default route by the router has left, 0 if there is none."""
        found = self.host.ip("-6", "route", "show", "default", "dev", link or self.link, "proto", "ra")
        return int(found[0].get("expires", 0)) if found else 0

    def teach(self, lifetime: int, valid: int = 0, link: str = "") -> None:
        """Advertise until the host has the route."""
        until(lambda: self.expires(link) > lifetime // 2, lambda: self.advertise(lifetime, valid), seconds=5)
