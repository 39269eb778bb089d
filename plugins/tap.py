"""tap: a tap in the pod, for a program that sends and receives frames, such as a virtual machine."""

from __future__ import annotations

from shared import steps
from shared.cni.call import folded
from shared.cni.config import boolean, field, integer, invalid, mac, unset_link_name
from shared.cni.plugin import compare, required_result
from shared.net import links, netns, sublinks, taps
from shared.net.netlink import Netlink
from shared.net.owner import Owner
from shared.pod import attachment, inside, removal

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
    redirect: str = field(
        unset_link_name, "",
        "name of a tap beside the interface that the plugin before this one made: all frames of each pass to the other",
    )  # fmt: skip


class Attachment(attachment.Attachment):
    """A call's configuration. Making one validates it, and changes nothing."""

    keys: Config

    def __init__(self, call: Call) -> None:
        super().__init__(call, Config)
        keys = self.keys
        self.rights = {"multiQueue": keys.multiQueue, "owner": keys.owner, "group": keys.group}
        others = {"ipam": self.ipam, "bridge": keys.bridge, "mtu": keys.mtu, self.mac_key: self.mac}
        for key, value in others.items() if keys.redirect else ():
            if value:
                raise invalid(key, value, 'and "redirect" exclude each other: the interface before decides this')
        if keys.redirect == call.ifname:
            raise invalid("redirect", keys.redirect, "is the name of the interface itself")


read = Attachment  # for validate, which touches nothing


def add(call: Call, undo: Undo) -> Result:
    """Attach the pod: a persistent tap, with addresses by IPAM if there is `ipam`. The pod's programs may open it."""
    pod = Attachment(call)
    pod_netns = pod.open_netns()
    steps.begin("tap")
    if pod.keys.redirect:
        return _add_beside(pod, undo, pod_netns)
    _make(pod, undo, pod_netns)
    result = pod.assign(undo, interface=0)
    steps.begin("pod")
    link, _ = inside.configure(
        pod_netns, call.ifname, result, dad=False, has_carrier=False, advertisements=False if pod.ipam else None
    )
    return pod.complete(result, attachment.interface(link, call.netns))


def _add_beside(pod: Attachment, undo: Undo, pod_netns: Netns) -> Result:
    """Create the tap beside the interface that the result before has. Return that result, with the tap."""
    from shared.net import tap_redirection

    keys, result = pod.keys, required_result(pod.call)
    tap = tap_redirection.add(undo, pod.owner, pod_netns, keys.redirect, context=keys.selinuxContext, rights=pod.rights)
    result.interfaces.append(attachment.interface(tap, pod.call.netns))
    return result


def _make(pod: Attachment, undo: Undo, pod_netns: Netns) -> None:
    """Create the tap under its final name, down. Undo deletes it."""
    keys = pod.keys
    attributes: Message = {"IFLA_ADDRESS": pod.own_mac}
    with pod_netns:
        inside_pod = Netlink()
    if keys.mtu:
        attributes["IFLA_MTU"] = keys.mtu
    if keys.bridge:
        attributes["IFLA_MASTER"] = taps.require_bridge(inside_pod, keys.bridge, pod_netns.path)["index"]
    sublinks.note_coming(inside_pod, undo, pod.owner, pod_netns, taps.KIND)
    taps.make(undo, pod.owner, pod_netns, pod.owner.ifname, attributes, context=keys.selinuxContext, rights=pod.rights)


def check(call: Call) -> None:
    """Raise InternalError that names all differences from the state that ADD left."""
    pod = Attachment(call)
    if not pod.keys.redirect:
        pod.check(taps.KIND, lambda *there: _find_parts(pod, *there))
        return
    from shared.net import tap_redirection

    pod_netns = netns.open_netns(call.netns)
    look = lambda: tap_redirection.find_differences(pod.owner, pod_netns, pod.keys.redirect, pod.rights)  # noqa: E731
    compare(f"tap {pod.keys.redirect} of {call.network} is not as ADD left it", [(look, None)])


def _find_parts(pod: Attachment, _host: Netlink, pod_netns: Netns, link: Message | None, _: Result) -> list[Part]:
    """Return the tap's rights and its bridge, which only an ADD makes."""
    keys = pod.keys

    def look() -> list[str]:
        if link is None or links.kind(link) != taps.KIND:
            return []
        problems = taps.right_problems(link, pod.rights)
        with pod_netns:
            bridge = links.get(Netlink(), keys.bridge) if keys.bridge else None
        if keys.bridge and (bridge is None or link.get("IFLA_MASTER") != bridge["index"]):
            problems.append(f"link {pod.owner.ifname} is not a port of bridge {keys.bridge}")
        return problems

    return [(look, None)]


def delete(call: Call) -> None:
    """Remove the tap, and release the addresses. Neither the pod nor a result needs to exist."""
    if not folded(call.config, "redirect"):
        _delete(call)
        return
    from shared.net import tap_redirection

    owner = Owner(call.network, call.container_id, call.ifname)
    tap_redirection.remove(owner, netns.open_if_there(call.netns))


_delete, gc = removal.verbs(taps.KIND)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if an ADD could not succeed."""
    pod = Attachment(call)
    pod.status_in_pod(lambda: taps.try_out(labelled=bool(pod.keys.selinuxContext)))
