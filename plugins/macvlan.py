"""macvlan: a link of the pod's own on a link of the host, in the same network segment, with a MAC of its own."""

from __future__ import annotations

import errno

from shared import steps
from shared.cni.config import boolean, choice, field, integer, invalid, mac
from shared.cni.errors import InternalError
from shared.cni.result import IP
from shared.net import links, placements, sublinks
from shared.net.netlink import Netlink, NetlinkError
from shared.pod import attachment, master, removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.pod.below import Master
    from shared.undo import Undo

KIND = "macvlan"
BY_ROUTER = "slaac"  # key of the link's note: the addresses by router advertisements
MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}  # MACVLAN_MODE_* in linux/if_link.h


class Config(master.MasterKeys, attachment.Keys, attachment.MacKeys):
    """macvlan's keys."""

    mode: str = field(
        choice(*MODES), "bridge",
        "bridge: pods on one master reach each other; private: they do not; vepa: by way of the switch; passthru: one"
        " pod has the master for itself",
    )  # fmt: skip
    mac: str = field(mac, "", "MAC of the container's interface")
    bcqueuelen: int = field(
        integer(0, 2**32 - 1),
        0,
        "broadcast packets that wait on the master; 0: the kernel's default (needs Linux 5.12)",
    )
    enabledad: bool = field(boolean, False, "wait for IPv6 duplicate address detection instead of skipping it")
    hostAccess: bool = field(
        boolean, False, "let the host and the pod reach each other, by a macvlan on the host", needs=("ipam",),
        only_with=(("mode", ("bridge",)), ("linkInContainer", (False,))),
    )  # fmt: skip
    slaac: bool = field(boolean, False, "accept router advertisements; wait for an address by them, and return it")


class Attachment(attachment.Attachment):
    """A call's configuration. Making one validates it, and changes nothing."""

    keys: Config

    def __init__(self, call: Call) -> None:
        super().__init__(call, Config)
        if self.keys.hostAccess and (self.keys.mode != "bridge" or self.keys.linkInContainer):
            raise invalid("hostAccess", True, 'needs "mode": "bridge", and a master on the host')

    def previous(self) -> Result:
        """Return the result without addresses by router advertisements, which routers may change."""
        previous = super().previous()
        if self.keys.slaac:
            by_router = placements.read(self.owner).get(BY_ROUTER, ())
            previous.ips = [ip for ip in previous.ips if str(ip.address) not in by_router]
        return previous


read = Attachment  # for validate, which touches nothing


def add(call: Call, undo: Undo) -> Result:
    """Attach the pod to its master's segment. Answer when packets can pass, if the master has carrier."""
    from shared.pod.below import Master

    pod = Attachment(call)
    keys = pod.keys
    pod_netns = pod.open_netns()
    host = Netlink()
    steps.begin("link")
    below = Master(host, pod, pod_netns, KIND)
    if keys.hostAccess and links.kind(below.link) == KIND:
        raise invalid("hostAccess", True, f"is impossible: the link below {below.name} is in another network namespace")
    data = {"IFLA_MACVLAN_MODE": MODES[keys.mode]}
    if keys.bcqueuelen:
        data["IFLA_MACVLAN_BC_QUEUE_LEN"] = keys.bcqueuelen
    _make(undo, pod, below, data)
    result = pod.assign(undo, interface=0)
    steps.begin("pod")
    link, announce_pod = _configure(pod, pod_netns, below, result)
    announce_pod()  # it sets the MAC, for which the kernel deletes the link's neighbour entries
    if keys.hostAccess:
        from shared.net import host_access

        steps.begin("host access")
        own = [ip.address.address for ip in result.ips]
        host_access.give_noted(host, undo, pod.owner, (pod_netns, link), below.link, own)
    steps.begin("result")
    return pod.complete(result, attachment.interface(link, call.netns))


def _make(undo: Undo, pod: Attachment, below: Master, data: Message) -> None:
    """Create the pod's link. In mode passthru it has its master's MAC, unless the configuration demands one."""
    try:
        below.make(undo, data, mac=pod.mac if pod.keys.mode == "passthru" else pod.own_mac)
    except NetlinkError as error:
        other = below.find_upper(lambda _, link: links.kind(link) == KIND) if error.errno == errno.EINVAL else None
        if other is None:
            raise
        raise InternalError(
            f'"mode": {pod.keys.mode} is impossible on {below.name}, which has {other}: a link of mode passthru must'
            " be the only one", str(error),
        ) from None  # fmt: skip


def _configure(pod: Attachment, pod_netns: Netns, below: Master, result: Result) -> tuple[Message, Callable[[], None]]:
    """Configure the pod's end. Wait for addresses by router advertisements if the configuration demands them."""
    from shared.pod import inside

    keys = pod.keys
    try:
        link, announce_pod = inside.configure(
            pod_netns, pod.owner.ifname, result, dad=keys.enabledad, has_carrier=below.has_carrier,
            advertisements=True if keys.slaac else False if pod.ipam else None,
        )  # fmt: skip
    except NetlinkError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise invalid(
            pod.mac_key or "mac", pod.own_mac, f"is the MAC of {below.name} or of another link on it"
        ) from None
    if keys.slaac:
        from shared.net import slaac

        by_router = slaac.await_addresses(pod_netns, link)
        placements.extend(pod.owner, **{BY_ROUTER: [str(address) for address in by_router]})
        result.ips += [IP(address, None, 0) for address in by_router]
    return link, announce_pod


def check(call: Call) -> None:
    """Raise InternalError with all differences from the state that ADD left."""
    pod = Attachment(call)
    pod.check(KIND, lambda *there: _find_parts(pod, *there))


def repair(call: Call) -> list[str]:
    """Make again the host's access to the pod, if CHECK would miss it. Return CHECK's texts."""
    pod = Attachment(call)
    return pod.repair(KIND, lambda *there: _find_parts(pod, *there))


def _find_parts(pod: Attachment, host: Netlink, pod_netns: Netns, link: Message | None, previous: Result) -> list[Part]:
    """Return the master and the mode, which only an ADD can change, and the host's access."""
    keys = pod.keys
    names = {number: mode for mode, number in MODES.items()}

    def compare_mode(link: Message) -> list[str]:
        mode = names.get(sublinks.read_data(link).get("IFLA_MACVLAN_MODE", 0), "unknown")
        return [] if mode == keys.mode else [f"link {pod.owner.ifname} has mode {mode}, not {keys.mode}"]

    parts = master.find_parts(pod, KIND, compare_mode, host, pod_netns, link)
    below = links.by_index(host, link.get("IFLA_LINK", 0)) if link and keys.hostAccess else None
    if link and below:
        from shared.net import host_access, verify

        own = [ip.address.address for ip in verify.own_ips(previous, pod.call)]
        end = (pod_netns, link)
        look = lambda: host_access.problems(host, pod.owner, end, below, own)  # noqa: E731
        parts.append((look, lambda: host_access.give(host, pod.owner, end, below, own)))
    return parts


def delete(call: Call) -> None:
    """Remove the pod's link and the host's access to it, then release the addresses."""
    master.delete(call, KIND)


def gc(call: Call) -> None:
    """Remove what this network's attachments that are not valid any more have left."""
    removal.collect(call, None)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed, or nothing would pass."""
    master.status(Attachment(call), KIND)
