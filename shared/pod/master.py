"""Serve the keys and verbs of a plugin with links on a master: macvlan, ipvlan, vlan.

The search for the master is in shared/pod/below.py: ADD and STATUS alone load it.
"""

from __future__ import annotations

from shared import steps
from shared.cni import config
from shared.cni.config import boolean, field, unset_link_name
from shared.cni.plugin import run_all
from shared.net import links, sublinks
from shared.net.netlink import Netlink
from shared.pod import removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.pod.attachment import Attachment

    Verb = Callable[[Call], None]


class MasterKeys(config.Config):
    """The keys of a plugin whose link is made on another one, its master."""

    master: str = field(
        unset_link_name, "",
        "link that the pod's one is made on; by default, in a list the first suitable interface of the result before,"
        " else that of the default route with the lowest metric",
    )  # fmt: skip
    linkInContainer: bool = field(boolean, False, "the master is a link of the pod")


def find_parts(
    pod: Attachment, kind: str, find_differences: Callable[[Message], list[str]], host: Netlink, pod_netns: Netns,
    link: Message | None,
) -> list[Part]:  # fmt: skip
    """Return the part of CHECK that the plugin adds: the master and the link on it, which only an ADD can change.

    `find_differences(link)` returns those of the pod's link that the plugin knows.
    """
    netlink, in_pod = host, pod.keys.linkInContainer
    if in_pod:
        with pod_netns:
            netlink = Netlink()

    def compare() -> list[str]:
        if link is not None and links.kind(link) != kind:
            return []
        from shared.net import masters

        differences = find_differences(link) if link else []
        return differences + masters.problems(netlink, pod.keys.master, link, in_pod=in_pod)

    return [(compare, None)]


def check(pod: Attachment, kind: str, find_differences: Callable[[Message], list[str]]) -> None:
    """Serve CHECK: raise InternalError with all differences from the state that ADD left."""
    pod.check(kind, lambda *there: find_parts(pod, kind, find_differences, *there[:3]))


def verbs(kind: str, read: Callable[[Call], Attachment]) -> tuple[Verb, Verb, Verb]:
    """Return the functions `delete`, `gc` and `status` of a plugin with links of a kind.

    DEL and GC need neither the master nor the pod. STATUS fails if an ADD could not succeed, or nothing would pass.
    """
    return *removal.verbs(kind), lambda call: status(read(call), kind)


def status(pod: Attachment, kind: str) -> None:
    """Serve STATUS: raise PluginNotAvailable if an ADD could not succeed, or nothing would pass."""
    from shared.pod import below

    steps.begin("link")
    usable = [] if pod.keys.linkInContainer else [lambda: below.require_usable(pod, kind)]
    pod.status_in_pod(lambda: run_all(lambda: sublinks.require_kind(kind), *usable))
