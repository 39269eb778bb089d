"""vlan: a VLAN of a link, with its tagged frames, as the pod's interface."""

from __future__ import annotations

import errno

from shared import steps
from shared.cni.config import field, integer, invalid
from shared.cni.plugin import previous_result
from shared.net import links, sublinks
from shared.net.netlink import Netlink
from shared.pod import attachment, master
from shared.pod.attachment import Attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.pod.below import Master
    from shared.undo import Undo

KIND = "vlan"
POD_INTERFACE = 0  # its place in the result
VLAN_FLAG_LOOSE_BINDING = 4  # linux/if_vlan.h
# Without it the kernel takes the link down with its master, and flushes the pod's IPv4 routes.
LOOSE = {"flags": VLAN_FLAG_LOOSE_BINDING, "mask": VLAN_FLAG_LOOSE_BINDING}


class Config(attachment.Keys, master.MasterKeys):
    """vlan's keys."""

    vlanId: int = field(integer(0, 4094), 0, "VLAN; 0: frames with a priority tag, which belong to no VLAN")


def read(call: Call) -> Attachment:
    """Return a call's configuration. Raise InvalidConfig before anything is touched."""
    return Attachment(call, Config)


def add(call: Call, undo: Undo) -> Result:
    """Attach the pod: a VLAN of the master, addresses by IPAM, routes. Answer when packets can pass."""
    from shared.net import masters
    from shared.pod.below import Master

    pod = read(call)
    if not pod.keys.master and previous_result(call) is None:
        raise invalid("master", None, "is required, unless a plugin before this one made the link")
    pod_netns = pod.open_netns()
    steps.begin("link")
    below = Master(Netlink(), pod, pod_netns, KIND)
    masters.require_up(below.link)
    _make(undo, pod, below)
    result = pod.assign(undo, interface=POD_INTERFACE)
    steps.begin("pod")
    link, announce_pod = below.configure(result)
    announce_pod()
    return pod.complete(result, attachment.interface(link, call.netns))


def _make(undo: Undo, pod: Attachment, below: Master) -> None:
    """Create the link. If a pod has the VLAN already, raise InternalError that names the pod."""
    from shared.net import uppers

    vlan = pod.keys.vlanId
    uppers.when_free(
        lambda: below.make(undo, {"IFLA_VLAN_ID": vlan, "IFLA_VLAN_FLAGS": LOOSE}),
        errno.EEXIST,
        lambda: below.find_upper(lambda _, link: _vlan(link) == vlan),
        f"VLAN {vlan} on {below.name}",
        "each VLAN of a link is for one pod; for more, use macvlan on a VLAN link of the host, or bridge with vlan",
    )


def _vlan(link: Message) -> int | None:
    return sublinks.read_data(link).get("IFLA_VLAN_ID") if links.kind(link) == KIND else None


def check(call: Call) -> None:
    """Raise InternalError with all differences from the state that ADD left."""
    pod = read(call)

    def find_differences(link: Message) -> list[str]:
        vlan, wanted = _vlan(link), pod.keys.vlanId
        return [] if vlan == wanted else [f"link {call.ifname} in {call.netns} has VLAN {vlan}, not {wanted}"]

    master.check(pod, KIND, find_differences)


delete, gc, status = master.verbs(KIND, read)
