"""Find the node's other network namespaces, and the addresses on their links."""

from __future__ import annotations

import os
import time
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

PLACES = ("/run/netns", "/var/run/netns", "/run/docker/netns")  # directories where runtimes keep namespaces by name
MOUNTS = (("", "/proc/self/mountinfo"), ("/proc/1/root", "/proc/1/mountinfo"))  # of this program, of the node
LINK_LOCAL = (Prefix.parse("fe80::/10"), Prefix.parse("169.254.0.0/16"))  # every link may have them

TRIES, PAUSE_SECONDS = 5, 0.05  # to enter a namespace

Identity = tuple[int, int]  # device and inode
Place = tuple[Identity, str]  # a link in a namespace
Links = dict[str, set[Address]]  # by the link's name


class Namespaces:
    """The namespaces that have a name, a mount or a process, read at the first access."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.paths = tuple(paths)

    @cached_property
    def links(self) -> dict[Identity, Links | None]:
        """Return the links of each namespace, None for one that cannot be read."""
        found: dict[Identity, Links | None] = {}
        own = identity(OWN)
        for path in (*self.paths, *paths()):
            held = identity(path)
            if held is None or held == own or found.get(held) is not None:
                continue
            if own is not None and held[0] == own[0]:  # otherwise it is no namespace
                inside = _inside_or_none(path, held)
                if inside is not None or identity(path) == held:
                    found[held] = inside
        return found

    def home(self, ifname: str, addresses: set[Address], taken: set[Place], *, guess: bool) -> str:
        """Describe the interface that may belong to an attachment with these addresses; empty if there is none.

        It has one of the addresses. With `guess`, an interface without addresses is enough, and any interface if no
        addresses are known. Interfaces in `taken` belong to other attachments. Without `ifname` the name does not
        matter. A namespace that cannot be read may have the interface.
        """
        doubt = ""
        for held, inside in self.links.items():
            if inside is None:
                doubt = f"net:[{held[1]}] cannot be read, and may have its interface"
                continue
            for name, present in inside.items():
                if name == "lo" or ifname not in ("", name) or (held, name) in taken:
                    continue
                if addresses & present:
                    return f"{name} in net:[{held[1]}] has {min(map(str, addresses & present))}"
                if guess and not (addresses and present):
                    return f"{name} in net:[{held[1]}] may be its interface"
        return doubt


def paths() -> Iterator[str]:
    """Return the paths of namespaces: named ones, other mounts, those of processes.

    Several paths may lead to one namespace.
    """
    for place in PLACES:
        with suppress(OSError):
            yield from (f"{place}/{name}" for name in sorted(os.listdir(place)))
    yield from _mounted()
    with suppress(OSError):
        yield from (f"/proc/{name}/ns/net" for name in os.listdir("/proc") if name.isdigit())


def identity(path: str) -> Identity | None:
    """Return the device and inode of a namespace, None if nothing is at the path."""
    try:
        held = os.stat(path)
    except (OSError, ValueError):
        return None
    return held.st_dev, held.st_ino


def _inside_or_none(path: str, held: Identity) -> Links | None:
    """Return the links of a namespace, None if it cannot be entered. Try again while it may be ending."""
    for _ in range(TRIES):
        try:
            return _inside(path)
        except CniError:
            if identity(path) != held:  # deleted in the meantime
                return None
            time.sleep(PAUSE_SECONDS)
    return None


def _inside(path: str) -> Links:
    """Return the links of a namespace. Raise CniError if it cannot be entered."""
    with closing(open_netns(path)) as netns, netns, closing(Netlink()) as netlink:
        names = netlink.scan(RTM_GETLINK, None, lambda stream: {one["index"]: one["IFLA_IFNAME"] for one in stream})

        def addresses(stream: Iterator[Message]) -> Links:
            found: Links = {name: set() for name in names.values()}
            for message in stream:
                # On a point-to-point link IFA_ADDRESS is the address of the other end.
                address = Address.parse(message.get("IFA_LOCAL") or message["IFA_ADDRESS"])
                if message["index"] in names and not any(address in prefix for prefix in LINK_LOCAL):
                    found[names[message["index"]]].add(address)
            return found

        return netlink.scan(RTM_GETADDR, None, addresses)


def _mounted() -> Iterator[str]:
    """Return all paths where namespaces are mounted."""
    for root, table in MOUNTS:
        with suppress(OSError):
            for line in Path(table).read_text(errors="surrogateescape").splitlines():
                words = line.split()
                if words[3].startswith("net:["):
                    yield root + words[4].encode(errors="surrogateescape").decode("unicode_escape")
