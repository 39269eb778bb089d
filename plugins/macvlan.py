"""macvlan: a link of the pod's own on a link of the host, in the same network segment, with a MAC of its own."""

from __future__ import annotations

import errno

from shared import steps
from shared.cni import delegate
from shared.cni.config import boolean, choice, field, integer, invalid, mac
from shared.cni.errors import InternalError
from shared.cni.plugin import failure, previous_result
from shared.cni.result import IP
from shared.net import links, masters, netns, placements, sublinks, sysctl
from shared.net.netlink import Netlink, NetlinkError
from shared.net.wire import IFF_LOWER_UP
from shared.pod import attachment, inside
from shared.pod.master import Master

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo

KIND = "macvlan"
MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}  # MACVLAN_MODE_* in linux/if_link.h


class Config(attachment.MasterKeys, attachment.Keys, attachment.MacKeys):
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
            previous.ips = [ip for ip in previous.ips if ip.gateway or ip.address.version == 4]
        return previous


read = Attachment  # for validate, which touches nothing


def add(call: Call, undo: Undo) -> Result:
    """Attach the pod to its master's segment. Answer when packets can pass, if the master has carrier."""
    pod = Attachment(call)
    keys = pod.keys
    pod_netns = netns.open_netns(call.netns)
    sysctl.require_visible()
    host = Netlink()
    before = previous_result(call)
    steps.begin("link")
    master = Master(host, pod, pod_netns)
    data = {"IFLA_MACVLAN_MODE": MODES[keys.mode]}
    if keys.bcqueuelen:
        data["IFLA_MACVLAN_BC_QUEUE_LEN"] = keys.bcqueuelen
    _make(undo, pod, master, data)
    result = pod.assign(undo, interface=0)
    steps.begin("pod")
    link, announce_pod = _configure(pod, pod_netns, master.link, result)
    if keys.hostAccess:
        _give_host_access(host, undo, pod, pod_netns, master.link, result)
    announce_pod()
    steps.begin("result")
    result.interfaces = [attachment.interface(link, call.netns)]
    return result.after(before) if before else result


def _make(undo: Undo, pod: Attachment, master: Master, data: Message) -> None:
    """Create the pod's link. In mode passthru it has its master's MAC, unless the configuration demands one."""
    try:
        master.make(undo, KIND, data, mac=pod.mac if pod.keys.mode == "passthru" else pod.own_mac)
    except NetlinkError as error:
        other = master.find_upper(lambda _, link: links.kind(link) == KIND) if error.errno == errno.EINVAL else None
        if other is None:
            raise
        raise InternalError(
            f'"mode": {pod.keys.mode} is impossible on {master.name}, which has {other}: a link of mode passthru must'
            " be the only one", str(error),
        ) from None  # fmt: skip


def _configure(
    pod: Attachment, pod_netns: Netns, master: Message, result: Result
) -> tuple[Message, Callable[[], None]]:
    """Configure the pod's end. Wait for addresses by router advertisements if the configuration demands them."""
    keys = pod.keys
    try:
        link, announce_pod = inside.configure(
            pod_netns, pod.owner.ifname, result, dad=keys.enabledad, has_carrier=bool(master["flags"] & IFF_LOWER_UP),
            advertisements=True if keys.slaac else False if pod.ipam else None,
        )  # fmt: skip
    except NetlinkError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        name = master["IFLA_IFNAME"]
        raise invalid(pod.mac_key or "mac", pod.own_mac, f"is the MAC of {name} or of another link on it") from None
    if keys.slaac:
        from shared.net import slaac

        result.ips += [IP(address, None, 0) for address in slaac.await_addresses(pod_netns, link)]
    return link, announce_pod


def _give_host_access(
    host: Netlink, undo: Undo, pod: Attachment, pod_netns: Netns, master: Message, result: Result
) -> None:
    from shared.net import host_access

    steps.begin("host access")
    own = [ip.address.address for ip in result.ips]
    noted = host_access.noted(master, own)
    placements.write(pod.owner, KIND, pod_netns, **noted)
    undo.push("remove host access", lambda: host_access.remove(host, pod.owner, noted[host_access.KEY]))
    host_access.give(host, pod.owner, master, own)


def check(call: Call) -> None:
    """Raise InternalError with all differences from the state that ADD left."""
    pod = Attachment(call)
    pod.check(KIND, lambda host, _netns, *there: _find_parts(pod, host, *there))


def repair(call: Call) -> list[str]:
    """Make again the host's access to the pod, if CHECK would miss it. Return CHECK's texts."""
    pod = Attachment(call)
    return pod.repair(KIND, lambda host, _netns, *there: _find_parts(pod, host, *there))


def _find_parts(pod: Attachment, host: Netlink, link: Message | None, previous: Result) -> list[Part]:
    """Return the master and the mode, which only an ADD can change, and the host's access."""
    from shared.net import verify

    keys = pod.keys
    master = links.by_index(host, link["IFLA_LINK"]) if link and not keys.linkInContainer else None

    def compare_master() -> list[str]:
        wanted = {number: mode for mode, number in MODES.items()}
        mode = wanted.get(sublinks.read_data(link).get("IFLA_MACVLAN_MODE", 0), "unknown") if link else keys.mode
        problems = [] if mode == keys.mode else [f"link {pod.owner.ifname} has mode {mode}, not {keys.mode}"]
        if keys.linkInContainer:
            return problems
        return problems + masters.problems(host, keys.master, master)

    parts: list[Part] = [(compare_master, None)]
    if keys.hostAccess and master is not None:
        from shared.net import host_access

        own = [ip.address.address for ip in verify.own_ips(previous, pod.call)]
        look = lambda: host_access.problems(host, pod.owner, master, own)  # noqa: E731
        parts.append((look, lambda: host_access.give(host, pod.owner, master, own)))
    return parts


def delete(call: Call) -> None:
    """Remove the pod's link and the host's access to it, then release the addresses. The master need not exist."""
    attachment.delete(
        call, lambda _host, owner, pod_netns: _unlink(owner, pod_netns),
        lambda _host, owner, pod_netns: sublinks.remove_foreign(call, owner, pod_netns, KIND),
    )  # fmt: skip


def _unlink(owner: Owner, pod_netns: Netns | None) -> bool:
    """Remove the host's access, then the pod's link and the note of both. Return True if there was a link."""
    access = placements.read(owner).get("hostAccess")
    if access is not None:
        from shared.net import host_access

        host_access.remove(Netlink(), owner, access)
    return sublinks.remove(owner, pod_netns, KIND)


def gc(call: Call) -> None:
    """Remove the remains of this network's attachments that are not valid any more."""
    attachment.collect(call, None, lambda valid: sublinks.collect(call.network, KIND, valid, _unlink))


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed, or nothing would pass."""
    pod = Attachment(call)

    def look() -> list[str]:
        from shared.net import readiness

        steps.begin("link")
        sysctl.require_visible()
        found = failure(lambda: sublinks.require_kind(KIND))
        if not pod.keys.linkInContainer:
            found += failure(lambda: _require_master(pod))
        return found + (readiness.ipv6(pod.keys.mtu) if readiness.has_ipv6(delegate.networks(call)) else [])

    pod.status(look)


def _require_master(pod: Attachment) -> None:
    host = Netlink()
    master = masters.find(host, pod.keys.master, None)
    masters.require_mtu(master, pod.keys.mtu)
    masters.require_up(master)
