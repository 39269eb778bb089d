"""Route by source address: a rule and a table for each address of a link."""

from __future__ import annotations

from shared.cni.ip import Address, Prefix
from shared.cni.result import Route
from shared.net import link_routes, policy_rules, routes, tables
from shared.net.addresses import FAMILIES
from shared.net.wire import RT_SCOPE_LINK, RTN_UNICAST, RTPROT_BOOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.cni.result import IP
    from shared.net.link_routes import Key
    from shared.net.netlink import Message, Netlink
    from shared.net.policy_rules import Rules

FIRST_TABLE = 100  # as in the reference
HINT = ("proto", "RTA_PREFSRC")  # besides the destination: the kernel may have made a route to it
IPV6_PRIORITY = 1024  # IP6_RT_PRIO_USER in linux/ipv6_route.h: of a route without one


class Plan:
    """The rules of a link's addresses, the routes in their tables, and the routes of the main table that change.

    A rule is the source address, the table and the priority. `moved` are routes of the main table that are deleted,
    `hints` new ones. `without_gateway` are the addresses whose table has no default route.
    """

    def __init__(self) -> None:
        self.rules: list[tuple[Address, int, int]] = []
        self.routes: list[Message] = []
        self.moved: list[Message] = []
        self.hints: list[Message] = []
        self.without_gateway: list[IP] = []
        self.keys: list[Key] = []  # of the routes

    def to_json(self) -> dict[str, Any]:
        """Return the part that DEL and CHECK need."""
        return {
            "rules": [[str(source), table, priority] for source, table, priority in self.rules],
            "routes": [[str(dst), gateway and str(gateway), table] for dst, gateway, table in self.keys],
            "moved": link_routes.without_rest(self.moved),
            "hints": self.hints,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Plan | None:
        """Read a record; return None if it is not of this form."""
        plan = cls()
        try:
            plan.rules = [(Address.parse(source), int(table), int(at)) for source, table, at in raw["rules"]]
            plan.keys = [
                (Prefix.parse(dst), via and Address.parse(via), int(table)) for dst, via, table in raw["routes"]
            ]
            plan.moved, plan.hints = list(raw["moved"]), list(raw["hints"])
        except (KeyError, TypeError, ValueError):
            return None
        return plan


def plan(inside: Netlink, rules: Rules, index: int, ips: list[IP], given: list[Route], keys: Any) -> Plan:
    """Return the plan for a link's addresses, and change nothing.

    `given` are the result's routes, `keys` the configuration of sbr.
    """
    made = Plan()
    networks = [ip.address for ip in ips]
    present: list[Message] = []
    if keys.table is None or keys.addSourceHints:
        present = [one for one in link_routes.of_link(inside, index) if tables.of_route(one) == routes.RT_TABLE_MAIN]
    main = present if keys.table is None else []
    chosen = [keys.table] * len(ips)
    if keys.table is None:
        chosen = tables.free(tables.users(inside, rules), FIRST_TABLE, len(ips))
    priorities = {version: keys.priority or policy_rules.next_priority(rules.all(), version) for version in FAMILIES}
    for ip, table in zip(ips, chosen):
        version = ip.address.version
        made.rules.append((ip.address.address, table, priorities[version]))
        if not keys.priority:
            priorities[version] = max(priorities[version] - 1, 1)
        copies = [_in_table(route, table) for route in main if _serves(route, ip.address, networks)]
        gateway = keys.gateways.get(version)
        if gateway is None and keys.table is None and not any(_is_default(route) for route in copies):
            gateway = _choose_gateway(ip, given, networks)
        if gateway:
            copies = [route for route in copies if not _is_default(route)] + [_default(index, gateway, table)]
        elif not any(_is_default(route) for route in copies):
            made.without_gateway.append(ip)
        made.routes += copies
    made.moved = main
    if keys.addSourceHints:
        made.moved = [route for route in main if not _has_hint(route)]
        made.hints = _hints(index, networks, [link_routes.destination(route) for route in present if _has_hint(route)])
    made.keys = [link_routes.key(route) for route in made.routes]
    return made


def _serves(route: Message, own: Prefix, networks: list[Prefix]) -> bool:
    """Return True if a route belongs into the table of an address.

    A route with a source or gateway in the network of another address of the link is for that address.
    """
    if link_routes.version(route) != own.version:
        return False
    marks = [Address.parse(route[name]) for name in ("RTA_PREFSRC", "RTA_GATEWAY") if name in route]
    return not marks or any(mark in own for mark in marks) or not any(m in one for m in marks for one in networks)


def _choose_gateway(ip: IP, given: list[Route], networks: list[Prefix]) -> Address | None:
    """Return the gateway of an address: its own, else that of a default route of the result."""
    if ip.gateway:
        return ip.gateway
    found = [
        route.gw for route in given if route.gw and route.gw.version == ip.address.version and not route.dst.length
    ]
    near = [gateway for gateway in found if gateway in ip.address]
    beyond = [gateway for gateway in found if not any(gateway in one for one in networks)]
    return next(iter([*near, *beyond]), None)


def _in_table(route: Message, table: int) -> Message:
    return {**route, "table": 0, "RTA_TABLE": table}


def _is_default(route: Message) -> bool:
    return not route["dst_len"]


def _default(index: int, gateway: Address, table: int) -> Message:
    route = Route(Prefix(Address(gateway.version, 0), 0), gateway, {"table": table})
    return {"flags": 0, "tos": 0, **routes.add_request(index, route, None).message}


def _has_hint(route: Message) -> bool:
    """Return True if a route to neighbours of the link says the source address. The kernel adds such ones for IPv4."""
    return "RTA_PREFSRC" in route and link_routes.gateway(route) is None


def _hints(index: int, networks: list[Prefix], present: list[Prefix]) -> list[Message]:
    """Return the main table's missing routes to the networks of the addresses, with the address as source."""
    wanted = {one.network: one.address for one in reversed(networks) if one.length < one.address.bits}
    return [
        {
            "family": FAMILIES[network.version], "dst_len": network.length, "table": routes.RT_TABLE_MAIN,
            "proto": RTPROT_BOOT, "scope": RT_SCOPE_LINK, "type": RTN_UNICAST, "flags": 0,
            "RTA_DST": str(network.first), "RTA_OIF": index, "RTA_PREFSRC": str(source),
            **({"RTA_PRIORITY": IPV6_PRIORITY} if network.version == 6 else {}),
        }
        for network, source in wanted.items()
        if network not in present
    ]  # fmt: skip


def apply(inside: Netlink, rules: Rules, plan: Plan) -> None:
    """Make the plan's routes and rules, then delete the routes that moved from the main table."""
    inside.batch(link_routes.add_requests(plan.routes))
    rules.batch([policy_rules.add_request(*rule) for rule in plan.rules])
    inside.batch(link_routes.add_requests(plan.hints))
    inside.batch(link_routes.delete_requests(plan.moved))


def revert(inside: Netlink, rules: Rules, index: int, plan: Plan) -> None:
    """Delete the plan's rules, all equal ones, and its routes; the main table gets back the routes that moved.

    `index` is 0 if the link is gone. Tolerate a plan that `apply` made in part. Raises NetlinkError if a route cannot
    be added again, after all else is done.
    """
    doomed = {(source, table) for source, table, _ in plan.rules}
    rules.remove(lambda rule: (policy_rules.source(rule), policy_rules.table(rule)) in doomed)
    if index:
        own = [route for route in link_routes.of_link(inside, index) if link_routes.key(route) in plan.keys]
        inside.batch(link_routes.delete_requests(own) + link_routes.delete_requests(plan.hints, HINT))
        inside.batch(link_routes.add_requests([route for route in plan.moved if route["RTA_OIF"] == index]))


def remove_unrecorded(rules: Rules, sources: set[Address]) -> None:
    """Delete the rules for packets from these addresses, as the reference does at the end of its attachments."""
    rules.remove(lambda rule: policy_rules.source(rule) in sources and policy_rules.table(rule) not in tables.RESERVED)


def problems(inside: Netlink, rules: Rules, index: int, ips: list[IP], plan: Plan | None) -> list[str]:
    """Return a text for each rule and route that is missing. Without a record, each address must have a rule."""
    present = {(policy_rules.source(rule), policy_rules.table(rule)) for rule in rules.all()}
    of_link = {link_routes.key(route) for route in link_routes.of_link(inside, index)}
    if plan is None:
        own_tables = {table for _, _, table in of_link}
        led = {source for source, table in present if table in own_tables}
        return [f"rule from {ip.address.address} is missing" for ip in ips if ip.address.address not in led]
    lost = [(source, table) for source, table, _ in plan.rules if (source, table) not in present]
    found = [f"rule from {source} lookup {table} is missing" for source, table in lost]
    gone = [(dst, via, table) for dst, via, table in plan.keys if (dst, via, table) not in of_link]
    shown = [(f"{dst} via {via}" if via else f"{dst}", table) for dst, via, table in gone]
    return found + [f"route to {words} is missing in table {table}" for words, table in shown]
