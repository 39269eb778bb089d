"""Serve DEL and GC of a plugin that gives a pod an interface: packet filters, links, leases."""

from __future__ import annotations

import posix

from shared import steps
from shared.cni import delegate
from shared.cni.errors import CniError
from shared.cni.plugin import run_all, valid_attachments
from shared.net import filter_tables, links, netns
from shared.net.netlink import Netlink
from shared.net.owner import LINK_NOTES, Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from shared.cni.call import Call
    from shared.net.netlink import Message
    from shared.net.netns import Netns

    Verb = Callable[[Call], None]
    # DEL: host, owner of the link, namespace of the pod (None: gone); returns True if it deleted a link
    Unlink = Callable[[Netlink, Owner, "Netns | None"], bool]
    # GC: a link of the host, the network, names of the links of valid attachments
    IsLeftBehind = Callable[[Message, str, AbstractSet[str]], bool]


def delete(call: Call, unlink: Unlink, unlink_foreign: Unlink | None = None) -> None:
    """Serve DEL: remove the pod's packet filters and its link, then release the addresses.

    `unlink(host, owner, pod_netns)` deletes the link that this suite made for `owner`, and returns True if there was
    one. If the network's `type` has changed since ADD, a note may tell the link. If there was none, both are tried for
    the names that the attachment had before its network was renamed. Then `unlink_foreign` deletes a link that another
    suite made.

    Neither the pod nor the keys that made the filters need to exist any more. As long as a filter or the link is left,
    the address is not released: its next pod would get them. A DHCP client's lease is released before the link goes.
    """
    ipam = delegate.ipam_type(call)
    pod_netns = netns.open_if_there(call.netns)
    steps.begin("del")
    host = Netlink()
    own = Owner(call.network, call.container_id, call.ifname)
    former: list[Owner] = []

    def disconnect() -> None:
        if any([unlink(host, own, pod_netns), _remove_noted(own, pod_netns)]):
            return
        former.extend(_former_owners(own, pod_netns))
        for owner in former:
            run_all(
                lambda owner=owner: _remove_filters(host, owner),  # type: ignore[misc]
                lambda owner=owner: unlink(host, owner, pod_netns),  # type: ignore[misc]
                lambda owner=owner: _remove_noted(owner, pod_netns),  # type: ignore[misc]
            )
        if unlink_foreign:
            unlink_foreign(host, own, pod_netns)

    try:
        run_all(lambda: _remove_filters(host, own), *_leases_by_link(call), disconnect)
    except CniError as error:
        left = "the address stays leased: its rules or its link may be there still; repeat DEL" if ipam else ""
        error.details = "; ".join(filter(None, [error.details, left]))
        raise
    if ipam:
        calls = [call] * (not delegate.needs_link(call)) + [call.of_network(owner.network) for owner in former]
        run_all(*(lambda one=one: delegate.forward(one) for one in calls))


def verbs(kind: str) -> tuple[Verb, Verb]:
    """Return the functions `delete` and `gc` of a plugin with a link of a kind in the pod that has a note.

    Neither the pod nor a link of the host needs to exist (shared/net/sublinks.py).
    """

    def delete_noted(call: Call) -> None:
        from shared.net import sublinks

        delete(
            call, lambda _host, owner, pod_netns: sublinks.remove(owner, pod_netns, kind),
            lambda _host, owner, pod_netns: sublinks.remove_foreign(call, owner, pod_netns, kind),
        )  # fmt: skip

    return delete_noted, lambda call: collect(call, None)


def _remove_noted(owner: Owner, pod_netns: Netns | None) -> bool:
    """Delete an attachment's link in the pod that its note tells. Return True if there was one."""
    if not posix.access(LINK_NOTES, posix.F_OK):
        return False
    from shared.net import placements

    if not placements.read(owner):
        return False
    from shared.net import sublinks

    return sublinks.remove(owner, pod_netns, "")


def _leases_by_link(call: Call) -> list[Callable[[], None]]:
    """Return the step that releases leases, if that needs the pod's link: before the link is deleted."""
    return [lambda: delegate.forward(call)] if delegate.needs_link(call) else []


def _remove_filters(host: Netlink, owner: Owner) -> None:
    """Remove an attachment's packet filters. Load nothing of them if the host has no tables."""
    tables = filter_tables.present()
    if filter_tables.OF_BRIDGES & tables:
        links.set_down_if_exists(host, owner.host_link)  # without the rules that check it, the pod could send any frame
    if tables:
        from shared.pod import filters

        filters.remove(owner, tables)


def _former_owners(own: Owner, pod_netns: Netns | None) -> list[Owner]:
    """Return the attachment under the names that it had before its network was renamed, as far as that can be seen."""
    found: list[Owner] = []
    if posix.access(LINK_NOTES, posix.F_OK):
        from shared.net import placements

        found += placements.former_owners(own)
    if pod_netns is not None:
        from shared.net import renamed

        found += renamed.former_owners(own, pod_netns)
    elif tables := filter_tables.present():
        from shared.pod import filters

        found += filters.of_other_networks(own, tables)
    return list({one.network: one for one in found}.values())


def collect(
    call: Call, is_left_behind: IsLeftBehind | None, *more: Callable[[AbstractSet[tuple[str, str]]], object]
) -> None:
    """Serve GC: remove links, packet filters and leases of this network's attachments that are not valid any more.

    `is_left_behind(link, network, names)` returns True for a link of the host to delete; `names` are the host links of
    the valid attachments. It is None for a plugin without links there. Each of `more` gets the valid attachments,
    (container id, ifname).
    """
    valid = valid_attachments(call)
    steps.begin("del")
    run_all(
        *_leases_by_link(call),
        *([lambda: _collect_links(call.network, valid, is_left_behind)] if is_left_behind else []),
        lambda: _collect_noted(call.network, valid),
        *(lambda one=one: one(valid) for one in more),
        lambda: _collect_filters(call.network, valid),
        lambda: _collect_leases(call),
    )


def _collect_links(network: str, valid: AbstractSet[tuple[str, str]], is_left_behind: IsLeftBehind) -> None:
    names = {Owner(network, container_id, ifname).host_link for container_id, ifname in valid}
    links.delete_all(Netlink(), lambda link: is_left_behind(link, network, names))


def _collect_noted(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    if posix.access(LINK_NOTES, posix.F_OK):
        from shared.net import sublinks

        sublinks.collect(network, valid)


def _collect_leases(call: Call) -> None:
    if delegate.ipam_type(call) and not delegate.needs_link(call):
        delegate.forward(call)


def _collect_filters(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    if tables := filter_tables.present():
        from shared.pod import filters

        filters.collect(network, valid, tables)
