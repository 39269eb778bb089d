"""Read network namespaces by the ids that the host's kernel has for them: paths, links, addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from shared.cni.errors import CniError
from shared.net import links as net_links
from shared.net import sublinks
from shared.net.netlink import Netlink
from shared.net.netns import open_netns
from shared.net.owner import parse_alias
from shared.net.wire import RTM_GETADDR, RTM_GETLINK, RTM_GETNSID

if TYPE_CHECKING:
    from shared.net.netlink import Message

PLACES = (Path("/run/netns"), Path("/run/docker/netns"))  # directories where runtimes keep namespaces by name
DUMP_TRIES = 10
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000  # linux/if.h
RT_SCOPE_LINK = 253  # linux/rtnetlink.h
NO_ID = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED of linux/net_namespace.h


@dataclass(frozen=True, kw_only=True)
class KernelLink:
    """A link in the kernel.

    `master` and `peer` are indexes; `peer` is an index in the namespace with the id `netnsid`.
    """

    index: int
    name: str
    kind: str
    state: str  # up, no carrier, down
    mtu: int
    mac: str
    alias: str
    master: int | None
    peer: int | None
    netnsid: int | None
    vlan: int = 0

    def vrf_in(self, links: Mapping[int, KernelLink]) -> str:
        """Return the name of the VRF that the link is in, empty if it is in none. `links` are its neighbours."""
        master = links.get(self.master) if self.master is not None else None
        return master.name if master and master.kind == "vrf" else ""

    @property
    def owner(self) -> tuple[str, str, str] | None:
        """Return the (network, container id, ifname) in its alias, or None."""
        return parse_alias(self.alias)


@dataclass(frozen=True)
class View:
    """A namespace's links, and its addresses beyond link scope, by the link's index.

    `host` is the host's id in this namespace, None in that of the host itself.
    """

    links: dict[int, KernelLink]
    addresses: dict[int, tuple[str, ...]]
    host: int | None = None


@contextmanager
def open_kernel() -> Iterator[Any]:
    """Yield a pyroute2 IPRoute for the thread's network namespace."""
    with IPRoute() as ip:
        yield ip


def read_dump(dump: Callable[..., Iterable[Any]], *arguments: Any, **filters: Any) -> list[Any]:
    """Return the messages of a dump; repeat it if a change interrupted it. Raise NetlinkDumpInterrupted."""
    for _ in range(DUMP_TRIES - 1):
        try:
            return list(dump(*arguments, **filters))
        except NetlinkDumpInterrupted:
            continue
    return list(dump(*arguments, **filters))


def named_paths() -> list[str]:
    """Return the paths of the host's named namespaces."""
    found = []
    for place in PLACES:
        try:
            found += sorted(str(path) for path in place.iterdir())
        except OSError:
            continue
    return found


def paths_by_id(ip: Any, paths: Iterable[str], *, assigns: bool = False) -> dict[int, str]:
    """Return the id and path of each namespace that has an id here. With `assigns` give one to each that has none.

    The kernel assigns an id itself if a veth leads there.
    """
    found: dict[int, str] = {}
    for path in paths:
        number = id_of(ip, path, assigns=assigns)
        if number is not None:
            found.setdefault(number, path)
    return found


def id_of(ip: Any, path: str, *, assigns: bool) -> int | None:
    """Return the id of the namespace at a path, None without one, and if it is deleted or no namespace."""
    try:
        with closing(open_netns(path)) as netns:
            number = _read_id(ip, netns.descriptor)
            if number is None and assigns:
                with suppress(NetlinkError):  # EEXIST: somebody else has assigned one in the meantime
                    ip.set_netnsid(fd=netns.descriptor)
                number = _read_id(ip, netns.descriptor)
    except (CniError, OSError):  # deleted in the meantime, or not a namespace
        return None
    return number


def _read_id(ip: Any, descriptor: int) -> int | None:
    answer = ip.get_netnsid(fd=descriptor)
    return answer["nsid"] if answer and answer["nsid"] not in (None, NO_ID) else None


def view_inside(path: str) -> View:
    """Return a namespace's links and addresses. Raise CniError, also if the kernel refuses.

    Raise OSError if the namespace cannot be entered.
    """
    # Do not use pyroute2 here: any process in the namespace can send to its sockets, and each of its messages takes 20
    # KiB.
    with closing(open_netns(path)) as netns, netns, closing(Netlink()) as netlink:
        links = netlink.scan(RTM_GETLINK, None, lambda stream: {one["index"]: _link(one) for one in stream})
        number = netlink.get(RTM_GETNSID, {"NETNSA_FD": netns.home})
        return View(links, netlink.scan(RTM_GETADDR, None, _addresses), number["NETNSA_NSID"] if number else None)


def _link(message: Message) -> KernelLink:
    kind = net_links.kind(message)
    vlan = sublinks.read_data(message).get("IFLA_VLAN_ID", 0) if kind == "vlan" else 0
    return replace(kernel_link({
        **{name: message[name] for name in ("index", "flags")},
        **{name.removeprefix("IFLA_").lower(): value for name, value in message.items() if name.startswith("IFLA_")},
        ("linkinfo", "kind"): kind,
    }), vlan=vlan)  # fmt: skip


def _addresses(stream: Iterator[Message]) -> dict[int, tuple[str, ...]]:
    found: dict[int, list[str]] = {}
    for one in stream:
        if one["scope"] < RT_SCOPE_LINK:
            address = one.get("IFA_LOCAL") or one["IFA_ADDRESS"]
            found.setdefault(one["index"], []).append(f"{address}/{one['prefixlen']}")
    return {index: tuple(listed) for index, listed in found.items()}


def view(ip: Any) -> View:
    """Return the links and addresses of an IPRoute's namespace."""
    links = map(kernel_link, read_dump(ip.link, "dump"))
    addresses: dict[int, tuple[str, ...]] = {}
    for one in read_dump(ip.addr, "dump"):
        if one["scope"] < RT_SCOPE_LINK:
            addresses[one["index"]] = (*addresses.get(one["index"], ()), address_of(one))
    return View({link.index: link for link in links}, addresses)


def kernel_link(message: Any) -> KernelLink:
    """Return the link in an RTM_NEWLINK or RTM_DELLINK of pyroute2."""
    flags = message["flags"]
    return KernelLink(
        index=message["index"],
        name=printable(message.get("ifname")),
        kind=message.get(("linkinfo", "kind")) or "",
        state="down" if not flags & IFF_UP else "up" if flags & IFF_LOWER_UP else "no carrier",
        mtu=message.get("mtu") or 0,
        mac=message.get("address") or "",
        alias=printable(message.get("ifalias")),
        master=message.get("master"),
        peer=message.get("link"),
        netnsid=message.get("link_netnsid"),
    )


def address_of(message: Any) -> str:
    """Return the address of an RTM_NEWADDR.

    On a point-to-point link IFA_ADDRESS is the address of the other end.
    """
    return f"{message.get('local') or message.get('address')}/{message['prefixlen']}"


def printable(value: object) -> str:
    """Return a name from the kernel or a file without control characters: it may contain anything."""
    whole = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in whole)
