"""Switch route_localnet of the links that lead to pods, so that packets from 127.0.0.1 reach host ports.

The switch also lets the link's neighbours reach 127.0.0.1 (CVE-2020-8558), so it is on only if rules drop their
packets. A note, an empty file with the link's index and name, records that this suite turned the switch on. Rules, not
notes, show if an attachment needs the switch.

Each ADD creates its rules, then reads the switch under the lock. Each DEL removes its rules, then reads all rules and
turns the switch off under the same lock. So a DEL sees the rules of a concurrent ADD, or that ADD sees that the switch
is off.
"""

from __future__ import annotations

import posix

from shared.cni import record
from shared.cni.errors import InternalError, IOFailure
from shared.net import links, routes, sysctl
from shared.net.netlink import Netlink
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.cni.ip import Address
    from shared.net.netlink import Message

NOTES = "/run/cni/localnet"


def switch(link: str) -> str:
    """Return the path of a link's sysctl."""
    return f"ipv4/conf/{link}/route_localnet"


def is_on(link: str) -> bool:
    """Return True if the switch of a link is on; False if there is no such link."""
    return sysctl.read(switch(link)) == "1"


def problems(link: Message) -> list[str]:
    """Return a text if the switch of a link is off."""
    name = link["IFLA_IFNAME"]
    if is_on(name):
        return []
    return [f"sysctl net/{switch(name)} is not 1: connections from 127.0.0.1 do not reach the pod"]


def towards(host: Netlink, pod: Address, named: Sequence[str]) -> Message | None:
    """Return the link that leads to a pod, or None if there is none, or the host reaches other hosts through it.

    `named` are the host's links in the pod's result. If the result names none, return a bridge, or a veth pair into
    another namespace, unless a route through the link has a gateway.
    """
    route = routes.towards(host, pod)
    link = links.by_index(host, route["RTA_OIF"]) if route and "RTA_GATEWAY" not in route else None
    if link is None:
        return None
    is_for_pods = links.kind(link) == "bridge" or links.leads_to_pod(host, link)
    if not (link["IFLA_IFNAME"] in named if named else is_for_pods):
        return None
    if named and is_for_pods:
        return link
    return None if routes.has_gateway(host, link["index"]) else link


def turn_on(link: Message) -> None:
    """Turn on the switch of a link, and write a note if it was off. The rules that make it safe must exist."""
    from shared.net import rules_lock

    name = link["IFLA_IFNAME"]
    with rules_lock.hold(NOTES):
        if sysctl.read(switch(name)) != "1":
            record.mark(f"{NOTES}/{link['index']}-{name}")
            sysctl.require(switch(name), "1")


def turn_off_unneeded(is_needed: Callable[[], bool]) -> None:
    """Turn off the switches that this suite turned on, unless they `is_needed`. Report those that stay on."""
    if not _notes():
        return
    from shared.net import rules_lock

    with rules_lock.hold(NOTES, only_removes=True):
        if is_needed():
            return
        host = Netlink()
        for note in _notes():
            link = _noted(host, note)
            if link is None or _turn_off(link["IFLA_IFNAME"]):
                record.remove(f"{NOTES}/{note}")


def _notes() -> list[str]:
    """Return the names of the notes; none if their directory does not exist. Raises IOFailure."""
    try:
        descriptor = posix.open(NOTES, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise IOFailure(f"cannot read {NOTES}", str(error)) from None
    try:
        return sorted(posix.listdir(descriptor))
    except OSError as error:
        raise IOFailure(f"cannot read {NOTES}", str(error)) from None
    finally:
        posix.close(descriptor)


def _turn_off(name: str) -> bool:
    """Turn off the switch of a link; report a failure and return False.

    A failure must not prevent the deletion of a pod: the rules that make the switch safe stay.
    """
    try:
        sysctl.require(switch(name), "0")
    except InternalError as error:
        complain(f"portmap: cannot set route_localnet back: {error}")
        return False
    return True


def _noted(host: Netlink, note: str) -> Message | None:
    """Return the link of a note. None if the link was deleted, even if another one has its name or index by now."""
    index, _, name = note.partition("-")
    link = links.by_index(host, int(index)) if index.isdecimal() and int(index) else None
    return link if link is not None and link["IFLA_IFNAME"] == name else None
