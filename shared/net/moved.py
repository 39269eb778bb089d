"""Move a device of the host into a pod, and back home wherever it is by then.

The device gets its name in the pod by the message that moves it. On the way back it gets its own name, alternative
names, MAC, MTU and state again, from the record of shared/net/lent.py. The kernel restores none of them. When a
namespace is deleted, it moves physical devices to the initial namespace, under names of its choice, and deletes virtual
ones (default_device_exit_net() in net/core/dev.c).
"""

from __future__ import annotations

import errno
import posix

from shared.cni.errors import CniError, InternalError
from shared.cni.names import is_link_name
from shared.cni.plugin import readable_result, run_all
from shared.net import device_wire, lent, link_attributes, links, liveness, netns
from shared.net.device_wire import RTM_DELLINKPROP, RTM_NEWLINKPROP, RTM_SETLINK
from shared.net.lent import Record
from shared.net.netlink import Netlink, NetlinkError
from shared.net.owner import is_pod_link
from shared.net.wire import IFF_LOOPBACK, IFF_UP
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from shared.cni.call import Call
    from shared.net.devices import Wanted
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo

HOME = "/proc/thread-self/ns/net"
UNIQUE = "{}_{}"
UNIQUE_STEM = 12  # characters of the former name
MOST_NAMESAKES = 100


class Devices(Netlink):
    """A netlink socket that reads alternative names."""

    tables = device_wire


def take(undo: Undo, owner: Owner, pod_netns: Netns, wanted: Wanted, *, mtu: int) -> None:
    """Move a device into the pod, under the interface's name. Undo brings it home.

    `mtu` is in bytes, 0 for the device's own. A device of a pod that is gone is brought home first, even if nobody
    called DEL for that pod.

    Raise InternalError, naming the holder, if the device is lent; or if it cannot be moved.
    """
    host = Devices()
    with lent.locked():
        _settle(host, lent.read_all())
        link = wanted.find(host) or _await_return(host, wanted)
        if link is None:
            raise _missing(wanted)
        _require_movable(host, link)
        with pod_netns:
            pod = Devices()
            if links.get(pod, owner.ifname):
                raise links.LinkExists(f"link {owner.ifname} already exists in {pod_netns.path}")
        kept = Record.of(link, owner, pod_netns)
        kept.write()
        undo.push(f"return {kept.name} to the host", lambda: _give_back_locked(host, kept, pod_netns))
        message: Message = {"IFLA_IFALIAS": kept.name, **({"IFLA_MTU": mtu} if mtu else {})}
        _move(host, link, pod, pod_netns.descriptor, owner.ifname, message)
        link = links.require(pod, owner.ifname)
        kept.write(podIndex=link["index"], leadsTo=link.get("IFLA_LINK_NETNSID", lent.NOWHERE))


def _require_movable(host: Netlink, link: Message) -> None:
    """Raise InternalError if the device belongs to something else."""
    name, alias = link["IFLA_IFNAME"], link.get("IFLA_IFALIAS", "")
    reason = ""
    if link["flags"] & IFF_LOOPBACK:
        reason = "it is the loopback device"
    elif master := link.get("IFLA_MASTER"):
        holder = links.by_index(host, master) or {"IFLA_IFNAME": f"link {master}"}
        reason = f"it is a port of {holder['IFLA_IFNAME']}, which it would leave silently: release it first"
    elif is_pod_link(name, alias):
        reason = f"it belongs to another pod's interface ({alias or 'its name is derived from one'})"
    if reason:
        raise InternalError(f"device {name} cannot be moved into a pod: {reason}")


def _missing(wanted: Wanted) -> InternalError:
    """Return the error for a device that is not on the host."""
    for kept in lent.read_all():
        if wanted.is_in(kept):
            return InternalError(f"{wanted} is lent to {kept.holder} ({kept.netns})")
    garbled = ", ".join(lent.garbled())
    hint = f"it may be lent: the names of these garbled records end with that of their device: {garbled}"
    return InternalError(f"there is no {wanted} on the host", hint if garbled else "")


def _await_return(host: Netlink, wanted: Wanted) -> Message | None:
    """Return the device if a deleted namespace had it. The kernel brings hardware home some time after the deletion."""
    from shared.net import wait

    for kept in lent.read_all():
        if not wanted.is_in(kept) or not liveness.is_lost(kept.mark) or _open_pod(kept, None):
            continue
        if kept.is_hardware and kept.is_plugged and wait.links_change(lambda kept=kept: bool(kept.find(host))):  # type: ignore[misc]
            _settle(host, [kept])
            return wanted.find(host)
        if not kept.is_hardware:
            kept.remove()  # it died with its namespace
    return None


def _move(source: Netlink, link: Message, target: Netlink, descriptor: int, name: str, message: Message) -> None:
    """Move a link to another namespace under a name, with further attributes, by one message.

    Alternative names that a link there has stay behind. Raise NetlinkError.
    """
    index = link["index"]
    clashing = [one for one in lent.alternative_names(link) if one == name or links.get(target, one)]
    if clashing:
        source.request(RTM_DELLINKPROP, {"index": index, "IFLA_PROP_LIST": {"IFLA_ALT_IFNAME": clashing}})
    if link["flags"] & IFF_UP:
        links.set_down(source, index)  # older kernels rename no link that is up
    try:
        source.request(RTM_SETLINK, {"index": index, "IFLA_NET_NS_FD": descriptor, "IFLA_IFNAME": name, **message})
    except NetlinkError as error:
        if error.errno != errno.EINVAL:
            raise
        kind = links.kind(link) or "hardware"
        raise InternalError(
            f"device {link['IFLA_IFNAME']} cannot be moved to another network namespace: its kind is {kind}", str(error)
        ) from None


def _settle(host: Netlink, records: list[Record]) -> None:
    """Restore the devices that came home without their calls, and remove their records."""
    for kept in records:
        link = kept.find(host)
        if link is not None:
            _restore(host, link, kept)
            kept.remove()


def _restore(host: Netlink, link: Message, kept: Record) -> None:
    """Give a device on the host its name, alternative names, attributes and state as they are recorded."""
    index, name = link["index"], link["IFLA_IFNAME"]
    if link["flags"] & IFF_UP and (name != kept.name or not kept.up):
        links.set_down(host, index)
    if name != kept.name:
        _rename(host, link, kept.name)
    for missing in [one for one in kept.altnames if one not in lent.alternative_names(link)]:
        try:
            host.request(RTM_NEWLINKPROP, {"index": index, "IFLA_PROP_LIST": {"IFLA_ALT_IFNAME": [missing]}})
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            complain(f"{kept.name} does not get its alternative name {missing} again: {error}")
    host.request(RTM_SETLINK, {"index": index, "IFLA_IFALIAS": kept.alias})
    _restore_attributes(host, index, kept)
    if kept.up:
        links.set_up(host, index)


def _restore_attributes(host: Netlink, index: int, kept: Record) -> None:
    """Restore MAC, MTU and the like. A second round sets values that the kernel refused for a passing reason."""
    if _set_attributes(host, index, kept):
        for problem in _set_attributes(host, index, kept):
            complain(f"{kept.name} does not get its {problem}")


def _set_attributes(host: Netlink, index: int, kept: Record) -> list[str]:
    """Set the attributes that differ from the record. Return a text for each that cannot be set."""
    link = links.by_index(host, index)
    if link is None:
        return []
    have, problems = link_attributes.read(link), []
    for name, value in kept.attributes.items():
        try:
            if name in have and have[name] != value and value != "":
                link_attributes.write(host, link, {name: value})
        except (CniError, TypeError, ValueError) as error:  # a driver may refuse a value that it has chosen itself
            problems.append(f"{name} {value} again: {error}")
    return problems


def _rename(host: Netlink, link: Message, name: str) -> None:
    """Rename a link of the host; if the name is taken, to a unique one, unless it has one already."""
    wanted = _free_name(host, name, link)
    if wanted == link["IFLA_IFNAME"]:
        return
    if wanted in lent.alternative_names(link):
        host.request(RTM_DELLINKPROP, {"index": link["index"], "IFLA_PROP_LIST": {"IFLA_ALT_IFNAME": [wanted]}})
    host.request(RTM_SETLINK, {"index": link["index"], "IFLA_IFNAME": wanted})


def _free_name(host: Netlink, name: str, link: Message | None = None) -> str:
    """Return the name, or a unique one like it if another link of the host than `link` has it. Report that."""
    own = link["index"] if link else None
    for wanted in (name, *(UNIQUE.format(name[:UNIQUE_STEM], number) for number in range(MOST_NAMESAKES))):
        holder = links.get(host, wanted)
        if holder is None or holder["index"] == own:
            if wanted != name:
                complain(f"device {name} is called {wanted} now: another link of the host has its name")
            return wanted
    raise InternalError(f"device {name} finds no free name: links of the host have {name} and all names like {wanted}")


def _give_back_locked(host: Netlink, kept: Record, pod_netns: Netns | None) -> None:
    with lent.locked():
        _give_back(host, [kept], pod_netns)


def _give_back(host: Netlink, records: list[Record], pod_netns: Netns | None) -> None:
    """Bring devices home from wherever they are, and restore them. Remove the record unless the device may come yet.

    The kernel brings hardware some time after it deleted the namespace: wait for all of it at once, as other calls wait
    for the lock.
    """
    coming: list[Record] = []

    def fetch(kept: Record) -> None:
        link = kept.find(host) or _fetch(host, kept, pod_netns)
        if link is None and kept.is_hardware and kept.is_plugged:
            coming.append(kept)
        else:
            _finish(host, link, kept)

    run_all(*(lambda kept=kept: fetch(kept) for kept in records), lambda: _await_all(host, coming))


def _await_all(host: Netlink, coming: list[Record]) -> None:
    if not coming:
        return
    from shared.net import wait

    wait.links_change(lambda: all(kept.find(host) for kept in coming))
    run_all(*(lambda kept=kept: _finish(host, kept.find(host), kept) for kept in coming))


def _finish(host: Netlink, link: Message | None, kept: Record) -> None:
    """Restore a device that is at home, and remove its record, also if the device (None) no longer exists."""
    if link is not None:
        _restore(host, link, kept)
    elif kept.is_hardware and kept.is_plugged:
        complain(f"device {kept.name} is neither on the host nor in {kept.netns}: a later call restores it")
        return
    kept.remove()


def _fetch(host: Netlink, kept: Record, pod_netns: Netns | None) -> Message | None:
    """Move a device from its pod to the host, and return it. None if it or the pod's namespace cannot be found."""
    there = _open_pod(kept, pod_netns)
    if there is None:
        return None
    with there:
        pod = Devices()
    link = kept.find_in_pod(pod)
    if link is None:
        return None
    if not kept.leads_there(link) and not _is_hosts(link, there):
        complain(f"device {kept.name} was deleted in {kept.netns}: the link in its place is the pod's own, and stays")
        return None
    return _move_home(host, pod, link, kept.name)


def _is_hosts(link: Message, pod_netns: Netns) -> bool:
    from shared.net import provenance

    return provenance.is_hosts(link, pod_netns)


def _move_home(host: Netlink, pod: Netlink, link: Message, name: str) -> Message:
    """Move a link from a pod to the host under a name; if the name is taken, under a unique one. Return it."""
    home = posix.open(HOME, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        wanted = _free_name(host, name)
        _move(pod, link, host, home, wanted, {})
    finally:
        posix.close(home)
    return links.require(host, wanted)


def _open_pod(kept: Record, pod_netns: Netns | None) -> Netns | None:
    """Return the namespace that got the device: the call's, the recorded path's, or that of a process. None: deleted.

    A path may lead to another pod's namespace by now, and before Linux 5.14 the identity alone does not tell the two.
    """
    if not kept.is_identity_unique and liveness.mark(kept.netns) != kept.mark:
        return None
    if pod_netns is not None and pod_netns.identity() == kept.namespace:
        return pod_netns
    for path in (kept.netns, *netns.of_processes(kept.namespace.split(":")[1])):
        found = netns.open_if_there(path)
        if found is not None and found.identity() == kept.namespace:
            return found
    return None


def give_back(owner: Owner, pod_netns: Netns | None) -> bool:
    """Bring the attachment's device home, under any name in any namespace. Return True if it had a record.

    Raise CniError if the device is there and the kernel refuses to move it.
    """
    if not lent.are_there():
        return False
    host = Devices()
    with lent.locked():
        own = [kept for kept in lent.read_all() if kept.is_of(owner.container_id, owner.ifname)]
        _give_back(host, own, pod_netns)
    return bool(own)


def give_back_foreign(call: Call, owner: Owner, pod_netns: Netns | None, device: object, mac: object) -> bool:
    """Bring home a device that another suite moved, which keeps the name on the host in the alias.

    The path may lead to another pod by now. So the name must be that of the configuration (`device`), or the MAC that
    of the configuration (`mac`) or of the call's result. Return True if there was one.

    Raise InternalError if the attachment has a garbled record, and its device cannot be found.
    """
    is_found = _fetch_foreign(call, owner, pod_netns, device, mac)
    lent.remove_garbled(owner, is_home=is_found)
    return is_found


def _fetch_foreign(call: Call, owner: Owner, pod_netns: Netns | None, device: object, mac: object) -> bool:
    if pod_netns is None or pod_netns.is_own:
        return False
    with pod_netns:
        pod = Devices()
    link = links.get(pod, owner.ifname)
    name = link.get("IFLA_IFALIAS", "") if link else ""
    if link is None or not is_link_name(name) or any(kept.name == name for kept in lent.read_all()):
        return False
    previous = readable_result(call)
    macs = {one.mac.lower() for one in previous.interfaces if one.sandbox} if previous else set()
    if isinstance(mac, str):
        macs.add(mac.lower())
    if name != device and link.get("IFLA_ADDRESS") not in macs:
        return False
    if not _is_hosts(link, pod_netns):
        complain(f"link {owner.ifname} stays in {pod_netns.path}: the pod may have made it itself")
        return False
    _move_home(Devices(), pod, link, name)
    return True


def collect(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Bring home the devices of the network's attachments that are not valid, and all that came home by themselves."""
    if not lent.are_there():
        return
    host = Devices()
    with lent.locked():
        _settle(host, lent.read_all())
        left = [kept for kept in lent.read_all() if kept.network == network]
        _give_back(host, [kept for kept in left if (kept.containerID, kept.ifname) not in valid], None)
        lent.collect_garbled(network, valid)


def require_known(wanted: Wanted) -> None:
    """Raise InternalError if a device is neither lent nor movable."""
    if any(wanted.is_in(kept) for kept in lent.read_all()):
        return
    host = Devices()
    link = wanted.find(host)
    if link is None:
        raise _missing(wanted)
    _require_movable(host, link)
