"""tap: a tap in the pod, for a program that sends and receives frames, such as a virtual machine."""

from __future__ import annotations

from shared import steps
from shared.cni import delegate
from shared.cni.config import boolean, field, integer, mac, unset_link_name
from shared.cni.errors import InternalError
from shared.net import links, placements, taps
from shared.net.netlink import Netlink
from shared.net.wire import RTM_NEWLINK
from shared.pod import attachment, removal
from shared.pod.attachment import Attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call
    from shared.cni.plugin import Part
    from shared.cni.result import Result
    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.undo import Undo

MOST_ID = (1 << 32) - 2  # the last number is invalid: overflow of uid_t and gid_t


class Config(attachment.Keys, attachment.MacKeys):
    """tap's keys."""

    multiQueue: bool = field(boolean, False, "several programs, or threads of one, may open the tap at a time")
    owner: int | None = field(integer(0, MOST_ID), None, "number of the user who may open the tap, besides root")
    group: int | None = field(integer(0, MOST_ID), None, "number of the group that may open the tap")
    selinuxContext: str = field(taps.selinux_context, "", "SELinux context of the tap")
    bridge: str = field(unset_link_name, "", "bridge in the pod, of which the tap becomes a port")
    mac: str = field(mac, "", "MAC of the interface")


def read(call: Call) -> Attachment:
    """Return a call's configuration. Raise InvalidConfig before anything is touched."""
    return Attachment(call, Config)


def add(call: Call, undo: Undo) -> Result:
    """Attach the pod: a persistent tap, with addresses by IPAM if there is `ipam`. The pod's programs may open it."""
    from shared.pod import inside

    pod = read(call)
    pod_netns = pod.open_netns()
    steps.begin("tap")
    _make(pod, undo, pod_netns)
    result = pod.assign(undo, interface=0)
    steps.begin("pod")
    link, _ = inside.configure(
        pod_netns, call.ifname, result, dad=False, has_carrier=False, advertisements=False if pod.ipam else None
    )
    return pod.complete(result, attachment.interface(link, call.netns))


def _make(pod: Attachment, undo: Undo, pod_netns: Netns) -> None:
    """Create the tap under its final name, down. Undo deletes it."""
    keys, name = pod.keys, pod.owner.ifname
    with pod_netns:
        inside_pod = Netlink()
        change: Message = {"IFLA_IFNAME": name, "IFLA_IFALIAS": pod.owner.alias, "IFLA_ADDRESS": pod.own_mac}
        if keys.mtu:
            change["IFLA_MTU"] = keys.mtu
        if keys.bridge:
            change["IFLA_MASTER"] = _require_bridge(inside_pod, pod)["index"]
        rights = {"multi_queue": keys.multiQueue, "owner": keys.owner, "group": keys.group}
        if links.get(inside_pod, name):
            raise links.LinkExists(f"link {name} already exists in {pod_netns.path}")
        undo.push("remove the note of the tap", lambda: placements.remove(pod.owner))
        placements.write(pod.owner, taps.KIND, pod_netns)
        remove = lambda: taps.remove_in(pod_netns, pod.owner, None)  # noqa: E731
        if keys.selinuxContext:
            undo.push(f"remove tap {name}", remove)  # the process that creates it may not answer
            change["index"] = taps.create_labelled(inside_pod, pod.owner.host_link, keys.selinuxContext, **rights)
            inside_pod.request(RTM_NEWLINK, change)
            return
        try:
            taps.create(name, before_persistent=lambda: inside_pod.request(RTM_NEWLINK, change), **rights)
        except taps.NameTaken as error:
            raise links.LinkExists(f"{error.msg} in {pod_netns.path}") from None
        undo.push(f"remove tap {name}", remove)


def _require_bridge(netlink: Netlink, pod: Attachment) -> Message:
    bridge = links.get(netlink, pod.keys.bridge)
    if bridge is None or links.kind(bridge) != "bridge":
        found = "there is none" if bridge is None else f"it is a link of kind {links.kind(bridge) or 'hardware'}"
        raise InternalError(
            f'"bridge": "{pod.keys.bridge}" must be a bridge in the pod, {pod.call.netns}: {found}',
            "an earlier attachment or the pod itself must create it",
        )
    return bridge


def check(call: Call) -> None:
    """Raise InternalError that names all differences from the state that ADD left."""
    pod = read(call)
    pod.check(taps.KIND, lambda *there: _find_parts(pod, *there))


def _find_parts(pod: Attachment, _host: Netlink, pod_netns: Netns, link: Message | None, _: Result) -> list[Part]:
    """Return the tap's rights and its bridge, which only an ADD makes."""
    keys = pod.keys

    def compare() -> list[str]:
        if link is None or links.kind(link) != taps.KIND:
            return []
        wanted = {"owner": keys.owner, "group": keys.group, "multiQueue": keys.multiQueue}
        have = taps.rights(link)
        wrong = [key for key, value in wanted.items() if have[key] != value]
        problems = [f"{key} of {pod.owner.ifname} is {have[key]}, not {wanted[key]}" for key in wrong]
        with pod_netns:
            bridge = links.get(Netlink(), keys.bridge) if keys.bridge else None
        if keys.bridge and (bridge is None or link.get("IFLA_MASTER") != bridge["index"]):
            problems.append(f"link {pod.owner.ifname} is not a port of bridge {keys.bridge}")
        return problems

    return [(compare, None)]


def delete(call: Call) -> None:
    """Remove the tap, if its namespace still exists, and release the addresses."""
    removal.delete(call, lambda _host, owner, pod_netns: taps.remove(pod_netns, owner, call))


def gc(call: Call) -> None:
    """Remove what this network's attachments that are not valid any more have left."""
    removal.collect(call, None, lambda valid: taps.collect(call.network, valid))


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed."""
    pod = read(call)

    def look() -> list[str]:
        from shared.net import readiness, sysctl

        sysctl.require_visible()
        taps.try_out(labelled=bool(pod.keys.selinuxContext))
        return readiness.ipv6(pod.keys.mtu) if readiness.has_ipv6(delegate.networks(call)) else []

    pod.status(look)
