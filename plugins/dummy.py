"""dummy: a link of the pod's own that leads nowhere, for service addresses."""

from __future__ import annotations

from shared import steps
from shared.cni.config import invalid
from shared.cni.plugin import failure
from shared.net import sublinks
from shared.net.netlink import Netlink
from shared.pod import attachment, master, removal
from shared.pod.attachment import Attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.result import Result
    from shared.undo import Undo

KIND = "dummy"


class Config(attachment.Keys, attachment.MacKeys):
    """dummy's keys."""


def read(call: Call) -> Attachment:
    """Return a call's configuration. Raise InvalidConfig before anything is touched."""
    pod = Attachment(call, Config)
    if not pod.ipam:
        raise invalid("ipam", None, "is required: without addresses the link has no use")
    return pod


def add(call: Call, undo: Undo) -> Result:
    """Create the pod's link, with addresses by IPAM. Answer when they can be used."""
    from shared.pod import inside

    pod = read(call)
    pod_netns = pod.open_netns()
    steps.begin("link")
    sublinks.make(Netlink(), undo, pod.owner, pod_netns, KIND, mtu=pod.keys.mtu, mac=pod.own_mac)
    result = pod.assign(undo, interface=0)
    steps.begin("pod")
    link, _ = inside.configure(pod_netns, call.ifname, result, dad=False, has_carrier=False)
    steps.begin("result")
    return pod.complete(result, attachment.interface(link, call.netns))


def check(call: Call) -> None:
    """Raise InternalError with all differences from the state that ADD left."""
    read(call).check(KIND, lambda *_there: [])


def delete(call: Call) -> None:
    """Remove the pod's link, then release the addresses."""
    master.delete(call, KIND)


def gc(call: Call) -> None:
    """Remove what this network's attachments that are not valid any more have left."""
    removal.collect(call, None)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed."""
    read(call).status(lambda: failure(lambda: sublinks.require_kind(KIND)))
