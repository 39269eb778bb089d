"""The network namespaces of the node other than its own, and the addresses on the links inside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cni.errors import CniError
from shared.cni.ip import Address, Prefix
from shared.net.netlink import Netlink
from shared.net.netns import OWN, open_netns
from shared.net.wire import RTM_GETADDR, RTM_GETLINK

if TYPE_CHECKING:
    from shared.net.netlink import Message

PLACES = ("/run/netns", "/var/run/netns", "/run/docker/netns")  # where runtimes keep namespaces by name
MOUNTS = (("", "/proc/self/mountinfo"), ("/proc/1/root", "/proc/1/mountinfo"))  # of this program, of the node
LINK_LOCAL = (Prefix.parse("fe80::/10"), Prefix.parse("169.254.0.0/16"))  # each link may have them

Identity = tuple[int, int]  # device and inode
Place = tuple[Identity, str]  # a link in a namespace
Links = dict[str, set[Address]]  # by the link's name


class Namespaces:
    """The namespaces that have a name, a mount or a process. They are read when first asked for."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.paths = tuple(paths)

    @cached_property
    def links(self) -> dict[Identity, Links]:
        """What is in each namespace."""
        found: dict[Identity, Links] = {}
        own = identity(OWN)
        for path in (*self.paths, *paths()):
            held = identity(path)
            if held is None or held == own or held in found:
                continue
            with suppress(CniError):  # gone meanwhile, or no network namespace
                found[held] = _inside(path)
        return found

    def home(self, ifname: str, addresses: set[Address], taken: set[Place], *, guess: bool) -> str:
        """Say which interface may be that of an attachment with these addresses; empty if none can be.

        It has one of the addresses. With `guess`, one that has no address will do, and any if no addresses are known.
        Those that are `taken` are known to be of other attachments. Without `ifname` any name will do.
        """
        for held, inside in self.links.items():
            for name, present in inside.items():
                if name == "lo" or ifname not in ("", name) or (held, name) in taken:
                    continue
                if addresses & present:
                    return f"{name} in net:[{held[1]}] has {min(map(str, addresses & present))}"
                if guess and not (addresses and present):
                    return f"{name} in net:[{held[1]}] may be its interface"
        return ""


def paths() -> Iterator[str]:
    """The paths of namespaces: those that have a name, other mounts, those of processes; some lead to the same one."""
    for place in PLACES:
        with suppress(OSError):
            yield from (f"{place}/{name}" for name in sorted(os.listdir(place)))
    yield from _mounted()
    with suppress(OSError):
        yield from (f"/proc/{name}/ns/net" for name in os.listdir("/proc") if name.isdigit())


def identity(path: str) -> Identity | None:
    """The device and inode of a namespace; None if nothing is at the path."""
    try:
        held = os.stat(path)
    except (OSError, ValueError):
        return None
    return held.st_dev, held.st_ino


def _inside(path: str) -> Links:
    """The links of a namespace. Raises CniError if it cannot be entered."""
    with closing(open_netns(path)) as netns, netns, closing(Netlink()) as netlink:
        names = netlink.scan(RTM_GETLINK, None, lambda stream: {one["index"]: one["IFLA_IFNAME"] for one in stream})

        def addresses(stream: Iterator[Message]) -> Links:
            found: Links = {name: set() for name in names.values()}
            for message in stream:
                # IFA_ADDRESS alone would be the other end of a point-to-point link
                address = Address.parse(message.get("IFA_LOCAL") or message["IFA_ADDRESS"])
                if message["index"] in names and not any(address in prefix for prefix in LINK_LOCAL):
                    found[names[message["index"]]].add(address)
            return found

        return netlink.scan(RTM_GETADDR, None, addresses)


def _mounted() -> Iterator[str]:
    """The paths at which namespaces are mounted, wherever a runtime keeps them."""
    for root, table in MOUNTS:
        with suppress(OSError):
            for line in Path(table).read_text(errors="surrogateescape").splitlines():
                words = line.split()
                if words[3].startswith("net:["):
                    yield root + words[4].encode(errors="surrogateescape").decode("unicode_escape")
