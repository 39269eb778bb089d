"""Find the master of a pod's link (macvlan, ipvlan, vlan), and make the link on it.

The kernel refuses a master that serves links of another kind. These are often in another pod: its error does not tell.
"""

from __future__ import annotations

import errno

from shared.cni.errors import InternalError
from shared.cni.plugin import previous_result
from shared.net import links, masters, sublinks, uppers
from shared.net.netlink import Netlink, NetlinkError
from shared.net.wire import IFF_LOWER_UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.uppers import IsWanted, Upper
    from shared.pod.attachment import Attachment
    from shared.undo import Undo


class Master:
    """The link below a pod's link. `netlink` is of its namespace, the host's or, with linkInContainer, the pod's."""

    def __init__(self, host: Netlink, pod: Attachment, pod_netns: Netns) -> None:
        """Look it up as the configuration says. Raise InvalidConfig if there is none."""
        self.pod = pod
        self.pod_netns = pod_netns
        self.in_pod: bool = pod.keys.linkInContainer
        self.host = self.netlink = host
        if self.in_pod:
            with pod_netns:
                self.netlink = Netlink()
        self.link = masters.find(self.netlink, pod.keys.master, previous_result(pod.call), in_pod=self.in_pod)
        self.name: str = self.link["IFLA_IFNAME"]

    def make(self, undo: Undo, kind: str, data: Message, *, mac: str = "") -> Message:
        """Create the pod's link on the master. Return it; undo deletes it.

        Raise InvalidConfig for an MTU above the master's, InternalError for a master that serves another kind of links.
        """
        masters.require_mtu(self.link, self.pod.keys.mtu)
        try:
            return sublinks.make(
                self.host, undo, self.pod.owner, self.pod_netns, kind, master=self.link, in_pod=self.in_pod,
                mtu=self.pod.keys.mtu, mac=mac, data=data,
            )  # fmt: skip
        except NetlinkError as error:
            reason = self._objection(kind) if error.errno in (errno.EBUSY, errno.EINVAL, errno.EOPNOTSUPP) else ""
            if not reason:
                raise
            raise InternalError(f'"master": {reason}', str(error)) from None

    def _objection(self, kind: str) -> str:
        """Return the reason why the kernel refuses links of a kind on the master, empty if it cannot be seen."""
        driver = masters.TAKERS.get(kind)
        if driver is None:  # the kernel gives its reasons
            return ""
        reason = masters.objection(self.netlink, self.link, kind)
        if reason:
            return reason
        other = self.find_upper(lambda _, link: masters.TAKERS.get(links.kind(link)) not in (None, driver))
        return f"link {self.name} is the master of {other}, of kind {links.kind(other.link)}" if other else ""

    def find_upper(self, is_wanted: IsWanted) -> Upper | None:
        """Return the first wanted link on top of the master, in any namespace that can be seen."""
        home = self.pod_netns.descriptor if self.in_pod else self.pod_netns.home
        return uppers.find(self.link, home, self.pod_netns.path, is_wanted)

    @property
    def has_carrier(self) -> bool:
        """Return True if the master had carrier: only then the pod's link gets it."""
        return bool(self.link["flags"] & IFF_LOWER_UP)
