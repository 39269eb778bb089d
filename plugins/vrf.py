"""vrf: puts the pod's interface into a VRF, with its addresses and routes. Other interfaces' routes do not see it."""

from __future__ import annotations

from shared import steps
from shared.cni import config, record
from shared.cni.call import folded
from shared.cni.config import field, integer, invalid, link_name
from shared.cni.errors import CniError, InternalError, IOFailure, PluginNotAvailable, TryAgainLater
from shared.cni.plugin import previous_result, required_result
from shared.cni.result import Route
from shared.net import attachment_records, link_routes, links, netns, routes, tables, vrfs
from shared.net.netlink import Netlink
from shared.net.policy_rules import Rules
from shared.net.wire import IFF_UP
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.undo import Undo

FIRST_TABLE = 1  # as in the reference
RECORDS = "/run/cni/vrf"  # of ADDs and DELs that are at work
DELETE_LOCK_SECONDS = 5.0  # a DEL goes on without the lock: a process in the pod could hold it for ever


class Config(config.Config):
    """vrf's keys."""

    vrfname: str = field(link_name, None, "name of the VRF in the pod; created if it does not exist", required=True)
    table: int = field(integer(0, tables.LAST), 0, "routing table of the VRF; 0: one that nothing uses")


def read(call: Call) -> Config:
    """Return a call's configuration. Raise InvalidConfig before anything is touched."""
    keys: Config = Config.read(call.config)
    if keys.table and keys.table in tables.RESERVED:
        raise invalid("table", keys.table, "is the kernel's: choose another one")
    return keys


def add(call: Call, undo: Undo) -> Result:
    """Put the interface into the VRF, which is created if needed. Return prevResult."""
    keys = read(call)
    result = required_result(call)
    pod_netns = netns.open_netns(call.netns)
    notes = Notes(call, pod_netns)
    with pod_netns, tables.hold(pod_netns):
        steps.begin("vrf")
        inside = Netlink()
        link = links.require(inside, call.ifname)
        vrf = _find_or_create(inside, undo, pod_netns, keys, link)
        notes.finish(inside, link, vrf, is_joining=True)
        if not link.get("IFLA_MASTER"):
            undo.push(f"take {call.ifname} out of {keys.vrfname}", lambda: _leave(pod_netns, keys.vrfname, notes))
            kept = vrfs.belongings(inside, link, routes.RT_TABLE_MAIN)
            notes.write(kept)
            vrfs.join(inside, link, vrf, kept)
        _add_missing_routes(inside, link, result, call, tables.of_vrf(vrf))
    notes.remove()
    return result


def _find_or_create(inside: Netlink, undo: Undo, pod_netns: Netns, keys: Config, link: Message) -> Message:
    """Return the VRF, up. Raise InvalidConfig if its table is another one, or something else uses it.

    Raise InternalError if the link is a port of another one.
    """
    vrf = vrfs.find(inside, keys.vrfname)
    master = link.get("IFLA_MASTER", 0)
    if master not in (0, vrf and vrf["index"]):
        other = (links.by_index(inside, master) or {}).get("IFLA_IFNAME", master)
        raise InternalError(f"link {link['IFLA_IFNAME']} is in {other} already, and cannot join {keys.vrfname}")
    if vrf is not None:
        if keys.table not in (0, tables.of_vrf(vrf)):
            raise invalid("table", keys.table, f"is not the table of VRF {keys.vrfname}, which is {tables.of_vrf(vrf)}")
        if not vrf["flags"] & IFF_UP:
            undo.push(f"set VRF {keys.vrfname} down", lambda: _set_down(pod_netns, keys.vrfname))
            links.set_up(inside, vrf["index"])
        return vrf
    taken = tables.users(inside, Rules(), but=link["index"] if keys.table else 0)
    if keys.table and keys.table in taken:
        raise invalid("table", keys.table, f"is in use by {taken[keys.table]} in {pod_netns.path}")
    undo.push(f"remove VRF {keys.vrfname}", lambda: _delete_vrf(pod_netns, keys.vrfname))
    return vrfs.create(inside, keys.vrfname, keys.table or tables.free(taken, FIRST_TABLE)[0])


def _set_down(pod_netns: Netns, name: str) -> None:
    with pod_netns:
        links.set_down_if_exists(Netlink(), name)


def _delete_vrf(pod_netns: Netns, name: str) -> None:
    with pod_netns:
        vrfs.delete_if_empty(Netlink(), name)


def _leave(pod_netns: Netns, name: str, notes: Notes) -> None:
    """Undo ADD: take the link out of the VRF, with its addresses and routes."""
    with pod_netns:
        _take_out(Netlink(), name, notes)
    notes.remove()


def _add_missing_routes(inside: Netlink, link: Message, result: Result, call: Call, table: int) -> None:
    """Add the result's routes that the VRF's table lacks: the plugin before may not have made all of them."""
    from shared.net import verify

    index, own = link["index"], verify.own_ips(result, call)
    families = {ip.address.version for ip in own}
    gateways = {ip.address.version: ip.gateway for ip in reversed(own) if ip.gateway}
    present = {link_routes.destination(route) for route in link_routes.of_link(inside, index)}
    inside.batch([
        routes.add_request(
            index, Route(one.dst, one.gw, {"table": table, **one.extra}), gateways.get(one.dst.version)
        )
        for one in result.routes
        if one.dst.version in families and one.dst.network not in present
    ])  # fmt: skip


def check(call: Call) -> None:
    """Raise InternalError that names each difference from the state that ADD left."""
    keys = read(call)
    result = previous_result(call)
    pod_netns = netns.open_netns(call.netns)
    with pod_netns:
        problems = _find_problems(Netlink(), keys, call, result)
    if problems:
        raise InternalError(f"{call.network} {call.ifname} is not in its VRF as ADD left it", "; ".join(problems))


def _find_problems(inside: Netlink, keys: Config, call: Call, result: Result | None) -> list[str]:
    from shared.net import verify

    vrf, link = vrfs.find(inside, keys.vrfname), links.get(inside, call.ifname)
    missing = [name for name, there in ((keys.vrfname, vrf), (call.ifname, link)) if there is None]
    if vrf is None or link is None:
        return [f"link {name} is missing in {call.netns}" for name in missing]
    problems: list[str] = []
    if link.get("IFLA_MASTER") != vrf["index"]:
        problems.append(f"link {call.ifname} is not in VRF {keys.vrfname}")
    if keys.table not in (0, tables.of_vrf(vrf)):
        problems.append(f"VRF {keys.vrfname} has table {tables.of_vrf(vrf)}, not {keys.table}")
    if not vrf["flags"] & IFF_UP:
        problems.append(f"VRF {keys.vrfname} is down")
    if result is not None:
        verify.layer_3(inside, link, call, result, problems)
    return problems


def delete(call: Call) -> None:
    """Take the interface out of the VRF with its routes, and delete an empty VRF. Do nothing if either is gone."""
    name: str = Config.read({"vrfname": folded(call.config, "vrfname")}).vrfname
    pod_netns = netns.open_if_there(call.netns)
    notes = Notes(call, pod_netns)
    if pod_netns is not None:
        with pod_netns:
            steps.begin("vrf")
            try:
                with tables.hold(pod_netns, DELETE_LOCK_SECONDS):
                    _leave_and_delete(name, notes)
            except TryAgainLater:
                _leave_and_delete(name, notes)
    notes.remove()


def _leave_and_delete(name: str, notes: Notes) -> None:
    inside = Netlink()
    try:
        _take_out(inside, name, notes)
    except InternalError as error:  # the pod can have changed its interface; that it left counts
        if (links.get(inside, notes.ifname) or {}).get("IFLA_MASTER"):
            raise
        complain(f"vrf: cannot restore {notes.ifname}: {error}")
    vrfs.delete_if_empty(inside, name)


def _take_out(inside: Netlink, name: str, notes: Notes) -> None:
    """Take the interface out of the VRF. First finish a call that was killed."""
    vrf, link = links.get(inside, name), links.get(inside, notes.ifname)
    if vrf is not None and links.kind(vrf) != vrfs.KIND:
        vrf = None
    if link is None:
        return
    try:
        notes.finish(inside, link, vrf)
    except InternalError as error:  # the pod can have changed its interface since
        complain(f"vrf: cannot finish the call that was killed: {error}")
    if vrf and link.get("IFLA_MASTER") == vrf["index"]:
        kept = vrfs.belongings(inside, link, tables.of_vrf(vrf))
        notes.write(kept)
        vrfs.leave(inside, link, kept)


class Notes:
    """A record of the interface's belongings while it is moved, since the kernel deletes its routes then.

    The next call of the attachment finishes one that was killed.
    """

    def __init__(self, call: Call, pod_netns: Netns | None) -> None:
        self.ifname = call.ifname
        self._path = attachment_records.path(RECORDS, call)
        self._namespace = pod_netns.identity() if pod_netns else ""
        self._marks = attachment_records.marks(call, self._namespace)

    def write(self, kept: Message) -> None:
        """Record the interface's belongings."""
        try:
            record.write(self._path, {**kept, **self._marks})
        except IOFailure as error:
            complain(f"vrf: {error}: if this call is killed, routes are lost")

    def finish(self, inside: Netlink, link: Message, vrf: Message | None, *, is_joining: bool = False) -> None:
        """Give the link the belongings that a killed call recorded, in the VRF or out of it as the link is now."""
        found = record.read(self._path)
        is_of_link = attachment_records.namespace(found) == self._namespace and found.get("index") == link["index"]
        if not is_of_link or not {"source", "isUp", "addresses", "routes"} <= found.keys():
            return
        master = link.get("IFLA_MASTER", 0)
        if not master:
            vrfs.restore(inside, link, found)
        elif vrf and master == vrf["index"]:
            vrfs.restore(inside, link, found, tables.of_vrf(vrf), is_joining=is_joining)

    def remove(self) -> None:
        """Remove the record: the interface has everything."""
        record.remove(self._path)


def gc(call: Call) -> None:
    """Delete the records of this network's attachments that are no longer valid: their pods are gone."""
    attachment_records.collect(RECORDS, call)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if the kernel has no VRFs. Try one in a temporary namespace."""
    keys = read(call)
    try:
        with netns.create_temporary():
            vrfs.create(Netlink(), keys.vrfname, keys.table or FIRST_TABLE)
    except (CniError, OSError) as error:
        raise PluginNotAvailable("a pod's interface cannot get a VRF", str(error)) from None
