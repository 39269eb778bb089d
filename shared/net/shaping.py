"""Limit the packets that a link sends, and redirect received packets through an ifb that limits them.

shared/net/qdisc.py has the token bucket, shared/net/subnets.py the limit of a part of the packets.
"""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError, UnsupportedField
from shared.net import links, qdisc
from shared.net.netlink import NetlinkError, Request
from shared.net.qdisc import GONE, ROOT_HANDLE, TrafficControl, filter_info, removal_request
from shared.net.tc_wire import (
    ETH_P_ALL,
    RTM_DELTFILTER,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TC_ACT_STOLEN,
    TC_H_INGRESS,
    TC_H_MIN_INGRESS,
    TC_H_ROOT,
    TC_U32_TERMINAL,
    TCA_EGRESS_REDIR,
)
from shared.net.wire import NLM_F_CREATE, NLM_F_EXCL, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from shared.net.netlink import Message, Netlink
    from shared.net.owner import Owner
    from shared.undo import Undo

    class Limit(Protocol):
        """A limit of the packets that a link sends, set by its root qdisc."""

        def requests(self, index: int) -> list[Request]:
            """Return the requests that set the limit on a link, to be sent together."""

        def problems(self, tc: TrafficControl, link: Message) -> list[str]:
            """Return the differences between the limit and the qdisc of a link."""


INGRESS_HANDLE = 0xFFFF0000  # ffff:, the only handle that the kernel allows
FILTERS = INGRESS_HANDLE | TC_H_MIN_INGRESS  # the parent of filters in an ingress qdisc and in a clsact
# The preference of a filter records if its qdisc was created for it. In the qdisc of another program our filter comes
# last, because it ends the search: the filters of that program still drop or allow packets.
OWN_QDISC, STRANGERS_QDISC = 1, 0xFFFF
# struct tc_u32_sel with one struct tc_u32_key (linux/pkt_cls.h): no bit of the packet's first word matters
MATCH_ALL = bytes([TC_U32_TERMINAL, 0, 1]) + bytes(13 + 16)


def limit_link(tc: TrafficControl, undo: Undo, link: Message, limit: Limit) -> None:
    """Limit the packets that a link sends. Raises InternalError if the link has a qdisc already."""
    index, name = link["index"], link["IFLA_IFNAME"]
    present = qdisc.root(tc, index)
    if present is not None and present["handle"]:
        raise InternalError(f"link {name} has a qdisc already, of the kind {present['TCA_KIND']}: delete it first")
    undo.push(f"remove the limit of {name}", lambda: tc.batch([removal_request(index, TC_H_ROOT, ROOT_HANDLE)]))
    tc.batch(limit.requests(index))


def add_ifb(host: Netlink, undo: Undo, owner: Owner, link: Message) -> Message:
    """Create the attachment's ifb, with the MTU and queue length of a link, and return it. It is down.

    One datagram creates it and gives it its alias, so that a killed call leaves no ifb that GC cannot tell from another
    network's. Raises LinkExists if it exists, UnsupportedField if the kernel has no ifb.
    """
    exists = links.LinkExists(f"{owner.ifname} is limited already: its ifb {owner.ifb} exists")
    if links.get(host, owner.ifb):
        raise exists
    message = {
        "IFLA_IFNAME": owner.ifb, "IFLA_ADDRESS": owner.ifb_mac, "IFLA_MTU": link["IFLA_MTU"],
        "IFLA_TXQLEN": link["IFLA_TXQLEN"], "IFLA_LINKINFO": {"IFLA_INFO_KIND": "ifb"},
    }  # fmt: skip
    name = Request(RTM_NEWLINK, {"IFLA_IFNAME": owner.ifb, "IFLA_IFALIAS": owner.alias})
    try:
        host.batch([Request(RTM_NEWLINK, message, NLM_F_CREATE | NLM_F_EXCL), name])
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            raise exists from None
        links.delete(host, owner.ifb)  # the kernel may have refused the alias alone
        if error.errno == errno.EOPNOTSUPP:
            raise UnsupportedField("this kernel has no ifb devices (CONFIG_IFB)", str(error)) from None
        raise
    undo.push(f"remove link {owner.ifb}", lambda: links.delete(host, owner.ifb))
    return links.require(host, owner.ifb)


def limit_ifb(host: Netlink, tc: TrafficControl, ifb: Message, limit: Limit) -> None:
    """Limit a new ifb, then bring it up. If it were up before, the kernel would wait for RCU in between."""
    tc.batch(limit.requests(ifb["index"]))
    links.set_up(host, ifb["index"])


def redirect(tc: TrafficControl, undo: Undo, link: Message, ifb: Message) -> None:
    """Redirect all packets that a link receives through an ifb.

    The filter goes into the link's ingress or clsact qdisc. If there is none, one datagram creates the qdisc and the
    filter, so that a killed call leaves both or neither.
    """
    index = link["index"]
    present = qdisc.qdisc(tc, index, TC_H_INGRESS)
    if present is None:
        undo.push(
            f"remove the ingress qdisc of {link['IFLA_IFNAME']}", lambda: tc.batch([_remove_ingress_request(index)])
        )
        tc.batch([_ingress_request(index), redirection_request(index, ifb["index"], OWN_QDISC)])
    else:
        undo.push(f"end the redirection of {link['IFLA_IFNAME']}", lambda: remove_limits(tc, index, {ifb["index"]}))
        tc.batch([redirection_request(index, ifb["index"], STRANGERS_QDISC)])


def _ingress_request(index: int) -> Request:
    message = {"index": index, "handle": INGRESS_HANDLE, "parent": TC_H_INGRESS, "TCA_KIND": "ingress"}
    return Request(RTM_NEWQDISC, message, NLM_F_CREATE | NLM_F_EXCL)


def _remove_ingress_request(index: int) -> Request:
    return removal_request(index, TC_H_INGRESS, INGRESS_HANDLE)


def redirection_request(index: int, target: int, preference: int) -> Request:
    """Return the request for a filter that sends all packets received by a link out of the link `target`."""
    mirred = {"action": TC_ACT_STOLEN, "eaction": TCA_EGRESS_REDIR, "ifindex": target}
    action = {"TCA_ACT_KIND": "mirred", "TCA_ACT_OPTIONS": {"TCA_MIRRED_PARMS": mirred}}
    options = {"TCA_U32_SEL": MATCH_ALL, "TCA_U32_ACT": {"TCA_ACT_PRIO_1": action}}
    message = {
        "index": index, "parent": FILTERS, "info": _info(preference), "TCA_KIND": "u32", "TCA_OPTIONS": options,
    }  # fmt: skip
    return Request(RTM_NEWTFILTER, message, NLM_F_CREATE | NLM_F_EXCL)


def _info(preference: int) -> int:
    return filter_info(preference, ETH_P_ALL)


def redirections(tc: TrafficControl, index: int) -> dict[int, int | None]:
    """Return the filters on received packets, by preference: the target of a redirection of all packets, else None.

    The target is a link's index, or 0 if the link was deleted.
    """
    return tc.scan(RTM_GETTFILTER, {"index": index, "parent": FILTERS}, _targets)


def _targets(stream: Iterator[Message]) -> dict[int, int | None]:
    found: dict[int, int | None] = {}
    for message in stream:
        preference = message["info"] >> 16
        found.setdefault(preference, None)
        options = message.get("TCA_OPTIONS")
        if message["TCA_KIND"] != "u32" or not isinstance(options, dict) or options.get("TCA_U32_SEL") != MATCH_ALL:
            continue
        action = options.get("TCA_U32_ACT", {}).get("TCA_ACT_PRIO_1", {})
        if action.get("TCA_ACT_KIND") == "mirred":
            mirred = action["TCA_ACT_OPTIONS"]["TCA_MIRRED_PARMS"]
            if mirred["eaction"] == TCA_EGRESS_REDIR and mirred["action"] == TC_ACT_STOLEN:
                found[preference] = mirred["ifindex"]
    return found


def remove_limits(tc: TrafficControl, index: int, ifbs: set[int]) -> None:
    """Remove the limits of a link: its root qdisc, and redirections to these ifbs or to a deleted ifb.

    Remove the ingress qdisc too if it was created for the redirection and has no other filter.
    """
    requests = []
    present = qdisc.root(tc, index)
    if present is not None and present["handle"] == ROOT_HANDLE and _is_limit(tc, present):
        requests.append(removal_request(index, TC_H_ROOT, ROOT_HANDLE))
    tc.batch([*requests, *_redirection_removals(tc, index, ifbs)])


def remove_stale_redirections(tc: TrafficControl, index: int) -> None:
    """Remove the redirections of a link to a deleted ifb: the packets would be dropped."""
    tc.batch(_redirection_removals(tc, index, set()))


def _redirection_removals(tc: TrafficControl, index: int, ifbs: set[int]) -> list[Request]:
    requests = []
    filters = redirections(tc, index)
    for preference in (OWN_QDISC, STRANGERS_QDISC):
        if filters.get(preference) not in {0, *ifbs}:
            continue
        if preference == OWN_QDISC and len(filters) == 1:
            requests.append(_remove_ingress_request(index))
        else:
            message = {"index": index, "parent": FILTERS, "info": _info(preference)}
            requests.append(Request(RTM_DELTFILTER, message, tolerate=GONE))
    return requests


def _is_limit(tc: TrafficControl, present: Message) -> bool:
    """Return True if a root qdisc is a limit of this suite or of the reference plugin."""
    if present["TCA_KIND"] == "htb":
        from shared.net import subnets

        return subnets.is_limit(tc, present["index"])
    return bool(present["TCA_KIND"] == "tbf")
