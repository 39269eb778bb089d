"""static: give the pod the addresses that the configuration or the runtime names. No address is recorded."""

from __future__ import annotations

from ipam.static.assignment import Assignment, Config
from shared import steps
from shared.cni.config import invalid
from shared.cni.errors import InternalError, UnsupportedField
from shared.cni.ip import Prefix
from shared.cni.plugin import previous_result, valid_attachments
from shared.cni.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.cni.call import Call
    from shared.cni.ip import Address
    from shared.undo import Undo

__all__ = ["Config"]  # the documentation lists its keys
read = Assignment  # for validate, which touches nothing


def add(call: Call, _undo: Undo) -> Result:
    """Return the addresses, routes and DNS settings. Raise InvalidConfig if no address is named.

    With `probeSeconds`, raise InternalError that names an address which another host has.
    """
    assignment = Assignment(call)
    if not assignment.ips:
        raise invalid("ipam.addresses", None, 'is required, unless the runtime requests addresses (capability "ips")')
    if assignment.probe_seconds:
        _require_free(call, [ip.address.address for ip in assignment.ips.values()], assignment.probe_seconds)
    result = Result()
    result.ips = list(assignment.ips.values())
    result.routes = assignment.routes
    result.dns = assignment.dns
    return result


def _require_free(call: Call, own: Sequence[Address], seconds: int) -> None:
    """Ask through the pod's link for hosts with the addresses. Raise InternalError that names one with its MAC."""
    from shared.net import bare_link, links, netns, probe
    from shared.net.netlink import Netlink

    pod_netns = netns.open_netns(call.netns)
    link = bare_link.bring_up(pod_netns, call.ifname)
    steps.begin("probe")
    if links.kind(link) == "ipvlan":
        raise UnsupportedField(
            '"ipam.probeSeconds" is impossible with ipvlan: it has the MAC of its master, which gets the answers'
        )
    with pod_netns:
        try:
            holders = probe.find_holders(call.ifname, link["IFLA_ADDRESS"], own, seconds)
        except OSError as error:
            raise InternalError(f'"ipam.probeSeconds": cannot probe through {call.ifname}', str(error)) from None
        links.set_down(Netlink(), link["index"])  # the main plugin brings it up once it has its addresses
    if holders:
        found = ", ".join(f"{address} by the host with MAC {mac}" for address, mac in holders.items())
        raise InternalError(
            f"static: in use on the network of {call.ifname}: {found}",
            "give the pod another address; if that host is a router that answers for all addresses, its proxy ARP",
        )


def networks(call: Call) -> list[list[Prefix]]:
    """Return the network of each address, as the gateway's address with the prefix length."""
    found = [(ip.gateway or ip.address.first + 1, ip.address) for ip in Assignment(call).ips.values()]
    return [[Prefix(gateway, own.length)] for gateway, own in found if gateway in own]


def check(call: Call) -> None:
    """Raise InternalError if an address is not in prevResult, or has another gateway there."""
    previous = previous_result(call) or Result()
    given = {ip.address: ip.gateway for ip in previous.ips}
    problems = []
    for ip in Assignment(call).ips.values():
        if ip.address not in given:
            problems.append(f"address {ip.address} is not in prevResult")
        elif ip.gateway and given[ip.address] != ip.gateway:
            there = given[ip.address] or "none"
            problems.append(f"the gateway of {ip.address} is {there} in prevResult, not {ip.gateway}")
    if problems:
        raise InternalError(f"static: {'; '.join(problems)}", "the configuration changed since ADD: recreate the pod")


def delete(_call: Call) -> None:
    """Do nothing: no address is recorded."""


def gc(call: Call) -> None:
    """Raise InvalidConfig if the list of valid attachments is missing. Nothing is recorded."""
    valid_attachments(call)


def status(call: Call) -> None:
    """Raise InvalidConfig if the configuration is invalid. Nothing else can prevent an ADD."""
    Assignment(call)
