"""Find the link below a pod's link, its master, and make the pod's link on it (macvlan, ipvlan, vlan).

The kernel refuses a master that serves links of another kind. These are often in another pod: its error does not tell.
"""

from __future__ import annotations

import errno

from shared.cni.config import invalid
from shared.cni.errors import InternalError
from shared.cni.plugin import previous_result
from shared.net import links, masters, sublinks, uppers
from shared.net.netlink import Netlink, NetlinkError
from shared.net.wire import IFF_LOWER_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.uppers import IsWanted, Upper
    from shared.pod.attachment import Attachment
    from shared.undo import Undo


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

    def make(self, undo: Undo, data: Message, *, mac: str = "") -> None:
        """Create the pod's link on the master. Undo deletes it.

        Raise InvalidConfig for an MTU above the master's, InternalError for a master that serves another kind of links.
        """
        masters.require_mtu(self.link, self.pod.keys.mtu)
        try:
            sublinks.make(
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

    def find_like(self) -> Upper | None:
        """Return a link of the same kind that the master serves, in any namespace that can be seen."""
        # the kernel makes a link on an ipvlan on the link below that one, which is in another namespace here
        path = self.pod_netns.path if self.in_pod else ""
        own = uppers.Upper(self.link, path) if links.kind(self.link) == self.kind else None
        return own or self.find_upper(lambda _, link: links.kind(link) == self.kind, self.kind)

    def find_upper(self, is_wanted: IsWanted, kind: str = "") -> Upper | None:
        """Return the first wanted link, if need be of a kind, on the master, in any namespace that can be seen."""
        home = self.pod_netns.descriptor if self.in_pod else self.pod_netns.home
        return uppers.find(self.link, home, self.pod_netns.path, is_wanted, kind)

    def configure(
        self, result: Result, *, dad: bool = False, advertisements: bool = False
    ) -> tuple[Message, Callable[[], None]]:
        """Give the pod's link its addresses, as inside.configure does. Raise InvalidConfig for a MAC on the master.

        Without an IPAM plugin, routers' advertisements are left to the namespace's defaults.
        """
        from shared.pod import inside

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


def require_usable(pod: Attachment, kind: str) -> None:
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
