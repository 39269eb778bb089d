"""Find the master of a pod's link (macvlan, ipvlan, vlan), make the link on it, and serve the verbs of such plugins.

The kernel refuses a master that serves links of another kind. These are often in another pod: its error does not tell.
"""

from __future__ import annotations

import errno

from shared import steps
from shared.cni import config
from shared.cni.config import boolean, field, invalid, unset_link_name
from shared.cni.errors import InternalError
from shared.cni.plugin import previous_result, run_all
from shared.net import links, masters, sublinks, uppers
from shared.net.netlink import Netlink, NetlinkError
from shared.net.wire import IFF_LOWER_UP
from shared.pod import inside, removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.uppers import IsWanted, Upper
    from shared.pod.attachment import Attachment
    from shared.undo import Undo

    Verb = Callable[[Call], None]


class MasterKeys(config.Config):
    """The keys of a plugin whose link is made on another one, its master."""

    master: str = field(
        unset_link_name, "",
        "link that the pod's one is made on; by default, in a list the first suitable interface of the result before,"
        " else that of the default route with the lowest metric",
    )  # fmt: skip
    linkInContainer: bool = field(boolean, False, "the master is a link of the pod")


class Master:
    """The link below a pod's link. `netlink` is of its namespace, the host's or, with linkInContainer, the pod's.

    `name` is that of the link in the configuration, `link` the one that the kernel takes in its place.
    """

    def __init__(self, host: Netlink, pod: Attachment, pod_netns: Netns, kind: str) -> None:
        """Look it up as the configuration says, for a link of a kind. Raise InvalidConfig if there is none."""
        self.pod = pod
        self.pod_netns = pod_netns
        self.in_pod: bool = pod.keys.linkInContainer
        self.host = self.netlink = host
        if self.in_pod:
            with pod_netns:
                self.netlink = Netlink()
        found = masters.find(self.netlink, pod.keys.master, previous_result(pod.call), in_pod=self.in_pod)
        self.name: str = found["IFLA_IFNAME"]
        self.kind = kind
        self.link = masters.real(self.netlink, found, kind)

    def make(self, undo: Undo, data: Message, *, mac: str = "") -> Message:
        """Create the pod's link on the master. Return it; undo deletes it.

        Raise InvalidConfig for an MTU above the master's, InternalError for a master that serves another kind of links.
        """
        masters.require_mtu(self.link, self.pod.keys.mtu)
        try:
            return sublinks.make(
                self.host, undo, self.pod.owner, self.pod_netns, self.kind, master=self.link, in_pod=self.in_pod,
                mtu=self.pod.keys.mtu, mac=mac, data=data,
            )  # fmt: skip
        except NetlinkError as error:
            reason = self._objection() if error.errno in (errno.EBUSY, errno.EINVAL, errno.EOPNOTSUPP) else ""
            if not reason:
                raise
            raise InternalError(f'"master": {reason}', str(error)) from None

    def _objection(self) -> str:
        """Return the reason why the kernel refuses such links on the master, empty if it cannot be seen."""
        driver = masters.TAKERS.get(self.kind)
        if driver is None:  # the kernel gives its reasons
            return ""
        reason = masters.objection(self.netlink, self.link, self.kind)
        if reason:
            return reason
        other = self.find_upper(lambda _, link: masters.TAKERS.get(links.kind(link)) not in (None, driver))
        return f"link {self.name} is the master of {other}, of kind {links.kind(other.link)}" if other else ""

    def find_upper(self, is_wanted: IsWanted) -> Upper | None:
        """Return the first wanted link on top of the master, in any namespace that can be seen."""
        home = self.pod_netns.descriptor if self.in_pod else self.pod_netns.home
        return uppers.find(self.link, home, self.pod_netns.path, is_wanted)

    def configure(
        self, result: Result, *, dad: bool = False, advertisements: bool = False
    ) -> tuple[Message, Callable[[], None]]:
        """Give the pod's link its addresses, as inside.configure does. Raise InvalidConfig for a MAC on the master.

        Without an IPAM plugin, routers' advertisements are left to the namespace's defaults.
        """
        pod = self.pod
        try:
            return inside.configure(
                self.pod_netns, pod.owner.ifname, result, dad=dad, has_carrier=self.has_carrier,
                advertisements=True if advertisements else False if pod.ipam else None,
            )  # fmt: skip
        except NetlinkError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise invalid(
                pod.mac_key or "mac", pod.own_mac, f"is the MAC of {self.name} or of another link on it"
            ) from None

    @property
    def has_carrier(self) -> bool:
        """Return True if the master had carrier: only then the pod's link gets it."""
        return bool(self.link["flags"] & IFF_LOWER_UP)


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
    steps.begin("link")
    usable = [] if pod.keys.linkInContainer else [lambda: _require_usable(pod, kind)]
    pod.status_in_pod(lambda: run_all(lambda: sublinks.require_kind(kind), *usable))


def _require_usable(pod: Attachment, kind: str) -> None:
    """Raise CniError if the master cannot be used.

    Without the key `master`, a plugin before this one may make it: runtimes call STATUS without a result.
    """
    previous = previous_result(pod.call)
    if not pod.keys.master and previous is None:
        return
    host = Netlink()
    master = masters.real(host, masters.find(host, pod.keys.master, previous), kind)
    masters.require_mtu(master, pod.keys.mtu)
    masters.require_up(master)
