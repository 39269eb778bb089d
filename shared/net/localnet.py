"""route_localnet of the links that lead to pods, by which 127.0.0.1's packets find host ports.

The switch lets the link's neighbours in as well, so that it is on only behind rules that drop them (CVE-2020-8558).
A note, an empty file with the link's index and name, says that this suite turned the switch on. Rules, not notes, say
if somebody needs it.
Each ADD makes its rules, then looks at the switch under the lock. Each DEL removes its rules, then looks at all rules
and sets the switch back under the same lock: it sees either the rules of a concurrent ADD, or that ADD sees the switch
that was set back.
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
    """Return True if the switch of this name's link is on; False if there is no such link."""
    return sysctl.read(switch(link)) == "1"


def towards(host: Netlink, pod: Address, named: Sequence[str]) -> Message | None:
    """Return the link that leads to a pod, None if that is one by which the host reaches others, or nothing does.

    `named` are the host's links in the pod's result. If it has none, then a bridge will do, or a veth pair into another
    namespace, unless a gateway is beyond it.
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
    """Turn the switch of a link on, and note that if it was off. The rules that make it safe must be there."""
    from shared.net import rules_lock

    name = link["IFLA_IFNAME"]
    with rules_lock.hold(NOTES):
        if sysctl.read(switch(name)) != "1":
            record.mark(f"{NOTES}/{link['index']}-{name}")
            sysctl.require(switch(name), "1")


def set_back(is_needed: Callable[[], bool]) -> None:
    """Turn off the switches that this suite turned on, unless somebody still needs them. Report one that cannot be."""
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
    """Return the names of the notes; none if there is no directory. Raises IOFailure."""
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
    """Return False if that is impossible, which is no reason to keep a pod: the rules are there still."""
    try:
        sysctl.require(switch(name), "0")
    except InternalError as error:
        complain(f"portmap: cannot set route_localnet back: {error}")
        return False
    return True


def _noted(host: Netlink, note: str) -> Message | None:
    """Return the link that a note is about, None if it is gone; another one may have its name or its index by now."""
    index, _, name = note.partition("-")
    link = links.by_index(host, int(index)) if index.isdecimal() and int(index) else None
    return link if link is not None and link["IFLA_IFNAME"] == name else None
