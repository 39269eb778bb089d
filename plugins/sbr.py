"""sbr: packets that the pod sends from an address of an interface leave by that interface and its gateway."""

from __future__ import annotations

from errno import EACCES, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENODEV

from shared import steps
from shared.cni import config, record
from shared.cni.config import boolean, field, integer, invalid
from shared.cni.errors import InternalError, PluginNotAvailable
from shared.cni.plugin import previous_result, readable_result, required_result
from shared.net import addresses, attachment_records, links, netns, source_routing, tables, wait
from shared.net.netlink import Netlink, NetlinkError
from shared.net.policy_rules import Rules
from shared.net.source_routing import Plan
from shared.net.wire import RTM_NEWROUTE
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.ip import Address
    from shared.cni.result import IP, Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.undo import Undo

RECORDS = "/run/cni/sbr"
LAST_PRIORITY = 32765  # before the rules for main and default
# No route can be added: the interface is down, or lost the address, the way to the gateway, or IPv6.
CHANGED_BY_POD = (EACCES, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENODEV)


class Config(config.Config):
    """sbr's keys."""

    table: int | None = field(
        integer(1, tables.LAST), None, "look up this table, and leave the routes where they are; default: new tables"
    )
    gateways: dict[int, Address] = field(
        config.gateways, {}, "gateways, one per family, in place of those of the result"
    )
    addSourceHints: bool = field(
        boolean, False, "keep the routes to the addresses' networks in the main table, with the source address"
    )
    priority: int | None = field(
        integer(1, LAST_PRIORITY), None, "priority of the rules; default: before all other rules but the first"
    )


def read(call: Call) -> Config:
    """Return a call's configuration. Raise InvalidConfig before anything is touched."""
    keys: Config = Config.read(call.config)
    if keys.table in tables.RESERVED:
        raise invalid("table", keys.table, "is the kernel's: choose another one")
    return keys


def add(call: Call, undo: Undo) -> Result:
    """Add a rule for each address, and move the interface's routes to tables of their own. Return prevResult."""
    keys = read(call)
    result = required_result(call)
    ips = _require_ips(result, call)
    pod_netns = netns.open_netns(call.netns)
    namespace = pod_netns.identity()
    path = attachment_records.path(RECORDS, call)
    with pod_netns:
        inside, rules = Netlink(), Rules()
        index = links.require(inside, call.ifname)["index"]
        if any(ip.address.version == 6 for ip in ips):
            wait.addresses_settled(inside, index)  # the kernel refuses a tentative address as a route's source
        with tables.hold(pod_netns):
            steps.begin("rules")
            if (former := _recorded(path, namespace)) is not None:
                source_routing.revert(inside, rules, index, former)
            if not pod_netns.is_own:  # a rule from an address that the pod got just now is left over
                source_routing.remove_unrecorded(rules, {ip.address.address for ip in ips})
            plan = source_routing.plan(inside, rules, index, ips, result.routes, keys)
            record.write(path, {**plan.to_json(), **attachment_records.marks(call, namespace)})
            undo.push(f"remove {path}", lambda: record.remove(path))
            undo.push(f"set the routes of {call.ifname} back", lambda: _undo(pod_netns, index, plan))
            source_routing.apply(inside, rules, plan)
    for ip in plan.without_gateway if keys.table is None else ():
        complain(f'sbr: no gateway for {ip.address}: it reaches its own networks alone; set "gateways"')
    return result


def _require_ips(result: Result, call: Call) -> list[IP]:
    """Return the interface's addresses in the result, but for link-local ones. Raise InternalError if there is none."""
    from shared.net import verify

    ips = [ip for ip in verify.own_ips(result, call) if ip.address.address not in addresses.LINK_LOCAL]
    if not ips:
        raise InternalError(f"prevResult has no address for interface {call.ifname}: sbr routes by source address")
    return ips


def _recorded(path: str, namespace: str) -> Plan | None:
    """Return what an ADD of this attachment recorded in the namespace, None without a record of it."""
    found = record.read(path)
    return Plan.from_json(found) if found and attachment_records.namespace(found) == namespace else None


def _undo(pod_netns: Netns, index: int, plan: Plan) -> None:
    with pod_netns:
        source_routing.revert(Netlink(), Rules(), index, plan)


def check(call: Call) -> None:
    """Raise InternalError that names each rule and route that is missing."""
    read(call)
    result = previous_result(call)
    pod_netns = netns.open_netns(call.netns)
    plan = _recorded(attachment_records.path(RECORDS, call), pod_netns.identity())
    with pod_netns:
        inside, rules = Netlink(), Rules()
        link = links.get(inside, call.ifname)
        if link is None:
            problems = [f"link {call.ifname} is missing in {call.netns}"]
        else:
            ips = _require_ips(result, call) if result else []
            problems = source_routing.problems(inside, rules, link["index"], ips, plan)
    if problems:
        raise InternalError(f"{call.network} {call.ifname} is not routed by source as ADD left it", "; ".join(problems))


def delete(call: Call) -> None:
    """Undo ADD if the pod's namespace still exists, and delete the record. The main table has its routes again."""
    path = attachment_records.path(RECORDS, call)
    pod_netns = netns.open_if_there(call.netns)
    if pod_netns is not None:
        steps.begin("rules")
        plan = _recorded(path, pod_netns.identity())
        with pod_netns:
            inside, rules = Netlink(), Rules()
            link = links.get(inside, call.ifname)
            if plan is not None:
                _give_back(inside, rules, link, plan)
            elif not pod_netns.is_own:  # among the host's rules, none tells that it is the attachment's
                source_routing.remove_unrecorded(rules, _find_sources(inside, link, call))
    record.remove(path)


def _give_back(inside: Netlink, rules: Rules, link: Message | None, plan: Plan) -> None:
    """Undo ADD. Complain about routes that cannot be added again since the pod changed its interface.

    Raise NetlinkError for any other reason: the record is still there for the next DEL.
    """
    try:
        source_routing.revert(inside, rules, link["index"] if link else 0, plan)
    except NetlinkError as error:
        if error.kind != RTM_NEWROUTE or error.errno not in CHANGED_BY_POD:
            raise
        complain(f"sbr: cannot restore a route: {error}")


def _find_sources(inside: Netlink, link: Message | None, call: Call) -> set[Address]:
    """Return the addresses of the interface, in the kernel and in the result."""
    from shared.net import verify

    result = readable_result(call)
    own = verify.own_ips(result, call) if result else []
    present = addresses.of_link(inside, link["index"]) if link else []
    return {ip.address.address for ip in own} | {prefix.address for prefix in present}


def gc(call: Call) -> None:
    """Delete the records of this network's attachments that are no longer valid: their pods are gone."""
    attachment_records.collect(RECORDS, call)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if the kernel has no rules."""
    read(call)
    try:
        Rules().all()
    except NetlinkError as error:
        reason = "the kernel has no rules (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)"
        raise PluginNotAvailable(reason, str(error)) from None
